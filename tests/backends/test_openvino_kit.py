"""The C++ runner of OpenVINO bundles, built with the headers of the Python package and run."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgekd.agent import quiet
from edgekd.backends.openvino_kit import kit
from edgekd.backends.runner import SAMPLES

pytestmark = [
    pytest.mark.needs("openvino", install="pip install 'edgekd[openvino]'"),
    pytest.mark.needs("cmake", "g++", install="apt-get install cmake g++"),
]
MANIFEST = {
    "name": "net-cpu",
    "artefact": {
        "main": "model/model.xml", "precision": "fp32", "candidate": "ov-f32-exact",
        "options": {"precision": "f32", "snippets": False, "static_batch": 1},
    },
    "golden": {"tolerance": {"max_rel": 1e-4, "min_cosine": 0.9999}},
    "io": {
        "inputs": [{"name": "input", "mean": [0.5, 0.25, 0.0], "std": [0.5, 0.5, 1.0]}],
        "outputs": [{"name": "features"}],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A bundle's model folder with the runner built: a network of one product and a ReLU."""
    root = tmp_path_factory.mktemp("bundle")
    ov = quiet.import_openvino()
    ops = ov.opset13
    rng = np.random.default_rng(0)
    given = ops.parameter(ov.PartialShape([-1, 3, 4, 4]), np.float32, "input")
    flat = ops.reshape(given, np.array([-1, 48]), False)
    weights = ops.constant(rng.normal(0, 0.2, (48, 5)).astype(np.float32))
    network = ov.Model([ops.relu(ops.matmul(flat, weights, False, False))], [given], "net")
    (root / "model").mkdir()
    ov.save_model(network, root / "model" / "model.xml", compress_to_fp16=False)
    inputs = rng.normal(size=(SAMPLES + 1, 3, 4, 4)).astype(np.float32)
    compiled = ov.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for name, content in kit(MANIFEST, inputs, compiled(inputs)[0]).items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    source, build = root / "model" / "runner", root / "build"
    where = f"-DOpenVINO_DIR={Path(ov.__path__[0]) / 'cmake'}"
    command = ["cmake", "-S", str(source), "-B", str(build), where, "-DCMAKE_BUILD_TYPE=Debug"]
    for step in ([*command, "-DCMAKE_CXX_FLAGS=-Werror"], ["cmake", "--build", str(build)]):
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return root


def run(folder, *arguments):
    command = [str(folder / "build" / "runner"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_golden_self_test(folder):
    model, golden = folder / "model" / "model.xml", folder / "model" / "runner" / "golden"
    done = run(folder, model, "golden")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["golden"] == "passed" and said["samples"] == SAMPLES
    right = (golden / "output.bin").read_bytes()
    values = np.frombuffer(right, np.float32).copy()
    values[12] += 2
    try:
        (golden / "output.bin").write_bytes(values.tobytes())
        done = run(folder, model, "golden")
    finally:
        (golden / "output.bin").write_bytes(right)
    assert done.returncode == 5 and json.loads(done.stdout)["golden"] == "failed"


def test_a_changed_weight_fails_it(folder):
    weights = folder / "model" / "model.bin"
    right = weights.read_bytes()
    values = np.frombuffer(right, np.uint8).copy()
    values[3] ^= 0x40  # the exponent of the first weight
    try:
        weights.write_bytes(values.tobytes())
        done = run(folder, folder / "model" / "model.xml", "golden")
    finally:
        weights.write_bytes(right)
    assert done.returncode in (1, 5)


def test_latency_and_a_picture(folder, tmp_path):
    model = folder / "model" / "model.xml"
    timed = json.loads(run(folder, model, "time", 30).stdout)
    assert timed["runs"] == 30 and 0 < timed["p50_ms"] <= timed["p99_ms"]
    picture = np.random.default_rng(1).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    mean, std = (MANIFEST["io"]["inputs"][0][key] for key in ("mean", "std"))
    ready = ((picture / 255 - mean) / std).astype(np.float32).transpose(2, 0, 1)
    made = []
    for name, content, more in (("a", picture, ()), ("b", ready, ("--prepared",))):
        content.tofile(tmp_path / f"{name}.bin")
        out = tmp_path / f"{name}.out"
        done = run(folder, model, "raw", tmp_path / f"{name}.bin", out, *more)
        assert done.returncode == 0, done.stderr
        made.append(np.fromfile(out, np.float32))
    assert made[0] == pytest.approx(made[1], rel=1e-4)


def test_a_missing_model_is_named(folder):
    done = run(folder, folder / "nothing.xml", "golden")
    assert done.returncode == 1 and "cannot read" in done.stderr
