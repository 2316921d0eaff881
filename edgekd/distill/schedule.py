"""The optimiser, its learning rate over the training, the average of the weights, when to stop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.spec import Train


def make_optimiser(model: nn.Module, train: Train) -> torch.optim.Optimizer:
    """AdamW without decay on norms and biases."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": train.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=train.lr)


def learning_rate(train: Train, at: float, drops: int = 0) -> float:
    """Learning rate of a step.

    Args:
        train: Linear warm-up, then its schedule.
        at: Share of all steps done.
        drops: Plateaus met so far.
    """
    if at < train.warmup:
        return train.lr * at / train.warmup
    if train.schedule != "cosine":
        return train.lr * 0.1**drops
    return train.lr * 0.5 * (1 + math.cos(math.pi * (at - train.warmup) / (1 - train.warmup)))


@dataclass
class Watch:
    """What validation said so far.

    Attributes:
        best: Best score, larger is better; None before the first.
        since: Epochs since then.
        drops: Times that the learning rate was cut.
        weights: Of the best epoch, where the training may stop early.
        epoch: The best epoch, counted from 1.
    """

    best: float | None = None
    since: int = 0
    drops: int = 0
    epoch: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)

    def see(self, train: Train, epoch: int, score: float, model: nn.Module) -> bool:
        """Take in the score of an epoch; return whether to stop."""
        if self.best is None or score > self.best:
            self.best, self.since, self.epoch = score, 0, epoch
            if train.stop:
                self.weights = {n: v.detach().clone() for n, v in model.state_dict().items()}
            return False
        self.since += 1
        if train.schedule == "plateau" and self.since % max(1, train.patience) == 0:
            self.drops += 1
        return bool(train.stop) and self.since >= train.stop

    def state(self) -> dict[str, Any]:
        """Everything, for a checkpoint."""
        return dict(vars(self))


class Average:
    """Moving average of a network's weights and statistics.

    Args:
        model: The network.
        decay: Share of the old value that stays at every step; early steps forget faster, by
            (1 + steps) / (10 + steps), so that the start does not linger.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.values = {n: v.detach().clone() for n, v in model.state_dict().items()}

    def update(self, model: nn.Module) -> None:
        """Take in the weights after a step."""
        keep = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.values[name].mul_(keep).add_(value.detach(), alpha=1 - keep)
            else:
                self.values[name].copy_(value)

    def state(self) -> dict[str, Any]:
        """Everything, for a checkpoint."""
        return {"steps": self.steps, "values": self.values}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take what `state` gave."""
        self.steps = state["steps"]
        for name, value in state["values"].items():
            self.values[name].copy_(value)
