"""Arrays in and out by file: mapped where they can be, whole or not at all."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .faults import UsageFault, listed

if TYPE_CHECKING:  # numpy 1.21, which JetPack 6 has, cannot subscript its arrays
    from .runtimes.session import Port

    Array = np.ndarray[Any, Any]
    Arrays = dict[str, Array]

_EPOCH = (1980, 1, 1, 0, 0, 0)


def open_arrays(source: str | Mapping[str, str]) -> Arrays:
    """Open arrays by name.

    Args:
        source: A ``.npz`` file (read whole), or names with ``.npy`` files (mapped, so that
            memory stays bounded whatever their size).
    """
    if isinstance(source, str):
        with np.load(source, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    return {name: np.load(path, mmap_mode="r") for name, path in source.items()}


def write_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write a ``.npz`` that appears complete or not at all; any name is allowed.

    ``np.savez`` takes names as keyword arguments and so refuses ``file``; its member dates
    make equal arrays unequal files.
    """
    partial = path.with_name(path.name + ".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            with archive.open(member, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asanyarray(array), allow_pickle=False)
    partial.replace(path)


def check_feeds(ports: Sequence[Port], feeds: Mapping[str, Array]) -> int:
    """Check that `feeds` fit the inputs of a session; return the number of samples.

    Runtimes disagree: one refuses a float64 array, another casts it in silence. So the agent
    checks names, dtypes and every dimension but the first, which counts samples.
    """
    wanted = {port.name for port in ports}
    if set(feeds) != wanted:
        raise UsageFault(f"inputs are {listed(feeds)}; the model takes {listed(wanted)}")
    for port in ports:
        _check_feed(port, feeds[port.name])
    counts = {name: array.shape[0] for name, array in feeds.items()}
    if len(set(counts.values())) > 1:
        raise UsageFault(f"inputs differ in their number of samples: {counts}")
    samples = next(iter(counts.values()), 0)
    if samples == 0:
        raise UsageFault("there is no sample to run")
    return samples


def _check_feed(port: Port, array: Array) -> None:
    if str(array.dtype) != port.dtype:
        raise UsageFault(f"input {port.name!r} is {array.dtype}; the model takes {port.dtype}")
    fits = len(array.shape) == len(port.shape) >= 1 and all(
        want in (None, found) for found, want in zip(array.shape[1:], port.shape[1:], strict=True)
    )
    if not fits:
        raise UsageFault(
            f"input {port.name!r} has shape {list(array.shape)}; the model takes "
            f"{['?' if size is None else size for size in port.shape]}, "
            "where the first axis counts samples"
        )
