"""A network without a recipe: its graph, golden outputs and calibration samples; its goal."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.artefact import Artefact, Running, open_artefact
from edgekd.calls import invoke
from edgekd.errors import DataError, StageError
from edgekd.events import Emit, Event
from edgekd.graph.source import check_onnx, prepare_onnx, read_onnx, run_onnx
from edgekd.inputs import save_arrays
from edgekd.quant.calibrate import calibration_indices, check_calibration
from edgekd.spec import Call, Input, plain
from edgekd.tasks.open import open_task

GOLDEN = 32


def source(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, emit: Emit
) -> dict[str, Any]:
    """Bring a user's network into the form of an export.

    Args:
        spec: ``model`` (absolute path of an ``.onnx`` or ``.pt2``, or ``file.py:build``),
            ``weights`` (a state dict, or empty), ``data``, ``samples``, ``opset``, ``seed``,
            ``base``, ``step``.
        inputs: None.
        out: Gets ``model.onnx``, ``golden.npz``, ``calibration.npz``.
        emit: Progress.

    Returns:
        ``nodes``, ``ops``, ``passes``, ``io``, ``contract``, ``data``.

    Raises:
        DataError: The network or the samples do not fit; the file or node is named.
    """

    def say(text: str) -> None:
        emit(Event("note", spec["step"], text))

    data = invoke(Call(**spec["data"]), Path(spec["base"]))
    golden = data.val.take(np.arange(min(GOLDEN, len(data.val))))
    kind = Path(spec["model"].rpartition(":")[0] or spec["model"]).suffix
    if kind == ".py":
        facts, truth = _torch(spec, golden, out)
    else:
        path = Path(spec["model"])
        proto = read_onnx(path) if kind == ".onnx" else _program(path)
        contract = check_onnx(proto, path)
        check_calibration({contract["input"]: golden}, [_port(contract)])
        truth = run_onnx(proto, contract, golden, path)
        facts = prepare_onnx(proto, path, golden, out / "model.onnx", say)
    contract = facts["contract"]
    name = contract["input"]
    save_arrays(out / "golden.npz", {name: golden, f"output:{contract['output']}": truth})
    rows = calibration_indices(data.train.labels, spec["samples"], spec["seed"])
    feeds = {name: data.train.take(rows)}
    check_calibration(feeds, [_port(contract)])
    save_arrays(out / "calibration.npz", feeds)
    # Bytes go in as they are.
    form = {"form": "uint8_nhwc"} if contract["dtype"] == "uint8" else {}
    wanted = plain(Input(tuple(contract["shape"]), name=name)) | form
    Artefact(out, "model.onnx", "onnxruntime", {}, wanted, "fp32", ("model.onnx",)).save()
    return {**facts, "data": dict(data.facts), "note": data.note}


def _port(contract: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": contract["input"],
        "shape": ["batch", *contract["shape"]],
        "dtype": contract["dtype"],
    }


def _torch(spec: Mapping[str, Any], golden: Any, out: Path) -> tuple[dict[str, Any], Any]:
    """Export what a function builds."""
    import torch

    from edgekd.graph.export import export_onnx

    model = invoke(Call(spec["model"]), Path(spec["base"]))
    if not isinstance(model, torch.nn.Module):
        raise DataError(f"{spec['model']} returns {type(model).__name__}, wanted a torch module")
    if spec["weights"]:
        state = torch.load(spec["weights"], weights_only=True, map_location="cpu")
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            text = " ".join(str(error).split())[:300]
            raise DataError(f"the weights do not fit: {text}", at=spec["weights"]) from error
    samples = torch.from_numpy(np.ascontiguousarray(golden, np.float32))
    contract = Input(tuple(golden.shape[1:]))
    facts = export_onnx(
        model.eval(), contract, out / "model.onnx", samples=samples, opset=spec["opset"]
    )
    with torch.inference_mode():
        truth = model(samples).float().numpy()
    ports = {"input": contract.name, "output": "output", "shape": list(contract.shape)}
    return facts | {"contract": {**ports, "dtype": "float32", "batch": None}}, truth


def _program(path: Path) -> Any:
    """Turn a program of ``torch.export`` into ONNX."""
    import torch

    from edgekd.agent.quiet import silence

    silence()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(str(path))
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise DataError(f"this is no readable .pt2: {text}", at=str(path)) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = torch.onnx.export(program, dynamo=True, optimize=True, verbose=False)
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise StageError(f"the program cannot be exported to ONNX: {text}", at=str(path)) from error
    assert made is not None
    with tempfile.TemporaryDirectory(prefix="edgekd-pt2-") as folder:
        file = Path(folder) / "model.onnx"
        made.save(str(file))
        return read_onnx(file)


def goal(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, emit: Emit
) -> dict[str, Any]:
    """Run the graph in float32 on the samples that judge: what every candidate is held to.

    Args:
        spec: ``task``, ``data``, ``floor`` (least signal to noise in dB; None where the user's own
            metric decides), ``base``.
        inputs: ``export``.
        out: Gets ``state.npz``: the outputs.
        emit: Progress.

    Returns:
        ``val``: the source's score, or the least that is asked for.
    """
    base = Path(spec["base"])
    data, task = invoke(Call(**spec["data"]), base), open_task(spec["task"], base)
    with Running(open_artefact(inputs["export"]), batch=8) as model:
        state = task.fit(model, data)
        score = task.score(model, data, "val", state, emit).facts()
    save_arrays(out / "state.npz", state)
    if spec["floor"] is not None:
        score["metrics"]["sqnr_db"]["value"] = spec["floor"]
        score["floor"] = True
    return {"val": score}
