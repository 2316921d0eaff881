"""Engines built by NVIDIA's Python package: its calls, version by version, and the real ones."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import types
from pathlib import Path
from unittest.mock import MagicMock, call

import pytest

from edgekd.agent import trtpackage
from edgekd.agent.faults import Fault, SetupFault
from edgekd.agent.runtimes import trt as runtime

HAVE = importlib.util.find_spec("tensorrt_rtx") is not None


class Logger:
    WARNING = 2

    def __init__(self, *level):
        pass


def package(flags, plan=b"plan", errors=(), says=()):
    """A package with the flags of a version; it remembers what it was asked for."""
    trt = MagicMock(__version__="10.3.0", ILogger=Logger, Logger=Logger)
    trt.NetworkDefinitionCreationFlag = types.SimpleNamespace(**flags)
    builder, parser = trt.Builder.return_value, trt.OnnxParser.return_value
    cache = builder.create_builder_config.return_value.get_timing_cache.return_value
    cache.serialize.return_value = b"timings"
    parser.parse.return_value, parser.num_errors = not errors, len(errors)
    parser.get_error.side_effect = lambda i: types.SimpleNamespace(desc=lambda: errors[i])

    def built(network, config):
        (logger,) = trt.Builder.call_args.args
        for severity, text in says:
            logger.log(f"Severity.{severity}", text)
        return plan

    builder.build_serialized_network.side_effect = built
    engine = trt.Runtime.return_value.deserialize_cuda_engine.return_value
    inspector = engine.create_engine_inspector.return_value
    inspector.get_engine_information.return_value = '{"Layers": []}'
    return trt


def build(tmp_path, trt, precision="int8"):
    (tmp_path / "m.onnx").write_bytes(b"an ONNX file")
    log = trtpackage.Log()
    return trtpackage.build(
        trt, tmp_path / "m.onnx", workspace_mib=256, cache=tmp_path / "timing.cache",
        shapes={"x": (1, 3)}, precision=precision, log=log,
    ), log  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "precision", "bits", "allowed"),
    [
        ({"EXPLICIT_BATCH": 0}, "int8", 0b1, ["FP16", "INT8"]),
        ({"EXPLICIT_BATCH": 0}, "fp16", 0b1, ["FP16"]),
        ({"EXPLICIT_BATCH": 0}, "fp32", 0b1, []),
        ({"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}, "int8", 0b11, []),
        ({"STRONGLY_TYPED": 0}, "int8", 0b1, []),
    ],
    ids=["8.6 int8", "8.6 fp16", "8.6 fp32", "10", "11"],
)
def test_typing_by_version(tmp_path, flags, precision, bits, allowed):
    trt = package(flags)
    plan, _ = build(tmp_path, trt, precision)
    builder = trt.Builder.return_value
    config = builder.create_builder_config.return_value
    assert plan == b"plan" and builder.create_network.call_args == call(bits)
    assert config.set_flag.call_args_list == [call(getattr(trt.BuilderFlag, n)) for n in allowed]
    workspace = call(trt.MemoryPoolType.WORKSPACE, 256 * 2**20)
    assert config.set_memory_pool_limit.call_args == workspace
    profile = builder.create_optimization_profile.return_value
    assert profile.set_shape.call_args == call("x", (1, 3), (1, 3), (1, 3))
    assert config.create_timing_cache.call_args == call(b"")
    assert (tmp_path / "timing.cache").read_bytes() == b"timings"
    build(tmp_path, trt)
    assert config.create_timing_cache.call_args == call(b"timings")


def test_a_model_that_is_refused_and_a_build_that_fails(tmp_path):
    with pytest.raises(Fault, match="does not take the model: no such operator"):
        build(tmp_path, package({"STRONGLY_TYPED": 1}, errors=["no such operator"]))
    says = [("INFO", "hello"), ("ERROR", "OutOfMemory: Requested amount of GPU memory")]
    with pytest.raises(SetupFault, match="memory ran out"):
        build(tmp_path, package({"STRONGLY_TYPED": 1}, plan=None, says=says))
    with pytest.raises(Fault, match="TensorRT's builder failed: it said no reason"):
        build(tmp_path, package({"STRONGLY_TYPED": 1}, plan=None))


def test_without_trtexec_the_package_builds_and_the_log_is_kept(tmp_path, monkeypatch):
    trt = package({"STRONGLY_TYPED": 1}, says=[("WARNING", "careful")])
    monkeypatch.setattr(runtime.trtexec, "find", lambda place: None)
    monkeypatch.setattr(runtime, "_package", lambda: trt)
    monkeypatch.setattr(runtime.trtpackage, "has_gpu", lambda: True)
    monkeypatch.setattr(runtime, "ByPackage", Runner)
    (tmp_path / "m.onnx").write_bytes(b"an ONNX file")
    io = {"inputs": [{"name": "x", "shape": [3], "dtype": "float32"}], "outputs": []}
    opened = runtime.open_session(tmp_path / "m.onnx", {"io": io, "cache": str(tmp_path / "c")})
    assert opened.version == "10.3.0" and opened.effective["builder"] == "python package"
    assert opened.engine.read_bytes() == b"plan"
    told = opened.evidence(tmp_path)
    assert "careful" in (tmp_path / "build.log").read_text()
    assert told["layers"] == {"all": 0, "reformats": 0, "int8": 0}
    assert "no trtexec" in told["slowest"]["not_run"]
    opened.close()


class Runner:
    name = "python package"

    def __init__(self, *given):
        pass

    def close(self):
        pass


def test_without_a_gpu_the_package_is_not_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime.trtexec, "find", lambda place: None)
    monkeypatch.setattr(runtime, "_package", lambda: package({}))
    monkeypatch.setattr(runtime.trtpackage, "has_gpu", lambda: False)
    with pytest.raises(SetupFault, match="no trtexec, and no GPU for the package"):
        runtime.open_session(tmp_path / "m.onnx", {"io": {"inputs": [], "outputs": []}})


REAL = """
import json, sys
from pathlib import Path
from unittest.mock import MagicMock, call
import tensorrt_rtx as trt
from edgekd.agent import trtpackage
from edgekd.agent.faults import Fault

class Builder(trt.Builder):
    # Without a GPU here, it must be told for which to build.
    def create_builder_config(self):
        config = super().create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM86, 0)
        return config

class Package:
    def __getattr__(self, name):
        return Builder if name == "Builder" else getattr(trt, name)

log, asked = trtpackage.Log(), dict(workspace_mib=64, cache=Path(sys.argv[2]), precision="int8")
try:
    plan = trtpackage.build(Package(), Path(sys.argv[1]), shapes={"x": (1, 8, 8, 8)}, log=log, **asked)
    print(json.dumps({"bytes": len(plan), "lines": len(log.lines)}))
except Fault as fault:
    print(json.dumps({"fault": str(fault)}))
"""


@pytest.mark.skipif(not HAVE, reason="pip install 'edgekd[tensorrt-rtx]' runs these")
@pytest.mark.parametrize(("graph", "said"), [("good", "bytes"), ("qlinear", "fault")])
def test_the_calls_are_those_of_nvidias_package(tmp_path, graph, said):
    """TensorRT for RTX shares the Python interface; it builds without a GPU."""
    onnx = pytest.importorskip("onnx")
    from tests.graph import planted

    onnx.save(getattr(planted, graph)(), tmp_path / "m.onnx")
    command = [sys.executable, "-c", REAL, str(tmp_path / "m.onnx"), str(tmp_path / "cache")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    assert said in answer, answer
    if said == "fault":
        assert "does not take the model" in answer["fault"]
