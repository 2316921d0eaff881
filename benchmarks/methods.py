"""What every method is worth: its student against the same student without teacher.

    python benchmarks/methods.py --out benchmarks/results/methods.json --processes 2

Small tasks that need no download. *pairs*: two scikit-learn digits side by side, 100 classes,
digits of training and test disjoint, noise added. *series*: ten made-up curves, padded, scaled,
shifted, sheared and made noisy as MNIST-1D does (arXiv 2011.14439; the curves are our own), with a
student far smaller than its teacher. Where a method needs other inputs: *towers* (upper and lower
half of a digit find one another), *heads* (one head a half, and a fused one), *rows* (the teacher
sees all rows of a digit, the student two), *push* (a point is pushed to rest; the student acts in
closed loop), *alike* and *blocks* (digit pairs again, teacher and student of equal depth).

Nothing is tuned by method: all have their preset's weights, and within a task the same steps. The
test split is read once a training, at its end. Data are the same in all seeds; teacher, student
and order differ. Finished trainings are kept beside ``--out`` (``.jsonl``): a run goes on where it
stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.distill.clone import clone, fold
from edgekd.distill.lesson import Lesson
from edgekd.distill.presets import PRESETS
from edgekd.distill.reuse import reuse
from edgekd.distill.rollouts import Practice
from edgekd.distill.student import Student
from edgekd.distill.taps import Hooks
from edgekd.distill.teacher import Scaling, Taps, TeacherOutputs
from edgekd.distill.trainer import fit
from edgekd.distill.views import Prepare, as_tensor, in_process
from edgekd.events import silent
from edgekd.spec import Call, Input, Objective, Term, Train

CPU = torch.device("cpu")
SEEDS = (0, 1, 2)


# Data


@dataclass
class Samples:
    """A split in memory: x (samples, …) float32, labels (samples, …)."""

    x: Any
    labels: Any

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, place: int) -> tuple[Any, Any]:
        return self.x[place], self.labels[place]

    def take(self, places: Any) -> Any:
        """Samples at these places."""
        return self.x[places]


@cache
def digits() -> tuple[Any, Any, list[Any]]:
    """Pictures (1797, 8, 8) in 0…1, classes, and places of training and test."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.images))
    return (found.images / 16).astype(np.float32), found.target, np.split(order, [900])


@cache
def pairs() -> tuple[Samples, Samples]:
    """Two digits side by side: (samples, 1, 8, 16), class 10·left + right."""
    x, y, parts = digits()
    rng = np.random.default_rng(1)

    def split(places: Any, count: int) -> Samples:
        a, b = rng.choice(places, count), rng.choice(places, count)
        both = np.concatenate((x[a], x[b]), 2)[:, None]
        noisy = both + 0.3 * rng.normal(size=both.shape)
        return Samples(noisy.astype(np.float32), (10 * y[a] + y[b]).astype(np.int64))

    return split(parts[0], 2000), split(parts[1], 4000)


@cache
def series() -> tuple[Samples, Samples]:
    """Noisy copies of ten curves of our own: (samples, 1, 1, 40)."""
    rng = np.random.default_rng(2)
    grid = np.linspace(0, 1, 12)
    waves = np.stack([np.sin(np.pi * (k + 1) * grid) for k in range(4)])
    curves = rng.normal(size=(10, 4)) / np.arange(1, 5) @ waves
    curves /= np.abs(curves).max(1, keepdims=True)
    kernel = np.exp(-0.5 * (np.arange(-6, 7) / 2) ** 2)

    def one(curve: Any) -> Any:
        padded = np.concatenate((curve, np.zeros(rng.integers(36, 61))))
        scaled = np.roll(padded * (1 + 0.4 * rng.normal()), rng.integers(0, 48))
        smooth = np.convolve(rng.normal(size=len(scaled)), kernel / kernel.sum(), "same")
        whole = scaled + 0.25 * smooth + 0.02 * rng.normal(size=len(scaled))
        slope = 0.75 * (rng.random() - 0.5)
        whole = whole - slope * np.linspace(-0.5, 0.5, len(whole))
        return np.interp(np.linspace(0, len(whole) - 1, 40), np.arange(len(whole)), whole)

    def split(count: int) -> Samples:
        labels = rng.integers(0, 10, count)
        x = np.stack([one(curves[label]) for label in labels])[:, None, None]
        return Samples(x.astype(np.float32), labels)

    return split(2000), split(2000)


