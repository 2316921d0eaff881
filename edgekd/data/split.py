"""Splits that are made, not found: deterministic, by content, for one of two kinds of task."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekd.data.base import SPLITS, Images, Joined, same_classes
from edgekd.errors import DataError

__all__ = ["FRACTIONS", "Fractions", "Kind", "arrange", "split_classes", "split_samples"]

Kind = Literal["few-shot", "classification"]
Fractions = tuple[float, float, float]

FRACTIONS: Mapping[Kind, Fractions] = {
    "few-shot": (0.64, 0.16, 0.20),
    "classification": (0.8, 0.1, 0.1),
}
"""Shares of train, val and test: of the classes (MiniImageNet's), or of each class's images."""


def arrange(
    parts: Mapping[str, Images], kind: Kind, fractions: Fractions | None = None
) -> tuple[dict[str, Images], str]:
    """Give the splits that a kind of task needs.

    Splits on disk stay as they are when they fit the task: no class in common for few-shot, all
    classes in common for classification. Otherwise all images are pooled and split anew.

    Args:
        parts: The splits on disk.
        kind: What they are for.
        fractions: Shares when they are split anew; None takes `FRACTIONS`.

    Returns:
        The splits, and a note when they are not those on disk.
    """
    if same_classes(parts) == (kind == "classification"):
        return (_aligned(parts) if kind == "classification" else dict(parts)), ""
    split = split_samples if kind == "classification" else split_classes
    made, note = split(_pooled(parts), fractions or FRACTIONS[kind])
    return made, f"The splits on disk do not fit {kind}; all images were pooled. {note}"


def split_samples(images: Images, fractions: Fractions) -> tuple[dict[str, Images], str]:
    """Split every class by the hash of its images' content: same classes in each split.

    Copies of one image (the same bytes) within a class stay on one side. At least one image goes
    to each split.

    Raises:
        DataError: A class has fewer than three different images.
    """
    _check_fractions(fractions)
    digests = np.array(images.digests())
    side = np.empty(len(images), np.int64)
    for number, name in enumerate(images.classes):
        rows = np.flatnonzero(images.labels == number)
        different, place = np.unique(digests[rows], return_inverse=True)
        if len(different) < len(SPLITS):
            raise DataError(
                f"class {name!r} has {len(different)} different images; a split needs "
                f"{len(SPLITS)} at least",
                at="split train",
            )
        side[rows] = _sides(len(different), fractions)[place]
    parts = {split: images.subset(np.flatnonzero(side == i)) for i, split in enumerate(SPLITS)}
    return parts, _samples_note(digests, side)


def _samples_note(digests: NDArray[np.str_], side: NDArray[np.int64]) -> str:
    note = "Each class was split by a hash of its images' content."
    sides = [set(digests[side == number].tolist()) for number in range(len(SPLITS))]
    crossing = len((sides[0] & sides[1]) | (sides[0] & sides[2]) | (sides[1] & sides[2]))
    if not crossing:
        return note
    return f"{note} {crossing} images stand in several classes, on several sides of the split."


def split_classes(images: Images, fractions: Fractions) -> tuple[dict[str, Images], str]:
    """Deal whole classes to the splits by the hash of their names: no class in common.

    Raises:
        DataError: There are fewer than three classes.
    """
    _check_fractions(fractions)
    if len(images.classes) < len(SPLITS):
        raise DataError(
            f"found {len(images.classes)} classes; splits without a class in common need "
            f"{len(SPLITS)} at least",
            at="split train",
        )
    order = sorted(range(len(images.classes)), key=lambda c: _hash(images.classes[c]))
    dealt = _sides(len(order), fractions)
    parts = {}
    for number, split in enumerate(SPLITS):
        classes = sorted(c for c, side in zip(order, dealt, strict=True) if side == number)
        rows = np.flatnonzero(np.isin(images.labels, classes))
        parts[split] = images.subset(rows, classes)
    return parts, "Whole classes were dealt to the splits by a hash of their names."


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _check_fractions(fractions: Sequence[float]) -> None:
    if len(fractions) != len(SPLITS) or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise DataError(
            f"the fractions are {tuple(fractions)}, wanted three above 0 with sum 1",
            hint="for instance 0.8 0.1 0.1",
        )


def _sides(count: int, fractions: Fractions) -> NDArray[np.int64]:
    """Return a split number for each of ``count`` (at least 3) ordered things."""
    test = min(max(1, round(count * fractions[2])), count - 2)
    val = min(max(1, round(count * fractions[1])), count - 1 - test)
    return np.repeat(np.arange(len(SPLITS)), [count - val - test, val, test])


def _aligned(parts: Mapping[str, Images]) -> dict[str, Images]:
    """Give all splits the class order of ``train``."""
    names = parts["train"].classes
    return {split: _reordered(images, names) for split, images in parts.items()}


def _reordered(images: Images, names: Sequence[str]) -> Images:
    where = {name: number for number, name in enumerate(images.classes)}
    return images.subset(np.arange(len(images)), [where[name] for name in names])


def _pooled(parts: Mapping[str, Images]) -> Images:
    """Return all splits as one dataset."""
    names = sorted({name for images in parts.values() for name in images.classes})
    place = {name: number for number, name in enumerate(names)}
    labels = [
        np.array([place[name] for name in images.classes], np.int64)[images.labels]
        for images in parts.values()
    ]
    sources = [images.source for images in parts.values()]
    starts = np.cumsum([0, *(len(source) for source in sources)])
    rows = [
        start + (np.arange(len(images)) if images.rows is None else images.rows)
        for start, images in zip(starts, parts.values(), strict=False)
    ]
    first = next(iter(parts.values()))
    return Images(
        Joined(tuple(sources)),
        np.concatenate(labels),
        tuple(names),
        first.size,
        first.channels,
        np.concatenate(rows),
    )
