"""The host's end: what it does when all goes well, and when the child does not."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edgekd.device.link import Agent, RemoteError, agent_command
from edgekd.errors import RuntimeCrash, SetupError, StageError, UsageError

ROOT = Path(__file__).parents[2]
ONE = {"x": np.zeros((1, 3), np.float32)}


def gone(pid: int) -> bool:
    """Wait for a process to end; a zombie has ended."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def test_facts(agent):
    facts = agent.facts()
    assert facts["cores"] == os.cpu_count()
    assert set(facts["runtimes"]) >= {"onnxruntime", "openvino"}


def test_load_run_time(agent, null_model):
    loaded = agent.load("null", null_model(fill=1.5), threads=3)
    assert (loaded.runtime, loaded.inputs[0].name, loaded.inputs[0].shape) == (
        "null",
        "x",
        (None, 3),
    )
    evaluation = agent.evaluate({"x": np.zeros((5, 3), np.float32)}, batch=2)
    assert evaluation.outputs["y"].tolist() == [[1.5, 1.5]] * 5
    assert (evaluation.n, evaluation.batch, evaluation.nonfinite) == (5, 2, {"y": 0})
    summary = agent.time(ONE, warmup=2, runs=20, cpu_block=5).summary()
    assert summary["n"] == 20
    assert summary["threads"] == 3
    assert summary["first_ms"] is None
    assert summary["p50_ms"] <= summary["p90_ms"] <= summary["p99_ms"]
    assert summary["cpu_min_ms"] <= summary["cpu_median_ms"]
    json.dumps(summary, allow_nan=False)


def test_the_first_inference_is_reported_once(agent, null_model):
    agent.load("null", null_model())
    assert agent.time(ONE, warmup=0, runs=1).first_ms > 0
    assert agent.time(ONE, warmup=0, runs=1).first_ms is None


def test_nonfinite_outputs_are_counted(agent, null_model):
    agent.load("null", null_model(fill=float("nan")))
    assert agent.evaluate(ONE).nonfinite == {"y": 2}


def test_a_second_load_replaces_the_first(agent, null_model):
    agent.load("null", null_model(fill=1))
    agent.load("null", null_model(fill=2))
    assert agent.run(ONE)["y"][0, 0] == 2


def test_inputs_may_be_files(agent, null_model, tmp_path):
    agent.load("null", null_model())
    np.save(tmp_path / "x.npy", np.zeros((7, 3), np.float32))
    assert agent.run({"x": tmp_path / "x.npy"}, batch=4)["y"].shape == (7, 2)
    assert (tmp_path / "x.npy").exists()


def test_noise_on_standard_output_is_harmless(agent, null_model):
    agent.load("null", null_model(noise="a native library says hello\n"))
    assert agent.run(ONE)["y"].shape == (1, 2)


@pytest.mark.parametrize("moment", ["load", "run", "time"])
def test_a_segmentation_fault_is_a_runtime_crash(null_model, moment):
    model = null_model(crash="segv", when="load" if moment == "load" else "run")
    with Agent(timeout_s=60) as agent:
        folder = agent._folder
        with pytest.raises(RuntimeCrash) as error:
            agent.load("null", model)
            getattr(agent, moment)(ONE)
        crash = error.value
        doing = {"load": "loading", "run": "running", "time": "timing"}[moment]
        assert f"died with SIGSEGV while {doing} model.json" in crash.what
        assert crash.at == str(model)
        assert "Segmentation fault" in crash.hint
        assert "null.py" in crash.hint  # where it was, by the agent's fault handler
        with pytest.raises(StageError, match=r"has ended"):
            agent.facts()
    assert not folder.exists()


def test_a_child_that_exits_is_a_runtime_crash(agent, null_model):
    with pytest.raises(RuntimeCrash, match=r"exited with code 7 while loading model\.json"):
        agent.load("null", null_model(crash="exit"))


def test_a_child_killed_for_memory_is_told_so(agent, null_model):
    agent.load("null", null_model(crash="hang", when="run"))
    threading.Timer(0.3, os.kill, (agent._child.pid, signal.SIGKILL)).start()
    with pytest.raises(RuntimeCrash, match="SIGKILL") as error:
        agent.run(ONE)
    assert "memory" in error.value.hint


@pytest.mark.parametrize("crash", ["hang", "stuck"])
def test_a_silent_child_is_killed(null_model, crash):
    with Agent(timeout_s=0.5) as agent:
        pid = agent._child.pid
        with pytest.raises(RuntimeCrash, match=r"no answer within 0\.5 s and was killed"):
            agent.load("null", null_model(crash=crash))
        assert gone(pid)


