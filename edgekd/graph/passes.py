"""The passes over an exported graph, each a function from one ONNX model to another."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgekd.errors import StageError

__all__ = ["fold_batch_norms", "simplify", "split_normalisations"]

NO_GEMM = ("fuse_matmul_add_bias_into_gemm", "fuse_matmul_add_bias_into_gemm_batched")
"""Passes of onnxsim to leave out.

They wrap every linear layer over tokens into Reshape, Gemm, Reshape: measured on MobileViT-XXS,
9 % slower in OpenVINO's int8 and no faster elsewhere.
"""


def simplify(model: Any) -> Any:
    """Fold constants and remove what does nothing, with onnxsim."""
    import onnxsim

    result, sound = onnxsim.simplify(model, skipped_optimizers=list(NO_GEMM))
    if not sound:
        raise StageError("onnxsim reports that its result differs from its input")
    return result


def split_normalisations(model: Any) -> Any:
    """Turn a BatchNormalization that no convolution could take up into Mul and Add.

    One after a Concat or before a convolution stays behind. Left in place, it made OpenVINO die
    on the quantised graph of another runtime.

    Raises:
        StageError: It is in training mode, or its statistics are not constant.
    """
    if not any(node.op_type == "BatchNormalization" for node in model.graph.node):
        return model
    result = onnx.shape_inference.infer_shapes(model)
    constants = {t.name: numpy_helper.to_array(t) for t in result.graph.initializer}
    ranks = _ranks(result.graph)
    nodes = []
    for node in result.graph.node:
        if node.op_type != "BatchNormalization":
            nodes.append(node)
            continue
        factor, offset = _affine(node, constants)
        shape = (-1, *(1,) * (ranks[node.input[0]] - 2))
        nodes += _multiply_add(result.graph, node, factor.reshape(shape), offset.reshape(shape))
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return _without_unused(result)


def fold_batch_norms(model: Any) -> None:
    """Confirm that no BatchNormalization is left.

    Raises:
        StageError: One is.
    """
    left = [node.name for node in model.graph.node if node.op_type == "BatchNormalization"]
    if left:
        raise StageError(f"{len(left)} BatchNormalization nodes were not folded", at=left[0])


def _affine(node: Any, constants: dict[str, Any]) -> tuple[Any, Any]:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if attributes.get("training_mode", 0) or any(n not in constants for n in node.input[1:5]):
        raise StageError(
            "a BatchNormalization still learns its statistics",
            at=node.name,
            hint="build it with track_running_stats=True",
        )
    scale, bias, mean, variance = (constants[n].astype(np.float64) for n in node.input[1:5])
    factor = scale / np.sqrt(variance + attributes.get("epsilon", 1e-5))
    return factor.astype(np.float32), (bias - mean * factor).astype(np.float32)


def _multiply_add(graph: Any, node: Any, factor: Any, offset: Any) -> list[Any]:
    base = node.output[0]
    names = {part: f"{base}/{part}" for part in ("factor", "offset", "scaled")}
    graph.initializer.extend(
        [
            numpy_helper.from_array(factor, names["factor"]),
            numpy_helper.from_array(offset, names["offset"]),
        ]
    )
    return [
        helper.make_node("Mul", [node.input[0], names["factor"]], [names["scaled"]]),
        helper.make_node("Add", [names["scaled"], names["offset"]], [base]),
    ]


def _ranks(graph: Any) -> dict[str, int]:
    ports = (*graph.input, *graph.output, *graph.value_info)
    return {port.name: len(port.type.tensor_type.shape.dim) for port in ports}


def _without_unused(model: Any) -> Any:
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model
