"""arXiv 2603.26145: MobileViT distilled for few-shot images, against a ResNet-12.

The abstract's claims stand beside the same quantities measured here. The paper compares a student
distilled from a foundation teacher with a ResNet-12 that had no teacher; the decisive control is
the ResNet-12 *with* the same teacher, and the student without, so all four are trained.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekd import steps
from edgekd.discover import load_recipe
from edgekd.events import Event
from edgekd.manifest import LEAK
from edgekd.run import Walk
from edgekd.settings import parse_assignments
from edgekd.store import Store

REPORTED = {
    "1-shot over ResNet-12": "+14 points",
    "5-shot over ResNet-12": "+6.7 points",
    "parameters": "−69 %",
    "operations": "−88 % (its FLOPs; ours are MACs by torch's counter)",
    "dynamic energy, Jetson Orin Nano": "−37 %",
    "latency, Jetson Orin Nano": "2.6 ms",
}
"""The abstract. Method and tables could not be read; the protocol is that of the authors' code."""

NOT_RUN = "not_run: needs the board; edgekd compress --target jetson --on ssh:HOST"
ARCHITECTURES = (("MobileViT-XXS", "xxs"), ("ResNet-12, 32 maps", "resnet12"))


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is asked."""
    parser.add_argument("--data", required=True, help="your MiniImageNet, in any usual layout")
    parser.add_argument("--teacher", required=True, help=".onnx that gives features, or FILE.py:fn")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="more settings")
    parser.add_argument("--out", type=Path, help="write the result as JSON")


def run(asked: argparse.Namespace) -> None:
    """Train the four networks and print both columns."""
    given = {"preset": "paper", "data": asked.data, "teacher": asked.teacher, "baselines": "false"}
    settings = {**given, **parse_assignments(tuple(asked.settings))}
    rows: dict[str, Any] = {}
    external = False
    for label, variant in ARCHITECTURES:
        recipe = load_recipe("mobilevit", {**settings, "variant": variant})
        external = recipe.distill_data == "external"
        rows |= _measure(Walk(recipe, Store(), _say), label)
    result = {"reported": REPORTED, "rows": rows, "claims": _claims(rows), "external": external}
    if asked.out:
        asked.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(text(result))


def _measure(walk: Walk, label: str) -> dict[str, Any]:
    """Train control and student of one architecture and score them on the novel classes."""
    names = {"control": f"{label}, from scratch", "distill": f"{label}, distilled"}
    names["teacher"] = "teacher"
    for step in steps.shared(walk.recipe):
        walk.step(step)
    for step in steps.scored(walk.recipe):
        if step.name.partition(":")[2] in ("trivial", *names):
            walk.step(step)
    trivial = walk.done["test:trivial"].facts
    rows: dict[str, Any] = {"raw pixels": {"metrics": trivial["metrics"], "params": 0, "macs": 0}}
    for name, shown in names.items():
        made = walk.done[name].facts
        rows[shown] = {
            "metrics": walk.done[f"test:{name}"].facts["metrics"],
            "params": made["params"],
            "macs": made["macs"],
        }
    return rows


def _claims(rows: Mapping[str, Any]) -> dict[str, str]:
    """The paper's quantities, ours."""
    (small, _), (big, _) = ARCHITECTURES
    student, plain = rows[f"{small}, distilled"], rows[f"{big}, from scratch"]
    fair, control = rows[f"{big}, distilled"], rows[f"{small}, from scratch"]
    found: dict[str, str] = {}
    for metric in student["metrics"]:
        shot = metric.rpartition(" ")[2]
        value = student["metrics"][metric]["value"]
        found[f"{shot} over ResNet-12"] = _points(value - plain["metrics"][metric]["value"])
        found[f"{shot} over the distilled ResNet-12"] = _points(
            value - fair["metrics"][metric]["value"]
        )
        found[f"{shot} over the student from scratch"] = _points(
            value - control["metrics"][metric]["value"]
        )
    for name, key in (("parameters", "params"), ("operations", "macs")):
        found[name] = f"{100 * (student[key] / plain[key] - 1):+.1f} %"
    return found


def text(result: Mapping[str, Any]) -> str:
    """Write the accuracies, then reported beside measured."""
    rows, reported = result["rows"], result["reported"]
    metrics = list(next(iter(rows.values()))["metrics"])
    lines = [f"| network | parameters | MACs | {' | '.join(metrics)} |"]
    lines.append("| :--- | ---: | ---: |" + " ---: |" * len(metrics))
    for name, row in rows.items():
        cells = [_accuracy(row["metrics"][metric]) for metric in metrics]
        lines.append(f"| {name} | {row['params']} | {row['macs']} | {' | '.join(cells)} |")
    lines += ["", "| claim | reported | measured here |", "| :--- | :--- | :--- |"]
    for claim in dict.fromkeys([*reported, *result["claims"]]):
        measured = result["claims"].get(claim, NOT_RUN)
        lines.append(f"| {claim} | {reported.get(claim, '–')} | {measured} |")
    if result["external"]:
        lines += ["", LEAK]
    return "\n".join(lines)


def _points(value: float) -> str:
    return f"{100 * value:+.2f} points"


def _accuracy(row: Mapping[str, float]) -> str:
    return f"{100 * row['value']:.2f} ± {50 * (row['high'] - row['low']):.2f} %"


def _say(event: Event) -> None:
    if event.kind in ("start", "end", "warning"):
        print(f"{event.step}: {event.kind} {event.text}".rstrip(), flush=True)
