"""A runtime that computes nothing: zeros of the shapes that a small JSON file names.

It shows what the harness itself costs, and it can crash on purpose, so that what the host does
about crashes is tested with real ones.

    {"inputs": [{"name": "x", "shape": [null, 3], "dtype": "float32"}],
     "outputs": [{"name": "y", "shape": [null, 2], "dtype": "float32"}],
     "crash": "segv | exit | hang | stuck", "when": "load | run", "noise": "text for descriptor 1",
     "fill": 0.0}
"""

from __future__ import annotations

import ctypes
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..faults import UsageFault
from .options import Option, read_options
from .session import Port, Session, Step

if TYPE_CHECKING:
    from .session import Array

OPTIONS = {"threads": Option(int, 1)}
EXIT_CODE = 7


def open_session(model: Path, options: Mapping[str, Any]) -> Session:
    """Open a JSON file of shapes."""
    return NullSession(model, read_options(options, OPTIONS))


class NullSession(Session):
    """Zeros, or a crash."""

    version = "0"

    def __init__(self, model: Path, options: Mapping[str, Any]) -> None:
        start = time.perf_counter()
        try:
            self._spec = json.loads(model.read_text())
        except ValueError as error:
            raise UsageFault(f"{model.name} is not JSON: {error}") from error
        self.inputs = [_port(port) for port in self._spec["inputs"]]
        self.outputs = [_port(port) for port in self._spec["outputs"]]
        self.effective = {"threads": options["threads"]}
        os.write(1, self._spec.get("noise", "").encode())
        self._crash("load")
        self.load_s = time.perf_counter() - start

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the fill value in the shapes of the outputs."""
        self._crash("run")
        batch = len(next(iter(feeds.values())))
        return {port.name: self._filled(port, batch) for port in self.outputs}

    def bind(self, feeds: Mapping[str, Array]) -> Step:
        """Return a call that does nothing: what is timed is the harness."""
        return lambda: self._crash("run")

    def _filled(self, port: Port, batch: int) -> Array:
        shape = [batch if size is None else size for size in port.shape]
        return np.full(shape, self._spec.get("fill", 0), port.dtype)

    def _crash(self, moment: str) -> None:
        if "crash" in self._spec and self._spec.get("when", "load") == moment:
            CRASHES[self._spec["crash"]]()


def _port(spec: Mapping[str, Any]) -> Port:
    return Port(spec["name"], tuple(spec["shape"]), str(np.dtype(spec["dtype"])))


def _segv() -> None:
    ctypes.string_at(0)


def _exit() -> None:
    os._exit(EXIT_CODE)


def _hang() -> None:
    while True:
        time.sleep(60)


def _stuck() -> None:
    """Hang in native code that keeps Python's lock: no other thread runs."""
    while True:
        ctypes.PyDLL(None).pause()


CRASHES = {"segv": _segv, "exit": _exit, "hang": _hang, "stuck": _stuck}
