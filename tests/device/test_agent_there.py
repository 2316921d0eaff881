"""An agent on another machine: a real sshd on loopback, the zipapp, numpy and ONNX Runtime."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edgekd import doctor
from edgekd.device.link import Agent, agent_on
from edgekd.device.reach import devices_file
from edgekd.device.ssh import Ssh
from edgekd.errors import RuntimeCrash, SetupError, UsageError
from tests.device.test_ssh import alive, server  # noqa: F401  # a fixture


@pytest.fixture
def listed(server, monkeypatch, tmp_path):  # noqa: F811
    """The device ``there``: the loopback board, with this interpreter."""
    monkeypatch.setenv("EDGEKD_SSH", server.command)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    devices_file().parent.mkdir(parents=True)
    devices_file().write_text(f"there: {{reach: 'ssh:board', python: {sys.executable}}}\n")
    return "there"


def null(tmp_path, **more):
    spec = {
        "inputs": [{"name": "x", "shape": [None, 3], "dtype": "float32"}],
        "outputs": [{"name": "y", "shape": [None, 2], "dtype": "float32"}],
    }
    (tmp_path / "m.json").write_text(json.dumps(spec | more))
    return tmp_path / "m.json"


FEEDS = {"x": np.ones((5, 3), np.float32)}


def test_an_alias_of_ssh_is_enough(server, monkeypatch):  # noqa: F811
    """``--on ssh:board``: no YAML, the board's own python3."""
    monkeypatch.setenv("EDGEKD_SSH", server.command)
    with agent_on("ssh:board") as agent:
        facts = agent.facts()
    assert facts["arch"] == os.uname().machine and facts["cores"] == os.cpu_count()


def test_doctor_looks_at_a_board_in_ten_seconds(server, monkeypatch):  # noqa: F811
    monkeypatch.setenv("EDGEKD_SSH", server.command)
    began = time.monotonic()
    found = doctor.examine("jetson", "ssh:board")
    assert time.monotonic() - began < 10
    lines = {check.name: check for check in found.checks if check.part.startswith(("dev", "tar"))}
    assert lines["ssh:board"].status == "ok" and lines["Python"].status == "ok"
    assert lines["free disk"].found.endswith("MiB")
    if os.uname().machine != "aarch64":
        assert lines["architecture"].status == "lacks"
    server.stop()
    try:
        (lost,) = (c for c in doctor.examine("jetson", "ssh:board").checks if c.part == "device")
        assert lost.status == "lacks" and "nothing listens there" in lost.found
        assert lost.fix == "is ssh running on the board?"
    finally:
        server.start()


def test_a_model_runs_there_and_its_outputs_come_home(listed, onnx_models, feeds, expected):
    pytest.importorskip("onnxruntime")
    with agent_on(listed) as agent:
        folder = Path(agent._board.folder)
        loaded = agent.load("onnxruntime", onnx_models / "dynamic.onnx", threads=1)
        found = agent.run(feeds, batch=4)["/head/y"]
        timing = agent.time({"x": feeds["x"][:2]}, warmup=1, runs=5)
        assert (folder / "dynamic.onnx").is_file()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert loaded.runtime == "onnxruntime" and len(timing.wall_ns) == 5
    assert not folder.exists(), "nothing is left on the board"


def test_a_crash_there_is_a_crash_and_no_lost_connection(listed, tmp_path):
    with agent_on(listed) as agent, pytest.raises(RuntimeCrash, match="died with SIGSEGV"):
        agent.load("null", null(tmp_path, crash="segv", when="load"))
    with agent_on(listed) as agent, pytest.raises(RuntimeCrash, match="exited with code 7"):
        agent.load("null", null(tmp_path, crash="exit", when="load"))


def test_the_connection_is_cut_amid_work(listed, server, tmp_path):  # noqa: F811
    with agent_on(listed) as agent:
        agent.load("null", null(tmp_path, crash="hang", when="run"))
        threading.Timer(4.0, server.cut).start()
        with pytest.raises(SetupError, match="the connection to board was lost") as caught:
            agent.run(FEEDS)
    assert caught.value.exit_code == 4
    with agent_on(listed) as agent:
        agent.facts()
        server.cut()
        time.sleep(0.5)
        with pytest.raises(SetupError, match="the connection to board was lost"):
            agent.facts()


@pytest.mark.parametrize("kind", ["hang", "stuck"])
def test_a_hanging_runtime_is_killed_there(listed, tmp_path, kind):
    with agent_on(listed, timeout_s=3) as agent:
        there = agent._hello["pid"]
        agent.load("null", null(tmp_path, crash=kind, when="run"))
        assert alive(there)
        with pytest.raises(RuntimeCrash, match="gave no answer within 3 s"):
            agent.run(FEEDS)
    deadline = time.monotonic() + 10
    while alive(there) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(there)


def test_a_board_without_python(listed):
    devices_file().write_text("there: {reach: 'ssh:board', python: /nowhere/python}\n")
    with (
        pytest.raises(SetupError, match="did not start: it exited with code 127"),
        agent_on(listed),
    ):
        pass


def test_no_such_model(listed, tmp_path):
    with agent_on(listed) as agent, pytest.raises(UsageError, match="no such file"):
        agent.load("null", tmp_path / "none.json")


def test_one_job_per_board(listed, tmp_path):
    place = {"TMPDIR": str(tmp_path)}  # where the board's lock is
    with agent_on(listed, env=place) as first, agent_on(listed, env=place) as second:
        me = {"command": "a", "user": "u", "host": "h", "pid": 1, "since": "now"}
        assert first.lease(me)["held"]
        answer = second.lease(me)
        assert not answer["held"] and answer["holder"] == me
        first.close()
        deadline = time.monotonic() + 10
        while not second.lease(me)["held"]:
            assert time.monotonic() < deadline, "the lock outlives its holder"
            time.sleep(0.2)


def test_an_agent_takes_its_board_as_given(server, monkeypatch):  # noqa: F811
    monkeypatch.setenv("EDGEKD_SSH", server.command)
    with Ssh("board") as board, Agent(board=board, python=sys.executable, label="x") as agent:
        assert agent.facts()["numpy"] == np.__version__
