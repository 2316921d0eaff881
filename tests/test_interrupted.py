"""What goes wrong from outside: kill -9, a full disk, a runtime that dies, no network."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")
import torch

from tests.project import ASK, OWN, edgekd, make, start

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

LONG = (*(a if a != "preset=smoke" else "preset=full" for a in ASK), *OWN, "--set", "epochs=25")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    """The preloaded library of `tests/shim.c`."""
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    source = Path(__file__).with_name("shim.c")
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, source, "-ldl"]
    subprocess.run(command, check=True)
    return str(library)


def kill_in_training(project, store, *arguments):
    """Start a run and kill it without warning when it has finished some epochs of a training."""
    process = start(project, *LONG, *arguments, EDGEKD_STORE=str(store))
    until = time.monotonic() + 300
    while time.monotonic() < until:
        found = list(store.glob("partial/*/checkpoint.pt"))
        if found:
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (checkpoint,) = store.glob("partial/*/checkpoint.pt")
    return torch.load(checkpoint, weights_only=True)["done"]["epoch"]


def test_a_killed_training_resumes_to_the_same_end(project):
    edgekd(project, *LONG, "--out", "out/unbroken", EDGEKD_STORE=str(project / "unbroken"))
    epochs = kill_in_training(project, project / "broken", "--out", "out/broken")
    assert 0 < epochs < 25
    assert not (project / "out/broken").exists()
    said = edgekd(
        project, *LONG, "--out", "out/broken", "--json", EDGEKD_STORE=str(project / "broken")
    )
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    progress = [e for e in lines if e.get("kind") == "progress" and e.get("unit") == "epochs"]
    assert progress[0]["done"] == epochs + 1  # it went on, it did not begin again
    first, second = (
        json.loads((project / f"out/{name}/manifest.json").read_text())
        for name in ("unbroken", "broken")
    )
    for name in ("control", "distill"):
        assert first["training"][name]["history"] == second["training"][name]["history"]
    models = [name for name in first["files"] if name.startswith("model/")]
    assert models
    # Which candidate ships, and which are timed to the end, is the clock's affair: by name.
    rebuilt = edgekd(
        project, *LONG, "--out", "out/picked", "--pick", first["artefact"]["candidate"],
        EDGEKD_STORE=str(project / "broken"),
    )  # fmt: skip
    assert "cached" in rebuilt
    third = json.loads((project / "out/picked/manifest.json").read_text())
    assert {n: first["files"][n] for n in models} == {n: third["files"][n] for n in models}


@pytest.mark.parametrize("bytes_left", [2_000, 30_000])
@pytest.mark.needs("gcc", install="apt-get install gcc libc6-dev")
def test_a_full_store_is_told_and_leaves_nothing_half_written(project, shim, bytes_left):
    store = project / f"small-{bytes_left}"
    full = {"LD_PRELOAD": shim, "SHIM_FULL": str(store), "SHIM_BYTES": str(bytes_left)}
    said = edgekd(project, *ASK, *OWN, "--out", "out/f", code=4, EDGEKD_STORE=str(store), **full)
    assert "disk is full" in said
    assert "Traceback" not in said
    assert not (project / "out/f").exists()
    for entry in store.glob("objects/*"):
        assert (entry / "entry.json").is_file()


@pytest.mark.needs("gcc", install="apt-get install gcc libc6-dev")
def test_a_full_disk_for_the_bundle_keeps_the_work(project, shim):
    store = str(project / "store")
    edgekd(project, *ASK, *OWN, "--out", "out/whole", EDGEKD_STORE=store)
    full = {"LD_PRELOAD": shim, "SHIM_FULL": str(project / "out"), "SHIM_BYTES": "5000"}
    said = edgekd(project, *ASK, *OWN, "--out", "out/g", code=4, EDGEKD_STORE=store, **full)
    assert "full" in said and "Traceback" not in said
    assert not (project / "out/g").exists()
    assert sorted(p.name for p in (project / "out").iterdir() if "g" in p.name) == []
    said = edgekd(project, *ASK, *OWN, "--out", "out/g", EDGEKD_STORE=store)
    assert "control: cached" in said


@pytest.mark.needs("gcc", install="apt-get install gcc libc6-dev")
def test_nothing_connects_to_the_outside(project, shim):
    log = project / "connections.txt"
    quiet = {"LD_PRELOAD": shim, "SHIM_LOG": str(log), "EDGEKD_STORE": str(project / "offline")}
    target = "cpu" if _has_openvino() else "cpu-ort"
    ask = [target if part == "cpu-ort" else part for part in ASK]
    edgekd(project, *ask, *OWN, "--out", "out/offline", **quiet)
    edgekd(project, "verify", "out/offline", **quiet)
    edgekd(project, "doctor", **quiet)
    assert not log.exists(), log.read_text()
    probe = "import socket; socket.create_connection(('example.org', 9), 1)"
    subprocess.run([sys.executable, "-c", probe], env=quiet, stderr=subprocess.DEVNULL)
    assert log.read_text() == "example.org\n"  # the witness sees what it should


def _has_openvino():
    from edgekd.extras import installed

    return installed("openvino") and installed("nncf")


BACKEND = """
import shutil
from edgekd.backends.base import Candidate

class Crashy:
    name = "crashy"
    def available(self):
        return None
    def candidates(self, precisions, isa):
        return [Candidate("crashy-int8", "crashy", "crashy", "int8", "none")]
    def build(self, model, candidate, calibration, out, emit):
        shutil.copy(model, out / "model.onnx")
        return {"files": ["model.onnx"], "main": "model.onnx", "runtime": "crashy", "options": {},
                "precision": "int8", "quantised_ops": {"Conv": 1}, "tool_versions": {}}

BACKEND = Crashy()

class Session:
    inputs = [{"name": "input", "shape": [None, 3, 64, 64], "dtype": "float32"}]
    outputs = [{"name": "logits", "shape": [None, 3], "dtype": "float32"}]
    effective = {}
    def run(self, feeds):
        import ctypes
        ctypes.string_at(0)
    def close(self):
        pass

def open_session(model, options):
    return Session()
"""
POINTS = "[edgekd.backends]\ncrashy = crashy:BACKEND\n\n[edgekd.runtimes]\ncrashy = crashy\n"


def test_a_runtime_that_segfaults_costs_its_candidate_only(project):
    plugin = project / "plugin"
    info = plugin / "crashy-1.0.dist-info"
    info.mkdir(parents=True)
    (plugin / "crashy.py").write_text(BACKEND)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: crashy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    target = (Path(__file__).parents[1] / "targets/cpu-ort.yaml").read_text()
    target = target.replace("[onnxruntime]", "[crashy, onnxruntime]").replace("cpu-ort", "risky")
    (project / "risky.yaml").write_text(target)
    ask = ["risky.yaml" if part == "cpu-ort" else part for part in ASK]
    said = edgekd(project, *ask, *OWN, "--out", "out/risky", PATHS=str(plugin))
    assert "crashy-int8 is rejected" in said
    manifest = json.loads((project / "out/risky/manifest.json").read_text())
    (row,) = [r for r in manifest["runners_up"] if r["candidate"] == "crashy-int8"]
    assert row["status"] == "rejected" and "SIGSEGV" in row["why"]
    assert "passed" in edgekd(project, "verify", "out/risky")