@cache
def whole() -> tuple[Samples, Samples]:
    """One digit: (samples, 1, 8, 8)."""
    x, y, parts = digits()
    train, test = (Samples(x[places, None], y[places]) for places in parts)
    return train, test


@cache
def noisy() -> tuple[Samples, Samples]:
    """One digit with noise: (samples, 1, 8, 8)."""
    rng = np.random.default_rng(3)
    train, test = (
        Samples((s.x + 0.2 * rng.normal(size=s.x.shape)).astype(np.float32), s.labels)
        for s in whole()
    )
    return train, test


@cache
def rows() -> tuple[Samples, Samples]:
    """A digit's rows as eight channels of a series: (samples, 8, 8)."""
    train, test = noisy()
    return Samples(train.x[:400, 0], train.labels[:400]), Samples(test.x[:, 0], test.labels)


def force(x: Any) -> Any:
    """What pushes the point when nobody does: x (samples, 2), place and speed."""
    return 0.8 * np.sin(3 * x[:, :1])


def expert(x: Any) -> Any:
    """The push that brings it to rest."""
    return np.clip(-2.0 * x[:, :1] - 1.5 * x[:, 1:] - force(x), -2, 2).astype(np.float32)


def moved(x: Any, push: Any) -> Any:
    """A tenth of a second later."""
    speed = x[:, 1:] + 0.1 * (push + force(x))
    return np.concatenate((x[:, :1] + 0.1 * speed, speed), 1).astype(np.float32)


def acted(model: Callable[[Any], Any], count: int, seed: int) -> tuple[Any, Any]:
    """States met and pushes made in 40 steps of ``count`` episodes."""
    x = np.random.default_rng(seed).normal(size=(count, 2)).astype(np.float32)
    met, pushed = [], []
    for _ in range(40):
        push = np.clip(model(x), -2, 2)
        met.append(x)
        pushed.append(push)
        x = moved(x, push)
    return np.concatenate(met), np.concatenate(pushed)


@cache
def push() -> tuple[Samples, Samples]:
    """States of eight episodes of the expert, and its pushes, badly recorded."""
    met, right = acted(expert, 8, 4)
    noise = 0.3 * np.random.default_rng(5).normal(size=right.shape)
    train = Samples(met, (right + noise).astype(np.float32))
    return train, Samples(met, right)


# Networks


class Net(nn.Module):
    """Convolutions to a map, a hidden layer or a mean over the map, a classifier."""

    map = "body"

    def __init__(
        self,
        shape: Sequence[int],
        convs: Sequence[tuple[int, int]],
        hidden: int = 0,
        classes: int = 10,
    ) -> None:
        super().__init__()
        kernel = (3, 3) if shape[1] > 1 else (1, 5)
        layers: list[nn.Module] = []
        width = shape[0]
        for wide, stride in convs:
            step = (stride if kernel[0] > 1 else 1, stride)
            around = (kernel[0] // 2, kernel[1] // 2)
            layers += [nn.Conv2d(width, wide, kernel, step, around, bias=False)]
            layers += [nn.BatchNorm2d(wide), nn.ReLU()]
            width = wide
        self.body = nn.Sequential(*layers)
        with torch.no_grad():
            size = self.body.eval()(torch.zeros(1, *shape)).numel()
        self.mix = nn.Linear(size, hidden) if hidden else None
        self.features = hidden or width
        self.head = nn.Linear(self.features, classes)

    def maps(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width)."""
        seen: Tensor = self.body(x)
        return seen

    def embed(self, x: Tensor) -> Tensor:
        """(batch, features)."""
        seen = self.maps(x)
        if self.mix is None:
            return seen.mean((2, 3))
        return torch.relu(self.mix(seen.flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.embed(x))
        return logits


class Flat(nn.Module):
    """A small perceptron on everything at once."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.features = hidden
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU())
        self.head = nn.Linear(hidden, outputs)

    def embed(self, x: Tensor) -> Tensor:
        """(batch, hidden)."""
        hidden: Tensor = self.body(x)
        return hidden

    def forward(self, x: Tensor) -> Tensor:
        """(batch, outputs)."""
        out: Tensor = self.head(self.embed(x))
        return out


