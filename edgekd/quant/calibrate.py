"""Which samples calibrate a quantiser, and whether they can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgekd.errors import DataError


def calibration_indices(labels: ArrayLike, count: int, seed: int) -> NDArray[np.int64]:
    """Draw samples evenly over the classes, always the same ones for a seed.

    Every class gives one sample before any gives a second; with fewer places than classes,
    chance decides which classes are seen. Without classes (float labels) chance decides alone.

    Args:
        labels: Class of every sample, or the goals of a regression: floats (samples, …).
        count: How many to draw; all when there are fewer.
        seed: Seed of the draw.

    Returns:
        Ascending indices.
    """
    classes = np.asarray(labels)
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(classes))
    if classes.dtype.kind == "f":
        return np.sort(shuffled[: max(0, count)]).astype(np.int64)
    turn = np.empty(len(classes), np.int64)
    for value in np.unique(classes):
        mine = shuffled[classes[shuffled] == value]
        turn[mine] = np.arange(len(mine))
    order = np.lexsort((rng.random(len(classes)), turn))
    return np.sort(order[: max(0, count)]).astype(np.int64)


def check_calibration(
    feeds: Mapping[str, NDArray[Any]], io_inputs: Sequence[Mapping[str, Any]]
) -> None:
    """Refuse samples that would calibrate a quantiser wrongly.

    Args:
        feeds: Samples by input name, axis 0 counts them.
        io_inputs: ``name``, ``shape`` and ``dtype`` of every input of the graph. A size that is
            None or a name is free; a first one with a name (``batch``) is the batch axis, else
            the shape is that of one sample.

    Raises:
        DataError: An input has no samples, or samples of a wrong shape or type, or NaN.
    """
    for port in io_inputs:
        name = str(port["name"])
        if name not in feeds:
            raise DataError(
                f"no calibration samples for input {name!r}; found {sorted(feeds) or 'none'}"
            )
        _check_one(name, feeds[name], port)
    if len({len(feeds[str(port["name"])]) for port in io_inputs}) > 1:
        counts = {str(port["name"]): len(feeds[str(port["name"])]) for port in io_inputs}
        raise DataError(f"inputs have different numbers of calibration samples: {counts}")


def _check_one(name: str, values: NDArray[Any], port: Mapping[str, Any]) -> None:
    at = f"calibration samples of input {name!r}"
    if values.ndim == 0 or len(values) == 0:
        raise DataError("there are no calibration samples", at=at)
    wanted, found = _sample_shape(port["shape"]), values.shape[1:]
    if len(found) != len(wanted) or any(
        want not in (None, have) for want, have in zip(wanted, found, strict=True)
    ):
        raise DataError(f"calibration samples have shape {found}, wanted {wanted}", at=at)
    if "dtype" in port and values.dtype != np.dtype(port["dtype"]):
        raise DataError(f"calibration samples are {values.dtype}, wanted {port['dtype']}", at=at)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = int((~np.isfinite(values.reshape(len(values), -1)).all(axis=1)).sum())
        raise DataError(
            f"{bad} of {len(values)} calibration samples hold NaN or infinite values", at=at
        )


def _sample_shape(shape: Sequence[int | str | None]) -> tuple[int | None, ...]:
    """Return the shape of one sample; None for a free size."""
    named = bool(shape) and isinstance(shape[0], str)
    sizes = shape[1:] if named else shape
    return tuple(size if isinstance(size, int) else None for size in sizes)
