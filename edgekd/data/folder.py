"""Folders of images: one folder a class, with or without a folder a split."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from edgekd.data.base import SPLITS, Files, Images, Splits, check_splits, splits_of
from edgekd.data.split import FRACTIONS, Fractions, Kind, arrange, split_classes, split_samples
from edgekd.errors import DataError

__all__ = ["SUFFIXES", "class_folders", "images_of", "load_folder", "split_folders", "split_named"]

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Files that count as images; others are passed over."""

_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def load_folder(
    root: Path | str,
    *,
    size: int,
    split: Literal["samples", "classes"] = "samples",
    fractions: Fractions | None = None,
    channels: int = 3,
) -> Splits:
    """Load class folders.

    Two layouts: ``<root>/{train,val,test}/<class>/*`` (also ``validation``, ``meta-train``, …),
    and ``<root>/<class>/*``, which is split by hash: the same files always land the same way.

    Args:
        root: The folder.
        size: Height and width of the images.
        split: ``samples`` gives the same classes in each split (classification), ``classes``
            gives each split its own (few-shot). Splits on disk are kept when they fit.
        fractions: Shares of train, val and test when there are no splits on disk.
        channels: 3 or 1.

    Raises:
        DataError: No images, a missing split, or an empty class.
    """
    root = Path(root)
    kind: Kind = "classification" if split == "samples" else "few-shot"
    folders = split_folders(root)
    if folders:
        parts = {
            name: images_of(class_folders(folder), size, channels)
            for name, folder in folders.items()
        }
        check_splits(parts, root)
        parts, note = arrange(parts, kind, fractions)
    else:
        flat = images_of(_some(class_folders(root), root), size, channels)
        make = split_samples if split == "samples" else split_classes
        parts, note = make(flat, fractions or FRACTIONS[kind])
    return splits_of(parts, source="class folders", files=[root], note=note)


def split_named(name: str) -> str | None:
    """Return the split that a file's or folder's name speaks of, or None.

    >>> split_named("mini-imagenet-cache-validation"), split_named("meta-train")
    ('val', 'train')
    >>> split_named("train_or_test") is None
    True
    """
    words = re.split(r"[^a-z]+", name.lower())
    splits = {_NAMES[word] for word in words if word in _NAMES}
    return splits.pop() if len(splits) == 1 else None


def split_folders(root: Path) -> dict[str, Path]:
    """Return the folders of ``root`` that are a split (``train``, ``meta-val``), in order.

    Raises:
        DataError: Two folders for one split.
    """
    found: dict[str, Path] = {}
    folders = _folders(root)
    for folder in folders:
        split = _NAMES.get(folder.name.lower().removeprefix("meta-").removeprefix("meta_"))
        if split is None or _is_class(folder, folders):
            continue
        if split in found:
            raise DataError(
                f"two folders for split {split!r}: {found[split].name} and {folder.name}",
                at=str(root),
            )
        found[split] = folder
    return {split: found[split] for split in SPLITS if split in found}


def _is_class(folder: Path, beside: Sequence[Path]) -> bool:
    """Tell whether a folder with a split's name is a class (``train`` beside ``bus``)."""
    has_images = bool(image_files(folder)) and not _folders(folder)
    return has_images and not all(split_named(other.name) for other in beside)


def class_folders(root: Path) -> dict[str, list[Path]]:
    """Return the image files of each folder in ``root``, both in order of their names."""
    return {folder.name: image_files(folder) for folder in _folders(root)}


def image_files(folder: Path) -> list[Path]:
    """Return the image files of a folder in order of their names."""
    with os.scandir(folder) as entries:
        names = [
            entry.name
            for entry in entries
            if not entry.name.startswith(".") and Path(entry.name).suffix.lower() in SUFFIXES
        ]
    return [folder / name for name in sorted(names)]


def images_of(classes: Mapping[str, Sequence[Path]], size: int, channels: int) -> Images:
    """Make a dataset of the files of each class; nothing is read."""
    counts = [len(files) for files in classes.values()]
    paths = tuple(path for files in classes.values() for path in files)
    labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    return Images(Files(paths), labels, tuple(classes), size, channels)


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _some(classes: dict[str, list[Path]], root: Path) -> dict[str, list[Path]]:
    """Return the classes that have images, or refuse a folder without any."""
    filled = {name: files for name, files in classes.items() if files}
    if filled:
        return filled
    raise DataError(
        "no images found",
        at=str(root),
        hint="wanted <root>/{train,val,test}/<class>/* or <root>/<class>/* with image files "
        f"({', '.join(sorted(SUFFIXES))})",
    )
