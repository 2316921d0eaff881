"""How near an artefact's outputs are to the source network's, or a user's own metric of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.calls import resolve
from edgekd.compare import compare
from edgekd.events import Emit
from edgekd.spec import Call
from edgekd.tasks.base import Model, Score, State, outputs_of

__all__ = ["Fidelity", "task"]

REFERENCE = "reference"
"""Name of the source's outputs in the state."""


@dataclass(frozen=True)
class Fidelity:
    """Signal to noise and the worst cosine against the source; with ``metric``, that instead.

    Attributes:
        metric: ``metric(outputs, samples) -> float``; larger is better.
    """

    metric: Callable[[Any, Any], float] | None = None

    def fit(self, model: Model, data: Any) -> State:
        """Keep the source's outputs on the samples that judge."""
        return {REFERENCE: outputs_of(model, data.val)}

    def score(self, model: Model, data: Any, split: str, state: State, emit: Emit) -> Score:
        """Compare a network with the source."""
        outputs = outputs_of(model, getattr(data, split))
        facts = compare(state[REFERENCE], outputs)
        n = len(outputs)
        metrics = {name: {"value": facts[name], "n": n} for name in ("sqnr_db", "min_cosine")}
        if self.metric is None:
            return Score(metrics, "sqnr_db")
        value = float(self.metric(outputs, getattr(data, split).take(np.arange(n))))
        return Score({"metric": {"value": value, "n": n}, **metrics}, "metric")


def task(metric: Mapping[str, Any] | None = None) -> Fidelity:
    """Make the task.

    Args:
        metric: A plain `Call` of the user's function; None for fidelity.
    """
    return Fidelity(resolve(Call(**metric), Path("/")) if metric else None)
