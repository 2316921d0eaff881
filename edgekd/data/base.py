"""The vocabulary of data: a map-style dataset, three of them as splits, and what they rest on.

A dataset of images is `Images`: labels and class names beside a `Source` that knows how to read
pixels. Reading is lazy, so that counting, checking and splitting never decode a picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgekd.errors import DataError
from edgekd.extras import missing

__all__ = [
    "SPLITS",
    "Arrays",
    "Dataset",
    "Files",
    "Images",
    "Joined",
    "Source",
    "Splits",
    "check_episodes",
    "check_splits",
    "labels_of",
    "problems",
    "resize",
    "same_classes",
    "splits_of",
]

SPLITS = ("train", "val", "test")
BLOCK = 256
"""Images resized at a time, which bounds the memory of a large batch."""

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]
Rows = NDArray[np.int64]


@runtime_checkable
class Dataset(Protocol):
    """What edgekd needs of data: a length, and ``[i]`` giving a sample and its label.

    A ``torch.utils.data.Dataset`` that returns ``(x, y)`` fits as it is. Three attributes are
    used when there: ``labels`` (int, ``[N]``; without it every sample is read once, see
    `labels_of`), ``classes`` (names), and ``take(indices)`` (stacked samples, faster than one
    after the other). An image is uint8 ``[H, W, C]``; a sample of another type passes unchanged.
    """

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def __getitem__(self, index: int, /) -> tuple[Any, Any]:
        """Return a sample and its label."""
        ...


class Source(Protocol):
    """Where pixels come from."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def read(self, rows: Rows) -> Sequence[Pixels] | Pixels:
        """Return images, each uint8 ``[H, W, C]`` of its own size."""
        ...

    def digests(self, rows: Rows) -> Iterator[str]:
        """Yield a digest of the content of each image, the same for equal images."""
        ...


@dataclass(frozen=True, eq=False)
class Arrays:
    """Pixels in memory, or mapped to it (``numpy.load(..., mmap_mode="r")``).

    Attributes:
        pixels: uint8 ``[N, H, W, C]``, or ``[N, H, W]`` for grey.
    """

    pixels: Pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, rows: Rows) -> Pixels:
        """See `Source`."""
        chosen = np.asarray(self.pixels[rows])
        return chosen if chosen.ndim == 4 else chosen[..., None]

    def digests(self, rows: Rows) -> Iterator[str]:
        """See `Source`."""
        return (hashlib.sha256(self.pixels[row].tobytes()).hexdigest() for row in rows)


@dataclass(frozen=True)
class Files:
    """Image files, decoded when read; EXIF orientation is applied.

    Attributes:
        paths: One file an image.
    """

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, rows: Rows) -> list[Pixels]:
        """See `Source`; a file that cannot be decoded is named."""
        return [_decode(self.paths[row]) for row in rows]

    def digests(self, rows: Rows) -> Iterator[str]:
        """See `Source`."""
        return (hashlib.sha256(_bytes(self.paths[row])).hexdigest() for row in rows)


@dataclass(frozen=True)
class Joined:
    """Sources one after the other.

    Attributes:
        parts: The sources.
    """

    parts: tuple[Source, ...]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def read(self, rows: Rows) -> list[Pixels]:
        """See `Source`."""
        found: dict[int, Pixels] = {}
        for part, inside, places in self._by_part(rows):
            found |= dict(zip(places.tolist(), part.read(inside), strict=True))
        return [found[place] for place in range(len(rows))]

    def digests(self, rows: Rows) -> Iterator[str]:
        """See `Source`."""
        found: dict[int, str] = {}
        for part, inside, places in self._by_part(rows):
            found |= dict(zip(places.tolist(), part.digests(inside), strict=True))
        return (found[place] for place in range(len(rows)))

    def _by_part(self, rows: Rows) -> Iterator[tuple[Source, Rows, Rows]]:
        """Yield each part, its rows, and their places among those asked for."""
        ends = np.cumsum([len(part) for part in self.parts])
        which = np.searchsorted(ends, rows, side="right")
        for number, part in enumerate(self.parts):
            places = np.flatnonzero(which == number)
            yield part, rows[places] - (ends[number] - len(part)), places


