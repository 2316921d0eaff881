"""The protocol of a task, and scores with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgekd.events import Emit

Model = Callable[[NDArray[Any]], NDArray[Any]]
"""A network as a task sees it: raw samples (batch, …) in, outputs (batch, …) out."""

State = dict[str, NDArray[Any]]
"""What a device needs beside the network (the base mean of a few-shot backbone, …)."""

CHUNK = 256


@dataclass(frozen=True)
class Score:
    """A measured task metric.

    Attributes:
        metrics: Name → ``value``, ``low``, ``high`` (95 % interval), ``n`` (units behind it).
        primary: Name of the metric that decides.
        higher_is_better: Direction of all metrics here.
        units: Name → value per unit (episode, sample), for paired differences.
        details: Small JSON behind the metrics: ``classes`` and ``confusion`` (a row a true class,
            a column a named one).
    """

    metrics: Mapping[str, Mapping[str, float]]
    primary: str
    higher_is_better: bool = True
    units: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """The primary metric."""
        return self.metrics[self.primary]["value"]

    def facts(self) -> dict[str, Any]:
        """Return the score as small JSON."""
        return {
            "metrics": {name: dict(row) for name, row in self.metrics.items()},
            "primary": self.primary,
            "higher_is_better": self.higher_is_better,
            **({"details": dict(self.details)} if self.details else {}),
        }


class Task(Protocol):
    """How a network is judged.

    A task may have ``trivial(data) -> (label, Model)``: what its field would use without a
    network, made from training data. Else that is the raw sample itself.
    """

    def fit(self, model: Model, data: Any) -> State:
        """Compute from training data what ships beside the network; may be empty."""
        ...

    def score(self, model: Model, data: Any, split: str, state: State, emit: Emit) -> Score:
        """Judge a network on ``val`` or ``test``."""
        ...


def interval(values: NDArray[np.float64]) -> dict[str, float]:
    """Mean of independent units with its normal 95 % interval.

    Args:
        values: (units,), for instance the accuracy of every episode.
    """
    mean = float(values.mean())
    half = (
        1.96 * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    )
    return {"value": mean, "low": mean - half, "high": mean + half, "n": len(values)}


def paired(better: NDArray[np.float64], worse: NDArray[np.float64]) -> dict[str, float]:
    """Mean difference of two networks over the same units, with its 95 % interval."""
    return interval(better - worse)


def chunks(dataset: Any, size: int = CHUNK) -> Iterator[NDArray[Any]]:
    """Yield the raw samples of a map-style dataset in stacked chunks."""
    take = getattr(dataset, "take", None)
    for start in range(0, len(dataset), size):
        indices = range(start, min(start + size, len(dataset)))
        if take is not None:
            yield take(np.arange(indices.start, indices.stop))
        else:
            yield np.stack([np.asarray(dataset[i][0]) for i in indices])


def labels_of(dataset: Any) -> NDArray[Any]:
    """Return the labels, reading every sample only when the dataset does not list them.

    Returns:
        Classes as int64 (samples,), or goals of a regression as float32 (samples, …).
    """
    labels = getattr(dataset, "labels", None)
    if labels is None:
        labels = [np.asarray(dataset[i][1]) for i in range(len(dataset))]
    values = np.asarray(labels)
    return values.astype(np.float32 if values.dtype.kind == "f" else np.int64)


def outputs_of(model: Model, dataset: Any) -> NDArray[Any]:
    """Run the network over a whole dataset: (samples, …)."""
    return np.concatenate([np.asarray(model(chunk)) for chunk in chunks(dataset)])
