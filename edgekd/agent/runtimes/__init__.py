"""The runtimes the agent knows: a table from name to module, imported when first asked for.

A third party adds one with an entry point in the group ``edgekd.runtimes`` (name → module);
the module offers ``open_session(model: Path, options: Mapping) -> Session``.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .. import outside
from ..facts import version_of
from ..faults import Fault, SetupFault, UsageFault, listed
from .session import Session, adapt

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINTS = "edgekd.runtimes"
PLAYED = "tensorrt"
"""The runtime that a recording of a device stands for."""


@dataclass(frozen=True)
class Runtime:
    """A built-in runtime: its module here, and the distributions that may provide it.

    The first distribution is the one to install; no distribution means that none is needed.
    """

    module: str
    distributions: tuple[str, ...] = ()


BUILT_IN: Mapping[str, Runtime] = {
    "onnxruntime": Runtime("ort", ("onnxruntime", "onnxruntime-gpu")),
    "openvino": Runtime("ov", ("openvino",)),
    "litert": Runtime("lite", ("ai-edge-litert", "tflite-runtime")),
    "tensorrt": Runtime("trt", ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")),
    "firmware": Runtime("c"),
    "null": Runtime("null"),
}


@dataclass(frozen=True)
class Opened:
    """A session, and the seconds that the import of its runtime took."""

    session: Session
    import_s: float


def open_session(name: str, model: Path, options: Mapping[str, Any]) -> Opened:
    """Open `model` in the runtime called `name`.

    Raises:
        UsageFault: No such runtime, or a wrong option.
        SetupFault: The runtime's package is missing or does not import.
    """
    if outside.recording() is not None and name != PLAYED:
        raise SetupFault(f"a recording of a device plays {PLAYED}, not {name}")
    start = time.perf_counter()
    module = _module(name)
    imported = time.perf_counter() - start
    session = module.open_session(model, options)
    load_s = time.perf_counter() - start - imported
    version = None if name in BUILT_IN else versions().get(name)
    return Opened(adapt(session, version=version, load_s=load_s), imported)


def built_in_versions() -> dict[str, str | None]:
    """Return the installed version of each built-in runtime that is a package."""
    return {
        name: next(filter(None, map(version_of, runtime.distributions)), None)
        for name, runtime in BUILT_IN.items()
        if runtime.distributions
    } | {"tensorrt": _tensorrt()}


@cache
def _tensorrt() -> str | None:
    """Return the version of what builds engines: ``trtexec``, or the package beside a GPU."""
    import subprocess

    from .. import trtexec, trtpackage

    try:
        tool = trtexec.find()
    except (Fault, OSError, subprocess.SubprocessError):
        tool = None
    if tool is not None:
        return trtexec.shown(tool.version)
    version = next(filter(None, map(version_of, BUILT_IN["tensorrt"].distributions)), None)
    return version if version and trtpackage.has_gpu() else None


def versions() -> dict[str, str | None]:
    """Return the installed version of every runtime, third parties' included.

    A recording of a device has TensorRT alone: what is installed here is not the board's.
    """
    if outside.recording() is not None:
        return {PLAYED: _tensorrt()}
    others = {
        name: point.dist.version if point.dist else None for name, point in _third_party().items()
    }
    return {**others, **built_in_versions()}


def _module(name: str) -> ModuleType:
    if name in BUILT_IN:
        runtime = BUILT_IN[name]
        return _import(name, f"{__name__}.{runtime.module}", runtime.distributions)
    points = _third_party()
    if name in points:
        return _import(name, points[name].value, ())
    raise UsageFault(f"unknown runtime {name!r}", hint=f"known: {listed({*BUILT_IN, *points})}")


def _import(name: str, module: str, distributions: tuple[str, ...]) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if distributions and not any(map(version_of, distributions)):
            package = distributions[0]
            raise SetupFault(
                f"runtime {name!r} needs the package {package!r}, which is not installed",
                hint=f"pip install {package}",
            ) from error
        raise SetupFault(f"runtime {name!r} does not import: {error}") from error


def _third_party() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}
