"""From a torch network to an ONNX file: exported, optimised, simplified, and equal after each.

Every pass is followed by a comparison with torch at two batch sizes, so that a defect of a tool
is blamed on that tool and not found later as a loss of accuracy.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekd.agent.quiet import open_onnx, silence
from edgekd.errors import RecipeError, StageError
from edgekd.graph.canonical import canonicalise, save
from edgekd.spec import Input

__all__ = ["export_onnx"]

MAX_ABS = 1e-4
"""Largest error that a pass may leave, as a share of the largest output (at least 1)."""
MIN_COSINE = 0.9999
OLDEST_OPSET = 18
"""The oldest operator set that torch's exporter writes."""
BATCH = "batch"
_SKIPPED = ["fuse_matmul_add_bias_into_gemm", "fuse_matmul_add_bias_into_gemm_batched"]
"""Passes of the simplifier that wrap products of 3-D and 4-D tensors in two Reshapes each."""
_MESSAGE_LIMIT = 400


class BytesInput(nn.Module):
    """A network that takes camera bytes: layout and normalisation inside.

    Args:
        model: The network, which takes prepared floats (batch, channels, height, width).
        mean: Per channel, of values divided by 255; None passes the bytes as floats 0 to 255.
        std: Per channel.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, model: nn.Module, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
    ) -> None:
        super().__init__()
        self.model = model
        centre = torch.tensor(mean or (0.0,), dtype=torch.float64).reshape(1, -1, 1, 1)
        width = torch.tensor(std or (1.0,), dtype=torch.float64).reshape(1, -1, 1, 1)
        full = 1.0 if mean is None else 255.0
        self.register_buffer("scale", (1 / (full * width)).float())
        self.register_buffer("shift", (-centre / width).float())

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's output for bytes (batch, height, width, channels)."""
        prepared = x.permute(0, 3, 1, 2).float() * self.scale + self.shift
        out: Tensor = self.model(prepared)
        return out


def export_onnx(
    model: nn.Module,
    input: Input,
    out: Path,
    *,
    samples: Tensor,
    output_name: str = "output",
    opset: int = 18,
) -> dict[str, Any]:
    """Write a network as ONNX, in float32, with a free batch.

    Args:
        model: The network; one tensor in, one out. Its mode is left as it was.
        input: Its tensor contract.
        out: The file to write.
        samples: At least four prepared samples to compare on; for ``uint8_nhwc`` bytes or
            prepared floats.
        output_name: How the graph calls its output.
        opset: Version of the operator set. torch exports 18 at least; an older one is converted
            to, where the operators allow it.

    Returns:
        ``opset`` (that of the file), ``nodes_before``, ``nodes``, ``ops``, ``passes`` (name and
        error of each) and ``io``.

    Raises:
        StageError: The network cannot be exported, or a pass changed what it computes.
        RecipeError: The contract does not fit the network.
    """
    silence()
    network, feed = _wrapped(model, input, samples)
    with _evaluating(network):
        reference = _reference(network, feed, samples)
        program = _exported(network, input, feed, output_name, opset)
    _check_opset(program.model_proto, opset)
    before = len(program.model_proto.graph.node)
    gate = _Gate(input.name, feed.numpy(), reference)
    gate.check("exporter", program.model_proto)
    proto = gate.apply("optimiser", lambda: _optimised(program))
    proto = gate.apply("simplifier", lambda: _simplified(proto))
    proto = gate.apply("batch norm", lambda: _without_batch_norm(proto))
    if opset < _default_opset(proto):
        proto = gate.apply("opset", lambda: _lowered(proto, opset))
    proto = gate.apply("canonical", lambda: _canonical(proto))
    out.parent.mkdir(parents=True, exist_ok=True)
    save(proto, out)
    return {
        "opset": _default_opset(proto),
        "nodes_before": before,
        "nodes": len(proto.graph.node),
        "ops": dict(sorted(Counter(node.op_type for node in proto.graph.node).items())),
        "passes": gate.passes,
        "io": _io(proto, input),
    }


