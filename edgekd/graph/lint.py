"""What a board's TensorRT would refuse or do badly, found before the board is asked.

Every finding names the node, says why, and what to do. A rule is a function from a node in its
graph to sentences; `RULES` lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from edgekd.graph.support import OLDEST_OPSET, REMEDIES, TensorRT

__all__ = ["Finding", "lint"]

INT32 = 2**31
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_TYPES = {
    **dict.fromkeys((*_FLOATS, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL), True),
    TensorProto.INT8: True,
    TensorProto.UINT8: True,
}
_REDUCED = "ReduceMean"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a graph for a board.

    Attributes:
        level: ``refused``: the parser fails, or the result would be wrong; ``warning``: it works,
            and differently from what the graph seems to say.
        rule: Name of the rule.
        node: Name of the node; ``graph`` for the whole.
        operator: Its type.
        reason: Why.
        remedy: What to do.
    """

    level: Literal["refused", "warning"]
    rule: str
    node: str
    operator: str
    reason: str
    remedy: str

    def plain(self) -> dict[str, str]:
        """Return the finding as JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.node} ({self.operator}): {self.reason}; {self.remedy}"


@dataclass
class Graph:
    """An ONNX graph that can be asked: who makes a value, who reads it, what is constant.

    Attributes:
        proto: The graph.
        parser: Against what it is linted.
    """

    proto: Any
    parser: TensorRT
    held: dict[str, Any] = field(init=False)
    makers: dict[str, Any] = field(init=False)
    types: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.held = {tensor.name: tensor for tensor in self.proto.initializer}
        self.makers = {name: node for node in self.proto.node for name in node.output}
        ports = (*self.proto.value_info, *self.proto.input, *self.proto.output)
        self.types = {port.name: port.type.tensor_type.elem_type for port in ports}
        self.types |= {name: tensor.data_type for name, tensor in self.held.items()}

    def constant(self, name: str) -> NDArray[Any] | None:
        """Return a value known before the graph runs; None for one that is computed."""
        if name in self.held:
            found: NDArray[Any] = onnx.numpy_helper.to_array(self.held[name])
            return found
        maker = self.makers.get(name)
        if maker is not None and maker.op_type == "Constant":
            for attribute in maker.attribute:
                if attribute.name == "value":
                    return np.asarray(onnx.numpy_helper.to_array(attribute.t))
        return None


Said = tuple[str, str]
"""Reason and remedy."""
Rule = Callable[[Any, Graph], Iterator[Said]]


def lint(model: Path | Any, parser: TensorRT) -> list[Finding]:
    """Check a model against one version of TensorRT.

    Args:
        model: ONNX file, or an ``onnx.ModelProto``.
        parser: `edgekd.graph.support.tensorrt`.

    Returns:
        All findings, in the order of the nodes.
    """
    proto = onnx.load(str(model), load_external_data=False) if isinstance(model, Path) else model
    # With strict mode off, a node that inference does not know leaves its outputs untyped.
    proto = onnx.shape_inference.infer_shapes(proto)
    found = list(_header(proto, parser))
    for graph, inside in _graphs(proto.graph, ""):
        asked = Graph(graph, parser)
        found += [_at(f, inside) for f in _values(asked)]
        for node in graph.node:
            found += [_at(f, inside) for f in _node(node, asked)]
    return found


def _at(finding: Finding, inside: str) -> Finding:
    if not inside:
        return finding
    return Finding(**{**asdict(finding), "node": f"{inside}/{finding.node}"})


def _graphs(graph: Any, inside: str) -> Iterator[tuple[Any, str]]:
    """Yield a graph and all graphs inside its nodes, each with the path of its node."""
    yield graph, inside
    for node in graph.node:
        for attribute in node.attribute:
            held = [attribute.g] if attribute.HasField("g") else []
            for child in (*held, *attribute.graphs):
                yield from _graphs(child, f"{inside}/{node.name}" if inside else node.name)


def _header(proto: Any, parser: TensorRT) -> Iterator[Finding]:
    for entry in proto.opset_import:
        standard = entry.domain in ("", "ai.onnx")
        if standard and not OLDEST_OPSET <= entry.version <= parser.opset:
            yield Finding(
                "refused",
                "opset",
                "graph",
                "opset",
                f"opset {entry.version}; {parser.name} takes {OLDEST_OPSET} to {parser.opset}",
                f"export at opset {min(parser.opset, 18)}",
            )
    if proto.functions:
        yield Finding(
            "refused",
            "function",
            "graph",
            proto.functions[0].name,
            "the model defines functions of its own, which older parsers do not expand",
            "inline them (onnx.inliner)",
        )


def _values(graph: Graph) -> Iterator[Finding]:
    """Types of what the graph takes, gives and holds."""
    for port in (*graph.proto.input, *graph.proto.output):
        kind = port.type.tensor_type.elem_type
        if kind not in _TYPES:
            name = TensorProto.DataType.Name(kind)
            yield Finding(
                "refused",
                "dtype",
                port.name,
                "port",
                f"{name} is no type of a network's input or output",
                "use FLOAT, FLOAT16, INT32, INT64, UINT8 or BOOL",
            )
    for tensor in graph.proto.initializer:
        if tensor.data_type == TensorProto.INT64 and graph.parser.version < (10,):
            values = onnx.numpy_helper.to_array(tensor)
            if values.size and np.abs(values).max() >= INT32:
                yield Finding(
                    "refused",
                    "int64",
                    tensor.name,
                    "initializer",
                    f"holds {int(values.flat[np.abs(values).argmax()])}; {graph.parser.name} casts"
                    " INT64 to INT32",
                    "keep indices below 2³¹",
                )


def _node(node: Any, graph: Graph) -> Iterator[Finding]:
    if node.domain not in ("", "ai.onnx"):
        yield Finding(
            "refused",
            "domain",
            node.name,
            node.op_type,
            f"operator of the domain {node.domain!r}, which no parser of TensorRT knows",
            "export with operators of ai.onnx alone",
        )
        return
    if not graph.parser.takes(node.op_type):
        reason = graph.parser.why_not(node.op_type)
        remedy = REMEDIES.get(node.op_type, "write that part with other operations")
        yield Finding("refused", "operator", node.name, node.op_type, reason, remedy)
        return
    for name, (level, operators, rule) in RULES.items():
        if node.op_type in operators:
            for reason, remedy in rule(node, graph):
                yield Finding(level, name, node.name, node.op_type, reason, remedy)


# --- rules -------------------------------------------------------------------------------------


def _zero_point(node: Any, graph: Graph) -> Iterator[Said]:
    """Quantisation is symmetric: a zero point is a constant 0 of int8."""
    remedy = "quantise symmetrically: int8, zero point 0"
    if len(node.input) < 3 or not node.input[2]:
        if node.op_type == "QuantizeLinear" and not _int8_output(node):
            yield "without a zero point its output is UINT8, which is not quantised to", remedy
        return
    kind = graph.types.get(node.input[2])
    if kind == TensorProto.UINT8:
        yield "its zero point is UINT8; only INT8 is quantised to", remedy
    zero = graph.constant(node.input[2])
    if zero is None:
        yield "its zero point is computed while running", remedy
    elif np.any(zero.astype(np.int64)):
        worst = int(zero.flat[int(np.argmax(np.abs(zero.astype(np.int64))))])
        yield f"its zero point is {worst}; only 0 is taken", remedy


def _int8_output(node: Any) -> bool:
    return any(a.name == "output_dtype" and a.i == TensorProto.INT8 for a in node.attribute)


def _scale(node: Any, graph: Graph) -> Iterator[Said]:
    scale = graph.constant(node.input[1])
    remedy = "calibrate again, with a floor for the scale"
    if scale is None:
        yield "its scale is computed while running", "quantise statically"
    elif not scale.size or not np.all(scale.astype(np.float64) > 0):
        yield "a scale is not positive", remedy
    elif not np.isfinite(scale.astype(np.float64)).all():
        yield "a scale is not finite", remedy


def _bias(node: Any, graph: Graph) -> Iterator[Said]:
    if graph.types.get(node.input[0]) == TensorProto.INT32:
        yield (
            "it dequantises INT32 (a bias); only INT8 is dequantised",
            "leave biases in floating point (ONNX Runtime: QuantizeBias=False)",
        )


def _axes(node: Any, graph: Graph) -> Iterator[Said]:
    place = {"CumSum": 1, "Slice": 3, "Pad": 3}.get(node.op_type, 1)
    if len(node.input) > place and node.input[place] and graph.constant(node.input[place]) is None:
        yield f"its axes ({node.input[place]}) are computed", "fix the axes at export"


def _resize(node: Any, graph: Graph) -> Iterator[Said]:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    sized = [name for name in node.input[2:4] if name]
    if any(graph.constant(name) is None for name in sized):
        yield (
            "its scales or sizes are computed while running",
            "export with a fixed size (scale_factor as a number, not a shape of a tensor)",
        )
    if attributes.get("antialias", 0):
        yield "antialiasing is not taken", "antialias=False"
    if attributes.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        yield "only the aspect ratio policy stretch is taken", "give sizes for both axes"
    transform = attributes.get("coordinate_transformation_mode", b"half_pixel")
    if transform in (b"tf_crop_and_resize", b"half_pixel_symmetric"):
        yield f"coordinate mode {transform.decode()} is not taken", "use half_pixel"


def _pow_norm(node: Any, graph: Graph) -> Iterator[Said]:
    """Layer normalisation written out overflows: (x − mean)² leaves fp16's range."""
    exponent = graph.constant(node.input[1])
    if exponent is None or exponent.size != 1 or float(exponent.flat[0]) != 2:
        return
    base = graph.makers.get(node.input[0])
    readers = [n for n in graph.proto.node if node.output[0] in n.input]
    if base is not None and base.op_type == "Sub" and any(n.op_type == _REDUCED for n in readers):
        yield (
            "a layer normalisation in Pow form: in fp16 its squares overflow and accuracy is lost",
            "export at opset 17 or newer with one LayerNormalization node",
        )


