"""ONNX files whose bytes depend on the network alone: not on names, paths or processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

PRODUCER = "edgekd"


def canonicalise(model: Any) -> None:
    """Rewrite a model in place: canonical names, order and header; no metadata.

    Names of inputs and outputs stay. Nodes are called ``Conv_0`` and so on in their order, a
    value after the node that makes it, an initialiser after the first node that reads it.

    Args:
        model: An ``onnx.ModelProto`` whose nodes are in topological order.
    """
    _header(model)
    _strip(model.graph)
    names = _new_names(model.graph)
    _rename(model.graph, names)
    _sort_initializers(model.graph)


def save(model: Any, path: Path) -> None:
    """Write a model with deterministic serialisation."""
    path.write_bytes(model.SerializeToString(deterministic=True))


def drop_unread(graph: Any) -> None:
    """Drop initialisers that nothing reads: a rewritten graph leaves the old ones behind."""
    read = {name for part in _graphs(graph) for node in part.node for name in node.input}
    read |= {port.name for port in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del graph.initializer[:]
    graph.initializer.extend(copies)


def _header(model: Any) -> None:
    versions = sorted(
        (entry.domain, entry.version) for entry in model.opset_import if _used(model, entry.domain)
    )
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(*entry) for entry in versions)
    model.ir_version = onnx.helper.find_min_ir_version_for(
        [entry for entry in model.opset_import if entry.domain in ("", "ai.onnx.ml")]
    )
    model.producer_name, model.producer_version = PRODUCER, ""
    model.domain, model.model_version, model.doc_string = "", 0, ""
    del model.metadata_props[:]


def _used(model: Any, domain: str) -> bool:
    nodes = [node for graph in _graphs(model.graph) for node in graph.node]
    nodes += [node for function in model.functions for node in function.node]
    return domain == "" or any(node.domain == domain for node in nodes)


def _graphs(graph: Any) -> list[Any]:
    """Return a graph and all graphs inside its nodes."""
    found = [graph]
    for node in graph.node:
        for attribute in node.attribute:
            inside = [attribute.g] if attribute.HasField("g") else []
            for child in (*inside, *attribute.graphs):
                found += _graphs(child)
    return found


def _strip(graph: Any) -> None:
    """Drop everything that only tools or people read."""
    for part in _graphs(graph):
        part.name, part.doc_string = PRODUCER, ""
        del part.value_info[:], part.quantization_annotation[:], part.metadata_props[:]
        for item in (*part.node, *part.initializer, *part.input, *part.output):
            item.doc_string = ""
            del item.metadata_props[:]


def _new_names(graph: Any) -> dict[str, str]:
    """Name every value after its place; what the graph takes and gives keeps its name."""
    kept = {port.name for port in (*graph.input, *graph.output)}
    names = {name: name for name in kept} | {"": ""}
    held = {tensor.name for tensor in graph.initializer} - kept
    counts: dict[str, int] = {}
    for part in _graphs(graph):
        for node in part.node:
            number = counts[node.op_type] = counts.get(node.op_type, -1) + 1
            node.name = f"{node.op_type}_{number}"
            for slot, name in enumerate(node.input):
                if name in held:
                    names.setdefault(name, _free(f"{node.name}_in{slot}", kept))
            for slot, name in enumerate(node.output):
                suffix = f"_out{slot}" if slot else ""
                names.setdefault(name, _free(f"{node.name}{suffix}", kept))
    return names


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _rename(graph: Any, names: dict[str, str]) -> None:
    for part in _graphs(graph):
        for node in part.node:
            for field in (node.input, node.output):
                field[:] = [names.get(name, name) for name in field]
            node.attribute.sort(key=lambda attribute: attribute.name)
        for item in (*part.initializer, *part.input, *part.output):
            item.name = names.get(item.name, item.name)


def _sort_initializers(graph: Any) -> None:
    """Order initialisers by first use and drop those that nothing reads."""
    order: dict[str, int] = {}
    for part in _graphs(graph):
        for node in part.node:
            for name in node.input:
                order.setdefault(name, len(order))
    for port in graph.output:
        order.setdefault(port.name, len(order))
    used = [tensor for tensor in graph.initializer if tensor.name in order]
    used.sort(key=lambda tensor: order[tensor.name])
    copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in used]
    del graph.initializer[:]
    graph.initializer.extend(copies)
