from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekd.backends import openvino as ov_backend
from edgekd.backends.base import backend, backends, form
from edgekd.device.link import Agent
from edgekd.errors import SetupError, StageError
from edgekd.events import silent

onnx = pytest.importorskip("onnx")

ROOT = Path(__file__).parents[2]
CANDIDATES = {
    candidate.id: candidate
    for name in backends()
    if form(name) == "onnx"
    for candidate in backend(name).candidates(["fp32", "bf16", "int8"], ["avx512_bf16"])
}
ROWS = [
    pytest.param(name, marks=[] if row.tier == 1 else [pytest.mark.slow])
    for name, row in CANDIDATES.items()
]
LEAST_COSINE = {"fp32": 0.99999, "bf16": 0.999, "int8": 0.99}


@pytest.fixture(autouse=True)
def _installed(request):
    if "openvino" in request.node.name or "ov-" in request.node.name:
        pytest.importorskip("openvino")
        pytest.importorskip("nncf")


@pytest.mark.parametrize("name", ROWS)
def test_builds_and_runs_through_the_agent(name, built, feeds, wanted, cosines):
    candidate = CANDIDATES[name]
    folder, facts = built(CANDIDATES.get(candidate.same_as, candidate))
    facts = {**facts, "options": candidate.options} if candidate.same_as else facts
    assert sorted(path.name for path in folder.iterdir()) == sorted(facts["files"])
    assert facts["main"] in facts["files"]
    assert facts["precision"] == candidate.precision
    assert facts["tool_versions"]
    assert bool(facts["quantised_ops"]) == (candidate.precision == "int8")
    with Agent() as agent:
        try:
            runs = facts.get("proxy") or facts
            agent.load(runs["runtime"], folder / facts["main"], threads=1, **runs["options"])
        except SetupError:
            pytest.skip("this processor lacks the precision")
        outputs = agent.run(feeds, batch=1)
        batched = agent.run(feeds, batch=8)
    assert list(outputs) == ["output"]
    assert cosines(outputs["output"], wanted).min() > LEAST_COSINE[candidate.precision]
    assert cosines(batched["output"], wanted).min() > LEAST_COSINE[candidate.precision]


@pytest.mark.parametrize("name", ["ort-int8-dynamic", "ov-f32", "ov-int8-conv"])
def test_a_fixed_batch_gives_every_sample_its_own_outputs(name, built, feeds):
    """The range of a dynamic quantiser is that of the batch: neighbours would change a sample."""
    folder, facts = built(CANDIDATES[name])
    assert facts["options"]["static_batch"] == 1
    with Agent() as agent:
        agent.load(facts["runtime"], folder / facts["main"], threads=1, **facts["options"])
        alone = agent.evaluate(feeds, batch=1)
        together = agent.evaluate(feeds, batch=16)
    assert alone.batch == together.batch == 1
    assert np.array_equal(alone.outputs["output"], together.outputs["output"])


@pytest.mark.parametrize("name", ["ort-int8", "ov-int8"])
def test_bytes_in_the_graph_can_be_calibrated(name, exported, pixels, wanted, cosines, tmp_path):
    candidate = CANDIDATES[name]
    facts = backend(candidate.backend).build(
        exported["uint8_nhwc"], candidate, {"input": pixels}, tmp_path, silent
    )
    with Agent() as agent:
        agent.load(facts["runtime"], tmp_path / facts["main"], threads=1, **facts["options"])
        found = agent.run({"input": pixels}, batch=8)["output"]
    assert cosines(found, wanted).min() > LEAST_COSINE["int8"]


@pytest.mark.parametrize("name", ["ort-int8", "ort-int8-dynamic", "ov-f32", "ov-int8"])
def test_same_bytes_twice(name, built, exported, feeds, tmp_path):
    """OpenVINO's builds run in a process each."""
    folder, facts = built(CANDIDATES[name])
    candidate = CANDIDATES[name]
    backend(candidate.backend).build(exported["float32_nchw"], candidate, feeds, tmp_path, silent)
    for file in facts["files"]:
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes(), file


