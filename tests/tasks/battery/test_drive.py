"""The closed loop where the network runs: one request, the same result as a round trip a step."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from edgekd.agent.loops.battery import Contract, asked, drive
from edgekd.artefact import Artefact, Running
from edgekd.device.link import Agent
from edgekd.device.reach import devices_file
from edgekd.errors import UsageError
from edgekd.tasks.battery.worlds import Place, Setup, world_of
from tests.device.test_ssh import server  # noqa: F401  # a fixture

CONTRACT = Contract(6, 24, 1.0, 0.3, 0.12, target=1.0)
NEWEST = (2, 3, 4, 5)
"""The network sees fewer steps than the loop keeps, as a student of a longer teacher does."""


@pytest.fixture(scope="module")
def world(homes):
    setup = Setup(capacity=5, power=2, efficiency=0.9)
    return world_of(homes, setup, [Place(0, 200), Place(3, 500), Place(1, 0)], 72)


@pytest.fixture(scope="module")
def artefact(tmp_path_factory):
    """One linear layer with tanh over the newest steps, as an ONNX file."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    size = len(NEWEST) * CONTRACT.features
    weights = np.random.default_rng(5).normal(0, 0.2, (size, 1)).astype(np.float32)
    x = helper.make_tensor_value_info("window", TensorProto.FLOAT, ["n", 4, CONTRACT.features])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])
    nodes = [
        helper.make_node("Flatten", ["window"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["m"]),
        helper.make_node("Tanh", ["m"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "net", [x], [y], [numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    folder = tmp_path_factory.mktemp("artefact")
    onnx.save(model, folder / "m.onnx")
    contract = {"name": "window", "channels": list(NEWEST)}
    return Artefact(folder, "m.onnx", "onnxruntime", {}, contract, "fp32", ("m.onnx",))


def test_one_request_is_what_a_round_trip_a_step_is(artefact, world):
    with Running(artefact) as model:
        there = model.drive("battery", asked(CONTRACT, world))
        assert model.ran_batch == 64
        here = drive(model, CONTRACT, world)
    assert set(there) == set(here) - {"seen"}
    for name, values in there.items():
        assert np.array_equal(values, here[name]), name
    assert np.abs(here["output"]).max() > 0.02


def test_a_target_and_every_setting_travel(artefact, world):
    with Running(artefact) as model:
        target = np.array([0.1, 2.0, 5.0])
        other = model.drive("battery", asked(CONTRACT, world, target=target))
        here = drive(model, CONTRACT, world, target=target)
        usual = model.drive("battery", asked(CONTRACT, world))
    assert np.array_equal(other["action"], here["action"])
    assert not np.array_equal(other["output"], usual["output"])


def test_the_loop_runs_on_the_board(server, artefact, world, monkeypatch, tmp_path):  # noqa: F811
    """Over ssh: the zipapp carries the loop; nothing but one request and one answer crosses."""
    monkeypatch.setenv("EDGEKD_SSH", server.command)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    devices_file().parent.mkdir(parents=True)
    devices_file().write_text(f"there: {{reach: 'ssh:board', python: {sys.executable}}}\n")
    with Running(artefact, on="there") as model:
        asks: list[str] = []
        ask = model.agent._child.ask

        def counted(request, *rest, **more):
            asks.append(request["op"])
            return ask(request, *rest, **more)

        monkeypatch.setattr(model.agent._child, "ask", counted)
        there = model.drive("battery", asked(CONTRACT, world))
    with Running(artefact) as model:
        here = model.drive("battery", asked(CONTRACT, world))
    assert asks[0] == "drive" and asks.count("drive") == 1 and "run" not in asks
    assert there["cost"] == pytest.approx(here["cost"], abs=1e-9)


def test_a_model_with_a_fixed_batch_keeps_it(tmp_path, world):
    spec = {
        "inputs": [{"name": "window", "shape": [2, 6, CONTRACT.features], "dtype": "float32"}],
        "outputs": [{"name": "y", "shape": [2, 1], "dtype": "float32"}],
    }
    (tmp_path / "m.json").write_text(json.dumps(spec))
    with Agent() as agent:
        agent.load("null", tmp_path / "m.json")
        done = agent.drive("battery", asked(CONTRACT, world), input="window", batch=64)
    assert (done.batch, done.calls) == (2, world.steps)
    quiet = drive(lambda window: np.zeros((3, 1)), CONTRACT, world)
    assert np.array_equal(done.arrays["cost"], quiet["cost"])


def test_what_is_wrong_is_said(tmp_path, world):
    spec = {
        "inputs": [{"name": "window", "shape": [None, 6, 53], "dtype": "float32"}],
        "outputs": [{"name": "y", "shape": [None, 1], "dtype": "float32"}],
    }
    (tmp_path / "m.json").write_text(json.dumps(spec))
    arrays = asked(CONTRACT, world)
    with Agent() as agent:
        with pytest.raises(UsageError, match="no model"):
            agent.drive("battery", arrays, input="window")
        agent.load("null", tmp_path / "m.json")
        with pytest.raises(UsageError, match="unknown loop 'heating'"):
            agent.drive("heating", arrays, input="window")
        del arrays["contract:window"]
        with pytest.raises(UsageError, match="needs the array 'window'"):
            agent.drive("battery", arrays, input="window")
