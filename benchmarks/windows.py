"""Times of `liteinception` at long windows: architecture, runtime and precision, each by itself.

    python -m benchmarks.windows --out benchmarks/results/liteinception-windows.json

Stage 1's student, its teacher (four students averaged) and InceptionTime 3+1 on all 23 sensors (the
form that the literature calls the teacher), at windows of 4096, 1024 and 512 samples; by default
the recipe pools a flight's 4096 s to 128. The networks have the weights of seed 0: their batch
norms have seen 16 simulated flights, but nothing was trained, so these are times and no more.
Export, quantisation (64 flights) and runtimes are those of `edgekd quantize`.

Everything of a window is timed in turns, blocks of a few inferences of processes that are alive
together, one thread, fresh processes in every round. Ratios are paired by round: Hodges–Lehmann
with the 95 % interval that inverts the signed-rank test, of the least processor time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekd import direct, steps
from edgekd.artefact import open_artefact
from edgekd.backends.torch_eager import MAIN, save_network
from edgekd.bench.measure import SAMPLES, Contestant, Process, Settings, log_ratios, rounds
from edgekd.bench.stats import pair_shift
from edgekd.calls import invoke
from edgekd.data.flight.simflight import simflight
from edgekd.device.fingerprint import here
from edgekd.device.lease import lease
from edgekd.discover import load_recipe, load_target
from edgekd.events import Event, silent
from edgekd.inputs import save_arrays
from edgekd.spec import Call, Input, Recipe

LENGTHS = (4096, 1024, 512)
AIRFRAMES, EVENTS = 5, 11
"""Of the flights that calibrate: enough for ranges."""
CALIBRATED, SEEN = 64, 16
FP32 = {"onnxruntime": "ort-fp32", "openvino": "ov-f32"}
INT8 = {"ort-int8": "onnxruntime", "ov-int8": "openvino", "ov-int8-bf16": "openvino"}
GOALS = {"teacher, torch": 14.0, "InceptionTime, torch": 14.0, "teacher": 8.0, "InceptionTime": 8.0}
"""By how much the quantised student is wanted to be faster, at 4096 samples; of those without a
runtime, in the same one."""
BUILD = """\
from pathlib import Path

from edgekd.backends.torch_eager import load_network


def build():
    return load_network(Path({folder!r}), Path())[0].eval()
