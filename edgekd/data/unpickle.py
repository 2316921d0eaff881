"""Read pickles of arrays and plain containers; refuse everything else.

A pickle is a program. This reader gives it no function but those that rebuild numpy arrays and
built-in containers, so that a hostile file is refused, by name, before anything of it runs.
"""

from __future__ import annotations

import collections
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.errors import DataError

__all__ = ["unpickle"]

_DAMAGED = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    OverflowError,
    TypeError,
    ValueError,
)


def unpickle(path: Path) -> Any:
    """Read a pickle that holds numpy arrays and built-in containers only.

    Args:
        path: The file; pickles of Python 2 are read too.

    Raises:
        DataError: The file cannot be read, is damaged, or asks for anything else.
    """
    try:
        with path.open("rb") as file:
            return _Reader(file, path).load()
    except OSError as error:
        raise DataError(f"cannot read the pickle: {error.strerror}", at=str(path)) from error
    except _DAMAGED as error:
        raise DataError(
            f"the pickle is damaged or cut short: {error}",
            at=str(path),
            hint="copy or download the file again",
        ) from error


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Stand in for ``_codecs.encode``, which Python 3 writes for bytes in old protocols."""
    if encoding.replace("-", "").lower() not in {"latin1", "iso88591"}:
        raise ValueError(f"encoding {encoding!r} in a pickle of arrays")
    return text.encode("latin1")


def _allowed() -> Mapping[tuple[str, str], Any]:
    array = np.zeros(1, np.uint8)
    numpy_parts = {
        ("multiarray", "_reconstruct"): array.__reduce__()[0],
        ("multiarray", "scalar"): np.float64(0).__reduce__()[0],
        ("numeric", "_frombuffer"): array.__reduce_ex__(5)[0],
    }
    table: dict[tuple[str, str], Any] = {
        (f"numpy.{core}.{module}", name): value
        for core in ("core", "_core")
        for (module, name), value in numpy_parts.items()
    }
    table |= {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}
    table |= {
        (module, kind.__name__): kind
        for module in ("builtins", "__builtin__")
        for kind in (list, dict, set, frozenset, tuple, range, int, float, complex, str, bytes)
    }
    table |= {("__builtin__", "xrange"): range, ("_codecs", "encode"): _encode}
    table |= {
        ("collections", kind.__name__): kind
        for kind in (collections.OrderedDict, collections.defaultdict)
    }
    return table


_ALLOWED = _allowed()


class _Reader(pickle.Unpickler):
    """An unpickler with a closed list of globals."""

    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str, /) -> Any:
        """Return an allowed global, or refuse the file."""
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise DataError(
                f"the pickle asks for {module}.{name}; only numpy arrays and built-in containers "
                "are read",
                at=str(self._path),
                hint="do not open this file with pickle either, unless you trust its maker",
            ) from None
