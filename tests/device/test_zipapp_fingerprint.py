"""The agent as one file, and the name of a machine."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgekd.device.fingerprint import fingerprint
from edgekd.device.link import Agent
from edgekd.device.zipapp import build_zipapp

ROOT = Path(__file__).parents[2]


def test_equal_sources_give_equal_bytes(tmp_path):
    first, second = build_zipapp(tmp_path / "a.pyz"), build_zipapp(tmp_path / "b.pyz")
    assert first.read_bytes() == second.read_bytes()
    assert os.access(first, os.X_OK)
    assert not list(tmp_path.glob("*.partial"))


def test_it_holds_the_agent_and_nothing_else(tmp_path):
    names = zipfile.ZipFile(build_zipapp(tmp_path / "a.pyz")).namelist()
    assert set(names) >= {"__main__.py", "edgekd/agent/ops.py", "edgekd/agent/runtimes/ort.py"}
    assert all(name.startswith(("edgekd/agent/", "edgekd/__init__", "__main__")) for name in names)


def test_it_runs_alone(tmp_path, null_model):
    archive = build_zipapp(tmp_path / "a.pyz")
    with Agent([sys.executable, "-E", str(archive)], timeout_s=60) as agent:
        agent.load("null", null_model(fill=4))
        assert agent.run({"x": np.zeros((2, 3), np.float32)})["y"].tolist() == [[4, 4], [4, 4]]


def test_it_runs_a_real_runtime(tmp_path, onnx_models, feeds, expected):
    pytest.importorskip("onnxruntime")
    with Agent(python=sys.executable, timeout_s=60) as agent:
        agent.load("onnxruntime", onnx_models / "dynamic.onnx")
        outputs = agent.run(feeds, 4)["/head/y"]
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


def test_a_fingerprint_is_stable_and_what_the_agent_says(agent):
    assert fingerprint() == fingerprint()
    assert set(fingerprint()) == {"cpu", "isa", "cores", "arch", "os"}
    assert fingerprint().items() <= agent.facts().items()


def test_a_fingerprint_needs_no_numpy():
    code = (
        "import sys; from edgekd.device.fingerprint import fingerprint; fingerprint();"
        "assert not {'numpy', 'torch', 'importlib.metadata', 'ctypes'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
