"""InceptionTime and its light forms, written to export cleanly: Conv2d(1, k), ReLU before concat.

Sources: InceptionTime (arXiv 1909.04939), LiteInception's "1+1 branches" (arXiv 2604.01725, known
from its abstract alone: kernel, width and depth here are our choice, and reproduce its "70 %
fewer parameters"), LITE's depthwise-separable layers (arXiv 2409.02869).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

KERNELS = (39, 19, 9)
"""Odd, where the paper has 40, 20, 10: no asymmetric padding."""
LITE_KERNEL = 19


def inception(
    *,
    channels: int = 23,
    classes: int = 2,
    form: Literal["teacher", "student", "lite"] = "teacher",
    maps: int = 32,
    depth: int = 6,
    gate: bool = False,
) -> InceptionTime:
    """Build a network for series (batch, channels, 1, length).

    Args:
        channels: Of the series.
        classes: Width of the classifier.
        form: ``teacher`` three kernels and a pooling branch; ``student`` one and the pooling
            branch; ``lite`` the student with depthwise-separable convolutions.
        maps: Feature maps a branch.
        depth: Modules; every third closes a residual.
        gate: Squeeze-and-excitation gates over the channels, whose values rank sensors.
    """
    kernels = KERNELS if form == "teacher" else (LITE_KERNEL,)
    return InceptionTime(channels, classes, kernels, maps, depth, form == "lite", gate)


def ensemble(
    *,
    members: int = 4,
    channels: int = 23,
    classes: int = 2,
    form: Literal["teacher", "student", "lite"] = "student",
    maps: int = 32,
    depth: int = 6,
) -> Ensemble:
    """Build several networks whose answers are averaged, as InceptionTime is published.

    Args:
        members: How many.
        channels: See `inception`, as all that follow.
        classes: Width of the classifier.
        form: Of every member.
        maps: Feature maps a branch.
        depth: Modules.
    """
    return Ensemble(
        [
            inception(channels=channels, classes=classes, form=form, maps=maps, depth=depth)
            for _ in range(members)
        ]
    )


class Ensemble(nn.Module):
    """Networks that learn alone and answer together; see `ensemble`.

    In training each one sees its own part of a batch, so that an epoch costs what one network's
    does, and that many times more epochs give each of them what one alone would have learnt.
    """

    def __init__(self, members: list[InceptionTime]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, 1, length) → logits (batch, classes): the mean of log shares."""
        if self.training:
            parts = x.tensor_split(len(self.members))
            seen = [m(part) for m, part in zip(self.members, parts, strict=True) if len(part)]
            return torch.cat(seen)
        answers = [member(x).log_softmax(1) for member in self.members]
        return torch.stack(answers).mean(0)


class InceptionTime(nn.Module):
    """Inception modules with residuals, global mean, linear classifier; see `inception`."""

    def __init__(
        self,
        channels: int,
        classes: int,
        kernels: tuple[int, ...],
        maps: int,
        depth: int,
        depthwise: bool = False,
        gate: bool = False,
    ) -> None:
        super().__init__()
        width = maps * (len(kernels) + 1)
        self.features = width
        self.gate = Gate(channels) if gate else None
        sizes = [channels] + [width] * depth
        self.blocks = nn.ModuleList(Block(sizes[i], maps, kernels, depthwise) for i in range(depth))
        self.shortcuts = nn.ModuleList(
            _conv_norm(sizes[i - 2], width, 1) for i in range(2, depth, 3)
        )
        self.head = nn.Linear(width, classes)

    def maps(self, x: Tensor) -> Tensor:
        """Feature maps before the mean: (batch, width, 1, length)."""
        if self.gate is not None:
            x = self.gate(x)
        kept = x
        for place, block in enumerate(self.blocks):
            x = block(x)
            if place % 3 == 2:
                x = torch.relu(x + self.shortcuts[place // 3](kept))
                kept = x
        return x

    def embed(self, x: Tensor) -> Tensor:
        """Mean over time: (batch, width)."""
        mean: Tensor = self.maps(x).mean((2, 3))
        return mean

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, 1, length) → logits (batch, classes)."""
        logits: Tensor = self.head(self.embed(x))
        return logits


class Block(nn.Module):
    """Bottleneck, parallel convolutions, a pooled branch; each branch normalised on its own.

    A batch norm after the concatenation, as in the paper, is the same function; in front of it
    every exporter folds it into the branch's convolution.
    """

    def __init__(self, inputs: int, maps: int, kernels: tuple[int, ...], depthwise: bool) -> None:
        super().__init__()
        self.bottleneck = nn.Conv2d(inputs, maps, 1, bias=False)
        branch = _separable if depthwise else _conv_norm
        self.branches = nn.ModuleList(branch(maps, maps, kernel) for kernel in kernels)
        self.pool = nn.MaxPool2d((1, 3), 1, (0, 1))
        self.pooled = _conv_norm(inputs, maps, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, 1, length) → (batch, maps · branches, 1, length), not negative."""
        narrow = self.bottleneck(x)
        parts = [torch.relu(branch(narrow)) for branch in self.branches]
        return torch.cat([*parts, torch.relu(self.pooled(self.pool(x)))], 1)


class Gate(nn.Module):
    """Squeeze and excitation of the input channels (arXiv 1709.01507); keeps its last values."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        hidden = max(2, channels // reduction)
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.excite = nn.Conv2d(hidden, channels, 1)

    def values(self, x: Tensor) -> Tensor:
        """Gate of every channel in 0…1: (batch, channels, 1, 1)."""
        spread = (x * x).mean((2, 3), keepdim=True)
        return torch.sigmoid(self.excite(torch.relu(self.squeeze(spread))))

    def forward(self, x: Tensor) -> Tensor:
        """Scale every channel."""
        return x * self.values(x)


def _conv_norm(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, (1, kernel), padding=(0, kernel // 2), bias=False),
        nn.BatchNorm2d(outputs),
    )


def _separable(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, (1, kernel), padding=(0, kernel // 2), groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
    )
