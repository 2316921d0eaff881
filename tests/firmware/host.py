"""The generated C on this computer, with all warnings; called with integers through ctypes."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import SetupError, StageError, UsageError
from edgekd.firmware.emit import Port

__all__ = ["WARNINGS", "HostLibrary", "compile_shared", "compiler"]

WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion", "-Wshadow")
_LIMIT_S = 300


def compiler() -> str:
    """Return the C compiler of this computer.

    Raises:
        SetupError: There is none.
    """
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return name
    raise SetupError("there is no C compiler", hint="apt-get install gcc")


def compile_shared(folder: Path, out: Path, flags: Sequence[str] = ("-O2",)) -> Path:
    """Compile the library's sources into a shared library.

    Args:
        folder: Holds ``include`` and ``src``.
        out: File to write.
        flags: Further flags of the compiler.

    Raises:
        SetupError: There is no compiler.
        StageError: It refused the sources.
    """
    sources = sorted(str(path) for path in (folder / "src").glob("*.c"))
    include = ["-I", str(folder / "include"), "-I", str(folder / "src")]
    command = [compiler(), *WARNINGS, *flags, "-fPIC", "-shared", *include, *sources]
    done = subprocess.run(
        [*command, "-o", str(out)], capture_output=True, text=True, timeout=_LIMIT_S, check=False
    )
    if done.returncode:
        raise StageError(f"the compiler refused the generated C:\n{done.stderr[:2000]}")
    return out


class HostLibrary:
    """A compiled library; call it with integers.

    Args:
        path: The shared library.
        prefix: Of its symbols.
        inputs: Its inputs.
        outputs: Its outputs.
        arena: Bytes of working memory.
    """

    def __init__(
        self, path: Path, prefix: str, inputs: Sequence[Port], outputs: Sequence[Port], arena: int
    ) -> None:
        self.inputs, self.outputs = list(inputs), list(outputs)
        self._invoke = getattr(ctypes.CDLL(str(path)), f"{prefix}_invoke")
        self._arena = np.zeros(arena // 4 + 1, np.int32)

    def __call__(self, values: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Run one sample.

        Args:
            values: Integers of the inputs' types.

        Raises:
            UsageError: An input has the wrong type or size.
            StageError: The library returned an error.
        """
        given = [
            self._checked(port, value) for port, value in zip(self.inputs, values, strict=True)
        ]
        made = [np.zeros(port.value.shape, port.value.dtype) for port in self.outputs]
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in [self._arena, *given, *made]]
        code = self._invoke(*pointers)
        if code:
            raise StageError(f"the generated C returned error {code}")
        return made

    def _checked(self, port: Port, value: NDArray[Any]) -> NDArray[Any]:
        if value.dtype != np.dtype(port.value.dtype) or value.size != port.value.count:
            raise UsageError(
                f"input {port.name!r} is {value.dtype} of {value.size}, "
                f"wanted {port.value.dtype} of {port.value.count}"
            )
        return np.ascontiguousarray(value)
