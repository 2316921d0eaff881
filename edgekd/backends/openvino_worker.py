"""The child process of the OpenVINO backend: ONNX in, IR out.

``python -m edgekd.backends.openvino_worker request.json``
"""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.agent.quiet import import_openvino, silence

_OV_TYPES: Mapping[str, tuple[str, ...]] = {
    "Conv": ("Convolution", "GroupConvolution"),
    "ConvTranspose": ("ConvolutionBackpropData", "GroupConvolutionBackpropData"),
    "Gemm": ("MatMul",),
    "Mul": ("Multiply",),
    "Sub": ("Subtract",),
    "Div": ("Divide",),
    "LayerNormalization": ("MVN",),
    "InstanceNormalization": ("MVN",),
    "Softmax": ("SoftMax", "Softmax"),
    "GlobalAveragePool": ("ReduceMean",),
    "AveragePool": ("AvgPool",),
    "Resize": ("Interpolate",),
}
"""What OpenVINO calls an ONNX operator, where the name differs."""


def main(arguments: list[str]) -> int:
    """Serve one request file."""
    request = json.loads(Path(arguments[0]).read_text("utf-8"))
    ov = import_openvino()
    model = ov.convert_model(request["model"])
    facts: dict[str, Any] = {"quantised_ops": {}}
    total = _total_ops(model)
    known = _names(model)
    if request["method"] != "none":
        facts = _METHODS[request["method"]](model, request)
        model = facts.pop("model")
    ov.save_model(model, request["xml"], compress_to_fp16=False)
    canonicalise(Path(request["xml"]), known)
    Path(request["answer"]).write_text(json.dumps({**facts, "total_ops": total}), "utf-8")
    return 0


def _static(model: Any, request: Mapping[str, Any]) -> dict[str, Any]:
    """Run NNCF on the calibration samples; the quantised model and the facts about it."""
    silence()
    import nncf

    with np.load(request["calibration"], allow_pickle=False) as archive:
        feeds = {name: archive[name] for name in archive.files}
    samples = _samples(model, feeds)
    types = {node.get_type_name() for node in model.get_ops()}
    model_type = request["model_type"]
    if model_type == "auto":
        attends = types & {"Softmax", "SoftMax", "ScaledDotProductAttention"}
        model_type = "transformer" if attends else "default"
    never = [*request["never_quantize"], *request["spared"]]
    ignored = _ignored(types, request["only"], never)
    names = [] if request["attention"] else _products_of_activations(model)
    smooth = nncf.AdvancedSmoothQuantParameters(convolution=request["smooth_conv"])
    advanced: dict[str, Any] = {"smooth_quant_alphas": smooth}
    if request["minmax"]:
        ranges = nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX
        advanced["activations_range_estimator_params"] = ranges
    quantised = nncf.quantize(
        model,
        nncf.Dataset(samples),
        subset_size=len(samples),
        model_type=nncf.ModelType.TRANSFORMER if model_type == "transformer" else None,
        fast_bias_correction=request["fast_bias_correction"],
        ignored_scope=nncf.IgnoredScope(names=names, types=ignored, validate=False),
        advanced_parameters=nncf.AdvancedQuantizationParameters(**advanced),
    )
    return {
        "model": quantised,
        "quantised_ops": _quantised_ops(quantised),
        "model_type": model_type,
        "ignored_types": ignored,
    }


def _weights(model: Any, request: Mapping[str, Any]) -> dict[str, Any]:
    """Store the weights in 8 bits."""
    silence()
    import nncf

    types = {node.get_type_name() for node in model.get_ops()}
    ignored = sorted(types & set(_ov_names(request["never_quantize"])))
    compressed = nncf.compress_weights(
        model, ignored_scope=nncf.IgnoredScope(types=ignored, validate=False)
    )
    return {"model": compressed, "quantised_ops": _compressed_ops(compressed)}


_METHODS = {"static": _static, "weights": _weights}


def _compressed_ops(model: Any) -> dict[str, int]:
    """Count the operators whose weights are stored as integers."""
    counts: Counter[str] = Counter()
    for node in model.get_ops():
        if node.get_type_name() in _NOT_OPERATORS + _UNPACKING:
            continue
        if any(_unpacked(port.get_source_output().get_node()) for port in node.inputs()):
            counts[node.get_type_name()] += 1
    return dict(sorted(counts.items()))


_UNPACKING = ("Convert", "Subtract", "Multiply", "Reshape")


def _unpacked(node: Any) -> bool:
    """Tell whether a value is a constant of 8 bits, scaled."""
    while node.get_type_name() in _UNPACKING:
        node = node.input(0).get_source_output().get_node()
    integers = ("i8", "u8")
    return (
        node.get_type_name() == "Constant" and node.get_element_type().get_type_name() in integers
    )


