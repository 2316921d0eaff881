"""From a foreign teacher and a folder of pictures to a verified bundle, by the command line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from PIL import Image

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

MODEL = """
import torch
from torch import nn

def build(classes):
    return nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
                         nn.Flatten(), nn.Linear(32, classes))
"""


def edgekd(folder, *arguments, code=0, **variables):
    env = {**os.environ, "EDGEKD_STORE": str(folder / "store"), **variables}
    env["PYTHONPATH"] = str(Path(__file__).parents[1])
    command = [sys.executable, "-m", "edgekd", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=800)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Three colours to tell apart, and a teacher of a foreign design with weights."""
    folder = tmp_path_factory.mktemp("project")
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 12), ("test", 12)):
        for label, name in enumerate(("red", "green", "blue")):
            place = folder / "pictures" / split / name
            place.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 120, (64, 64, 3), dtype=np.uint8)
                pixels[..., label] += 100
                Image.fromarray(pixels).save(place / f"{i}.png")
    (folder / "mine.py").write_text(MODEL)
    scope = {}
    exec(MODEL, scope)
    torch.manual_seed(0)
    model = scope["build"](3)
    torch.save(model.state_dict(), folder / "teacher.pt")
    return folder


ASK = (
    "compress", "--recipe", "classify", "--target", "cpu-ort", "--set", "preset=smoke",
    "--set", "data=pictures", "--set", "classes=3", "--set", "student=conv4",
)  # fmt: skip


def test_a_foreign_torch_teacher_reaches_a_verified_bundle(project):
    ask = (*ASK, "--set", "teacher=mine.py:build", "--set", "weights=teacher.pt")
    edgekd(project, *ask, "--out", "out/a")
    assert "passed" in edgekd(project, "verify", "out/a")
    manifest = json.loads((project / "out/a/manifest.json").read_text())
    kinds = [row["kind"] for row in manifest["rows"]]
    assert {"teacher", "control", "student", "artefact"} <= set(kinds)
    assert sum(row["shipped"] for row in manifest["rows"]) == 1
    assert manifest["claims"]
    page = (project / "out/a/report.html").read_text()
    assert "ladder" in page.lower()
    assert "http://" not in page.replace("http://www.w3.org", "")

    copy = project / "elsewhere"
    shutil.copytree(project / "out/a", copy)
    assert "passed" in edgekd(project, "verify", copy)
    model = next((copy / "model").iterdir())
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    assert f"model/{model.name}" in edgekd(project, "verify", copy, code=5)

    again = edgekd(project, *ask, "--out", "out/b")
    assert "started" not in again.replace("bundle: started", "")
    assert model.name in str(manifest["artefact"]["files"])
    first, second = (project / "out" / x / manifest["artefact"]["main"] for x in "ab")
    assert first.read_bytes() == second.read_bytes()

    imports = edgekd(project, *ask, "--out", "out/a", PYTHONPROFILEIMPORTTIME="1")
    names = {line.rpartition("|")[2].strip() for line in imports.splitlines()}
    assert "edgekd.run" in names
    assert not names & {"torch", "onnx", "openvino", "onnxruntime"}


BOARD = """
name: far-board
title: A board that is not here
device: cpu
arch: [riscv64]
backends: [onnxruntime]
precisions: [fp32, int8]
prefer: [int8, fp32]
limits: {latency_p50_ms: 5}
"""


def test_a_device_that_is_not_here_is_said_to_be_missing(project):
    (project / "board.yaml").write_text(BOARD)
    ask = (*ASK, "--set", "teacher=mine.py:build", "--set", "weights=teacher.pt")
    ask = tuple("board.yaml" if word == "cpu-ort" else word for word in ask)
    said = edgekd(project, *ask, "--out", "out/board", code=4)
    assert "--allow-unbuilt" in said and "bundle: out/board" in said
    assert "passed" in edgekd(project, "verify", "out/board")
    edgekd(project, *ask, "--out", "out/board", "--allow-unbuilt")

    manifest = json.loads((project / "out/board/manifest.json").read_text())
    rungs = {rung["rung"]: rung for rung in manifest["ladder"]}
    for rung in ("compiled for device", "parity on device", "profiled on device", "within budget"):
        assert rungs[rung]["status"] == "not_run", rung
    assert "riscv64" in rungs["profiled on device"]["why"]
    assert "on this host" in rungs["task metric on artefact"]["why"]
    assert all("not_run" in row["latency"] for row in manifest["rows"])
    choice = manifest["choice"]
    assert choice["unmeasured"] and choice["rule"].startswith("unmeasured")
    assert choice["picked"] == "ort-int8" and choice["ranking"][0]["cpu_ms"] is None
    assert any("is unmeasured" in claim for claim in manifest["claims"])
    assert not any("times as fast" in claim or "× as fast" in claim for claim in manifest["claims"])


def test_a_teacher_that_exists_only_as_onnx(project):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64 * 64, 3)).eval()
    from edgekd.graph.export import export_onnx
    from edgekd.spec import Input

    samples = torch.rand(4, 3, 64, 64)
    export_onnx(model, Input((3, 64, 64)), project / "only.onnx", samples=samples)
    edgekd(project, *ASK, "--set", "teacher=only.onnx", "--out", "out/onnx")
    assert "passed" in edgekd(project, "verify", "out/onnx")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--set", "teacher=mine.py:build", "--set", "weights=no.pt"), 2, "no teacher weights"),
        (("--set", "clases=3"), 2, "did you mean"),
        (("--set", "teacher=mine.py:bild"), 1, "bild"),
        (("--out", "pictures"), 2, "edgekd did not write"),
    ],
)
def test_bad_requests(project, arguments, code, text):
    expected = (code, 2) if code == 1 else (code,)
    env = {**os.environ, "EDGEKD_STORE": str(project / "store")}
    env["PYTHONPATH"] = str(Path(__file__).parents[1])
    command = [sys.executable, "-m", "edgekd", *ASK, *arguments]
    done = subprocess.run(
        command, cwd=project, env=env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode in expected
    assert text in done.stderr
    assert "Traceback" not in done.stderr
