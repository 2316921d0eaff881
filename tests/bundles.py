"""A small bundle that really runs: three inputs, one layer, ONNX Runtime."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

import edgekd.tasks.enroll
from edgekd.bundle import Bundle, write_bundle
from edgekd.spec import digest
from tests import fakes

SAMPLES, FEATURES = 6, 5


def manifest() -> dict[str, Any]:
    """Return the manifest of the small bundle, before it is written."""
    value = fakes.manifest()
    del value["files"]
    value["artefact"] |= {
        "candidate": "ort-fp32",
        "runtime": "onnxruntime",
        "options": {"level": "all"},
        "main": "model/model.onnx",
        "files": ["model/model.onnx"],
    }
    value["io"]["inputs"][0]["shape"] = [None, 3, 4, 4]
    value["io"]["outputs"][0]["shape"] = [None, FEATURES]
    value["golden"]["tolerance"] = {"max_rel": 1e-4, "min_cosine": 0.99999}
    return _consistent(value)


def _consistent(value: dict[str, Any]) -> dict[str, Any]:
    """Make every part speak of the artefact that really ships, as in a bundle of edgekd's own."""
    artefact, choice = value["artefact"], value["choice"]
    artefact["precision"], choice["picked"] = "fp32", "ort-fp32"
    artefact["bytes"] = len(_model(np.zeros((48, FEATURES), np.float32)))
    shipped = value["rows"][-1]
    shipped |= {"id": "ort-fp32", "runtime": "onnxruntime", "precision": "fp32"}
    shipped["file_bytes"] = artefact["bytes"]
    rows = {row["id"]: row for row in value["rows"]}
    for ranked in choice["ranking"]:
        row = rows.get(ranked["candidate"])
        if row is not None:
            ranked["bytes"] = row["file_bytes"]
            ranked |= {key: row["latency"][key]["p50"] for key in ("cpu_ms", "wall_ms")}
    for metric, gain in value["gains"]["shipped − student"].items():
        a, b = (rows[name]["metrics"][metric]["value"] for name in ("ort-fp32", "distill"))
        gain["value"] = a - b
    value["recipe"]["digest"] = digest(value["recipe"]["spec"])
    return value


def files(*, scale: float = 1.0, broken: float | None = None) -> dict[str, Any]:
    """Return the files of the small bundle.

    Args:
        scale: Factor on the golden outputs of sample 4; 1 for true ones.
        broken: A weight of the model, for instance NaN.
    """
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(48, FEATURES)).astype(np.float32)
    inputs = rng.normal(size=(SAMPLES, 3, 4, 4)).astype(np.float32)
    outputs = inputs.reshape(SAMPLES, -1) @ weights
    outputs[4] *= scale
    if broken is not None:
        weights[0, 0] = broken
    return {
        "model/model.onnx": _model(weights),
        "golden.npz": _npz(input=inputs, **{"output:output": outputs}),
        "state.npz": _npz(base_mean=outputs.mean(0)),
        "enroll.py": Path(edgekd.tasks.enroll.__file__),
        "report.html": b"<!doctype html><title>report</title>",
    }


def write(out: Path, **changes: Any) -> Bundle:
    """Write the small bundle; ``changes`` as in `files`."""
    return write_bundle(manifest(), files(**changes), out)


def _model(weights: np.ndarray) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    def value(name: str, *shape: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])

    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [value("input", 3, 4, 4)],
        [value("output", FEATURES)],
        [numpy_helper.from_array(weights, "weights")],
    )
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    return bytes(model.SerializeToString())


def _npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
