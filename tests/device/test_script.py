"""A script with its files on a device: here, and behind a real sshd."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgekd.backends.runner import SAMPLES
from edgekd.backends.tensorrt_kit import kit
from edgekd.bundle import Bundle
from edgekd.device.script import run_script
from edgekd.errors import StageError
from edgekd.verify import _runner, _sentence
from tests.backends.test_tensorrt_kit import FAKE, MANIFEST, TRTEXEC
from tests.device.test_ssh import server  # noqa: F401  # a fixture


@pytest.mark.parametrize("on", ["local", "ssh:board"])
def test_files_are_there_and_gone_afterwards(on, server, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("EDGEKD_SSH", server.command)
    (tmp_path / "a").write_text("one\n")
    (tmp_path / "b").write_text("two\n")
    files = {"a": tmp_path / "a", "deep/er/b": tmp_path / "b"}
    done = run_script(on, files, "pwd; cat a deep/er/b; echo said >&2; exit 3", 20)
    folder, *rest = done.out.decode().splitlines()
    assert (rest, done.error, done.code) == (["one", "two"], "said", 3)
    assert not Path(folder).exists()
    with pytest.raises(StageError, match="took more than 1 s and was killed"):
        run_script(on, {}, "sleep 30", 1)


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """What of a bundle the runner needs, and a board's tools, made up here."""
    for tool in ("cmake", "g++"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}: apt-get install cmake g++")
    inputs = np.random.default_rng(0).normal(size=(SAMPLES, 3, 4, 4)).astype(np.float32)
    files = kit(MANIFEST, inputs, inputs.reshape(len(inputs), -1)[:, :5] + 1)
    for name, content in {**files, "model/model.onnx": b"an ONNX file"}.items():
        place = tmp_path / "bundle" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    home = tmp_path / "home"
    for folder in ("include", "lib", "lib64"):
        (home / folder).mkdir(parents=True)
    for header in FAKE.iterdir():
        shutil.copy(header, home / "include")
    (tmp_path / "empty.c").write_text("")
    for library in ("lib/libnvinfer.so", "lib64/libcudart.so"):
        command = ["gcc", "-shared", str(tmp_path / "empty.c"), "-o", str(home / library)]
        subprocess.run(command, check=True)
    tool = tmp_path / "trtexec"
    # Its arguments are written beside the model; the engine is the word "plan".
    tool.write_text(TRTEXEC.replace("@VERSION@", "100300").replace("@MORE@", ""))
    tool.chmod(0o755)
    for name in ("CUDA_HOME", "TENSORRT_HOME"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("TRTEXEC", str(tool))
    names = [
        p.relative_to(tmp_path / "bundle").as_posix() for p in (tmp_path / "bundle").rglob("*")
    ]
    manifest = {**MANIFEST, "files": {n: "" for n in names if (tmp_path / "bundle" / n).is_file()}}
    return Bundle(tmp_path / "bundle", manifest, "")


BOARD = {"tools": {"trtexec": "/usr/src/tensorrt/bin/trtexec"}}


def test_verify_builds_the_runner_on_the_board(bundle):
    (check,) = _runner(bundle, BOARD, "local")
    assert check.status == "passed", check
    assert check.facts["golden"] == "passed" and check.facts["samples"] == SAMPLES
    assert check.facts["p50_ms"] >= 0
    plain = check.plain()
    assert _sentence(plain).startswith(f"passed: {SAMPLES} golden samples")
    assert not (bundle.path / "model" / "model.plan").exists(), "a bundle is never written into"


def test_a_runner_whose_outputs_differ_fails_verify(bundle):
    golden = bundle.path / "model" / "runner" / "golden" / "output.bin"
    values = np.fromfile(golden, np.float32)
    values[3] += 2
    values.tofile(golden)
    (check,) = _runner(bundle, BOARD, "local")
    assert check.status == "failed" and "golden self-test" in check.wrong[0]


@pytest.mark.parametrize(
    ("machine", "said"),
    [({"tools": {"trtexec": None}}, "no trtexec"), ({**BOARD, "replay": {}}, "a recording")],
)
def test_without_a_board_it_is_not_run(bundle, machine, said):
    (check,) = _runner(bundle, machine, "local")
    assert said in check.not_run and "verify --on" in check.not_run


def test_what_cannot_be_built_is_not_run_and_says_why(bundle, monkeypatch):
    monkeypatch.setenv("TENSORRT_HOME", "/nowhere")
    shutil.rmtree(Path(bundle.path).parent / "home" / "include")
    (check,) = _runner(bundle, BOARD, "local")
    assert "it was not built, exit code 1" in check.not_run
