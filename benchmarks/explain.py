"""Score the explanations of a stage-2 bundle of `liteinception` against what the faults did.

    python -m benchmarks.explain BUNDLE/stage2 --out benchmarks/results/liteinception-explain.json

On test flights whose fault moves a sensor that the network sees: is the most blamed sensor one
that the fault moved, and do the most blamed windows overlap with the moved ones. Occlusion runs
on the artefact in its own runtime; the other methods need gradients and run on the torch student
from the store. Random and farthest-from-the-mean stand beside them. Intervals are clustered by
airframe (Student's t).
"""

from __future__ import annotations

import argparse
import base64
import html
import io
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd import steps
from edgekd.artefact import Running
from edgekd.backends.torch_eager import load_network
from edgekd.data.flight.fleet import FAULTS
from edgekd.data.flight.simflight import make, simflight, truth_of
from edgekd.discover import load_recipe
from edgekd.errors import UsageError
from edgekd.events import silent
from edgekd.run import Walk
from edgekd.spec import finite
from edgekd.store import Store
from edgekd.tasks.faults import explain
from edgekd.tasks.faults.cascade import Stage
from edgekd.tasks.faults.joint import bundled
from edgekd.tasks.faults.metrics import clustered

MINUTES = 68
"""Of a flight, which are looked at."""
LEAST = 0.1
"""Standard deviations by which a seen sensor must have moved."""


def judge(bundle: Path, limit: int, shown: Path | None) -> dict[str, Any]:
    """Explain the test flights of one bundle.

    Args:
        bundle: Of stage 2.
        limit: Flights at most, drawn with a fixed seed; 0 for all.
        shown: Where to write a page of three flights; None for nowhere.

    Raises:
        UsageError: It is not of stage 2, or of other data.
    """
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    data = dict(manifest["recipe"]["spec"]["data"]["args"])
    if data.get("stage") != 2 or "difficulty" not in data:
        raise UsageError("the bundle is not of stage 2 of simulated flights", at=str(bundle))
    part: Any = simflight(**data).test
    made = make(data["difficulty"], data["length"], data["airframes"], data["events"])
    artefact, state = bundled(bundle, manifest)
    stage = Stage.of(dict(artefact.input), dict(state))
    chosen = list(stage.chosen)
    truth = truth_of(part, made)[:, chosen]
    told = np.flatnonzero(truth.max((1, 2)) >= LEAST)
    if limit:
        told = np.sort(np.random.default_rng(0).permutation(told)[:limit])
    x, truth = part.take(told)[:, chosen], truth[told]
    groups = made.flights.airframe[part.rows[told]]
    with Running(artefact) as running:
        name = str(artefact.input["name"])

        def network(values: NDArray[np.float32]) -> NDArray[Any]:
            return next(iter(running.agent.evaluate({name: values}, 64).outputs.values()))

        logits = network(x)
        named = logits.argmax(1)
        start = time.monotonic()
        maps = {"occlusion, on the artefact": explain.occlusion(network, x, named)}
        seconds = time.monotonic() - start
    torch_student, _head = load_network(student(manifest["recipe"]["settings"]), Path())
    torch_student.eval()
    maps["integrated gradients, torch"] = explain.integrated_gradients(torch_student, x, named)
    cam = explain.class_activation(torch_student, x, named)
    rng = np.random.default_rng(1)
    maps["random"] = rng.random(truth.shape)
    maps["farthest from the mean"] = explain.deviation(x)
    right = named == part.labels[told]
    blamed = {m: np.clip(v, 0, None) for m, v in maps.items()}
    scores = {m: _scores(v.sum(2), v.sum(1), truth) for m, v in blamed.items()}
    scores["grad-CAM, torch"] = {"window overlap": _scores(None, cam, truth)["window overlap"]}
    if shown is not None:
        labels, raw = part.labels[told], part.raw(told)[:, chosen]
        page(
            shown,
            [
                {
                    "fault": part.classes[labels[i]],
                    "meaning": FAULTS[part.classes[labels[i]]],
                    "names": [stage.names[c] for c in chosen],
                    "blame": blamed["occlusion, on the artefact"][i],
                    "truth": truth[i],
                    "raw": raw[i],
                }
                for i in picked(right, truth, labels)
            ],
        )
    return {
        "bundle": manifest["name"],
        "candidate": manifest["artefact"]["candidate"],
        "data": data,
        "flights": len(told),
        "named right": float(right.mean()),
        "occlusion_ms_a_flight": seconds * 1e3 / max(1, len(told)),
        "chance": {
            "top-1": clustered(explain.affected(truth, 2).mean(1), groups),
            "window overlap": clustered(explain.affected(truth, 1).mean(1), groups),
        },
        "rows": {
            method: {score: clustered(v, groups) for score, v in row.items()}
            for method, row in scores.items()
        },
        "gains": {
            f"{method} − {base}": {
                score: clustered(v - scores[base][score], groups) for score, v in row.items()
            }
            for method, row in scores.items()
            for base in ("random", "farthest from the mean")
            if method not in ("random", "farthest from the mean")
        },
        "where it was named right": {
            method: {s: clustered(v[right], groups[right]) for s, v in row.items()}
            for method, row in scores.items()
        },
    }


