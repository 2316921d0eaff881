"""From float32 to float16, node by node, with casts only where the two meet."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgekd.graph.canonical import drop_unread

__all__ = ["LARGEST", "to_half", "unsafe_constants"]

LARGEST = 65504.0
"""Largest finite float16."""

_FLOAT_INSIDE = """
    LayerNormalization InstanceNormalization GroupNormalization MeanVarianceNormalization
    RandomNormal RandomNormalLike RandomUniform RandomUniformLike EyeLike NonMaxSuppression
    RoiAlign GridSample DeformConv GRU LSTM RNN If Loop Scan Range
"""
FLOAT_INSIDE = frozenset(_FLOAT_INSIDE.split())
"""Operators that stay in float32: their statistics need it, or their definition does.

A layer normalisation in float16 costs a transformer its accuracy; pinned with casts around it,
it means the same in every version of TensorRT.
"""
_FLOAT_SLOTS: Mapping[str, tuple[int, ...]] = {"Resize": (1, 2)}
"""Inputs that are float32 whatever the rest is."""


def unsafe_constants(proto: Any) -> set[str]:
    """Return nodes that float16 would break by a constant of theirs.

    A value above 65504 becomes infinite; one below the smallest float16 becomes zero, which
    matters for a scalar such as an epsilon under a root.
    """
    held = {tensor.name: tensor for tensor in proto.graph.initializer}
    unsafe = set()
    for node in proto.graph.node:
        for name in node.input:
            if name in held and held[name].data_type == TensorProto.FLOAT:
                values = numpy_helper.to_array(held[name])
                if _overflows(values) or (values.size == 1 and _vanishes(values)):
                    unsafe.add(node.name)
    return unsafe


def _overflows(values: NDArray[Any]) -> bool:
    return bool(values.size and np.abs(values[np.isfinite(values)]).max(initial=0) > LARGEST)


def _vanishes(values: NDArray[Any]) -> bool:
    return bool(np.any((values != 0) & (values.astype(np.float16) == 0)))


def to_half(proto: Any, keep: Collection[str] = ()) -> Any:
    """Convert a model's arithmetic to float16; its inputs and outputs keep their types.

    Args:
        proto: An ``onnx.ModelProto`` whose nodes are in order and have names.
        keep: Names of nodes that stay in float32, beside the operators of `FLOAT_INSIDE`.

    Returns:
        A new model.
    """
    result = onnx.ModelProto.FromString(proto.SerializeToString())
    _Converter(result.graph, _floats(proto), frozenset(keep)).run()
    drop_unread(result.graph)
    del result.graph.value_info[:]
    return result


def _floats(proto: Any) -> set[str]:
    """Return the names of all float32 values."""
    graph = onnx.shape_inference.infer_shapes(proto).graph
    ports = (*graph.value_info, *graph.input, *graph.output)
    typed = {p.name for p in ports if p.type.tensor_type.elem_type == TensorProto.FLOAT}
    return typed | {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT}


@dataclass
class _Converter:
    graph: Any
    floats: set[str]
    keep: frozenset[str]
    nodes: list[Any] = field(default_factory=list)
    halves: set[str] = field(default_factory=set)
    """Values that are made in float16 under their old names."""
    casts: dict[tuple[str, int], str] = field(default_factory=dict)

    def run(self) -> None:
        """Rewrite the graph."""
        self.held = {tensor.name: tensor for tensor in self.graph.initializer}
        for node in self.graph.node:
            self._node(onnx.NodeProto.FromString(node.SerializeToString()))
        for port in self.graph.output:
            self._output(port.name)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)

    def _node(self, node: Any) -> None:
        half = node.name not in self.keep and node.op_type not in FLOAT_INSIDE
        wanted = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        fixed = _FLOAT_SLOTS.get(node.op_type, ())
        for slot, name in enumerate(node.input):
            if name in self.floats:
                kind = TensorProto.FLOAT if slot in fixed else wanted
                node.input[slot] = self._as(name, kind)
        self.nodes.append(node)
        if half:
            _attributes(node)
            self.halves |= {name for name in node.output if name in self.floats}

    def _as(self, name: str, kind: int) -> str:
        """Return the name of a float value in another type, cast or converted once."""
        now = TensorProto.FLOAT16 if name in self.halves else TensorProto.FLOAT
        if now == kind:
            return name
        if (name, kind) not in self.casts:
            self.casts[name, kind] = self._convert(name, kind)
        return self.casts[name, kind]

    def _convert(self, name: str, kind: int) -> str:
        fresh = f"{name}__{'half' if kind == TensorProto.FLOAT16 else 'float'}"
        if name in self.held:
            values = numpy_helper.to_array(self.held[name]).astype(np.float16)
            self.graph.initializer.append(numpy_helper.from_array(values, fresh))
        else:
            self.nodes.append(helper.make_node("Cast", [name], [fresh], f"{fresh}_cast", to=kind))
        return fresh

    def _output(self, name: str) -> None:
        """Give an output that is made in float16 back in float32, under its own name."""
        if name not in self.halves:
            return
        inner = f"{name}__inner"
        for node in self.nodes:
            for slots in (node.input, node.output):
                slots[:] = [inner if slot == name else slot for slot in slots]
        cast = helper.make_node("Cast", [inner], [name], f"{inner}_cast", to=TensorProto.FLOAT)
        self.nodes.append(cast)


def _attributes(node: Any) -> None:
    """Convert the float32 that a node carries itself: what it casts to, what it holds."""
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16
        if attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(attribute.t).astype(np.float16)
            attribute.t.CopyFrom(numpy_helper.from_array(values, attribute.t.name))
