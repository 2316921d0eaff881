"""One entry for image data on disk: finds out the layout by content, and reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from edgekd.data.base import Splits, check_splits, splits_of
from edgekd.data.folder import image_files, load_folder, split_named
from edgekd.data.miniimagenet import ALL, LAYOUTS, Found, View
from edgekd.data.split import (
    FRACTIONS,
    Fractions,
    Kind,
    arrange,
    split_classes,
    split_samples,
)
from edgekd.errors import DataError

__all__ = ["load"]

IMAGENET_NOTES: Mapping[Kind, str] = {
    "few-shot": (
        "The classes are ImageNet's: a teacher trained on ImageNet has seen the test classes, so "
        "its few-shot accuracy, and what a student learns from it, is not few-shot."
    ),
    "classification": (
        "The classes are ImageNet's: a teacher trained on ImageNet may have seen the test images."
    ),
}


def load(
    path: Path | str,
    *,
    size: int,
    kind: Kind = "few-shot",
    channels: int = 3,
    fractions: Fractions | None = None,
) -> Splits:
    """Load image data in any layout of `edgekd.data.miniimagenet`, or class folders.

    Pictures are decoded when they are used, not here; pickles, which must be read whole, are.

    Args:
        path: The folder.
        size: Height and width of the images: central square, resized.
        kind: ``few-shot`` gives each split its own classes, ``classification`` the same ones.
            Splits on disk are kept when they fit, else all images are pooled and split by hash.
        channels: 3 or 1.
        fractions: Shares of train, val and test where splits are made.

    Raises:
        DataError: The folder is missing, empty or faulty; file and split are named.
        SetupError: A package that reads this layout is missing.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        what = "not a folder" if root.exists() else "no such folder"
        raise DataError(what, at=str(root), hint="give the folder that holds the data")
    root = _unpacked(root)
    for read in LAYOUTS:
        found = read(root, View(size, channels))
        if found:
            return _noted(_finished(found, root, kind, fractions), kind)
    split: Literal["samples", "classes"] = "samples" if kind == "classification" else "classes"
    loaded = load_folder(root, size=size, split=split, fractions=fractions, channels=channels)
    return _noted(loaded, kind)


def _unpacked(root: Path) -> Path:
    """Step into a folder that stands alone in its parent, as archives unpack."""
    inside = [p for p in root.iterdir() if not p.name.startswith((".", "__MACOSX"))]
    lone = inside[0] if len(inside) == 1 and inside[0].is_dir() else None
    if lone is None or split_named(lone.name) or image_files(lone):
        return root
    return _unpacked(lone)


def _finished(found: Found, root: Path, kind: Kind, fractions: Fractions | None) -> Splits:
    if ALL in found.parts:
        make = split_samples if kind == "classification" else split_classes
        parts, note = make(found.parts[ALL], fractions or FRACTIONS[kind])
    else:
        check_splits(found.parts, root)
        parts, note = arrange(found.parts, kind, fractions)
    notes = " ".join(filter(None, (found.note, note)))
    return splits_of(parts, source=found.layout, files=found.files, note=notes)


def _noted(splits: Splits, kind: Kind) -> Splits:
    """Add the note on ImageNet's classes where the names are WordNet numbers."""
    names = getattr(splits.test, "classes", ())
    if not names or not all(re.fullmatch(r"n\d{8}", name) for name in names):
        return splits
    note = f"{splits.note} {IMAGENET_NOTES[kind]}".strip()
    return Splits(splits.train, splits.val, splits.test, note, splits.facts)
