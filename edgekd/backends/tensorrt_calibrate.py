"""Ranges of a graph's inner values, measured on samples in ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.agent.quiet import open_onnx
from edgekd.backends.base import samples_in
from edgekd.errors import StageError

__all__ = ["outputs", "peaks", "thresholds"]

Feeds = Mapping[str, NDArray[Any]]

BINS = 2048
BATCH = 8
LEVELS = 127
_CLIPS = np.linspace(0.25, 1.0, 76)
"""Shares of the largest value that are tried as the end of the range."""


def peaks(proto: Any, names: Iterable[str], feeds: Feeds) -> dict[str, float]:
    """Return the largest absolute value of each name.

    Raises:
        StageError: The graph does not run, or gives values that are not finite.
    """
    found: dict[str, float] = dict.fromkeys(names, 0.0)
    for values in _walk(proto, list(found), feeds):
        for name, array in values.items():
            # NaN must win: Python's max would pass over it.
            found[name] = float(np.maximum(found[name], np.abs(array).max(initial=0)))
    broken = [name for name, peak in found.items() if not np.isfinite(peak)]
    if broken:
        raise StageError(f"calibration gave values that are not finite at {broken[0]!r}")
    return found


def thresholds(proto: Any, names: Iterable[str], feeds: Feeds, method: str) -> dict[str, float]:
    """Return the end of the quantised range of each name.

    Args:
        proto: Float32 model.
        names: Values of it.
        feeds: Samples by input name, axis 0 counts them.
        method: ``max``: the largest value seen; ``mse``: the end that makes the mean squared
            error of rounding and clipping smallest, over a histogram of 2048 bins.
    """
    names = list(names)
    found = peaks(proto, names, feeds)
    if method == "max":
        return found
    counts = {name: np.zeros(BINS) for name in names}
    for values in _walk(proto, names, feeds):
        for name, array in values.items():
            span = (0.0, found[name] or 1.0)
            counts[name] += np.histogram(np.abs(array), BINS, span)[0]
    return {name: found[name] * best_clip(counts[name]) for name in names}


def best_clip(counts: NDArray[Any]) -> float:
    """Return the share of the range that is kept, for a histogram of absolute values."""
    centres = (np.arange(BINS) + 0.5) / BINS
    errors = []
    for clip in _CLIPS:
        step = clip / LEVELS
        beyond = np.maximum(centres - clip, 0.0) ** 2
        errors.append(float((counts * np.where(centres <= clip, step**2 / 12, beyond)).sum()))
    return float(_CLIPS[int(np.argmin(errors))])


def outputs(proto: Any, feeds: Feeds) -> NDArray[Any]:
    """Return the first output for all samples, as (samples, values)."""
    name = proto.graph.output[0].name
    rows = np.concatenate([values[name] for values in _walk(proto, [name], feeds)])
    return rows.reshape(len(rows), -1)


def _walk(proto: Any, names: Sequence[str], feeds: Feeds) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the named values for one batch after another: memory holds one batch."""
    import onnx

    if not samples_in(feeds):
        raise StageError("static quantisation needs calibration samples, found none")
    opened = onnx.ModelProto.FromString(proto.SerializeToString())
    given = {port.name for port in (*opened.graph.output, *opened.graph.input)}
    fresh = [onnx.ValueInfoProto(name=name) for name in names if name not in given]
    opened.graph.output.extend(fresh)
    wanted = [name for name in names if name not in feeds]
    with tempfile.TemporaryDirectory(prefix="edgekd-trt-") as folder:
        path = Path(folder) / "opened.onnx"
        path.write_bytes(opened.SerializeToString())
        session, fixed = _session(path)
        size = fixed or BATCH
        count = samples_in(feeds)
        for start in range(0, count, size):
            rows = np.arange(start, start + size if fixed else min(start + size, count)) % count
            batch = {name: np.ascontiguousarray(array[rows]) for name, array in feeds.items()}
            try:
                values = session.run(wanted, batch) if wanted else []
            except Exception as error:
                raise StageError(f"calibration failed: {_line(error)}") from error
            kept = min(size, count - start)
            computed = {n: v[:kept] for n, v in zip(wanted, values, strict=True)}
            yield computed | {n: batch[n][:kept] for n in names if n in feeds}


def _session(path: Path) -> tuple[Any, int | None]:
    try:
        # Inner values are asked for by the names that the graph gives them: no fusion may eat them.
        session = open_onnx(path, level="basic")
    except Exception as error:
        raise StageError(f"ONNX Runtime cannot open the graph: {_line(error)}") from error
    first = session.get_inputs()[0].shape[0]
    return session, first if isinstance(first, int) else None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
