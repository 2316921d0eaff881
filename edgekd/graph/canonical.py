"""The same bytes for the same network: ONNX models without accidents.

Exporters number values by counters that depend on what ran before, record the paths of source
files and keep shapes that anyone can infer again. None of it belongs into an artefact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
from onnx import numpy_helper

from edgekd.errors import StageError

__all__ = ["canonical", "serialize", "strip"]

_PRODUCER = "edgekd"


def canonical(model: Any, names: Mapping[str, str]) -> Any:
    """Return a copy of a model with canonical names and nothing accidental.

    A node that holds a parameter is called like the module that owns it
    (``stages.2.1.enter``), so that sensitivity reports and ignored scopes can be read; any other
    is its operator and a number.

    Args:
        model: An ``onnx.ModelProto``.
        names: Initializers that keep a name: their present name to the one to write.

    Raises:
        StageError: The model still holds local functions.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    if result.functions:
        raise StageError(f"the graph still calls the function {result.functions[0].name!r}")
    strip(result)
    renamed = _Names(names)
    _name(result.graph, renamed)
    _rename(result.graph, renamed.values)
    for graph in _graphs(result.graph):
        _order_initializers(graph)
    return result


def strip(model: Any) -> None:
    """Remove from a model, in place, what changes nothing: notes, paths, versions, known shapes."""
    for field in ("producer_name", "producer_version", "domain", "doc_string", "model_version"):
        model.ClearField(field)
    model.producer_name = _PRODUCER
    del model.metadata_props[:]
    used = {node.domain for graph in _graphs(model.graph) for node in graph.node}
    versions = {entry.domain: entry.version for entry in model.opset_import}
    del model.opset_import[:]
    for domain in sorted(used & versions.keys()):
        model.opset_import.add(domain=domain, version=versions[domain])
    for graph in _graphs(model.graph):
        graph.name = "graph"
        _clear(graph, "doc_string", "metadata_props", "value_info", "quantization_annotation")
        for part in (*graph.input, *graph.output, *graph.initializer, *graph.node):
            _clear(part, "doc_string", "metadata_props")


def serialize(model: Any, out: Path) -> bytes:
    """Check a model, write it, and return its bytes.

    Raises:
        StageError: It breaks the rules of ONNX.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        raise StageError(f"the ONNX model is not valid: {' '.join(str(error).split())}") from error
    data: bytes = model.SerializeToString(deterministic=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(data)
    return data


class _Names:
    """New names for everything in a graph, each used once."""

    def __init__(self, kept: Mapping[str, str]) -> None:
        self.kept = kept
        self.values: dict[str, str] = {"": ""}
        self._counts: Counter[str] = Counter()
        self._taken: set[str] = set()

    def value(self, old: str, new: str) -> None:
        self.values[old] = self._unique(new)

    def numbered(self, kind: str) -> str:
        """Return the next of ``kind_0``, ``kind_1`` …"""
        name = f"{kind}_{self._counts[kind]}"
        self._counts[kind] += 1
        return name if name not in self._taken else self.numbered(kind)

    def _unique(self, name: str) -> str:
        while name in self._taken:
            name += "'"
        self._taken.add(name)
        return name


def _name(graph: Any, names: _Names) -> None:
    for port in (*graph.input, *graph.output):
        names.value(port.name, port.name)
    for tensor in graph.initializer:
        new = names.kept.get(tensor.name) or names.numbered("constant")
        names.value(tensor.name, new)
    owners, used = _owners(graph, names.kept), set[str]()
    for node in graph.node:
        owner = owners.get(node.output[0])
        if owner is not None and owner in used:
            owner = f"{owner}/{node.op_type}"
        node.name = owner if owner and owner not in used else names.numbered(node.op_type)
        used.add(node.name)
        for place, value in enumerate(node.output):
            if value and value not in names.values:
                names.value(value, node.name if place == 0 else f"{node.name}:{place}")
        for inner in _subgraphs(node):
            _name(inner, names)


def _owners(graph: Any, kept: Mapping[str, str]) -> dict[str, str]:
    """Map the first output of a node to the module whose parameter it holds.

    A linear layer over tokens is MatMul and Add, where only the Add's bias kept its name: both
    belong to the layer, and the MatMul, which is what gets quantised, takes the plain name.
    """
    owners: dict[str, str] = {}
    products = {node.output[0] for node in graph.node if node.op_type == "MatMul"}
    for node in graph.node:
        parameter = next((kept[name] for name in node.input if name in kept), None)
        if parameter is None:
            continue
        owner = parameter.rpartition(".")[0] or parameter
        product = next((name for name in node.input if name in products), None)
        if node.op_type == "Add" and product is not None:
            owners[product] = owner
            owner = f"{owner}/Add"
        owners[node.output[0]] = owner
    return owners


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    for part in (*graph.input, *graph.output, *graph.initializer):
        part.name = names[part.name]
    for node in graph.node:
        for field in (node.input, node.output):
            field[:] = [names[name] for name in field]
        for inner in _subgraphs(node):
            _rename(inner, names)
    for port in (*graph.input, *graph.output):
        _plain_dimensions(port)


def _plain_dimensions(port: Any) -> None:
    """Call a free batch ``batch``; a symbol elsewhere is an exporter's counter."""
    for axis, size in enumerate(port.type.tensor_type.shape.dim):
        if size.HasField("dim_param"):
            size.dim_param = "batch" if axis == 0 else f"size_{axis}"


def _order_initializers(graph: Any) -> None:
    """Write initializers in the order of their first use, all as raw bytes."""
    used = dict.fromkeys(name for node in graph.node for name in node.input)
    place = {name: i for i, name in enumerate(used)}
    tensors = sorted(graph.initializer, key=lambda t: (place.get(t.name, len(place)), t.name))
    fresh = [numpy_helper.from_array(numpy_helper.to_array(t), t.name) for t in tensors]
    del graph.initializer[:]
    graph.initializer.extend(fresh)


def _graphs(graph: Any) -> Iterator[Any]:
    yield graph
    for node in graph.node:
        for inner in _subgraphs(node):
            yield from _graphs(inner)


def _subgraphs(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _clear(message: Any, *fields: str) -> None:
    for field in fields:
        if field in message.DESCRIPTOR.fields_by_name:
            message.ClearField(field)
