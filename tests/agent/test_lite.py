"""The agent's runtime litert on files of a few kB; `tests/fixtures/tflite/make.py` made them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edgekd.device.link import Agent
from edgekd.environments import environment
from edgekd.errors import SetupError, StageError, UsageError

FILES = Path(__file__).parents[1] / "fixtures" / "tflite"
FLOAT, INT8 = FILES / "tiny_fp32.tflite", FILES / "tiny_int8.tflite"
FIDELITY = {  # largest error of the scores, which lie in ±0.7; measured 2e-7, 0.011, 0.001, 0.002
    "fp32": 1e-5,
    "int8": 0.03,
    "int8_float_io": 0.03,
    "int8_dynamic": 0.01,
    "int16x8": 0.01,
}


INTERPRETER = pytest.mark.needs("ai_edge_litert", install="pip install 'edgekd[litert]'")


@pytest.fixture(scope="module")
def arrays():
    with np.load(FILES / "tiny.npz") as archive:
        return {"image": archive["image"]}, archive["output:scores"]


@pytest.fixture
def agent():
    with Agent(timeout_s=60) as agent:
        yield agent


@INTERPRETER
@pytest.mark.parametrize("variant", FIDELITY)
def test_every_kind_of_file_takes_and_gives_floats(agent, arrays, variant):
    feeds, truth = arrays
    loaded = agent.load("litert", FILES / f"tiny_{variant}.tflite")
    (taken,), (given,) = loaded.inputs, loaded.outputs
    assert (taken.name, taken.shape, taken.dtype) == ("image", (1, 3, 8, 8), "float32")
    assert (given.name, given.shape, given.dtype) == ("scores", (1, 4), "float32")
    found = agent.run(feeds, batch=64)["scores"]
    assert found.shape == truth.shape
    assert 0 < np.abs(found - truth).max() < FIDELITY[variant]


@INTERPRETER
def test_it_says_which_kernels_ran(agent):
    effective = agent.load("litert", FLOAT).effective
    assert effective["package"] == "ai_edge_litert"
    assert effective["delegate"] == "XNNPACK"
    assert (effective["delegated_parts"], effective["builtin_ops"]) == (1, {})
    whole = effective["delegated_ops"]
    effective = agent.load("litert", FLOAT, kernels="builtin").effective
    assert (effective["delegate"], effective["delegated_ops"]) == (None, 0)
    assert sum(effective["builtin_ops"].values()) == whole
    # In int8, softmax and the inner parts of a layer norm have no XNNPACK kernel.
    effective = agent.load("litert", INT8).effective
    assert effective["delegated_parts"] > 1
    assert {"SOFTMAX", "RSQRT"} <= set(effective["builtin_ops"])
    assert "CONV_2D" not in effective["builtin_ops"]


@INTERPRETER
@pytest.mark.parametrize("kernels", ["builtin", "reference"])
def test_all_kernels_agree_on_floats(agent, arrays, kernels):
    feeds, truth = arrays
    agent.load("litert", FLOAT, kernels=kernels, threads=2)
    np.testing.assert_allclose(agent.run(feeds)["scores"], truth, atol=1e-5)


@INTERPRETER
def test_integers_are_converted_by_the_contract(agent, arrays):
    feeds, _ = arrays
    loaded = agent.load("litert", INT8)
    contract = loaded.effective["quantised_io"]
    floats = agent.run(feeds)["scores"]
    loaded = agent.load("litert", INT8, raw_integers=True)
    assert [port.dtype for port in (*loaded.inputs, *loaded.outputs)] == ["int8", "int8"]
    scale, zero = (contract["image"][key] for key in ("scale", "zero_point"))
    whole = np.clip(np.rint(feeds["image"] / np.float32(scale)) + zero, -128, 127).astype(np.int8)
    scores = agent.run({"image": whole})["scores"]
    assert scores.dtype == np.int8
    scale, zero = (contract["scores"][key] for key in ("scale", "zero_point"))
    np.testing.assert_allclose((scores.astype(int) - zero) * scale, floats, atol=1e-6)
    with pytest.raises(UsageError, match="int8"):
        agent.run(feeds)


@INTERPRETER
def test_it_is_timed_one_sample_at_a_time(agent, arrays):
    feeds, truth = arrays
    agent.load("litert", INT8)
    timing = agent.time(feeds, warmup=2, runs=20)
    assert len(timing.wall_ns) == 20 and timing.threads == 1
    assert np.abs(agent.run(feeds)["scores"] - truth).max() < FIDELITY["int8"]


@INTERPRETER
def test_what_is_no_model_is_refused(agent, tmp_path):
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"no model at all")
    with pytest.raises(StageError) as caught:
        agent.load("litert", broken)
    assert caught.value.at == str(broken)
    for wrong in ({"threads": 0}, {"kernels": "fast"}, {"thread": 1}):
        with pytest.raises(UsageError):
            agent.load("litert", FLOAT, **wrong)


@INTERPRETER
def test_it_brings_no_torch(agent):
    agent.load("litert", FLOAT)
    modules = set(agent._ask("modules", doing="testing")["modules"])
    assert "ai_edge_litert" in modules
    assert not modules & {"torch", "tensorflow", "onnxruntime", "litert_quantizer"}


OLD = environment("tflite-runtime")
OLD_INTERPRETER = pytest.mark.needs(OLD.command, install=OLD.command)


@pytest.fixture(scope="module")
def old():
    """The agent in an interpreter with tflite-runtime 2.14 and numpy 1, sent there as a zipapp."""
    with Agent(python=OLD.python, timeout_s=60) as agent:
        yield agent


@pytest.mark.system
@OLD_INTERPRETER
@pytest.mark.parametrize("variant", ["fp32", "int8", "int8_float_io"])
def test_the_old_interpreter_loads_the_same_files(old, arrays, variant):
    feeds, truth = arrays
    loaded = old.load("litert", FILES / f"tiny_{variant}.tflite")
    assert (loaded.version, loaded.effective["package"]) == ("2.14.0", "tflite_runtime")
    assert np.abs(old.run(feeds)["scores"] - truth).max() < FIDELITY[variant]


@pytest.mark.system
@OLD_INTERPRETER
def test_the_old_interpreter_has_no_layer_norm_in_sixteen_bits(old):
    with pytest.raises(StageError, match="INT16 is unsupported by op Rsqrt"):
        old.load("litert", FILES / "tiny_int16x8.tflite")


@pytest.mark.system
@OLD_INTERPRETER
def test_what_the_old_interpreter_computes_wrongly_is_refused(old):
    """It would give the same scores for every image: its dynamic layers' weights are zero."""
    with pytest.raises(SetupError, match="computes zeros for dynamic int8"):
        old.load("litert", FILES / "tiny_int8_dynamic.tflite")


def test_without_an_interpreter_the_extra_is_named(tmp_path):
    blocked = tmp_path / "sitecustomize.py"
    blocked.write_text(
        "import sys\nfor name in ('ai_edge_litert', 'tflite_runtime'): sys.modules[name] = None\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with Agent(env={"PYTHONPATH": path}) as agent, pytest.raises(SetupError, match="litert"):
        agent.load("litert", FLOAT)