@dataclass
class _Gate:
    """Compares a graph with torch after every pass, and keeps the record."""

    name: str
    feed: NDArray[Any]
    reference: NDArray[Any]
    passes: list[dict[str, Any]] = field(default_factory=list)

    def apply(self, title: str, run: Callable[[], Any]) -> Any:
        """Run a pass and check what it made."""
        try:
            proto = run()
        except StageError:
            raise
        except Exception as error:
            raise StageError(f"export pass {title!r} failed: {_last_line(error)}") from error
        self.check(title, proto)
        return proto

    def check(self, title: str, proto: Any) -> None:
        """Compare one graph with torch, all samples at once and the first one alone."""
        try:
            found = _run_onnx(proto, self.name, self.feed)
            single = _run_onnx(proto, self.name, self.feed[:1])
        except Exception as error:
            raise StageError(
                f"the graph after export pass {title!r} does not run: {_last_line(error)}"
            ) from error
        wanted = np.concatenate((self.reference, self.reference[:1]))
        if found.shape != self.reference.shape or single.shape != self.reference[:1].shape:
            raise StageError(
                f"export pass {title!r} changed the shape of the output: found {found.shape}, "
                f"torch gives {self.reference.shape}"
            )
        error_, cosine = _distance(np.concatenate((found, single)), wanted)
        self.passes.append({"pass": title, "max_abs": error_, "min_cosine": cosine})
        limit = MAX_ABS * max(1.0, float(np.abs(wanted).max(initial=0)))
        if not (error_ <= limit and cosine >= MIN_COSINE):
            raise StageError(
                f"export pass {title!r} changed the network: largest error {error_:.3g} (limit "
                f"{limit:.3g}), smallest cosine {cosine:.6f} (limit {MIN_COSINE})",
                hint="another opset, or the network written with other operations, may help",
            )


def _wrapped(model: nn.Module, input: Input, samples: Tensor) -> tuple[nn.Module, Tensor]:
    """Return the network as it is exported, and the samples that it takes."""
    if len(samples) < 1:
        raise StageError("export needs samples to compare on, found none")
    if input.form == "float32_nchw":
        return model, samples.detach().cpu().float().contiguous()
    if len(input.shape) != 3:
        raise RecipeError(
            f"input {input.name!r} has form 'uint8_nhwc' and shape {input.shape}; it needs "
            "(channels, height, width)"
        )
    return BytesInput(model, input.mean, input.std), _as_bytes(samples.detach().cpu(), input)


def _as_bytes(samples: Tensor, input: Input) -> Tensor:
    """Undo the preparation of images; bytes pass unchanged."""
    if samples.dtype == torch.uint8:
        return samples.contiguous()
    mean = torch.tensor(input.mean or (0.0,)).reshape(1, -1, 1, 1)
    std = torch.tensor(input.std or (1.0,)).reshape(1, -1, 1, 1)
    full = 1.0 if input.mean is None else 255.0
    raw = ((samples * std + mean) * full).round().clamp(0, 255)
    return raw.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _reference(network: nn.Module, feed: Tensor, samples: Tensor) -> NDArray[Any]:
    """Return torch's own output on the processor.

    The preparation that the graph does itself is compared too, when the samples are floats.
    """
    with torch.no_grad():
        inner = isinstance(network, BytesInput) and samples.dtype != torch.uint8
        result: Any = (
            cast(Any, network.model)(samples.detach().cpu().float()) if inner else network(feed)
        )
    if not isinstance(result, Tensor):
        raise RecipeError(f"the network returns {type(result).__name__}; export needs one tensor")
    array: NDArray[Any] = result.float().numpy()
    return array


def _exported(network: nn.Module, input: Input, feed: Tensor, output_name: str, opset: int) -> Any:
    """Run torch's exporter with a free batch."""
    with warnings.catch_warnings(), _hushed("torch.onnx", "torch.export", "onnxscript"):
        warnings.simplefilter("ignore")
        try:
            return torch.onnx.export(
                network,
                (feed[:2] if len(feed) > 1 else feed.repeat(2, *[1] * (feed.ndim - 1)),),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim(BATCH)},),
                opset_version=opset,
                input_names=[input.name],
                output_names=[output_name],
                optimize=False,
                verbose=False,
            )
        except Exception as error:
            raise StageError(
                f"the network cannot be exported to ONNX: {_reason(error)}",
                hint="write that part with other operations; the batch must stay free",
            ) from error


def _optimised(program: Any) -> Any:
    with _hushed("onnxscript", "onnx_ir"):
        program.optimize()
    return program.model_proto


def _simplified(proto: Any) -> Any:
    """Run the simplifier; its result counts only when it is the smaller graph."""
    import onnxsim

    smaller, _ = onnxsim.simplify(proto, skipped_optimizers=_SKIPPED)
    return smaller if len(smaller.graph.node) <= len(proto.graph.node) else proto


def _without_batch_norm(proto: Any) -> Any:
    """Replace what no pass could fold (after a concatenation, say) by a product and a sum."""
    result = onnx.ModelProto.FromString(proto.SerializeToString())
    graph = result.graph
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes: list[Any] = []
    for node in graph.node:
        if node.op_type != "BatchNormalization":
            nodes.append(node)
            continue
        scale, shift = _affine(node, held)
        rank = _rank(result, node.input[0])
        for part, values in (("scale", scale), ("shift", shift)):
            shaped = values.reshape(-1, *[1] * (rank - 2))
            name = f"{node.output[0]}_{part}"
            graph.initializer.append(onnx.numpy_helper.from_array(shaped, name))
        middle = f"{node.output[0]}_scaled"
        nodes.append(
            onnx.helper.make_node("Mul", [node.input[0], f"{node.output[0]}_scale"], [middle])
        )
        nodes.append(
            onnx.helper.make_node("Add", [middle, f"{node.output[0]}_shift"], [node.output[0]])
        )
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return result


