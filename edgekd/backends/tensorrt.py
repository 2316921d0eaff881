"""TensorRT: an ONNX file typed and quantised explicitly, from which the board builds its engine.

An engine belongs to the GPU and the version that built it, so none is built here: the artefact is
the ONNX file. Until a board has built it, its numbers come from ONNX Runtime as a proxy and are
labelled so. One strongly typed file serves TensorRT 8.6 to 11, which knows no other way.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.backends.base import Candidate, require, samples_in, tool_versions
from edgekd.errors import StageError
from edgekd.events import Emit, Event
from edgekd.extras import installed

__all__ = ["BACKEND", "POLICIES", "TensorRT"]

MAIN = "model.onnx"
OPSET = 19
"""First opset whose Q/DQ take float16 scales; TensorRT 10.0 and newer read it."""
RANGE_SAMPLES = 16
RANGE_LIMIT = 65504.0 / 4
"""Inner values above stay in float32: other inputs may be larger than those calibrated on."""
FIDELITY_SAMPLES = 64
PROXY: Mapping[str, Any] = {"runtime": "onnxruntime", "options": {"level": "basic"}}
"""Not more: on Arm, ONNX Runtime 1.32 makes of float16 pairs a QLinearConv that it then refuses."""


@dataclass(frozen=True)
class Policy:
    """How the graph is typed.

    Attributes:
        half: Whether arithmetic is float16 where nothing else is said.
        methods: Ways of calibrating int8; the one with the best fidelity is taken.
    """

    half: bool = False
    methods: tuple[str, ...] = ()


POLICIES: Mapping[str, Policy] = {
    "fp32": Policy(),
    "fp16": Policy(half=True),
    "int8+fp16": Policy(half=True, methods=("max", "mse")),
}


class TensorRT:
    """The backend named ``tensorrt``."""

    name = "tensorrt"

    def available(self) -> str | None:
        """Return why it cannot prepare a model here; None when it can."""
        lacking = [module for module in ("onnxruntime", "onnx") if not installed(module)]
        return f"{' and '.join(lacking)} not installed" if lacking else None

    def candidates(self, precisions: Sequence[str], isa: Sequence[str]) -> list[Candidate]:
        """Return float32, float16, and int8 with float16: those that the target lists, in order."""
        rows = {"fp32": "fp32", "fp16": "fp16", "int8": "int8+fp16"}
        return [
            Candidate(f"trt-{precision}", self.name, "tensorrt", precision, rows[precision])
            for precision in precisions
            if precision in rows
        ]

    def build(
        self,
        model: Path,
        candidate: Candidate,
        calibration: Mapping[str, NDArray[Any]],
        out: Path,
        emit: Emit,
    ) -> dict[str, Any]:
        """Make ``model.onnx``; see `edgekd.backends.base.Backend.build`."""
        require(self, "onnxruntime")
        import onnx

        from edgekd.graph.canonical import canonicalise, save

        out.mkdir(parents=True, exist_ok=True)

        def say(text: str) -> None:
            emit(Event("progress", f"build:{candidate.id}", text))

        policy = POLICIES[candidate.policy]
        proto = onnx.load(str(model))
        facts: dict[str, Any] = {}
        _refuse_names(proto)
        if policy.half:
            proto, facts = _reduced(proto, policy, candidate.never_quantize, calibration, say)
        canonicalise(proto)
        onnx.checker.check_model(proto, full_check=True)
        save(proto, out / MAIN)
        return {
            "files": [MAIN],
            "main": MAIN,
            "runtime": candidate.runtime,
            "options": {
                **candidate.options,
                "precision": candidate.precision,
                "io": {"inputs": _ports(proto.graph.input), "outputs": _ports(proto.graph.output)},
            },
            "proxy": dict(PROXY),
            "precision": candidate.precision,
            "quantised_ops": _quantised_ops(proto),
            "tool_versions": tool_versions("onnx", "onnxruntime"),
            "calibration_samples": 0,
            **facts,
        }

    def check(self, model: Path, runtime: str | None, opset: int) -> dict[str, Any]:
        """Say what the board's TensorRT would refuse; nothing is run on a board.

        Args:
            model: The artefact's ``model.onnx``.
            runtime: Range of versions that the target asks for; the oldest one is checked.
            opset: Newest opset that the target allows.

        Returns:
            ``parser``, ``status``, ``findings``, and ``rtx``: what NVIDIA's own parser and
            compiler say, where the extra ``tensorrt-rtx`` is installed.
        """
        from edgekd.backends.tensorrt_rtx import compile_check
        from edgekd.graph.lint import lint
        from edgekd.graph.support import tensorrt

        parser = tensorrt(oldest(runtime), opset)
        findings = lint(model, parser)
        refused = [finding for finding in findings if finding.level == "refused"]
        compiled = compile_check(model)
        why = [f"lint: {finding}" for finding in refused]
        why += [f"TensorRT for RTX: {error['text']}" for error in compiled.get("errors", ())]
        return {
            "parser": parser.name,
            "status": "failed" if why else "passed",
            "why": why,
            "findings": [finding.plain() for finding in findings],
            "rtx": compiled,
        }

    def kit(
        self, manifest: Mapping[str, Any], golden: Mapping[str, NDArray[Any]]
    ) -> dict[str, bytes]:
        """Return the build script and the runner, with its golden self-test."""
        from edgekd.backends.tensorrt_kit import kit

        tensor, output = manifest["io"]["inputs"][0]["name"], manifest["io"]["outputs"][0]["name"]
        return kit(manifest, golden[tensor], golden[f"output:{output}"])


BACKEND = TensorRT()


def oldest(runtime: str | None) -> str:
    """Return the oldest version of a range such as ``>=10.3,<11``; 8.6 where none is named."""
    found = re.search(r"(?:>=|==)\s*([\d.]+)", runtime or "")
    return found[1] if found else "8.6"


def _ports(ports: Sequence[Any]) -> list[dict[str, Any]]:
    """Describe what the graph takes or gives for one sample: the board has no parser of ONNX."""
    import onnx

    found = []
    for port in ports:
        tensor = port.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        sizes = [dim.dim_value for dim in tensor.shape.dim[1:]]
        found.append({"name": port.name, "shape": sizes, "dtype": str(dtype)})
    return found


def _refuse_names(proto: Any) -> None:
    """Names with a colon or a comma cannot be given to trtexec."""
    for port in (*proto.graph.input, *proto.graph.output):
        if re.search(r"[^\w.-]", port.name):
            raise StageError(
                f"{port.name!r} is no name for an input or output of TensorRT's tools",
                hint="letters, digits, '_', '-' and '.' are",
            )


def _reduced(
    proto: Any,
    policy: Policy,
    never: Sequence[str],
    calibration: Mapping[str, NDArray[Any]],
    say: Callable[[str], None],
) -> tuple[Any, dict[str, Any]]:
    """Return the graph in float16, quantised where the policy says so, and facts about it."""
    from edgekd.backends import tensorrt_calibrate as calibrate
    from edgekd.graph.half import to_half

    facts: dict[str, Any] = {}
    kept = _float_nodes(proto, calibration)
    if not policy.methods:
        return _raised(to_half(proto, kept)), {"float32_nodes": sorted(kept)}
    from edgekd.graph.qdq import insert, sites

    chosen = sites(proto, never)
    if not chosen:
        raise StageError("there is nothing to quantise: no product with constant weights")
    values = sorted({site.value for site in chosen if site.axis is None})
    probe = {name: array[:FIDELITY_SAMPLES] for name, array in calibration.items()}
    wanted = calibrate.outputs(proto, probe)
    best: tuple[float, Any] | None = None
    fidelity: dict[str, dict[str, float]] = {}
    for method in policy.methods:
        say(f"calibrating by {method}")
        ends = calibrate.thresholds(proto, values, calibration, method)
        scales = {name: end / calibrate.LEVELS for name, end in ends.items()}
        made = _raised(to_half(insert(proto, chosen, scales), kept))
        fidelity[method] = _fidelity(calibrate.outputs(made, probe), wanted)
        if best is None or fidelity[method]["sqnr_db"] > best[0]:
            best = (fidelity[method]["sqnr_db"], made)
            facts["calibration"] = method
    assert best is not None
    return best[1], {
        **facts,
        "fidelity": fidelity,
        "calibration_samples": samples_in(calibration),
        "float32_nodes": sorted(kept),
        "sites": dict(Counter(site.role for site in chosen)),
    }


def _float_nodes(proto: Any, calibration: Mapping[str, NDArray[Any]]) -> set[str]:
    """Return the nodes that float16 would break: by a constant, or by the size of their values."""
    from edgekd.backends.tensorrt_calibrate import peaks
    from edgekd.graph.half import unsafe_constants

    unsafe = unsafe_constants(proto)
    few = {name: array[:RANGE_SAMPLES] for name, array in calibration.items()}
    if not samples_in(few):
        return unsafe
    made = {name: node for node in proto.graph.node for name in node.output}
    floats = _float_values(proto)
    large = {
        n for n, peak in peaks(proto, sorted(floats & set(made)), few).items() if peak > RANGE_LIMIT
    }
    for node in proto.graph.node:
        if large & {*node.output, *node.input}:
            unsafe.add(node.name)
    return unsafe


def _float_values(proto: Any) -> set[str]:
    import onnx

    graph = onnx.shape_inference.infer_shapes(proto).graph
    kind = onnx.TensorProto.FLOAT
    return {
        p.name for p in (*graph.value_info, *graph.output) if p.type.tensor_type.elem_type == kind
    }


def _raised(proto: Any) -> Any:
    """Declare the opset that float16 scales need.

    From 18 to 19 operators gained types and options, and none changed what it computes.
    """
    for entry in proto.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = max(entry.version, OPSET)
    return proto


def _quantised_ops(proto: Any) -> dict[str, int]:
    """Count the products that read integers on both sides."""
    integer = {
        n for node in proto.graph.node if node.op_type == "DequantizeLinear" for n in node.output
    }
    counts = Counter(
        node.op_type
        for node in proto.graph.node
        if node.op_type in ("Conv", "ConvTranspose", "MatMul", "Gemm")
        and all(name in integer for name in node.input[:2])
    )
    return dict(sorted(counts.items()))


def _fidelity(found: NDArray[Any], wanted: NDArray[Any]) -> dict[str, float]:
    """Return signal to noise in dB, and the smallest cosine of a sample."""
    a, b = found.astype(np.float64), wanted.astype(np.float64)
    noise = max(float(((a - b) ** 2).sum()), 1e-30)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(1) / np.maximum(norms, 1e-30)
    return {
        "sqnr_db": round(10 * float(np.log10(max(float((b**2).sum()), 1e-30) / noise)), 3),
        "cosine_min": round(float(cosine.min()), 6),
    }
