"""ONNX Runtime: float32, static int8 (QDQ) and dynamic int8.

On processors, unsigned activations with signed weights per channel are twice as fast as signed
ones. Products and convolutions are quantised and nothing else: whatever falls between them in
float costs less than what quantising it would.
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

from edgekd.agent.quiet import import_onnxruntime, silence
from edgekd.backends.base import Candidate, require, samples_in, tool_versions
from edgekd.errors import StageError
from edgekd.events import Emit, Event
from edgekd.extras import installed
from edgekd.spec import Json

__all__ = ["BACKEND", "POLICIES", "OnnxRuntime"]

Say = Callable[[str], None]

MAIN = "model.onnx"
_BATCH = 8
_MEMORY_LIMIT = 256 * 2**20
"""Largest size of all values of one calibration batch up to which histograms are tried."""
_FIDELITY_SAMPLES = 64


@dataclass(frozen=True)
class Policy:
    """How a model is quantised.

    Attributes:
        kind: ``none``, ``static`` (calibrated) or ``dynamic`` (ranges found while running).
        ops: Operator types that are quantised.
        reduce_range: Weights of 7 bits: without VNNI, sums of 8-bit products overflow on x86.
        methods: Ways of calibration; the one with the best fidelity is taken.
    """

    kind: str = "none"
    ops: tuple[str, ...] = ()
    reduce_range: bool = False
    methods: tuple[str, ...] = ()


_PRODUCTS = ("Conv", "MatMul", "Gemm")
POLICIES: Mapping[str, Policy] = {
    "none": Policy(),
    "qdq-u8s8": Policy("static", _PRODUCTS, methods=("minmax", "percentile")),
    "qdq-u8s7": Policy("static", _PRODUCTS, True, methods=("minmax", "percentile")),
    "dynamic-matmul": Policy("dynamic", ("MatMul", "Gemm")),
    "dynamic-matmul-s7": Policy("dynamic", ("MatMul", "Gemm"), True),
}

_CALIBRATION: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "minmax": ("MinMax", {}),
    "percentile": ("Percentile", {"CalibPercentile": 99.99}),
}


class OnnxRuntime:
    """The backend named ``onnxruntime``."""

    name = "onnxruntime"

    def available(self) -> str | None:
        """Return why it cannot build here; None when it can."""
        lacking = [module for module in ("onnxruntime", "onnx") if not installed(module)]
        return f"{' and '.join(lacking)} not installed" if lacking else None

    def candidates(self, precisions: Sequence[str], isa: Sequence[str]) -> list[Candidate]:
        """Return float32, static int8 and dynamic int8, as far as the target allows."""
        saturates = "avx2" in isa and not any(name.endswith("vnni") for name in isa)
        rows = [
            ("ort-fp32", "fp32", "none"),
            ("ort-int8", "int8", "qdq-u8s7" if saturates else "qdq-u8s8"),
            ("ort-int8-dynamic", "int8", "dynamic-matmul-s7" if saturates else "dynamic-matmul"),
        ]
        return [
            Candidate(label, self.name, "onnxruntime", precision, policy, _options(policy))
            for label, precision, policy in rows
            if precision in precisions
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
        policy = POLICIES[candidate.policy]
        policy = replace(policy, ops=tuple(_without(policy.ops, candidate.never_quantize)))
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


def _options(policy: str) -> dict[str, Json]:
    """Return what the runtime is told on loading.

    A dynamic range is that of a whole batch: with more than one sample in it, a sample's outputs
    would depend on its neighbours (by 2e-3 on MobileViT), and would not be those of the device.
    """
    return {"static_batch": 1} if POLICIES[policy].kind == "dynamic" else {}


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
    """Quantise with every way of calibration that fits in memory; keep the most faithful."""
    samples = samples_in(calibration)
    if not samples:
        raise StageError("static quantisation needs calibration samples, found none")
    probe = {name: values[:_FIDELITY_SAMPLES] for name, values in calibration.items()}
    wanted = _outputs(model, probe)
    fidelity: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="edgekd-ort-") as folder:
        for method in _affordable(policy.methods, model, probe):
            say(f"calibrating by {method}")
            _quantise(model, policy, method, calibration, Path(folder) / f"{method}.onnx")
            fidelity[method] = _compare(_outputs(Path(folder) / f"{method}.onnx", probe), wanted)
        best = max(fidelity, key=lambda method: fidelity[method]["sqnr_db"])
        shutil.copyfile(Path(folder) / f"{best}.onnx", out)
    return {"calibration_samples": samples, "calibration": best, "fidelity": fidelity}


_BUILDERS = {"none": _copy, "static": _static, "dynamic": _dynamic}


def _quantise(
    model: Path, policy: Policy, method: str, feeds: Mapping[str, NDArray[Any]], out: Path
) -> None:
    calibrate, extra = _CALIBRATION[method]
    with _toolchain("quantisation") as quantization:
        reader = _Reader(feeds, _fixed_batch(model))
        quantization.quantize_static(
            str(model),
            str(out),
            reader,
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(policy.ops),
            per_channel=True,
            reduce_range=policy.reduce_range,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=getattr(quantization.CalibrationMethod, calibrate),
            calibration_providers=["CPUExecutionProvider"],
            extra_options={"CalibStridedMinMax": 1, **extra},
        )
    _tidy(out)


class _Reader:
    """Calibration samples in batches, as ONNX Runtime's calibrators ask for them.

    Its length counts batches and `set_range` picks some: the calibrator then folds one batch
    after another into its ranges and holds the values of one batch only.
    """

    def __init__(self, feeds: Mapping[str, NDArray[Any]], fixed: int | None) -> None:
        size = fixed or _BATCH
        count = samples_in(feeds)
        starts = range(0, max(size, count - count % size if fixed else count), size)
        self._batches = [
            {name: _fill(values[at : at + size], fixed) for name, values in feeds.items()}
            for at in starts
        ]
        self._range = iter(range(len(self._batches)))

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Give these batches next."""
        self._range = iter(range(start_index, end_index))

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """Return the next batch; None after the last."""
        index = next(self._range, None)
        return None if index is None else self._batches[index]


def _fill(values: NDArray[Any], fixed: int | None) -> NDArray[Any]:
    """Repeat samples up to a fixed batch; ranges do not change by that."""
    if fixed is None or len(values) == fixed:
        return np.ascontiguousarray(values)
    return np.ascontiguousarray(values[np.arange(fixed) % len(values)])


def _affordable(
    methods: Sequence[str], model: Path, feeds: Mapping[str, NDArray[Any]]
) -> list[str]:
    """Leave histograms out where one batch of all inner values would not fit."""
    if len(methods) > 1 and _values_per_sample(model, feeds) * 4 * _BATCH > _MEMORY_LIMIT:
        return list(methods[:1])
    return list(methods)


def _values_per_sample(model: Path, feeds: Mapping[str, NDArray[Any]]) -> float:
    """Return how many values a sample makes inside the graph, from inferred shapes."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(onnx.load(str(model))).graph
    total = 0.0
    for value in graph.value_info:
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        total += float(np.prod([size or 1 for size in dims])) if dims else 0.0
    return total / (_fixed_batch(model) or 1)


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
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        reader = _Reader(feeds, _fixed_batch(model))
        parts = [session.run(None, reader.get_next())[0] for _ in range(len(reader))]
    except Exception as error:
        raise _failed("running", error) from error
    rows = np.concatenate(parts)
    return rows.reshape(len(rows), -1)


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
