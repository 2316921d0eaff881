"""The training loop: plain torch, deterministic, resumable to a bit-identical end on CPU.

Everything random is derived from (seed, epoch) or (seed, view), so a checkpoint needs no
generator state: an epoch that is run again does exactly the same.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.distill import terms
from edgekd.distill.rollouts import FILE as ROLLOUTS
from edgekd.distill.rollouts import Practice, Rollouts, open_rollouts, part_of, share_of
from edgekd.distill.student import Student
from edgekd.distill.teacher import TeacherOutputs
from edgekd.distill.views import Augment, Prepare, View, in_process, view_count
from edgekd.errors import StageError
from edgekd.events import Emit, Progress
from edgekd.spec import Input, Objective, Train

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Lesson:
    """What one training is about: everything but the network.

    Attributes:
        dataset: Map-style training split.
        labels: (samples,) int64, or floats (samples, …).
        input: Tensor contract.
        train: Budget and optimiser.
        objective: Terms.
        augment: Augmentation, or None.
        teacher: Cached outputs, or None for a training without teacher.
        seed: Seed.
        device: Where to train.
        practice: How the student acts, for on-policy distillation.
    """

    dataset: Any
    labels: Tensor
    input: Input
    train: Train
    objective: Objective
    augment: Augment | None
    teacher: TeacherOutputs | None
    seed: int
    device: torch.device
    practice: Practice | None = None


def fit(student: Student, lesson: Lesson, work: Path, step: str, emit: Emit) -> dict[str, Any]:
    """Train ``student`` in place; resume from ``work`` when a checkpoint lies there.

    Args:
        student: The network in training.
        lesson: Data, budget and objective.
        work: Folder of the checkpoint and the rollouts; the first is written after every epoch,
            the second after every round, and both are removed at the end.
        step: Name of the step in events.
        emit: Progress.

    Returns:
        ``history`` (loss per epoch), ``epochs``, ``steps``, ``cpu_s``, ``seconds``, and
        ``rollouts`` (samples of each) where there are any.

    Raises:
        StageError: The loss is not finite, or memory ran out.
    """
    torch.use_deterministic_algorithms(True)
    student.to(lesson.device)
    student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = _optimiser(student, lesson.train)
    done = _resume(work / CHECKPOINT, student, optimiser)
    rollouts = open_rollouts(work)
    progress = Progress(emit, step, lesson.train.epochs, "epochs", start=done["epoch"])
    for epoch in range(done["epoch"], lesson.train.epochs):
        cpu, wall = time.process_time(), time.monotonic()
        _practise(student, lesson, rollouts, epoch, work)
        loss = _epoch(student, lesson, optimiser, epoch, rollouts)
        done["epoch"] = epoch + 1
        done["history"].append(loss)
        done["cpu_s"] += time.process_time() - cpu
        done["seconds"] += time.monotonic() - wall
        _save(work / CHECKPOINT, student, optimiser, done)
        progress.advance(1, f"loss {loss:.4f}", loss=loss)
    for name in (CHECKPOINT, ROLLOUTS):
        (work / name).unlink(missing_ok=True)
    steps = lesson.train.epochs * _steps(len(lesson.labels), lesson.train.batch)
    return {
        "history": done["history"],
        "epochs": lesson.train.epochs,
        "steps": steps,
        "cpu_s": done["cpu_s"],
        "seconds": done["seconds"],
        **({"rollouts": rollouts.counts} if lesson.practice else {}),
    }


def _practise(student: Student, lesson: Lesson, rollouts: Rollouts, epoch: int, work: Path) -> None:
    """Let the student act where a part of the training begins, once a round."""
    if lesson.practice is None or rollouts.rounds >= part_of(lesson.train, epoch):
        return
    student.eval()
    torch.manual_seed(lesson.seed * 1_000_003 + epoch)
    model = in_process(student.backbone, lesson.input, lesson.device)
    rollouts.add(lesson.practice, model, lesson.labels)
    rollouts.save(work)


def _steps(samples: int, batch: int) -> int:
    """Steps an epoch: the last, partial batch is left out unless it is the only one."""
    return max(1, samples // batch)


def _optimiser(student: nn.Module, train: Train) -> torch.optim.Optimizer:
    """AdamW without decay on norms and biases."""
    decay = [p for p in student.parameters() if p.ndim > 1]
    plain = [p for p in student.parameters() if p.ndim <= 1]
    groups = [
        {"params": decay, "weight_decay": train.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=train.lr)


def learning_rate(train: Train, at: float) -> float:
    """Linear warm-up, then cosine to zero; ``at`` is the share of all steps done."""
    if at < train.warmup:
        return train.lr * at / train.warmup
    return train.lr * 0.5 * (1 + math.cos(math.pi * (at - train.warmup) / (1 - train.warmup)))


def _epoch(
    student: Student,
    lesson: Lesson,
    optimiser: torch.optim.Optimizer,
    epoch: int,
    rollouts: Rollouts,
) -> float:
    torch.manual_seed(lesson.seed * 1_000_003 + epoch)
    student.train()
    steps = _steps(len(lesson.labels), lesson.train.batch)
    total = 0.0
    for number, batch in enumerate(_batches(lesson, epoch, steps, rollouts)):
        rate = learning_rate(
            lesson.train, (epoch * steps + number + 1) / (lesson.train.epochs * steps)
        )
        for group in optimiser.param_groups:
            group["lr"] = rate
        total += _step(student, lesson, optimiser, batch)
    return total / steps


def _step(
    student: Student, lesson: Lesson, optimiser: torch.optim.Optimizer, batch: Batch
) -> float:
    try:
        with torch.autocast(lesson.device.type, torch.bfloat16, enabled=lesson.train.amp == "bf16"):
            taps = student(batch.x)
        loss = objective_loss(student, lesson.objective, taps, batch, lesson.train.smoothing)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
    except torch.OutOfMemoryError as error:
        raise StageError(
            f"out of memory with batches of {lesson.train.batch}", hint="--set batch=N, half of it"
        ) from error
    if not torch.isfinite(loss):
        raise StageError("the loss is not finite", hint="lower the learning rate: --set lr=…")
    if lesson.train.clip:
        nn.utils.clip_grad_norm_(student.parameters(), lesson.train.clip)
    optimiser.step()
    return float(loss.detach())


@dataclass(frozen=True)
class Batch:
    """One step's samples: prepared inputs, labels, teacher taps."""

    x: Tensor
    y: Tensor
    teacher: Mapping[str, Tensor]

    def to(self, device: torch.device) -> Batch:
        """Move to a device."""
        taps = {name: value.to(device) for name, value in self.teacher.items()}
        return Batch(self.x.to(device), self.y.to(device), taps)


