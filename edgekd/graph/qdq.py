"""Explicit quantisation for TensorRT: where pairs of Quantize and Dequantize stand.

The policy, from what NVIDIA documents and measured:

* symmetric int8, activations per tensor, weights per output channel, biases in floating point;
* inputs of convolutions and of products with constant weights are quantised, outputs are not,
  so that what follows (SiLU, softmax, layer norm) keeps its precision;
* a residual addition gets a pair on the skip input only: convolution and addition then fuse;
* products of two activations (attention), products with one row or column (they are bound by
  memory) and layers with few channels stay in floating point.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgekd.graph.canonical import drop_unread

__all__ = ["SMALLEST_SCALE", "Site", "insert", "sites"]

NARROW = 16
"""Channels below this are quantised only when 8 divides them."""
SMALLEST_SCALE = 2.0**-14
"""Smallest normal float16: a scale below would lose its digits."""
PRODUCTS = ("Conv", "ConvTranspose", "MatMul", "Gemm")


@dataclass(frozen=True)
class Site:
    """One input of one node that is quantised.

    Attributes:
        node: Name of the node.
        slot: Which input.
        value: Name of the value there.
        axis: Axis of the output channels of a weight; None for an activation.
        role: ``activation``, ``weight`` or ``skip``.
    """

    node: str
    slot: int
    value: str
    axis: int | None = None
    role: str = "activation"


def sites(proto: Any, never: Collection[str] = ()) -> list[Site]:
    """Decide what is quantised.

    Args:
        proto: A float32 model in order, its first axis the batch.
        never: Operator types that keep floating point.
    """
    graph = _Shaped(proto)
    found: list[Site] = []
    quantised: set[str] = set()
    for node in proto.graph.node:
        if node.op_type in PRODUCTS and node.op_type not in never:
            axis = _weight_axis(node, graph)
            if axis is not None:
                quantised.add(node.output[0])
                found.append(Site(node.name, 0, node.input[0]))
                found.append(Site(node.name, 1, node.input[1], axis, "weight"))
    if "Add" not in never:
        found += _skips(proto, graph, quantised)
    return found


class _Shaped:
    """Shapes at batch 1, constants, and how often a value is read."""

    def __init__(self, proto: Any) -> None:
        single = onnx.ModelProto.FromString(proto.SerializeToString())
        held = {tensor.name: tensor for tensor in proto.graph.initializer}
        for port in single.graph.input:
            dims = port.type.tensor_type.shape.dim
            if len(dims) and not dims[0].HasField("dim_value"):
                dims[0].dim_value = 1
        inferred = onnx.shape_inference.infer_shapes(single, data_prop=True).graph
        self.held: Mapping[str, Any] = held
        self.shapes: dict[str, list[int]] = {n: list(t.dims) for n, t in held.items()}
        for port in (*inferred.value_info, *inferred.input, *inferred.output):
            dims = port.type.tensor_type.shape.dim
            if all(dim.HasField("dim_value") for dim in dims):
                self.shapes[port.name] = [dim.dim_value for dim in dims]
        names = [name for node in proto.graph.node for name in node.input]
        names += [port.name for port in proto.graph.output]
        self.reads: dict[str, int] = {name: names.count(name) for name in set(names)}


def _weight_axis(node: Any, graph: _Shaped) -> int | None:
    """Return the axis of the output channels; None when the node stays in floating point."""
    weight = graph.held.get(node.input[1])
    if weight is None or weight.data_type != onnx.TensorProto.FLOAT or node.input[0] in graph.held:
        return None
    shape = list(weight.dims)
    group = next((a.i for a in node.attribute if a.name == "group"), 1)
    if node.op_type == "Conv":
        return None if _narrow(shape[0], shape[1] * group) else 0
    if node.op_type == "ConvTranspose":
        return None if group != 1 or _narrow(shape[0], shape[1]) else 1
    if len(shape) != 2:
        return None
    across = next((a.i for a in node.attribute if a.name == "transB"), 0)
    inner, outer = (shape[1], shape[0]) if across else (shape[0], shape[1])
    if min(inner, outer) < NARROW or _rows(node, graph) == 1:
        return None
    return 0 if across else 1


def _narrow(*channels: int) -> bool:
    return any(count < NARROW and count % 8 for count in channels)


def _rows(node: Any, graph: _Shaped) -> int:
    """Return how many rows a product has for one sample; 1 makes it a product with a vector."""
    shape = graph.shapes.get(node.input[0])
    if shape is None:
        return 2
    return int(np.prod(shape[:-1], dtype=np.int64))


def _skips(proto: Any, graph: _Shaped, quantised: Collection[str]) -> Iterator[Site]:
    """Yield the skip input of every addition that closes a residual block.

    The other input is a quantised convolution that nothing else reads: the two fuse.
    """
    makers = {name: node for node in proto.graph.node for name in node.output}
    for node in proto.graph.node:
        if node.op_type != "Add" or any(name in graph.held for name in node.input):
            continue
        shapes = [graph.shapes.get(name) for name in node.input]
        if shapes[0] is None or shapes[0] != shapes[1]:
            continue
        for slot in (0, 1):
            fused, skip = node.input[slot], node.input[1 - slot]
            conv = makers.get(fused)
            closes = conv is not None and conv.op_type == "Conv" and fused in quantised
            if closes and graph.reads[fused] == 1:
                yield Site(node.name, 1 - slot, skip, role="skip")
                break


def insert(proto: Any, chosen: Sequence[Site], scales: Mapping[str, float]) -> Any:
    """Put the pairs in.

    Args:
        proto: The float32 model that `chosen` is about; it is not changed.
        chosen: `sites`.
        scales: Scale of every activation and skip value.

    Returns:
        A new model: weights are stored in int8 with a DequantizeLinear alone.
    """
    result = onnx.ModelProto.FromString(proto.SerializeToString())
    graph = result.graph
    held = {tensor.name: tensor for tensor in graph.initializer}
    by_node: dict[str, list[Site]] = {}
    for site in chosen:
        by_node.setdefault(site.node, []).append(site)
    nodes: list[Any] = []
    made: dict[str, str] = {}
    for node in graph.node:
        copy = onnx.NodeProto.FromString(node.SerializeToString())
        for site in by_node.get(node.name, ()):
            key = site.value if site.axis is None else f"{site.value}@{site.axis}"
            if key not in made:
                fresh = (
                    _activation(graph, site.value, scales[site.value])
                    if site.axis is None
                    else _weight(graph, held[site.value], site.axis)
                )
                nodes += fresh
                made[key] = fresh[-1].output[0]
            copy.input[site.slot] = made[key]
        nodes.append(copy)
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unread(graph)
    del graph.value_info[:]
    return result


def _activation(graph: Any, value: str, scale: float) -> list[Any]:
    s, z = f"{value}__scale", f"{value}__zero"
    floor = np.array(max(scale, SMALLEST_SCALE), np.float32)
    graph.initializer.append(numpy_helper.from_array(floor, s))
    graph.initializer.append(numpy_helper.from_array(np.zeros((), np.int8), z))
    q, d = f"{value}__q", f"{value}__dq"
    return [
        helper.make_node("QuantizeLinear", [value, s, z], [q], f"{q}_node"),
        helper.make_node("DequantizeLinear", [q, s, z], [d], f"{d}_node"),
    ]


def _weight(graph: Any, tensor: Any, axis: int) -> list[Any]:
    values = numpy_helper.to_array(tensor)
    integers, scale = quantise_weight(values, axis)
    name = f"{tensor.name}__int8_{axis}"
    parts = {name: integers, f"{name}_scale": scale, f"{name}_zero": np.zeros(len(scale), np.int8)}
    graph.initializer.extend(numpy_helper.from_array(part, n) for n, part in parts.items())
    return [
        helper.make_node("DequantizeLinear", list(parts), [f"{name}_dq"], f"{name}_node", axis=axis)
    ]


def quantise_weight(values: NDArray[Any], axis: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return int8 values and the scale of each output channel, symmetric about zero.

    The scale is rounded to float16 first: that is what will multiply the integers.
    """
    others = tuple(i for i in range(values.ndim) if i != axis)
    peak = np.abs(values.astype(np.float64)).max(axis=others)
    scale = np.maximum(peak / 127, SMALLEST_SCALE).astype(np.float16).astype(np.float32)
    shape = [-1 if i == axis else 1 for i in range(values.ndim)]
    integers = np.clip(np.rint(values / scale.reshape(shape)), -127, 127).astype(np.int8)
    return integers, scale
