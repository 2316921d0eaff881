"""What learning on under rounding is worth: int8 artefacts with it and without, as they ship.

    python benchmarks/aware.py --out benchmarks/results/aware.json

The students of `benchmarks/methods.py`, by kd, three seeds. Each is exported, quantised for ONNX
Runtime (static int8, products with constant weights) and run there on the test split: as it is,
and after a quarter of its epochs more at a tenth of the learning rate, once in floating point
(the same budget, no rounding: the control) and once under rounding: 8 bits, and 7 bits of weights
as processors without VNNI want them. *separable*: digit pairs by depthwise convolutions.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import platform
import shlex
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import methods
from edgekd.agent.quiet import import_onnxruntime
from edgekd.backends.base import Candidate
from edgekd.backends.onnxruntime import BACKEND
from edgekd.distill.aware import forget, make_aware
from edgekd.distill.presets import PRESETS
from edgekd.distill.student import Student
from edgekd.distill.views import Prepare, as_tensor, in_process
from edgekd.events import silent
from edgekd.graph.export import export_onnx
from edgekd.spec import Objective


class Separable(nn.Module):
    """Three inverted residual blocks as in MobileNetV2, which int8 is known to hurt."""

    map = "body"

    def __init__(self, width: int = 12, wide: int = 36) -> None:
        super().__init__()
        self.features = width
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width))
        self.body = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.SiLU(),
                nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False),
                nn.BatchNorm2d(wide), nn.SiLU(),
                nn.Conv2d(wide, width, 1, bias=False), nn.BatchNorm2d(width),
            )
            for _ in range(3)
        )  # fmt: skip
        self.mix = nn.Linear(width * 8, 32)
        self.head = nn.Linear(32, 100)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, 8, 16) → logits."""
        seen: Tensor = self.stem(x)
        for block in self.body:
            seen = seen + block(seen)
        pooled = nn.functional.avg_pool2d(seen, 4).flatten(1)
        logits: Tensor = self.head(torch.relu(self.mix(pooled)))
        return logits


TASKS: Mapping[str, methods.Task] = {
    **{name: methods.TASKS[name] for name in ("pairs", "series", "blocks")},
    "separable": dataclasses.replace(methods.TASKS["pairs"], student=Separable),
}
BITS = (8, 7)


def artefact_score(task: methods.Task, network: nn.Module, bits: int) -> float:
    """Export, quantise, run on the test split in ONNX Runtime."""
    train, test = task.data()
    samples = Prepare(task.input)(as_tensor(train.x[:256])).contiguous()
    row = Candidate(
        "ort-int8", "onnxruntime", "onnxruntime", "int8", "linear" if bits == 8 else "linear-s7"
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        export_onnx(network, task.input, folder / "net.onnx", samples=samples[:32])
        feeds = {task.input.name: samples.numpy()}
        BACKEND.build(folder / "net.onnx", row, feeds, folder / "q", silent)
        session = import_onnxruntime().InferenceSession(
            str(folder / "q" / "model.onnx"), providers=["CPUExecutionProvider"]
        )

        def run(raw: Any) -> Any:
            x = Prepare(task.input)(as_tensor(raw)).contiguous().numpy()
            return session.run(None, {task.input.name: x})[0]

        return task.score(run, test)


def one(name: str, seed: int) -> list[dict[str, Any]]:
    """Scores of one student and what becomes of it."""
    task = TASKS[name]
    train, test = task.data()
    taught = methods._taught(task, seed)
    assert taught.outputs is not None
    objective = Objective("kd", PRESETS["kd"].terms)
    lesson = methods._lesson(task, train, task.budget, seed, task.input)
    lesson = dataclasses.replace(lesson, teacher=taught.outputs)

    def student(network: nn.Module) -> Student:
        return methods._student(task, lesson, network, objective, taught.outputs.shapes)  # type: ignore[union-attr]

    torch.manual_seed(seed)
    first = student(task.student())
    methods._fit(first, lesson)
    epochs = max(1, round(task.budget.epochs / 4))
    more = dataclasses.replace(task.budget, epochs=epochs, lr=task.budget.lr / 10, warmup=0.0)
    on = dataclasses.replace(lesson, train=more)
    rows = []
    for bits in BITS:
        networks = {"as it is": copy.deepcopy(first.backbone)}
        for label in ("learned on", "under rounding"):
            network = copy.deepcopy(first.backbone)
            if label == "under rounding":
                make_aware(network, bits)
            methods._fit(student(network), on)
            forget(network)
            networks[label] = network
        for label, network in networks.items():
            network.eval()
            float_score = task.score(in_process(network, task.input), test)
            rows.append(
                {
                    "task": name, "seed": seed, "bits": bits, "student": label,
                    "float": round(float_score, 3),
                    "int8": round(artefact_score(task, network, bits), 3),
                }
            )  # fmt: skip
    return rows


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean over the seeds, and int8 under rounding minus int8 of the same budget without."""
    found = []
    for task, bits, label in dict.fromkeys((r["task"], r["bits"], r["student"]) for r in rows):
        mine = [r for r in rows if (r["task"], r["bits"], r["student"]) == (task, bits, label)]
        base = [
            r for r in rows if (r["task"], r["bits"], r["student"]) == (task, bits, "learned on")
        ]
        gains = [round(a["int8"] - b["int8"], 3) for a, b in zip(mine, base, strict=True)]
        found.append(
            {
                "task": task, "bits": bits, "student": label,
                "float": round(statistics.mean(r["float"] for r in mine), 3),
                "int8": round(statistics.mean(r["int8"] for r in mine), 3),
                "int8_over_learned_on": gains,
            }
        )  # fmt: skip
    return found


def main() -> None:
    """Run, write, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--task", action="append", choices=TASKS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for t in asked.task or TASKS for s in asked.seeds for row in one(t, s)]
    found = {
        "command": shlex.join(["python", "benchmarks/aware.py", *sys.argv[1:]]),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "rows": rows,
        "not_run": [name for name in TASKS if name not in (asked.task or TASKS)],
        "summary": summary(rows),
    }
    asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for row in found["summary"]:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
