"""What a report tells about a data set: where it is from, whose it is, a few pictures."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["describe", "examples", "keep_notices", "load_examples", "save_examples"]

CLASSES = 8
IMAGES = 8


def describe(data: Any) -> dict[str, Any]:
    """Return ``source``, ``note``, ``classes`` and ``images`` a split, as far as a loader tells.

    Args:
        data: Splits; a user's own need no ``facts`` and no ``note``.
    """
    facts = getattr(data, "facts", {})
    known = {name: facts[name] for name in ("source", "classes", "images") if name in facts}
    return {"note": getattr(data, "note", ""), **known}


def keep_notices(data: Any, out: Path) -> list[str]:
    """Copy the licence texts that a loader names (``facts["notices"]``) into a folder.

    Returns:
        Their names.
    """
    paths = [Path(path) for path in getattr(data, "facts", {}).get("notices", ())]
    if paths:
        out.mkdir(parents=True, exist_ok=True)
    for path in paths:
        shutil.copyfile(path, out / path.name)
    return sorted(path.name for path in paths)


def examples(dataset: Any) -> dict[str, NDArray[np.uint8]]:
    """Return the first images of some classes, spread evenly over all of them.

    Args:
        dataset: Map-style; anything but uint8 images (height, width, channels) gives none.

    Returns:
        Class → images (n, height, width, channels).
    """
    if not len(dataset) or not _is_image(np.asarray(dataset[0][0])):
        return {}
    labels = getattr(dataset, "labels", None)
    if labels is None:
        return {}
    labels = np.asarray(labels)
    present = np.unique(labels)
    names = getattr(dataset, "classes", None)
    chosen = present[np.unique(np.linspace(0, len(present) - 1, CLASSES).astype(np.int64))]
    return {
        str(names[label] if names else label): np.stack(
            [np.asarray(dataset[int(i)][0]) for i in np.flatnonzero(labels == label)[:IMAGES]]
        )
        for label in chosen
    }


def save_examples(pictures: Mapping[str, NDArray[np.uint8]], path: Path) -> None:
    """Write pictures by class; a class may have any name, so it is not the name of an array."""
    arrays: dict[str, Any] = {str(n): images for n, images in enumerate(pictures.values())}
    np.savez_compressed(path, names=np.array(list(pictures), dtype=np.str_), **arrays)


def load_examples(path: Path) -> dict[str, NDArray[np.uint8]]:
    """Read what `save_examples` wrote."""
    with np.load(path) as kept:
        return {str(name): kept[str(number)] for number, name in enumerate(kept["names"])}


def _is_image(sample: NDArray[Any]) -> bool:
    return sample.dtype == np.uint8 and sample.ndim == 3 and sample.shape[-1] in (1, 3)
