"""Metrics of detection and identification, each as a mean of one value a flight.

A ratio of two means, and the area under the ROC curve, are written as the mean of their
influence values; so every metric has an interval, and two networks have one for their difference
over the same flights. For the area this is DeLong's variance (1988).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MISSED_COST",
    "auc",
    "calibration_error",
    "clustered",
    "f1",
    "macro_f1",
    "mcwpm",
    "ratio",
    "recall",
    "temperature",
    "threshold_for",
]

MISSED_COST = 2.5
"""Weight of a missed fault in MCWPM (arXiv 2603.22885, as reported); a false alarm weighs 1."""
BINS = 15
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179)
"""Student's t, 97.5 %, for 1 to 12 degrees of freedom; beyond that 1.96 · (1 + 1.5 / degrees)."""
Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def ratio(over: Floats, under: Floats) -> Floats:
    """Influence values of mean(over) / mean(under), one a flight; their mean is the ratio.

    All are 0 when there is nothing under the line.
    """
    below = under.mean()
    if below == 0:
        return np.zeros_like(over)
    value = over.mean() / below
    values: Floats = value + (over - value * under) / below
    return values


def recall(found: NDArray[np.bool_], labels: Labels) -> Floats:
    """Share of the faulty flights that were found."""
    ill = (labels > 0).astype(np.float64)
    return ratio(ill * found, ill)


def f1(found: NDArray[np.bool_], labels: Labels) -> Floats:
    """F1 of the faulty class."""
    return _weighted(found, labels > 0, 1.0)


def mcwpm(found: NDArray[np.bool_], labels: Labels) -> Floats:
    """2·TP / (2·TP + 2.5·missed + false alarms)."""
    return _weighted(found, labels > 0, MISSED_COST)


def _weighted(found: NDArray[np.bool_], ill: NDArray[np.bool_], missed: float) -> Floats:
    hit = (found & ill).astype(np.float64)
    lost = (~found & ill).astype(np.float64)
    false = (found & ~ill).astype(np.float64)
    return ratio(2 * hit, 2 * hit + missed * lost + false)


def macro_f1(predicted: Labels, labels: Labels, classes: int) -> Floats:
    """Mean F1 over the classes that occur."""
    there = [c for c in range(classes) if (labels == c).any()]
    per_class = [_weighted(predicted == c, labels == c, 1.0) for c in there]
    mean: Floats = np.mean(per_class, axis=0)
    return mean


def auc(scores: Floats, labels: Labels) -> Floats:
    """Area under the ROC curve; ties count half.

    Args:
        scores: Larger is more likely faulty.
        labels: 0 or 1; both must occur.
    """
    ill, well = scores[labels > 0], scores[labels == 0]
    above = _placed(ill, np.sort(well))
    below = 1 - _placed(well, np.sort(ill))
    value, values = above.mean(), np.empty(len(scores))
    values[labels > 0] = value + (above - value) * len(scores) / len(ill)
    values[labels == 0] = value + (below - value) * len(scores) / len(well)
    return values


def _placed(values: Floats, others: Floats) -> Floats:
    """Share of the sorted others that each value exceeds."""
    low = np.searchsorted(others, values, "left")
    high = np.searchsorted(others, values, "right")
    placed: Floats = (low + high) / (2 * len(others))
    return placed


def clustered(values: Floats, groups: NDArray[np.int64]) -> dict[str, float]:
    """Mean with a 95 % interval when flights of one airframe are alike.

    Liang and Zeger's variance of a mean (1986), Student's t with as many degrees of freedom as
    there are groups, less one.

    Args:
        values: One a flight; their mean is the metric.
        groups: Airframe of each.
    """
    mean = float(values.mean())
    sums = np.array([(values[groups == g] - mean).sum() for g in np.unique(groups)])
    count = len(sums)
    if count < 2:
        return {"value": mean, "low": float("nan"), "high": float("nan"), "n": count}
    error = float(np.sqrt((sums**2).sum() * count / (count - 1)) / len(values))
    factor = T95[count - 2] if count - 1 <= len(T95) else 1.96 * (1 + 1.5 / (count - 1))
    half = factor * error
    return {"value": mean, "low": mean - half, "high": mean + half, "n": count}


def threshold_for(scores: Floats, labels: Labels, wanted: float) -> float:
    """The highest threshold at which at least ``wanted`` of the faulty flights are found.

    A flight is flagged when its score is at or above the threshold.
    """
    ill = np.sort(scores[labels > 0])[::-1]
    needed = min(len(ill), max(1, int(np.ceil(wanted * len(ill) - 1e-9))))
    return float(ill[needed - 1])


def calibration_error(shares: Floats, labels: Labels) -> float:
    """Expected calibration error over 15 equal bins of confidence (arXiv 1706.04599)."""
    confidence, right = shares.max(1), shares.argmax(1) == labels
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    gaps = [
        abs(float(right[place == b].mean() - confidence[place == b].mean())) * (place == b).sum()
        for b in np.unique(place)
    ]
    return float(sum(gaps) / len(labels))


def temperature(logits: Floats, labels: Labels) -> float:
    """The temperature with the least cross entropy, by golden section on its logarithm."""
    ends = [np.log(0.05), np.log(20.0)]
    golden = (5**0.5 - 1) / 2

    def loss(log_t: float) -> float:
        scaled = logits / np.exp(log_t)
        scaled = scaled - scaled.max(1, keepdims=True)
        chosen = scaled[np.arange(len(labels)), labels]
        return float((np.log(np.exp(scaled).sum(1)) - chosen).mean())

    for _ in range(40):
        width = ends[1] - ends[0]
        a, b = ends[1] - golden * width, ends[0] + golden * width
        ends = [ends[0], b] if loss(a) < loss(b) else [a, ends[1]]
    return float(np.exp(sum(ends) / 2))