def student(settings: Mapping[str, Any]) -> Path:
    """Folder of the torch student in the store; what is not there is trained."""
    recipe = load_recipe("liteinception", settings)
    walk = Walk(recipe, Store(), silent)
    for step in steps.learned(recipe, lambda name: walk.done[name].facts):
        if not step.name.startswith("baseline:"):
            walk.step(step)
    return walk.done["distill"].path


def _scores(
    sensors: NDArray[np.float64] | None, windows: NDArray[np.float64], truth: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]]:
    found = {"window overlap": explain.overlap(windows, explain.affected(truth, 1))}
    if sensors is not None:
        moved = explain.affected(truth, 2)
        found = {
            "top-1": explain.hits(sensors, moved),
            "top-3": explain.hits(sensors, moved, 3),
            **found,
        }
    return found


def told_of(blame: Any, names: list[str], top: int = 2) -> list[tuple[int, str, int, int]]:
    """The most blamed sensors: place, name, and the minutes that hold most of its blame.

    The stretch is grown from the most blamed window while a neighbour has half as much.
    """
    found = []
    minutes = MINUTES / blame.shape[1]
    for place in np.argsort(-blame.sum(1), kind="stable")[:top]:
        row = blame[place]
        first = last = int(row.argmax())
        while first > 0 and row[first - 1] >= row.max() / 2:
            first -= 1
        while last < len(row) - 1 and row[last + 1] >= row.max() / 2:
            last += 1
        ends = round(first * minutes), round((last + 1) * minutes)
        found.append((int(place), names[place], *ends))
    return found


def picked(right: Any, truth: Any, labels: Any) -> list[int]:
    """Three flights, named right, of three faults: those whose fault moved a sensor most."""
    found: list[int] = []
    places = np.flatnonzero(right)
    for place in places[np.argsort(-truth[places].max((1, 2)))]:
        if labels[place] not in [labels[i] for i in found]:
            found.append(int(place))
        if len(found) == 3:
            break
    return found


def page(path: Path, flights: list[dict[str, Any]]) -> None:
    """Write a page that explains flights: what was named, where to look, what really moved.

    Args:
        path: Where.
        flights: ``fault``, its ``meaning``, ``names`` of the sensors, ``blame`` and ``truth``
            (sensors, windows), ``raw`` (sensors, samples) in the sensors' own units.
    """
    parts = [HEAD]
    for number, one in enumerate(flights, 1):
        blamed, moved = (told_of(one[key], one["names"]) for key in ("blame", "truth"))
        moved = [row for row in moved if one["truth"][row[0]].max() >= LEAST]
        fault = html.escape(one["fault"].replace("_", " "))
        parts.append(
            f"<h2>{number}. Named: {fault}</h2><p>{html.escape(one['meaning'])}.</p>"
            f"<p><b>Look first at</b> {_said(blamed)}.<br><b>The simulated fault moved</b>"
            f" {_said(moved)}.{_verdict(blamed, moved)}</p>"
            f'<img alt="blame by sensor and time, and the traces of the two sensors blamed most"'
            f' src="data:image/png;base64,{_picture(one, blamed)}">'
        )
    path.write_text("".join([*parts, "</main></html>\n"]), encoding="utf-8")


