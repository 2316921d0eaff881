"""Extremely randomised trees on window statistics: the trivial baseline, in numpy.

Source: Geurts et al., "Extremely randomized trees" (2006). Every split draws a few features, a
uniform threshold for each, and keeps the one with the least Gini impurity.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Forest", "grow", "window_statistics"]

WINDOWS = 4
Floats = NDArray[np.float32]


def window_statistics(samples: NDArray[Any], windows: int = WINDOWS) -> Floats:
    """Mean, deviation, minimum and maximum of each channel in each window.

    Args:
        samples: (flights, channels, …, length).
        windows: Equal parts of the length.

    Returns:
        (flights, 4 · channels · windows).
    """
    flat = np.asarray(samples, np.float32).reshape(len(samples), samples.shape[1], windows, -1)
    parts = [flat.mean(-1), flat.std(-1), flat.min(-1), flat.max(-1)]
    return np.concatenate(parts, 1).reshape(len(samples), -1)


@dataclass
class Tree:
    """One tree as arrays; a leaf has feature −1."""

    feature: list[int] = field(default_factory=list)
    threshold: list[float] = field(default_factory=list)
    below: list[int] = field(default_factory=list)
    above: list[int] = field(default_factory=list)
    share: list[NDArray[np.float64]] = field(default_factory=list)

    def add(self, share: NDArray[np.float64]) -> int:
        """Append a leaf; return its place."""
        for column in (self.feature, self.below, self.above):
            column.append(-1)
        self.threshold.append(0.0)
        self.share.append(share)
        return len(self.feature) - 1

    def shares(self, x: Floats) -> NDArray[np.float64]:
        """Class shares of the leaf that each row reaches: (rows, classes)."""
        feature, threshold = np.array(self.feature), np.array(self.threshold, np.float32)
        below, above = np.array(self.below), np.array(self.above)
        at = np.zeros(len(x), np.int64)
        while (inner := np.flatnonzero(feature[at] >= 0)).size:
            node = at[inner]
            low = x[inner, feature[node]] <= threshold[node]
            at[inner] = np.where(low, below[node], above[node])
        return np.array(self.share)[at]


@dataclass(frozen=True)
class Forest:
    """Trees whose class shares are averaged."""

    trees: tuple[Tree, ...]

    def shares(self, x: Floats) -> NDArray[np.float64]:
        """Probability of each class: (rows, classes)."""
        total: NDArray[np.float64] = np.mean([tree.shares(x) for tree in self.trees], axis=0)
        return total


def grow(
    x: Floats, labels: NDArray[np.int64], *, trees: int = 100, leaf: int = 3, seed: int = 0
) -> Forest:
    """Grow a forest.

    Args:
        x: (rows, features).
        labels: Class of each row, from 0.
        trees: How many.
        leaf: Rows that a leaf has at least.
        seed: Seed of everything random.
    """
    classes = int(labels.max()) + 1
    hot = np.eye(classes)[labels]
    rngs = np.random.default_rng(seed).spawn(trees)
    return Forest(tuple(_tree(x, hot, leaf, rng) for rng in rngs))


def _tree(x: Floats, hot: NDArray[np.float64], leaf: int, rng: np.random.Generator) -> Tree:
    tree = Tree()
    tried = max(1, round(x.shape[1] ** 0.5))
    todo = [(tree.add(hot.mean(0)), np.arange(len(x)))]
    while todo:
        node, rows = todo.pop()
        if len(rows) < 2 * leaf or tree.share[node].max() == 1:
            continue
        split = _split(x, hot, rows, tried, leaf, rng)
        if split is None:
            continue
        feature, threshold, low = split
        tree.feature[node], tree.threshold[node] = feature, threshold
        for side, chosen in ((tree.below, rows[low]), (tree.above, rows[~low])):
            side[node] = tree.add(hot[chosen].mean(0))
            todo.append((side[node], chosen))
    return tree


def _split(
    x: Floats,
    hot: NDArray[np.float64],
    rows: NDArray[np.int64],
    tried: int,
    leaf: int,
    rng: np.random.Generator,
) -> tuple[int, float, NDArray[np.bool_]] | None:
    """The purest of a few random splits, or None when none leaves enough on both sides."""
    features = rng.choice(x.shape[1], tried, replace=False)
    values = x[np.ix_(rows, features)]
    low, high = values.min(0), values.max(0)
    thresholds = (low + (high - low) * rng.random(tried, np.float32)).astype(np.float32)
    below = values <= thresholds
    count = below.sum(0)
    inside = below.T.astype(np.float64) @ hot[rows]
    outside = hot[rows].sum(0) - inside
    rest = len(rows) - count
    with np.errstate(divide="ignore", invalid="ignore"):
        purity = (inside**2).sum(1) / count + (outside**2).sum(1) / rest
    purity[(count < leaf) | (rest < leaf)] = -1
    best = int(purity.argmax())
    if purity[best] < 0:
        return None
    return int(features[best]), float(thresholds[best]), below[:, best]
