"""Few-shot classification: N-way K-shot episodes over classes that training never saw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import DataError
from edgekd.events import Emit, Progress, silent
from edgekd.tasks import enroll
from edgekd.tasks.base import CHUNK, Model, Score, State, interval, labels_of, outputs_of
from edgekd.tasks.enroll import Enroller


def few_shot(
    *,
    way: int = 5,
    shots: tuple[int, ...] | list[int] = (1, 5),
    query: int = 10,
    episodes: int = 2000,
    seed: int = 0,
) -> FewShot:
    """Build the task.

    Args:
        way: Classes an episode.
        shots: Labelled examples a class; one metric each, the last one decides.
        query: Examples a class that are asked about.
        episodes: Episodes; the same ones for every network (seeded), so differences are paired.
        seed: Seed of the episodes.
    """
    return FewShot(way, tuple(shots), query, episodes, seed)


@dataclass(frozen=True)
class FewShot:
    """Nearest class mean after base-mean centring and L2 normalisation."""

    way: int
    shots: tuple[int, ...]
    query: int
    episodes: int
    seed: int

    def companions(self) -> dict[str, Path]:
        """Code that ships beside the state."""
        return {"enroll.py": Path(enroll.__file__)}

    def fit(self, model: Model, data: Any) -> State:
        """Mean feature of the base (training) classes: ``base_mean`` (features,) float32."""
        features = outputs_of(model, data.train)
        return {"base_mean": features.astype(np.float64).mean(0).astype(np.float32)}

    def contract(self, state: State) -> dict[str, Any]:
        """What a device does with the features, for any language; ``enroll.py`` is it in numpy."""
        return {
            "rule": "nearest class mean (SimpleShot)",
            "prepared": "feature less base_mean, scaled to unit length",
            "class": "mean of its prepared examples",
            "answer": "the class at the smallest squared distance",
            "base_mean": [float(value) for value in state["base_mean"]],
        }

    def score(
        self, model: Model, data: Any, split: str, state: State, emit: Emit = silent
    ) -> Score:
        """Accuracy over the episodes of one split, a metric per number of shots."""
        dataset = getattr(data, split)
        features = outputs_of(model, dataset).reshape(len(dataset), -1)
        ready = Enroller(state["base_mean"]).prepare(features)
        units = {
            self.metric(shot): self._accuracies(ready, labels_of(dataset), shot, split, emit)
            for shot in self.shots
        }
        return Score(
            {name: interval(values) for name, values in units.items()},
            primary=self.metric(self.shots[-1]),
            units=units,
        )

    def metric(self, shot: int) -> str:
        """Name of the metric for ``shot`` labelled examples."""
        return f"{self.way}-way {shot}-shot"

    def _accuracies(
        self, ready: NDArray[Any], labels: NDArray[np.int64], shot: int, split: str, emit: Emit
    ) -> NDArray[np.float64]:
        progress = Progress(emit, f"episodes ({split}, {shot}-shot)", self.episodes, "episodes")
        result = []
        for support, query in self._draw(labels, shot, split):
            means = ready[support].mean(2)
            asked = ready[query].reshape(len(query), self.way * self.query, -1)
            near = (means**2).sum(-1)[:, None, :] - 2 * asked @ means.transpose(0, 2, 1)
            truth = np.repeat(np.arange(self.way), self.query)
            result.append((near.argmin(-1) == truth).mean(-1))
            progress.advance(len(query))
        return np.concatenate(result)

    def _draw(
        self, labels: NDArray[np.int64], shot: int, split: str
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield chunks of episodes: support (n, way, shot) and query (n, way, query) indices."""
        need = shot + self.query
        members = [np.flatnonzero(labels == c) for c in np.unique(labels)]
        self._check(members, need, split)
        rng = np.random.default_rng([self.seed, shot])
        for start in range(0, self.episodes, CHUNK):
            rows = []
            for _ in range(min(CHUNK, self.episodes - start)):
                classes = rng.choice(len(members), self.way, replace=False)
                rows.append([rng.permutation(members[c])[:need] for c in classes])
            drawn: NDArray[np.int64] = np.asarray(rows)
            yield drawn[:, :, :shot], drawn[:, :, shot:]

    def _check(self, members: list[NDArray[np.int64]], need: int, split: str) -> None:
        if len(members) < self.way:
            raise DataError(
                f"{self.way}-way episodes need {self.way} classes, split {split!r} has"
                f" {len(members)}",
                at=f"split {split}",
                hint="use more classes or --set way=N",
            )
        short = [i for i, m in enumerate(members) if len(m) < need]
        if short:
            raise DataError(
                f"{len(short)} classes of split {split!r} have fewer than the {need} samples that"
                f" an episode needs (class {short[0]} has {len(members[short[0]])})",
                at=f"split {split}",
                hint="remove those classes, or lower --set query=N",
            )
