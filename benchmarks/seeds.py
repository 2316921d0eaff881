"""Repeat a recipe with several seeds: student against control and teacher, artefact against both.

    python benchmarks/seeds.py --recipe mobilevit --out benchmarks/results/mobilevit-seeds.json

Everything is measured on the test split, each artefact in its own runtime; where the recipe has
rules or planners to be measured against, student and artefacts are compared with them too, and
always with the task's trivial model. Kinds of interval are printed that must not be confused: over
the units of one training (episodes, homes, flights), paired; over the seeds (Student's t), which
also holds what another initialisation, another order of the data and other augmentations change;
over both (bootstrap of seeds and units, each drawn with replacement); and, where the units come in
groups that are alike (the flights of an airframe), over seeds and groups. ``recipe`` is the network
that the recipe ships: the control where no teacher is better on validation data. With ``--share``
the students' metric is also given as a share of the better of teacher and control, which
validation data choose.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekd import steps
from edgekd.backends.base import Candidate
from edgekd.calls import invoke
from edgekd.discover import load_recipe, load_target
from edgekd.errors import StageError, UsageError, did_you_mean
from edgekd.events import Event
from edgekd.run import Walk
from edgekd.settings import parse_assignments
from edgekd.spec import Recipe
from edgekd.steps import REFERENCES
from edgekd.store import Store
from edgekd.target import Target
from edgekd.tasks.base import interval, paired
from edgekd.tasks.faults.metrics import ratio

T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Student's t, 97.5 %, by the number of seeds."""
RESAMPLES = 2000


def one_seed(
    recipe_name: str,
    target_name: str,
    settings: Mapping[str, Any],
    seed: int,
    baselines: bool = False,
    wanted: Sequence[str] = (),
    share: str = "",
    always: bool = True,
) -> dict[str, Any]:
    """Train with one seed, build candidates of the target, score all on the test split.

    Args:
        recipe_name: Of the recipe.
        target_name: Of the target.
        settings: Of the recipe, but its seed.
        seed: Of everything random.
        baselines: Train the recipe's baselines too.
        wanted: Candidates; none stands for all.
        share: A metric; see `_shares`.
        always: Distil even where the recipe does not, the teacher being no better on validation
            data. Else ``distill`` is the control there.

    Returns:
        ``metrics`` (network → metric → value), ``intervals`` (network → metric → ends, over the
        units), ``pairs`` (difference → metric → interval over the units), ``ships`` (``control`` or
        ``distill``), ``shares`` (network → value and interval), ``differences`` and ``parts`` (of
        the primary metric and of the shares, a value a unit) and ``training_cpu_s``.
    """
    recipe = load_recipe(recipe_name, {**settings, "seed": seed})
    target = load_target(target_name)
    walk = Walk(recipe, Store(), _say)
    chosen = artefacts(recipe, target, wanted)
    wise = steps.learned(recipe, lambda name: walk.done[name].facts)
    for step in steps.shared(recipe) if always else wise:
        if baselines or not step.name.startswith("baseline:"):
            walk.step(step)
    names = [n for n in steps.networks(recipe) if n in walk.done]
    tests = {f"test:{name}" for name in names} | {"test:trivial", REFERENCES}
    for step in steps.scored(recipe):
        if step.name in tests:
            walk.step(step)
    walk.step(steps.exported(recipe, target))
    made = buildable(chosen, {s.name: s for s in steps.built(recipe, target, chosen)}, walk.step)
    for name in made:
        walk.step(steps.tested(recipe, name))
    result = _result(recipe, walk, names, made, share)
    return result | {"groups": _groups(recipe)}


def artefacts(recipe: Recipe, target: Target, wanted: Sequence[str] = ()) -> list[Candidate]:
    """Return the target's candidates but those that train again, where int8 misses its limit.

    Args:
        recipe: What is compressed.
        target: For which device.
        wanted: Names of those that shall be built; none stands for all.

    Raises:
        UsageError: The target has no candidate of that name here.
    """
    found = [c for c in steps.candidates(recipe, target)[0] if not c.bits]
    names = [c.id for c in found]
    for name in wanted:
        if name not in names:
            raise UsageError(
                f"no candidate {name!r}", at="--candidate", hint=did_you_mean(name, names)
            )
    return [c for c in found if not wanted or c.id in wanted]


def buildable(
    chosen: Sequence[Candidate],
    built: Mapping[str, steps.Step],
    walk: Callable[[steps.Step], object],
) -> list[str]:
    """Build candidates; leave out, and name, those that make nothing of this network.

    Args:
        chosen: What shall be built.
        built: All steps of it by name.
        walk: Takes a step.

    Returns:
        The candidates that were built.
    """
    for name in ("convert", "calibrate"):
        if name in built:
            walk(built[name])
    made: list[str] = []
    for candidate in chosen:
        try:
            if candidate.same_as and candidate.same_as not in made:
                raise StageError(f"{candidate.same_as} was not built")
            walk(built[f"build:{candidate.id}"])
        except StageError as error:
            print(f"  left out: {candidate.id}: {error.what}", file=sys.stderr, flush=True)
        else:
            made.append(candidate.id)
    return made


