"""OpenVINO, on the CPU."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import quiet
from ..faults import SetupFault
from .options import Option, positive, read_options
from .session import Layer, Port, Session, Step

if TYPE_CHECKING:
    from .session import Array

ov = quiet.import_openvino()

OPTIONS = {
    "precision": Option(str, choices=("f32", "bf16", "f16")),
    "exact_precision": Option(bool, True),
    "threads": Option(int, 1),
    "snippets": Option(bool, True),
    "static_batch": Option(int, None),
    "hint": Option(str, "LATENCY", ("LATENCY", "THROUGHPUT")),
}


def open_session(model: Path, options: Mapping[str, Any]) -> Session:
    """Open an IR, ONNX or TFLite model.

    Args:
        model: The ``.xml``, ``.onnx`` or ``.tflite`` file.
        options: ``precision`` of what is not quantised, which must be named, since OpenVINO
            else picks bf16 in silence where the CPU has it; ``exact_precision`` (true) refuses
            when the CPU runs another one; ``threads`` (1); ``snippets`` (true), its fused
            kernels, which cost accuracy in attention; ``static_batch``, which fixes a dynamic
            first dimension; ``hint`` (LATENCY).
    """
    return OvSession(model, read_options(options, OPTIONS))


class OvSession(Session):
    """One compiled model."""

    version = ov.__version__.partition("-")[0]

    def __init__(self, model: Path, options: Mapping[str, Any]) -> None:
        positive("threads", options["threads"])
        positive("static_batch", options["static_batch"])
        start = time.perf_counter()
        core = ov.Core()
        network = core.read_model(str(model))
        if options["static_batch"] is not None:
            _fix_batch(network, options["static_batch"])
        self._compiled = core.compile_model(network, "CPU", _settings(options))
        self._spare: Any = self._compiled.create_infer_request()
        self.load_s = time.perf_counter() - start
        self._network, self._options = network, options
        self._running: Any = None
        self._bound: Any = None
        self._assigned: Any = None
        self.inputs = [_port(port) for port in self._compiled.inputs]
        self.outputs = [_port(port) for port in self._compiled.outputs]
        self.effective = _effective(self._compiled, options)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs for one batch, copied."""
        self._running = self._running or self._request()
        order = {index: feeds[port.name] for index, port in enumerate(self.inputs)}
        results = self._running.infer(order)
        return {port.name: np.array(results[index]) for index, port in enumerate(self.outputs)}

    def bind(self, feeds: Mapping[str, Array]) -> Step:
        """Return one inference on tensors that share the memory of `feeds`.

        Such tensors stay in their request, where `run` would write into them: it has its own.
        """
        bound = self._bound = self._bound or self._request()
        # The bare call: the package's own wrapper sorts inputs that are set already and wraps
        # outputs that nobody reads, which costs as much as a layer of a small network.
        infer: Any = super(ov.InferRequest, bound).infer  # type: ignore[misc]
        assign = bound.set_input_tensor
        tensors = [
            (index, ov.Tensor(np.ascontiguousarray(feeds[port.name]), shared_memory=True))
            for index, port in enumerate(self.inputs)
        ]

        def step() -> object:
            if self._assigned is not tensors:
                for index, tensor in tensors:
                    assign(index, tensor)
                self._assigned = tensors
            return infer({}, share_outputs=True, decode_strings=False)

        return step

    def layers(self, feeds: Mapping[str, Array], runs: int) -> list[Layer]:
        """Profile a second compilation of the same settings; only those made for it can."""
        settings = {**_settings(self._options), "PERF_COUNT": True}
        request = ov.Core().compile_model(self._network, "CPU", settings).create_infer_request()
        order = {index: feeds[port.name] for index, port in enumerate(self.inputs)}
        spent: dict[tuple[str, str], list[float]] = {}
        request.infer(order)
        for _ in range(runs):
            request.infer(order)
            for told in request.profiling_info:
                key = told.node_name, f"{told.node_type} {told.exec_type}"
                spent.setdefault(key, []).append(told.real_time.total_seconds() * 1e3)
        found = [Layer(name, kind, median(each)) for (name, kind), each in spent.items()]
        return [layer for layer in found if layer.ms > 0]  # constants and what was fused away

    def _request(self) -> Any:
        """Return the request made on loading, or another one where that is taken."""
        request, self._spare = self._spare, None
        return request or self._compiled.create_infer_request()


def _settings(options: Mapping[str, Any]) -> dict[str, Any]:
    settings = {
        "INFERENCE_PRECISION_HINT": options["precision"],
        "INFERENCE_NUM_THREADS": options["threads"],
        "PERFORMANCE_HINT": options["hint"],
    }
    if not options["snippets"]:
        settings["SNIPPETS_MODE"] = "DISABLE"
    return settings


def _fix_batch(network: Any, batch: int) -> None:
    shapes = {}
    for index, port in enumerate(network.inputs):
        shape = port.partial_shape
        if shape.rank.is_static and len(shape) > 0 and shape[0].is_dynamic:
            shape[0] = batch
            shapes[index] = shape
    if shapes:
        network.reshape(shapes)


def _port(port: Any) -> Port:
    shape = port.partial_shape
    sizes = [shape[axis] for axis in range(len(shape))] if shape.rank.is_static else []
    return Port(
        _name(port),
        tuple(None if size.is_dynamic else size.get_length() for size in sizes),
        _dtype(port.get_element_type()),
    )


def _name(port: Any) -> str:
    """Return the name that the model's author gave: a tensor may carry several."""
    names: set[str] = port.get_names()
    own: str = port.get_node().get_friendly_name().removesuffix("/sink_port_0")
    return own if own in names or not names else min(names)


def _dtype(element: Any) -> str:
    try:
        return str(np.dtype(element.to_dtype()))
    except (RuntimeError, TypeError):
        return str(element.get_type_name())


def _effective(compiled: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Read back what OpenVINO really does, and refuse another precision than the one asked.

    ``SNIPPETS_MODE`` can be set but not read back: the kinds of layers in the compiled graph
    (``Subgraph`` is a snippet) and their precisions are the evidence instead.
    """
    precision: str = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if precision != options["precision"] and options["exact_precision"]:
        raise SetupFault(
            f"asked for precision {options['precision']!r}, but OpenVINO runs {precision!r} "
            "on this CPU",
            hint=f"set precision to {precision!r}, or use a CPU that has {options['precision']}",
        )
    layers = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    return {
        "build": ov.__version__,
        "precision": precision,
        "devices": list(compiled.get_property("EXECUTION_DEVICES")),
        "threads": int(compiled.get_property("INFERENCE_NUM_THREADS")),
        "streams": int(compiled.get_property("NUM_STREAMS")),
        "hint": str(compiled.get_property("PERFORMANCE_HINT")).rpartition(".")[2],
        "snippets": options["snippets"],
        "static_batch": options["static_batch"],
        "layers": _count(layers, "layerType"),
        "layer_precisions": _count(layers, "runtimePrecision"),
    }


def _count(layers: list[Any], key: str) -> dict[str, int]:
    values = Counter(layer[key].astype(str) for layer in layers if key in layer)
    return dict(sorted(values.items()))
