"""Which operators an ONNX file holds, read without the ``onnx`` package.

A lab host has none, and verify must still see whether a network that is called int8 quantises
anything. Only the names of operators are read; weights are skipped, so large files cost nothing.
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

__all__ = ["operators", "quantises"]

_GRAPH, _NODE, _OP_TYPE = 7, 1, 4
"""Field numbers of ``ModelProto.graph``, ``GraphProto.node`` and ``NodeProto.op_type``."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_QUANTISED = ("QLinear", "QuantizeLinear", "DequantizeLinear", "DynamicQuantize", "Integer")


def operators(path: Path) -> dict[str, int]:
    """Count the operators of the main graph by type.

    Raises:
        ValueError: It is no ONNX file.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        found: Counter[str] = Counter()
        for start, end in _fields(raw, 0, len(raw), _GRAPH):
            for first, last in _fields(raw, start, end, _NODE):
                for a, b in _fields(raw, first, last, _OP_TYPE):
                    found[raw[a:b].decode("utf-8", "replace")] += 1
    return dict(sorted(found.items()))


def quantises(found: dict[str, int]) -> bool:
    """Tell whether any of the operators reads or makes integers of a quantised network."""
    return any(part in name for name in found for part in _QUANTISED)


def _fields(raw: mmap.mmap, place: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Yield where the values of one field lie, in a message between two places."""
    while place < end:
        key, place = _varint(raw, place, end)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            _, place = _varint(raw, place, end)
        elif kind == _BYTES:
            size, place = _varint(raw, place, end)
            if place + size > end:
                raise ValueError("a field runs past the end of the file")
            if number == wanted:
                yield place, place + size
            place += size
        elif kind in (_FIXED64, _FIXED32):
            place += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError("not the format of an ONNX file")


def _varint(raw: mmap.mmap, place: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while place < end and shift < 64:
        byte = raw[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    raise ValueError("a number runs past the end of the file")
