"""The ONNX Runtime runtime of the agent: its profile of the layers."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from edgekd.agent.runtimes import ort


def event(name, kind, microseconds):
    return {"cat": "Node", "name": name, "dur": microseconds, "args": {"op_name": kind}}


def test_a_profile_is_read_without_the_first_inference():
    events = [
        {"cat": "Session", "name": "model_run", "dur": 900, "args": {}},
        *(event("conv_kernel_time", "Conv", us) for us in (800, 10, 12, 90)),
        *(event("conv_fence_before", "Conv", 5) for _ in range(4)),
        *(event("add_kernel_time", "Add", us) for us in (70, 1, 2, 3)),
    ]
    found = {layer.name: layer for layer in ort.read_profile(json.dumps(events), 3)}
    assert set(found) == {"conv", "add"}
    assert (found["conv"].kind, found["conv"].ms) == ("Conv", 0.012)
    assert found["add"].ms == 0.002


def test_layers_of_a_model_and_no_file_left(tmp_path, monkeypatch):
    import onnx
    from onnx import TensorProto, helper

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 4]) for n in "xy")
    nodes = [helper.make_node("Exp", ["x"], ["m"]), helper.make_node("Neg", ["m"], ["y"])]
    graph = helper.make_graph(nodes, "two", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), "two.onnx")
    session = ort.open_session(tmp_path / "two.onnx", {})
    found = session.layers({"x": np.ones((1, 4), np.float32)}, 5)
    assert sorted(layer.kind for layer in found) == ["Exp", "Neg"]
    assert all(layer.ms >= 0 for layer in found)
    assert [path.name for path in tmp_path.iterdir()] == ["two.onnx"]
