"""From a raw sample to what the exported graph takes (numpy only: verify and profile use it)."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


def prepare(raw: NDArray[Any], contract: Mapping[str, Any]) -> NDArray[Any]:
    """Apply the input contract of a manifest.

    Args:
        raw: uint8 images (batch, H, W, C), or float samples (batch, …) which pass unchanged but
            for their ``channels``.
        contract: ``form``, ``mean``, ``std`` and ``channels`` as in `edgekd.spec.Input`.
    """
    if contract.get("channels") is not None:
        raw = raw.take(contract["channels"], axis=-1 if raw.dtype == np.uint8 else 1)
    if raw.dtype != np.uint8:
        return np.ascontiguousarray(raw, dtype=np.float32)
    if contract.get("form") == "uint8_nhwc":
        return np.ascontiguousarray(raw)
    images = np.ascontiguousarray(raw.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)
    if contract.get("mean") is None:
        return images * np.float32(255)
    shape = (1, -1, 1, 1)
    mean = np.asarray(contract["mean"], np.float32).reshape(shape)
    std = np.asarray(contract["std"], np.float32).reshape(shape)
    return np.ascontiguousarray((images - mean) / std)


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays as ``.npz``."""
    keywords: dict[str, Any] = dict(arrays)
    np.savez(path, **keywords)


class Rows:
    """An array that `save_arrays` wrote, read a few rows at a time: memory holds those alone.

    The file is mapped anew for every look: pages of a map that stays open count as memory.

    Attributes:
        shape: Of the whole array.
        dtype: Of its values.

    Args:
        path: The ``.npz`` file.
        name: Which of its arrays.
    """

    def __init__(self, path: Path, name: str) -> None:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
            version = np.lib.format.read_magic(member)
            read = np.lib.format.read_array_header_1_0
            if version != (1, 0):
                read = np.lib.format.read_array_header_2_0
            self.shape, fortran, self.dtype = read(member)
            start, header = archive.getinfo(f"{name}.npy").header_offset, member.tell()
        with path.open("rb") as file:
            # A member's own header is 30 bytes, its name, and fields that only it has.
            file.seek(start + 26)
            sizes = int.from_bytes(file.read(2), "little") + int.from_bytes(file.read(2), "little")
        self._file, self._offset = path, start + 30 + sizes + header
        self._order: Literal["C", "F"] = "F" if fortran else "C"

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        """Return a copy of some rows."""
        whole = np.memmap(self._file, self.dtype, "r", self._offset, self.shape, order=self._order)
        return np.array(whole[rows])


def open_rows(path: Path) -> dict[str, Rows]:
    """Open what `save_arrays` wrote without reading it."""
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
    return {name: Rows(path, name) for name in names}
