"""Prepare the exported model for quantisation, and measure the ranges of its values once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekd.events import Emit, Event
from edgekd.graph.canonical import save
from edgekd.inputs import open_rows
from edgekd.quant.fold import fold_input_scales
from edgekd.quant.ranges import ESTIMATORS, measure_ranges, save_ranges


def calibrate(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, emit: Emit
) -> dict[str, Any]:
    """Fold input scales where features differ, then measure every tensor's range.

    All static candidates are built from what this makes, so that calibration is paid for once.

    Args:
        spec: ``step``.
        inputs: ``export`` (``model.onnx``, ``calibration.npz``).
        out: Gets ``model.onnx`` and ``ranges.json``.
        emit: Progress.

    Returns:
        ``input_scales``, ``samples``, ``tensors``, ``estimators``.
    """
    import onnx

    source = inputs["export"]
    feeds = open_rows(source / "calibration.npz")
    proto = onnx.load(str(source / "model.onnx"))
    folded = fold_input_scales(proto, feeds)
    save(proto, out / "model.onnx")

    def say(text: str) -> None:
        emit(Event("progress", spec["step"], text))

    ranges = measure_ranges(out / "model.onnx", feeds, say=say)
    save_ranges(ranges, out / "ranges.json")
    return {
        "input_scales": folded,
        "samples": min(len(values) for values in feeds.values()),
        "tensors": len(ranges["minmax"]),
        "estimators": list(ESTIMATORS),
    }
