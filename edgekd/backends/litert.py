"""LiteRT: float32, dynamic int8, static int8 in two scopes, int8 weights × int16 activations.

LiteRT cannot start from ONNX: a network is converted from its torch program first, once, and all
candidates are made of that ``.tflite``. Converter and quantiser run in an environment of their
own (`edgekd.environments`), in a child process.

Inputs and outputs of the artefacts for Linux stay float32: an application feeds them what it fed
the float network, and the conversion is a part of the latency. A quantised graph with integer
ports (``float_io=False``) is what microcontrollers take.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.backends.base import Candidate, samples_in
from edgekd.compare import compare
from edgekd.environments import environment
from edgekd.errors import StageError
from edgekd.events import Emit, Event
from edgekd.extras import installed, pip_install
from edgekd.inputs import save_arrays

__all__ = ["BACKEND", "POLICIES", "LiteRt", "Policy", "convert", "quantise"]

MAIN = "model.tflite"
ENVIRONMENT = environment("litert")
RUNTIMES = ("ai_edge_litert", "tflite_runtime")
_WORKER = Path(__file__).with_name("litert_worker.py")
_TIMEOUT_S = 3600
_TAIL_LINES = 12
_CHECKED = 8
"""Samples that a conversion is compared on."""
_LIMIT = {"max_rel": 1e-4, "min_cosine": 0.99999}


@dataclass(frozen=True)
class Policy:
    """How a model is quantised.

    Attributes:
        recipe: Function of ``litert_quantizer.recipe``; empty for none.
        only: LiteRT operators that are quantised; empty for all that the recipe knows.
        static: Whether ranges are found beforehand, which takes calibration samples.
    """

    recipe: str = ""
    only: tuple[str, ...] = ()
    static: bool = False


_PRODUCTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE", "FULLY_CONNECTED")
POLICIES: Mapping[str, Policy] = {
    "none": Policy(),
    "dynamic": Policy("dynamic_wi8_afp32"),
    "static-products": Policy("static_wi8_ai8", _PRODUCTS, static=True),
    "static": Policy("static_wi8_ai8", static=True),
    "static-16x8": Policy("static_wi8_ai16", static=True),
}

_ROWS: tuple[Candidate, ...] = (
    Candidate("litert-fp32", "litert", "litert", "fp32", "none"),
    # On attention the products alone beat everything else by far: what lies between them leaves
    # XNNPACK when it is quantised.
    Candidate("litert-int8-products", "litert", "litert", "int8", "static-products"),
    Candidate("litert-int8", "litert", "litert", "int8", "static"),
    Candidate("litert-int8-dynamic", "litert", "litert", "int8", "dynamic"),
    # No XNNPACK kernels: ten times slower on Linux, for targets that ask for it by name.
    Candidate("litert-int16x8", "litert", "litert", "int16x8", "static-16x8"),
)

_OPERATORS: Mapping[str, tuple[str, ...]] = {
    "Add": ("ADD",),
    "Concat": ("CONCATENATION",),
    "Conv": ("CONV_2D", "DEPTHWISE_CONV_2D"),
    "ConvTranspose": ("CONV_2D_TRANSPOSE",),
    "Gemm": ("FULLY_CONNECTED",),
    "LayerNormalization": ("MEAN", "SQUARED_DIFFERENCE", "RSQRT"),
    "MatMul": ("BATCH_MATMUL", "FULLY_CONNECTED"),
    "Mul": ("MUL",),
    "ReduceMean": ("MEAN",),
    "Sigmoid": ("LOGISTIC",),
    "Softmax": ("SOFTMAX",),
    "Tanh": ("TANH",),
}
"""ONNX operator types, as targets name them, in LiteRT's words."""


class LiteRt:
    """The backend named ``litert``."""

    name = "litert"
    takes = "tflite"
    workers = ("edgekd.backends.litert_worker:main",)

    def available(self) -> str | None:
        """Return why it cannot build and run here; None when it can."""
        found = [reason for reason in (ENVIRONMENT.lacking(), _no_runtime()) if reason]
        return "; ".join(found) or None

    def candidates(self, precisions: Sequence[str], isa: Sequence[str]) -> list[Candidate]:
        """Return what the target allows."""
        return [row for row in _ROWS if row.precision in precisions and row.runs_on(isa)]

    def build(
        self,
        model: Path,
        candidate: Candidate,
        calibration: Mapping[str, NDArray[Any]],
        out: Path,
        emit: Emit,
    ) -> dict[str, Any]:
        """Make ``model.tflite`` of a float one; see `edgekd.backends.base.Backend.build`."""
        policy = POLICIES[candidate.policy]
        out.mkdir(parents=True, exist_ok=True)
        emit(Event("progress", f"build:{candidate.id}", "quantising" if policy.recipe else ""))
        facts: dict[str, Any] = {"quantised_ops": {}, "tool_versions": dict(_versions())}
        if policy.recipe:
            facts = quantise(model, out / MAIN, policy, calibration, never=candidate.never_quantize)
        else:
            shutil.copyfile(model, out / MAIN)
        return {
            "files": [MAIN],
            "main": MAIN,
            "runtime": candidate.runtime,
            "options": dict(candidate.options),
            "precision": candidate.precision,
            "calibration_samples": samples_in(calibration) if policy.static else 0,
            **facts,
        }


BACKEND = LiteRt()