@dataclass(frozen=True, eq=False)
class Images:
    """A map-style dataset of images of one size.

    Images of another size are cut to their central square and resized; grey becomes colour by
    repetition, colour becomes grey by luminance (ITU-R 601).

    Attributes:
        source: Where the pixels come from.
        labels: Class index of each image, int64 ``[N]``.
        classes: Class names; ``labels`` index this tuple.
        size: Height and width of what is returned.
        channels: 3 or 1.
        rows: Which images of the source, int64 ``[N]``; None for all in order.
    """

    source: Source
    labels: Labels
    classes: tuple[str, ...]
    size: int
    channels: int = 3
    rows: Rows | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> tuple[Pixels, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} images")
        return self.take([index])[0], int(self.labels[index])

    def take(self, indices: ArrayLike) -> Pixels:
        """Return images as uint8 ``[B, H, W, C]``."""
        images = self.source.read(self._source_rows(indices))
        if isinstance(images, np.ndarray):
            return _fit(images, self.size, self.channels)
        fitted = [_fit(image[None], self.size, self.channels)[0] for image in images]
        shape = (0, self.size, self.size, self.channels)
        return np.stack(fitted) if fitted else np.empty(shape, np.uint8)

    def digests(self) -> list[str]:
        """Return a digest of the content of each image."""
        return list(self.source.digests(self._source_rows(np.arange(len(self)))))

    def subset(self, indices: ArrayLike, classes: Sequence[int] | None = None) -> Images:
        """Return the given images.

        Args:
            indices: Which ones.
            classes: Classes that stay, renumbered in this order; None keeps all.
        """
        index = np.asarray(indices, dtype=np.int64)
        rows, labels = self._source_rows(index), self.labels[index]
        if classes is None:
            return replace(self, labels=labels, rows=rows)
        place = np.full(len(self.classes), -1, np.int64)
        place[list(classes)] = np.arange(len(classes))
        names = tuple(self.classes[c] for c in classes)
        return replace(self, labels=place[labels], rows=rows, classes=names)

    def _source_rows(self, indices: ArrayLike) -> Rows:
        index = np.asarray(indices, dtype=np.int64)
        return index if self.rows is None else self.rows[index]


@dataclass(frozen=True, eq=False)
class Splits:
    """Data ready for a recipe.

    Few-shot data has other classes in each split, and labels that count from 0 in each; data for
    classification has the same classes in all three.

    Attributes:
        train: Any map-style dataset.
        val: Selection uses this one.
        test: Touched once.
        note: What a reader of the results must know, such as a leak; empty when nothing.
        facts: Small JSON: ``source``, ``classes`` and ``images`` a split, ``files`` (paths read,
            folders allowed).
    """

    train: Dataset
    val: Dataset
    test: Dataset
    note: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[tuple[str, Dataset]]:
        """Yield name and dataset of each split."""
        return ((name, getattr(self, name)) for name in SPLITS)


def splits_of(
    parts: Mapping[str, Images],
    *,
    source: str,
    files: Sequence[Path],
    note: str = "",
    **facts: Any,
) -> Splits:
    """Make `Splits` of three sets of images, with the facts that all loaders give.

    Args:
        parts: A dataset for each of ``train``, ``val`` and ``test``.
        source: What the data is, in a few words.
        files: Paths read.
        note: See `Splits`.
        facts: More facts.
    """
    counted = {
        "source": source,
        "classes": {name: len(parts[name].classes) for name in SPLITS},
        "images": {name: len(parts[name]) for name in SPLITS},
        "files": [str(path) for path in files],
        **facts,
    }
    return Splits(parts["train"], parts["val"], parts["test"], note, counted)


# --- checks ------------------------------------------------------------------------------------


def labels_of(dataset: Dataset) -> Labels:
    """Return the labels of any dataset, reading every sample when it does not list them."""
    labels = getattr(dataset, "labels", None)
    if labels is None:
        labels = [int(dataset[index][1]) for index in range(len(dataset))]
    return np.asarray(labels, dtype=np.int64)


def check_episodes(
    labels: ArrayLike,
    classes: Sequence[str] | None,
    way: int,
    shot: int,
    query: int,
    *,
    split: str = "test",
) -> None:
    """Check that episodes can be drawn.

    Args:
        labels: Class index of each sample.
        classes: Class names; None names a class by its index.
        way: Classes an episode.
        shot: Labelled samples a class.
        query: Samples a class that are asked about.
        split: Name of the split, for the message.

    Raises:
        DataError: Too few classes, or a class with too few samples; all such classes are counted
            and the smallest one is named.
    """
    values = np.asarray(labels, dtype=np.int64)
    counts = np.bincount(values, minlength=len(classes or ()))
    used = np.flatnonzero(counts) if classes is None else np.arange(len(counts))
    if len(used) < way:
        raise DataError(
            f"{way}-way episodes need {way} classes, found {len(used)}",
            at=f"split {split}",
            hint=f"lower the way to {len(used)}, or add classes",
        )
    short = used[counts[used] < shot + query]
    if len(short):
        worst = int(short[np.argmin(counts[short])])
        name = classes[worst] if classes is not None else str(worst)
        raise DataError(
            f"class {name!r} has {counts[worst]} samples, wanted {shot + query} "
            f"({shot} shot + {query} query); {len(short)} classes are too small",
            at=f"split {split}",
            hint="lower shot or query, or remove the small classes",
        )


