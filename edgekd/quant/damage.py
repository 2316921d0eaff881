"""What quantising one layer, or one class of operators, does to the outputs: one at a time.

Everything else stays in float32, so that a figure belongs to one place of the graph. Weights are
rounded to int8 per output channel, symmetric; what a layer reads is rounded to 8 bits between the
measured extremes, per tensor, as static quantisers do. Both are simulated in floating point: the
damage of the numbers, not that of one runtime's kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.agent.quiet import open_onnx
from edgekd.compare import compare
from edgekd.errors import DataError
from edgekd.quant.ranges import Span

__all__ = ["KINDS", "Layer", "damages", "layers"]

KINDS = ("weights", "activations", "both")
_CHANNELS = {"Conv": 0, "ConvTranspose": 1}
_STILL = (
    "Constant", "Shape", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice",
    "Concat", "Split", "Gather", "Cast", "Identity", "Expand", "DepthToSpace", "SpaceToDepth",
    "QuantizeLinear", "DequantizeLinear",
)  # fmt: skip
"""Operators that move values and do not compute: they are quantised with what feeds them."""


@dataclass(frozen=True)
class Layer:
    """A node that can be quantised.

    Attributes:
        place: Its number in the order of the graph.
        name: Of the node.
        op: Operator type.
        weights: Its constant of two or more axes, where it has one: name and axis of channels.
        reads: Activations that it reads.
    """

    place: int
    name: str
    op: str
    weights: tuple[str, int] | None
    reads: tuple[str, ...]


def layers(proto: Any, spans: Mapping[str, Span]) -> list[Layer]:
    """List the layers of a graph in its order.

    Args:
        proto: A float32 model.
        spans: Measured extremes of its values; what has none is not quantised.
    """
    held = {tensor.name: tensor for tensor in proto.graph.initializer}
    found = []
    for place, node in enumerate(proto.graph.node):
        if node.op_type in _STILL:
            continue
        reads = tuple(dict.fromkeys(n for n in node.input if n in spans and n not in held))
        weights = _weights(node, held)
        if reads or weights:
            name = node.name or f"{node.op_type}_{place}"
            found.append(Layer(place, name, node.op_type, weights, reads))
    return found


def _weights(node: Any, held: Mapping[str, Any]) -> tuple[str, int] | None:
    if len(node.input) < 2 or node.op_type not in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
        return None
    tensor = held.get(node.input[1])
    if tensor is None or len(tensor.dims) < 2:
        return None
    across = any(a.name == "transB" and a.i for a in node.attribute)
    last = 0 if across else len(tensor.dims) - 1
    return str(tensor.name), _CHANNELS.get(node.op_type, last)


def rounded(values: NDArray[Any], axis: int) -> NDArray[Any]:
    """Round weights to int8 and back: symmetric, a scale for each index of an axis."""
    others = tuple(i for i in range(values.ndim) if i != axis)
    scale = np.maximum(np.abs(values).max(axis=others, keepdims=True) / 127, 1e-30)
    back = np.clip(np.rint(values / scale), -127, 127) * scale
    return np.asarray(back, values.dtype)


def quantised(proto: Any, chosen: Sequence[Layer], kind: str, spans: Mapping[str, Span]) -> Any:
    """Return a model in which some layers compute with 8 bits.

    Args:
        proto: The float32 model; it is not changed.
        chosen: The layers.
        kind: Row of `KINDS`.
        spans: Measured extremes of the values.
    """
    import onnx

    result = onnx.ModelProto.FromString(proto.SerializeToString())
    graph = result.graph
    nodes = list(graph.node)
    held = {tensor.name: tensor for tensor in graph.initializer}
    extra: dict[int, list[Any]] = {}
    for layer in chosen:
        node = nodes[layer.place]
        if kind != "activations" and layer.weights:
            name, axis = layer.weights
            values = rounded(onnx.numpy_helper.to_array(held[name]), axis)
            fresh = f"{name}__of_{layer.place}"
            graph.initializer.append(onnx.numpy_helper.from_array(values, fresh))
            node.input[1] = fresh
        if kind != "weights":
            for i, name in enumerate(node.input):
                if name in layer.reads:
                    stem = f"{name}__of_{layer.place}"
                    if stem not in {n.output[0] for n in extra.get(layer.place, ())}:
                        extra.setdefault(layer.place, []).extend(
                            _pair(graph, name, stem, spans[name])
                        )
                    node.input[i] = stem
    del graph.node[:]
    for place, node in enumerate(nodes):
        graph.node.extend([*extra.get(place, ()), node])
    return result


def _pair(graph: Any, name: str, out: str, span: Span) -> list[Any]:
    import onnx

    low, high = min(span[0], 0.0), max(span[1], 0.0)
    scale = max((high - low) / 255, 1e-30)
    zero = int(np.clip(round(-low / scale), 0, 255))
    values: dict[str, NDArray[Any]] = {
        "scale": np.array(scale, np.float32),
        "zero": np.array(zero, np.uint8),
    }
    for part, value in values.items():
        graph.initializer.append(onnx.numpy_helper.from_array(value, f"{out}_{part}"))
    s, z = f"{out}_scale", f"{out}_zero"
    make = onnx.helper.make_node
    return [
        make("QuantizeLinear", [name, s, z], [f"{out}_q"], f"{out}_quantise"),
        make("DequantizeLinear", [f"{out}_q", s, z], [out], f"{out}_back"),
    ]


Judge = Callable[[NDArray[Any]], float]


def damages(
    proto: Any,
    feeds: Mapping[str, NDArray[Any]],
    spans: Mapping[str, Span],
    judge: Judge | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Quantise every layer, every class of operators, and all of them, one at a time.

    Args:
        proto: A float32 model of one output.
        feeds: Samples that judge, by input name.
        spans: Measured extremes of the values.
        judge: The user's metric of the outputs; larger is better.
        say: Told what is being done.

    Returns:
        ``layers`` (in the graph's order), ``classes`` and ``all``: rows of ``name``, ``op``, and
        by kind of `KINDS` ``sqnr_db``, ``min_cosine`` and, with a judge, ``loss`` (relative); a
        kind that a row does not have is absent. ``metric``: that of the float32 network.

    Raises:
        DataError: There is nothing to quantise.
    """
    found = layers(proto, spans)
    if not found:
        raise DataError("the network has no layer to quantise")
    truth = _run(proto, feeds)
    whole = None if judge is None else judge(truth)

    def row(chosen: Sequence[Layer], **named: Any) -> dict[str, Any]:
        return named | dict(_judged(proto, feeds, spans, chosen, truth, judge, whole))

    rows = []
    for number, layer in enumerate(found, 1):
        say(f"layer {number} of {len(found)}: {layer.name}")
        rows.append(row([layer], place=layer.place, name=layer.name, op=layer.op))
    classes = []
    for op in dict.fromkeys(layer.op for layer in found):
        say(f"all {op}")
        same = [layer for layer in found if layer.op == op]
        classes.append(row(same, name=op, op=op, layers=len(same)))
    say("everything")
    everything = row(found, name="everything", op="", layers=len(found))
    return {"layers": rows, "classes": classes, "all": everything, "metric": whole}