def objective_loss(
    student: Student,
    objective: Objective,
    taps: Mapping[str, Tensor],
    batch: Batch,
    smoothing: float,
) -> Tensor:
    """Weighted sum of the terms; terms that need a teacher are left out without one."""
    total = torch.zeros((), device=batch.x.device)
    for place, term in enumerate(objective.terms):
        if not terms.needs_teacher(term):
            output = taps["logits"].float()
            total = total + term.weight * terms.against_label(
                term, output, batch.y, smoothing=smoothing
            )
        elif term.tap in batch.teacher:
            mine = student.project(place, taps[term.tap].float())
            total = total + term.weight * terms.compare(term, mine, batch.teacher[term.tap])
    return total


def _batches(lesson: Lesson, epoch: int, steps: int, rollouts: Rollouts) -> Iterator[Batch]:
    """Yield the batches of one epoch: of the data, of rollouts, or some of both in each."""
    met = share_of(lesson.train, part_of(lesson.train, epoch)) if rollouts.rounds else 0
    base = _from_data(lesson, epoch, steps, lesson.train.batch - met)
    if not met:
        yield from base
        return
    fresh = _from_rollouts(lesson, epoch, steps, met, rollouts)
    if met == lesson.train.batch:
        yield from fresh
        return
    for one, two in zip(base, fresh, strict=True):
        taps = {name: torch.cat((value, two.teacher[name])) for name, value in one.teacher.items()}
        yield Batch(torch.cat((one.x, two.x)), torch.cat((one.y, two.y)), taps)


def _from_rollouts(
    lesson: Lesson, epoch: int, steps: int, size: int, rollouts: Rollouts
) -> Iterator[Batch]:
    """Yield ``steps`` batches of what the student met, as it is: no augmentation."""
    ready, seed = Prepare(lesson.input), lesson.seed * 104_729 + epoch
    for raw, labels, taps in rollouts.batches(size, steps, seed):
        yield Batch(ready(raw), labels, taps).to(lesson.device)


def _from_data(lesson: Lesson, epoch: int, steps: int, size: int) -> Iterator[Batch]:
    """Yield ``steps`` batches of the data, in an order drawn from (seed, epoch)."""
    samples = len(lesson.labels)
    generator = torch.Generator().manual_seed(lesson.seed * 7919 + epoch)
    order = torch.randperm(samples, generator=generator)[: steps * size]
    view = epoch % view_count(lesson.train)
    look, ready = View(lesson.augment, samples, lesson.seed, view), Prepare(lesson.input)
    for indices, raw in read(lesson.dataset, order, size, lesson.train.workers):
        taps = {} if lesson.teacher is None else lesson.teacher.take(view, indices)
        batch = Batch(ready(look(raw, indices)), lesson.labels[indices], taps)
        yield batch.to(lesson.device)


def read(dataset: Any, order: Tensor, size: int, workers: int) -> Iterator[tuple[Tensor, Any]]:
    """Yield (indices, raw samples), from ``take`` or through a data loader."""
    parts = torch.split(order, size)
    if hasattr(dataset, "take"):
        for indices in parts:
            yield indices, dataset.take(indices.numpy())
        return
    from torch.utils.data import DataLoader, Subset

    loader: Any = DataLoader(Subset(dataset, order.tolist()), size, num_workers=workers)
    for indices, (raw, _) in zip(parts, loader, strict=True):
        yield indices, raw


def _save(
    path: Path, student: nn.Module, optimiser: torch.optim.Optimizer, done: Mapping[str, Any]
) -> None:
    """Write the checkpoint so that a kill at any moment leaves the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".tmp")
    with fresh.open("wb") as file:
        torch.save(
            {
                "student": student.state_dict(),
                "optimiser": optimiser.state_dict(),
                "done": dict(done),
            },
            file,
        )
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _resume(path: Path, student: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    if not path.exists():
        return {"epoch": 0, "history": [], "cpu_s": 0.0, "seconds": 0.0}
    saved = torch.load(path, weights_only=True)
    student.load_state_dict(saved["student"])
    optimiser.load_state_dict(saved["optimiser"])
    done: dict[str, Any] = saved["done"]
    return done
