"""What the trainer costs, and what cached teacher outputs save.

    python benchmarks/training.py --out benchmarks/results/training.json

One thread. Three questions, each over interleaved pairs of short trainings in an order drawn at
random; a pair's ratio, and the Hodges–Lehmann centre of the pairs with its 95 % interval:

*cached*: steps a second with the teacher's outputs read from disk, over steps a second with the
teacher run on every batch; the same trainer, student, batches and objective (kd). Beside it what
the teacher's forward pass costs as a share of a student's step without teacher.

*reading*: share of a step that goes into reading cached outputs (memory-mapped, half precision).

*loop*: the trainer over a loop written by hand here that does the same work: the same batches,
cached outputs, loss, clipping, AdamW, learning rates. The trainer also writes its checkpoints, one
a second at most; *digit pairs* runs for four epochs of 120 steps so that there is one.

``recipes`` are the bundled ones' own networks and batch sizes on made-up inputs of their shape.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.methods import Net, Samples
from edgekd.bench import stats
from edgekd.calls import invoke
from edgekd.discover import load_recipe
from edgekd.distill.lesson import Lesson
from edgekd.distill.presets import PRESETS
from edgekd.distill.schedule import learning_rate
from edgekd.distill.student import Student
from edgekd.distill.teacher import Taps, TeacherOutputs, keep_outputs, open_outputs
from edgekd.distill.trainer import fit
from edgekd.distill.views import Prepare, as_tensor
from edgekd.events import silent
from edgekd.spec import Input, Objective, Train

KD = Objective("kd", PRESETS["kd"].terms)
NONE = Objective("none", PRESETS["none"].terms)


@dataclass
class Live:
    """A teacher that is run on every batch, in the place of its cached outputs.

    Attributes:
        network: The teacher.
        x: Prepared samples.
        shapes: Of the taps.
        seconds: Spent in it.
    """

    network: Callable[[Tensor], Tensor]
    x: Tensor
    shapes: dict[str, tuple[int, ...]]
    seconds: float = 0.0

    def take(self, view: int, indices: Tensor) -> Taps:
        """Run the teacher; see `TeacherOutputs.take`."""
        began = time.perf_counter()
        with torch.inference_mode():
            logits = self.network(self.x[indices])
        self.seconds += time.perf_counter() - began
        return {"logits": logits.clone()}


@dataclass
class Timed:
    """Cached outputs, and how long they took to read."""

    outputs: TeacherOutputs
    seconds: float = 0.0

    def take(self, view: int, indices: Tensor) -> Taps:
        """See `TeacherOutputs.take`."""
        began = time.perf_counter()
        taps = self.outputs.take(view, indices)
        self.seconds += time.perf_counter() - began
        return taps


@dataclass
class Case:
    """A pair of networks and data for them.

    Attributes:
        name: For the table.
        input: Of both.
        teacher: Builds it.
        student: Builds it.
        classes: Width of the logits.
        batch: Samples a step.
        steps: Of one epoch.
        epochs: Of one short training.
        pairs: Of the slow trainings, whose teacher is run on every batch; 0 for as many as asked.
    """

    name: str
    input: Input
    teacher: Callable[[], nn.Module]
    student: Callable[[], nn.Module]
    classes: int
    batch: int
    steps: int
    epochs: int = 1
    pairs: int = 0
    data: Samples = field(init=False)

    @property
    def whole(self) -> int:
        """Steps of one short training."""
        return self.steps * self.epochs

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        count = self.batch * self.steps
        x = rng.normal(size=(count, *self.input.shape)).astype(np.float32)
        self.data = Samples(x, rng.integers(0, self.classes, count))


def convolutions() -> Case:
    """The student of *digit pairs* (benchmarks/methods.py), a wider teacher."""
    shape = (1, 8, 16)
    return Case(
        "digit pairs", Input(shape),
        lambda: Net(shape, ((32, 1), (40, 2), (48, 2)), 64, 100),
        lambda: Net(shape, ((6, 1), (8, 2)), 32, 100), 100, 128, 120, 4,
    )  # fmt: skip


def images() -> Case:
    """MobileViT-XXS and a ResNet-12 of 32 maps on pictures of 64 × 64, classes as logits."""
    from edgekd.models.mobilevit import mobilevit
    from edgekd.models.resnet12 import resnet12

    return Case(
        "mobilevit-xxs", Input((3, 64, 64)), lambda: resnet12(maps=32, classes=40),
        lambda: mobilevit(variant="xxs", size=64, classes=40), 40, 64, 12, 2, 3,
    )  # fmt: skip


def _lesson(case: Case, teacher: Any) -> Lesson:
    labels = torch.from_numpy(case.data.labels)
    train = Train(case.epochs, batch=case.batch)
    return Lesson(
        case.data, labels, case.input, train, None, teacher, 0, torch.device("cpu")
    )  # fmt: skip


def _student(case: Case, objective: Objective) -> Student:
    torch.manual_seed(0)
    net = case.student()
    width = int(getattr(net, "features", 0))
    return Student(net, "logits", width, case.classes, objective, {"logits": (case.classes,)})


def trainer(case: Case, teacher: Any, work: Path) -> float:
    """Return seconds of one short training by edgekd, checkpoint included."""
    student = _student(case, KD if teacher is not None else NONE)
    lesson = _lesson(case, teacher)
    began = time.perf_counter()
    fit(student, lesson, work, "train", silent)
    return time.perf_counter() - began


def by_hand(case: Case, teacher: Any, work: Path) -> float:
    """Return seconds of the same training, written down without edgekd's trainer."""
    del work
    torch.manual_seed(0)
    net = case.student().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    train, ready = Train(case.epochs, batch=case.batch), Prepare(case.input)
    labels = torch.from_numpy(case.data.labels)
    began = time.perf_counter()
    decay = [p for p in net.parameters() if p.ndim > 1]
    rest = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": 0.02}, {"params": rest, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=train.lr)
    net.train()
    for epoch in range(case.epochs):
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(epoch))
        for number, rows in enumerate(torch.split(order, case.batch)):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(train, (epoch * case.steps + number + 1) / case.whole)
            x = ready(as_tensor(case.data.take(rows.numpy())))
            said = teacher.take(0, rows)["logits"]
            logits = net(x)
            soft = F.kl_div(
                F.log_softmax(logits / 4, 1), F.log_softmax(said / 4, 1),
                reduction="batchmean", log_target=True,
            )  # fmt: skip
            loss = 0.1 * F.cross_entropy(logits, labels[rows]) + 0.9 * 16 * soft
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            float(loss.detach())
    return time.perf_counter() - began


