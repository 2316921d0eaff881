"""The training loop: plain torch, deterministic, resumable to a bit-identical end on CPU.

Everything random is derived from (seed, epoch) or (seed, view), so a checkpoint needs no
generator state: an epoch that is run again does exactly the same.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.distill.lesson import Lesson, batches
from edgekd.distill.loss import Batch, objective_loss
from edgekd.distill.rollouts import FILE as ROLLOUTS
from edgekd.distill.rollouts import Rollouts, open_rollouts, part_of
from edgekd.distill.schedule import Average, Watch, learning_rate, make_optimiser
from edgekd.distill.student import Student
from edgekd.distill.views import in_process
from edgekd.errors import TrainingError
from edgekd.events import Emit, Progress

CHECKPOINT = "checkpoint.pt"
SAVE_EVERY_S = 1.0
"""Least time between two checkpoints: writing one costs some ten milliseconds."""
BF16 = ("avx512_bf16", "amx_bf16", "bf16")
"""Instructions of a CPU that computes in bf16."""
NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"
"""What torch says where the processor's memory is out; it has no error of its own for it."""
RANK_SEED = 15_485_863
"""Distance of the seeds of two processes."""


@dataclass
class Course:
    """A training in progress: everything that a checkpoint holds.

    Attributes:
        student: The network in training.
        optimiser: Of its parameters.
        lesson: What it is about.
        parameters: Of the student, listed once: walking its modules costs as much as clipping.
        average: Moving average of the backbone, or None.
        watch: What validation said.
        done: ``epoch``, ``history``, ``cpu_s``, ``seconds``.
    """

    student: Student
    optimiser: torch.optim.Optimizer
    lesson: Lesson
    parameters: list[nn.Parameter] = field(default_factory=list)
    average: Average | None = None
    watch: Watch = field(default_factory=Watch)
    done: dict[str, Any] = field(
        default_factory=lambda: {"epoch": 0, "history": [], "cpu_s": 0.0, "seconds": 0.0}
    )


def fit(student: Student, lesson: Lesson, work: Path, step: str, emit: Emit) -> dict[str, Any]:
    """Train ``student`` in place; resume from ``work`` when a checkpoint lies there.

    Args:
        student: The network in training.
        lesson: Data, budget and objective.
        work: Folder of the checkpoint and the rollouts; the first is written after an epoch where
            `SAVE_EVERY_S` have passed since the last one, and before every round, the second
            after every round; both are removed at the end.
        step: Name of the step in events.
        emit: Progress.

    Returns:
        ``history`` (loss per epoch), ``epochs``, ``steps``, ``cpu_s``, ``seconds``; where they
        apply ``rollouts`` (samples of each), ``best_epoch`` and ``best`` (on validation).

    Raises:
        TrainingError: The loss is not finite, or memory ran out.
    """
    torch.use_deterministic_algorithms(True)
    course = _begin(student, lesson, work)
    done, train, saved = course.done, lesson.train, time.monotonic()
    forward = _shared(course)
    rollouts = open_rollouts(work)
    progress = Progress(emit, step, train.epochs, "epochs", start=done["epoch"])
    for epoch in range(done["epoch"], train.epochs):
        cpu, wall = time.process_time(), time.monotonic()
        _practise(course, rollouts, epoch, work)
        loss = _epoch(course, forward, epoch, rollouts)
        stop = _look(course, epoch)
        done["epoch"] = epoch + 1
        done["history"].append(loss)
        done["cpu_s"] += time.process_time() - cpu
        done["seconds"] += time.monotonic() - wall
        last = stop or epoch + 1 == train.epochs
        if lesson.crew.first and not last and time.monotonic() - saved >= SAVE_EVERY_S:
            _save(work / CHECKPOINT, course)
            saved = time.monotonic()
        progress.advance(1, f"loss {loss:.4f}", loss=loss)
        if stop:
            break
    lesson.crew.wait()
    _finish(course)
    for name in (CHECKPOINT, ROLLOUTS):
        (work / name).unlink(missing_ok=True)
    return _facts(course, rollouts)