def test_a_crash_names_the_place_unless_it_is_here(null_model):
    with (
        Agent(label="rack-3", timeout_s=60) as agent,
        pytest.raises(RuntimeCrash, match="null on rack-3 died with SIGSEGV"),
    ):
        agent.load("null", null_model(crash="segv"))


def test_an_interrupt_kills_the_child(null_model):
    with pytest.raises(KeyboardInterrupt), Agent(timeout_s=60) as agent:
        pid, folder = agent._child.pid, agent._folder
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        agent.load("null", null_model(crash="hang"))
    assert gone(pid)
    assert not folder.exists()


def test_a_forgotten_agent_is_killed(recwarn):
    agent = Agent()
    pid = agent._child.pid
    del agent
    gc.collect()
    assert gone(pid)


HOST = """
import sys, threading
from pathlib import Path
from edgekd.device.link import Agent
def work():
    agent = Agent()
    print(agent._child.pid, flush=True)
    agent.load("null", Path(sys.argv[1]))
if sys.argv[2] == "main":
    work()
else:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
"""


@pytest.mark.parametrize(
    ("thread", "crash"), [("main", "hang"), ("main", "stuck"), ("other", "hang")]
)
def test_a_busy_child_does_not_outlive_a_killed_host(null_model, tmp_path, thread, crash):
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, str(null_model(crash=crash)), thread],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},  # what a killed host cannot clean up
    )
    with host:
        pid = int(host.stdout.readline())
        time.sleep(0.5)
        host.kill()
    assert gone(pid)


def test_a_child_survives_the_thread_that_started_it(null_model):
    agents = []
    thread = threading.Thread(target=lambda: agents.append(Agent(timeout_s=60)))
    thread.start()
    thread.join()
    time.sleep(0.2)
    with agents[0] as agent:
        assert agent.load("null", null_model()).runtime == "null"


def test_files_are_removed_after_each_request_and_at_the_end(null_model):
    with Agent() as agent:
        folder = agent._folder
        assert folder.stat().st_mode & 0o077 == 0  # nobody else reads the user's data
        agent.load("null", null_model())
        agent.run(ONE)
        agent.time(ONE, runs=1)
        with pytest.raises(UsageError):
            agent.run({"z": ONE["x"]})
        assert list(folder.iterdir()) == []
    assert not folder.exists()


def test_a_missing_model_is_a_usage_error(agent, tmp_path):
    with pytest.raises(UsageError, match="no such model"):
        agent.load("null", tmp_path / "nothing.json")


def test_a_relative_model_is_the_hosts(agent, null_model, monkeypatch):
    model = null_model()
    monkeypatch.chdir(model.parent)
    assert agent.load("null", Path("model.json")).runtime == "null"


def test_an_unknown_runtime_is_a_usage_error(agent, null_model):
    with pytest.raises(UsageError, match="unknown runtime 'nul'") as error:
        agent.load("nul", null_model())
    assert "onnxruntime" in error.value.hint


def test_a_refusal_carries_the_remote_traceback(agent, null_model):
    model = null_model()
    model.write_text("{")
    with pytest.raises(UsageError) as error:
        agent.load("null", model)
    assert isinstance(error.value.__cause__, RemoteError)
    assert "null.py" in str(error.value.__cause__)


def test_a_missing_runtime_is_a_setup_error(null_model, tmp_path):
    """Another interpreter, without the package: here an isolated one with numpy alone."""
    with (
        Agent(python=lean_interpreter(tmp_path), timeout_s=60) as agent,
        pytest.raises(SetupError, match="needs the package 'openvino'") as error,
    ):
        assert agent.facts()["runtimes"]["openvino"] is None
        assert agent.load("null", null_model()).runtime == "null"
        agent.load("openvino", null_model(), precision="f32")
    assert error.value.hint == "pip install openvino"


def lean_interpreter(folder: Path) -> Path:
    """Return an "interpreter" that sees numpy and the standard library, and nothing else."""
    (folder / "site").mkdir()
    package = Path(np.__file__).parent
    (folder / "site" / "numpy").symlink_to(package)
    if (package.parent / "numpy.libs").exists():
        (folder / "site" / "numpy.libs").symlink_to(package.parent / "numpy.libs")
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={folder / "site"} exec "{sys.executable}" -S "$@"\n')
    script.chmod(0o755)
    return script