def alone(
    recipe_name: str,
    target_name: str,
    settings: Mapping[str, Any],
    seed: int,
    wanted: Sequence[str] = (),
) -> dict[str, Any]:
    """Train the control with one seed, build candidates of it, score on the test split.

    Args:
        recipe_name: Of the recipe.
        target_name: Of the target.
        settings: Of the recipe, but its seed.
        seed: Of everything random.
        wanted: Candidates; none stands for none.

    Returns:
        See `one_seed`.
    """
    recipe = load_recipe(recipe_name, {**settings, "seed": seed})
    target = load_target(target_name)
    walk = Walk(recipe, Store(), _say)
    walk.step(next(step for step in steps.shared(recipe) if step.name == "control"))
    for step in steps.scored(recipe):
        if step.name in ("test:control", "test:trivial"):
            walk.step(step)
    made: list[str] = []
    if wanted:
        kept = {"facts": dict(walk.done["control"].facts), "undistilled": "no teacher was trained"}
        walk.step(next(s for s in steps.shared(recipe, kept) if s.name == "distill"))
        walk.step(steps.exported(recipe, target))
        chosen = artefacts(recipe, target, wanted)
        built = {step.name: step for step in steps.built(recipe, target, chosen)}
        made = buildable(chosen, built, walk.step)
        for name in made:
            walk.step(steps.tested(recipe, name))
    everything = ("trivial", "control", *made)
    tests = {name: walk.done[f"test:{name}"].facts for name in everything}
    units = {name: _units(walk, f"test:{name}") for name in everything}
    sides = {"control − trivial": ("control", "trivial")}
    sides |= {f"{name} − {other}": (name, other) for name in made for other in everything[:2]}
    primary = tests["control"]["primary"]
    return {
        "primary": primary,
        "metrics": _metrics(tests),
        "intervals": _intervals(tests),
        "pairs": _paired(units, sides),
        "differences": {
            name: units[a][primary] - units[b][primary] for name, (a, b) in sides.items()
        },
        "training_cpu_s": {"control": walk.done["control"].facts["cpu_s"]},
        "groups": _groups(recipe),
    }


def joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Runs of one seed, each tested on a fold of its own, as one run over all their units.

    Values are means over the folds; only the primary metric's differences are kept.
    """
    first = parts[0]

    def all_of(key: str) -> dict[str, Any]:
        return {n: np.concatenate([p[key][n] for p in parts]) for n in first.get(key, {})}

    apart, shares = all_of("differences"), all_of("parts")
    groups = None if first["groups"] is None else np.concatenate([p["groups"] for p in parts])
    return {
        "primary": first["primary"],
        "metrics": {
            name: {m: statistics.fmean([p["metrics"][name][m] for p in parts]) for m in row}
            for name, row in first["metrics"].items()
        },
        "pairs": {name: {first["primary"]: interval(values)} for name, values in apart.items()},
        "differences": apart,
        "parts": shares,
        "shares": {name: interval(values) for name, values in shares.items()},
        "folds": [{name: float(v.mean()) for name, v in p["differences"].items()} for p in parts],
        "groups": groups,
    }


def _groups(recipe: Recipe) -> Any:
    """Groups of alike test units, where the data know them."""
    return getattr(invoke(recipe.data, steps.base_of(recipe)).test, "groups", None)


def _result(
    recipe: Recipe, walk: Walk, names: Sequence[str], artefacts: Sequence[str], share: str
) -> dict[str, Any]:
    units = {n: _units(walk, f"test:{n}") for n in (*names, *artefacts)}
    first, *more = (walk.done[name].facts for name in steps.teachers(recipe))
    kept = steps.undistilled(recipe, first, walk.done["control"].facts, *more)
    ships = "distill" if kept is None else "control"
    units["recipe"] = units[ships]
    pairs = {
        "distill − control": ("distill", "control"),
        "distill − teacher": ("distill", "teacher"),
    }
    pairs |= {f"{name} − distill": (name, "distill") for name in artefacts}
    if not _references(walk):
        units["trivial"] = _units(walk, "test:trivial")
        ours = ("control", "distill", "recipe", *artefacts)
        pairs |= {f"{n} − trivial": (n, "trivial") for n in ours}
    everything = ["trivial", *names, *artefacts]
    tests = {name: walk.done[f"test:{name}"].facts for name in everything}
    tests["recipe"] = tests[ships]
    for row in _references(walk):
        tests[row["name"]] = row
        found = _units(walk, REFERENCES)
        mine = {n.partition(":")[2]: v for n, v in found.items() if n.startswith(row["name"] + ":")}
        units[row["name"]] = mine
        if not row["bound"]:
            pairs |= {f"{n} − {row['name']}": (n, row["name"]) for n in ("distill", *artefacts)}
    primary = tests["distill"]["primary"]
    parts = _shares(walk, units, ("distill", "recipe", *artefacts), share) if share else {}
    return {
        "primary": primary,
        "ships": ships,
        "metrics": _metrics(tests),
        "intervals": _intervals(tests),
        "shares": {name: interval(values) for name, values in parts.items()},
        "parts": parts,
        "pairs": _paired(units, pairs),
        "differences": {
            name: units[a][primary] - units[b][primary]
            for name, (a, b) in pairs.items()
            if primary in units[a]
        },
        "training_cpu_s": {
            n: walk.done[n].facts["cpu_s"] for n in names if "cpu_s" in walk.done[n].facts
        },
    }


def _shares(
    walk: Walk, units: Mapping[str, Mapping[str, Any]], names: Sequence[str], metric: str
) -> dict[str, Any]:
    """What networks keep of a metric of the better of teacher and control.

    Validation data say which one is the better.

    Returns:
        ``NETWORK of the BETTER's METRIC`` → influence values of the share, one a unit; their mean
        is the share.
    """
    judged = {name: walk.done[name].facts["val"] for name in ("teacher", "control")}
    best = max if judged["control"]["higher_is_better"] else min
    better = best(judged, key=lambda name: judged[name]["metrics"][metric]["value"])
    whole = units[better][metric]
    return {f"{name} of the better's {metric}": ratio(units[name][metric], whole) for name in names}


def _metrics(tests: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return network → metric → value."""
    return {n: {m: row["value"] for m, row in t["metrics"].items()} for n, t in tests.items()}


