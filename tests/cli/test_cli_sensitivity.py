"""``edgekd sensitivity``: what it prints, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from edgekd.cli import run
from tests import bundles
from tests.quant.test_damage import network


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKD_STORE", str(tmp_path / "store"))
    return bundles.write(tmp_path / "small").path


def test_a_bundle_needs_no_samples(bundle, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert run(["sensitivity", str(bundle), "--out", str(page)]) == 0
    said = capsys.readouterr().out
    assert "everything × 1" in said and "1 layers, 6 samples" in said
    assert "Sensitivity of small" in page.read_text()
    assert run(["sensitivity", str(bundle), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(json.dumps(result)) > 100


def test_a_metric_of_ones_own_is_printed_as_a_loss(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("EDGEKD_STORE", str(tmp_path / "store"))
    np.save(tmp_path / "x.npy", np.random.default_rng(1).normal(size=(40, 8)).astype(np.float32))
    (tmp_path / "judge.py").write_text("def spread(outputs, samples):\n    return outputs.std()\n")
    asked = ["sensitivity", str(network(tmp_path / "n.onnx")), "--data", str(tmp_path / "x.npy")]
    assert run([*asked, "--metric", f"{tmp_path}/judge.py:spread", "--top", "1"]) == 0
    said = capsys.readouterr().out
    assert "% lost)" in said and "3 layers, 10 samples" in said


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("n.onnx", None, "a network needs samples"),
        ("none.onnx", "x.npy", "there is no such file"),
        ("n.onnx", "nan.npy", "hold NaN or infinite values"),
        ("n.onnx", "empty", "there are no samples"),
        ("n.txt", "x.npy", "a network is one of"),
        ("n.onnx", "absent", "at   --data"),
    ],
)
def test_what_is_refused(name, data, said, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("EDGEKD_STORE", str(tmp_path / "store"))
    network(tmp_path / "n.onnx")
    (tmp_path / "n.txt").write_text("no network")
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "x.npy", np.zeros((8, 8), np.float32))
    np.save(tmp_path / "nan.npy", np.full((8, 8), np.nan, np.float32))
    given = [] if data is None else ["--data", str(tmp_path / data)]
    assert run(["sensitivity", str(tmp_path / name), *given]) == 2
    assert said in capsys.readouterr().err
