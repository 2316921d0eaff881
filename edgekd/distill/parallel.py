"""Several processes at one training: who am I, what is mine, and the same gradient for all."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from edgekd.distill import terms
from edgekd.errors import RecipeError
from edgekd.spec import Objective, Train


@dataclass(frozen=True)
class Crew:
    """The processes of one training.

    Attributes:
        rank: Which one this is.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this one writes."""
        return self.rank == 0

    def share(self, indices: Tensor) -> Tensor:
        """This process's part of a batch."""
        return indices if self.size == 1 else indices.chunk(self.size)[self.rank]

    def mean(self, value: float, device: torch.device) -> float:
        """Mean over the processes."""
        if self.size == 1:
            return value
        total = torch.tensor(value, device=device)
        dist.all_reduce(total)
        return float(total) / self.size

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()


def join(device: torch.device) -> Crew:
    """Take part in what torchrun started; alone when it did not."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return Crew()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Crew(dist.get_rank(), dist.get_world_size())


def check_shares(train: Train, objective: Objective, samples: int) -> None:
    """Refuse what cannot be shared or cut.

    Raises:
        RecipeError: A batch that does not divide, a divergence that mixes the batch over
            processes that each see a part, rollouts in several processes.
    """
    parts = train.processes * train.accumulate
    if min(train.processes, train.accumulate) < 1 or train.batch % parts:
        raise RecipeError(
            f"a batch of {train.batch} cannot be cut into {train.processes} processes ×"
            f" {train.accumulate} micro-batches",
            at="recipe: Train.batch",
            hint=f"a multiple of {max(1, parts)}",
        )
    if train.processes == 1:
        return
    mixing = [term.divergence for term in objective.terms if terms.couples(term)]
    if mixing:
        raise RecipeError(
            f"term {mixing[0]!r} compares the samples of a batch with one another; in"
            f" {train.processes} processes each would see a part of it",
            at="recipe: Train.processes",
            hint="one process, or a divergence by sample (kl, mse, dkd …)",
        )
    if train.rollout is not None or samples < train.batch:
        raise RecipeError(
            "rollouts are trained on in one process"
            if train.rollout
            else f"{samples} samples do not fill a batch of {train.batch}",
            at="recipe: Train.processes",
            hint="processes=1",
        )
