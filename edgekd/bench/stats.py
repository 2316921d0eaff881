"""The statistics of the gate: exact, distribution-free, without scipy (a lean host has none).

Paired: each round gives one difference of two fresh processes that ran side by side, in an order
drawn at random. If both run the same artefact, the difference is as likely one way as the other
whatever the machine does meanwhile, so the signed-rank test below is exact by design and needs
no assumption about the noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = Sequence[float] | NDArray[Any]

_EXACT_PAIRS = 60
_EXACT_CELLS = 1600
"""Above these the normal approximation is used, with its correction for ties."""


@dataclass(frozen=True)
class Shift:
    """A Hodges–Lehmann estimate with its interval, as relative change: 0.03 is +3 %."""

    value: float
    low: float
    high: float


# --- paired ------------------------------------------------------------------------------------


def signed_rank(differences: Floats) -> float:
    """Return the one-sided p-value of Wilcoxon's signed-rank test that differences are positive.

    Zeros are kept with half weight on each side (Pratt's ranks), ties get mean ranks; the null
    distribution over all signs is counted exactly up to 60 pairs.
    """
    values = np.asarray(differences, np.float64)
    count = len(values)
    if count == 0:
        return 1.0
    doubled = np.rint(2 * _mean_ranks(np.abs(values))).astype(np.int64)
    doubled = np.where(values == 0, 0, doubled)
    observed = int(doubled[values > 0].sum())
    if count > _EXACT_PAIRS:
        deviation = math.sqrt(float((doubled**2).sum()) / 4)
        return _upper_normal(observed, doubled.sum() / 2, deviation, step=1.0)
    return _upper_tail(_sign_sums(tuple(sorted(int(rank) for rank in doubled))), observed)


@lru_cache(maxsize=512)
def _sign_sums(ranks: tuple[int, ...]) -> tuple[float, ...]:
    """Probabilities of the sum of the ranks that get a plus, over all equally likely signs."""
    chances = np.zeros(sum(ranks) + 1)
    chances[0] = 1.0
    for rank in ranks:
        moved = np.zeros_like(chances)
        moved[rank:] = chances[: len(chances) - rank]
        chances = (chances + moved) / 2
    return tuple(chances.tolist())


def _upper_tail(chances: Sequence[float], observed: int) -> float:
    return min(1.0, float(math.fsum(chances[observed:])))


def pair_shift(logs: Floats, confidence: float = 0.95) -> Shift:
    """Hodges–Lehmann estimate of paired log ratios, with the interval that inverts the test.

    Args:
        logs: log(candidate / baseline) of each round.
        confidence: Of the two-sided interval; with too few rounds it is the widest there is.
    """
    values = np.asarray(logs, np.float64)
    first, second = np.triu_indices(len(values))
    walsh = np.sort((values[first] + values[second]) / 2)
    drop = _dropped(len(values), (1 - confidence) / 2)
    low, high = walsh[drop], walsh[len(walsh) - 1 - drop]
    return Shift(*(math.expm1(float(v)) for v in (np.median(walsh), low, high)))


@lru_cache(maxsize=256)
def _dropped(count: int, tail: float) -> int:
    """How many Walsh averages at each end lie outside the interval."""
    chances = _sign_sums(tuple(range(1, count + 1)))
    total, dropped = 0.0, 0
    for chance in chances:
        total += chance
        if total > tail:
            break
        dropped += 1
    return max(0, dropped - 1)


def centre(values: Floats, confidence: float = 0.95) -> Shift:
    """Hodges–Lehmann centre of positive values, with its interval."""
    shift = pair_shift(np.log(np.maximum(np.asarray(values, np.float64), 1e-12)), confidence)
    return Shift(1 + shift.value, 1 + shift.low, 1 + shift.high)


# --- two samples that were not taken in pairs ----------------------------------------------------


def mann_whitney(first: Floats, second: Floats) -> float:
    """Return the one-sided p-value that values of ``second`` are larger than those of ``first``.

    Exact without ties in small samples, else normal with the corrections for ties and continuity.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if not len(a) or not len(b):
        return 1.0
    wins = float((b[:, None] > a).sum()) + 0.5 * float((b[:, None] == a).sum())
    both = np.concatenate([a, b])
    _, counts = np.unique(both, return_counts=True)
    if counts.max() == 1 and len(a) * len(b) <= _EXACT_CELLS:
        return _upper_tail(_win_chances(len(a), len(b)), round(wins))
    total = len(both)
    ties = float((counts**3 - counts).sum()) / (total * (total - 1))
    variance = len(a) * len(b) / 12 * (total + 1 - ties)
    return _upper_normal(wins, len(a) * len(b) / 2, math.sqrt(max(variance, 0.0)), step=0.5)


@lru_cache(maxsize=64)
def _win_chances(first: int, second: int) -> tuple[float, ...]:
    """Probabilities of the number of wins, by the recursion on the largest value."""
    table = np.zeros((first + 1, second + 1, first * second + 1))
    table[0, :, 0] = table[:, 0, 0] = 1.0
    for i in range(1, first + 1):
        for j in range(1, second + 1):
            table[i, j] = table[i - 1, j] * i / (i + j)
            table[i, j, i:] += table[i, j - 1, : table.shape[2] - i] * j / (i + j)
    return tuple(table[first, second].tolist())


def sample_shift(first: Floats, second: Floats, confidence: float = 0.95) -> Shift:
    """Hodges–Lehmann estimate of the ratio of two independent positive samples, as change."""
    a, b = np.log(np.asarray(first, np.float64)), np.log(np.asarray(second, np.float64))
    pairs = np.sort((b[:, None] - a).ravel())
    z = normal_quantile(1 - (1 - confidence) / 2)
    centre = len(pairs) / 2
    drop = centre - z * math.sqrt(len(a) * len(b) * (len(a) + len(b) + 1) / 12)
    place = max(0, math.floor(drop))
    low, high = pairs[place], pairs[len(pairs) - 1 - place]
    return Shift(*(math.expm1(float(v)) for v in (np.median(pairs), low, high)))


# --- several tests, several looks ----------------------------------------------------------------


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values adjusted by Holm: the rate of any false alarm in the family holds."""
    adjusted: dict[str, float] = {}
    worst = 0.0
    ordered = sorted(p_values.items(), key=lambda item: item[1])
    for place, (name, p) in enumerate(ordered):
        worst = max(worst, min(1.0, (len(ordered) - place) * p))
        adjusted[name] = worst
    return {name: adjusted[name] for name in p_values}


@dataclass(frozen=True)
class Looks:
    """When a growing number of rounds is tested, and the share of the error that each look gets.

    The shares add up to 1, so the smallest of p / share over the looks taken is a p-value
    whatever made the run stop (Bonferroni over looks).
    """

    rounds: tuple[int, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse a plan that spends more than there is."""
        fits = len(self.rounds) == len(self.shares) and abs(sum(self.shares) - 1) < 1e-9
        if not fits or list(self.rounds) != sorted(set(self.rounds)) or min(self.shares) <= 0:
            raise ValueError(f"looks want rising rounds and shares that add up to 1, got {self}")

    def p_value(self, logs: Floats, sign: int = 1) -> float:
        """Sequential p-value that the differences times ``sign`` are positive."""
        values = sign * np.asarray(logs, np.float64)
        taken = zip(self.rounds, self.shares, strict=True)
        found = [signed_rank(values[:n]) / share for n, share in taken if n <= len(values)]
        return min(1.0, *found, 1.0)


# --- distributions -------------------------------------------------------------------------------


def binomial_interval(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact (Clopper–Pearson) interval of a rate."""
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else _solve(lambda p: 1 - _below(hits - 1, trials, p), tail)
    high = 1.0 if hits == trials else _solve(lambda p: -_below(hits, trials, p), -tail)
    return low, high


def _below(hits: int, trials: int, p: float) -> float:
    """P(X ≤ hits)."""
    if p <= 0 or p >= 1:
        return 1.0 if p <= 0 or hits >= trials else 0.0
    logs = (
        math.lgamma(trials + 1)
        - math.lgamma(k + 1)
        - math.lgamma(trials - k + 1)
        + k * math.log(p)
        + (trials - k) * math.log1p(-p)
        for k in range(hits + 1)
    )
    return min(1.0, math.fsum(math.exp(value) for value in logs))


def _solve(rising: Any, wanted: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < wanted else (low, middle)
    return (low + high) / 2


def normal_quantile(p: float) -> float:
    """Return the quantile of the standard normal distribution."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(p)


def _upper_normal(observed: float, mean: float, deviation: float, *, step: float) -> float:
    if deviation == 0:
        return 1.0
    return 0.5 * math.erfc((observed - step - mean) / deviation / math.sqrt(2))


def _mean_ranks(values: NDArray[Any]) -> NDArray[Any]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((2 * ends - counts + 1) / 2)[inverse]