def measured(case: Case, pairs: int) -> dict[str, Any]:
    """Answer the three questions for one case."""
    torch.manual_seed(1)
    network = case.teacher().eval()
    x = Prepare(case.input)(as_tensor(case.data.x))
    with torch.inference_mode():
        logits = torch.cat([network(part) for part in torch.split(x, case.batch)])
    live = Live(network, x, {"logits": (case.classes,)})
    with tempfile.TemporaryDirectory() as scratch:
        keep_outputs(Path(scratch), [{"logits": logits.clone()}], None, "features", 0)
        cached = Timed(open_outputs(Path(scratch)))
        work = Path(scratch) / "work"
        for warm in (cached, live, None):
            trainer(case, warm, work)
        by_hand(case, cached, work)
        live.seconds, few = 0.0, case.pairs or pairs
        speed = _pairs(few, lambda: trainer(case, live, work), lambda: trainer(case, cached, work))
        cached.seconds = 0.0
        whole = [trainer(case, cached, work) for _ in range(few)]
        reading = cached.seconds / sum(whole)
        step = statistics.median(trainer(case, None, work) for _ in range(few)) / case.whole
        loop = _pairs(
            2 * pairs, lambda: trainer(case, cached, work), lambda: by_hand(case, cached, work)
        )
    return {
        "case": case.name,
        "batch": case.batch,
        "steps": case.whole,
        "step_ms": round(1e3 * step, 3),
        "teacher_over_step": round(live.seconds / (few * case.whole) / step, 3),
        "cached_over_live": speed,
        "reading_share": round(reading, 5),
        "trainer_over_loop": loop,
    }