def _layer_norm(node: Any, graph: Graph) -> Iterator[Said]:
    if any(node.output[1:]):
        yield "only its first output is taken", "drop mean and deviation from the graph"
    if any(a.name == "stash_type" and a.i not in (0, TensorProto.FLOAT) for a in node.attribute):
        yield "its statistics are not computed in FLOAT", "stash_type=1"


def _pool(node: Any, graph: Graph) -> Iterator[Said]:
    dilations = next((list(a.ints) for a in node.attribute if a.name == "dilations"), [])
    if any(value != 1 for value in dilations):
        yield f"dilations {dilations}; only ones are taken", "use a pool without dilation"
    if any(node.output[1:]):
        yield "its indices are not given", "drop the indices from the graph"


def _top_k(node: Any, graph: Graph) -> Iterator[Said]:
    limit = 3840
    wanted = graph.constant(node.input[1])
    if wanted is not None and int(wanted.flat[0]) >= limit:
        yield f"K is {int(wanted.flat[0])}, fewer than {limit} are taken", "ask for fewer"
    if any(a.name == "sorted" and a.i == 0 for a in node.attribute):
        yield "sorted=0 is not taken", "sorted=1"


def _scatter(node: Any, graph: Graph) -> Iterator[Said]:
    kinds = [a.s.decode() for a in node.attribute if a.name == "reduction"]
    if kinds and kinds[0] != "none":
        yield f"reduction {kinds[0]!r} is not taken", "scatter without reduction"


