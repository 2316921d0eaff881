"""Islands of floating point that the quantiser leaves: one operator between two conversions.

The 16-bit recipe has no SQUARED_DIFFERENCE and writes DEQUANTIZE → SQUARED_DIFFERENCE in float →
QUANTIZE. Between the same integers the operator runs without leaving them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from edgekd.firmware.graph import Graph, Operator

__all__ = ["close_islands"]

_ELEMENTWISE = ("ADD", "MUL", "SQUARED_DIFFERENCE", "SUB")


def close_islands(graph: Graph) -> Graph:
    """Return the graph with one-operator islands on integers; what remains is left as it is."""
    integer = {
        operator.outputs[0]: operator.inputs[0]
        for operator in graph.operators
        if operator.kind == "DEQUANTIZE"
    }
    leaving = {
        operator.inputs[0]: operator
        for operator in graph.operators
        if operator.kind == "QUANTIZE" and graph.tensors[operator.inputs[0]].dtype == "float32"
    }
    uses = Counter(index for operator in graph.operators for index in operator.inputs)
    closed: dict[int, Operator] = {}
    dropped: set[int] = set()
    for operator in graph.operators:
        exit_ = leaving.get(operator.outputs[0])
        inside = all(index in integer for index in operator.inputs)
        if operator.kind in _ELEMENTWISE and exit_ and inside and uses[operator.outputs[0]] == 1:
            inputs = tuple(integer[index] for index in operator.inputs)
            closed[operator.index] = replace(operator, inputs=inputs, outputs=exit_.outputs)
            dropped.add(exit_.index)
            uses.subtract(operator.inputs)
    kept = [closed.get(o.index, o) for o in graph.operators if o.index not in dropped]
    needed = [o for o in kept if o.kind != "DEQUANTIZE" or uses[o.outputs[0]] or _is_end(graph, o)]
    return replace(graph, operators=tuple(needed))


def _is_end(graph: Graph, operator: Operator) -> bool:
    return operator.outputs[0] in graph.outputs
