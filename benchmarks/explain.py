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

LEAST = 0.1
"""Standard deviations by which a seen sensor must have moved."""


def judge(bundle: Path, limit: int, figure: Path | None) -> dict[str, Any]:
    """Explain the test flights of one bundle.

    Args:
        bundle: Of stage 2.
        limit: Flights at most, drawn with a fixed seed; 0 for all.
        figure: Where to draw three flights; None for nowhere.

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
    if figure is not None:
        _draw(figure, x, blamed["occlusion, on the artefact"], truth, stage, part, told, right)
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


def _draw(
    path: Path, x: Any, blame: Any, truth: Any, stage: Any, part: Any, told: Any, right: Any
) -> None:
    """Three flights, named right, of three faults: traces, blame, and what the fault did."""
    import matplotlib.pyplot as plt

    picked: list[int] = []
    for place in np.flatnonzero(right)[np.argsort(-truth[right].max((1, 2)))]:
        if part.labels[told[place]] not in [part.labels[told[i]] for i in picked]:
            picked.append(int(place))
        if len(picked) == 3:
            break
    names = [stage.names[i] for i in stage.chosen]
    drawn, axes = plt.subplots(len(picked), 3, figsize=(15, 4.2 * len(picked)), squeeze=False)
    for row, place in zip(axes, picked, strict=True):
        fault = part.classes[part.labels[told[place]]]
        pictures = ((x[place, :, 0], "flight, deviations from the mean", "coolwarm"),
                    (blame[place], "blamed by occlusion", "Oranges"),
                    (truth[place], "what the fault moved", "Greens"))  # fmt: skip
        for axis, (values, title, colours) in zip(row, pictures, strict=True):
            axis.imshow(values, aspect="auto", cmap=colours, extent=(0, 68, len(names), 0))
            axis.set_title(f"{fault}: {title}", fontsize=9)
            axis.set_yticks(np.arange(len(names)) + 0.5, names, fontsize=7)
            axis.set_xlabel("minutes", fontsize=8)
    drawn.tight_layout()
    drawn.savefig(path, dpi=80, metadata={"Software": None})


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
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    result = judge(asked.bundle, asked.flights, asked.figure)
    if asked.out:
        asked.out.write_text(json.dumps(finite(result), indent=1) + "\n", encoding="utf-8")
    print(text(result))


if __name__ == "__main__":
    main()
