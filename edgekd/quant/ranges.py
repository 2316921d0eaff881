"""Ranges of a network's inner values, for static quantisation: measured in a stream.

Two passes over the samples, a few at a time: the first finds the least and the largest value of
every tensor, the second counts a histogram between them. Memory is that of one small batch and
of the histograms, however many samples there are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.agent.quiet import open_onnx
from edgekd.errors import StageError, UsageError, did_you_mean
from edgekd.inputs import Rows

__all__ = ["ESTIMATORS", "Span", "load_ranges", "measure_ranges", "save_ranges"]

Span = tuple[float, float]
"""Least and largest value that a quantiser represents; zero lies between them."""
Ranges = Mapping[str, Mapping[str, Span]]
"""Estimator → tensor → span."""

BINS = 2048
PERCENTILE = 99.99
BATCH_BYTES = 48 * 2**20
"""Size of all inner values of one batch."""
_LEVELS = 255
_SHRINK = np.linspace(1.0, 0.3, 36)


@dataclass
class Tally:
    """What is known of one tensor's values.

    Attributes:
        low: Least value.
        high: Largest value.
        counts: How many values lie in each of `BINS` equal bins between them.
    """

    low: float = np.inf
    high: float = -np.inf
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def widen(self, values: NDArray[Any]) -> None:
        """Take values into the extremes."""
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))

    def count(self, values: NDArray[Any]) -> None:
        """Take values into the histogram."""
        scale = BINS / max(self.high - self.low, 1e-30)
        places = ((values.ravel() - np.float32(self.low)) * np.float32(scale)).astype(np.int32)
        np.clip(places, 0, BINS - 1, out=places)
        self.counts += np.bincount(places, minlength=BINS)

    @property
    def centres(self) -> NDArray[np.float64]:
        """Middles of the bins."""
        return self.low + (np.arange(BINS) + 0.5) * (self.high - self.low) / BINS


def minmax(tally: Tally) -> Span:
    """All values: nothing is clipped."""
    return tally.low, tally.high


def percentile(tally: Tally) -> Span:
    """All but the outermost 0.01 % of the values, half of it at each end."""
    total = np.concatenate(([0], np.cumsum(tally.counts))) / max(int(tally.counts.sum()), 1)
    edges = np.linspace(tally.low, tally.high, BINS + 1)
    cut = (100 - PERCENTILE) / 200
    low, high = np.interp([cut, 1 - cut], total, edges)
    return float(low), float(high)


def mse(tally: Tally) -> Span:
    """The range with the least squared error of 8-bit rounding and clipping together."""
    low, high = min(tally.low, 0.0), max(tally.high, 0.0)
    values, weights = tally.centres, tally.counts.astype(np.float64)
    for _ in range(2):
        high = min((high * s for s in _SHRINK), key=lambda h: _loss(values, weights, low, h))
        low = min((low * s for s in _SHRINK), key=lambda v: _loss(values, weights, v, high))
    return float(low), float(high)


def _loss(
    values: NDArray[np.float64], weights: NDArray[np.float64], low: float, high: float
) -> float:
    step = max(high - low, 1e-30) / _LEVELS
    rounded = np.round((np.clip(values, low, high) - low) / step) * step + low
    return float((weights * (rounded - values) ** 2).sum())


def entropy(tally: Tally) -> Span:
    """The symmetric threshold that keeps the distribution (least Kullback–Leibler divergence).

    As TensorRT's calibrator does it: the histogram of magnitudes is cut at every threshold, what
    lies beyond falls into the last bin, and 128 levels must describe the rest.
    """
    peak = max(abs(tally.low), abs(tally.high), 1e-30)
    places = np.minimum((np.abs(tally.centres) / peak * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(places, weights=tally.counts, minlength=BINS).astype(np.float64)
    best = min(range(128, BINS + 1, 16), key=lambda bins: _divergence(counts, bins))
    limit = peak * best / BINS
    return max(tally.low, -limit), min(tally.high, limit)


def _divergence(counts: NDArray[np.float64], bins: int) -> float:
    inside = counts[:bins]
    truth = inside.copy()
    truth[-1] += counts[bins:].sum()
    starts = (np.arange(128) * bins) // 128
    sums, filled = np.add.reduceat(inside, starts), np.add.reduceat(inside > 0, starts)
    sizes = np.diff(np.append(starts, bins))
    level = np.repeat(sums / np.maximum(filled, 1), sizes) * (inside > 0)
    seen = truth > 0
    p, q = truth / max(truth.sum(), 1e-30), level / max(level.sum(), 1e-30)
    return float((p[seen] * np.log(p[seen] / np.maximum(q[seen], 1e-12))).sum())


ESTIMATORS: Mapping[str, Callable[[Tally], Span]] = {
    "minmax": minmax,
    "percentile": percentile,
    "mse": mse,
    "entropy": entropy,
}
"""Ways to make a range of a distribution."""


def measure_ranges(
    model: Path,
    feeds: Mapping[str, NDArray[Any] | Rows],
    estimators: Sequence[str] = tuple(ESTIMATORS),
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, dict[str, Span]]:
    """Measure the range of every float tensor of a model.

    Args:
        model: ONNX model in float32.
        feeds: Samples by input name, axis 0 counts them; arrays, or files that are read batch by
            batch.
        estimators: Rows of `ESTIMATORS`.
        say: Told what is being done.

    Returns:
        Estimator → tensor → span.

    Raises:
        UsageError: There is no such estimator.
        StageError: The model does not run on the samples, or a value is not finite.
    """
    for name in estimators:
        if name not in ESTIMATORS:
            hint = did_you_mean(name, ESTIMATORS)
            raise UsageError(f"there is no range estimator {name!r}", hint=hint)
    probe = _Probe(model, feeds)
    tallies = {name: Tally() for name in probe.names}
    say("measuring ranges")
    for name, values in probe.values():
        if not np.isfinite(values).all():
            raise StageError(f"calibration makes {name!r} infinite or NaN", at=str(model.name))
        tallies[name].widen(values)
    if set(estimators) - {"minmax"}:
        say("counting histograms")
        for name, values in probe.values():
            tallies[name].count(values)
    return {
        name: {tensor: _with_zero(ESTIMATORS[name](tally)) for tensor, tally in tallies.items()}
        for name in estimators
    }


def _with_zero(span: Span) -> Span:
    """Widen a span to zero, rounded so that equal networks give equal files."""
    low, high = (float(np.float32(value)) for value in span)
    return min(low, 0.0), max(high, 0.0)


def save_ranges(ranges: Ranges, path: Path) -> None:
    """Write ranges as JSON."""
    path.write_text(json.dumps(ranges, indent=1, sort_keys=True), encoding="utf-8")


def load_ranges(path: Path) -> dict[str, dict[str, Span]]:
    """Read what `save_ranges` wrote."""
    value = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: {tensor: (low, high) for tensor, (low, high) in spans.items()}
        for name, spans in value.items()
    }


class _Probe:
    """A model all of whose inner values can be seen."""

    def __init__(self, model: Path, feeds: Mapping[str, NDArray[Any] | Rows]) -> None:
        import onnx

        proto = onnx.load(str(model))
        inferred = onnx.shape_inference.infer_shapes(proto).graph
        kinds = {v.name: v.type.tensor_type for v in (*inferred.value_info, *inferred.output)}
        fixed = {tensor.name for tensor in proto.graph.initializer}
        inner = [name for node in proto.graph.node for name in node.output if name]
        float_ = onnx.TensorProto.FLOAT
        self.names = [n for n in inner if n in kinds and kinds[n].elem_type == float_]
        given = [v for v in proto.graph.input if v.name not in fixed]
        self._taken = [v.name for v in given if v.type.tensor_type.elem_type == float_]
        known = {value.name for value in proto.graph.output}
        proto.graph.output.extend(
            onnx.helper.make_tensor_value_info(name, float_, None)
            for name in self.names
            if name not in known
        )
        self._batch = _fixed(given) or _affordable([kinds[n] for n in self.names])
        self._whole = _fixed(given) is not None
        self._feeds, self._fetch = feeds, list(self.names)
        self.names += self._taken
        self._session = _open(proto, model)

    def values(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield every tensor for every batch."""
        count = min(len(values) for values in self._feeds.values())
        for start in range(0, count, self._batch):
            stop = start + self._batch
            rows = np.arange(start, stop if self._whole else min(stop, count)) % count
            feed = {name: np.ascontiguousarray(v[rows]) for name, v in self._feeds.items()}
            try:
                found = self._session.run(self._fetch, feed)
            except Exception as error:
                text = " ".join(str(error).split())[:400]
                raise StageError(
                    f"the model does not run on the calibration samples: {text}"
                ) from (error)
            for name, values in zip(self._fetch, found, strict=True):
                if values.size:
                    yield name, values
            for name in self._taken:
                yield name, feed[name]


def _open(proto: Any, model: Path) -> Any:
    cores = os.cpu_count() or 1
    try:
        return open_onnx(proto.SerializeToString(), threads=cores, level="basic", arena=False)
    except Exception as error:
        text = " ".join(str(error).split())[:400]
        raise StageError(f"ONNX Runtime does not load {model.name}: {text}") from error


def _fixed(inputs: Sequence[Any]) -> int | None:
    for value in inputs:
        dims = value.type.tensor_type.shape.dim
        if len(dims) and dims[0].HasField("dim_value"):
            return int(dims[0].dim_value)
    return None


def _affordable(kinds: Sequence[Any]) -> int:
    """Return how many samples' inner values fit into `BATCH_BYTES`."""
    sizes = [[d.dim_value or 1 for d in kind.shape.dim] for kind in kinds]
    sample = 4 * sum(int(np.prod(size)) for size in sizes)
    return int(np.clip(BATCH_BYTES // max(sample, 1), 1, 64))
