"""A user's samples without labels: a folder of arrays or pictures, or one file of arrays.

``.npy`` files hold one sample each with its batch axis of 1, or many in one file; ``.npz`` files
hold an array named like the network's input (or a single one). Pictures are resized, scaled to
0–1, then normalised, channels first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.data.base import Splits
from edgekd.errors import DataError
from edgekd.extras import missing

__all__ = ["Samples", "load", "read_samples"]

ARRAYS = (".npy", ".npz")
PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
HELD_OUT = 4
"""Every so many-th sample judges; the others calibrate."""
FEW = 8
"""With fewer samples, all of them do both."""


@dataclass(frozen=True, eq=False)
class Samples:
    """A map-style dataset of arrays; every label is 0.

    Attributes:
        values: (samples, …) as the network takes them.
    """

    values: NDArray[Any]

    @property
    def labels(self) -> NDArray[np.int64]:
        """One class: there are no labels."""
        return np.zeros(len(self.values), np.int64)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int, /) -> tuple[NDArray[Any], int]:
        return self.values[index], 0

    def take(self, indices: Any) -> NDArray[Any]:
        """Return stacked samples."""
        chosen: NDArray[Any] = self.values[np.asarray(indices)]
        return chosen


def load(
    path: str,
    name: str = "input",
    size: Sequence[int] = (),
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> Splits:
    """Read samples and divide them: every fourth judges, the others calibrate.

    Args:
        path: Folder or file.
        name: Name of the network's input, for ``.npz``.
        size: Height and width of pictures.
        mean: Per channel of pictures, of values from 0 to 1.
        std: Per channel.
    """
    values = read_samples(Path(path), name, size, mean, std)
    judging = np.arange(len(values)) % HELD_OUT == HELD_OUT - 1
    note = ""
    if len(values) < FEW:
        judging, note = np.ones(len(values), bool), "so few samples that all calibrate and judge"
    held = Samples(np.ascontiguousarray(values[judging]))
    used = Samples(np.ascontiguousarray(values[~judging] if not note else values))
    facts = {"source": Path(path).name, "calibrate": len(used), "judge": len(held)}
    return Splits(used, held, held, note, facts)


def read_samples(
    path: Path,
    name: str = "input",
    size: Sequence[int] = (),
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> NDArray[Any]:
    """Read all samples: (samples, …).

    Raises:
        DataError: There are none, they have different shapes, or hold NaN; the file is named.
    """
    if not path.exists():
        raise DataError("there is no such file or folder of samples", at=str(path))
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    arrays = [p for p in files if p.suffix.lower() in ARRAYS]
    pictures = [p for p in files if p.suffix.lower() in PICTURES]
    if not arrays and not pictures:
        raise DataError(
            "there are no samples",
            at=str(path),
            hint=f"arrays ({', '.join(ARRAYS)}) or pictures ({', '.join(PICTURES)})",
        )
    if arrays and pictures:
        raise DataError("there are arrays and pictures; give one kind", at=str(path))
    if pictures:
        return _pictures(pictures, size, mean, std)
    parts = [_array(p, name) for p in arrays]
    for part, file in zip(parts, arrays, strict=True):
        _check(part, parts[0], file, arrays[0])
    return np.concatenate(parts)


def _array(path: Path, name: str) -> NDArray[Any]:
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"this is no readable array: {error}", at=str(path)) from error
    if isinstance(found, np.ndarray):
        return _single(found)
    named: Mapping[str, NDArray[Any]] = dict(found)
    if name not in named and len(named) != 1:
        raise DataError(
            f"the network's input is called {name!r}; this file has {sorted(named) or 'nothing'}",
            at=str(path),
        )
    return _single(named[name] if name in named else next(iter(named.values())))


def _single(values: NDArray[Any]) -> NDArray[Any]:
    """Doubles, which numpy makes by itself, become the floats that networks take."""
    return values.astype(np.float32) if values.dtype == np.float64 else values


def _check(values: NDArray[Any], first: NDArray[Any], file: Path, other: Path) -> None:
    if values.ndim < 2 or not len(values):
        raise DataError(
            f"an array of shape {values.shape} holds no samples",
            at=str(file),
            hint="axis 0 counts the samples: one sample of shape S is an array (1, *S)",
        )
    if values.shape[1:] != first.shape[1:] or values.dtype != first.dtype:
        raise DataError(
            f"samples of shape {values.shape[1:]} ({values.dtype}); {other.name} has"
            f" {first.shape[1:]} ({first.dtype})",
            at=str(file),
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = int((~np.isfinite(values.reshape(len(values), -1)).all(axis=1)).sum())
        raise DataError(f"{bad} of {len(values)} samples hold NaN or infinite values", at=str(file))


def _pictures(
    files: Sequence[Path], size: Sequence[int], mean: Sequence[float], std: Sequence[float]
) -> NDArray[np.float32]:
    if len(size) != 2:
        raise DataError(
            "pictures need a size, and the network does not tell one",
            at=str(files[0].parent),
            hint="--size HEIGHT WIDTH",
        )
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise missing("pillow", "reading pictures") from error
    rows = []
    for file in files:
        try:
            with Image.open(file) as picture:
                whole = ImageOps.exif_transpose(picture).convert("RGB")
                small = whole.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        except OSError as error:
            raise DataError(f"this is no readable picture: {error}", at=str(file)) from error
        rows.append(np.asarray(small, np.float32).transpose(2, 0, 1) / 255)
    shape = (1, -1, 1, 1)
    centre = np.asarray(mean or (0.0,), np.float32).reshape(shape)
    width = np.asarray(std or (1.0,), np.float32).reshape(shape)
    return np.ascontiguousarray((np.stack(rows) - centre) / width)
