from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from torch import nn

from edgekd.errors import RecipeError, StageError
from edgekd.graph import export
from edgekd.graph.export import export_onnx
from edgekd.spec import Input

ROOT = Path(__file__).parents[2]


def test_equal_to_torch_at_every_batch(exported, network, prepared, run_onnx):
    path, _ = exported
    with torch.no_grad():
        wanted = network(prepared).numpy()
    for batch in (1, 2, 7):
        np.testing.assert_allclose(
            run_onnx(path, prepared[:batch]), wanted[:batch], rtol=0, atol=1e-5
        )


def test_facts(exported):
    path, facts = exported
    graph = onnx.load(path).graph
    assert facts["opset"] == 20
    assert facts["nodes"] == len(graph.node) < facts["nodes_before"]
    assert sum(facts["ops"].values()) == facts["nodes"]
    assert facts["ops"]["Conv"] == 35
    assert "BatchNormalization" not in facts["ops"]
    titles = [row["pass"] for row in facts["passes"]]
    assert titles == ["exporter", "optimiser", "simplifier", "batch norm", "canonical"]
    assert all(row["max_abs"] < 1e-5 and row["min_cosine"] > 0.99999 for row in facts["passes"])
    (taken,), (given,) = facts["io"]["inputs"], facts["io"]["outputs"]
    assert taken == {
        "name": "input",
        "shape": [3, 64, 64],
        "dtype": "float32",
        "form": "float32_nchw",
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }
    assert given == {"name": "output", "shape": [64], "dtype": "float32"}


def test_an_older_operator_set_is_really_converted_to(tmp_path, network, prepared, run_onnx):
    path = tmp_path / "old.onnx"
    contract = Input((3, 64, 64))
    facts = export_onnx(network, contract, path, samples=prepared[:2], opset=17)
    assert facts["opset"] == onnx.load(path).opset_import[0].version == 17
    assert [row["pass"] for row in facts["passes"]][-2:] == ["opset", "canonical"]
    with torch.no_grad():
        wanted = network(prepared[:3]).numpy()
    np.testing.assert_allclose(run_onnx(path, prepared[:3]), wanted, rtol=0, atol=1e-5)


def test_an_operator_set_too_old_for_the_graph_is_refused(tmp_path, network, prepared):
    with pytest.raises(StageError, match=r"operator set 16: .*LayerNormalization") as caught:
        export_onnx(
            network, Input((3, 64, 64)), tmp_path / "m.onnx", samples=prepared[:2], opset=16
        )
    assert "opset to 18 or later" in str(caught.value)
    assert not (tmp_path / "m.onnx").exists()


def test_the_exporter_may_not_answer_with_another_operator_set(monkeypatch, tmp_path):
    class Program:
        model_proto = onnx.helper.make_model(
            onnx.helper.make_graph([], "g", [], []),
            opset_imports=[onnx.helper.make_opsetid("", 18)],
        )

    monkeypatch.setattr(export, "_exported", lambda *a: Program)
    with pytest.raises(StageError, match="exported operator set 18 instead of 20"):
        export_onnx(nn.Identity(), Input((3,)), tmp_path / "m", samples=torch.rand(4, 3), opset=20)


def test_nothing_of_this_machine_is_in_the_file(exported):
    path, _ = exported
    model = onnx.load(path)
    assert not model.metadata_props and not model.doc_string
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    content = path.read_bytes()
    assert str(ROOT).encode() not in content and b"site-packages" not in content
    assert b"torch" not in content


SCRIPT = """
import sys, torch
from pathlib import Path
from edgekd.graph.export import export_onnx
from edgekd.models.conv4 import conv4
from edgekd.spec import Input
torch.manual_seed(0)
x = torch.rand(4, 3, 32, 32)
export_onnx(conv4(8), Input((3, 32, 32)), Path(sys.argv[1]), samples=x)
"""


def test_same_bytes_from_every_process(tmp_path):
    contents = []
    for seed in ("1", "2"):
        path = tmp_path / f"{seed}.onnx"
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        subprocess.run(
            [sys.executable, "-c", SCRIPT, str(path)], env=environment, check=True, cwd=tmp_path
        )
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]