@pytest.mark.parametrize("name", ["ort-fp32", "ort-int8", "ov-f32", "ov-int8"])
def test_nothing_of_this_machine_is_in_the_files(name, built, exported):
    folder, facts = built(CANDIDATES[name])
    for file in facts["files"]:
        content = (folder / file).read_bytes()
        for path in (str(ROOT), str(exported["float32_nchw"].parent), "site-packages"):
            assert path.encode() not in content


def test_static_int8_of_onnxruntime(built):
    _, facts = built(CANDIDATES["ort-int8"])
    assert {"Conv", "MatMul"} <= set(facts["quantised_ops"])
    assert facts["quantised_ops"]["Conv"] == facts["total_ops"]["Conv"] == 35
    assert facts["quantised_ops"]["MatMul"] == facts["total_ops"]["MatMul"]
    assert facts["total_ops"]["Softmax"] == 3
    assert set(facts["fidelity"]) == {"minmax", "percentile", "mse", "entropy"}
    best = max(facts["fidelity"], key=lambda method: facts["fidelity"][method]["sqnr_db"])
    assert facts["calibration"] == best
    assert facts["calibration_samples"] == 48


def test_scope_of_the_others(built):
    dynamic = built(CANDIDATES["ort-int8-dynamic"])[1]
    assert set(dynamic["quantised_ops"]) == {"MatMul"}
    # Products of two activations keep floating point.
    assert dynamic["quantised_ops"]["MatMul"] == dynamic["total_ops"]["MatMul"] - 6
    conv = built(CANDIDATES["ov-int8-conv"])[1]
    assert set(conv["quantised_ops"]) == {"Convolution", "GroupConvolution"}
    assert all(conv["quantised_ops"][n] == conv["total_ops"][n] for n in conv["quantised_ops"])
    everything = built(CANDIDATES["ov-int8"])[1]
    assert "MatMul" in everything["quantised_ops"]
    assert everything["model_type"] == "transformer"


def linear(path, weights):
    """y = x · weights, a sample at a time."""
    helper = onnx.helper
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    ports = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", size])
        for name, size in (("x", len(weights)), ("y", weights.shape[1]))
    ]
    held = [onnx.numpy_helper.from_array(weights, "w")]
    graph = helper.make_graph(nodes, "net", [ports[0]], [ports[1]], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(("name", "holds"), [("ov-int8", True), ("ov-int8-default", False)])
def test_ranges_hold_the_rarest_sample(name, holds, tmp_path):
    """NNCF's default is the mean of the samples' extremes: what one sample alone has, it cuts."""
    rng = np.random.default_rng(0)
    model = linear(tmp_path / "net.onnx", rng.normal(size=(64, 64)).astype(np.float32))
    x = rng.uniform(-1, 1, (64, 64)).astype(np.float32)
    x[5] *= 8
    candidate = CANDIDATES[name]
    facts = backend("openvino").build(model, candidate, {"x": x}, tmp_path / "out", silent)
    with Agent() as agent:
        place = tmp_path / "out" / facts["main"]
        agent.load(facts["runtime"], place, threads=1, **facts["options"])
        found = agent.run({"x": x[5:6]})["y"]
        agent.load("onnxruntime", model, threads=1)
        wanted = agent.run({"x": x[5:6]})["y"]
    lost = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
    assert (lost < 0.05) == holds, lost


@pytest.mark.parametrize("name", ["ort-int8", "ov-int8"])
def test_operators_that_a_target_keeps_in_float(name, exported, feeds, tmp_path):
    candidate = dataclasses.replace(CANDIDATES[name], never_quantize=("MatMul", "Gemm"))
    few = {"input": feeds["input"][:8]}
    facts = backend(candidate.backend).build(
        exported["float32_nchw"], candidate, few, tmp_path, silent
    )
    assert facts["quantised_ops"] and "MatMul" not in facts["quantised_ops"]


def fixed_convolution(path, batch):
    value = onnx.helper.make_tensor_value_info
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["input", "w"], ["y"])],
        "net",
        [value("input", onnx.TensorProto.FLOAT, [batch, 3, 8, 8])],
        [value("y", onnx.TensorProto.FLOAT, [batch, 4, 6, 6])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    opset = onnx.helper.make_opsetid("", 18)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9), path)