def looped(case: Case, pairs: int) -> dict[str, Any]:
    """Answer the third question alone; what the teacher says is made up."""
    said = torch.randn(len(case.data), case.classes, generator=torch.Generator().manual_seed(1))
    with tempfile.TemporaryDirectory() as scratch:
        keep_outputs(Path(scratch), [{"logits": said}], None, "features", 0)
        cached, work = open_outputs(Path(scratch)), Path(scratch) / "work"
        trainer(case, cached, work)
        by_hand(case, cached, work)
        ratio = _pairs(
            2 * pairs, lambda: trainer(case, cached, work), lambda: by_hand(case, cached, work)
        )
    return {"case": case.name, "steps": case.whole, "trainer_over_loop": ratio}


def _pairs(count: int, one: Callable[[], float], two: Callable[[], float]) -> dict[str, Any]:
    """Ratio of the seconds of ``one`` to those of ``two``: by the clock, and of the processor.

    The second does not see what other programs do to the first, nor the waiting for a disk.
    """
    logs, busy = list[float](), list[float]()
    for _ in range(count):
        both, cpu = [0.0, 0.0], [0.0, 0.0]
        for side in random.sample((0, 1), 2):
            began = time.process_time()
            both[side] = (one, two)[side]()
            cpu[side] = time.process_time() - began
        logs.append(float(np.log(both[0] / both[1])))
        busy.append(float(np.log(cpu[0] / cpu[1])))
    return {"pairs": count, **_centre(logs), "processor": _centre(busy)}


def _centre(logs: list[float]) -> dict[str, float]:
    shift = stats.pair_shift(logs)
    centre = {n: round(1 + getattr(shift, n), 4) for n in ("value", "low", "high")}
    return {**centre, "median": round(float(np.exp(np.median(logs))), 4)}


def recipes(repeats: int = 5) -> list[dict[str, Any]]:
    """What the teacher of each bundled recipe costs beside a step of its student."""
    rows = []
    for name in ("mobilevit", "liteinception", "decision_transformer"):
        recipe = load_recipe(name, {})
        batch = recipe.train.batch
        assert recipe.teacher.build is not None and recipe.student.build is not None
        rows.append(_ratio(name, recipe, batch, repeats))
    return rows


def _ratio(name: str, recipe: Any, batch: int, repeats: int) -> dict[str, Any]:
    teacher = invoke(recipe.teacher.build, Path()).eval()
    student = invoke(recipe.student.build, Path()).train()
    theirs = torch.randn(batch, *(recipe.teacher.input or recipe.input).shape)
    ours = torch.randn(batch, *recipe.input.shape)
    optimiser = torch.optim.AdamW(student.parameters(), 1e-3)

    def forward() -> None:
        with torch.inference_mode():
            teacher(theirs)

    def step() -> None:
        optimiser.zero_grad()
        student(ours).float().pow(2).mean().backward()
        optimiser.step()

    seconds = {}
    for label, work in (("teacher_ms", forward), ("step_ms", step)):
        work()
        taken = []
        for _ in range(repeats):
            began = time.perf_counter()
            work()
            taken.append(time.perf_counter() - began)
        seconds[label] = round(1e3 * statistics.median(taken), 3)
    return {
        "recipe": name,
        "batch": batch,
        **seconds,
        "teacher_over_step": round(seconds["teacher_ms"] / seconds["step_ms"], 3),
    }


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--case", action="append", help="only these")
    parser.add_argument("--loop", action="store_true", help="only the third question")
    parser.add_argument("--steps", type=int, help="of a short training, instead of the case's")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    cases = [
        case for case in (convolutions(), images()) if case.name in (asked.case or [case.name])
    ]
    if asked.steps:
        cases = [replace(case, steps=asked.steps) for case in cases]
    more = "".join(f" --case '{name}'" for name in asked.case or ()) + " --loop" * asked.loop
    found: dict[str, Any] = {
        "command": f"python benchmarks/training.py --out {asked.out} --pairs {asked.pairs}{more}",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": 1,
        "load_before": round(load, 2),
    }
    answer = looped if asked.loop else measured
    found["cases"] = [answer(case, asked.pairs) for case in cases]
    found |= {} if asked.loop else {"recipes": recipes()}
    found["load_after"] = round(os.getloadavg()[0], 2)
    asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