def test_bytes_in_the_graph_equal_prepared_floats(
    tmp_path, network, contract, prepared, pixels, run_onnx
):
    path = tmp_path / "bytes.onnx"
    contract = dataclasses.replace(contract, form="uint8_nhwc", name="camera")
    facts = export_onnx(network, contract, path, samples=prepared[:4], output_name="features")
    assert facts["io"]["inputs"][0]["shape"] == [64, 64, 3]
    assert facts["io"]["inputs"][0]["dtype"] == "uint8"
    assert facts["io"]["outputs"][0]["name"] == "features"
    with torch.no_grad():
        wanted = network(prepared).numpy()
    np.testing.assert_allclose(run_onnx(path, pixels), wanted, rtol=0, atol=1e-5)


def test_bytes_need_an_image(tmp_path):
    contract = Input((4,), form="uint8_nhwc")
    with pytest.raises(RecipeError, match="uint8_nhwc"):
        export_onnx(nn.Linear(4, 2), contract, tmp_path / "m.onnx", samples=torch.rand(4, 4))


class Concatenated(nn.Module):
    """A batch norm after a concatenation, which no pass can fold."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv1d(3, 4, 3, padding=1), nn.Conv1d(3, 4, 5, padding=2)
        self.norm = nn.BatchNorm1d(8)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        return self.norm(torch.cat((self.a(x), self.b(x).relu()), 1)).relu().mean(2)


def test_no_batch_norm_is_left(tmp_path, run_onnx):
    torch.manual_seed(0)
    model, x = Concatenated().eval(), torch.randn(4, 3, 20)
    facts = export_onnx(model, Input((3, 20)), tmp_path / "m.onnx", samples=x)
    assert "BatchNormalization" not in facts["ops"]
    wanted = model(x).detach().numpy()
    np.testing.assert_allclose(run_onnx(tmp_path / "m.onnx", x), wanted, rtol=0, atol=1e-5)


class Unexportable(nn.Module):
    def forward(self, x):
        return torch.linalg.svdvals(x.reshape(-1, 2, 2))


class Branches(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class BakedBatch(nn.Module):
    def forward(self, x):
        return x.reshape(int(x.shape[0]), -1)[:2] + torch.zeros(2, 1)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Unexportable(), "linalg_svd"),
        (Branches(), "data-dependent"),
        (BakedBatch(), "does not run"),
    ],
)
def test_what_cannot_be_exported_says_so_in_one_line(tmp_path, capfd, model, message):
    with pytest.raises(StageError, match=message) as caught:
        export_onnx(model, Input((4,)), tmp_path / "m.onnx", samples=torch.rand(4, 4))
    assert "\n" not in caught.value.what and len(caught.value.what) < 600
    assert not (tmp_path / "m.onnx").exists()
    assert capfd.readouterr().out == ""


def test_a_pass_that_changes_the_network_is_named(tmp_path, monkeypatch):
    def spoil(proto):
        spoilt = onnx.ModelProto.FromString(proto.SerializeToString())
        tensor = spoilt.graph.initializer[0]
        values = onnx.numpy_helper.to_array(tensor) * np.float32(1.01)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        return spoilt

    monkeypatch.setattr(export, "_simplified", spoil)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(StageError, match="'simplifier' changed the network"):
        export_onnx(model, Input((4,)), tmp_path / "m.onnx", samples=torch.rand(4, 4))
    assert not (tmp_path / "m.onnx").exists()


def test_a_pass_that_fails_is_named(tmp_path, monkeypatch):
    def fail(proto):
        raise RuntimeError("no such thing\nand a long trace")

    monkeypatch.setattr(export, "_simplified", fail)
    with pytest.raises(StageError, match=r"'simplifier' failed: no such thing$"):
        export_onnx(nn.Linear(4, 2), Input((4,)), tmp_path / "m.onnx", samples=torch.rand(4, 4))


def test_mode_of_the_network_is_kept(tmp_path):
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).train()
    export_onnx(model, Input((4,)), tmp_path / "m.onnx", samples=torch.rand(4, 4))
    assert model.training and model[1].training
