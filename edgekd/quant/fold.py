"""Fold the scales of heterogeneous input features into the first layer.

One tensor has one quantisation step. Where kilowatts and prices stand side by side, the step of
the largest feature swallows the smallest: each feature is divided by a power of two that brings
it near one, and the layer that reads it multiplies its weights by the same. Powers of two change
no bit of a product, so the float network stays what it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.inputs import Rows

__all__ = ["SPREAD", "fold_input_scales"]

SPREAD = 8.0
"""Ratio of the largest to the smallest feature from which folding pays: three of eight bits."""
_FEW = 16


def fold_input_scales(model: Any, feeds: Mapping[str, NDArray[Any] | Rows]) -> dict[str, Any]:
    """Scale the features of every float input to about one; the model is changed in place.

    Args:
        model: ONNX model.
        feeds: Samples by input name, axis 0 counts them.

    Returns:
        Input → ``folded``, ``spread`` (largest feature over smallest), ``scales`` or ``why`` not.
    """
    return {name: _fold_one(model, name, values) for name, values in feeds.items()}


def _fold_one(model: Any, name: str, values: NDArray[Any] | Rows) -> dict[str, Any]:
    if values.dtype != np.float32 or values.ndim < 2:
        return {"folded": False, "why": "no float features"}
    graph = model.graph
    held = {tensor.name: tensor for tensor in graph.initializer}
    readers = [node for node in graph.node if name in node.input]
    axes = {_feature_axis(node, name, held, values.ndim) for node in readers}
    if len(axes) != 1 or None in axes:
        kinds = sorted({str(node.op_type) for node in readers})
        return {"folded": False, "why": f"read by {', '.join(kinds)}, not by weights alone"}
    (axis,) = axes
    assert axis is not None
    peaks = _peaks(values, axis)
    spread = float(peaks.max() / peaks[peaks > 0].min()) if (peaks > 0).any() else 1.0
    if spread < SPREAD:
        return {"folded": False, "spread": spread, "why": f"features differ by {spread:.3g} only"}
    scales = np.exp2(np.ceil(np.log2(np.where(peaks > 0, peaks, 1.0)))).astype(np.float32)
    _insert(model, name, scales, axis, values.ndim)
    for node in readers:
        _scale_weights(graph, node, scales, f"{name}_scaled", name)
    return {"folded": True, "spread": spread, "scales": scales.tolist()}


def _peaks(values: NDArray[Any] | Rows, axis: int) -> NDArray[Any]:
    """Return the largest magnitude of every feature, a few samples at a time."""
    others = tuple(i for i in range(values.ndim) if i != axis)
    parts = (values[start : start + _FEW] for start in range(0, len(values), _FEW))
    return np.asarray(np.max([np.abs(part).max(axis=others) for part in parts], axis=0))


def _feature_axis(node: Any, name: str, held: Mapping[str, Any], rank: int) -> int | None:
    """Return the axis of features, where the node multiplies each with weights of its own."""
    if list(node.input).count(name) != 1 or node.input[0] != name or len(node.input) < 2:
        return None
    if node.input[1] not in held:
        return None
    flags = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type == "Conv" and flags.get("group", 1) == 1:
        return 1
    if node.op_type == "MatMul" and len(held[node.input[1]].dims) == 2:
        return rank - 1
    if node.op_type == "Gemm" and not flags.get("transA", 0):
        return 1
    return None


def _insert(model: Any, name: str, scales: NDArray[np.float32], axis: int, rank: int) -> None:
    import onnx

    shape = [-1 if i == axis else 1 for i in range(1, rank)]
    factor = onnx.numpy_helper.from_array((1 / scales).reshape(shape), f"{name}_scale")
    model.graph.initializer.append(factor)
    node = onnx.helper.make_node("Mul", [name, f"{name}_scale"], [f"{name}_scaled"], "scale_input")
    model.graph.node.insert(0, node)


def _scale_weights(
    graph: Any, node: Any, scales: NDArray[np.float32], scaled: str, name: str
) -> None:
    """Give a reader weights of its own, multiplied along the features."""
    import onnx

    held = next(tensor for tensor in graph.initializer if tensor.name == node.input[1])
    weights = onnx.numpy_helper.to_array(held)
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    axis = 1 if node.op_type == "Conv" or transposed else weights.ndim - 2
    shape = [-1 if i == axis else 1 for i in range(weights.ndim)]
    mine = f"{held.name}_for_{node.output[0]}"
    graph.initializer.append(onnx.numpy_helper.from_array(weights * scales.reshape(shape), mine))
    node.input[0], node.input[1] = scaled, mine
    if not any(held.name in other.input for other in graph.node):
        graph.initializer.remove(held)