def _products_of_activations(model: Any) -> list[str]:
    """Return the names of the products neither side of which comes from a constant alone."""
    found = []
    for node in model.get_ops():
        kind = node.get_type_name()
        sides = [port.get_source_output().get_node().get_type_name() for port in node.inputs()][:2]
        if kind == "ScaledDotProductAttention" or (kind == "MatMul" and "Constant" not in sides):
            found.append(str(node.get_friendly_name()))
    return found


def _ignored(types: set[str], only: list[str], never: list[str]) -> list[str]:
    """Return the operator types, by OpenVINO's names, that keep floating point."""
    kept = set(_ov_names(only))
    ignored = {name for name in types if only and name not in kept | {"Constant", "Parameter"}}
    ignored |= types & set(_ov_names(never))
    return sorted(ignored - {"Constant", "Parameter", "Result"})


def _ov_names(onnx_names: list[str]) -> list[str]:
    return [name for wanted in onnx_names for name in _OV_TYPES.get(wanted, (wanted,))]


def _samples(model: Any, feeds: Mapping[str, NDArray[Any]]) -> list[dict[str, NDArray[Any]]]:
    """Cut the feeds into inputs of the batch that the model demands; 1 when it is free."""
    first = model.inputs[0].partial_shape[0]
    size = 1 if first.is_dynamic else first.get_length()
    count = min(len(values) for values in feeds.values())
    rows = [np.arange(at, at + size) % count for at in range(0, count, size)]
    return [{name: values[take] for name, values in feeds.items()} for take in rows]


def _quantised_ops(model: Any) -> dict[str, int]:
    """Count the operators that read quantised values."""
    counts: Counter[str] = Counter()
    for node in model.get_ops():
        makers = [port.get_source_output().get_node().get_type_name() for port in node.inputs()]
        if "FakeQuantize" in makers and node.get_type_name() not in _NOT_OPERATORS:
            counts[node.get_type_name()] += 1
    return dict(sorted(counts.items()))


_NOT_OPERATORS = ("Constant", "Parameter", "Result", "FakeQuantize")


def _total_ops(model: Any) -> dict[str, int]:
    """Count all operators."""
    names = (node.get_type_name() for node in model.get_ops())
    return dict(sorted(Counter(name for name in names if name not in _NOT_OPERATORS).items()))


def _names(model: Any) -> set[str]:
    """Return the layer names that come from the ONNX graph, whose own names are canonical.

    Such a layer is called like the value it makes; OpenVINO numbers the others by a counter.
    """
    nodes = model.get_ops()
    made = {name for node in nodes for port in node.outputs() for name in port.get_names()}
    return made & {node.get_friendly_name() for node in nodes}


def canonicalise(path: Path, known: set[str]) -> None:
    """Rewrite an IR so that its bytes depend on the network alone.

    OpenVINO numbers unnamed layers by a counter of the process, and notes versions, paths and
    settings; no runtime reads any of it.

    Args:
        path: The ``.xml`` file.
        known: Layer names that come from the model and may stay.
    """
    tree = ET.parse(path)
    net = tree.getroot()
    net.set("name", "edgekd")
    for parent in list(net.iter()):
        for info in parent.findall("rt_info"):
            parent.remove(info)
    for layer in net.iter("layer"):
        name = layer.get("name", "")
        if layer.get("type") in ("Parameter", "Result") or _stays(name, known):
            continue
        layer.set("name", f"{layer.get('type')}#{layer.get('id')}")
    _drop_inner_names(net)
    ET.indent(tree, "\t")
    tree.write(path, encoding="utf-8", xml_declaration=True)


def _stays(name: str, known: set[str]) -> bool:
    return name in known or name.partition("/fq_")[0] in known


def _drop_inner_names(net: ET.Element) -> None:
    """Keep the tensor names of what the network takes and gives, drop the others."""
    results = {layer.get("id") for layer in net.iter("layer") if layer.get("type") == "Result"}
    outer = {source for source, to in _edges(net) if to in results}
    for layer in net.iter("layer"):
        for port in layer.iter("port"):
            place = (layer.get("id"), port.get("id"))
            if layer.get("type") not in ("Parameter", "Result") and place not in outer:
                port.attrib.pop("names", None)


def _edges(net: ET.Element) -> list[tuple[tuple[str | None, str | None], str | None]]:
    return [
        ((edge.get("from-layer"), edge.get("from-port")), edge.get("to-layer"))
        for edge in net.iter("edge")
    ]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