def _intervals(tests: Mapping[str, Any]) -> dict[str, dict[str, list[float]]]:
    """Return network → metric → both ends."""
    return {
        n: {m: [row["low"], row["high"]] for m, row in t["metrics"].items() if "low" in row}
        for n, t in tests.items()
    }


def _paired(units: Mapping[str, Any], sides: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """Return difference → metric → value and interval."""
    return {
        name: {m: paired(units[a][m], units[b][m]) for m in units[a] if m in units[b]}
        for name, (a, b) in sides.items()
    }


def _units(walk: Walk, step: str) -> dict[str, Any]:
    return dict(np.load(walk.done[step].path / "units.npz"))


def _references(walk: Walk) -> list[Mapping[str, Any]]:
    return walk.done[REFERENCES].facts["rows"] if REFERENCES in walk.done else []


def over_seeds(values: Sequence[float]) -> dict[str, float]:
    """Mean over the seeds with Student's 95 % interval."""
    mean = statistics.fmean(values)
    half = T95[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
    return {"value": mean, "low": mean - half, "high": mean + half, "n": len(values)}


def over_both(values: Sequence[Any], groups: Any = None) -> dict[str, float]:
    """Mean over seeds and units with the percentile bootstrap's 95 % interval, both redrawn.

    Args:
        values: A row (units,) a seed, the same units in each.
        groups: Of each unit, where whole groups are redrawn; None for single units.
    """
    table = np.stack(values)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(table), (RESAMPLES, len(table)))
    kinds = (
        np.arange(table.shape[1]) if groups is None else np.unique(groups, return_inverse=True)[1]
    )
    members = int(kinds.max()) + 1
    weight = np.bincount(kinds, minlength=members)
    sums = np.stack([np.bincount(kinds, line, members) for line in table])
    columns = rng.integers(0, members, (RESAMPLES, members))
    means = [
        sums[r][:, c].sum() / (len(r) * weight[c].sum()) for r, c in zip(rows, columns, strict=True)
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    return {"value": float(table.mean()), "low": float(low), "high": float(high), "n": table.size}


def summary(runs: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Return mean and interval over the seeds of every metric and difference."""
    first, every = next(iter(runs.values())), list(runs.values())
    groups = first.get("groups")
    if groups is not None:
        spread = {
            name: over_both([r["differences"][name] for r in every], groups)
            for name in first["differences"]
        }
        more = {"groups": {"count": len(np.unique(groups)), "both": spread}}
    else:
        more = {}
    return more | {
        "shares": {
            name: {
                "seeds": over_seeds([float(r["parts"][name].mean()) for r in every]),
                "both": over_both([r["parts"][name] for r in every]),
                "groups": over_both([r["parts"][name] for r in every], groups),
            }
            for name in first.get("parts", {})
        },
        "both": {
            name: over_both([r["differences"][name] for r in every])
            for name in first["differences"]
        },
        "metrics": {
            name: {m: over_seeds([r["metrics"][name][m] for r in every]) for m in row}
            for name, row in first["metrics"].items()
        },
        "pairs": {
            name: {
                m: over_seeds([r["pairs"][name][m]["value"] for r in runs.values()]) for m in row
            }
            for name, row in first["pairs"].items()
        },
    }


def text(result: Mapping[str, Any]) -> str:
    """Write the result as two small Markdown tables."""
    primary, found = result["primary"], result["summary"]
    seeds = list(result["runs"])
    lines = [f"| {primary} | mean over {len(seeds)} seeds | each seed |", "| :--- | ---: | ---: |"]
    for name, row in found["metrics"].items():
        each = ", ".join(f"{result['runs'][s]['metrics'][name][primary]:.4f}" for s in seeds)
        lines.append(f"| {name} | {row[primary]['value']:.4f} | {each} |")
    head = "| difference | mean, 95 % over seeds | 95 % over seeds and units |"
    grouped = found.get("groups")
    head += f" 95 % over seeds and {grouped['count']} groups |" if grouped else ""
    rule = "| :--- | ---: | ---: | ---: |" + (" ---: |" if grouped else "")
    lines += ["", f"{head} each seed, 95 % over units |", rule]
    for name, row in found["pairs"].items():
        each = "; ".join(_signed(result["runs"][s]["pairs"][name][primary]) for s in seeds)
        both = _signed(found["both"][name]) if name in found["both"] else "no units"
        both += f" | {_signed(grouped['both'][name])}" if grouped else ""
        lines.append(f"| {name} | {_signed(row[primary])} | {both} | {each} |")
    for name, row in found.get("shares", {}).items():
        each = "; ".join(_plain(result["runs"][s]["shares"][name]) for s in seeds)
        both = _plain(row["both"]) + (f" | {_plain(row['groups'])}" if grouped else "")
        lines.append(f"| {name} | {_plain(row['seeds'])} | {both} | {each} |")
    if ships := [run["ships"] for run in result["runs"].values() if "ships" in run]:
        lines += ["", f"The recipe ships, by validation data: {', '.join(ships)}."]
    return "\n".join(lines)


def _plain(row: Mapping[str, float]) -> str:
    return f"{row['value']:.4f} [{row['low']:.4f}, {row['high']:.4f}]"


def _signed(row: Mapping[str, float]) -> str:
    return f"{row['value']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"


def _written(run: Mapping[str, Any]) -> dict[str, Any]:
    """What goes into the file: no value of every single unit."""
    return {
        key: value for key, value in run.items() if key not in ("differences", "groups", "parts")
    }


def _say(event: Event) -> None:
    if event.kind in ("start", "end", "cached", "warning"):
        print(f"  {event.step}: {event.kind} {event.text}".rstrip(), file=sys.stderr, flush=True)


def _run(asked: argparse.Namespace, settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
    if asked.control:
        return alone(asked.recipe, asked.target, settings, seed, asked.candidate)
    return one_seed(
        asked.recipe,
        asked.target,
        settings,
        seed,
        asked.baselines,
        asked.candidate,
        asked.share,
        not asked.as_shipped,
    )


def main() -> None:
    """Run, print, and write the result after every seed."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--target", default="cpu-ort")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--baselines", action="store_true")
    parser.add_argument(
        "--control", action="store_true", help="the student from scratch alone: no teacher"
    )
    parser.add_argument(
        "--candidate", action="append", default=[], help="build this one of the target's; repeats"
    )
    parser.add_argument(
        "--share", default="", metavar="METRIC", help="also as a share of teacher and control"
    )
    parser.add_argument(
        "--as-shipped", action="store_true", help="distil only where the recipe does"
    )
    parser.add_argument(
        "--folds", default="", help="values of the setting 'fold', by commas: test on all of them"
    )
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if not 2 <= asked.seeds <= max(T95):
        parser.error(f"--seeds {asked.seeds}: from 2 to {max(T95)}, an interval is over them")
    settings = parse_assignments(tuple(asked.settings))
    runs: dict[str, Any] = {}
    for seed in range(asked.seeds):
        print(f"seed {seed}", file=sys.stderr, flush=True)
        parts = [
            _run(asked, settings | ({"fold": fold} if fold else {}), seed)
            for fold in asked.folds.split(",")
        ]
        runs[str(seed)] = joined(parts) if asked.folds else parts[0]
        if seed == 0:
            continue
        result = {
            "command": " ".join(["python", "benchmarks/seeds.py", *sys.argv[1:]]),
            "primary": runs["0"]["primary"],
            "runs": {name: _written(run) for name, run in runs.items()},
            "summary": summary({int(s): run for s, run in runs.items()}),
        }
        if asked.out:
            asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(text(result))


if __name__ == "__main__":
    main()
