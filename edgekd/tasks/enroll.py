"""Enrol new classes on the device: nearest class mean over a frozen backbone's features.

This file ships in every few-shot bundle and needs numpy alone. The rule (SimpleShot,
arXiv 1911.04623, as in EASY, arXiv 2201.09699): subtract the mean feature of the base classes,
scale to unit length, average the examples of a class, answer with the nearest mean.
"""

from __future__ import annotations

import numpy as np


class Enroller:
    """Learns classes from a few examples each.

    Args:
        base_mean: (features,) mean feature of the base classes, from ``state.npz``.
    """

    def __init__(self, base_mean: np.ndarray) -> None:
        self.base_mean = np.asarray(base_mean, dtype=np.float32)
        self.names: list[str] = []
        self._sums: list[np.ndarray] = []
        self._counts: list[int] = []

    def prepare(self, features: np.ndarray) -> np.ndarray:
        """Centre and scale features: (n, features) → (n, features) of unit length."""
        centred = np.asarray(features, dtype=np.float32) - self.base_mean
        norms = np.linalg.norm(centred, axis=1, keepdims=True)
        scaled: np.ndarray = centred / np.maximum(norms, 1e-12)
        return scaled

    def enroll(self, name: str, features: np.ndarray) -> None:
        """Add examples of a class: (n, features). A known name gets more examples."""
        ready = self.prepare(np.atleast_2d(features))
        if name not in self.names:
            self.names.append(name)
            self._sums.append(np.zeros(ready.shape[1], np.float32))
            self._counts.append(0)
        place = self.names.index(name)
        self._sums[place] = self._sums[place] + ready.sum(0)
        self._counts[place] += len(ready)

    def forget(self, name: str) -> None:
        """Drop a class."""
        place = self.names.index(name)
        del self.names[place], self._sums[place], self._counts[place]

    @property
    def prototypes(self) -> np.ndarray:
        """(classes, features): the mean of every class."""
        return np.stack([s / n for s, n in zip(self._sums, self._counts, strict=True)])

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Squared distance of (n, features) to every class: (n, classes)."""
        ready, means = self.prepare(np.atleast_2d(features)), self.prototypes
        square = (means**2).sum(1) - 2 * ready @ means.T + (ready**2).sum(1, keepdims=True)
        distances: np.ndarray = np.maximum(square, 0)
        return distances

    def classify(self, features: np.ndarray) -> list[str]:
        """Name of the nearest class for each of (n, features).

        Raises:
            ValueError: No class is enrolled.
        """
        if not self.names:
            raise ValueError("no class is enrolled; call enroll(name, features) first")
        return [self.names[i] for i in self.distances(features).argmin(1)]

    def linear_head(self) -> tuple[np.ndarray, np.ndarray]:
        """Weight (classes, features) and bias (classes,) whose arg max is the nearest mean."""
        means = self.prototypes
        return 2 * means, -(means**2).sum(1)
