"""The embedded few-shot set "icons": what a camera or a tent looks like to many designers."""

from __future__ import annotations

import json
import lzma
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.data.base import SPLITS, Arrays, Images, Splits, splits_of
from edgekd.errors import DataError

__all__ = ["icons", "sources"]

FOLDER = Path(__file__).parent
FILE = FOLDER / "icons.npz"
LICENCES = FOLDER / "ICONS_LICENSES.md"
TEXTS = FOLDER / "licences"

NOTE = (
    "Icons are drawings, not photographs: a number measured on them ranks methods and is not "
    "comparable with MiniImageNet."
)


def icons(*, size: int = 64, channels: int = 3, classes: int = 0) -> Splits:
    """Load the embedded icons: white drawings on black, other concepts in each split.

    A class is an icon's name, a sample is one icon set's drawing of it; redrawn copies within a
    class were removed (pixel cosine above 0.93). `edgekd.data.build_icons` makes the file.

    Args:
        size: Height and width; stored at 64.
        channels: 3 (grey repeated) or 1.
        classes: At most so many classes a split, spread evenly over all; 0 for all.
    """
    stored = _stored()
    source = Arrays(_unpacked())
    side, labels = stored["split"], stored["labels"].astype(np.int64)
    everything = Images(source, labels, tuple(stored["classes"].tolist()), size, channels)
    parts = {
        name: everything.subset(np.flatnonzero(np.isin(labels, chosen)), chosen)
        for name, chosen in (
            (name, _some(np.flatnonzero(side == number).tolist(), classes))
            for number, name in enumerate(SPLITS)
        )
    }
    return splits_of(
        parts,
        source="embedded icons",
        files=[FILE],
        note=NOTE,
        sets=len(stored["sources"]),
        notices=[str(path) for path in (LICENCES, *sorted(TEXTS.glob("*.txt")))],
    )


def _some(classes: list[int], limit: int) -> list[int]:
    if not limit or len(classes) <= limit:
        return classes
    places = np.linspace(0, len(classes) - 1, limit).astype(np.int64)
    return [classes[place] for place in places]


def sources() -> dict[str, dict[str, Any]]:
    """Return name, author, licence and address of every icon set behind the images."""
    table: dict[str, dict[str, Any]] = json.loads(
        (FOLDER / "icons_sources.json").read_text("utf-8")
    )
    return table


@lru_cache(maxsize=1)
def _stored() -> dict[str, NDArray[Any]]:
    try:
        with FILE.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, lzma.LZMAError) as error:
        raise DataError(
            f"the embedded icons cannot be read: {error}", at=str(FILE), hint="reinstall edgekd"
        ) from error


@lru_cache(maxsize=1)
def _unpacked() -> NDArray[np.uint8]:
    """Return all pixels as uint8 ``[N, 64, 64]``, 255 for full ink."""
    packed = _stored()["pixels"]
    pixels = np.empty((*packed.shape[:2], packed.shape[2] * 2), np.uint8)
    pixels[..., 0::2] = packed >> 4
    pixels[..., 1::2] = packed & 15
    pixels *= 17
    pixels.setflags(write=False)
    return pixels