def _judged(
    proto: Any,
    feeds: Mapping[str, NDArray[Any]],
    spans: Mapping[str, Span],
    chosen: Sequence[Layer],
    truth: NDArray[Any],
    judge: Judge | None,
    whole: float | None,
) -> Iterator[tuple[str, dict[str, float]]]:
    has = {
        "weights": any(one.weights for one in chosen),
        "activations": any(o.reads for o in chosen),
    }
    for kind in KINDS:
        if not (all(has.values()) if kind == "both" else has[kind]):
            continue
        outputs = _run(quantised(proto, chosen, kind, spans), feeds)
        facts = compare(truth, outputs)
        found = {name: facts[name] for name in ("sqnr_db", "min_cosine")}
        if judge is not None and whole is not None:
            found["loss"] = (whole - judge(outputs)) / max(abs(whole), 1e-12)
        yield kind, found


def _run(proto: Any, feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    # What is rounded stays rounded: no kernel of integers takes the pairs' place.
    session = open_onnx(proto.SerializeToString(), level="basic")
    fixed = session.get_inputs()[0].shape[0]
    size = fixed if isinstance(fixed, int) else 8
    count = min(len(values) for values in feeds.values())
    parts = []
    for start in range(0, count, size):
        rows = np.arange(
            start, start + size if isinstance(fixed, int) else min(start + size, count)
        )
        part = {n: np.ascontiguousarray(v[rows.clip(max=count - 1)]) for n, v in feeds.items()}
        parts.append(session.run(None, part)[0])
    return np.asarray(np.concatenate(parts)[:count])
