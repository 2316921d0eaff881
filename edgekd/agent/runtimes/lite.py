"""LiteRT: ``.tflite`` files, in ai-edge-litert or, on older devices, in tflite-runtime."""

from __future__ import annotations

import importlib
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..facts import version_of
from ..faults import SetupFault
from .options import Option, positive, read_options
from .session import Port, Session, Step

if TYPE_CHECKING:
    from .session import Array

PACKAGES = ("ai_edge_litert", "tflite_runtime")
"""Modules that bring the interpreter, the preferred first."""

KERNELS = {
    "auto": "AUTO",
    "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "reference": "BUILTIN_REF",
}
OPTIONS = {
    "threads": Option(int, 1),
    "kernels": Option(str, "auto", tuple(KERNELS)),
    "raw_integers": Option(bool, False),
}


def _installed() -> tuple[str, ModuleType]:
    """Import whichever interpreter is installed.

    Raises:
        ImportError: None is, or the one that is does not work.
    """
    for name in PACKAGES:
        if find_spec(name) is None:
            continue
        try:
            return name, importlib.import_module(f"{name}.interpreter")
        except (ImportError, AttributeError, SystemError) as error:
            # tflite-runtime 2.14 was built against numpy 1 and fails in this way under numpy 2.
            hint = "; it needs numpy<2" if name == "tflite_runtime" else ""
            raise ImportError(
                f"{name} does not import under numpy {np.__version__}{hint}"
            ) from error
    raise ImportError(f"neither {' nor '.join(PACKAGES)} is installed")


PACKAGE, interpreter = _installed()


def open_session(model: Path, options: Mapping[str, Any]) -> Session:
    """Open a ``.tflite`` file.

    Args:
        model: The file.
        options: ``threads`` (1); ``kernels``: ``auto`` takes XNNPACK where this build has it,
            ``builtin`` LiteRT's own optimised kernels, ``reference`` the plain ones;
            ``raw_integers`` (false): give quantised inputs and outputs as the integers that they
            are. Else they are floats outside and converted here, as a part of every inference.
    """
    return LiteSession(model, read_options(options, OPTIONS))


class LiteSession(Session):
    """One interpreter."""

    version = version_of(PACKAGE.replace("_", "-")) or "unknown"

    def __init__(self, model: Path, options: Mapping[str, Any]) -> None:
        positive("threads", options["threads"])
        start = time.perf_counter()
        kernels = getattr(interpreter.OpResolverType, KERNELS[options["kernels"]])
        self._net = interpreter.Interpreter(
            str(model), num_threads=options["threads"], experimental_op_resolver_type=kernels
        )
        self._net.allocate_tensors()
        if PACKAGE == "tflite_runtime":
            _refuse_silent_zeros(self._net)
        self.load_s = time.perf_counter() - start
        inputs, outputs = _details(self._net)
        raw = options["raw_integers"]
        self._inputs = {name: _Tensor(detail, raw) for name, detail in inputs.items()}
        self._outputs = {name: _Tensor(detail, raw) for name, detail in outputs.items()}
        self.inputs = [tensor.port(name) for name, tensor in self._inputs.items()]
        self.outputs = [tensor.port(name) for name, tensor in self._outputs.items()]
        tensors = {**self._inputs, **self._outputs}
        self.effective = {
            "package": PACKAGE,
            "threads": options["threads"],
            "kernels": options["kernels"],
            **_running(self._net),
            "quantised_io": {name: t.quantised for name, t in tensors.items() if t.quantised},
        }

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs for one batch."""
        self._resize(feeds)
        for name, tensor in self._inputs.items():
            self._net.set_tensor(tensor.index, tensor.encode(feeds[name]))
        self._net.invoke()
        return {
            name: tensor.decode(self._net.get_tensor(tensor.index))
            for name, tensor in self._outputs.items()
        }

    def bind(self, feeds: Mapping[str, Array]) -> Step:
        """Return one inference on `feeds`, the conversion of integers included."""
        self._resize(feeds)
        net = self._net
        given = [(t, np.ascontiguousarray(feeds[name])) for name, t in self._inputs.items()]
        taken = list(self._outputs.values())

        def step() -> object:
            for tensor, array in given:
                net.set_tensor(tensor.index, tensor.encode(array))
            net.invoke()
            return [tensor.decode(net.get_tensor(tensor.index)) for tensor in taken]

        return step

    def _resize(self, feeds: Mapping[str, Array]) -> None:
        """Fit inputs of a free shape to what is given."""
        changed = [
            (tensor, feeds[name].shape)
            for name, tensor in self._inputs.items()
            if None in tensor.shape and tensor.current != feeds[name].shape
        ]
        for tensor, shape in changed:
            self._net.resize_tensor_input(tensor.index, shape)
            tensor.current = shape
        if changed:
            self._net.allocate_tensors()


class _Tensor:
    """An input or output: its place, and how its integers are read."""

    def __init__(self, detail: Mapping[str, Any], raw: bool) -> None:
        self.index = int(detail["index"])
        self.dtype = np.dtype(detail["dtype"])
        sizes = detail.get("shape_signature", detail["shape"])
        self.shape = tuple(None if size < 0 else int(size) for size in sizes)
        self.current = tuple(int(size) for size in detail["shape"])
        scale, zero = detail["quantization"]
        self.scale, self.zero = float(scale), int(zero)
        self._float = self.scale != 0.0 and self.dtype.kind in "iu" and not raw

    @property
    def quantised(self) -> dict[str, Any]:
        """Return dtype, scale and zero point; empty for a tensor that is not quantised."""
        if self.scale == 0.0:
            return {}
        return {"dtype": str(self.dtype), "scale": self.scale, "zero_point": self.zero}

    def port(self, name: str) -> Port:
        """Return what the host sees."""
        return Port(name, self.shape, "float32" if self._float else str(self.dtype))

    def encode(self, values: Array) -> Array:
        """Quantise floats: round to nearest, saturate."""
        if not self._float:
            return values
        limits = np.iinfo(self.dtype)
        whole = np.rint(values / np.float32(self.scale)) + self.zero
        return whole.clip(limits.min, limits.max).astype(self.dtype)

    def decode(self, values: Array) -> Array:
        """Return integers as the floats that they stand for."""
        if not self._float:
            return values
        return ((values.astype(np.int32) - self.zero) * np.float32(self.scale)).astype(np.float32)


def _details(net: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return inputs and outputs by name: the signature's names where the file has one."""
    if net.get_signature_list():
        runner = net.get_signature_runner()
        return dict(runner.get_input_details()), dict(runner.get_output_details())
    return (
        {detail["name"]: detail for detail in net.get_input_details()},
        {detail["name"]: detail for detail in net.get_output_details()},
    )