def _begin(student: Student, lesson: Lesson, work: Path) -> Course:
    student.to(lesson.device)
    student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser, parameters = make_optimiser(student, lesson.train), list(student.parameters())
    course = Course(student, optimiser, lesson, parameters)
    if lesson.train.ema:
        course.average = Average(student.backbone, lesson.train.ema)
    _resume(work / CHECKPOINT, course)
    return course


def _facts(course: Course, rollouts: Rollouts) -> dict[str, Any]:
    done, lesson, watch = course.done, course.lesson, course.watch
    facts = {
        "history": done["history"],
        "epochs": done["epoch"],
        "steps": done["epoch"] * lesson.steps,
        "cpu_s": done["cpu_s"],
        "seconds": done["seconds"],
    }
    if lesson.practice is not None:
        facts["rollouts"] = rollouts.counts
    if watch.best is not None:
        facts |= {"best_epoch": watch.epoch, "best": watch.best}
    return facts


def _practise(course: Course, rollouts: Rollouts, epoch: int, work: Path) -> None:
    """Let the student act where a part of the training begins, once a round."""
    lesson = course.lesson
    if lesson.practice is None or rollouts.rounds >= part_of(lesson.train, epoch):
        return
    course.student.eval()
    torch.manual_seed(lesson.seed * 1_000_003 + epoch)
    model = in_process(course.student.backbone, lesson.input, lesson.device)
    _save(work / CHECKPOINT, course)  # an epoch before this round must never see what it met
    rollouts.add(lesson.practice, model, lesson.labels)
    rollouts.save(work)


def has_bf16(device: str) -> bool:
    """Tell whether bf16 makes a training faster; a CPU without it emulates it, slower than f32."""
    if device != "cpu":
        return True
    able = torch.cpu.get_capabilities()
    return any(able.get(name) for name in BF16)


class Forward(nn.Module):
    """One micro-batch to its loss: what DistributedDataParallel wraps."""

    def __init__(self, student: Student, lesson: Lesson) -> None:
        super().__init__()
        self.student, self._lesson = student, lesson
        self._half = lesson.train.amp == "bf16" and has_bf16(lesson.device.type)

    def forward(self, batch: Batch, at: float) -> Tensor:
        """Return the loss of the student, and of the one beside it where there is one."""
        student, device = self.student, self._lesson.device.type
        half = torch.autocast(device, torch.bfloat16) if self._half else contextlib.nullcontext()
        with half:
            taps = student(batch.x)
            peer = None if student.peer is None else student.peer(batch.x)
        loss = self._of(student, taps, batch, at, peer)
        if student.peer is not None and peer is not None:
            loss = loss + self._of(student.peer, peer, batch, at, taps)
        return loss

    def _of(
        self,
        student: Student,
        taps: Mapping[str, Tensor],
        batch: Batch,
        at: float,
        peer: Mapping[str, Tensor] | None,
    ) -> Tensor:
        base, smoothing = self._lesson.base, self._lesson.train.smoothing
        return objective_loss(
            student, taps, batch, smoothing=smoothing, at=at, base=base, peer=peer
        )


def _shared(course: Course) -> nn.Module:
    """The forward pass, its gradients averaged over the processes where there are several."""
    forward = Forward(course.student, course.lesson)
    if course.lesson.crew.size == 1:
        return forward
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(forward, find_unused_parameters=True)


def _epoch(course: Course, forward: nn.Module, epoch: int, rollouts: Rollouts) -> float:
    lesson, train, crew = course.lesson, course.lesson.train, course.lesson.crew
    torch.manual_seed(lesson.seed * 1_000_003 + epoch + crew.rank * RANK_SEED)
    course.student.train()
    total = 0.0
    for number, batch in enumerate(batches(lesson, epoch, rollouts)):
        at = (epoch * lesson.steps + number + 1) / (train.epochs * lesson.steps)
        for group in course.optimiser.param_groups:
            group["lr"] = learning_rate(train, at, course.watch.drops)
        total += _step(course, forward, batch, at)
    return crew.mean(total / lesson.steps, lesson.device)