class Blocks(nn.Module):
    """A residual perceptron: two blocks of two layers on a stream of ``width``."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.features = width
        self.stem = nn.Linear(128, width)
        self.up = nn.ModuleList(nn.Linear(width, inner) for _ in range(2))
        self.down = nn.ModuleList(nn.Linear(inner, width) for _ in range(2))
        self.head = nn.Linear(width, 100)

    def embed(self, x: Tensor) -> Tensor:
        """(batch, width)."""
        seen: Tensor = self.stem(x.flatten(1))
        for up, down in zip(self.up, self.down, strict=True):
            seen = seen + down(torch.relu(up(seen)))
        return seen

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 100)."""
        out: Tensor = self.head(self.embed(x))
        return out


class Towers(nn.Module):
    """Upper and lower half of a digit, each to an embedding of 32: (batch, 64)."""

    features = 64

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.upper, self.lower = Flat(32, hidden, 32), Flat(32, hidden, 32)

    def forward(self, x: Tensor) -> Tensor:
        """Both, side by side."""
        return torch.cat((self.upper(x[:, :, :4]), self.lower(x[:, :, 4:])), 1)


class Heads(nn.Module):
    """One head a half of the digit (``first``, ``second``), and a fused one that is judged."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.upper, self.lower = (
            nn.Sequential(nn.Flatten(), nn.Linear(32, hidden), nn.ReLU()) for _ in range(2)
        )
        self.first, self.second = nn.Linear(hidden, 10), nn.Linear(hidden, 10)
        self.fused = nn.Linear(2 * hidden, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the fused head; the others run too, for those who listen."""
        a, b = self.upper(x[:, :, :4]), self.lower(x[:, :, 4:])
        self.first(a), self.second(b)
        out: Tensor = self.fused(torch.cat((a, b), 1))
        return out


# Scores, larger is better


def accuracy(model: Callable[[Any], Any], test: Samples) -> float:
    """Percent of the test samples."""
    return 100 * float((model(test.x).argmax(1) == test.labels).mean())


def recall_at_10(model: Callable[[Any], Any], test: Samples) -> float:
    """Percent of halves whose other half is among the ten nearest, mean of both ways."""
    out = model(test.x)
    one, two = (half / np.linalg.norm(half, axis=1, keepdims=True) for half in np.split(out, 2, 1))
    table = one @ two.T
    found = []
    for near in (table, table.T):
        better = (near > np.diag(near)[:, None]).sum(1)
        found.append((better < 10).mean())
    return 100 * float(np.mean(found))


def minus_cost(model: Callable[[Any], Any], test: Samples) -> float:
    """Minus the mean of place² + push²/10 over 200 episodes of its own acting, times 100."""
    met, pushed = acted(model, 200, 6)
    return -100 * float((met[:, 0] ** 2 + 0.1 * pushed[:, 0] ** 2).mean())


# Tasks


@dataclass(frozen=True)
class Task:
    """A pair of networks on some data.

    Attributes:
        title: For the table.
        data: Training and test split.
        teacher: Builds it; None where no method has one.
        student: Builds it.
        score: Larger is better.
        unit: Of the score.
        budget: Of the student.
        teaching: Of the teacher.
        methods: Presets that it measures, beside the control.
        input: Of the student.
        full: Of the teacher, where it is another.
        output: What the networks return.
        inner: Taps inside the teacher that a method reads, beside its map.
    """

    title: str
    data: Callable[[], tuple[Samples, Samples]]
    teacher: Callable[[], nn.Module] | None
    student: Callable[[], nn.Module]
    score: Callable[[Callable[[Any], Any], Samples], float]
    unit: str
    budget: Train
    teaching: Train
    methods: tuple[str, ...]
    input: Input
    full: Input | None = None
    output: str = "logits"
    inner: tuple[str, ...] = ()