def same_classes(parts: Mapping[str, Images]) -> bool:
    """Tell whether all splits have the same classes (True) or none in common (False).

    Raises:
        DataError: Anything between the two; a shared class is named.
    """
    names = {split: set(images.classes) for split, images in parts.items()}
    shared = [
        (a, b, sorted(names[a] & names[b]))
        for a, b in (("train", "val"), ("train", "test"), ("val", "test"))
    ]
    if len({frozenset(n) for n in names.values()}) == 1:
        return True
    for a, b, common in shared:
        if common:
            raise DataError(
                f"splits {a} and {b} share {len(common)} classes but not all "
                f"(the first is {common[0]!r})",
                at=f"split {b}",
                hint="few-shot data has no class in common between splits, classification data all",
            )
    return False


def check_splits(parts: Mapping[str, Images], at: Path) -> None:
    """Check that every split holds images, and every class one at least.

    Raises:
        DataError: A split is missing or empty, or a class is.
    """
    for split in SPLITS:
        if split not in parts:
            raise DataError(
                f"split {split!r} is missing; found {', '.join(parts) or 'none'}", at=str(at)
            )
        images = parts[split]
        if not len(images):
            raise DataError(f"split {split!r} is empty", at=str(at))
        counts = np.bincount(images.labels, minlength=len(images.classes))
        if not counts.all():
            name = images.classes[int(np.argmin(counts))]
            raise DataError(f"class {name!r} of split {split!r} has no image", at=str(at))


def problems(splits: Splits) -> list[str]:
    """Read every image once; return one message for each that cannot be read."""
    found = (_problem(dataset, row) for _, dataset in splits for row in range(len(dataset)))
    return [message for message in found if message]


def _problem(dataset: Dataset, row: int) -> str:
    try:
        dataset[row]
    except DataError as error:
        return str(error)
    return ""


# --- pixels ------------------------------------------------------------------------------------


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the image: {error.strerror}", at=str(path)) from error


def _decode(path: Path) -> Pixels:
    """Decode one file to uint8 ``[H, W, 3]``, or ``[H, W, 1]`` when it is grey."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise missing("PIL", "reading image files", at=str(path)) from error
    try:
        with Image.open(path) as opened:
            upright = ImageOps.exif_transpose(opened)
            grey = upright.mode in {"1", "L"}
            pixels = np.asarray(upright.convert("L" if grey else "RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"cannot decode the image: {error}", at=str(path), hint="replace or remove the file"
        ) from error
    return pixels[..., None] if grey else pixels


def _fit(images: Pixels, size: int, channels: int) -> Pixels:
    """Cut a batch ``[B, H, W, C]`` to its central square, resize, set the channels."""
    height, width = images.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = images[:, top : top + side, left : left + side]
    return _with_channels(square if side == size else resize(square, size), channels)


def _with_channels(images: Pixels, channels: int) -> Pixels:
    have = images.shape[-1]
    if have == channels:
        return np.ascontiguousarray(images)
    if have == 1:
        return np.repeat(images, channels, axis=-1)
    weights = np.array([299, 587, 114], np.uint32)
    grey: Pixels = ((images[..., :3] @ weights + 500) // 1000).astype(np.uint8)[..., None]
    return np.repeat(grey, channels, axis=-1)


def resize(images: Pixels, size: int) -> Pixels:
    """Resize square images with a triangle filter that widens when it shrinks (no aliasing).

    Args:
        images: uint8 ``[B, S, S, C]``.
        size: New height and width.
    """
    batch, side, _, channels = images.shape
    weights = _triangle(side, size)
    made = np.empty((batch, size, size, channels), np.uint8)
    for start in range(0, batch, BLOCK):
        block = images[start : start + BLOCK].astype(np.float32)
        rows = weights @ block.reshape(len(block), side, -1)
        both = weights @ rows.reshape(len(block), size, side, channels)
        made[start : start + BLOCK] = np.clip(np.rint(both), 0, 255)
    return made


def _triangle(old: int, new: int) -> NDArray[np.float32]:
    """Return the resampling weights ``[new, old]``; every row sums to 1."""
    scale = old / new
    centres = (np.arange(new)[:, None] + 0.5) * scale
    distance = np.abs(np.arange(old)[None] + 0.5 - centres) / max(scale, 1.0)
    weights = np.clip(1.0 - distance, 0.0, None)
    normed: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return normed
