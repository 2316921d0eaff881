"""What runs in LiteRT's own environment: torch program → .tflite, and .tflite → quantised .tflite.

Started by path, in Python's isolated mode: it imports the standard library and what that
environment has, nothing of edgekd. A request file says what to do; the answer is a JSON file.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

TOOLS = ("torch", "litert-torch", "litert-converter", "litert-quantizer", "ai-edge-litert")
MOVES = frozenset({"QUANTIZE", "DEQUANTIZE", "CAST", "RESHAPE", "TRANSPOSE"})
"""Operators that compute nothing: they are not counted as quantised."""
_INTEGERS = ("INT4", "INT8", "INT16")
_NAME_LIMIT = 60


def main(place: str) -> None:
    """Do what the request file asks and write the answer beside it."""
    folder = Path(place)
    request = json.loads((folder / "request.json").read_text("utf-8"))
    answer = {"convert": convert, "quantise": quantise}[request["do"]](request)
    answer["tool_versions"] = {name: importlib.metadata.version(name) for name in TOOLS}
    (folder / "answer.json").write_text(json.dumps(answer, sort_keys=True), "utf-8")


def convert(request: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a torch program and run the samples through what came out.

    Args:
        request: ``program`` (.pt2, batch 1), ``samples`` (.npz of the inputs in the order of the
            program's arguments), ``inputs`` and ``outputs`` (names to give), ``model`` (the file
            to write), ``found`` (.npz to write: what the model makes of the samples).
    """
    import litert_torch
    import torch

    with np.load(request["samples"], allow_pickle=False) as archive:
        samples = {name: archive[name] for name in request["inputs"]}
    program = torch.export.load(request["program"])
    network = _mended(program)
    first = tuple(torch.from_numpy(values[:1].copy()) for values in samples.values())
    model = litert_torch.convert(network, first)
    path = Path(request["model"])
    model.export(str(path))
    path.write_bytes(tidy(path.read_bytes(), request["inputs"], request["outputs"]))
    np.savez(request["found"], **_run(path, samples))
    return {"ops": ops_of(path.read_bytes())}


def _mended(program: Any) -> Any:
    """Give linear layers over a single token two axes.

    The converter takes such a layer for a batched product and then fails on its rank.
    """
    import torch

    network = program.module()
    reshape, linear = torch.ops.aten.reshape.default, torch.ops.aten.linear.default
    graph = network.graph
    for node in [n for n in graph.nodes if n.op == "call_function" and n.target is linear]:
        given = list(node.args[0].meta["val"].shape)
        if len(given) < 3 or given[-2] != 1:
            continue
        with graph.inserting_before(node):
            flat = graph.call_function(reshape, (node.args[0], [-1, given[-1]]))
        shape = list(node.meta["val"].shape)
        node.args = (flat, *node.args[1:])
        with graph.inserting_after(node):
            back = graph.call_function(reshape, (node, shape))
        node.replace_all_uses_with(back, delete_user_cb=lambda user, back=back: user is not back)
    graph.lint()
    network.recompile()
    return network


def quantise(request: Mapping[str, Any]) -> dict[str, Any]:
    """Quantise a float model.

    Args:
        request: ``model``, ``out``, ``recipe`` (a function of litert_quantizer.recipe), ``only``
            (operators that are quantised; empty for all), ``never`` (operators that are not),
            ``float_io`` (whether inputs and outputs stay float) and ``calibration`` (.npz);
            ``found`` (.npz to write, perhaps: what the float model makes of the first ``few``).
    """
    from litert_quantizer import qtyping, quantizer, recipe

    names = qtyping.TFLOperationName
    recipes = getattr(recipe, request["recipe"])()
    worker = quantizer.Quantizer(request["model"], recipes)
    skipped = [name.value for name in names if name is not names.ALL_SUPPORTED]
    only, never = set(request["only"]), set(request["never"])
    for name in skipped:
        edge = name in ("INPUT", "OUTPUT")
        dropped = request["float_io"] if edge else bool(only) and name not in only
        if dropped or name in never:
            worker.update_quantization_recipe(".*", names(name), algorithm_key="no_quantize")
    if "found" in request:
        with np.load(request["calibration"], allow_pickle=False) as archive:
            samples = {name: archive[name][: request["few"]] for name in archive.files}
        np.savez(request["found"], **_run(Path(request["model"]), samples))
    ranges = None
    if worker.need_calibration:
        ranges = _ranges(worker, request)
    made = worker.quantize(ranges, enable_progress_report=False, enable_progress_bar=False)
    content = tidy(bytes(made.quantized_model))
    Path(request["out"]).write_bytes(content)
    return {
        "ops": ops_of(content),
        "quantised_ops": ops_of(content, integer=True),
        "io": _ports(content),
    }