def _step(course: Course, forward: nn.Module, batch: Batch, at: float) -> float:
    train, student = course.lesson.train, course.student
    try:
        loss = _gradients(course, forward, batch, at)
    except RuntimeError as error:
        if not _out_of_memory(error):
            raise
        raise TrainingError(
            f"out of memory with batches of {train.batch} in {train.accumulate} parts",
            hint="Train.accumulate=2 (or more) cuts the batch; or a smaller Train.batch",
        ) from error
    value = float(loss)
    if not math.isfinite(value):
        raise TrainingError("the loss is not finite", hint="lower the learning rate: --set lr=…")
    if train.clip:
        nn.utils.clip_grad_norm_(course.parameters, train.clip)
    course.optimiser.step()
    if course.average is not None:
        course.average.update(student.backbone)
    return value


def _out_of_memory(error: RuntimeError) -> bool:
    """Whether an accelerator's or the processor's memory ran out."""
    return isinstance(error, torch.OutOfMemoryError) or NO_MEMORY in str(error)


def _gradients(course: Course, forward: nn.Module, batch: Batch, at: float) -> Tensor:
    """Gradients of the mean over the micro-batches."""
    course.optimiser.zero_grad(set_to_none=True)
    count = course.lesson.train.accumulate
    if count == 1:
        loss = forward(batch, at)
        loss.backward()
        value: Tensor = loss.detach()
        return value
    parts = batch.cut(count)
    losses = []
    for place, part in enumerate(parts):
        with _silent(forward, place + 1 < len(parts)):
            loss = forward(part, at) * (len(part.y) / len(batch.y))
            loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum()


@contextlib.contextmanager
def _silent(forward: nn.Module, quiet: bool) -> Iterator[None]:
    """Do not average over the processes before the last micro-batch."""
    pause: Any = getattr(forward, "no_sync", None)
    with pause() if quiet and pause is not None else contextlib.nullcontext():
        yield


def _look(course: Course, epoch: int) -> bool:
    """Judge on validation data where the schedule asks for it; return whether to stop."""
    lesson = course.lesson
    if lesson.validate is None or not (lesson.train.stop or lesson.train.schedule == "plateau"):
        return False
    backbone = course.student.backbone
    with _averaged(course):
        score = lesson.crew.mean(lesson.validate(backbone.eval()), lesson.device)
        return course.watch.see(lesson.train, epoch + 1, score, backbone)


@contextlib.contextmanager
def _averaged(course: Course) -> Iterator[None]:
    """Put the average in the place of the weights for a while."""
    if course.average is None:
        yield
        return
    backbone = course.student.backbone
    own = {name: value.detach().clone() for name, value in backbone.state_dict().items()}
    backbone.load_state_dict(course.average.values)
    try:
        yield
    finally:
        backbone.load_state_dict(own)


def _finish(course: Course) -> None:
    """Leave in the backbone what is judged and shipped: the best, the average or the last."""
    backbone = course.student.backbone
    if course.watch.weights:
        backbone.load_state_dict(course.watch.weights)
    elif course.average is not None:
        backbone.load_state_dict(course.average.values)


def _save(path: Path, course: Course) -> None:
    """Write the checkpoint so that a kill at any moment leaves the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".tmp")
    state: Mapping[str, Any] = {
        "student": course.student.state_dict(),
        "optimiser": course.optimiser.state_dict(),
        "done": dict(course.done),
        "watch": course.watch.state(),
        "average": None if course.average is None else course.average.state(),
    }
    with fresh.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _resume(path: Path, course: Course) -> None:
    if not path.exists():
        return
    saved = torch.load(path, weights_only=True)
    course.student.load_state_dict(saved["student"])
    course.optimiser.load_state_dict(saved["optimiser"])
    course.done, course.watch = saved["done"], Watch(**saved["watch"])
    if course.average is not None:
        course.average.load(saved["average"])
