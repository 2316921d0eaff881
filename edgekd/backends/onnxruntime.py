"""ONNX Runtime: float32, static, dynamic and weight-only int8.

On processors, unsigned activations with signed weights per channel are twice as fast as signed
ones. What falls between products and convolutions mostly costs less in float than quantising it
would; which products are quantised is the scope of a policy.
"""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.agent.quiet import open_onnx, silence
from edgekd.backends.base import Candidate, require, samples_in, tool_versions
from edgekd.errors import StageError
from edgekd.events import Emit, Event
from edgekd.extras import installed
from edgekd.quant.ranges import Span, load_ranges, measure_ranges
from edgekd.spec import Json

__all__ = ["BACKEND", "POLICIES", "OnnxRuntime"]

Say = Callable[[str], None]

MAIN = "model.onnx"
_BATCH = 8
_FIDELITY_SAMPLES = 32
_SMALL = 256
"""Weights of fewer values stay in float."""


@dataclass(frozen=True)
class Policy:
    """How a model is quantised.

    Attributes:
        kind: ``none``, ``static`` (calibrated), ``dynamic`` (ranges found while running) or
            ``weights`` (stored in 8 bits, computed in float).
        ops: Operator types that are quantised; empty for all that the quantiser knows.
        attention: Whether products of two activations are, too.
        reduce_range: Weights of 7 bits: without VNNI, sums of 8-bit products overflow on x86.
        integer_ops: Write integer operators (QOperator) instead of float ones between Q and DQ.
    """

    kind: str = "none"
    ops: tuple[str, ...] = ()
    attention: bool = True
    reduce_range: bool = False
    integer_ops: bool = False


_PRODUCTS = ("Conv", "MatMul", "Gemm")
_SCOPES: Mapping[str, Policy] = {
    "products": Policy("static", _PRODUCTS),
    "linear": Policy("static", _PRODUCTS, attention=False),
    "conv": Policy("static", ("Conv", "ConvTranspose")),
    "matmul": Policy("static", ("MatMul", "Gemm"), attention=False),
    "integer": Policy("static", _PRODUCTS, integer_ops=True),
    "all": Policy("static"),
    "dynamic": Policy("dynamic", ("MatMul", "Gemm")),
}
POLICIES: Mapping[str, Policy] = {
    "none": Policy(),
    "weights": Policy("weights", _PRODUCTS),
    **_SCOPES,
    **{f"{name}-s7": replace(policy, reduce_range=True) for name, policy in _SCOPES.items()},
}
"""What is quantised, and how; ``-s7`` for processors that would overflow."""

_ROWS: tuple[tuple[str, str, str, int], ...] = (
    ("ort-fp32", "fp32", "none", 1),
    ("ort-int8", "int8", "products", 1),
    ("ort-int8-dynamic", "int8", "dynamic", 1),
    ("ort-int8-linear", "int8", "linear", 1),
    ("ort-int8-conv", "int8", "conv", 1),
    ("ort-int8-weights", "int8", "weights", 1),
    ("ort-int8-aware", "int8", "linear", 2),
    ("ort-int8-matmul", "int8", "matmul", 3),
    ("ort-int8-integer", "int8", "integer", 3),
    ("ort-int8-all", "int8", "all", 3),
)
"""Identity, precision, policy, tier (see `edgekd.backends.base.Candidate`)."""


