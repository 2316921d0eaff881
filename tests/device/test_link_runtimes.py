"""Real runtimes on a real, small network, through the agent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.device.link import Agent
from edgekd.errors import SetupError, StageError, UsageError

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

RUNTIMES = {
    "onnxruntime": {},
    "openvino": {"precision": "f32"},
}


@pytest.fixture(scope="module")
def shared():
    """One agent for the tests that leave it intact."""
    with Agent(timeout_s=120) as agent:
        yield agent


@pytest.fixture(params=sorted(RUNTIMES))
def runtime(request):
    pytest.importorskip(request.param)
    return request.param


def load(agent, runtime, model, **options):
    return agent.load(runtime, model, **RUNTIMES[runtime], **options)


def bf16_here(agent) -> bool:
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(agent.facts()["isa"]))


@pytest.mark.parametrize("batch", [1, 3, 11, 64])
def test_outputs_are_right_at_every_batch(shared, runtime, onnx_models, feeds, expected, batch):
    loaded = load(shared, runtime, onnx_models / "dynamic.onnx")
    assert [(p.name, p.shape, p.dtype) for p in loaded.inputs] == [
        ("x", (None, 3, 8, 8), "float32")
    ]
    assert [(p.name, p.shape) for p in loaded.outputs] == [("/head/y", (None, 5))]
    evaluation = shared.evaluate(feeds, batch)
    assert (evaluation.n, evaluation.batch) == (11, batch)
    np.testing.assert_allclose(evaluation.outputs["/head/y"], expected, rtol=1e-4, atol=1e-5)


def test_a_fixed_batch_is_kept_and_filled_up(shared, runtime, onnx_models, feeds, expected):
    load(shared, runtime, onnx_models / "fixed.onnx")
    evaluation = shared.evaluate(feeds, 1)
    assert evaluation.batch == 4
    np.testing.assert_allclose(evaluation.outputs["/head/y"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["dynamic", "nameless"])
def test_a_dynamic_batch_can_be_fixed(shared, runtime, onnx_models, feeds, expected, name):
    if runtime == "onnxruntime" and name == "nameless":
        with pytest.raises(UsageError, match="without a name"):
            load(shared, runtime, onnx_models / f"{name}.onnx", static_batch=1)
        return
    loaded = load(shared, runtime, onnx_models / f"{name}.onnx", static_batch=1)
    assert loaded.inputs[0].shape == (1, 3, 8, 8)
    assert loaded.outputs[0].shape == (1, 5)
    outputs = shared.run(feeds, 8)["/head/y"]
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


def test_inputs_may_be_mapped_files(shared, runtime, onnx_models, feeds, expected, tmp_path):
    np.save(tmp_path / "x.npy", feeds["x"])
    load(shared, runtime, onnx_models / "dynamic.onnx")
    outputs = shared.run({"x": tmp_path / "x.npy"}, 4)["/head/y"]
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


def test_timing(shared, runtime, onnx_models, feeds):
    load(shared, runtime, onnx_models / "dynamic.onnx", static_batch=1)
    timing = shared.time(feeds, warmup=3, runs=25, cpu_block=5)
    assert (len(timing.wall_ns), len(timing.cpu_ns), timing.threads) == (25, 5, 1)
    assert timing.first_ms > 0
    assert min(timing.wall_ns) > 0
    assert shared.time(feeds, runs=3, cpu_block=1).first_ms is None


def test_timing_computes_what_running_computes(shared, runtime, onnx_models, feeds, expected):
    """Bound inputs must not leak into a later run."""
    load(shared, runtime, onnx_models / "dynamic.onnx")
    before = shared.run(feeds, 4)["/head/y"]
    shared.time(feeds, warmup=0, runs=5, cpu_block=5)
    np.testing.assert_array_equal(shared.run(feeds, 4)["/head/y"], before)


def test_a_wrong_dtype_is_refused_by_every_runtime(shared, runtime, onnx_models, feeds):
    load(shared, runtime, onnx_models / "dynamic.onnx")
    with pytest.raises(UsageError, match="'x' is float64; the model takes float32"):
        shared.run({"x": feeds["x"].astype(np.float64)})


def test_a_corrupt_model_is_a_stage_error_that_names_it(shared, runtime, onnx_models):
    model = onnx_models / "corrupt.onnx"
    with pytest.raises(StageError, match=r"failed while loading corrupt\.onnx") as error:
        load(shared, runtime, model)
    assert error.value.at == str(model)
    assert type(error.value) is StageError
    assert "open_session" in str(error.value.__cause__)


def test_versions_and_costs_are_reported(shared, runtime, onnx_models):
    loaded = load(shared, runtime, onnx_models / "dynamic.onnx")
    assert loaded.version == shared.facts()["runtimes"][runtime]
    assert loaded.load_s > 0
    assert loaded.rss_mib > 0


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"threads": "1"}, {"thread": 1}])
def test_wrong_options_are_usage_errors(shared, runtime, onnx_models, wrong):
    with pytest.raises(UsageError):
        load(shared, runtime, onnx_models / "dynamic.onnx", **wrong)


def test_onnxruntime_says_what_runs(shared, onnx_models):
    effective = load(shared, "onnxruntime", onnx_models / "dynamic.onnx", level="basic").effective
    assert effective["providers"] == ["CPUExecutionProvider"]
    assert effective["level"] == "ORT_ENABLE_BASIC"
    assert (effective["threads"], effective["inter_op_threads"]) == (1, 1)
    assert effective["spinning"] is False


def test_onnxruntime_refuses_a_provider_that_it_lacks(shared, onnx_models):
    with pytest.raises(SetupError, match="lacks"):
        load(shared, "onnxruntime", onnx_models / "dynamic.onnx", providers=["NoSuchProvider"])


def test_openvino_wants_a_precision(shared, onnx_models):
    pytest.importorskip("openvino")
    with pytest.raises(UsageError, match=r"'precision' must be set: f32 \| bf16 \| f16"):
        shared.load("openvino", onnx_models / "dynamic.onnx")


def test_openvino_reads_its_precision_back(shared, onnx_models, feeds, expected):
    pytest.importorskip("openvino")
    model = onnx_models / "dynamic.onnx"
    effective = shared.load("openvino", model, precision="f32").effective
    assert effective["precision"] == "f32"
    assert effective["devices"] == ["CPU"]
    assert (effective["threads"], effective["hint"]) == (1, "LATENCY")
    assert effective["layer_precisions"]["f32"] > 0
    assert "bf16" not in effective["layer_precisions"]
    if not bf16_here(shared):
        pytest.skip("this CPU has no bf16")
    effective = shared.load("openvino", model, precision="bf16").effective
    assert effective["precision"] == "bf16"
    assert "bf16" in effective["layer_precisions"]
    error = np.abs(shared.run(feeds, 4)["/head/y"] - expected).max()
    assert 1e-4 < error < 0.1  # it is bf16 indeed, and no worse


def test_openvino_never_runs_another_precision_in_silence(shared, onnx_models):
    pytest.importorskip("openvino")
    isa = set(shared.facts()["isa"])
    if isa & {"avx512_fp16", "amx_fp16", "fp16"}:
        pytest.skip("this CPU has f16")
    model = onnx_models / "dynamic.onnx"
    with pytest.raises(SetupError, match="asked for precision 'f16', but OpenVINO runs"):
        shared.load("openvino", model, precision="f16")
    loaded = shared.load("openvino", model, precision="f16", exact_precision=False)
    assert loaded.effective["precision"] != "f16"


def test_openvino_without_snippets(shared, onnx_models, feeds, expected):
    pytest.importorskip("openvino")
    loaded = shared.load("openvino", onnx_models / "dynamic.onnx", precision="f32", snippets=False)
    assert loaded.effective["snippets"] is False
    assert "Subgraph" not in loaded.effective["layers"]
    np.testing.assert_allclose(shared.run(feeds)["/head/y"], expected, rtol=1e-4, atol=1e-5)


def test_openvino_reads_its_own_format(shared, onnx_models, feeds, expected, tmp_path):
    ov = pytest.importorskip("openvino")
    ov.save_model(ov.Core().read_model(onnx_models / "dynamic.onnx"), tmp_path / "m.xml")
    loaded = shared.load("openvino", tmp_path / "m.xml", precision="f32")
    assert loaded.outputs[0].name == "/head/y"
    outputs = shared.run(feeds, 4)["/head/y"]
    np.testing.assert_allclose(outputs, expected, rtol=1e-2, atol=1e-2)  # saved as f16


def test_no_runtime_brings_torch_or_telemetry(runtime, onnx_models, feeds, tmp_path):
    with Agent(timeout_s=120, env={"HOME": str(tmp_path)}) as agent:
        load(agent, runtime, onnx_models / "dynamic.onnx")
        agent.run(feeds, 4)
        modules = set(agent._ask("modules", doing="testing")["modules"])
        children = Path(f"/proc/{agent._child.pid}/task/{agent._child.pid}/children").read_text()
    assert runtime in modules
    assert not modules & {"torch", "click", "rich", "onnx", "nncf", "pydantic", "requests"}
    assert children == ""
    assert list(tmp_path.iterdir()) == []  # no device id, no event store, no file of consent
