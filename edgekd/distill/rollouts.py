"""On-policy distillation: what the student met when it acted, and how much of it is trained on.

At the start of every part of the training but the first the student acts (`Train.rollout`); what
it met is kept with its labels and with what the teacher says there, computed on the spot.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekd.distill.teacher import Taps
from edgekd.distill.views import as_tensor
from edgekd.errors import RecipeError
from edgekd.spec import Train

FILE = "rollouts.pt"
CHUNK = 256
SEED_STEP = 7_368_787
"""Distance of the seeds of two rounds: a prime, so that recipes with near seeds do not share."""

Model = Callable[[Any], Any]


def part_of(train: Train, epoch: int) -> int:
    """Part of the training that an epoch belongs to: 0 to ``rounds``.

    Raises:
        RecipeError: There are fewer epochs than parts.
    """
    if train.rollout is None:
        return 0
    if not 0 < train.rounds < train.epochs or not 0 <= train.on_policy <= 1:
        raise RecipeError(
            f"{train.rounds} rollouts divide {train.epochs} epochs, a share of {train.on_policy}",
            at="recipe: Train.rounds",
            hint="at least one round, more epochs than rounds, on_policy from 0 to 1",
        )
    return epoch * (train.rounds + 1) // train.epochs


def share_of(train: Train, part: int) -> int:
    """How many samples of a batch come from rollouts in a part: λ·batch."""
    return round(train.on_policy * part / train.rounds * train.batch) if part else 0


@dataclass(frozen=True)
class Practice:
    """How a student acts and who judges it.

    Attributes:
        act: ``act(model, round, seed)``: the recipe's rollout, its data bound.
        teacher: Raw samples → taps, scaled like the cached ones; None without teacher.
        seed: Seed of the recipe.
    """

    act: Callable[[Model, int, int], Any]
    teacher: Callable[[Any], Taps] | None
    seed: int


@dataclass
class Rollouts:
    """Everything met so far.

    Attributes:
        raw: Samples, (samples, …); empty before the first rollout.
        labels: Of the samples.
        taps: What the teacher says there.
        rounds: Rollouts that are in.
        counts: Samples of each.
    """

    raw: list[Any] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)
    taps: list[Taps] = field(default_factory=list)

    @property
    def rounds(self) -> int:
        """Rollouts that are in."""
        return len(self.raw)

    @property
    def counts(self) -> list[int]:
        """Samples of every rollout."""
        return [len(part) for part in self.raw]

    def add(self, practice: Practice, model: Model, labels: Tensor) -> None:
        """Let the student act once more.

        Args:
            practice: How.
            model: The student: raw samples in, outputs out.
            labels: Of the data; those of the rollout must be of their kind and shape.
        """
        number = self.rounds + 1
        met = practice.act(model, number, practice.seed + SEED_STEP * number)
        found = _labels(met, labels)
        parts = [
            np.asarray(met.take(np.arange(start, min(start + CHUNK, len(found)))))
            for start in range(0, len(found), CHUNK)
        ]
        said = [] if practice.teacher is None else [practice.teacher(part) for part in parts]
        self.raw.append(np.concatenate(parts))
        self.labels.append(found)
        taps = said[0] if said else {}
        self.taps.append({tap: torch.cat([part[tap] for part in said]) for tap in taps})

    def batches(self, size: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor, Taps]]:
        """Yield ``steps`` batches of raw floats, labels and taps, each ``size`` samples.

        Every sample is seen once before any is seen again.
        """
        count, generator = sum(self.counts), torch.Generator().manual_seed(seed)
        passes = -(-size * steps // count)
        order = torch.cat([torch.randperm(count, generator=generator) for _ in range(passes)])
        raw, labels = np.concatenate(self.raw), torch.cat(self.labels)
        taps = {tap: torch.cat([t[tap] for t in self.taps]) for tap in self.taps[0]}
        for rows in torch.split(order[: size * steps], size):
            some = {tap: values[rows] for tap, values in taps.items()}
            yield as_tensor(raw[rows.numpy()]), labels[rows], some

    def save(self, folder: Path) -> None:
        """Keep them for a training that is interrupted; a kill leaves the old or the new file."""
        folder.mkdir(parents=True, exist_ok=True)
        raw = [torch.from_numpy(part) for part in self.raw]
        fresh = folder / f"{FILE}.tmp"
        with fresh.open("wb") as file:
            torch.save({"raw": raw, "labels": self.labels, "taps": self.taps}, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(folder / FILE)


def open_rollouts(folder: Path) -> Rollouts:
    """Read what an interrupted training kept; empty when there is nothing."""
    if not (folder / FILE).exists():
        return Rollouts()
    kept = torch.load(folder / FILE, weights_only=True)
    return Rollouts([part.numpy() for part in kept["raw"]], kept["labels"], kept["taps"])


def _labels(met: Any, labels: Tensor) -> Tensor:
    """Labels of a rollout, of the type of the data's.

    Raises:
        RecipeError: It brought nothing, has no ``take`` or other labels than the data.
    """
    if not hasattr(met, "take") or not hasattr(met, "labels"):
        raise RecipeError(
            f"the rollout returned {type(met).__name__}",
            at="recipe: Train.rollout",
            hint="return a map-style dataset with take(indices) and labels",
        )
    found = torch.from_numpy(np.asarray(met.labels))
    same = found.is_floating_point() == labels.is_floating_point()
    if len(found) == 0 or found.shape[1:] != labels.shape[1:] or not same:
        raise RecipeError(
            f"the rollout's labels are {found.dtype} {tuple(found.shape)}, the data's"
            f" {labels.dtype} {tuple(labels.shape)}",
            at="recipe: Train.rollout",
            hint="label every state that the student met as the data is labelled",
        )
    return found.to(labels.dtype)
