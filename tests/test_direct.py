"""Networks without a recipe: what is read, what is refused and how, and the search on one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgekd.direct import Source, export, quantize
from edgekd.errors import BudgetError, DataError, StageError, UsageError

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

SHAPE = (3, 16, 16)
MODULE = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
                         nn.Linear(8 * 64, 5))

def number():
    return 3

def metric(outputs, samples):
    assert len(outputs) == len(samples)
    return float(outputs.var())
"""


def network(path, *, kind="Relu", domain="", sizes=("batch", *SHAPE), inputs=1, dtype=1):
    """One convolution and one more node."""
    value = onnx.helper.make_tensor_value_info
    weights = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["h"], "first", pads=[1, 1, 1, 1]),
        onnx.helper.make_node(kind, ["h"], ["y"], "second", domain=domain),
    ]
    given = [value("x", dtype, list(sizes)), *(value(f"x{i}", 1, [1]) for i in range(1, inputs))]
    made = [value("y", onnx.TensorProto.FLOAT, [sizes[0], 4, *sizes[2:]])]
    graph = onnx.helper.make_graph(
        nodes, "net", given, made, [onnx.numpy_helper.from_array(weights, "w")]
    )
    opsets = [onnx.helper.make_opsetid("", 18)]
    opsets += [onnx.helper.make_opsetid(domain, 1)] if domain else []
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return str(path)


@pytest.fixture
def samples(tmp_path):
    values = np.random.default_rng(0).normal(size=(16, *SHAPE))
    np.savez(tmp_path / "data.npz", x=values)
    return tmp_path / "data.npz"


@pytest.fixture
def ask(tmp_path, samples):
    """Export, in a store of its own."""

    def run(model, data=samples, **options):
        asked = Source(str(model), data, **options)
        return export(asked, tmp_path / "out.onnx", store=tmp_path / "store")

    return run


def outputs(path, values):
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: values.astype(np.float32)})[0]


def test_an_onnx_file_is_simplified_and_computes_the_same(ask, tmp_path):
    path = network(tmp_path / "m.onnx")
    facts = ask(path)
    assert [row["pass"] for row in facts["passes"]] == ["simplifier", "batch norm"]
    assert all(row["max_abs"] < 1e-5 for row in facts["passes"])
    values = np.random.default_rng(1).normal(size=(3, *SHAPE))
    np.testing.assert_allclose(
        outputs(tmp_path / "out.onnx", values), outputs(path, values), rtol=1e-5, atol=1e-6
    )


def test_a_fixed_batch_is_taken_as_it_is(ask, tmp_path):
    facts = ask(network(tmp_path / "m.onnx", sizes=(2, *SHAPE)))
    assert facts["contract"]["batch"] == 2
    assert "batch is fixed at 2" in facts["passes"][0]["not_run"]


def test_a_torch_module_with_weights(ask, tmp_path):
    torch = pytest.importorskip("torch")
    (tmp_path / "mine.py").write_text(MODULE)
    scope = {}
    exec(MODULE, scope)
    model = scope["build"]().eval()
    with torch.no_grad():
        model[4].bias += 1
    torch.save(model.state_dict(), tmp_path / "w.pt")
    ask(f"{tmp_path}/mine.py:build", weights=tmp_path / "w.pt")
    values = np.random.default_rng(1).normal(size=(3, *SHAPE)).astype(np.float32)
    wanted = model(torch.from_numpy(values)).detach().numpy()
    np.testing.assert_allclose(outputs(tmp_path / "out.onnx", values), wanted, atol=1e-5)

    torch.save({"4.bias": torch.zeros(5)}, tmp_path / "w.pt")
    with pytest.raises(DataError, match="weights do not fit"):
        ask(f"{tmp_path}/mine.py:build", weights=tmp_path / "w.pt")
    with pytest.raises(DataError, match="returns int, wanted a torch module"):
        ask(f"{tmp_path}/mine.py:number")


BAD_NETWORKS = {
    "operator": ({"kind": "Swirl"}, DataError, "operator 'Swirl' of node 'second' is not in"),
    "domain": ({"kind": "Swirl", "domain": "my.own"}, DataError, "'Swirl' of domain 'my.own'"),
    "axis": (
        {"sizes": ("batch", 3, "height", 16)},
        DataError,
        r"input 'x' has no bound on axis 2 \(height\)",
    ),
    "inputs": ({"inputs": 2}, DataError, r"2 inputs \('x', 'x1'\), wanted one"),
    "integers": ({"dtype": 7}, DataError, "input 'x' is int64, wanted float32 or uint8"),
}


@pytest.mark.parametrize("name", BAD_NETWORKS)
def test_networks_that_are_refused(name, ask, tmp_path):
    change, kind, text = BAD_NETWORKS[name]
    with pytest.raises(kind, match=text) as raised:
        ask(network(tmp_path / "m.onnx", **change))
    assert "m.onnx" in str(raised.value.at)


