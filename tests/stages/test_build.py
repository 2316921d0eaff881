"""The build of a candidate: what the backend made must be what its name says."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("onnx")

from edgekd.backends.base import backend
from edgekd.errors import StageError
from edgekd.events import silent
from edgekd.spec import plain
from edgekd.stages.build import build


@pytest.fixture
def without_convolutions(tmp_path):
    """An exported network of one product of matrices."""
    from onnx import TensorProto, helper, numpy_helper, save

    weights = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "net",
        [value("x", TensorProto.FLOAT, ["batch", 6])],
        [value("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(weights, "w")],
    )
    opset = [helper.make_opsetid("", 18)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "model.onnx")
    np.savez(tmp_path / "calibration.npz", x=np.ones((8, 6), np.float32))
    contract = {"shape": [6], "name": "x"}
    (tmp_path / "artefact.json").write_text(
        json.dumps(
            {
                "main": "model.onnx", "runtime": "onnxruntime", "options": {}, "input": contract,
                "precision": "fp32", "files": ["model.onnx"],
            }
        )
    )  # fmt: skip
    return tmp_path


@pytest.mark.parametrize("name", ["ov-int8-conv", "ov-int8"])
def test_an_int8_that_quantises_nothing_is_no_int8(name, without_convolutions, tmp_path):
    pytest.importorskip("nncf")
    rows = {row.id: row for row in backend("openvino").candidates(["fp32", "int8"], [])}
    out = tmp_path / "out"
    out.mkdir()
    spec, inputs = {"candidate": plain(rows[name])}, {"export": without_convolutions}
    if name == "ov-int8":
        assert build(spec, inputs, out, silent)["quantised_ops"]
    else:
        with pytest.raises(StageError, match="ov-int8-conv quantises no operator"):
            build(spec, inputs, out, silent)