def _ranges(worker: Any, request: Mapping[str, Any]) -> Any:
    """Return the smallest and the largest value of every tensor over all samples.

    The tool's own choice is a moving average, which forgets the first samples.
    """
    from litert_quantizer import calibrator, recipe_manager
    from litert_quantizer.utils import qsv_utils

    with np.load(request["calibration"], allow_pickle=False) as archive:
        feeds = {name: archive[name] for name in archive.files}
    count = min(len(values) for values in feeds.values())
    content = Path(request["model"]).read_bytes()
    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(worker.get_quantization_recipe())
    watch = calibrator.Calibrator(content, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    rows = [{name: values[i : i + 1] for name, values in feeds.items()} for i in range(count)]
    watch.calibrate({_signature(content): rows}, manager)
    return watch.get_model_qsvs()


def _run(path: Path, samples: Mapping[str, Any]) -> dict[str, Any]:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path), num_threads=1).get_signature_runner()
    count = min(len(values) for values in samples.values())
    rows = [
        runner(**{name: values[i : i + 1] for name, values in samples.items()})
        for i in range(count)
    ]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


# --- the file ----------------------------------------------------------------------------------


def _open(content: bytes) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromPackedBuf(content, 0)


def tidy(content: bytes, inputs: Sequence[str] = (), outputs: Sequence[str] = ()) -> bytes:
    """Return the model with its constants inside, short tensor names, and our own port names.

    The quantiser puts constants of 256 KiB and more behind the flatbuffer; microcontroller
    runtimes then compute with garbage and say nothing. The converter names tensors after the
    whole path of the class that made them, a quarter of a small file.
    """
    import flatbuffers

    model = _open(content)
    for buffer in model.buffers:
        if buffer.offset and buffer.offset > 1:
            end = buffer.offset + buffer.size
            buffer.data = np.frombuffer(content[buffer.offset : end], np.uint8)
            buffer.offset = buffer.size = 0
    signature = model.signatureDefs[0]
    main = model.subgraphs[signature.subgraphIndex].tensors
    if inputs or outputs:
        for ports, names in ((signature.inputs, inputs), (signature.outputs, outputs)):
            _name_ports(ports, names, main)
    fixed = {port.tensorIndex for port in (*signature.inputs, *signature.outputs)}
    for graph in model.subgraphs:
        _rename(graph.tensors, fixed if graph.tensors is main else set())
    builder = flatbuffers.Builder(len(content) + 4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _rename(tensors: Sequence[Any], fixed: set[int]) -> None:
    """Shorten names, and keep them apart: ranges are kept by name."""
    seen = Counter(_text(tensors[index].name) for index in fixed)
    for index, tensor in enumerate(tensors):
        if index in fixed:
            continue
        name = _short(_text(tensor.name))
        seen[name] += 1
        tensor.name = name if seen[name] == 1 else f"{name}#{seen[name]}"


def _short(name: str) -> str:
    """``my.Net/torch.nn.Linear_head;1`` → ``head``: the path of attributes, of one origin."""
    first = next(filter(None, name.split(";")), "")
    parts = [part.rpartition(".")[2].partition("_")[2] for part in first.split("/")]
    if "/" not in first:
        return first[-_NAME_LIMIT:]
    return ".".join(filter(None, parts))[-_NAME_LIMIT:] or "net"


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


def _name_ports(ports: Sequence[Any], names: Sequence[str], tensors: Sequence[Any]) -> None:
    """Name the ports of a signature, which the converter calls args_0 and so on."""
    if len(ports) != len(names):
        raise ValueError(f"the model has {len(ports)} ports, wanted {list(names)}")
    ordered = sorted(ports, key=lambda port: int(_text(port.name).rpartition("_")[2] or 0))
    for port, name in zip(ordered, names, strict=True):
        port.name = tensors[port.tensorIndex].name = name


def _signature(content: bytes) -> str:
    return _text(_open(content).signatureDefs[0].signatureKey)


def ops_of(content: bytes, *, integer: bool = False) -> dict[str, int]:
    """Count the operators of a model, or those of them that compute on integers."""
    from ai_edge_litert import schema_py_generated as schema

    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    kinds = {v: k for k, v in vars(schema.TensorType).items() if isinstance(v, int)}
    model, counts = _open(content), Counter[str]()
    for graph in model.subgraphs:
        for op in graph.operators:
            code = model.operatorCodes[op.opcodeIndex]
            name = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
            types = [kinds[graph.tensors[i].type] for i in op.inputs if i >= 0]
            if not integer or (name not in MOVES and any(t in _INTEGERS for t in types)):
                counts[name] += 1
    return dict(sorted(counts.items()))


def _ports(content: bytes) -> dict[str, list[dict[str, Any]]]:
    """Describe what the model takes and gives: dtype, and how integers are read."""
    from ai_edge_litert import schema_py_generated as schema

    kinds = {v: k for k, v in vars(schema.TensorType).items() if isinstance(v, int)}
    model = _open(content)
    signature = model.signatureDefs[0]
    tensors = model.subgraphs[signature.subgraphIndex].tensors

    def describe(ports: Sequence[Any]) -> Iterator[dict[str, Any]]:
        for port in ports:
            tensor = tensors[port.tensorIndex]
            row = {"name": _text(port.name), "dtype": kinds[tensor.type].lower()}
            if tensor.quantization is not None and tensor.quantization.scale is not None:
                row["scale"] = float(tensor.quantization.scale[0])
                row["zero_point"] = int(tensor.quantization.zeroPoint[0])
            yield row

    return {
        "inputs": list(describe(signature.inputs)),
        "outputs": list(describe(signature.outputs)),
    }


if __name__ == "__main__":
    with contextlib.redirect_stdout(io.StringIO()):
        main(sys.argv[1])