ALONE = {"logits", "features", "map"}
CNN = tuple(p.name for p in PRESETS.values() if set(p.needs) <= ALONE and p.name != "none")
CLONED = tuple(f"feat:{layer}.{block}" for layer in ("up", "down") for block in (0, 1))
"""Layers of *blocks* whose outputs the clone loss compares, at its paper's weight of 0.2 each."""
CLONES = ("kd", "lrc", "lrc, labels alone")
REUSES = ("simkd, features", "simkd, features, labels alone")
"""The classifier of the teacher of *pairs* reads a hidden layer, not the mean of its map."""
ACTING = Call("benchmarks.methods:acted")
TASKS = {
    "pairs": Task(
        "digit pairs, 100 classes", pairs,
        lambda: Net((1, 8, 16), ((24, 1), (32, 2), (48, 2)), 64, 100),
        lambda: Net((1, 8, 16), ((6, 1), (8, 2)), 32, 100),
        accuracy, "accuracy, %", Train(40, batch=128, lr=5e-3), Train(20, lr=3e-3),
        (*CNN, *REUSES), Input((1, 8, 16)),
    ),
    "series": Task(
        "noisy series, capacity gap", series,
        lambda: Net((1, 1, 40), ((48, 2), (48, 2), (48, 2))),
        lambda: Net((1, 1, 40), ((10, 2), (10, 2))),
        accuracy, "accuracy, %", Train(25, batch=128, lr=1e-2), Train(20, lr=5e-3),
        (*CNN, "simkd", "simkd, labels alone"), Input((1, 1, 40)),
    ),
    "rows": Task(
        "digits, the teacher sees 8 rows, the student 2", rows,
        lambda: Flat(64, 128, 10), lambda: Flat(16, 16, 10),
        accuracy, "accuracy, %", Train(100, lr=3e-3), Train(60, lr=3e-3),
        ("kd", "feature", "gpd", "dist", "pseudo"), Input((2, 8), channels=(2, 5)),
        Input((8, 8)),
    ),
    "towers": Task(
        "upper and lower halves of digits", whole, lambda: Towers(256), lambda: Towers(12),
        recall_at_10, "recall at 10, %", Train(60, lr=3e-3), Train(60, lr=3e-3),
        ("clipkd", "cliprd"), Input((1, 8, 8)), output="features",
    ),
    "heads": Task(
        "one head a half of a digit, and a fused one", noisy, None, lambda: Heads(12),
        accuracy, "accuracy, %", Train(40, lr=3e-3), Train(40), ("dmc",), Input((1, 8, 8)),
    ),
    "push": Task(
        "a point is pushed to rest, closed loop", push, lambda: Flat(2, 64, 1),
        lambda: Flat(2, 6, 1), minus_cost, "minus cost × 100", Train(100, lr=1e-2),
        Train(20, lr=1e-2), ("action", "action, on policy"), Input((2,)),
    ),
    "alike": Task(
        "digit pairs, convolutions of equal depth", pairs,
        lambda: Net((1, 8, 16), ((24, 1), (48, 2)), 64, 100),
        lambda: Net((1, 8, 16), ((6, 1), (8, 2)), 32, 100),
        accuracy, "accuracy, %", Train(40, batch=128, lr=5e-3), Train(20, lr=3e-3), CLONES,
        Input((1, 8, 16)),
    ),
    "blocks": Task(
        "digit pairs, residual perceptrons of equal depth", pairs,
        lambda: Blocks(128, 128), lambda: Blocks(32, 32),
        accuracy, "accuracy, %", Train(40, batch=128, lr=5e-3), Train(20, lr=3e-3),
        (*CLONES, "lrc, clone loss"), Input((1, 8, 16)), inner=CLONED,
    ),
}  # fmt: skip
"""The teacher of *push* learns from 100 episodes of the expert without faults; see `_taught`."""