class OnnxRuntime:
    """The backend named ``onnxruntime``."""

    name = "onnxruntime"

    def available(self) -> str | None:
        """Return why it cannot build here; None when it can."""
        lacking = [module for module in ("onnxruntime", "onnx") if not installed(module)]
        return f"{' and '.join(lacking)} not installed" if lacking else None

    def candidates(self, precisions: Sequence[str], isa: Sequence[str]) -> list[Candidate]:
        """Return the rows that the target allows."""
        saturates = "avx2" in isa and not any(name.endswith("vnni") for name in isa)
        found = []
        for label, precision, policy, tier in _ROWS:
            if precision not in precisions:
                continue
            name = f"{policy}-s7" if saturates and policy in _SCOPES else policy
            kind = POLICIES[name].kind
            row = Candidate(label, self.name, "onnxruntime", precision, name, _options(kind))
            bits = 7 if saturates else 8
            found.append(
                replace(
                    row,
                    tier=tier,
                    prepared=kind == "static",
                    bits=bits if label.endswith("aware") else 0,
                )
            )
        return found

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
        _check_readable(model)
        policy = POLICIES[candidate.policy]
        kept = candidate.never_quantize
        policy = replace(policy, ops=tuple(_without(policy.ops or _all_ops(policy), kept)))
        out.mkdir(parents=True, exist_ok=True)

        def say(text: str) -> None:
            emit(Event("progress", f"build:{candidate.id}", text))

        facts = _BUILDERS[policy.kind](model, policy, calibration, out / MAIN, say)
        return {
            "files": [MAIN],
            "main": MAIN,
            "runtime": candidate.runtime,
            "options": dict(candidate.options),
            "precision": candidate.precision,
            "quantised_ops": _quantised_ops(out / MAIN),
            "total_ops": _total_ops(model),
            "tool_versions": tool_versions("onnxruntime", "onnx"),
            "calibration_samples": 0,
            **facts,
        }


BACKEND = OnnxRuntime()


def _check_readable(model: Path) -> None:
    import onnx

    try:
        onnx.load(str(model), load_external_data=False)
    except Exception as error:
        raise StageError(f"{model.name} cannot be read as ONNX: {error}", at=str(model)) from error


def _options(kind: str) -> dict[str, Json]:
    """Return what the runtime is told on loading.

    Weights in 8 bits are turned into floats once, on loading, not at every inference.

    A dynamic range is that of a whole batch: with more than one sample in it, a sample's outputs
    would depend on its neighbours (by 2e-3 on MobileViT), and would not be those of the device.
    """
    options: Mapping[str, dict[str, Json]] = {
        "dynamic": {"static_batch": 1},
        "weights": {"fold_weights": True},
    }
    return options.get(kind, {})


def _without(names: Sequence[str], dropped: Sequence[str]) -> list[str]:
    return [name for name in names if name not in dropped]


def _copy(
    model: Path, policy: Policy, calibration: Mapping[str, NDArray[Any]], out: Path, say: Say
) -> dict[str, Any]:
    shutil.copyfile(model, out)
    return {}


def _dynamic(
    model: Path, policy: Policy, calibration: Mapping[str, NDArray[Any]], out: Path, say: Say
) -> dict[str, Any]:
    """Quantise the weights of matrix products; their inputs are quantised while running."""
    if not _constant_products(model, policy.ops):
        raise StageError(
            f"there is nothing to quantise dynamically: no {' or '.join(policy.ops)} with "
            "constant weights",
            at=str(model),
        )
    with _toolchain("quantisation") as quantization:
        quantization.quantize_dynamic(
            str(model),
            str(out),
            op_types_to_quantize=list(policy.ops),
            per_channel=True,
            reduce_range=policy.reduce_range,
            weight_type=quantization.QuantType.QInt8,
        )
    _tidy(out)
    return {}


def _static(
    model: Path, policy: Policy, calibration: Mapping[str, NDArray[Any]], out: Path, say: Say
) -> dict[str, Any]:
    """Quantise with the ranges of every estimator; keep the most faithful."""
    samples = samples_in(calibration)
    if not samples:
        raise StageError("static quantisation needs calibration samples, found none")
    ranges = _ranges(model, calibration, say)
    probe = {name: values[:_FIDELITY_SAMPLES] for name, values in calibration.items()}
    wanted = _outputs(model, probe)
    spare = [] if policy.attention else _products_of_activations(model)
    fidelity: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="edgekd-ort-") as folder:
        for name, spans in ranges.items():
            say(f"quantising with {name} ranges")
            _quantise(model, policy, spans, spare, Path(folder) / f"{name}.onnx")
            fidelity[name] = _compare(_outputs(Path(folder) / f"{name}.onnx", probe), wanted)
        best = max(fidelity, key=lambda name: fidelity[name]["sqnr_db"])
        shutil.copyfile(Path(folder) / f"{best}.onnx", out)
    return {"calibration_samples": samples, "calibration": best, "fidelity": fidelity}


