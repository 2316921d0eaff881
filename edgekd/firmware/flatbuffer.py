"""The few reads that a ``.tflite`` file needs of the FlatBuffers wire format.

Everything is bounds checked: a damaged file is a `VerifyError`, never a wrong value. Reading needs
no package, so that a machine that only inspects firmware needs none either.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import VerifyError

__all__ = ["Table", "root"]

Value = TypeVar("Value")


def root(buffer: bytes, identifier: bytes) -> Table:
    """Return the root table of a buffer.

    Raises:
        VerifyError: The buffer is too short or bears another identifier.
    """
    if len(buffer) < 8 or buffer[4:8] != identifier:
        found = buffer[4:8].decode("ascii", "replace")
        raise VerifyError(f"not a {identifier.decode()} file: found {found!r} at byte 4")
    return Table(buffer, _read(buffer, "<I", 0))


def _read(buffer: bytes, form: str, at: int) -> Any:
    size = struct.calcsize(form)
    if at < 0 or at + size > len(buffer):
        raise VerifyError(f"the file is cut off or damaged: byte {at} of {len(buffer)} wanted")
    return struct.unpack_from(form, buffer, at)[0]


class Table:
    """One table; fields are read by their slot, in the order of the schema."""

    def __init__(self, buffer: bytes, at: int) -> None:
        self.buffer = buffer
        self.at = at
        self._vtable = at - _read(buffer, "<i", at)
        self._fields = (_read(buffer, "<H", self._vtable) - 4) // 2

    def place(self, slot: int) -> int | None:
        """Return where the field lies; None when the file leaves it at its default."""
        if slot >= self._fields:
            return None
        offset = _read(self.buffer, "<H", self._vtable + 4 + 2 * slot)
        return self.at + offset if offset else None

    def scalar(self, slot: int, form: str, default: Any = 0) -> Any:
        """Return a number; ``form`` is a format character of `struct`."""
        place = self.place(slot)
        return default if place is None else _read(self.buffer, "<" + form, place)

    def table(self, slot: int) -> Table | None:
        """Return a nested table."""
        place = self.place(slot)
        return None if place is None else Table(self.buffer, self._follow(place))

    def text(self, slot: int) -> str:
        """Return a string; empty when absent."""
        return bytes(self.array(slot, "u1")).decode("utf-8", "replace")

    def tables(self, slot: int) -> list[Table]:
        """Return a vector of tables; empty when absent."""
        return self._vector(slot, 4, lambda at: Table(self.buffer, self._follow(at)))

    def elements(self, slot: int) -> list[int]:
        """Return where the elements of a vector of offsets lie."""
        return self._vector(slot, 4, lambda at: at)

    def array(self, slot: int, dtype: str) -> NDArray[Any]:
        """Return a vector of numbers; empty when absent."""
        kind = np.dtype(dtype).newbyteorder("<")
        place = self.place(slot)
        if place is None:
            return np.empty(0, kind)
        start = self._follow(place)
        count = _read(self.buffer, "<I", start)
        if start + 4 + count * kind.itemsize > len(self.buffer):
            raise VerifyError(f"the file is cut off or damaged: {count} elements at byte {start}")
        return np.frombuffer(self.buffer, kind, count, start + 4)

    def start(self, slot: int) -> int:
        """Return where the elements of a vector begin.

        Raises:
            VerifyError: The field is absent.
        """
        place = self.place(slot)
        if place is None:
            raise VerifyError(f"the file is damaged: a table has no field {slot}")
        return self._follow(place) + 4

    def _follow(self, place: int) -> int:
        return place + int(_read(self.buffer, "<I", place))

    def _vector(self, slot: int, stride: int, make: Callable[[int], Value]) -> list[Value]:
        place = self.place(slot)
        if place is None:
            return []
        start = self._follow(place)
        count = _read(self.buffer, "<I", start)
        _read(self.buffer, "<B", start + 3 + count * stride)
        return [make(start + 4 + index * stride) for index in range(count)]
