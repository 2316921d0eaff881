"""Classes from a few pictures: the head that is written answers as the Enroller does."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgekd.cli import run
from edgekd.enroll import enroll
from edgekd.errors import DataError, UsageError
from tests import bundles

pytest.importorskip("onnxruntime")
Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return bundles.write(tmp_path_factory.mktemp("enroll") / "small").path


@pytest.fixture
def pictures(tmp_path):
    """Three classes, four pictures each: a colour of their own and a little noise."""
    rng = np.random.default_rng(0)
    for name, colour in {
        "red": (220, 20, 20),
        "green": (20, 220, 20),
        "blue": (20, 20, 220),
    }.items():
        folder = tmp_path / "pictures" / name
        folder.mkdir(parents=True)
        for number in range(4):
            noise = rng.integers(-15, 16, (4, 4, 3))
            Image.fromarray((np.array(colour) + noise).astype(np.uint8)).save(
                folder / f"{number}.png"
            )
    return tmp_path / "pictures"


def test_the_head_answers_in_the_graph_and_in_numpy(bundle, pictures, tmp_path):
    import onnxruntime

    facts = enroll(bundle, pictures, tmp_path / "out")
    assert facts["classes"] == {"blue": 4, "green": 4, "red": 4}
    assert facts["baked"] == {"agreement": 12, "n": 12}
    assert facts["leave_one_out"] == {"accuracy": 1.0, "n": 12}
    assert set(facts["files"]) == {p.name for p in (tmp_path / "out").iterdir()}
    assert json.loads((tmp_path / "out" / "enrolled.json").read_text()) == facts
    red = np.zeros((1, 3, 4, 4), np.float32) - 1
    red[:, 0] = 0.7
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    (scores,) = session.run(None, {"input": red})
    with np.load(tmp_path / "out" / "head.npz") as head:
        names = head["classes"].tolist()
        assert names[scores.argmax()] == "red"
        raw = onnxruntime.InferenceSession(bundle / "model" / "model.onnx")
        (features,) = raw.run(None, {"input": red})
        centred = features - head["base_mean"]
        unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
        np.testing.assert_allclose(scores, unit @ head["weight"].T + head["bias"], atol=1e-5)


def test_one_picture_a_class_cannot_be_left_out(bundle, pictures, tmp_path):
    for folder in pictures.iterdir():
        for path in sorted(folder.iterdir())[1:]:
            path.unlink()
    facts = enroll(bundle, pictures, tmp_path / "out")
    assert facts["leave_one_out"] == {"not_run": "needs two classes and two pictures of one"}


def test_a_wrong_head_is_refused(bundle, pictures, tmp_path, monkeypatch):
    from edgekd.errors import VerifyError
    from edgekd.graph import head

    true = head.bake_prototypes

    def wrong(model, mean, weight, bias, out):
        true(model, mean, -weight, bias, out)

    monkeypatch.setattr(head, "bake_prototypes", wrong)
    with pytest.raises(VerifyError, match="the graph with its head answers"):
        enroll(bundle, pictures, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_picture_is_named(bundle, pictures, tmp_path):
    (pictures / "red" / "2.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"2\.png"):
        enroll(bundle, pictures, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pictures"]


def test_bad_requests(bundle, pictures, tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        enroll(bundle, tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "flat").mkdir()
    with pytest.raises(DataError, match="no class folders"):
        enroll(bundle, tmp_path / "flat", tmp_path / "out")
    (pictures / "yellow").mkdir()
    with pytest.raises(DataError, match="'yellow' has no images"):
        enroll(bundle, pictures, tmp_path / "out")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(UsageError, match="is taken"):
        enroll(bundle, pictures, tmp_path / "taken")


def test_a_bundle_of_another_task_is_refused(pictures, tmp_path):
    from edgekd.bundle import write_bundle

    manifest = bundles.manifest()
    del manifest["state"]
    files = {k: v for k, v in bundles.files().items() if k not in ("state.npz", "enroll.py")}
    other = write_bundle(manifest, files, tmp_path / "other").path
    with pytest.raises(UsageError, match="enrols no classes"):
        enroll(other, pictures, tmp_path / "out")


def test_the_command_says_what_it_did(bundle, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(["enroll", str(bundle), str(pictures), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "3 classes from 12 pictures" in said
    assert "1.0000 of 12 pictures right" in said
    assert "answers as the Enroller on 12 of 12 pictures" in said
    assert run(["enroll", str(bundle), str(pictures), "--out", str(out)]) == 2
