"""The OpenVINO runtime of the agent: what is timed is the inference that was asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino")
pytest.importorskip("onnx")

from edgekd.agent.runtimes import ov


@pytest.fixture
def session(tmp_path: Path):
    import onnx
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 4]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "neg", [x], [y])
    path = tmp_path / "neg.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return ov.open_session(path, {"precision": "f32", "static_batch": 1})


def test_bound_steps_compute_what_run_computes_in_any_order(session):
    """The steps share one request; each sets its own sample there, once for a row of calls."""
    samples = [{"x": np.full((1, 4), float(n), np.float32)} for n in (1, 2, 3)]
    steps = [session.bind(sample) for sample in samples]
    for number in (0, 1, 1, 2, 0, 0, 2, 1):
        [found] = steps[number]().values()
        np.testing.assert_array_equal(found, session.run(samples[number])["y"])


def test_a_bound_step_reads_its_sample_anew(session):
    sample = {"x": np.ones((1, 4), np.float32)}
    step = session.bind(sample)
    [before] = [value.copy() for value in step().values()]
    sample["x"] *= 5
    [after] = step().values()
    np.testing.assert_array_equal(after, 5 * before)


def test_layers_are_those_that_run(session):
    found = session.layers({"x": np.ones((1, 4), np.float32)}, 5)
    assert found and all(layer.ms > 0 for layer in found)
    assert all(layer.name and layer.kind for layer in found)