def test_an_interpreter_that_does_not_exist_is_a_setup_error(tmp_path):
    with pytest.raises(SetupError, match="cannot start the agent"):
        Agent(python=tmp_path / "python9")


def test_a_command_that_is_no_agent_is_a_setup_error():
    with pytest.raises(SetupError, match="did not start: it exited with code 3") as error:
        Agent(["sh", "-c", "echo out of order >&2; exit 3"])
    assert "out of order" in error.value.hint


def test_a_banner_before_the_first_answer_is_passed_over(null_model):
    command = f"echo Welcome to rack-3; echo '[1]'; exec '{sys.executable}' -m edgekd.agent"
    env = {"PYTHONPATH": str(ROOT)}
    with Agent(["sh", "-c", command], env=env, timeout_s=60) as agent:
        assert agent.load("null", null_model()).runtime == "null"


def test_another_protocol_is_a_setup_error():
    answer = json.dumps({"id": 1, "ok": True, "result": {"protocol": 99, "runtimes": {}}})
    with pytest.raises(SetupError, match="speaks protocol 99"):
        Agent(["sh", "-c", f"read line; echo '{answer}'; sleep 60"])


def test_command_and_interpreter_exclude_one_another():
    with pytest.raises(UsageError):
        Agent(agent_command(), python=sys.executable)


def test_a_prefixed_command(null_model):
    with Agent(["env", "EDGEKD_TEST=1", *agent_command()], timeout_s=60) as agent:
        assert agent.load("null", null_model()).runtime == "null"


def test_no_file_of_the_users_shadows_a_module(tmp_path, monkeypatch, null_model):
    for name in ("numpy", "json", "queue", "edgekd"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    with Agent(timeout_s=60) as agent:
        agent.load("null", null_model())
        assert agent.run(ONE)["y"].shape == (1, 2)


def test_the_child_has_one_thread_a_library_unless_told_otherwise(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    with Agent(env={"MKL_NUM_THREADS": "4"}) as agent:
        environ = Path(f"/proc/{agent._child.pid}/environ").read_bytes().split(b"\0")
    assert b"OMP_NUM_THREADS=1" in environ
    assert b"MKL_NUM_THREADS=4" in environ


def test_peak_memory_is_the_childs_own(null_model):
    """``ru_maxrss`` would report the memory of the host that started it."""
    ballast = np.ones(400 * 2**20 // 8)
    with Agent(timeout_s=60) as agent:
        agent.load("null", null_model())
        assert agent.time(ONE, runs=1).peak_rss_mib < 200 < ballast.nbytes / 2**20


def test_the_link_imports_nothing_heavy():
    code = """
        import sys
        import edgekd.device.link
        assert not {"torch", "onnx", "click", "rich", "pydantic", "onnxruntime"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, check=True)


def test_the_reference_kernel_is_timed_without_a_model(agent):
    found = agent.kernel(3)
    assert found["name"] == "matmul-128-v1"
    assert 0 < found["cpu_ns"] < 1e9
    assert 0 < found["wall_ns"] < 10e9


def test_energy_by_a_meter_that_writes_a_file(agent, null_model, tmp_path):
    """3 W at rest and 5 W at work, written by another process as inferences run."""
    agent.load("null", null_model())
    x = {"x": np.ones((2, 3), np.float32)}
    meter, stop = tmp_path / "meter.csv", threading.Event()
    meter.write_text("seconds,milliwatts\n")

    def write():
        began = time.time()
        with meter.open("a", buffering=1) as stream:
            while not stop.is_set():
                power = 3000 if time.time() < began + 0.5 else 5000
                stream.write(f"{time.time()},{power}\n")
                time.sleep(0.02)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        found = agent.metered(x, meter, seconds=1.0, idle_s=0.4)
    finally:
        stop.set()
        thread.join()
    assert found["idle_mw"] == pytest.approx(3000) and 4700 < found["mean_mw"] <= 5000.01
    assert found["net_mj"] == pytest.approx(found["gross_mj"] * (1 - 3000 / found["mean_mw"]))
    assert found["runs"] > 10 and found["meter"] == "meter.csv"

    (tmp_path / "old.csv").write_text("seconds,milliwatts\n1,3000\n2,3000\n")
    assert "0 samples" in agent.metered(x, tmp_path / "old.csv", seconds=0.1)["not_run"]
    (tmp_path / "odd.csv").write_text("time,watts\n1,2\n")
    with pytest.raises(UsageError, match="no meter's file"):
        agent.metered(x, tmp_path / "odd.csv", seconds=0.1, idle_s=0.1)