def convert(
    program: Path,
    samples: Mapping[str, NDArray[Any]],
    truth: NDArray[Any],
    output: str,
    out: Path,
) -> dict[str, Any]:
    """Convert a saved torch program to a float ``.tflite`` and compare it with torch.

    Args:
        program: A ``torch.export`` program (.pt2) for a batch of one.
        samples: Inputs by the names that the model shall give them, in the order of the program's
            arguments; axis 0 counts samples.
        truth: What torch makes of the samples.
        output: Name of the output.
        out: The file to write.

    Returns:
        ``ops``, ``tool_versions``, and ``max_abs``, ``max_rel``, ``min_cosine`` against torch.

    Raises:
        SetupError: The environment is missing; names the command.
        StageError: The network cannot be converted, or the result computes something else.
    """
    few = {name: values[:_CHECKED] for name, values in samples.items()}
    with tempfile.TemporaryDirectory(prefix="edgekd-litert-") as name:
        folder = Path(name)
        save_arrays(folder / "samples.npz", few)
        request = {
            "do": "convert",
            "program": str(program.absolute()),
            "samples": str(folder / "samples.npz"),
            "inputs": list(samples),
            "outputs": [output],
            "model": str(out.absolute()),
            "found": str(folder / "found.npz"),
        }
        answer = _in_child(request, folder, "converting to .tflite")
        with np.load(folder / "found.npz", allow_pickle=False) as archive:
            found = archive[output]
    measured = compare(truth[:_CHECKED], found)
    if measured["max_rel"] > _LIMIT["max_rel"] or measured["min_cosine"] < _LIMIT["min_cosine"]:
        raise StageError(
            f"the conversion to .tflite changed the network: max relative error "
            f"{measured['max_rel']:.3g} (limit {_LIMIT['max_rel']:g}), worst cosine "
            f"{measured['min_cosine']:.6f} (limit {_LIMIT['min_cosine']:g})",
            hint="write the network with other operations",
        )
    return {**answer, **{key: measured[key] for key in ("max_abs", "max_rel", "min_cosine", "n")}}


def quantise(
    model: Path,
    out: Path,
    policy: Policy,
    calibration: Mapping[str, NDArray[Any]],
    *,
    never: Sequence[str] = (),
    float_io: bool = True,
    found: Path | None = None,
    few: int = 0,
) -> dict[str, Any]:
    """Quantise a float ``.tflite``; constants end up inside the file.

    Args:
        model: The float model.
        out: The file to write.
        policy: How.
        calibration: Samples by input name, axis 0 counts them.
        never: ONNX operator types that stay float.
        float_io: Whether inputs and outputs stay float32.
        found: File (.npz) to write: what the float model makes of the ``few`` first samples.
        few: See ``found``.

    Returns:
        ``ops``, ``quantised_ops``, ``io`` (dtype, scale, zero point) and ``tool_versions``.

    Raises:
        SetupError: The environment is missing; names the command.
        StageError: The quantiser failed, or there are no samples.
    """
    if policy.static and not samples_in(calibration):
        raise StageError("static quantisation needs calibration samples, found none")
    with tempfile.TemporaryDirectory(prefix="edgekd-litert-") as name:
        folder = Path(name)
        save_arrays(folder / "calibration.npz", calibration if policy.static else {})
        request = {
            "do": "quantise",
            "model": str(model.absolute()),
            "out": str(out.absolute()),
            "recipe": policy.recipe,
            "only": list(policy.only),
            "never": _in_our_words(never),
            "float_io": float_io,
            "calibration": str(folder / "calibration.npz"),
            **({} if found is None else {"found": str(found.absolute()), "few": few}),
        }
        return _in_child(request, folder, f"quantising by {policy.recipe}")


def _in_our_words(types: Sequence[str]) -> list[str]:
    """Return LiteRT's operators for ONNX types."""
    unknown = [name for name in types if name not in _OPERATORS]
    if unknown:
        raise StageError(
            f"LiteRT's word for operator {unknown[0]!r} is not known, so it cannot be kept float",
            at="target: never_quantize",
            hint=f"known: {', '.join(_OPERATORS)}",
        )
    return sorted({name for kind in types for name in _OPERATORS[kind]})


def _no_runtime() -> str | None:
    if any(installed(module) for module in RUNTIMES):
        return None
    return f"no LiteRT runtime here: {pip_install('litert')}"


def _versions() -> Mapping[str, str]:
    found = ENVIRONMENT.find()
    return found.versions if found else {}


def _in_child(request: Mapping[str, Any], folder: Path, doing: str) -> dict[str, Any]:
    """Let the worker do what the request says, in the environment's interpreter."""
    python = ENVIRONMENT.require("LiteRT's toolchain")
    (folder / "request.json").write_text(json.dumps(request), "utf-8")
    log = folder / "log.txt"
    with log.open("wb") as stream:
        try:
            code = subprocess.run(
                [str(python), "-I", str(_WORKER), str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=_TIMEOUT_S,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired as late:
            raise StageError(f"{doing} took more than {_TIMEOUT_S} s") from late
    if code:
        fate = f"was killed by signal {-code}" if code < 0 else f"failed with status {code}"
        lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
        raise StageError(
            f"LiteRT's toolchain {fate} while {doing}",
            hint="\n    ".join(["the end of what it said:", *lines[-_TAIL_LINES:]]),
        )
    answer: dict[str, Any] = json.loads((folder / "answer.json").read_text("utf-8"))
    return answer