HEAD = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>Flights explained</title>
<style>body{font:16px/1.5 system-ui,sans-serif;margin:0}main{max-width:1000px;margin:auto;
padding:1rem}img{width:100%;height:auto}</style><main><h1>Three flights explained</h1>
<p>Simulated flights that the network named right. A sensor is blamed for a stretch of time when
the network is less sure of the fault after that stretch was replaced by the sensor's mean
(occlusion, run on the artefact that ships). Left: all sensors, the darker the more to blame.
Right: the two most blamed in their own units; the blamed stretch is shaded.</p>
"""


def _said(rows: list[tuple[int, str, int, int]]) -> str:
    return ", then ".join(f"{html.escape(n)}, minutes {a} to {b}" for _, n, a, b in rows)


def _verdict(blamed: list[Any], moved: list[Any]) -> str:
    if blamed[0][1] in [row[1] for row in moved]:
        return " The first sensor is one that the fault moved."
    return " <b>The first sensor is not one that the fault moved: this explanation misleads.</b>"


def _picture(one: Mapping[str, Any], blamed: list[tuple[int, str, int, int]]) -> str:
    """The flight's picture as base64."""
    import matplotlib.pyplot as plt

    names = one["names"]
    drawn, axes = plt.subplot_mosaic(
        [["map", "0"], ["map", "1"]], figsize=(12, 4.6), layout="constrained"
    )
    ends = (0, MINUTES, len(names), 0)
    axes["map"].imshow(one["blame"], aspect="auto", cmap="Oranges", extent=ends)
    axes["map"].set_yticks(np.arange(len(names)) + 0.5, names)
    for number, (place, name, first, last) in enumerate(blamed):
        axis, values = axes[str(number)], one["raw"][place]
        axis.plot(np.linspace(0, MINUTES, len(values)), values, color="black", lw=1)
        axis.axvspan(first, last, color="orange", alpha=0.35)
        axis.set_title(name, fontsize=10)
    for axis in axes.values():
        axis.set_xlabel("minutes")
    buffer = io.BytesIO()
    drawn.savefig(buffer, dpi=110, metadata={"Software": None})
    plt.close(drawn)
    return base64.b64encode(buffer.getvalue()).decode()


def text(result: Mapping[str, Any]) -> str:
    """Write the result as Markdown."""
    lines = ["| explanation | top-1 | top-3 | window overlap |", "| :--- | ---: | ---: | ---: |"]
    for method, row in {**result["rows"], "chance": result["chance"], **result["gains"]}.items():
        cells = [_cell(row.get(score)) for score in ("top-1", "top-3", "window overlap")]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    lines.append(
        f"\n{result['flights']} flights, {result['named right']:.1%} named right; occlusion takes"
        f" {result['occlusion_ms_a_flight']:.1f} ms a flight."
    )
    return "\n".join(lines)


def _cell(row: Mapping[str, float] | None) -> str:
    return "" if row is None else f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def main() -> None:
    """Judge, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--flights", type=int, default=0)
    parser.add_argument("--page", type=Path, help="explain three flights there")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    result = judge(asked.bundle, asked.flights, asked.page)
    if asked.out:
        asked.out.write_text(json.dumps(finite(result), indent=1) + "\n", encoding="utf-8")
    print(text(result))


if __name__ == "__main__":
    main()