@dataclass
class Taught:
    """A teacher and what it says.

    Attributes:
        outputs: On the training split.
        judge: Raw samples → taps, for rollouts.
        score: On the test split.
        params: Of the network.
        network: Itself, for students that are cloned from it, or end in its classifier.
    """

    outputs: TeacherOutputs | None = None
    judge: Callable[[Any], Taps] | None = None
    score: float = math.nan
    params: int = 0
    cpu_s: float = field(default=0.0)
    network: nn.Module | None = None


def _lesson(task: Task, train: Samples, budget: Train, seed: int, input: Input) -> Lesson:
    labels = torch.from_numpy(np.asarray(train.labels))
    return Lesson(train, labels, input, budget, None, None, seed, CPU)


def _student(
    task: Task, lesson: Lesson, network: nn.Module, objective: Objective, shapes: dict[str, Any]
) -> Student:
    labels = lesson.labels
    width = labels.shape[-1] if labels.is_floating_point() else int(labels.max()) + 1
    probe = Prepare(lesson.input)(as_tensor(lesson.dataset.x[:2]))
    features = int(getattr(network, "features", 0))
    output: Any = task.output
    return Student(network, output, features, width, objective, shapes, labels, probe)


def _fit(student: Student, lesson: Lesson) -> float:
    """Train; return the CPU seconds."""
    with tempfile.TemporaryDirectory() as work:
        return float(fit(student, lesson, Path(work), "train", silent)["cpu_s"])


def _taught(task: Task, seed: int) -> Taught:
    """Train the teacher and run it over the training split."""
    if task.teacher is None:
        return Taught()
    train, test = task.data()
    given = train
    if task.data is push:
        given = Samples(*acted(expert, 100, 7))
    contract = task.full or task.input
    torch.manual_seed(1000 + seed)
    network = task.teacher()
    lesson = _lesson(task, given, task.teaching, 1000 + seed, contract)
    student = _student(task, lesson, network, _control(task), {})
    cpu = _fit(student, lesson)
    student.eval()
    hooks = Hooks(network, [*(["map"] if hasattr(network, "map") else []), *task.inner])
    ready = Prepare(contract)

    def judge(raw: Any) -> Taps:
        with torch.no_grad():
            taps = dict(student(ready(as_tensor(raw))))
            return {**taps, **{n: v.clone() for n, v in hooks.seen.items()}}

    taps = judge(train.x)
    scaling = Scaling.of(taps["features"]) if "features" in taps else None
    # CLIP's embeddings are compared by their angles, which a shift would change.
    if scaling is not None and task.output == "logits":
        taps = scaling(taps)
    outputs = TeacherOutputs(({name: value.numpy() for name, value in taps.items()},), scaling)
    score = task.score(in_process(network, contract), test)
    return Taught(outputs, judge, score, _count(network), cpu, network)


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def _control(task: Task) -> Objective:
    return _objective(task, task.methods[0]).without_teacher()


def _objective(task: Task, method: str) -> Objective:
    name, *how = method.split(", ")
    row = PRESETS[name]
    terms = row.terms if "labels alone" not in how else PRESETS["none"].terms
    if "features" in how:
        terms = tuple(
            dataclasses.replace(t, tap="features") if t.tap == "map" else t for t in terms
        )
    if "clone loss" in how:
        terms += tuple(Term(tap, "mse", project="clone", weight=0.2) for tap in CLONED)
    return Objective(name, terms, row.init)


def _ended(task: Task, method: str, network: nn.Module, taught: Taught) -> nn.Module:
    """The student behind a projector and the teacher's classifier.

    With labels alone it is the same network, its classifier fresh and trained: what more
    parameters are worth.
    """
    if taught.network is None or taught.outputs is None:
        return network
    asked = _objective(task, method.removesuffix(", labels alone"))
    ours, theirs = (
        Prepare(contract)(as_tensor(task.data()[0].x[:8]))
        for contract in (task.input, task.full or task.input)
    )
    whole, _ = reuse(network, taught.network, asked, taught.outputs.scaling, ours, theirs)
    if method.endswith("labels alone"):
        whole.head.requires_grad_(True)
        whole.head.reset_parameters()
    return whole


