"""The runtime ``tensorrt`` against a trtexec, a package and a CUDA library made up here.

They prove what edgekd does with the real ones' answers, nothing of TensorRT itself.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from edgekd.agent import jetson, measure
from edgekd.agent.faults import Fault, SetupFault
from edgekd.agent.runtimes import trt

IO = {
    "inputs": [{"name": "x", "shape": [2, 3], "dtype": "float32"}],
    "outputs": [{"name": "y", "shape": [6], "dtype": "float32"}],
}
TRTEXEC = """#!{python}
import sys
import struct
options = dict(word[2:].partition("=")[::2] for word in sys.argv[1:])
banner = "[TensorRT v100300] # " + " ".join(sys.argv)
print("&&&& RUNNING TensorRT.trtexec", banner)
with open(__file__ + ".calls", "a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
if "onnx" in options:
    {more}
    open(options["saveEngine"], "wb").write(b"plan")
    print("[01/01/2026-00:00:00] [I] Engine built in 12.5 sec.")
if "loadInputs" in options:
    name, _, path = options["loadInputs"].partition(":")
    raw = open(path, "rb").read()
    values = [v + 1 for v in struct.unpack(f"<{{len(raw) // 4}}f", raw)]
    shown = ", ".join(f"{{v:.6g}}" for v in values)
    open(options["exportOutput"], "w").write(
        f'[\\n  {{{{ "name" : "y"\\n  , "dimensions" : "1x6"\\n  , "values" : [ {{shown}} ]\\n  }}}}\\n]\\n')
if "exportTimes" in options:
    print("[01/01/2026-00:00:00] [I] Timing trace has 2 queries over 0.0017 s")
    rows = ('{{ "computeMs" : ' + ms + ', "latencyMs" : ' + ms + ' }}' for ms in ("0.87", "0.84"))
    open(options["exportTimes"], "w").write("[" + ", ".join(rows) + "]")
if "exportProfile" in options:
    row = '{{ "name" : "fc", "timeMs" : 5, "averageMs" : 0.1, "percentage" : 100 }}'
    open(options["exportProfile"], "w").write('[{{ "count" : 50 }}, ' + row + "]")
print("&&&& PASSED TensorRT.trtexec", banner)
"""


def tool(tmp_path, more="pass"):
    path = tmp_path / "trtexec"
    path.write_text(TRTEXEC.format(python=sys.executable, more=more))
    path.chmod(0o755)
    return path


def session(tmp_path, **options):
    model = tmp_path / "model.onnx"
    model.write_bytes(b"an ONNX file")
    given = {
        "io": IO,
        "precision": "int8",
        "cache": str(tmp_path / "cache"),
        "trtexec": str(tmp_path / "trtexec"),
    }
    return trt.open_session(model, given | options)


def calls(tmp_path):
    lines = (tmp_path / "trtexec.calls").read_text().splitlines()
    return [line for line in lines if "--onnx" in line]


@pytest.fixture
def no_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)


SAMPLE = {"x": np.arange(6, dtype=np.float32).reshape(1, 2, 3)}


def test_an_engine_is_built_once_and_kept(tmp_path, no_package):
    tool(tmp_path)
    first = session(tmp_path)
    assert first.version == "10.3.0" and not first.built["kept"]
    assert first.built["build_s"] == 12.5
    (call,) = calls(tmp_path)
    assert "--stronglyTyped" in call and "--optShapes=x:1x2x3" in call
    assert f"workspace:{trt._workspace()}"[:10] in call
    second = session(tmp_path)
    assert second.built["kept"] and second.built["build_s"] == 12.5
    assert second.effective == first.effective, "what verify compares is the same for a kept engine"
    assert len(calls(tmp_path)) == 1
    (tmp_path / "model.onnx").write_bytes(b"another")
    session(tmp_path, precision="fp16")
    assert len(calls(tmp_path)) == 2


def test_inference_by_trtexec(tmp_path, no_package):
    tool(tmp_path)
    opened = session(tmp_path)
    assert opened.run(SAMPLE)["y"].tolist() == [[1, 2, 3, 4, 5, 6]]
    with pytest.raises(SetupFault, match="processes of its own"):
        opened.bind(SAMPLE)
    opened.close()


def test_without_the_package_trtexec_times_and_profiles(tmp_path, no_package):
    tool(tmp_path)
    opened = session(tmp_path)
    assert opened.trace(200, 60) == [0.87, 0.84]
    told = opened.evidence(tmp_path)
    timed, profiled = (tmp_path / "trtexec.calls").read_text().splitlines()[-2:]
    assert "--iterations=200" in timed and "--duration=3" in timed and "--useCudaGraph" in timed
    assert "--dumpProfile" in profiled
    assert told["slowest"] == [["fc", "", 0.1]] and told["engine_bytes"] == 4
    assert "no list of the layers" in told["layers"]["not_run"], "this trtexec writes none"
    assert (tmp_path / "model.plan").read_bytes() == b"plan", "what was measured comes home"
    (layer,) = opened.layers(SAMPLE, 30)
    assert (layer.name, layer.ms) == ("fc", 0.1)
    assert "--iterations=30" in (tmp_path / "trtexec.calls").read_text().splitlines()[-1]
    assert (tmp_path / "times.json").exists() and (tmp_path / "build.log").exists()
    assert "python3-libnvinfer" in opened.energy()["not_run"]


def test_the_agent_gives_no_processor_time_where_trtexec_timed(tmp_path, no_package):
    tool(tmp_path)
    plan = measure.Plan(warmup=1, runs=200, max_seconds=10, cpu_block=10)
    found = measure.time_session(session(tmp_path), SAMPLE, plan, fresh=True)
    assert found["wall_ns"] == [870000, 840000]
    assert found["cpu_ns"] == [] and found["peak_rss_mib"] is None


def test_a_build_without_memory_names_the_remedy(tmp_path, no_package):
    tool(tmp_path, "print('[E] Error Code 2: OutOfMemory'); sys.exit(1)")
    with pytest.raises(SetupFault, match="memory ran out") as caught:
        session(tmp_path)
    assert "smaller workspace" in caught.value.hint
    assert not list((tmp_path / "cache").glob("*.plan"))


def test_no_trtexec(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(trt.trtexec, "PLACES", ())
    with pytest.raises(SetupFault, match="no trtexec"):
        session(tmp_path)


def test_workspace_is_half_of_what_is_free(monkeypatch):
    monkeypatch.setattr(jetson, "memory_free_mib", lambda: 3000)
    assert trt._workspace() == 1500
    monkeypatch.setattr(jetson, "memory_free_mib", lambda: 10)
    assert trt._workspace() == trt.LEAST_WORKSPACE_MIB


CUDA = """
#include <stdlib.h>
#include <string.h>
int cudaStreamCreate(void **s) { *s = (void *)1; return 0; }
int cudaStreamSynchronize(void *s) { return 0; }
int cudaMalloc(void **p, size_t n) { *p = malloc(n); return *p ? 0 : 2; }
int cudaFree(void *p) { free(p); return 0; }
int cudaMemcpy(void *to, const void *from, size_t n, int kind) { memcpy(to, from, n); return 0; }
"""


class Context:
    """Adds 1 to the input, through the addresses that it was given."""

    def __init__(self):
        self.places, self.shapes = {}, {}

    def set_tensor_address(self, name, place):
        self.places[name] = place

    def set_input_shape(self, name, shape):
        self.shapes[name] = shape

    def execute_async_v3(self, stream):
        import ctypes

        floats = ctypes.POINTER(ctypes.c_float)
        given, result = (ctypes.cast(self.places[name], floats) for name in "xy")
        for index in range(6):
            result[index] = given[index] + 1
        return stream == 1


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package ``tensorrt``, and CUDA's library compiled from the lines above."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: apt-get install gcc libc6-dev")
    (tmp_path / "cuda.c").write_text(CUDA)
    library = tmp_path / "libcudart.so"
    command = [compiler, "-shared", "-fPIC", str(tmp_path / "cuda.c"), "-o", str(library)]
    subprocess.run(command, check=True)
    monkeypatch.setattr(trt, "_PLACES", (str(library),))
    monkeypatch.setattr(trt.ctypes.util, "find_library", lambda name: None)
    found = types.ModuleType("tensorrt")
    logger = type("Logger", (), {"WARNING": 2, "__init__": lambda self, level: None})
    engine = types.SimpleNamespace(create_execution_context=Context)
    loads = {"engine": engine}
    runtime = types.SimpleNamespace(deserialize_cuda_engine=lambda plan: loads["engine"])
    found.Logger, found.Runtime = logger, lambda log: runtime
    monkeypatch.setitem(sys.modules, "tensorrt", found)
    return loads


def test_inference_by_the_package(tmp_path, package):
    tool(tmp_path)
    opened = session(tmp_path)
    assert opened.effective["inference"] == "python package"
    assert opened.trace(10, 1) is None and opened.energy() is None
    assert opened.run(SAMPLE)["y"].tolist() == [[1, 2, 3, 4, 5, 6]]
    step = opened.bind({"x": SAMPLE["x"] * 10})
    step()
    assert opened._runner._context.shapes == {"x": (1, 2, 3)}
    opened.close()


def test_an_engine_of_another_gpu(tmp_path, package):
    tool(tmp_path)
    package["engine"] = None
    with pytest.raises(Fault, match="another version or GPU") as caught:
        session(tmp_path)
    assert Path(caught.value.hint.removeprefix("rm ")).suffix == ".plan"
