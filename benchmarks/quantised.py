"""Every quantised candidate of a recipe beside float32, by the task's own metrics.

    python -m benchmarks.quantised --recipe decision_transformer --target cpu --target mcu-m4 \
        --metric cost --out benchmarks/results/decision_transformer-quantised.json

A compression leaves out, by cheap proxies, what cannot win, so it says nothing of those. Here every
row of an exhaustive search (runtime × precision × scope) is built and scored in its own runtime:
on validation data, where the gate decides, and on the test split. Candidates that learn on under
rounding are left out: they are other networks. What a target's device would run is scored by its
proxy where there is no device, as in a compression.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekd import steps
from edgekd.backends.base import Candidate
from edgekd.device.fingerprint import here
from edgekd.discover import load_recipe, load_target
from edgekd.errors import EdgekdError
from edgekd.events import Event
from edgekd.run import Walk
from edgekd.settings import parse_assignments
from edgekd.spec import Recipe
from edgekd.store import Store
from edgekd.target import Target
from edgekd.verdict import verdict

SPLITS = ("val", "test")


@dataclass(frozen=True)
class Asked:
    """What the table is about.

    Attributes:
        metric: The metric whose change is printed.
        limit: Largest relative loss of the primary metric, for the gate.
    """

    metric: str
    limit: float


def rows(walk: Walk, recipe: Recipe, target: Target, asked: Asked) -> Iterator[dict[str, Any]]:
    """Yield a row a candidate of a target, float32 first; what cannot be built says why."""
    student = walk.done["distill"].facts
    absent = target.absent_from(here())
    whole = replace(recipe, quantize=replace(recipe.quantize, search="exhaustive", candidates=0))
    found, missing = steps.candidates(whole, target, absent)
    chosen = [c for c in found if not c.bits]
    planned = {s.name: s for s in steps.built(recipe, target, chosen, absent, None, student)}
    for name in ("convert", "calibrate"):
        if name in planned:
            walk.step(planned[name])
    for sentence in missing:
        yield {"target": target.name, "candidate": sentence.partition(":")[0], "not_run": sentence}
    for candidate in chosen:
        row = {"target": target.name, "candidate": candidate.id, "precision": candidate.precision,
               "runtime": candidate.runtime, "policy": candidate.policy}  # fmt: skip
        try:
            yield row | _scored(walk, recipe, planned, candidate, absent, asked)
        except EdgekdError as error:
            yield row | {"not_run": error.what}


def _scored(
    walk: Walk,
    recipe: Recipe,
    planned: Mapping[str, steps.Step],
    candidate: Candidate,
    absent: str,
    asked: Asked,
) -> dict[str, Any]:
    """Build a candidate and score it on both splits."""
    build = planned[f"build:{candidate.id}"]
    if candidate.same_as and f"build:{candidate.same_as}" not in walk.done:
        walk.step(planned[f"build:{candidate.same_as}"])
    built = walk.step(build).facts
    val = walk.step(planned[f"val:{candidate.id}"]).facts
    test = walk.step(steps.tested(recipe, candidate.id, absent)).facts
    goal = walk.done["distill"].facts["val"]
    values = {
        split: {name: facts["metrics"][name]["value"] for name in (facts["primary"], asked.metric)}
        for split, facts in zip(SPLITS, (val, test), strict=True)
    }
    why = verdict(built["bytes"], val, None, goal, asked.limit, {})
    return {"bytes": built["bytes"], "limit": asked.limit, "rejected": why, **values}


def changes(found: Sequence[dict[str, Any]], metric: str) -> list[dict[str, Any]]:
    """Add how a metric differs from that of the first float32 row, in percent of it."""
    exact = next(row for row in found if row.get("precision") == "fp32" and "val" in row)
    return [
        row | {f"{s} {metric}, %": 100 * (row[s][metric] / exact[s][metric] - 1) for s in SPLITS}
        if "val" in row
        else row
        for row in found
    ]


def summary(found: Sequence[dict[str, Any]], metric: str) -> dict[str, Any]:
    """Say how many quantised candidates were scored, hold and are rejected, and the worst."""
    quantised = [r for r in found if "val" in r and r["precision"] not in ("fp32", "bf16", "fp16")]
    held = [r for r in quantised if not r["rejected"]]
    worst = {
        split: max((abs(r[f"{split} {metric}, %"]), r["candidate"]) for r in held)
        for split in SPLITS
        if held
    }
    return {
        "quantised": len(quantised),
        "held": len(held),
        "rejected": [r["candidate"] for r in quantised if r["rejected"]],
        f"largest difference in {metric} of those that hold, %": worst,
    }


def text(found: Sequence[dict[str, Any]], asked: Asked, primary: str) -> str:
    """Write the rows as a Markdown table."""
    heads = [f"{split} {name}" for split in SPLITS for name in dict.fromkeys((primary, "Δ"))]
    lines = [f"| candidate | scope | bytes | {' | '.join(heads)} | gate |".replace(
        "Δ", f"{asked.metric} against fp32")]  # fmt: skip
    lines.append("| :--- | :--- | ---: |" + " ---: |" * len(heads) + " :--- |")
    for row in found:
        if "val" not in row:
            blank = " – |" * (len(heads) + 1)
            lines.append(f"| {row['candidate']} | {row.get('policy', '')} |{blank} not run: "
                         f"{row['not_run']} |")  # fmt: skip
            continue
        cells = []
        for split in SPLITS:
            change = row[f"{split} {asked.metric}, %"]
            cells += [f"{row[split][primary]:.4f}", f"{change:+.3f} %"]
        lines.append(
            f"| {row['candidate']} | {row['policy']} | {row['bytes']:,} | {' | '.join(cells)} | "
            f"{row['rejected'] or 'holds'} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Train what is not in the store, build, score, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--target", action="append")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--metric", help="Whose change is printed; the task's own if none is named")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    recipe = load_recipe(given.recipe, parse_assignments(tuple(given.settings)))
    walk = Walk(recipe, Store(), _say)
    for step in steps.learned(recipe, lambda n: walk.done[n].facts if n in walk.done else None):
        if not step.name.startswith("baseline:"):
            walk.step(step)
    primary = walk.done["distill"].facts["val"]["primary"]
    found: list[dict[str, Any]] = []
    for target in map(load_target, given.target or ["cpu"]):
        walk.step(steps.exported(recipe, target))
        asked = Asked(given.metric or primary, steps.metric_drop(recipe, target))
        found += rows(walk, recipe, target, asked)
    found = changes(found, asked.metric)
    result = {
        "command": " ".join(["python -m benchmarks.quantised", *sys.argv[1:]]),
        "recipe": given.recipe,
        "primary": primary,
        "summary": summary(found, asked.metric),
        "rows": found,
    }
    print(text(found, asked, primary))
    print(json.dumps(result["summary"], ensure_ascii=False))
    if given.out:
        page = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
        given.out.write_text(page, encoding="utf-8")


def _say(event: Event) -> None:
    if event.kind in ("start", "end", "cached", "warning"):
        print(f"  {event.step}: {event.kind} {event.text}".rstrip(), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
