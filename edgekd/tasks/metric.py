"""A user's own metric as a task, with an interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import RecipeError
from edgekd.events import Emit, silent
from edgekd.tasks.base import Model, Score, State, interval, labels_of, outputs_of

RESAMPLES = 400


@dataclass(frozen=True)
class MetricTask:
    """Scores ``function(outputs, labels)``.

    A function that returns one value per sample gets the normal interval of their mean; one that
    returns a single number gets a bootstrap interval over the samples (percentile, seeded).

    Attributes:
        function: The metric.
        name: How the report calls it.
        higher_is_better: Its direction.
    """

    function: Callable[[NDArray[Any], NDArray[Any]], Any]
    name: str
    higher_is_better: bool = True

    def fit(self, model: Model, data: Any) -> State:
        """Nothing ships beside the network."""
        return {}

    def score(
        self, model: Model, data: Any, split: str, state: State, emit: Emit = silent
    ) -> Score:
        """Run the network over the split and apply the metric.

        Raises:
            RecipeError: The metric returns neither one value nor one per sample.
        """
        dataset = getattr(data, split)
        outputs, labels = outputs_of(model, dataset), labels_of(dataset)
        value = np.asarray(self.function(outputs, labels), dtype=np.float64)
        if value.shape == (len(labels),):
            row, units = interval(value), {self.name: value}
        elif value.ndim == 0:
            row, units = self._bootstrap(float(value), outputs, labels), {}
        else:
            raise RecipeError(
                f"metric {self.name!r} returned shape {value.shape}",
                hint=f"return one number, or one per sample: ({len(labels)},)",
            )
        return Score({self.name: row}, self.name, self.higher_is_better, units)

    def _bootstrap(
        self, value: float, outputs: NDArray[Any], labels: NDArray[Any]
    ) -> dict[str, float]:
        rng = np.random.default_rng(0)
        draws = (rng.integers(0, len(labels), len(labels)) for _ in range(RESAMPLES))
        values = [float(self.function(outputs[rows], labels[rows])) for rows in draws]
        low, high = np.percentile(values, [2.5, 97.5])
        return {"value": value, "low": float(low), "high": float(high), "n": len(labels)}


def accuracy(outputs: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Whether the largest output is the label's, per sample: (samples,)."""
    right: NDArray[np.float64] = (outputs.argmax(1) == labels).astype(np.float64)
    return right
