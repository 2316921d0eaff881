"""Runtimes without their telemetry: the one place where it is switched off.

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
