"""Graph → program: the closed set of operators, or an error that names layer and remedy."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgekd.firmware.building import Building, Layer
from edgekd.firmware.graph import Graph
from edgekd.firmware.islands import close_islands
from edgekd.firmware.program import Program
from edgekd.firmware.rules import elementwise, layout, products

__all__ = ["SUPPORTED", "lower", "unsupported"]

_RULES: Mapping[str, Callable[[Layer], None]] = {
    **products.RULES,
    **elementwise.RULES,
    **layout.RULES,
}

SUPPORTED = tuple(sorted(set(_RULES) - {"DEQUANTIZE"}))
"""Operators that can become C."""

_REMEDIES = {
    "CUSTOM": "export without custom operators",
    "DIV": "multiply by the reciprocal, or use RSQRT",
    "GATHER": "replace an index by a slice, an embedding by a constant addition",
    "MAXIMUM": "use ReLU",
    "MINIMUM": "use ReLU6 or a clamp",
    "POW": "write powers as products",
    "REDUCE_MAX": "use MAX_POOL_2D, or SOFTMAX as one operator",
}


def unsupported(graph: Graph) -> list[str]:
    """Return the operator types of a graph that cannot become C, in order of appearance."""
    kinds = dict.fromkeys(operator.kind for operator in close_islands(graph).operators)
    return [kind for kind in kinds if kind not in SUPPORTED]


def lower(graph: Graph) -> Program:
    """Return the integer program of a quantised graph.

    Raises:
        UsageError: An operator, a type or a size is not supported; with layer and remedy.
    """
    graph = close_islands(graph)
    building = Building(graph)
    for operator in graph.operators:
        layer = Layer(building, operator)
        rule = _RULES.get(operator.kind)
        if rule is None:
            remedy = _REMEDIES.get(operator.kind, "rewrite the layer with supported operators")
            raise layer.refuse(
                "it is not among the operators of firmware",
                f"{remedy}; supported: {', '.join(SUPPORTED)}",
            )
        _declare_inputs(layer)
        rule(layer)
    _declare_ends(building)
    return building.program()


def _declare_inputs(layer: Layer) -> None:
    """Give the graph's inputs their numbers; a tensor nobody computed would be garbage."""
    building = layer.building
    for index in layer.operator.inputs:
        known = index < 0 or index in building.numbers or index in building.folded
        if known or layer.tensor(index).data is not None:
            continue
        if index not in building.graph.inputs:
            raise layer.refuse(
                f"nothing computes its input {layer.tensor(index).name!r}",
                "the file's operators are out of order: convert the model again",
            )
        layer.number(layer.tensor(index))


def _declare_ends(building: Building) -> None:
    """Give numbers to inputs that nothing reads and to outputs that are constants."""
    for index in (*building.graph.inputs, *building.graph.outputs):
        if index not in building.numbers:
            first = building.graph.operators[0]
            Layer(building, first).number(building.graph.tensors[index])