def one(task_name: str, method: str, seed: int, taught: Taught) -> dict[str, Any]:
    """Train one student and judge it on the test split.

    Returns:
        ``task``, ``method``, ``seed``, ``score``, ``cpu_s``, ``params``.
    """
    task = TASKS[task_name]
    train, test = task.data()
    alone = method == "control"
    objective = _control(task) if alone else _objective(task, method)
    lesson = _lesson(task, train, task.budget, seed, task.input)
    reads = any(term.needs_teacher for term in objective.terms)
    lesson = dataclasses.replace(lesson, teacher=taught.outputs if reads else None)
    if method.endswith("on policy"):
        budget = dataclasses.replace(task.budget, rollout=ACTING, rounds=4)
        lesson = dataclasses.replace(
            lesson, train=budget, practice=Practice(_act, taught.judge, seed)
        )
    torch.manual_seed(seed)
    network = task.student()
    if objective.init == "lowrank_clone" and taught.network is not None:
        clone(network, taught.network)
    if objective.init == "teacher_head":
        network = _ended(task, method, network, taught)
    shapes = {} if taught.outputs is None else taught.outputs.shapes
    student = _student(task, lesson, network, objective, shapes)
    if any(term.source.startswith("peer:") for term in objective.terms):
        student.peer = _student(task, lesson, task.student(), objective, shapes)
    cpu = _fit(student, lesson)
    if objective.init == "lowrank_clone":
        fold(network, Prepare(task.input)(as_tensor(train.x[:32])))
    score = task.score(in_process(network.eval(), task.input), test)
    return {
        "task": task_name,
        "method": method,
        "seed": seed,
        "score": score,
        "cpu_s": round(cpu, 3),
        "params": _count(network),
    }


def _act(model: Callable[[Any], Any], number: int, seed: int) -> Samples:
    """What the student meets in eight episodes; no expert labels there: the teacher's push."""
    met, _ = acted(model, 8, seed)
    return Samples(met, expert(met))


# The run


def job(asked: tuple[str, int, tuple[str, ...], str]) -> str:
    """All methods of one task and seed that are not finished; each is written when it is."""
    name, seed, methods, file = asked
    torch.set_num_threads(1)
    began = time.process_time()
    taught = _taught(TASKS[name], seed)
    if taught.outputs is not None:
        _write(file, {"task": name, "method": "teacher", "seed": seed, "score": taught.score,
                      "cpu_s": round(taught.cpu_s, 3), "params": taught.params})  # fmt: skip
    for method in methods:
        _write(file, one(name, method, seed, taught))
    return f"{name}, seed {seed}: {time.process_time() - began:.0f} CPU-s"


def _write(file: str, row: dict[str, Any]) -> None:
    with Path(file).open("a", encoding="utf-8") as out:
        out.write(json.dumps(row) + "\n")


