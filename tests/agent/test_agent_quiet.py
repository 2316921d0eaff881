"""The one way to open an ONNX model for what is not measured."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.agent.quiet import LEVELS, open_onnx

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture
def file(tmp_path):
    value, node = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    graph = onnx.helper.make_graph(
        [node("Neg", ["x"], ["h"]), node("Relu", ["h"], ["y"])],
        "net",
        [value("x", 1, ["batch", 3])],
        [value("y", 1, ["batch", 3])],
    )
    made = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9
    )
    onnx.save(made, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_from_a_file_and_from_bytes(file):
    for model in (file, file.read_bytes()):
        found = open_onnx(model).run(None, {"x": np.float32([[-1, 0, 2]])})[0]
        assert found.tolist() == [[1, 0, 0]]


@pytest.mark.parametrize("level", LEVELS)
def test_options_are_those_that_were_asked_for(level, file):
    session = open_onnx(file, threads=2, level=level, arena=False)
    options = session.get_session_options()
    assert options.graph_optimization_level.name == LEVELS[level]
    assert options.intra_op_num_threads == 2
    assert options.log_severity_level == 4
    assert not options.enable_cpu_mem_arena
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert open_onnx(file).get_session_options().intra_op_num_threads == 1
