"""Command lines from 8.6 to 11, and files in the forms that trtexec writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.agent import trtexec
from edgekd.agent.faults import Fault, SetupFault
from edgekd.agent.trtexec import Tool, read_log

ONNX, ENGINE = Path("m.onnx"), Path("m.plan")
RECORDED = Path(__file__).parents[1] / "fixtures" / "replay" / "orin-nano" / "trtexec"
LOG = """\
&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # /usr/src/tensorrt/bin/trtexec --loadEngine=m.plan
[05/13/2025-10:36:40] [I] TensorRT version: 10.3.0
[05/13/2025-10:36:40] [I] Selected Device: Orin
[05/13/2025-10:36:41] [I] Engine built in 93.125 sec.
[05/13/2025-10:36:46] [I] === Performance summary ===
[05/13/2025-10:36:46] [I] Throughput: 318.007 qps
[05/13/2025-10:36:46] [I] Latency: min = 3.12671 ms, max = 3.15479 ms, mean = 3.14068 ms, median = 3.14062 ms, percentile(90%) = 3.14587 ms, percentile(95%) = 3.14771 ms, percentile(99%) = 3.15039 ms
[05/13/2025-10:36:46] [I] Enqueue Time: min = 0.844238 ms, max = 1 ms, mean = 0.9 ms, median = 0.9 ms, percentile(99%) = 0.95 ms
[05/13/2025-10:36:46] [I] GPU Compute Time: min = 3.12671 ms, max = 3.15479 ms, mean = 3.14068 ms, median = 3.14062 ms, percentile(90%) = 3.14587 ms, percentile(99%) = 3.15039 ms
[05/13/2025-10:36:46] [W] * GPU compute time is unstable, with coefficient of variance = 4.2%.
[05/13/2025-10:36:46] [W]   If not already in use, locking GPU clock frequency or adding --useSpinWait may improve the stability.
&&&& PASSED TensorRT.trtexec [TensorRT v100300] # /usr/src/tensorrt/bin/trtexec --loadEngine=m.plan
"""
TIMES = """[
  { "startEnqMs" : 2.67333, "endEnqMs" : 2.70722, "startH2dMs" : 2.57741, "endH2dMs" : 2.57741, "startComputeMs" : 2.57741, "endComputeMs" : 3.45088, "startD2hMs" : 3.45088, "endD2hMs" : 3.45088, "h2dMs" : 0, "computeMs" : 0.873472, "d2hMs" : 0, "latencyMs" : 0.873472 }
, { "startEnqMs" : 2.71417, "computeMs" : 0.8448, "d2hMs" : 0, "latencyMs" : 0.8448 }
]
"""
PROFILE = """[
  { "count" : 625 }
, { "name" : "Conv_0 + Relu_1", "timeMs" : 69.76, "averageMs" : 0.111616, "medianMs" : 0.1114, "percentage" : 10.9768 }
, { "name" : "say "hello", a\\b", "timeMs" : 0, "averageMs" : 0, "percentage" : -nan }
]
"""
TEN = """{"Layers": [{
  "Name": "Conv_0 + Relu_1", "LayerType": "CaskConvolution",
  "Inputs": [{"Name": "x", "Location": "Device", "Dimensions": [1,3,8,8], "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}],
  "Outputs": [{"Name": "y", "Location": "Device", "Dimensions": [1,8,8,8], "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}],
  "Weights": {"Type": "Int8", "Count": 216}, "TacticName": "sm80_xmma", "Metadata": "[ONNX Layer: Conv_0]\x1e[ONNX Layer: Relu_1]"
}], "Bindings": ["x", "y"]}
"""  # fmt: skip
ELEVEN = """{"Layers": [{
  "Name": "fc", "LayerType": "gemm",
  "Inputs": [{"Name": "x", "Dimensions": [1,8], "Datatype": "Half", "Format": "Row major linear"}],
  "Outputs": [{"Name": "y", "Dimensions": [1,8], "Datatype": "Float", "Format": "Row major linear"}]
}], "I/O Tensors": [{"Name": "x", "IOMode": "Input"}]}
"""


@pytest.mark.parametrize(
    ("token", "version"),
    [("100300", (10, 3, 0)), ("8601", (8, 6, 1)), ("110100", (11, 1, 0)), ("101602", (10, 16, 2))],
)
def test_versions(token, version):
    assert trtexec.version_of(token) == version


def tool(*version):
    return Tool("trtexec", version)


@pytest.mark.parametrize(
    ("version", "precision", "typing"),
    [
        ((8, 6, 1), "int8", {"--fp16", "--int8"}),
        ((8, 6, 1), "fp16", {"--fp16"}),
        ((8, 6, 1), "fp32", set()),
        ((9, 3, 0), "int8", {"--stronglyTyped"}),
        ((10, 3, 0), "fp16", {"--stronglyTyped"}),
        ((11, 1, 0), "int8", set()),
    ],
)
def test_typing_by_version(version, precision, typing):
    command = tool(*version).build(
        ONNX, ENGINE, workspace_mib=512, cache=Path("t.bin"), layers=Path("l.json"),
        shapes={"x": (1, 3, 8, 8)}, precision=precision,
    )  # fmt: skip
    every = {"--fp16", "--int8", "--stronglyTyped", "--best", "--buildOnly"}
    assert every & set(command) == typing
    assert {"--skipInference", "--profilingVerbosity=detailed", "--memPoolSize=workspace:512",
            "--timingCacheFile=t.bin", "--exportLayerInfo=l.json", "--optShapes=x:1x3x8x8"} <= set(command)  # fmt: skip


def test_ten_is_told_what_eleven_does_by_itself():
    pinned = {"--noDataTransfers", "--useCudaGraph", "--useSpinWait", "--separateProfileRun"}
    for version, given in (((8, 6, 1), pinned), ((10, 3, 0), pinned), ((11, 1, 0), set())):
        for command in (
            tool(*version).time(ENGINE, Path("t.json")),
            tool(*version).profile(ENGINE, Path("p.json")),
        ):
            assert pinned & set(command) == given
            assert not {"--noCudaGraph", "--includeDataTransfers", "--noSpinWait"} & set(command)
    assert "--percentile=50,90,95,99" in tool(10, 3, 0).time(ENGINE, Path("t.json"))


def test_a_log():
    report = read_log(LOG)
    assert report.passed and report.version == (10, 3, 0) and report.device == "Orin"
    assert report.build_s == 93.125 and report.throughput_qps == 318.007
    assert report.statistics["GPU Compute Time"]["median"] == 3.14062
    assert report.statistics["Latency"]["p99"] == 3.15039
    assert report.warnings == (
        "GPU compute time is unstable, with coefficient of variance = 4.2%.",
    )
    assert report.errors == ()


@pytest.mark.parametrize(
    "text",
    ["", LOG.replace("&&&& PASSED", "&&&& FAILED"), LOG.partition("&&&& PASSED")[0]],
    ids=["empty", "failed", "cut off"],
)
def test_a_log_without_its_last_line_is_no_success(text):
    assert not read_log(text).passed


def test_out_of_memory_is_named_with_its_remedy():
    text = (
        "[E] Error[2]: [virtualMemoryBuffer.cpp] OutOfMemory: Requested amount of GPU memory (8 GB)"
    )
    fault = read_log(text).refusal()
    assert isinstance(fault, SetupFault) and "memory ran out" in str(fault) and fault.hint
    other = read_log("[E] Unknown option: --buildOnly").refusal()
    assert type(other) is Fault and "Unknown option" in str(other)


def test_times():
    assert trtexec.read_times(TIMES) == [0.873472, 0.8448]
    with pytest.raises(ValueError):
        trtexec.read_times(TIMES[:100])


def test_a_profile_with_a_name_that_is_not_escaped_and_a_share_of_nothing():
    runs, layers = trtexec.read_profile(PROFILE)
    assert runs == 625
    assert layers[0].median_ms == 0.1114 and layers[0].share == 10.9768
    assert layers[1].name == 'say "hello", a\\b'
    assert layers[1].share is None and layers[1].median_ms is None


def test_layers_of_ten_and_eleven():
    (ten,) = trtexec.read_layers(TEN)
    assert (ten.inputs, ten.outputs, ten.weights) == (("int8",), ("fp16",), "int8")
    assert ten.int8 and ten.nodes == ("Conv_0", "Relu_1")
    (eleven,) = trtexec.read_layers(ELEVEN)
    assert (eleven.inputs, eleven.outputs) == (("fp16",), ("fp32",)) and not eleven.int8
    with pytest.raises(ValueError, match="detailed"):
        trtexec.read_layers('{"Layers": ["Conv_0"], "Bindings": []}')


def test_outputs():
    text = '[\n  { "name" : "y"\n  , "dimensions" : "1x2"\n  , "values" : [ 0.1, -2e-05 ]\n  }\n]\n'
    assert trtexec.read_output(text) == {"y": ([1, 2], [0.1, -2e-05])}


FAKE = """#!/bin/sh
echo "&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # $0"
echo "$*" >> "$0.calls"
@MORE@
echo "&&&& PASSED TensorRT.trtexec [TensorRT v100300] # $0"
"""


def fake(tmp_path, more=""):
    path = tmp_path / "trtexec"
    path.write_text(FAKE.replace("@MORE@", more))
    path.chmod(0o755)
    return str(path)


def test_run_and_find(tmp_path, monkeypatch):
    found = trtexec.find(fake(tmp_path))
    assert found is not None and found.version == (10, 3, 0)
    report = found.run([found.path, "--x"], tmp_path / "log.txt")
    assert report.passed and "RUNNING" in (tmp_path / "log.txt").read_text()
    broken = trtexec.find(fake(tmp_path, "[ \"$1\" = --help ] || { echo '[E] no'; exit 1; }"))
    with pytest.raises(Fault, match="no"):
        broken.run([broken.path, "--x"])
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(trtexec, "PLACES", ())
    assert trtexec.find() is None


def test_recordings_of_nvidia():
    """Files that trtexec wrote for a quantised ResNet on an A100, as NVIDIA publishes them."""
    times = (RECORDED / "times.json").read_text()
    assert len(trtexec.read_times(times)) == 60
    assert min(trtexec.read_times(times)) > 0.5
    runs, layers = trtexec.read_profile((RECORDED / "profile.json").read_text())
    assert runs == 1 and len(layers) == 26
    assert sum(layer.share for layer in layers) == pytest.approx(100, abs=0.01)
    compiled = trtexec.read_layers((RECORDED / "layers.json").read_text())
    assert len(compiled) == 26
    kinds = [layer.kind for layer in compiled if layer.int8 and layer.kind != "Reformat"]
    assert kinds.count("CaskConvolution") == 20
    log = read_log((RECORDED / "time.log").read_text())
    assert (log.queries, log.trace_s) == (956, 3.00622)