def _read(file: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    rows = [json.loads(line) for line in lines]
    return {(row["task"], row["method"], row["seed"]): row for row in rows}


def _jobs(asked: argparse.Namespace, file: Path) -> Iterator[tuple[str, int, tuple[str, ...], str]]:
    done = _read(file)
    for name in asked.task or TASKS:
        for seed in asked.seeds:
            wanted = ("control", *(m for m in TASKS[name].methods if m in (asked.method or [m])))
            left = tuple(m for m in wanted if (name, m, seed) not in done)
            if left:
                yield name, seed, left, str(file)


def summary(done: dict[tuple[str, str, int], dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a task and method: mean and deviation over the seeds, gain over the control.

    Returns:
        ``task``, ``method``, ``scores`` by seed, ``mean``, ``std``, ``gains`` by seed, ``gain``,
        ``verdict`` (``helps`` or ``hurts`` where all seeds agree, else ``unclear``), ``cpu_s``.
    """
    rows = []
    for task, method in dict.fromkeys(key[:2] for key in done):
        found = {k[2]: row for k, row in sorted(done.items()) if k[:2] == (task, method)}
        scores = {seed: row["score"] for seed, row in found.items()}
        gains = [
            score - done[task, "control", seed]["score"]
            for seed, score in scores.items()
            if (task, "control", seed) in done
        ]
        rows.append(
            {
                "task": task,
                "method": method,
                "params": next(iter(found.values()))["params"],
                "scores": [round(s, 3) for s in scores.values()],
                "mean": round(statistics.mean(scores.values()), 3),
                "std": round(statistics.stdev(scores.values()), 3) if len(scores) > 1 else None,
                "gains": [round(g, 3) for g in gains],
                "gain": round(statistics.mean(gains), 3),
                "verdict": _verdict(method, gains),
                "cpu_s": round(statistics.mean(row["cpu_s"] for row in found.values()), 2),
            }
        )
    order = list(TASKS)
    first = {"control": 1, "teacher": 0}
    return sorted(
        rows, key=lambda r: (order.index(r["task"]), first.get(r["method"], 2), -r["gain"])
    )


def _verdict(method: str, gains: Sequence[float]) -> str:
    if method in ("control", "teacher"):
        return ""
    if len(gains) == 1:
        return "one seed"
    if min(gains) > 0:
        return "helps"
    return "hurts" if max(gains) < 0 else "unclear"


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Write the tables; what was not run is named below them."""
    lines = [
        "# Methods, measured",
        "",
        "`python benchmarks/methods.py --out benchmarks/results/methods.json --processes 2`",
        "",
        "Mean ± sample deviation over the seeds on the test split (data fixed; teacher,"
        " student and order differ). *Gain* is over the control of the same seed: the same"
        " student, the same steps, no teacher; beside it the least and the greatest of the seeds."
        " *Helps* and *hurts* are said where all seeds agree. Every method has its preset's"
        " weights, untuned for these tasks: a method that hurts here may help with other weights,"
        " on other data.",
    ]
    for name in dict.fromkeys(row["task"] for row in rows):
        task = TASKS[name]
        lines += [
            "",
            f"## {name}: {task.title}",
            "",
            f"| method | parameters | seeds | {task.unit} | gain | least … greatest | | CPU, s |",
            "| :--- | ---: | ---: | ---: | ---: | ---: | :--- | ---: |",
        ]
        mine = [row for row in rows if row["task"] == name]
        lines += [_line(row) for row in mine]
        left = [m for m in task.methods if m not in {row["method"] for row in mine}]
        lines += ["", f"Not run: {', '.join(left)}."] if left else []
    lines += ["", *(f"Not run: task {n}." for n in TASKS if n not in {r["task"] for r in rows})]
    return "\n".join(lines).rstrip("\n") + "\n"


def _line(row: dict[str, Any]) -> str:
    spread = "" if row["std"] is None else f" ± {row['std']:.2f}"
    own = row["method"] == "control"
    gain = "" if own else f"{row['gain']:+.2f}"
    between = "" if own else f"{min(row['gains']):+.2f} … {max(row['gains']):+.2f}"
    cells = (
        row["method"],
        f"{row['params']:,}",
        str(len(row["scores"])),
        f"{row['mean']:.2f}{spread}",
        gain,
        between,
        row["verdict"],
        f"{row['cpu_s']:.1f}",
    )
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Run what is left, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True, help="methods.json; .md lies beside it")
    parser.add_argument("--task", action="append", choices=TASKS)
    parser.add_argument("--method", action="append", help="only these, beside the control")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--processes", type=int, default=1)
    asked = parser.parse_args()
    file = asked.out.with_suffix(".jsonl")
    with ProcessPoolExecutor(asked.processes) as pool:
        for told in pool.map(job, _jobs(asked, file)):
            print(told, flush=True)
    rows = summary(_read(file))
    found = {
        "command": "python benchmarks/methods.py --out benchmarks/results/methods.json",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": 1,
        "rows": rows,
    }
    asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    asked.out.with_suffix(".md").write_text(markdown(rows), encoding="utf-8")
    print(markdown(rows))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main()