"""


def networks(recipe: Recipe) -> dict[str, tuple[Call, tuple[int, ...]]]:
    """Label → how a network is built, and the channels that it sees."""
    student, teacher = recipe.student, recipe.teacher
    assert student.build is not None and teacher.build is not None
    seen = recipe.input.channels or ()
    every = tuple(range(23))
    large = Call("edgekd.models.inception:inception", {"classes": 2, "form": "teacher"})
    return {
        "student": (student.build, seen),
        "teacher": (teacher.build, seen),
        "InceptionTime": (large, every),
    }


def untrained(build: Call, x: Any, out: Path) -> Path:
    """Write a network at seed 0 whose batch norms have seen some flights.

    Args:
        build: Of the network.
        x: (flights, channels, 1, length).
        out: Gets it as ``out/network``, ``out/net.py`` that builds it, and ``out/samples.npz``.
    """
    torch.manual_seed(0)
    network = invoke(build, Path()).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network(torch.from_numpy(x[:SEEN]))
    folder = out / "network"
    save_network(network.eval(), build, Input(x.shape[1:], name="input"), folder)
    (out / "net.py").write_text(BUILD.format(folder=str(folder)), encoding="utf-8")
    save_arrays(out / "samples.npz", {"input": x})
    return folder


def made(label: str, folder: Path, target_name: str) -> list[Contestant]:
    """A network in torch, in float32 in every runtime, and the student in int8.

    Args:
        label: Of the network.
        folder: See `untrained`.
        target_name: Whose candidates are built.
    """
    asked = direct.Source(f"{folder / 'net.py'}:build", folder / "samples.npz", samples=CALIBRATED)
    walk, recipe = direct.start(asked, None, silent)
    wanted = {*FP32.values(), *(INT8 if label == "student" else ())}
    chosen = [c for c in steps.candidates(recipe, load_target(target_name))[0] if c.id in wanted]
    feeds = {"input": folder / "feed.npy"}
    with np.load(folder / "samples.npz") as archive:
        np.save(feeds["input"], archive["input"][:SAMPLES])
    base = {"base": str(folder)}
    found = [Contestant(f"{label}, torch", folder / "network" / MAIN, "torch", base, feeds)]
    planned = {s.name: s for s in steps.built(recipe, load_target(target_name), chosen)}
    for name, step in planned.items():
        if name == "calibrate" or name.startswith("build:"):
            _say(f"  {label}: {name}")
            walk.step(step)
    for candidate in chosen:
        one = open_artefact(walk.whole(f"build:{candidate.id}").path)
        found.append(
            Contestant(
                f"{label}, {candidate.id}", one.folder / one.main, one.runtime, one.options, feeds
            )
        )
    return found


def ratios(found: Sequence[Sequence[Process]]) -> list[dict[str, Any]]:
    """How many times as fast the quantised student is, in each runtime.

    Args:
        found: Rounds of processes.
    """
    places = {process.label: i for i, process in enumerate(found[0])}
    rows = []
    for int8, runtime in INT8.items():
        if f"student, {int8}" not in places:
            continue  # this processor has no bfloat16
        fast = places[f"student, {int8}"]
        sides = {
            "teacher, torch": "teacher, torch",
            "InceptionTime, torch": "InceptionTime, torch",
            "student, torch": "student, torch",
            **{n: f"{n}, {FP32[runtime]}" for n in ("teacher", "InceptionTime", "student")},
        }
        for name, label in sides.items():
            logs = [log_ratios(one[fast], one[places[label]])["cpu"] for one in found]
            shift = pair_shift(logs)
            rows.append(
                {
                    "fast": f"student, {int8}",
                    "slow": label,
                    "goal": GOALS.get(name),
                    **{end: 1 + getattr(shift, end) for end in ("value", "low", "high")},
                }
            )
    return rows


def measure(length: int, count: int, target_name: str, work: Path) -> dict[str, Any]:
    """Build and time everything at one window.

    Args:
        length: Samples of it.
        count: Rounds.
        target_name: Whose candidates are built.
        work: Scratch.
    """
    recipe = load_recipe("liteinception", {"stage": 1, "length": length})
    data: Any = simflight(length=length, airframes=AIRFRAMES, events=EVENTS)
    x = data.train.take(np.linspace(0, len(data.train) - 1, CALIBRATED).astype(np.int64))
    entered, sizes = [], {}
    for label, (build, seen) in networks(recipe).items():
        folder = work / f"{label}-{length}"
        folder.mkdir()
        network = untrained(build, np.ascontiguousarray(x[:, list(seen)]), folder)
        weights = torch.load(network / "weights.pt", weights_only=True)
        sizes[label] = sum(v.numel() for n, v in weights.items() if not _statistic(n))
        entered += made(label, folder, target_name)
    with lease(3600):
        found = []
        for number, one in enumerate(islice(rounds(entered, Settings(warmup=3), seed=0), count), 1):
            _say(f"  {length} samples: round {number} of {count}")
            found.append(one)
    return {
        "length": length,
        "parameters": sizes,
        "rows": [
            {
                "name": contestant.label,
                "runtime": contestant.runtime,
                "options": {n: v for n, v in contestant.options.items() if n != "base"},
                "cpu_ms": statistics.median(one[i].cpu_least_ms for one in found),
                "wall_ms": statistics.median(one[i].quantiles_ms["p50"] for one in found),
                "load": statistics.median(one[i].load for one in found),
            }
            for i, contestant in enumerate(entered)
        ],
        "times as fast": ratios(found),
    }


def _statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def text(result: Mapping[str, Any]) -> str:
    """Write the result as Markdown."""
    lines = []
    for part in result["windows"]:
        lines += [
            f"\n| {part['length']} samples | CPU, ms | wall p50, ms |",
            "| :--- | ---: | ---: |",
        ]
        lines += [
            f"| {row['name']} | {row['cpu_ms']:.3f} | {row['wall_ms']:.3f} |"
            for row in part["rows"]
        ]
        lines += ["\n| faster | than | times, 95 % | wanted |", "| :--- | :--- | ---: | ---: |"]
        for row in part["times as fast"]:
            goal = row["goal"]
            wanted = (
                "" if goal is None else f"{goal:g} {'holds' if row['value'] >= goal else 'MISSED'}"
            )
            if part["length"] != LENGTHS[0]:
                wanted = ""
            lines.append(
                f"| {row['fast']} | {row['slow']} | {row['value']:.2f}"
                f" [{row['low']:.2f}, {row['high']:.2f}] | {wanted} |"
            )
    return "\n".join(lines)


def _say(said: str | Event) -> None:
    print(said, file=sys.stderr, flush=True)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--length", action="append", type=int, default=[])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    machine = here()
    result = {
        "command": " ".join(["python -m benchmarks.windows", *sys.argv[1:]]),
        "weights": "seed 0, not trained",
        "machine": {name: machine[name] for name in ("cpu", "isa", "cores", "arch")},
        "runtimes": machine["runtimes"],
        "rounds": asked.rounds,
        "windows": [],
    }
    with tempfile.TemporaryDirectory(prefix="edgekd-windows-") as work:
        for length in asked.length or LENGTHS:
            part = measure(length, asked.rounds, asked.target, Path(work))
            result["windows"].append(part)
            if asked.out:
                asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(text(result))


if __name__ == "__main__":
    main()
