"""Judge two bundles of `liteinception` as one cascade, from raw seconds to named faults.

    python benchmarks/cascade.py STAGE1 STAGE2 --out benchmarks/results/liteinception-cascade.json

Both bundles' artefacts run in their own runtimes behind the shipped ``cascade.py``, on the test
flights of simflight at 1 Hz. Beside them stand the torch networks behind the same driver: the
students, whose decisions the artefacts must repeat, and the teachers. They come from the store;
what is not there is trained. Intervals are clustered by airframe (Student's t).
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd import steps
from edgekd.artefact import Artefact, Running, open_artefact
from edgekd.data.flight import sensors
from edgekd.data.flight.bases import load_bases
from edgekd.data.flight.fleet import EVENTS, FAULTS, Flights, difficulty_of, plan_fleet
from edgekd.discover import load_recipe
from edgekd.errors import UsageError
from edgekd.events import silent
from edgekd.run import Walk
from edgekd.store import Store
from edgekd.tasks.faults.cascade import Cascade, Diagnosis, Stage
from edgekd.tasks.faults.metrics import clustered, macro_f1

BATCH = 96
COST = "cpu_ms"


def judge(first: Path, second: Path) -> dict[str, Any]:
    """Run the cascade of two bundles, of the students and of the teachers.

    Raises:
        UsageError: The bundles are not stage 1 and stage 2 of the same simulated flights.
    """
    manifests = [json.loads((p / "manifest.json").read_text("utf-8")) for p in (first, second)]
    data = _same_flights(*manifests)
    bases = load_bases()
    flights = plan_fleet(
        bases, data["difficulty"], airframes=data["airframes"], events=data.get("events", EVENTS)
    )
    places = np.flatnonzero(flights.fold == data["fold"])
    seed = difficulty_of(data["difficulty"]).seed
    settings = [m["recipe"]["settings"] for m in manifests]
    nets = [trained(one) for one in settings]
    stages = {
        "artefacts": [bundled(p, m) for p, m in zip((first, second), manifests, strict=True)],
        "students in torch": [one["distill"] for one in nets],
        "teachers in torch": [one["teacher"] for one in nets],
    }
    found: dict[str, Diagnosis] = {}
    with ExitStack() as stack:
        ready = {name: stack.enter_context(_cascade(*both)) for name, both in stages.items()}
        parts: dict[str, list[Diagnosis]] = {name: [] for name in ready}
        for start in range(0, len(places), BATCH):
            raw = sensors.simulate(bases, flights, places[start : start + BATCH], seed)[0]
            for name, cascade in ready.items():
                parts[name].append(cascade(list(raw)))
        found = {name: _joined(part) for name, part in parts.items()}
    rows = {name: _row(one, flights, places) for name, one in found.items()}
    kinds = {"artefacts": "shipped", "students in torch": "distill", "teachers in torch": "teacher"}
    for name, row in rows.items():
        row["cost"] = _cost([_latency(m, kinds[name]) for m in manifests], row["share"]["value"])
    limits = [float(one[0][0].threshold or 0) for one in stages.values()][:2]
    return {
        "bundles": [m["name"] for m in manifests],
        "candidates": [m["artefact"]["candidate"] for m in manifests],
        "data": data,
        "flights": len(places),
        "airframes": len(np.unique(flights.airframe[places])),
        "rows": rows,
        "agreement": _agreement(found["artefacts"], found["students in torch"], limits),
    }


def _same_flights(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, Any]:
    calls = [dict(m["recipe"]["spec"]["data"]["args"]) for m in (one, two)]
    asked = [args.pop("stage", None) for args in calls]
    if asked != [1, 2] or calls[0] != calls[1] or "difficulty" not in calls[0]:
        raise UsageError(
            "the bundles are not stage 1 and stage 2 of the same simulated flights",
            hint="compress liteinception with stage=1, then with stage=2 and the same settings",
        )
    return calls[0]


Ready = tuple[Stage, Artefact]


def bundled(folder: Path, manifest: Mapping[str, Any]) -> Ready:
    """A bundle's stage and artefact."""
    made = manifest["artefact"]
    artefact = Artefact(
        folder,
        made["main"],
        made["runtime"],
        made["options"],
        manifest["io"]["inputs"][0],
        made["precision"],
        tuple(made["files"]),
    )
    return Stage.open(folder), artefact


def trained(settings: Mapping[str, Any]) -> dict[str, Ready]:
    """Teacher and student of a recipe, from the store."""
    recipe = load_recipe("liteinception", settings)
    walk = Walk(recipe, Store(), silent)
    for step in steps.learned(recipe, lambda name: walk.done[name].facts):
        if not step.name.startswith("baseline:"):
            walk.step(step)
    found = {}
    for name in ("teacher", "distill"):
        artefact = open_artefact(walk.done[name].path)
        with np.load(artefact.folder / "state.npz") as state:
            arrays = {key: state[key] for key in state.files}
        found[name] = (Stage.of(dict(artefact.input), arrays), artefact)
    return found