def _refuse_silent_zeros(net: Any) -> None:
    """Refuse what tflite-runtime 2.14 computes wrongly and without a word.

    A fully connected layer on floats whose int8 weights have a scale for each channel (dynamic
    int8, as today's quantiser writes it) takes every weight for zero there.

    Raises:
        SetupFault: The model has such a layer.
    """
    tensors = {int(tensor["index"]): tensor for tensor in net.get_tensor_details()}
    for node in net._get_ops_details():
        if node["op_name"] != "FULLY_CONNECTED":
            continue
        given, weights = (tensors[int(index)] for index in node["inputs"][:2])
        scales = weights["quantization_parameters"]["scales"]
        if given["dtype"] == np.float32 and weights["dtype"] == np.int8 and len(scales) > 1:
            raise SetupFault(
                "tflite-runtime computes zeros for dynamic int8 layers with a scale for each "
                f"channel, such as {weights['name']!r}",
                hint="install ai-edge-litert, or take a candidate that is not dynamic int8",
            )


def _running(net: Any) -> dict[str, Any]:
    """Return which operators a delegate took, and which the built-in kernels run.

    The interpreter lists a delegated part as one more node beside the operators that it took:
    those between its inputs and its outputs.
    """
    nodes = net._get_ops_details()
    parts = [node for node in nodes if node["op_name"] == "DELEGATE"]
    own = [node for node in nodes if node["op_name"] != "DELEGATE"]
    maker = {index: node for node in own for index in _real(node["outputs"])}
    taken: set[int] = set()
    for part in parts:
        stop, todo = set(_real(part["inputs"])), list(_real(part["outputs"]))
        while todo:
            node = maker.get(todo.pop())
            if node is not None and node["index"] not in taken:
                taken.add(node["index"])
                todo += [index for index in _real(node["inputs"]) if index not in stop]
    left = Counter(node["op_name"] for node in own if node["index"] not in taken)
    return {
        "delegate": "XNNPACK" if parts else None,
        "delegated_parts": len(parts),
        "delegated_ops": len(taken),
        "builtin_ops": dict(sorted(left.items())),
    }


def _real(indices: Iterable[int]) -> list[int]:
    """Leave out -1, which stands for an absent input."""
    return [int(index) for index in indices if index >= 0]
