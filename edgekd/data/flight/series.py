"""Multichannel flights as a map-style dataset: raw units on disk, standardised when taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgekd.data.base import SPLITS, Splits
from edgekd.errors import DataError

__all__ = ["Series", "by_fold", "moments", "pool", "standardise"]

CLIP = 6.0
"""Standard deviations at which a value is cut."""


def standardise(
    raw: NDArray[Any], mean: NDArray[np.float32], std: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Raw units → what a network takes: (value − mean) / std, cut at ±6; absent values are 0.

    Args:
        raw: (flights, channels, length), NaN where there is no value.
        mean: (channels,).
        std: (channels,).

    Returns:
        (flights, channels, 1, length) float32: an image one row high.
    """
    scaled = (raw.astype(np.float32) - mean[:, None]) / std[:, None]
    np.clip(scaled, -CLIP, CLIP, out=scaled)
    ready: NDArray[np.float32] = np.nan_to_num(scaled, copy=False, nan=0.0)[:, :, None]
    return ready


@dataclass(frozen=True, eq=False)
class Series:
    """Some flights of a set.

    Attributes:
        values: All flights of the set in raw units, float16 (all, channels, length).
        rows: Which of them these are.
        labels: Class of each, int64.
        classes: Their names.
        names: Of the channels.
        mean: Of each channel over the training flights.
        std: Likewise.
        groups: Airframe of each flight, where it is known: flights of one are alike.
        kinds: What each flight has, whatever the labels are: 0 nothing, else the fault's number.
        faults: Names of the faults 1…
    """

    values: NDArray[np.float16]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    names: tuple[str, ...]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    groups: NDArray[np.int64] | None = None
    kinds: NDArray[np.int64] | None = None
    faults: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int, /) -> tuple[NDArray[np.float32], int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"flight {index} of {len(self)}")
        return self.take([index])[0], int(self.labels[index])

    def take(self, indices: ArrayLike) -> NDArray[np.float32]:
        """Standardised flights: (batch, channels, 1, length)."""
        return standardise(self.raw(indices), self.mean, self.std)

    def raw(self, indices: ArrayLike) -> NDArray[np.float32]:
        """Flights in raw units: (batch, channels, length), NaN where there is no value."""
        rows = self.rows[np.asarray(indices, np.int64)]
        return np.asarray(self.values[rows], np.float32)

    def where(self, chosen: NDArray[np.bool_]) -> Series:
        """Return some of these flights."""
        groups = None if self.groups is None else self.groups[chosen]
        kinds = None if self.kinds is None else self.kinds[chosen]
        rows, labels = self.rows[chosen], self.labels[chosen]
        return replace(self, rows=rows, labels=labels, groups=groups, kinds=kinds)


def pool(flights: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Means of equal stretches, over the values that are there.

    Args:
        flights: (flights, channels, seconds).
        length: Samples that remain; a divisor of the seconds.

    Raises:
        DataError: It is not.
    """
    seconds = flights.shape[-1]
    if length <= 0 or seconds % length:
        raise DataError(
            f"{seconds} s cannot be pooled to {length} samples",
            at="setting: length",
            hint=f"a divisor of {seconds}: {', '.join(str(seconds // k) for k in (1, 4, 8, 32))}",
        )
    parts = flights.reshape(*flights.shape[:-1], length, seconds // length)
    there = np.isfinite(parts)
    count = there.sum(-1)
    total = np.where(there, parts, 0).sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def moments(
    values: NDArray[np.float16], rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each channel over some flights, absent values left out."""
    count = np.zeros(values.shape[1])
    total, square = np.zeros_like(count), np.zeros_like(count)
    for start in range(0, len(rows), 256):
        part = np.asarray(values[rows[start : start + 256]], np.float64)
        there = np.isfinite(part)
        known = np.where(there, part, 0)
        count += there.sum((0, 2))
        total += known.sum((0, 2))
        square += np.square(known).sum((0, 2))
    mean = total / np.maximum(count, 1)
    std = np.sqrt(np.maximum(square / np.maximum(count, 1) - mean**2, 0))
    return mean.astype(np.float32), np.where(std > 1e-6, std, 1).astype(np.float32)


def by_fold(
    values: NDArray[np.float16],
    fold: NDArray[np.int64],
    target: NDArray[np.int64],
    *,
    test: int,
    judge: int | None = None,
    stage: int,
    faults: Sequence[str],
    names: Sequence[str],
    source: str,
    groups: NDArray[np.int64] | None = None,
    note: str = "",
    facts: Mapping[str, Any] | None = None,
) -> Splits:
    """Split a set by its folds: one for the test, one for validation, the rest trains.

    Args:
        values: (flights, channels, length), raw units.
        fold: Of each flight.
        target: 0 healthy, else the number of the fault.
        test: Fold of the test.
        judge: Fold of the validation; None for the one after the test's.
        stage: 1 tells faulty from healthy; 2 names the fault, on faulty flights only.
        faults: Names of the faults 1…
        names: Of the channels.
        source: For the facts.
        groups: Airframe of each flight, where it is known.
        note: See `Splits`.
        facts: More facts.

    Raises:
        DataError: No such fold or stage, or a split without flights.
    """
    folds = np.unique(fold)
    if test not in folds or len(folds) < 3:
        raise DataError(
            f"no fold {test}", at="setting: fold", hint=f"folds: {folds.tolist()}, at least three"
        )
    if stage not in (1, 2):
        raise DataError(f"stage is 1 or 2, got {stage}", at="setting: stage")
    if judge is None:
        judge = int(folds[(np.flatnonzero(folds == test)[0] + 1) % len(folds)])
    trains = (fold != test) & (fold != judge)
    sides = dict(zip(SPLITS, (trains, fold == judge, fold == test), strict=True))
    usable = np.ones(len(fold), bool) if stage == 1 else target > 0
    labels = (target > 0).astype(np.int64) if stage == 1 else target - 1
    classes = ("healthy", "faulty") if stage == 1 else tuple(faults)
    mean, std = moments(values, np.flatnonzero(trains))
    parts = {}
    for split, side in sides.items():
        rows = np.flatnonzero(side & usable)
        if not len(rows):
            raise DataError("there are no flights", at=f"split {split}")
        parts[split] = Series(
            values,
            rows,
            labels[rows],
            classes,
            tuple(names),
            mean,
            std,
            None if groups is None else groups[rows],
            target[rows],
            tuple(faults),
        )
    counts = {
        split: np.bincount(part.labels, minlength=len(classes)).tolist()
        for split, part in parts.items()
    }
    return Splits(
        **parts,
        note=note,
        facts={"source": source, "classes": list(classes), "flights": counts, **(facts or {})},
    )