@contextmanager
def _cascade(first: Ready, second: Ready) -> Iterator[Cascade]:
    """Both networks loaded, each in its own process."""
    finding, naming = (Running(one[1], options=_options(one[1])) for one in (first, second))
    with finding as finder, naming as namer:

        def run(network: Running) -> Any:
            name = str(network.artefact.input["name"])
            return lambda x: next(iter(network.agent.evaluate({name: x}, 64).outputs.values()))

        yield Cascade(first[0], second[0], run(finder), run(namer))


def _options(artefact: Artefact) -> dict[str, Any]:
    """A torch network is built by a function, which may be a path from here."""
    return {"base": "."} if artefact.runtime == "torch" else {}


def _joined(parts: list[Diagnosis]) -> Diagnosis:
    def all_of(name: str) -> Any:
        return np.concatenate([getattr(part, name) for part in parts])

    return Diagnosis(
        all_of("chance"), all_of("flagged"), all_of("fault"), all_of("shares"), parts[0].faults
    )


def _row(found: Diagnosis, flights: Flights, places: NDArray[np.int64]) -> dict[str, Any]:
    """What a cascade makes of the flights, with intervals over airframes."""
    truth, groups = flights.target[places], flights.airframe[places]
    named, ill = found.fault + 1, truth > 0
    share = clustered(found.flagged.astype(np.float64), groups)
    return {
        "share": share,
        "accuracy, 12 classes": clustered((named == truth).astype(np.float64), groups),
        "macro F1, 12 classes": clustered(macro_f1(named, truth, 12), groups),
        "faults missed": clustered((~found.flagged)[ill].astype(np.float64), groups[ill]),
        "false alarms": clustered(found.flagged[~ill].astype(np.float64), groups[~ill]),
        "per fault": {
            name: {
                "flights": int((truth == kind).sum()),
                "flagged": float(found.flagged[truth == kind].mean()),
                "named": float((named == truth)[truth == kind].mean()),
            }
            for kind, name in enumerate(FAULTS, 1)
        },
    }


def _latency(manifest: Mapping[str, Any], kind: str) -> float:
    def wanted(row: Mapping[str, Any]) -> bool:
        return bool(row["shipped"]) if kind == "shipped" else row["id"] == kind

    row = next(row for row in manifest["rows"] if wanted(row))
    return float(row["latency"][COST]["p50"]) if COST in row["latency"] else math.nan


def _cost(both: list[float], share: float) -> dict[str, float]:
    """Processor time of a mean flight, ms: every flight pays stage 1, flagged ones stage 2."""
    return {"stage_1_ms": both[0], "stage_2_ms": both[1], "mean_ms": both[0] + share * both[1]}


def _agreement(one: Diagnosis, two: Diagnosis, limits: list[float]) -> dict[str, Any]:
    """How often the artefacts decide as the students, and how near the others were to the line."""
    apart = one.flagged != two.flagged
    both = one.flagged & two.flagged
    near = np.abs(two.chance - limits[1])[apart]
    return {
        "same decision": float((one.fault == two.fault).mean()),
        "same flag": float((~apart).mean()),
        "same name where both flag": float((one.fault == two.fault)[both].mean()),
        "largest difference of the chance": float(np.abs(one.chance - two.chance).max()),
        "farthest from the threshold where flags differ": float(near.max(initial=0.0)),
    }


def finite(value: Any) -> Any:
    """Null for what is no number: an interval over one airframe."""
    if isinstance(value, Mapping):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def text(result: Mapping[str, Any]) -> str:
    """Write the result as Markdown."""
    rows = result["rows"]
    measures = [m for m in next(iter(rows.values())) if m not in ("per fault", "cost")]
    lines = [f"| {' | '.join(['', *rows])} |", f"| :--- |{' ---: |' * len(rows)}"]
    for measure in measures:
        cells = [_cell(row[measure]) for row in rows.values()]
        lines.append(f"| {measure} | {' | '.join(cells)} |")
    costs = [row["cost"] for row in rows.values()]
    for name in costs[0]:
        lines.append(f"| {name} | {' | '.join(f'{c[name]:.3f}' for c in costs)} |")
    lines += ["", *(f"{name}: {value:.4f}" for name, value in result["agreement"].items())]
    return "\n".join(lines)


def _cell(row: Mapping[str, float]) -> str:
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def main() -> None:
    """Judge, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    result = judge(asked.first, asked.second)
    if asked.out:
        asked.out.write_text(json.dumps(finite(result), indent=1) + "\n", encoding="utf-8")
    print(text(result))


if __name__ == "__main__":
    main()
