"""What travels in the bundle: the build script against a trtexec made up here, and the runner."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgekd.backends.runner import SAMPLES
from edgekd.backends.tensorrt_kit import kit

FAKE = Path(__file__).parent / "fake_tensorrt"
MANIFEST = {
    "name": "net-jetson",
    "artefact": {"main": "model/model.onnx", "precision": "int8", "candidate": "trt-int8"},
    "golden": {"tolerance": {"max_rel": 0.1, "min_cosine": 0.99}},
    "io": {
        "inputs": [{"name": "input", "mean": [0.5, 0.25, 0.0], "std": [0.5, 0.5, 1.0]}],
        "outputs": [{"name": "features"}],
    },
}
TRTEXEC = """#!/bin/sh
banner="[TensorRT v@VERSION@] # trtexec $*"
echo "&&&& RUNNING TensorRT.trtexec $banner"
[ "$1" = --help ] && exit 0
printf '%s\\n' "$@" > arguments.txt
@MORE@
for word in "$@"; do case "$word" in --saveEngine=*) printf plan > "${word#*=}" ;; esac; done
echo "&&&& PASSED TensorRT.trtexec $banner"
"""


@pytest.fixture
def folder(tmp_path):
    """The kit on disk; the network adds 1 to the first five values, as the stand-in does."""
    inputs = np.random.default_rng(0).normal(size=(SAMPLES + 1, 3, 4, 4)).astype(np.float32)
    outputs = inputs.reshape(len(inputs), -1)[:, :5] + 1
    for name, content in kit(MANIFEST, inputs, outputs).items():
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return tmp_path / "model"


def build(folder, version="100300", more="", *arguments, **variables):
    tool = folder / "fake-trtexec"
    tool.write_text(TRTEXEC.replace("@VERSION@", version).replace("@MORE@", more))
    tool.chmod(0o755)
    env = {**os.environ, "TRTEXEC": str(tool), **variables}
    command = ["sh", str(folder / "build.sh"), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd="/")


@pytest.mark.parametrize(
    ("version", "typing"),
    [("8601", ["--fp16", "--int8"]), ("100300", ["--stronglyTyped"]), ("110100", [])],
)
def test_the_script_speaks_every_version(folder, version, typing):
    done = build(folder, version)
    assert done.returncode == 0, done.stderr
    words = (folder / "arguments.txt").read_text().split("\n")
    assert [word for word in words if word in ("--fp16", "--int8", "--stronglyTyped")] == typing
    assert {"--onnx=model.onnx", "--skipInference", "--minShapes=input:1x3x4x4"} <= set(words)
    assert (folder / "model.plan").read_bytes() == b"plan"
    assert not any("@" in word for word in words)


def test_a_workspace_from_the_free_memory(folder):
    build(folder)
    words = (folder / "arguments.txt").read_text()
    given = int(words.partition("workspace:")[2].split()[0])
    assert 64 < given < 10**7
    build(folder, WORKSPACE_MIB="123")
    assert "--memPoolSize=workspace:123\n" in (folder / "arguments.txt").read_text()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            'echo "[E] Error Code 2: OutOfMemory (out of memory)"; exit 1',
            "the board's memory ran out",
        ),
        ('echo "[E] broken"; exit 1', "[E] broken"),
        ("exit 0", "no engine was built"),
    ],
)
def test_a_failed_build_is_no_success(folder, more, said):
    done = build(folder, "100300", more)
    assert done.returncode == 1 and said in done.stderr
    assert not (folder / "model.plan").exists()


def test_without_trtexec(folder):
    env = {"PATH": "/usr/bin:/bin", "TRTEXEC": "/nowhere"}
    done = subprocess.run(
        ["sh", str(folder / "build.sh")], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 4 and "libnvinfer-bin" in done.stderr


@pytest.fixture
def runner(folder):
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler: apt-get install g++")
    program = folder / "runner" / "runner"
    command = [compiler, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-I", str(FAKE)]
    command += [f'-DEDGEKD_GOLDEN_FOLDER="{folder / "runner" / "golden"}"']
    subprocess.run(
        [*command, str(folder / "runner" / "runner.cpp"), "-o", str(program)], check=True
    )
    (folder / "model.plan").write_bytes(b"plan")

    def run(*arguments):
        command = [str(program), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


def test_the_golden_self_test(runner, folder):
    done = runner(folder / "model.plan", "golden")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "golden": "passed", "samples": SAMPLES, "min_cosine": 1.0, "max_rel": 0.0,
    }  # fmt: skip
    golden = folder / "runner" / "golden" / "output.bin"
    values = np.fromfile(golden, np.float32)
    values[12] += 2
    values.tofile(golden)
    done = runner(folder / "model.plan", "golden")
    assert done.returncode == 5 and json.loads(done.stdout)["golden"] == "failed"


def test_latency_and_raw_input(runner, folder, tmp_path):
    timed = json.loads(runner(folder / "model.plan", "time", 30).stdout)
    assert timed["runs"] == 30 and 0 <= timed["p50_ms"] <= timed["p99_ms"]
    picture = np.random.default_rng(1).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    picture.tofile(tmp_path / "in.bin")
    done = runner(folder / "model.plan", "raw", tmp_path / "in.bin", tmp_path / "out.bin")
    assert done.returncode == 0, done.stderr
    first = (picture[..., 0].ravel()[:5] / 255 - 0.5) / 0.5
    np.testing.assert_allclose(np.fromfile(tmp_path / "out.bin", np.float32), first + 1, rtol=1e-6)
    prepared = np.arange(48, dtype=np.float32)
    prepared.tofile(tmp_path / "in.bin")
    runner(folder / "model.plan", "raw", tmp_path / "in.bin", tmp_path / "out.bin", "--prepared")
    assert np.fromfile(tmp_path / "out.bin", np.float32).tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("model.plan",), 2, "runner MODEL"),
        (("model.plan", "sing"), 2, "runner MODEL"),
        (("nothing.plan", "golden"), 1, "cannot read"),
        (("runner/runner.cpp", "golden"), 1, "another TensorRT"),
        (("model.plan", "raw", "model.plan", "o"), 1, "another size"),
    ],
)
def test_refusals_of_the_runner(runner, folder, arguments, code, said):
    paths = [folder / word if "." in word else word for word in arguments]
    done = runner(*paths)
    assert done.returncode == code and said in done.stderr


def test_a_network_that_takes_bytes():
    files = kit(MANIFEST, np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 5), np.float32))
    header = files["model/runner/contract.h"].decode()
    assert "kTakesBytes = true" in header and "kInputBytes = 48;" in header
    assert len(files["model/runner/golden/input.bin"]) == 96
