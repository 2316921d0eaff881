"""Small graphs with one fault each, that TensorRT refuses or does badly."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT8, UINT8, INT32, INT64 = (
    TensorProto.FLOAT,
    TensorProto.INT8,
    TensorProto.UINT8,
    TensorProto.INT32,
    TensorProto.INT64,
)
RNG = np.random.default_rng(0)
SHAPE = (1, 8, 8, 8)


def node(kind, inputs, outputs, name="planted", **attributes):
    return helper.make_node(kind, inputs, outputs, name=name, **attributes)


def model(nodes, held=None, *, opset=18, out=None, dtype=FLOAT, extra=()):
    """A model from ``x`` (1, 8, 8, 8) to ``y``; ``held``: initialisers by name."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "planted",
        [value("x", FLOAT, SHAPE), *extra],
        [value("y", dtype, out)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (held or {}).items()],
    )
    domains = {n.domain for n in nodes if n.domain}
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def pair(zero, kind=np.int8, scale=0.1):
    """x → QuantizeLinear → DequantizeLinear → y."""
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["y"], "back"),
    ]
    return model(nodes, {"s": np.float32(scale), "z": kind(zero)})


def good():
    """Convolution with symmetric pairs, as it should be."""
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"], "quantise"),
        node("DequantizeLinear", ["q", "s", "z"], ["d"], "dequantise"),
        node("DequantizeLinear", ["w", "ws", "wz"], ["dw"], "weights", axis=0),
        node("Conv", ["d", "dw", "b"], ["y"], "conv"),
    ]
    held = {
        "s": np.float32(0.1),
        "z": np.int8(0),
        "w": RNG.integers(-127, 128, (16, 8, 3, 3)).astype(np.int8),
        "ws": np.full(16, 0.01, np.float32),
        "wz": np.zeros(16, np.int8),
        "b": np.zeros(16, np.float32),
    }
    return model(nodes, held)


def bias():
    """A bias kept as INT32, as ONNX Runtime's quantiser does."""
    nodes = [
        node("DequantizeLinear", ["b32", "bs", "bz"], ["b"]),
        node("Conv", ["x", "w", "b"], ["y"], "conv"),
    ]
    held = {
        "b32": np.arange(4, dtype=np.int32),
        "bs": np.float32(0.01),
        "bz": np.int32(0),
        "w": RNG.normal(size=(4, 8, 3, 3)).astype(np.float32),
    }
    return model(nodes, held)


def qlinear():
    """A convolution in the operator-oriented form."""
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"], "quantise"),
        node("QLinearConv", ["q", "s", "z", "w", "s", "z", "s", "z"], ["c"]),
        node("DequantizeLinear", ["c", "s", "z"], ["y"], "back"),
    ]
    w = RNG.integers(-127, 128, (4, 8, 3, 3)).astype(np.int8)
    return model(nodes, {"s": np.float32(0.1), "z": np.int8(0), "w": w})


def layer_norm(*, written_out):
    """Normalisation over the last axis, as one node or as nine."""
    held = {"gain": np.ones(8, np.float32), "shift": np.zeros(8, np.float32)}
    if not written_out:
        return model([node("LayerNormalization", ["x", "gain", "shift"], ["y"], "norm")], held)
    held |= {"two": np.float32(2), "eps": np.float32(1e-5), "axes": np.array([-1])}
    nodes = [
        node("ReduceMean", ["x", "axes"], ["mean"], "mean"),
        node("Sub", ["x", "mean"], ["centred"], "sub"),
        node("Pow", ["centred", "two"], ["squares"]),
        node("ReduceMean", ["squares", "axes"], ["variance"], "variance"),
        node("Add", ["variance", "eps"], ["sum"], "add"),
        node("Sqrt", ["sum"], ["deviation"], "sqrt"),
        node("Div", ["centred", "deviation"], ["unit"], "div"),
        node("Mul", ["unit", "gain"], ["scaled"], "mul"),
        node("Add", ["scaled", "shift"], ["y"], "shift"),
    ]
    return model(nodes, held)


def resize(**attributes):
    """A resize whose sizes come from another tensor's shape."""
    computed = attributes.pop("computed", False)
    if not computed:
        held = {"none": np.zeros(0, np.float32), "scales": np.array([1, 1, 2, 2], np.float32)}
        return model([node("Resize", ["x", "none", "scales"], ["y"], **attributes)], held)
    nodes = [
        node("Shape", ["x"], ["shape"], "shape"),
        node("Resize", ["x", "", "", "shape"], ["y"], **attributes),
    ]
    return model(nodes)


def simple(kind, *more, opset=18, held=None, dtype=FLOAT, **attributes):
    """One node after ``x``."""
    made = node(kind, ["x", *more], ["y"], **attributes)
    return model([made], held, opset=opset, dtype=dtype)
