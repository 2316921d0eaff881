"""Damage of quantising one layer, or one class of operators, at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.calls import resolve
from edgekd.events import Emit, Event
from edgekd.inputs import open_rows
from edgekd.quant.damage import damages
from edgekd.quant.ranges import measure_ranges
from edgekd.spec import Call


def sensitivity(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, emit: Emit
) -> dict[str, Any]:
    """Measure the damage on the samples that judge, with ranges of those that calibrate.

    Args:
        spec: ``metric`` (a plain `Call` of (outputs, samples), or None), ``estimator``, ``step``.
        inputs: ``export`` (``model.onnx``, ``golden.npz``, ``calibration.npz``).
        out: Gets nothing.
        emit: Progress.

    Returns:
        See `edgekd.quant.damage.damages`; and ``calibrated``, ``judged``, ``estimator``.
    """
    import onnx

    source = inputs["export"]
    proto = onnx.load(str(source / "model.onnx"))
    feeds = open_rows(source / "calibration.npz")
    with np.load(source / "golden.npz") as archive:
        judging = {n: archive[n] for n in archive.files if not n.startswith("output:")}
    spans = measure_ranges(source / "model.onnx", feeds, (spec["estimator"],))[spec["estimator"]]
    samples = next(iter(judging.values()))
    judge = None
    if spec["metric"]:
        metric = resolve(Call(**spec["metric"]), Path("/"))

        def judge(outputs: Any) -> float:
            return float(metric(outputs, samples))

    def say(text: str) -> None:
        emit(Event("progress", spec["step"], text))

    return {
        **damages(proto, judging, spans, judge, say),
        "calibrated": min(len(values) for values in feeds.values()),
        "judged": len(samples),
        "estimator": spec["estimator"],
    }