def _double(node: Any, graph: Graph) -> Iterator[Said]:
    if any(graph.types.get(name) == TensorProto.DOUBLE for name in (*node.input, *node.output)):
        yield "DOUBLE is cast to FLOAT", "export in float32"


def _wide(node: Any, graph: Graph) -> Iterator[Said]:
    if graph.parser.version < (10,) and graph.types.get(node.output[0]) == TensorProto.INT64:
        yield f"INT64 arithmetic becomes INT32 in {graph.parser.name}", "keep values below 2³¹"


_REDUCTIONS = (
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean"),
    *("ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"),
)
_COMMON = ("Add", "Sub", "Mul", "Div", "MatMul", "Gemm", "Conv", "Cast", "Softmax", "Exp", "Sqrt")
_QUANTISERS = ("QuantizeLinear", "DequantizeLinear")

RULES: Mapping[str, tuple[Literal["refused", "warning"], tuple[str, ...], Rule]] = {
    "zero point": ("refused", _QUANTISERS, _zero_point),
    "scale": ("refused", _QUANTISERS, _scale),
    "int32 bias": ("refused", ("DequantizeLinear",), _bias),
    "axes": ("refused", (*_REDUCTIONS, "CumSum", "Slice", "Squeeze", "Unsqueeze", "Pad"), _axes),
    "resize": ("refused", ("Resize",), _resize),
    "pow norm": ("refused", ("Pow",), _pow_norm),
    "layer norm": ("refused", ("LayerNormalization",), _layer_norm),
    "pool": ("refused", ("MaxPool", "AveragePool", "LpPool"), _pool),
    "top k": ("refused", ("TopK",), _top_k),
    "scatter": ("refused", ("ScatterND",), _scatter),
    "double": ("warning", _COMMON, _double),
    "int64": ("warning", ("Add", "Sub", "Mul", "Div"), _wide),
}
"""Name → level, operators it looks at, rule."""