def _ranges(
    model: Path, calibration: Mapping[str, NDArray[Any]], say: Say
) -> Mapping[str, Mapping[str, Span]]:
    """Return the ranges beside a prepared model, or measure them."""
    beside = model.with_name("ranges.json")
    if beside.is_file():
        return load_ranges(beside)
    return measure_ranges(model, calibration, say=say)


def _weights(
    model: Path, policy: Policy, calibration: Mapping[str, NDArray[Any]], out: Path, say: Say
) -> dict[str, Any]:
    """Store weights in 8 bits per channel; the network computes in float."""
    import onnx

    proto = onnx.load(str(model))
    graph = proto.graph
    held = {tensor.name: tensor for tensor in graph.initializer}
    done: set[str] = set()
    for node in list(graph.node):
        name = node.input[1] if node.op_type in policy.ops and len(node.input) > 1 else ""
        if name in held and name not in done and _compress(graph, held[name], str(node.op_type)):
            done.add(name)
    if not done:
        raise StageError("there are no weights to compress", at=str(model))
    onnx.save(proto, str(out))
    _tidy(out)
    return {}


def _compress(graph: Any, tensor: Any, kind: str) -> bool:
    """Replace a weight by int8 and a DequantizeLinear; small ones are not worth it."""
    import onnx

    values = onnx.numpy_helper.to_array(tensor)
    if values.dtype != np.float32 or values.ndim < 2 or values.size < _SMALL:
        return False
    axis = 0 if kind == "Conv" else values.ndim - 1
    others = tuple(i for i in range(values.ndim) if i != axis)
    scale = np.maximum(np.abs(values).max(axis=others, keepdims=True) / 127, 1e-12)
    scale = scale.astype(np.float32)
    stored = np.clip(np.round(values / scale), -127, 127).astype(np.int8)
    name = str(tensor.name)
    parts = {"q": stored, "scale": scale.reshape(-1), "zero": np.zeros(scale.size, np.int8)}
    made = [onnx.numpy_helper.from_array(v, f"{name}_{part}") for part, v in parts.items()]
    graph.initializer.remove(tensor)
    graph.initializer.extend(made)
    names = [f"{name}_{part}" for part in parts]
    graph.node.insert(
        0, onnx.helper.make_node("DequantizeLinear", names, [name], f"{name}_dq", axis=axis)
    )
    return True


_BUILDERS = {"none": _copy, "static": _static, "dynamic": _dynamic, "weights": _weights}


def _quantise(
    model: Path,
    policy: Policy,
    spans: Mapping[str, Span],
    spare: Sequence[str],
    out: Path,
) -> None:
    """Run ONNX Runtime's quantiser on ranges that are already known."""
    import onnx

    proto = onnx.shape_inference.infer_shapes(onnx.load(str(model)))
    with _toolchain("quantisation") as quantization:
        from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
        from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
        from onnxruntime.quantization.quant_utils import QuantizationMode

        known = TensorsData(
            CalibrationMethod.MinMax,
            {
                name: (np.array(low, np.float32), np.array(high, np.float32))
                for name, (low, high) in spans.items()
            },
        )
        common = (proto, True, policy.reduce_range)
        types = (quantization.QuantType.QInt8, quantization.QuantType.QUInt8)
        scope: tuple[Any, ...] = (known, [], list(spare), list(policy.ops), {})
        if policy.integer_ops:
            maker = ONNXQuantizer(*common, QuantizationMode.QLinearOps, True, *types, *scope)
        else:
            maker = QDQQuantizer(*common, *types, *scope)
        maker.quantize_model()
        maker.model.save_model_to_file(str(out), False)
    _tidy(out)


def _all_ops(policy: Policy) -> tuple[str, ...]:
    """Return every operator type that the quantiser knows, for a policy that names none."""
    if policy.kind != "static":
        return ()
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return tuple(sorted({*QDQRegistry, *QLinearOpsRegistry}))


