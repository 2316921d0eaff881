"""What a backend is: something that makes an artefact of an ONNX model.

Light to import: planning asks every backend for its candidates, and no toolchain is loaded until
one of them is built.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import SetupError, UsageError, did_you_mean
from edgekd.events import Emit
from edgekd.extras import missing
from edgekd.spec import Json

__all__ = [
    "GROUP",
    "Backend",
    "Candidate",
    "Checking",
    "Equipping",
    "backend",
    "backends",
    "place_of",
    "require",
    "tool_versions",
]

GROUP = "edgekd.backends"
"""Group of the entry points of other packages: name = ``package.module:object``."""

_BUILT_IN: Mapping[str, str] = {
    "onnxruntime": "edgekd.backends.onnxruntime:BACKEND",
    "openvino": "edgekd.backends.openvino:BACKEND",
    "tensorrt": "edgekd.backends.tensorrt:BACKEND",
    "litert": "edgekd.backends.litert:BACKEND",
    "firmware": "edgekd.backends.firmware:BACKEND",
    "ethos-u": "edgekd.backends.ethos:BACKEND",
}


@dataclass(frozen=True)
class Candidate:
    """One way to make and run an artefact.

    Attributes:
        id: Unique within a target: ``ort-int8``, ``ov-bf16``.
        backend: Name of the backend that builds it.
        runtime: Runtime of the agent that runs it.
        precision: ``fp32``, ``bf16``, ``int8`` … as targets name it.
        policy: Row of the backend's table: how it is quantised.
        options: Given to the runtime on loading.
        requires_isa: Instruction sets of which the device must have one; empty asks for none.
        never_quantize: ONNX operator types that keep floating point.
        tier: 1 is always built, 2 where a faster one of tier 1 misses the metric's limit, 3 in an
            exhaustive search only.
        prepared: Whether it is built from the model that the step ``calibrate`` prepared.
        same_as: Candidate whose files it runs with other options; it is not built again.
        bits: Of weights that the student learns on with, before it is exported for this candidate
            alone (quantisation-aware); 0 for the student as it is.
    """

    id: str
    backend: str
    runtime: str
    precision: str
    policy: str
    options: Mapping[str, Json] = field(default_factory=dict)
    requires_isa: tuple[str, ...] = ()
    never_quantize: tuple[str, ...] = ()
    tier: int = 1
    prepared: bool = False
    same_as: str = ""
    bits: int = 0

    def runs_on(self, isa: Sequence[str]) -> bool:
        """Tell whether a device with these instruction sets can run it as meant."""
        return not self.requires_isa or any(name in isa for name in self.requires_isa)


class Backend(Protocol):
    """A toolchain that turns a model into something a runtime loads.

    Two attributes are optional; see `form` and `workers`:

    * ``takes``: format of the model that `build` starts from: ``onnx`` unless said otherwise, or
      ``tflite``, which is converted from the torch source (`edgekd.stages.convert`).
    * ``workers``: functions, as ``module:name``, that it runs in other processes.
    """

    name: str

    def available(self) -> str | None:
        """Return why it cannot build here; None when it can."""

    def candidates(self, precisions: Sequence[str], isa: Sequence[str]) -> list[Candidate]:
        """Return what is worth trying.

        Args:
            precisions: Those that the target allows.
            isa: Instruction sets of the device, as the agent names them.
        """

    def build(
        self,
        model: Path,
        candidate: Candidate,
        calibration: Mapping[str, NDArray[Any]],
        out: Path,
        emit: Emit,
    ) -> dict[str, Any]:
        """Make the artefact.

        Args:
            model: The model in float32, in the format that the backend takes. The measured ranges
                of a prepared one lie beside it as ``ranges.json``.
            candidate: One of `candidates`.
            calibration: Samples by input name, axis 0 counts them.
            out: Folder for the files.
            emit: Where progress goes.

        Returns:
            Facts: ``files``, ``main``, ``runtime``, ``options``, ``precision``,
            ``quantised_ops`` and ``total_ops`` (operator type → how many read quantised values,
            and how many there are), ``tool_versions``, ``calibration_samples``; and ``proxy``
            (``runtime``, ``options``) when the artefact's own runtime exists on the device only.

        Raises:
            StageError: The toolchain failed.
        """


@runtime_checkable
class Checking(Protocol):
    """A backend that knows what the device's own toolchain refuses."""

    def check(self, model: Path, runtime: str | None, opset: int) -> dict[str, Any]:
        """Check an artefact that has been built.

        Args:
            model: Its main file.
            runtime: Range of versions of the runtime on the device.
            opset: Newest opset that the target allows.

        Returns:
            Facts: ``status`` (``passed`` or ``failed``), ``why`` (sentences), ``findings``.
        """


@runtime_checkable
class Equipping(Protocol):
    """A backend whose bundles carry more than the model: build scripts, runners, headers."""

    def kit(
        self, manifest: Mapping[str, Any], golden: Mapping[str, NDArray[Any]]
    ) -> dict[str, bytes]:
        """Return further files of a bundle.

        Args:
            manifest: The bundle's manifest, without ``files``.
            golden: Inputs by name, and ``output:NAME``: what the artefact gives for them.

        Returns:
            Content by place in the bundle.
        """


def backends() -> list[str]:
    """Return the names of all backends, ours first."""
    return list(dict.fromkeys([*_BUILT_IN, *sorted(_entry_points())]))


def backend(name: str) -> Backend:
    """Return a backend by name.

    Raises:
        UsageError: There is none of that name.
        SetupError: Another package's backend cannot be imported.
    """
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        return cast(Backend, getattr(importlib.import_module(module), attribute))
    point = _entry_points().get(name)
    if point is None:
        raise UsageError(f"there is no backend {name!r}", hint=did_you_mean(name, backends()))
    try:
        return cast(Backend, point.load())
    except (ImportError, AttributeError) as error:
        raise SetupError(
            f"backend {name!r} cannot be loaded: {error}", at=f"{GROUP}: {point.value}"
        ) from error


def place_of(name: str) -> str:
    """Return ``module:object`` of a backend: where its code is."""
    return _BUILT_IN.get(name) or _entry_points()[name].value


def form(name: str) -> str:
    """Return the format of the model that a backend builds from: ``onnx`` or ``tflite``."""
    return str(getattr(backend(name), "takes", "onnx"))


def workers(name: str) -> tuple[str, ...]:
    """Return what a backend runs in other processes, as ``module:name``: code of its results."""
    return tuple(getattr(backend(name), "workers", ()))


def require(backend: Backend, module: str) -> None:
    """Refuse to build when the backend is not available.

    Args:
        backend: The backend.
        module: What is named when it is missing.

    Raises:
        SetupError: With the command that installs it.
    """
    if backend.available() is not None:
        raise missing(module, f"backend {backend.name!r}")


def tool_versions(*distributions: str) -> dict[str, str]:
    """Return the installed versions of distributions; those that are missing are left out."""
    found: dict[str, str] = {}
    for name in distributions:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def samples_in(feeds: Mapping[str, NDArray[np.generic]]) -> int:
    """Return how many samples there are for every input."""
    return min((len(values) for values in feeds.values()), default=0)


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
