"""One network in every runtime: the same bill, and an answer to what is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.agent.loops.battery import Contract, asked
from edgekd.artefact import Artefact, Running
from edgekd.spec import Call, Input
from edgekd.tasks.battery.worlds import Place, Setup, world_of

torch = pytest.importorskip("torch")

CONTRACT = Contract(8, 24, 1.0, 0.26, 0.12, target=1.0)
INPUT = Input((8, CONTRACT.features), name="window")
BUILD = Call(
    "edgekd.models.decision_transformer:decision_transformer",
    {"features": CONTRACT.features, "window": 8, "width": 16},
)


@pytest.fixture(scope="module")
def world(homes):
    setup = Setup(capacity=5, power=2)
    return world_of(homes, setup, [Place(n, 300 + 24 * n) for n in range(4)], 7 * 24)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A Decision Transformer with weights drawn at random, large enough to act."""
    from edgekd.backends.torch_eager import save_network
    from edgekd.models.decision_transformer import decision_transformer

    torch.manual_seed(3)
    model = decision_transformer(**BUILD.args).eval()
    with torch.no_grad():
        model.answer.weight.mul_(1.5)
    folder = tmp_path_factory.mktemp("torch")
    save_network(model, BUILD, INPUT, folder)
    return folder


@pytest.fixture(scope="module")
def costs(network, world, tmp_path_factory):
    """Runtime → cost of each home: the same weights, each file run by its own runtime."""
    from edgekd.agent.runtimes import built_in_versions
    from edgekd.backends.base import backend
    from edgekd.backends.torch_eager import MAIN, WEIGHTS, load_network
    from edgekd.events import silent
    from edgekd.graph.export import export_onnx
    from edgekd.models.shipped import shipped
    from edgekd.spec import plain

    folder = tmp_path_factory.mktemp("onnx")
    samples = torch.rand(4, *INPUT.shape) * 2 - 1
    model = shipped(load_network(network, Path())[0])
    export_onnx(model, INPUT, folder / "model.onnx", samples=samples, output_name="y", opset=18)
    contract = plain(INPUT)
    found = {
        "torch": Artefact(network, MAIN, "torch", {}, contract, "fp32", (MAIN, WEIGHTS)),
        "onnx as exported": Artefact(folder, "model.onnx", "onnxruntime", {}, contract, "fp32"),
    }
    for name in ("onnxruntime", "openvino"):
        if built_in_versions()[name] is None:
            continue
        one = next(c for c in backend(name).candidates(["fp32"], ()) if c.precision == "fp32")
        out = tmp_path_factory.mktemp(name)
        made = backend(name).build(folder / "model.onnx", one, {}, out, silent)
        found[name] = Artefact(
            out, made["main"], made["runtime"], made["options"], contract, "fp32",
            tuple(made["files"]),
        )  # fmt: skip
    bills = {}
    for name, artefact in found.items():
        with Running(artefact, options={"base": "."} if name == "torch" else {}) as model:
            bills[name] = model.drive("battery", asked(CONTRACT, world))
    return bills


def test_fp32_in_every_runtime_costs_the_same(costs):
    """To 0.1 % of each home's bill, over a week in closed loop; where errors could grow."""
    truth = costs["torch"]["cost"].sum(1)
    assert {"torch", "onnx as exported", "onnxruntime"} <= set(costs)
    for name, happened in costs.items():
        assert happened["cost"].sum(1) == pytest.approx(truth, rel=1e-3), name
        assert not happened["failed"].any(), name


def test_the_network_acts(costs):
    """Else the test above compares the rule with itself."""
    output = costs["torch"]["output"]
    assert (np.abs(output) > CONTRACT.deadband).mean() > 0.3


@pytest.mark.slow
def test_a_year_in_one_process_of_the_runtime(network, tmp_path):
    """Two measured homes over 52 weeks: limits hold, nothing falls back, and nothing drifts."""
    from edgekd.backends.torch_eager import load_network
    from edgekd.data.battery.embedded import embedded_homes
    from edgekd.graph.export import export_onnx
    from edgekd.models.shipped import shipped
    from edgekd.spec import plain

    homes, setup = embedded_homes(), Setup()
    weeks = (homes.steps - setup.horizon) // 168
    assert weeks >= 51
    samples = torch.rand(4, *INPUT.shape) * 2 - 1
    model = shipped(load_network(network, Path())[0])
    export_onnx(model, INPUT, tmp_path / "model.onnx", samples=samples, output_name="y", opset=18)
    artefact = Artefact(tmp_path, "model.onnx", "onnxruntime", {}, plain(INPUT), "fp32")
    year = world_of(homes, setup, [Place(0, 0), Place(7, 0)], weeks * 168)
    first = (weeks - 4) * 168 + int(-homes.slots[0] % homes.day)
    with Running(artefact) as running:
        got = running.drive("battery", asked(CONTRACT, year))
        soe = got["soe"][:, first - 1] / year.capacity
        steps = weeks * 168 - first
        month = world_of(homes, setup, [Place(0, first), Place(7, first)], steps, start=soe)
        again = running.drive("battery", asked(CONTRACT, month))
    for name in ("action", "soe", "grid", "cost", "output"):
        assert np.isfinite(got[name]).all(), name
    assert not got["failed"].any() and (np.abs(got["output"]) > CONTRACT.deadband).mean() > 0.3
    assert (got["soe"] >= 0).all() and (got["soe"] <= year.capacity[:, None]).all()
    assert (np.abs(got["action"]) <= year.power[:, None] + 1e-12).all()
    before = np.concatenate((year.start[:, None], got["soe"][:, :-1]), 1)
    charged, drawn = np.maximum(got["action"], 0), np.maximum(-got["action"], 0)
    change = charged * year.charge[:, None] - drawn / year.discharge[:, None]
    assert np.abs(got["soe"] - before - change).max() < 1e-9
    # A controller that starts four weeks before the end does the same in the last two.
    assert got["action"][:, -336:] == pytest.approx(again["action"][:, -336:], abs=1e-9)