@pytest.mark.parametrize("name", ["ort-int8", "ov-int8"])
@pytest.mark.parametrize("count", [2, 10])
def test_graph_with_a_fixed_batch(name, count, tmp_path):
    fixed_convolution(tmp_path / "m.onnx", 4)
    samples = np.random.default_rng(1).normal(size=(count, 3, 8, 8)).astype(np.float32)
    candidate = CANDIDATES[name]
    facts = backend(candidate.backend).build(
        tmp_path / "m.onnx", candidate, {"input": samples}, tmp_path / "out", silent
    )
    assert sum(facts["quantised_ops"].values()) == 1


def test_nothing_to_quantise_dynamically(tmp_path):
    fixed_convolution(tmp_path / "m.onnx", 1)
    candidate = CANDIDATES["ort-int8-dynamic"]
    with pytest.raises(StageError, match="nothing to quantise dynamically"):
        backend("onnxruntime").build(tmp_path / "m.onnx", candidate, {}, tmp_path / "o", silent)


@pytest.mark.parametrize("name", ["ort-int8", "ov-int8"])
def test_int8_needs_samples(name, exported, tmp_path):
    candidate = CANDIDATES[name]
    with pytest.raises(StageError, match="needs calibration samples"):
        backend(candidate.backend).build(exported["float32_nchw"], candidate, {}, tmp_path, silent)


@pytest.mark.parametrize("name", ["ort-int8", "ov-f32"])
def test_corrupt_model(name, exported, feeds, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(exported["float32_nchw"].read_bytes()[:5000])
    candidate = CANDIDATES[name]
    with pytest.raises(StageError):
        backend(candidate.backend).build(path, candidate, feeds, tmp_path / "out", silent)


def test_crash_of_the_toolchain_shows_its_last_words_openvino(exported, tmp_path, monkeypatch):
    script = tmp_path / "worker.py"
    script.write_text("import os\nprint('last words', flush=True)\nos.kill(os.getpid(), 11)\n")
    real = subprocess.run

    def run(command, **options):
        return real([sys.executable, str(script)], **options)

    monkeypatch.setattr(ov_backend.subprocess, "run", run)
    with pytest.raises(StageError, match="killed by signal 11") as caught:
        backend("openvino").build(
            exported["float32_nchw"], CANDIDATES["ov-f32"], {}, tmp_path / "out", silent
        )
    assert "last words" in str(caught.value)


WATCH = """
import os, sys
def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        with open(os.environ["WATCH_LOG"], "a") as log:
            log.write(f"{event} {arguments}\\n")
sys.addaudithook(hook)
"""
BUILD = """
import sys
import numpy as np
from pathlib import Path
from edgekd.backends.base import backend
from edgekd.events import silent
model, out = Path(sys.argv[1]), Path(sys.argv[2])
feeds = {"input": np.random.default_rng(0).normal(size=(4, 3, 64, 64)).astype(np.float32)}
for name, label in (("onnxruntime", "ort-int8"), ("openvino", "ov-int8")):
    toolchain = backend(name)
    rows = {row.id: row for row in toolchain.candidates(["int8"], ["avx2"])}
    toolchain.build(model, rows[label], feeds, out / label, silent)
"""


def test_nobody_is_told_openvino(exported, tmp_path):
    """No telemetry: nothing under HOME, no connection, nothing said."""
    home, log = tmp_path / "home", tmp_path / "log.txt"
    home.mkdir()
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("XDG_")},
        "HOME": str(home),
        "WATCH_LOG": str(log),
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "watch"), str(ROOT)]),
    }
    for name in ("ORT_DISABLE_TELEMETRY", "PYTHONNOUSERSITE"):
        environment.pop(name, None)
    command = [sys.executable, "-c", BUILD, str(exported["float32_nchw"]), str(tmp_path / "out")]
    done = subprocess.run(
        command, env=environment, check=False, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "ov-int8" / "model.xml").is_file()
    assert list(home.rglob("*")) == []
    assert not log.exists()
    assert done.stdout == ""