def _products_of_activations(model: Path) -> list[str]:
    """Return the names of the matrix products neither side of which is a constant."""
    import onnx

    graph = onnx.load(str(model), load_external_data=False).graph
    held = {tensor.name for tensor in graph.initializer}
    return [
        str(node.name)
        for node in graph.node
        if node.op_type in ("MatMul", "Gemm") and not held & set(node.input[:2])
    ]


def _fixed_batch(model: Path) -> int | None:
    import onnx

    graph = onnx.load(str(model), load_external_data=False).graph
    held = {tensor.name for tensor in graph.initializer}
    for port in graph.input:
        dims = port.type.tensor_type.shape.dim
        if port.name not in held and len(dims):
            return int(dims[0].dim_value) if dims[0].HasField("dim_value") else None
    return None


def _outputs(model: Path, feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Return the first output for some samples, as (samples, values)."""
    try:
        session = open_onnx(model)
        parts = [session.run(None, batch)[0] for batch in _batches(feeds, _fixed_batch(model))]
    except Exception as error:
        raise _failed("running", error) from error
    rows = np.concatenate(parts)[: samples_in(feeds)]
    return rows.reshape(len(rows), -1)


def _batches(
    feeds: Mapping[str, NDArray[Any]], fixed: int | None
) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield samples a few at a time; a fixed batch is filled up with the first samples."""
    size, count = fixed or _BATCH, samples_in(feeds)
    for start in range(0, count, size):
        rows = np.arange(start, start + size if fixed else min(start + size, count)) % count
        yield {name: np.ascontiguousarray(values[rows]) for name, values in feeds.items()}


def _compare(found: NDArray[Any], wanted: NDArray[Any]) -> dict[str, float]:
    """Return signal to noise in dB, and the cosines of single samples."""
    a, b = found.astype(np.float64), wanted.astype(np.float64)
    noise = max(float(((a - b) ** 2).sum()), 1e-30)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(1) / np.maximum(norms, 1e-30)
    return {
        "sqnr_db": round(10 * float(np.log10(max(float((b**2).sum()), 1e-30) / noise)), 3),
        "cosine_mean": round(float(cosine.mean()), 6),
        "cosine_min": round(float(cosine.min()), 6),
    }


_QUANTISERS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")


def _quantised_ops(model: Path) -> dict[str, int]:
    """Count the operators that read quantised values, by the name they have in float."""
    import onnx

    graph = onnx.load(str(model), load_external_data=False).graph
    integer = {
        name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output
    }
    counts: Counter[str] = Counter()
    for node in graph.node:
        kind = str(node.op_type)
        if kind in _QUANTISERS:
            continue
        plain = kind.removeprefix("QLinear").removesuffix("Integer")
        if plain != kind or any(name in integer for name in node.input):
            counts[plain] += 1
    return dict(sorted(counts.items()))


def _total_ops(model: Path) -> dict[str, int]:
    """Count all operators of the float model."""
    import onnx

    graph = onnx.load(str(model), load_external_data=False).graph
    return dict(sorted(Counter(str(node.op_type) for node in graph.node).items()))


def _constant_products(model: Path, ops: Sequence[str]) -> int:
    """Count the products one side of which is a constant."""
    import onnx

    graph = onnx.load(str(model), load_external_data=False).graph
    held = {tensor.name for tensor in graph.initializer}
    return sum(node.op_type in ops and node.input[1] in held for node in graph.node)


def _tidy(path: Path) -> None:
    """Rewrite a quantiser's file so that its bytes depend on the network alone."""
    import onnx

    from edgekd.graph.canonical import canonicalise, save

    proto = onnx.load(str(path))
    canonicalise(proto)
    save(proto, path)


@contextlib.contextmanager
def _toolchain(doing: str) -> Iterator[Any]:
    """Give the quantiser, quietly; what it raises becomes a `StageError`."""
    silence()
    from onnxruntime import quantization

    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield quantization
    except Exception as error:
        raise _failed(doing, error) from error
    finally:
        logger.setLevel(level)


def _failed(doing: str, error: Exception) -> StageError:
    reason = " ".join(str(error).split())[:400] or type(error).__name__
    return StageError(f"ONNX Runtime failed while {doing}: {reason}")
