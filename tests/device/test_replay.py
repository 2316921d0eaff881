"""A recorded device: everything that reads the board's forms runs, and nothing is measured."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekd import doctor
from edgekd.agent import outside
from edgekd.bench.gate import gate
from edgekd.device.lease import lease
from edgekd.device.link import Agent, agent_on
from edgekd.errors import SetupError, StageError, UsageError

RECORDED = Path(__file__).parents[1] / "fixtures" / "replay" / "orin-nano"
ON = f"replay:{RECORDED}"
IO = {
    "inputs": [{"name": "x", "shape": [8, 8, 8], "dtype": "float32"}],
    "outputs": [{"name": "y", "shape": [16, 6, 6], "dtype": "float32"}],
}
FEEDS = {"x": np.random.default_rng(0).normal(size=(2, 8, 8, 8)).astype(np.float32)}


def test_the_board_is_read_from_its_files():
    with agent_on(ON) as agent:
        facts = agent.facts()
    assert (facts["arch"], facts["cpu"], facts["cores"]) == ("aarch64", "Cortex-A78AE", 6)
    assert "Orin Nano" in facts["board"]
    assert facts["jetson"] == {
        "l4t": "36.4.3", "jetpack": "6.2+b77", "cuda": "12.6.11", "power_mode": "25W",
        "power_mode_id": 1,
    }  # fmt: skip
    assert facts["runtimes"] == {"tensorrt": "10.3.0"}, "what is installed here is not the board's"
    assert facts["tools"]["memory_free_mib"] == 6132
    assert facts["state"]["gpu_mhz"] == 306 and facts["state"]["clocks_mhz"] == [1036.8]
    assert facts["state"]["throttle"] == {"oc1": 0, "oc2": 0, "oc3": 0}
    assert facts["replay"]["name"] == "orin-nano" and "collage" in facts["replay"]["recorded"]


@pytest.fixture
def model(tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from tests.graph import planted

    monkeypatch.setenv("HOME", str(tmp_path))  # of the cache of engines
    onnx.save(planted.good(), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_outputs_are_computed_here_and_times_are_the_recordings(model, tmp_path):
    with agent_on(ON) as agent:
        loaded = agent.load("tensorrt", model, io=IO, precision="int8")
        assert "a recording is played" in loaded.effective["inference"]
        assert agent.run(FEEDS)["y"].shape == (2, 16, 6, 6)
        timing = agent.time(FEEDS, runs=50)
        energy = agent.energy(FEEDS)
        told = agent.evidence(tmp_path / "home")
        layers = agent.layers(FEEDS)
    assert len(timing.wall_ns) == 60 and timing.summary()["p50_ms"] == pytest.approx(0.5468, 0.01)
    assert timing.summary()["cpu_median_ms"] is None and timing.peak_rss_mib is None
    assert energy["runs"] == 956 and energy["idle_mw"] == pytest.approx(4548.5)
    assert energy["mean_mw"] == pytest.approx(4654)
    assert told["build_s"] == 93.1
    assert told["layers"] == {"all": 26, "reformats": 4, "int8": 21}
    assert told["slowest"][0] == ["QuantizeLinear_2", "Reformat", 0.095232]
    assert len(told["slowest"]) == 10
    assert len(layers["layers"]) == 26
    names = {path.name for path in (tmp_path / "home").iterdir()}
    assert names == {"build.log", "layers.json", "profile.json", "times.json"}


def test_another_runtime_would_be_timed_here_and_called_the_board(model):
    with (
        agent_on(ON) as agent,
        pytest.raises(SetupError, match="plays tensorrt, not onnxruntime"),
    ):
        agent.load("onnxruntime", model)


def test_a_recorded_failure_is_named_as_on_the_board(model, tmp_path):
    copy = tmp_path / "recording"
    shutil.copytree(RECORDED, copy)
    (copy / "trtexec" / "build.log").write_text(
        "&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec --onnx=m.onnx\n"
        "[05/13/2025-10:36:40] [E] Error[2]: OutOfMemory: Requested amount of GPU memory\n"
        "&&&& FAILED TensorRT.trtexec [TensorRT v100300] # trtexec --onnx=m.onnx\n"
    )
    with (
        agent_on(f"replay:{copy}") as agent,
        pytest.raises(SetupError, match="the board's memory ran out") as caught,
    ):
        agent.load("tensorrt", model, io=IO)
    assert "smaller workspace" in str(caught.value.hint)


def test_a_recording_that_is_none(tmp_path):
    with pytest.raises(UsageError, match="no recording of a device"), agent_on("replay:nowhere"):
        pass
    (tmp_path / "device.json").write_text('{"recorded": "x"}')
    with agent_on(f"replay:{tmp_path}") as agent, pytest.raises(UsageError, match="wants facts"):
        agent.facts()


def test_a_recording_is_played_only_where_it_is_asked_for(monkeypatch):
    monkeypatch.setenv(outside.VARIABLE, str(RECORDED))
    with Agent() as agent:
        facts = agent.facts()
    assert "replay" not in facts and "jetson" not in facts
    words = "from edgekd.device.fingerprint import here; assert 'replay' not in here()"
    for value in (str(RECORDED), f"1:{RECORDED}"):
        monkeypatch.setenv(outside.VARIABLE, value)
        subprocess.run([sys.executable, "-c", words], check=True, cwd=Path(__file__).parents[2])


def test_nothing_is_measured_on_it():
    with pytest.raises(SetupError, match="not comparable") as caught, lease(1, on=ON):
        pass
    assert caught.value.exit_code == 4
    with pytest.raises(SetupError, match="not comparable"):
        gate("a", "b", on=ON)


def test_doctor_reads_the_board_and_says_what_it_is():
    found = doctor.examine("jetson", ON)
    lines = {check.name: check for check in found.checks if check.part == "device"}
    assert lines[ON].found.startswith("a recording, no board")
    assert lines["trtexec"].found == "/usr/src/tensorrt/bin/trtexec, 10.3.0"
    assert lines["release"].found == "L4T 36.4.3, JetPack 6.2+b77"
    (mode,) = (check for check in found.checks if check.name == "power mode")
    assert (mode.status, mode.found) == ("ok", "25W; nothing here needs sudo")


def test_unreadable_answers_are_faults(model, tmp_path):
    copy = tmp_path / "recording"
    shutil.copytree(RECORDED, copy)
    (copy / "trtexec" / "time.log").unlink()
    with agent_on(f"replay:{copy}") as agent:
        agent.load("tensorrt", model, io=IO)
        with pytest.raises(StageError, match="the recording has no answer"):
            agent.time(FEEDS)