def test_external_data_that_is_missing_is_named(ask, tmp_path):
    path = network(tmp_path / "m.onnx")
    proto = onnx.load(path)
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    ask(path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(
        DataError, match=r"weights of 'w' are in 'weights\.bin', which is not there"
    ):
        ask(path)


def test_files_that_are_no_networks(ask, tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"no network")
    with pytest.raises(DataError, match="no readable ONNX file"):
        ask(tmp_path / "m.onnx")
    with pytest.raises(DataError, match="there is no such file"):
        ask(tmp_path / "absent.onnx")
    with pytest.raises(UsageError, match="a network is one of"):
        ask(tmp_path / "m.h5")
    with pytest.raises(UsageError, match="torch source"):
        ask(tmp_path / "m.tflite")


def test_samples_that_are_refused(ask, tmp_path):
    path = network(tmp_path / "m.onnx")
    data = tmp_path / "samples"
    with pytest.raises(DataError, match="no such file or folder"):
        ask(path, data)
    data.mkdir()
    with pytest.raises(DataError, match="there are no samples"):
        ask(path, data)
    np.save(data / "a.npy", np.zeros((1, *SHAPE), np.float32))
    np.save(data / "b.npy", np.zeros((1, 3, 16, 15), np.float32))
    with pytest.raises(DataError, match=r"shape \(3, 16, 15\).*a.npy has \(3, 16, 16\)") as raised:
        ask(path, data)
    assert raised.value.at == str(data / "b.npy")
    np.save(data / "b.npy", np.full((1, *SHAPE), np.nan))
    with pytest.raises(DataError, match="1 of 1 samples hold NaN") as raised:
        ask(path, data)
    assert raised.value.at == str(data / "b.npy")
    (data / "b.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match="no readable array"):
        ask(path, data)
    np.save(data / "b.npy", np.zeros((0, *SHAPE)))
    with pytest.raises(DataError, match="holds no samples"):
        ask(path, data)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"x": np.zeros((4, 3, 8, 8))}, r"shape \(3, 8, 8\), wanted \(3, 16, 16\)"),
        ({"x": np.zeros((4, *SHAPE), np.int64)}, "are int64, wanted float32"),
        ({"a": np.zeros((4, *SHAPE)), "b": np.zeros(3)}, "called 'x'; this file has"),
    ],
)
def test_samples_that_do_not_fit_the_network(arrays, text, ask, tmp_path):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match=text):
        ask(network(tmp_path / "m.onnx"), tmp_path / "bad.npz")


def test_pictures_are_read_at_the_networks_size(ask, tmp_path):
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(4):
        image.fromarray(np.full((20, 30, 3), 40 * i, np.uint8)).save(folder / f"{i}.png")
    facts = ask(network(tmp_path / "m.onnx"), folder, mean=(0.5,), std=(0.5,))
    assert facts["data"] == {"source": "pictures", "calibrate": 4, "judge": 4}
    assert "so few samples" in facts["note"]
    (folder / "4.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="no readable picture"):
        ask(network(tmp_path / "m.onnx"), folder)


@pytest.fixture
def search(tmp_path, samples):
    def run(**options):
        asked = Source(network(tmp_path / "m.onnx"), samples, **options)
        out = tmp_path / "found"
        return quantize(asked, "cpu-ort", out, store=tmp_path / "store"), out

    return run


def test_the_search_writes_what_holds_and_says_why_not_the_rest(search, samples):
    facts, out = search(min_sqnr=60)
    assert json.loads((out / "quantized.json").read_text())["candidate"] == facts["candidate"]
    rows = {row["candidate"]: row for row in facts["explored"]}
    assert rows[facts["candidate"]]["outcome"] == "picked"
    assert rows["ort-fp32"]["sqnr_db"] > 100
    lossy = [row for row in rows.values() if row["sqnr_db"] and row["sqnr_db"] < 60]
    assert lossy and all(row["outcome"] in ("rejected", "left out") for row in lossy)
    golden = np.load(out / "golden.npz")
    found = outputs(out / "model" / facts["main"], golden["x"])
    np.testing.assert_allclose(found, golden["output:y"], atol=1e-5)

    with pytest.raises(BudgetError, match=r"fidelity: sqnr_db 200\.0, at least 250 asked"):
        search(min_sqnr=250)
    assert (out / "quantized.json").is_file(), "a failure leaves what was there"


def test_a_users_metric_decides(search, tmp_path):
    (tmp_path / "judge.py").write_text(
        "def metric(outputs, samples):\n    return float(outputs.std()) / len(samples)\n"
    )
    facts, _ = search(metric=f"{tmp_path}/judge.py:metric", drop=0.5)
    assert facts["goal"]["primary"] == facts["choice"]["metric"] == "metric"
    assert all(abs(row["loss"]) < 0.5 for row in facts["explored"] if row["loss"] is not None)


def test_nothing_of_the_users_is_overwritten(tmp_path, samples):
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="did not write"):
        quantize(Source("m.onnx", samples), "cpu-ort", tmp_path / "found")
    assert (tmp_path / "found" / "mine.txt").read_text() == "mine"


def test_a_program_of_torch_export(ask, tmp_path):
    torch = pytest.importorskip("torch")
    scope = {}
    exec(MODULE, scope)
    model = scope["build"]().eval()
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (torch.rand(2, *SHAPE),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "m.pt2")
    ask(tmp_path / "m.pt2")
    values = np.random.default_rng(1).normal(size=(3, *SHAPE)).astype(np.float32)
    wanted = model(torch.from_numpy(values)).detach().numpy()
    np.testing.assert_allclose(outputs(tmp_path / "out.onnx", values), wanted, atol=1e-5)
    (tmp_path / "m.pt2").write_bytes(b"no program")
    with pytest.raises(DataError, match=r"no readable \.pt2"):
        ask(tmp_path / "m.pt2")


def test_a_graph_that_does_not_run_is_refused(ask, tmp_path):
    with pytest.raises((DataError, StageError), match="cannot run the network"):
        ask(network(tmp_path / "m.onnx", kind="LSTM"))
