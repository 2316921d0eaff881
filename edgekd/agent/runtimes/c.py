"""C libraries that edgekd's firmware generator wrote: compiled here, called through ctypes.

The main file is ``firmware.json``; sources lie in ``src`` and ``include`` beside it. What is run is
the C that a microcontroller runs. Ports are float32: what the header's helpers do is done here,
so that an application's numbers go in and come out.
"""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..faults import SetupFault, UsageFault
from .options import Option, read_options
from .session import Port, Session, Step

if TYPE_CHECKING:
    from .session import Array

OPTIONS = {"threads": Option(int, 1)}
COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-std=c99", "-O2", "-fPIC", "-shared")
_LIMIT_S = 300
_COLUMNS = ["name", "symbol", "shape", "dtype", "scale", "zero_point"]


def open_session(model: Path, options: Mapping[str, Any]) -> Session:
    """Compile the library whose card is `model` and load it."""
    return CSession(model, read_options(options, OPTIONS))


class CSession(Session):
    """A generated library; one sample a call, in the caller's thread."""

    def __init__(self, model: Path, options: Mapping[str, Any]) -> None:
        start = time.perf_counter()
        card = read_card(model)
        self._in, self._out = card["inputs"], card["outputs"]
        self.inputs = [_port(row) for row in self._in]
        self.outputs = [_port(row) for row in self._out]
        with tempfile.TemporaryDirectory(prefix="edgekd-c-") as name:
            # Once loaded, the file is not needed.
            library, self.version = compile_library(model.parent, Path(name))
            self._invoke = getattr(ctypes.CDLL(str(library)), f"{card['prefix']}_invoke")
        self._arena = np.zeros(card["arena_bytes"] // 4 + 1, np.int32)
        self.effective = {"threads": 1, "asked_threads": options["threads"], "abi": card["abi"]}
        self.load_s = time.perf_counter() - start

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return float32 outputs for a batch, one sample after another."""
        integers = [quantize(feeds[row["name"]], row) for row in self._in]
        samples = len(integers[0])
        made = [np.zeros((samples, *row["shape"][1:]), row["dtype"]) for row in self._out]
        for index in range(samples):
            self._call([array[index] for array in (*integers, *made)])
        return {
            row["name"]: (row["scale"] * (values.astype(np.float32) - row["zero_point"])).astype(
                np.float32
            )
            for row, values in zip(self._out, made, strict=True)
        }

    def bind(self, feeds: Mapping[str, Array]) -> Step:
        """Return a call on integers that are ready: what the device computes, and no more."""
        given = [quantize(feeds[row["name"]], row)[0] for row in self._in]
        made = [np.zeros(row["shape"], row["dtype"]) for row in self._out]
        return lambda: self._call([*given, *made])

    def _call(self, arrays: list[Array]) -> None:
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (self._arena, *arrays)]
        code = self._invoke(*pointers)
        if code:
            raise UsageFault(f"the library returned error {code}")


def read_card(model: Path) -> dict[str, Any]:
    """Read ``firmware.json``.

    Raises:
        UsageFault: It is something else.
    """
    try:
        card: dict[str, Any] = json.loads(model.read_text(encoding="utf-8"))
        rows = [*card["inputs"], *card["outputs"]]
        complete = all(column in row for row in rows for column in _COLUMNS)
        if not complete or not {"prefix", "arena_bytes", "abi"} <= set(card):
            raise KeyError("a key")
    except (ValueError, KeyError, TypeError) as error:
        raise UsageFault(f"{model.name} describes no C library: {error}") from error
    return card


def compile_library(folder: Path, out: Path) -> tuple[Path, str]:
    """Compile ``src/*.c`` and return the shared library and the compiler's own name.

    Raises:
        SetupFault: There is no C compiler.
        UsageFault: It refused the sources.
    """
    name = next((name for name in COMPILERS if shutil.which(name)), None)
    if name is None:
        raise SetupFault("there is no C compiler here", hint="apt-get install gcc libc6-dev")
    sources = sorted(str(path) for path in (folder / "src").glob("*.c"))
    library = out / "library.so"
    command = [name, *FLAGS, "-I", str(folder / "include"), *sources, "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    if done.returncode:
        raise UsageFault(f"{name} refused the sources: {done.stderr.strip()[:500]}")
    asked = subprocess.run([name, "--version"], capture_output=True, text=True, check=False)
    return library, (asked.stdout.splitlines() or [name])[0]


def quantize(values: Array, row: Mapping[str, Any]) -> Array:
    """Bring float32 values to a port's integers; halves away from zero, outliers saturate."""
    limits = np.iinfo(row["dtype"])
    steps = np.asarray(values, np.float32) / np.float32(row["scale"])
    rounded = np.sign(steps) * np.floor(np.abs(steps) + np.float32(0.5)) + row["zero_point"]
    kept = np.clip(np.nan_to_num(rounded, nan=limits.min), limits.min, limits.max)
    return np.ascontiguousarray(kept.astype(row["dtype"]))


def _port(row: Mapping[str, Any]) -> Port:
    return Port(row["name"], (None, *row["shape"][1:]), "float32")
