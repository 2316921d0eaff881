"""How early does stage 1 of a bundle of `liteinception` know: AUC when a flight has just begun.

    python -m benchmarks.stream BUNDLE --out benchmarks/results/liteinception-stream.json

The artefact sees the first part of every test flight, the rest absent, as the driver's `Stream`
shows it; it was trained on whole flights. A fault with a later onset cannot be seen yet. Intervals
are clustered by airframe (Student's t), differences to the whole flight paired by flight.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekd.artefact import Running
from edgekd.calls import invoke
from edgekd.spec import Call, finite
from edgekd.tasks.faults import metrics
from edgekd.tasks.faults.cascade import SECONDS, Stage
from edgekd.tasks.faults.joint import bundled

PARTS = (8, 4, 2, 1)
"""Of the flight, 1/n is seen."""


def judge(bundle: Path) -> dict[str, Any]:
    """Run stage 1 on the beginnings of the test flights."""
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    data = invoke(Call(**manifest["recipe"]["spec"]["data"]), Path())
    artefact, state = bundled(bundle, manifest)
    stage, test = Stage.of(dict(artefact.input), dict(state)), data.test
    values, chosen = test.take(range(len(test))), list(stage.chosen)
    found = {}
    with Running(artefact) as running:
        name = str(artefact.input["name"])
        for part in PARTS:
            seen = values[:, chosen].copy()
            seen[..., seen.shape[-1] // part :] = 0  # absent values are the mean
            logits = next(iter(running.agent.evaluate({name: seen}, 64).outputs.values()))
            found[part] = stage.shares(logits)[:, 1]
    units = {part: metrics.auc(chance, test.labels) for part, chance in found.items()}
    return {
        "bundle": manifest["name"],
        "candidate": manifest["artefact"]["candidate"],
        "flights": len(test),
        "rows": [
            {
                "minutes": SECONDS / 60 / part,
                "AUC": metrics.clustered(units[part], test.groups),
                "AUC − whole flight": metrics.clustered(units[part] - units[1], test.groups),
                "flagged": float((found[part] >= float(stage.threshold or 0)).mean()),
            }
            for part in PARTS
        ],
    }


def text(result: Mapping[str, Any]) -> str:
    """Write the result as Markdown."""
    lines = [
        "| minutes seen | AUC | AUC − whole flight | flagged |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for row in result["rows"]:
        cells = [
            "{value:.3f} [{low:.3f}, {high:.3f}]".format(**row[name])
            for name in ("AUC", "AUC − whole flight")
        ]
        lines.append(f"| {row['minutes']:.1f} | {' | '.join(cells)} | {row['flagged']:.1%} |")
    return "\n".join(lines)


def main() -> None:
    """Judge, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    result = judge(asked.bundle)
    if asked.out:
        asked.out.write_text(json.dumps(finite(result), indent=1) + "\n", encoding="utf-8")
    print(text(result))


if __name__ == "__main__":
    main()
