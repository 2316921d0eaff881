"""The command line as a whole: outcomes, exit codes, streams."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from edgekd import errors
from edgekd.cli import run

ROOT = Path(__file__).parents[1]
ERRORS = [
    errors.EdgekdError("what"),
    errors.UsageError("what", hint="do this"),
    errors.RecipeError("what", at="recipes/r.py:3"),
    errors.TargetError("what", at="t.yaml: limits", hint="do this"),
    errors.DataError("what"),
    errors.BudgetError("p50 2.1 ms, limit 2.0 ms", at="cpu: limits.latency_p50_ms"),
    errors.SetupError("target 'cpu' needs OpenVINO", hint="pip install 'edgekd[openvino]'"),
    errors.VerifyError("sha256 differs", at="model.onnx"),
    errors.StageError("step export failed"),
    errors.RuntimeCrash("the runtime died: SIGSEGV"),
]
ASKED = ["compress", "--recipe", "r", "--target", "cpu", "--set", "a=b c"]


@pytest.fixture
def failing(monkeypatch):
    """Make ``compress`` raise."""

    def fail_with(error: BaseException) -> None:
        def compress(*_, **__):
            raise error

        api = type(sys)("edgekd.api")
        api.compress = compress
        monkeypatch.setitem(sys.modules, "edgekd.api", api)

    return fail_with


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_three_lines_and_its_exit_code(error, failing, capsys, snapshot):
    failing(error)
    assert run(ASKED) == error.exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert err == snapshot


def test_an_error_as_json_is_one_line(failing, capsys):
    failing(errors.SetupError("no board", at="ssh:x", hint="plug it in"))
    assert run([*ASKED, "--json"]) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        '{"kind": "error", "what": "no board", "at": "ssh:x", "hint": "plug it in", '
        '"exit_code": 4}\n'
    )


def test_a_failed_stage_shows_its_cause(failing, capsys):
    try:
        try:
            raise KeyError("their own bug")
        except KeyError as cause:
            raise errors.StageError("step data failed") from cause
    except errors.StageError as error:
        failing(error)
    assert run(ASKED) == 1
    err = capsys.readouterr().err
    assert "KeyError: 'their own bug'" in err
    assert err.endswith("error: step data failed\n")


def test_an_interrupted_compress_says_how_to_resume(failing, capsys, snapshot):
    failing(KeyboardInterrupt())
    assert run(ASKED) == 130
    assert capsys.readouterr().err == snapshot


def test_an_unforeseen_exception_is_our_bug(failing, capsys):
    failing(ZeroDivisionError("division by zero"))
    assert run(ASKED) == 1
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert "this is a bug in edgekd 0.1.0: ZeroDivisionError: division by zero" in err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["bogus"],
        ["compres"],
        ["compress"],
        ["compress", "--recipe", "r"],
        [*ASKED, "--pick", "best"],
        [*ASKED, "--set", "novalue"],
        [*ASKED, "--device", "tpu"],
        [*ASKED, "--bogus"],
        ["recipes", "bogus"],
        ["recipes", "show"],
        ["profile", "b", "--runs", "0"],
        ["completion", "tcsh"],
    ],
    ids=" ".join,
)
def test_usage_errors_exit_2(arguments, capsys, snapshot, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err) == snapshot


def test_a_usage_error_as_json_is_one_line(capsys):
    assert run(["compress", "--json", "--recipe", "r"]) == 2
    assert '"kind": "error"' in capsys.readouterr().err


def start(*arguments: str, **options) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


def test_python_m_edgekd_runs():
    process = start("-m", "edgekd", "--version")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "edgekd 0.1.0\n", "")


def test_a_closed_pipe_is_no_error():
    process = start("-m", "edgekd", "targets", "schema")
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 141
    assert err == ""


def test_control_c_in_a_real_process(tmp_path):
    script = textwrap.dedent(
        """
        import sys, time, types
        api = types.ModuleType("edgekd.api")
        def compress(*_, emit, **__):
            from edgekd.events import Event
            emit(Event("start", "distill"))
            time.sleep(60)
        api.compress = compress
        sys.modules["edgekd.api"] = api
        from edgekd.cli import main
        main(["compress", "--recipe", "r", "--target", "cpu"])
        """
    )
    process = start("-c", script)
    assert process.stderr.readline() == "distill: started\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "to resume: edgekd compress --recipe r --target cpu" in err


def test_completion_answers_the_shell():
    environment = {
        "_EDGEKD_COMPLETE": "bash_complete",
        "COMP_WORDS": "edgekd comp",
        "COMP_CWORD": "1",
    }
    process = start("-m", "edgekd", env=environment)
    out, err = process.communicate(timeout=60)
    assert err == ""
    assert out.split() == ["plain,compress", "plain,compare", "plain,completion"]
