from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.device.link import Agent


def network(batch: Any):
    """Return a small network: Conv, Relu, Flatten, Gemm; its output's name holds slashes."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)

    def weights(name, *shape):
        return numpy_helper.from_array(rng.normal(0, 0.2, shape).astype(np.float32), name)

    def value(name, *shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shape])

    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "g", "h"], ["/head/y"]),
    ]
    constants = [weights("w", 4, 3, 3, 3), weights("b", 4), weights("g", 256, 5), weights("h", 5)]
    graph = helper.make_graph(nodes, "net", [value("x", 3, 8, 8)], [value("/head/y", 5)], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.fixture(scope="session")
def onnx_models(tmp_path_factory):
    """Folder with dynamic.onnx, fixed.onnx (batch 4), nameless.onnx and corrupt.onnx."""
    import onnx

    folder = tmp_path_factory.mktemp("models")
    for name, batch in (("dynamic", "batch"), ("fixed", 4), ("nameless", None)):
        onnx.save(network(batch), folder / f"{name}.onnx")
    whole = (folder / "dynamic.onnx").read_bytes()
    (folder / "corrupt.onnx").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture(scope="session")
def feeds():
    rng = np.random.default_rng(1)
    return {"x": rng.normal(size=(11, 3, 8, 8)).astype(np.float32)}


@pytest.fixture(scope="session")
def expected(onnx_models, feeds):
    """What onnx's own slow interpreter computes."""
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(str(onnx_models / "dynamic.onnx")).run(None, feeds)[0]


@pytest.fixture
def null_model(tmp_path):
    def write(**extra: Any) -> Path:
        spec = {
            "inputs": [{"name": "x", "shape": [None, 3], "dtype": "float32"}],
            "outputs": [{"name": "y", "shape": [None, 2], "dtype": "float32"}],
        }
        path = tmp_path / "model.json"
        path.write_text(json.dumps({**spec, **extra}))
        return path

    return write


@pytest.fixture
def agent():
    with Agent(timeout_s=60) as agent:
        yield agent
