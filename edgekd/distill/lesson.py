"""What one training is about, and the batches it is cut into."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.distill.loss import Batch
from edgekd.distill.parallel import Crew
from edgekd.distill.rollouts import Practice, Rollouts, part_of, share_of
from edgekd.distill.teacher import TeacherOutputs
from edgekd.distill.views import Augment, Prepare, View, fresh, view_count
from edgekd.spec import Input, Train


@dataclass(frozen=True)
class Lesson:
    """What one training is about: everything but the network.

    Attributes:
        dataset: Map-style training split.
        labels: (samples,) int64, or floats (samples, …).
        input: Tensor contract.
        train: Budget and optimiser.
        augment: Augmentation, or None.
        teacher: Cached outputs, or None for a training without teacher.
        seed: Seed.
        device: Where to train.
        practice: How the student acts, for on-policy distillation.
        corrupt: What only the student's samples go through, or None.
        validate: Score of a backbone on validation data, larger is better.
        base: Folder of the recipe.
        crew: The processes that share the training.
    """

    dataset: Any
    labels: Tensor
    input: Input
    train: Train
    augment: Augment | None
    teacher: TeacherOutputs | None
    seed: int
    device: torch.device
    practice: Practice | None = None
    corrupt: Augment | None = None
    validate: Callable[[nn.Module], float] | None = None
    base: Path = Path()
    crew: Crew = field(default_factory=Crew)

    @property
    def steps(self) -> int:
        """Steps an epoch: the last, partial batch is left out unless it is the only one."""
        return max(1, len(self.labels) // self.train.batch)


def batches(lesson: Lesson, epoch: int, rollouts: Rollouts) -> Iterator[Batch]:
    """Yield the batches of one epoch: of the data, of rollouts, or some of both in each."""
    met = share_of(lesson.train, part_of(lesson.train, epoch)) if rollouts.rounds else 0
    base = _from_data(lesson, epoch, lesson.train.batch - met)
    if not met:
        yield from base
        return
    practised = _from_rollouts(lesson, epoch, met, rollouts)
    if met == lesson.train.batch:
        yield from practised
        return
    for one, two in zip(base, practised, strict=True):
        yield one.join(two)


def _from_rollouts(lesson: Lesson, epoch: int, size: int, rollouts: Rollouts) -> Iterator[Batch]:
    """Yield batches of what the student met, as it is: no augmentation."""
    ready, seed = Prepare(lesson.input), lesson.seed * 104_729 + epoch
    for raw, labels, taps in rollouts.batches(size, lesson.steps, seed):
        nowhere = torch.full((len(labels),), -1)
        yield Batch(ready(raw), labels, taps, nowhere).to(lesson.device)


def _from_data(lesson: Lesson, epoch: int, size: int) -> Iterator[Batch]:
    """Yield batches of the data, in an order drawn from (seed, epoch)."""
    samples = len(lesson.labels)
    generator = torch.Generator().manual_seed(lesson.seed * 7919 + epoch)
    order = torch.randperm(samples, generator=generator)[: lesson.steps * size]
    view = epoch % view_count(lesson.train)
    look, ready = View(lesson.augment, samples, lesson.seed, view), Prepare(lesson.input)
    spoil = View(lesson.corrupt, samples, fresh(lesson.seed), epoch)
    parts = [lesson.crew.share(part) for part in torch.split(order, size)]
    for indices, raw in read(lesson.dataset, parts, lesson.train.workers):
        taps = {} if lesson.teacher is None else lesson.teacher.take(view, indices)
        seen = spoil.change(look(raw, indices), indices)
        yield Batch(ready(seen), lesson.labels[indices], taps, indices).to(lesson.device)


def read(dataset: Any, parts: list[Tensor], workers: int) -> Iterator[tuple[Tensor, Any]]:
    """Yield (indices, raw samples) of each part, from ``take`` or through a data loader."""
    if hasattr(dataset, "take"):
        for indices in parts:
            yield indices, dataset.take(indices.numpy())
        return
    from torch.utils.data import DataLoader, Subset

    order = torch.cat(parts).tolist()
    loader: Any = DataLoader(Subset(dataset, order), len(parts[0]), num_workers=workers)
    for indices, (raw, _) in zip(parts, loader, strict=True):
        yield indices, raw
