"""Runtimes without their telemetry: the one place where it is switched off, and what needs it.

Both must be silenced *before* they are imported:

* ONNX Runtime's wheels send events on Linux too since 1.29. ``import onnxruntime`` alone makes a
  device id and an event store under ``~/.cache/Microsoft`` and starts an uploader;
  ``disable_telemetry_events`` comes too late for that. ``ORT_DISABLE_TELEMETRY`` does not.
* ``import openvino`` sends an event through ``openvino_telemetry`` where that is installed, and
  so does NNCF. A None in ``sys.modules`` makes both fall back to their own stubs.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

LEVELS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",
    "all": "ORT_ENABLE_ALL",
}
"""ONNX Runtime's graph optimisation, by our names."""


def silence() -> None:
    """Switch the telemetry of every runtime off, for whatever is imported from now on."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def import_openvino() -> ModuleType:
    """Import OpenVINO, silenced."""
    silence()
    return importlib.import_module("openvino")


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime, silenced; Windows' own builds know only the function."""
    silence()
    module = importlib.import_module("onnxruntime")
    module.disable_telemetry_events()
    return module


def open_onnx(
    model: Path | bytes, *, threads: int = 1, level: str = "all", arena: bool = True
) -> Any:
    """Open an ONNX model on this processor, for what is computed here and not measured.

    It says nothing, and its threads do not spin while they wait.

    Args:
        model: The file, or its bytes.
        threads: 0 for one a core.
        level: Key of `LEVELS`. ``basic`` keeps every value that the graph names, ``disable``
            changes nothing at all.
        arena: Whether memory is kept for the next run.

    Returns:
        An ``InferenceSession``.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, LEVELS[level])
    options.enable_cpu_mem_arena = arena
    source = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
