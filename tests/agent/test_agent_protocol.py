"""The agent as anything sees it that can write and read lines."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
AGENT = ROOT / "edgekd" / "agent"
HEAVY = {"torch", "onnx", "click", "rich", "pydantic", "yaml", "onnxruntime", "openvino"}


def absolute_imports(path: Path) -> set[str]:
    """Return the top-level modules that a file imports by their absolute names."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("path", sorted(AGENT.rglob("*.py")), ids=lambda p: p.name)
def test_only_the_standard_library_and_numpy_are_named_in_an_import(path):
    assert absolute_imports(path) <= sys.stdlib_module_names | {"numpy"}


@pytest.mark.parametrize("path", sorted(AGENT.rglob("*.py")), ids=lambda p: p.name)
def test_relative_imports_stay_inside_the_agent(path):
    depth = len(path.relative_to(AGENT).parts)
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.ImportFrom) or node.level <= depth


def test_answers_carry_the_id_of_their_request(talk):
    for ident in (1, "two", None, 3):
        answer = talk.line(json.dumps({"id": ident, "op": "hello"}).encode())
        assert answer["ok"] and answer["id"] == ident
    assert answer["result"]["protocol"] == 1
    assert answer["result"]["pid"] == talk.process.pid


def test_nothing_heavy_is_imported_before_it_is_asked_for(talk, null_model):
    talk("facts")
    modules = set(talk("modules")["result"]["modules"])
    assert not modules & (HEAVY | {"numpy"})
    talk("load", runtime="null", model=str(null_model()))
    assert not set(talk("modules")["result"]["modules"]) & HEAVY


@pytest.mark.parametrize("text", [b"not json", b"[1]", b'"x"', b"\xff\xfe"])
def test_a_line_that_is_no_request_is_answered_and_survived(talk, text):
    answer = talk.line(text)
    assert not answer["ok"] and answer["id"] is None
    assert answer["error"]["kind"] == "usage"
    assert talk("hello")["ok"]


def test_an_unknown_op_lists_the_known_ones(talk):
    error = talk("dance")["error"]
    assert "dance" in error["message"]
    assert "load" in error["hint"]


def test_a_missing_argument_is_named(talk):
    assert "'model'" in talk("load", runtime="null")["error"]["message"]


def test_running_before_loading_says_so(talk):
    assert "no model is loaded" in talk("run", inputs="x", outputs="y")["error"]["message"]


def test_an_unknown_runtime_lists_the_known_ones(talk, null_model):
    error = talk("load", runtime="tensorfloat", model=str(null_model()))["error"]
    assert error["kind"] == "usage"
    assert "null, onnxruntime, openvino" in error["hint"]


def test_noise_on_descriptor_1_goes_to_standard_error(talk, null_model):
    model = null_model(noise='{"id": "load", "ok": false}\n')
    assert talk("load", runtime="null", model=str(model))["ok"]
    assert talk("hello")["id"] == "hello"
    talk.process.stdin.close()
    assert b'"ok": false' in talk.process.stderr.read()


def test_a_failed_load_leaves_no_session(talk, null_model):
    assert talk("load", runtime="null", model=str(null_model()))["ok"]
    assert not talk("load", runtime="null", model=str(null_model()), options={"bogus": 1})["ok"]
    assert "no model is loaded" in talk("run", inputs="x", outputs="y")["error"]["message"]


def test_npz_in_npz_out(talk, null_model, tmp_path):
    talk("load", runtime="null", model=str(null_model(fill=2.5)))
    np.savez(tmp_path / "in.npz", x=np.zeros((5, 3), np.float32))
    answer = talk(
        "run", inputs=str(tmp_path / "in.npz"), outputs=str(tmp_path / "out.npz"), batch=2
    )
    assert answer["result"]["n"] == 5
    with np.load(tmp_path / "out.npz") as outputs:
        assert outputs["y"].tolist() == [[2.5, 2.5]] * 5
    assert not list(tmp_path.glob("*.partial"))


def test_bye_ends_it(talk):
    assert talk("bye")["ok"]
    assert talk.process.wait(30) == 0


def test_end_of_input_ends_it(talk):
    talk("hello")
    talk.process.stdin.close()
    assert talk.process.wait(30) == 0


def test_requests_from_a_closed_pipe_are_still_answered():
    done = subprocess.run(
        [sys.executable, "-m", "edgekd.agent"],
        input=b'{"id": 1, "op": "facts"}\n\n{"id": 2, "op": "hello"}\n',
        capture_output=True,
        cwd=ROOT,
        timeout=60,
        check=True,
    )
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [1, 2]


def test_arguments_print_the_manual():
    done = subprocess.run(
        [sys.executable, "-m", "edgekd.agent", "--help"],
        capture_output=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert b'"op": "load"' in done.stderr


HOST = """
import json, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-m", "edgekd.agent"], stdin=subprocess.PIPE)
request = {"id": 1, "op": "load", "runtime": "null", "model": sys.argv[1]}
child.stdin.write(json.dumps(request).encode() + b"\\n")
child.stdin.flush()
print(child.pid, flush=True)
time.sleep(600)
"""


def test_a_busy_agent_does_not_outlive_a_killed_host(null_model):
    """Here without the kernel's help: the host does not name itself to the agent."""
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, str(null_model(crash="hang"))],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    with host:
        pid = int(host.stdout.readline())
        time.sleep(1.0)
        host.kill()
    assert_gone(pid)


def assert_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        status = Path(f"/proc/{pid}/stat")
        try:
            if status.read_text().rpartition(")")[2].split()[0] == "Z":
                return
            os.kill(pid, 0)
        except (ProcessLookupError, FileNotFoundError):
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the agent outlived its host")
