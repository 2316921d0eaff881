"""Modes of `liteinception` as precision against recall, beside moving a threshold, which is free.

    python -m benchmarks.modes --out benchmarks/results/liteinception-modes.json

Stage 1 is trained in each mode (``balanced``: labels alone; ``kd``: labels and teacher;
``recall-first``: faulty flights weigh double as well), whatever the teacher is worth. Each is
judged on the test flights at one half, and at the threshold that finds the wanted share of the
faulty validation flights. The free baseline is the balanced network with its threshold moved to
the recall that a mode has at one half on validation. Every threshold and temperature comes from
validation. Intervals are clustered by airframe (Student's t), differences paired by flight.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd import steps
from edgekd.artefact import Running, open_artefact
from edgekd.calls import invoke
from edgekd.discover import load_recipe
from edgekd.run import Walk
from edgekd.settings import parse_assignments
from edgekd.spec import finite
from edgekd.store import Store
from edgekd.tasks.base import labels_of, outputs_of
from edgekd.tasks.faults import metrics
from edgekd.tasks.faults.tasks import shares

MODES = ("balanced", "kd", "recall-first")
Chances = dict[str, NDArray[np.float64]]


def trained(settings: Mapping[str, Any]) -> tuple[Any, Chances]:
    """Train one mode, or take it from the store.

    Returns:
        The data, and for ``val`` and ``test`` the chances of both classes, (flights, 2).
    """
    recipe = load_recipe("liteinception", {**settings, "stage": 1, "distill": "always"})
    walk = Walk(recipe, Store(), _say)
    for step in steps.shared(recipe):
        if not step.name.startswith("baseline:"):
            walk.step(step)
    base = steps.base_of(recipe)
    data, artefact = invoke(recipe.data, base), open_artefact(walk.done["distill"].path)
    with Running(artefact, options={"base": str(base)}) as model:
        logits = {
            split: outputs_of(model, getattr(data, split)).astype(np.float64)
            for split in ("val", "test")
        }
    warmth = metrics.temperature(logits["val"], labels_of(data.val))
    return data, {split: shares(values, warmth) for split, values in logits.items()}


def judge(settings: Mapping[str, Any], recall: float) -> dict[str, Any]:
    """Train every mode and put it beside the balanced network at moved thresholds.

    Args:
        settings: Of the recipe.
        recall: Share of the faulty flights that shall be found.
    """
    data, found = None, {}
    for mode in MODES:
        data, found[mode] = trained({**settings, "mode": mode})
    assert data is not None
    labels = {split: labels_of(getattr(data, split)) for split in ("val", "test")}
    cuts = {}
    for mode, chances in found.items():
        seen = chances["val"][:, 1]
        cuts[f"{mode}, at one half"] = (mode, 0.5)
        wanted = metrics.threshold_for(seen, labels["val"], recall)
        cuts[f"{mode}, for a recall of {recall:.0%}"] = (mode, wanted)
        if mode != "balanced":
            there = float((seen[labels["val"] > 0] >= 0.5).mean())
            free = metrics.threshold_for(found["balanced"]["val"][:, 1], labels["val"], there)
            cuts[f"balanced, moved to the recall of {mode}"] = ("balanced", free)
    units = {
        name: _units(found[mode]["test"][:, 1], labels["test"], cut)
        for name, (mode, cut) in cuts.items()
    }
    groups = data.test.groups
    against = {f"{m}, at one half": f"balanced, moved to the recall of {m}" for m in MODES[1:]}
    against |= {
        f"{m}, for a recall of {recall:.0%}": f"balanced, for a recall of {recall:.0%}"
        for m in MODES[1:]
    }
    return {
        "settings": dict(settings),
        "flights": len(labels["test"]),
        "rows": {
            name: {
                "threshold": cuts[name][1],
                "calibration error": metrics.calibration_error(
                    found[cuts[name][0]]["test"], labels["test"]
                ),
                "metrics": {m: metrics.clustered(v, groups) for m, v in row.items()},
            }
            for name, row in units.items()
        },
        "differences": {
            f"{name} − {free}": {
                m: metrics.clustered(v - units[free][m], groups) for m, v in units[name].items()
            }
            for name, free in against.items()
        },
    }


def _units(
    chance: NDArray[np.float64], labels: NDArray[np.int64], cut: float
) -> dict[str, NDArray[np.float64]]:
    """One value a flight of each metric."""
    flagged = chance >= cut
    ill, well = (labels > 0).astype(np.float64), (labels == 0).astype(np.float64)
    found = flagged.astype(np.float64)
    return {
        "missed faults": metrics.ratio(ill * (1 - found), ill),
        "false alarms": metrics.ratio(well * found, well),
        "F1": metrics.f1(flagged, labels),
        "MCWPM": metrics.mcwpm(flagged, labels),
        "AUC": metrics.auc(chance, labels),
    }


def text(result: Mapping[str, Any]) -> str:
    """Write the result as Markdown."""
    names = list(next(iter(result["rows"].values()))["metrics"])
    lines = [f"| stage 1 | threshold | {' | '.join(names)} | calibration error |"]
    lines.append(f"| :--- |{' ---: |' * (len(names) + 2)}")
    for name, row in result["rows"].items():
        cells = [_cell(row["metrics"][m]) for m in names]
        ends = (f"{row['threshold']:.3f}", *cells, f"{row['calibration error']:.3f}")
        lines.append(f"| {name} | {' | '.join(ends)} |")
    lines += ["", f"| difference | {' | '.join(names)} |", f"| :--- |{' ---: |' * len(names)}"]
    for name, row in result["differences"].items():
        lines.append(f"| {name} | {' | '.join(_cell(row[m], '+') for m in names)} |")
    return "\n".join(lines)


def _cell(row: Mapping[str, float], sign: str = "") -> str:
    value, low, high = (format(row[k], f"{sign}.3f") for k in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _say(event: Any) -> None:
    if event.kind in ("start", "end", "warning"):
        print(f"  {event.step}: {event.kind} {event.text}".rstrip(), file=sys.stderr, flush=True)


def main() -> None:
    """Train, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--recall", type=float, default=0.9)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    result = judge(parse_assignments(tuple(asked.settings)), asked.recall)
    result["command"] = " ".join(["python -m benchmarks.modes", *sys.argv[1:]])
    if asked.out:
        asked.out.write_text(json.dumps(finite(result), indent=1) + "\n", encoding="utf-8")
    print(text(result))


if __name__ == "__main__":
    main()