def _affine(node: Any, held: dict[str, NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return factor and offset of a batch norm in evaluation mode."""
    epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
    gain, bias, mean, variance = (held[name].astype(np.float64) for name in node.input[1:5])
    factor = gain / np.sqrt(variance + epsilon)
    return factor.astype(np.float32), (bias - mean * factor).astype(np.float32)


def _rank(proto: Any, name: str) -> int:
    """Return how many axes a value has."""
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    for value in (*inferred.value_info, *inferred.input):
        if value.name == name:
            return len(value.type.tensor_type.shape.dim)
    raise ValueError(f"the rank of {name!r} is not known")


def _default_opset(proto: Any) -> int:
    """Return the version of ONNX's own operators that a model is written for."""
    return next(int(entry.version) for entry in proto.opset_import if entry.domain == "")


def _check_opset(proto: Any, wanted: int) -> None:
    """Refuse what the exporter wrote for a newer operator set than it was asked for.

    It ignores versions below its oldest; those are converted to by a pass of our own.
    """
    found = _default_opset(proto)
    if found != max(wanted, OLDEST_OPSET):
        raise StageError(
            f"torch exported operator set {found} instead of {wanted}",
            hint=f"set the target's opset to {found}",
        )


def _lowered(proto: Any, opset: int) -> Any:
    """Rewrite a graph for an older operator set.

    Raises:
        StageError: An operator of the graph does not exist there; it is named.
    """
    try:
        result = onnx.version_converter.convert_version(proto, opset)
        for node in result.graph.node:
            _without_newer_attributes(node, opset)
        onnx.checker.check_model(result, full_check=True)
    except Exception as error:
        raise StageError(
            f"the graph cannot be written for operator set {opset}: {_last_line(error)}",
            hint=f"set the target's opset to {OLDEST_OPSET} or later",
        ) from error
    return result


def _without_newer_attributes(node: Any, opset: int) -> None:
    """Drop attributes that the converter leaves behind and that change nothing when zero."""
    known = onnx.defs.get_schema(node.op_type, opset, node.domain).attributes
    kept = [a for a in node.attribute if a.name in known or a.i != 0]
    if len(kept) < len(node.attribute):
        copies = [onnx.AttributeProto.FromString(a.SerializeToString()) for a in kept]
        del node.attribute[:]
        node.attribute.extend(copies)


def _canonical(proto: Any) -> Any:
    result = onnx.ModelProto.FromString(proto.SerializeToString())
    canonicalise(result)
    onnx.checker.check_model(result, full_check=True)
    return result


def _run_onnx(proto: Any, name: str, feed: NDArray[Any]) -> NDArray[Any]:
    """Run a graph without the runtime's own optimisations: the graph itself is on trial."""
    threads = max(1, torch.get_num_threads())
    session = open_onnx(proto.SerializeToString(), threads=threads, level="basic")
    result: NDArray[Any] = session.run(None, {name: feed})[0]
    return result


def _distance(found: NDArray[Any], wanted: NDArray[Any]) -> tuple[float, float]:
    """Return the largest error and the smallest cosine over the samples."""
    a = found.reshape(len(found), -1).astype(np.float64)
    b = wanted.reshape(len(wanted), -1).astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    same = np.isclose(a, b, atol=1e-12).all(axis=1)
    cosine = np.where(same, 1.0, (a * b).sum(1) / np.maximum(norms, 1e-30))
    return float(np.abs(a - b).max(initial=0)), float(cosine.min(initial=1.0))


def _io(proto: Any, input: Input) -> dict[str, Any]:
    """Describe what the graph takes and gives; shapes are those of one sample."""
    taken = [
        {
            **_port(port),
            "form": input.form,
            "mean": None if input.mean is None else list(input.mean),
            "std": None if input.std is None else list(input.std),
        }
        for port in proto.graph.input
    ]
    return {"inputs": taken, "outputs": [_port(port) for port in proto.graph.output]}


def _port(port: Any) -> dict[str, Any]:
    kind = port.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    shape = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
    return {"name": port.name, "shape": shape[1:], "dtype": str(dtype)}


@contextmanager
def _hushed(*loggers: str) -> Iterator[None]:
    """Keep the tools' own chatter off the terminal."""
    levels = [(logging.getLogger(name), logging.getLogger(name).level) for name in loggers]
    for logger, _ in levels:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in levels:
            logger.setLevel(level)


def _reason(error: BaseException) -> str:
    """Return the line that says why, from the innermost cause of the exporter's error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return _last_line(error)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text[:_MESSAGE_LIMIT]
