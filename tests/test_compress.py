"""From a foreign teacher and a folder of pictures to a verified bundle, by the command line."""

import json
import shutil

import pytest

pytest.importorskip("torch")
import torch

from tests.project import ASK, OWN, edgekd, make, start

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make(tmp_path_factory.mktemp("project"))


def test_a_foreign_torch_teacher_reaches_a_verified_bundle(project):
    ask = (*ASK, *OWN)
    said = edgekd(project, *ask, "--out", "out/a")
    assert "passed" in edgekd(project, "verify", "out/a")
    manifest = json.loads((project / "out/a/manifest.json").read_text())
    kinds = [row["kind"] for row in manifest["rows"]]
    assert {"teacher", "control", "student", "artefact"} <= set(kinds)
    assert sum(row["shipped"] for row in manifest["rows"]) == 1
    assert manifest["claims"][0].startswith("The teacher is not better than the control")
    assert "distillation was not attempted" in said
    assert "student − control" not in manifest["gains"]
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
    ask = (*ASK, *OWN)
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
        (("--pick", "ort-in8"), 2, "did you mean 'ort-int8'"),
    ],
)
def test_bad_requests(project, arguments, code, text):
    process = start(project, *ASK, *arguments)
    _, err = process.communicate(timeout=600)
    assert process.returncode in ((code, 2) if code == 1 else (code,))
    assert text in err
    assert "Traceback" not in err


def test_distilling_from_a_teacher_that_is_no_better_can_be_asked_for(project):
    ask = (*ASK, *OWN, "--set", "distill=always")
    assert "not attempted" not in edgekd(project, *ask, "--out", "out/always")
    manifest = json.loads((project / "out/always/manifest.json").read_text())
    assert "student − control" in manifest["gains"]
    assert any("teacher is not better" in claim for claim in manifest["claims"])


def test_an_objective_is_chosen_and_the_bundle_says_among_which(project):
    ask = (*ASK, *OWN, "--set", "distill=always", "--set", "objective=auto")
    out, err = start(project, "plan", "--json", *ask[1:]).communicate()
    assert "trial:1:lskd" in [row["step"] for row in json.loads(out)], err
    said = edgekd(project, *ask, "--out", "out/auto")
    manifest = json.loads((project / "out/auto/manifest.json").read_text())
    auto = manifest["auto"]
    tried = [row["objective"] for row in auto["tried"] if row["epochs"] == 1]
    assert tried == ["none", "lskd", "dist", "kd"]
    assert all(0 <= row["value"] <= 1 for row in auto["tried"])
    assert auto["steps"] > 0 and auto["cpu_s"] > 0
    (claim,) = (c for c in manifest["claims"] if c.startswith("Objective auto chose"))
    assert "1 epoch: none" in claim
    assert claim in (project / "out/auto/report.html").read_text()
    assert ("undistilled" in manifest) == (auto["chosen"] == "none")
    assert "trial:1:none" in said
    assert "passed" in edgekd(project, "verify", "out/auto")
    again = edgekd(project, *ask, "--out", "out/auto")
    assert "started" not in again.replace("bundle: started", "")


def test_a_student_that_learned_on_under_rounding_can_be_picked(project):
    settings = ("data=pictures", "classes=3", "student=conv4", "epochs=10", "distill=always")
    ask = ["compress", "--recipe", "classify", "--target", "cpu-ort", *OWN]
    ask += [word for one in settings for word in ("--set", one)]
    said = edgekd(project, *ask, "--pick", "ort-int8-aware", "--out", "out/aware")
    manifest = json.loads((project / "out/aware/manifest.json").read_text())
    assert manifest["artefact"]["candidate"] == "ort-int8-aware"
    assert manifest["training"]["aware"]["epochs"] == 2
    (claim,) = (c for c in manifest["claims"] if "learned on" in c)
    assert "2 epochs with weights of" in claim and "ort-int8-aware" in claim
    hops = [hop["hop"] for hop in manifest["parity"]]
    assert "torch → ort-int8-aware" in hops
    assert "export:aware" in said
    assert "passed" in edgekd(project, "verify", "out/aware")


def test_like_repeats_a_bundle_from_nothing(project):
    """Another store, nothing cached: the artefact is the same byte for byte."""
    edgekd(project, *ASK, *OWN, "--pick", "1", "--out", "out/first")
    first = json.loads((project / "out/first/manifest.json").read_text())
    other = next(r for r in first["explored"] if r["outcome"] == "not taken")["candidate"]
    out, _ = start(project, "plan", "--json", *ASK[1:], *OWN, "--pick", other).communicate()
    assert [row["step"] for row in json.loads(out) if row["status"] == "run"] == ["choose:cpu-ort"]
    asked = ("compress", "--recipe", "classify", "--target", "cpu-ort", "--like", "out/first")
    edgekd(project, *asked, "--out", "out/like", EDGEKD_STORE=str(project / "other"))
    second = json.loads((project / "out/like/manifest.json").read_text())
    assert first["artefact"]["candidate"] == second["artefact"]["candidate"]
    assert first["recipe"]["settings"] == second["recipe"]["settings"]
    main = first["artefact"]["main"]
    assert first["files"][main] == second["files"][main]
    assert first["files"]["golden.npz"] == second["files"]["golden.npz"]


WIDE = """
from dataclasses import replace
from edgekd import Quantize, load_recipe

def recipe(*, data: str = "", teacher: str = "", weights: str = "", classes: int = 3,
           student: str = "conv4", preset: str = "smoke"):
    own = {"data": data, "teacher": teacher, "weights": weights, "classes": classes}
    small = load_recipe("classify", {**own, "student": student, "preset": preset})
    return replace(small, quantize=Quantize(samples=32))
"""
"""`classify` as its smoke preset trains it, with all that may be built."""


def _made(store):
    """Step → digests of the files that it made, of every network and candidate in a store."""
    made = {}
    for entry in (store / "objects").glob("*/entry.json"):
        kept = json.loads(entry.read_text())
        step = kept["made_of"]["step"]
        if step.partition(":")[0] in ("teacher", "control", "distill", "export", "build"):
            files = {name: mark for name, mark in kept["files"].items() if name != "facts.json"}
            made[step] = files
    return made


def test_two_clean_runs_make_the_same_bytes(project):
    """Every candidate that both built, OpenVINO's among them, though nothing was cached."""
    pytest.importorskip("openvino")
    stores = [project / "clean-1", project / "clean-2"]
    (project / "wide.py").write_text(WIDE)
    named = {"classify": "wide.py", "cpu-ort": "cpu"}
    ask = [named.get(word, word) for word in (*ASK, *OWN)]
    for store in stores:
        edgekd(project, *ask, "--out", f"out/{store.name}", EDGEKD_STORE=str(store))
    first, second = map(_made, stores)
    assert any(step.startswith("build:ov-int8") for step in first)
    assert any(step.startswith("build:ort-") for step in first)
    assert first == second


def test_the_recipe_that_recipes_new_writes_runs(project):
    edgekd(project, "recipes", "new", "fresh.py")
    assert len((project / "fresh.py").read_text().splitlines()) <= 40
    edgekd(project, "compress", "--recipe", "fresh.py", "--target", "cpu-ort", "--out", "out/new")
    assert "passed" in edgekd(project, "verify", "out/new")
