from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from edgekd.errors import DataError
from edgekd.graph.onnx_network import OnnxNetwork


def write(path, batch):
    value = onnx.helper.make_tensor_value_info
    weight = np.arange(12, dtype=np.float32).reshape(4, 3)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "net",
        [value("x", onnx.TensorProto.FLOAT, [batch, 4])],
        [value("y", onnx.TensorProto.FLOAT, [batch, 3])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    opset = onnx.helper.make_opsetid("", 18)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9), path)
    return weight


@pytest.mark.parametrize("batch", ["batch", 1, 4])
@pytest.mark.parametrize("count", [0, 1, 4, 10])
def test_any_number_of_samples(tmp_path, batch, count):
    weight = write(tmp_path / "m.onnx", batch)
    network = OnnxNetwork(tmp_path / "m.onnx", threads=1)
    assert (network.input_name, network.input_shape, network.params) == ("x", (4,), 12)
    assert network.batch == (None if batch == "batch" else batch)
    x = np.random.default_rng(0).normal(size=(count, 4))
    np.testing.assert_allclose(network(x), x.astype(np.float32) @ weight, rtol=1e-5)


def test_wrong_shape_names_both(tmp_path):
    write(tmp_path / "m.onnx", "batch")
    with pytest.raises(DataError, match=r"'x' takes samples of shape \(4\), found \(5,\)"):
        OnnxNetwork(tmp_path / "m.onnx")(np.zeros((2, 5), np.float32))


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_corrupt_file(tmp_path, content):
    path = tmp_path / "m.onnx"
    write(path, "batch")
    path.write_bytes(path.read_bytes()[:70] if content is None else content)
    with pytest.raises(DataError) as caught:
        OnnxNetwork(path)
    assert caught.value.at == str(path)


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="no such"):
        OnnxNetwork(tmp_path / "m.onnx")
