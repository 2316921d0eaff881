"""Bake enrolled classes into a graph: features in, scores of classes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgekd.errors import StageError
from edgekd.graph.canonical import canonicalise, save

OUTPUT = "scores"
_SMALLEST = 1e-12


def bake_prototypes(
    model: Path, base_mean: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any], out: Path
) -> None:
    """Append (features − base mean) / length and a linear layer to a graph.

    The arg max of the new output ``scores`` is the nearest class mean when weight and bias are
    those of `edgekd.tasks.enroll.Enroller.linear_head`.

    Args:
        model: Graph whose first output is (batch, features).
        base_mean: (features,).
        weight: (classes, features).
        bias: (classes,).
        out: The file to write.

    Raises:
        StageError: The shapes do not fit one another.
    """
    proto = onnx.load(str(model))
    features = _features(proto)
    _check(features, base_mean, weight, bias)
    constants = {
        "mean": base_mean.reshape(1, -1),
        "axes": np.array([1], np.int64),
        "smallest": np.array(_SMALLEST),
        "weight": weight,
        "bias": bias,
    }
    for name, values in constants.items():
        kind = np.int64 if name == "axes" else np.float32
        tensor = onnx.numpy_helper.from_array(np.asarray(values, kind), f"head/{name}")
        proto.graph.initializer.append(tensor)
    proto.graph.node.extend(_nodes(proto.graph.output[0].name))
    del proto.graph.output[:]
    proto.graph.output.append(
        onnx.helper.make_tensor_value_info(
            OUTPUT, onnx.TensorProto.FLOAT, [_batch(proto), len(weight)]
        )
    )
    canonicalise(proto)
    onnx.checker.check_model(proto, full_check=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    save(proto, out)


def _nodes(features: str) -> list[Any]:
    """Return the head; written with operations that every runtime has at every opset."""
    make = onnx.helper.make_node
    return [
        make("Sub", [features, "head/mean"], ["head/centred"]),
        make("Mul", ["head/centred", "head/centred"], ["head/squares"]),
        make("ReduceSum", ["head/squares", "head/axes"], ["head/sum"], keepdims=1),
        make("Sqrt", ["head/sum"], ["head/length"]),
        make("Max", ["head/length", "head/smallest"], ["head/divisor"]),
        make("Div", ["head/centred", "head/divisor"], ["head/unit"]),
        make("Gemm", ["head/unit", "head/weight", "head/bias"], [OUTPUT], transB=1),
    ]


def _features(proto: Any) -> int | None:
    dims = proto.graph.output[0].type.tensor_type.shape.dim
    if len(dims) != 2:
        raise StageError(f"the graph's output has {len(dims)} axes; a head needs (batch, features)")
    return int(dims[1].dim_value) if dims[1].HasField("dim_value") else None


def _check(
    features: int | None, mean: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any]
) -> None:
    width = mean.size if features is None else features
    if mean.shape != (width,) or weight.shape[1:] != (width,) or bias.shape != weight.shape[:1]:
        raise StageError(
            f"the head does not fit {width} features: base mean {mean.shape}, weight "
            f"{weight.shape}, bias {bias.shape}"
        )


def _batch(proto: Any) -> str | int:
    dim = proto.graph.input[0].type.tensor_type.shape.dim[0]
    return int(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "batch"
