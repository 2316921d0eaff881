"""Two networks judged as one, in a real runtime, against the composition written out here."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from edgekd.artefact import Artefact
from edgekd.data.flight.channels import CHANNELS
from edgekd.data.flight.series import by_fold
from edgekd.errors import DataError
from edgekd.tasks.faults import joint
from edgekd.tasks.faults.cascade import Diagnosis
from edgekd.tasks.faults.tasks import shares

FAULTS = ("baffle", "probe", "magneto")
CHOSEN = (0, 4, 17)
LENGTH, FLIGHTS = 64, 60


def flights():
    rng = np.random.default_rng(5)
    values = rng.normal(50, 20, (FLIGHTS, 23, LENGTH)).astype(np.float16)
    values[:, 1] = np.nan
    values[3, 4, 10:20] = np.nan
    target = np.arange(FLIGHTS) % 4
    return by_fold(
        values,
        np.arange(FLIGHTS) // 4 % 3,
        target,
        test=0,
        stage=1,
        faults=FAULTS,
        names=CHANNELS,
        source="drawn",
        groups=np.arange(FLIGHTS) // 12,
    )


def network(folder, weights):
    from onnx import TensorProto, helper, numpy_helper, save

    folder.mkdir()
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
        for name, shape in (("flight", (3, 1, LENGTH)), ("logits", (weights.shape[1],)))
    ]
    nodes = [
        helper.make_node("Flatten", ["flight"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    kept = [numpy_helper.from_array(weights, "weights")]
    graph = helper.make_graph(nodes, "linear", ends[:1], ends[1:], kept)
    opset = [helper.make_opsetid("", 18)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=9), folder / "m.onnx")
    contract = {"name": "flight", "shape": [3, 1, LENGTH], "channels": list(CHOSEN)}
    return Artefact(folder, "m.onnx", "onnxruntime", {}, contract, "fp32", ("m.onnx",))


def ready(folder, data, classes, threshold=None):
    weights = np.random.default_rng(len(classes)).normal(size=(3 * LENGTH, len(classes)))
    state = {
        "channels": np.array(CHANNELS),
        "mean": data.train.mean,
        "std": data.train.std,
        "temperature": np.array([1.5]),
        "classes": np.array(classes),
    }
    state |= {} if threshold is None else {"threshold": np.array([threshold])}
    weights = (weights / 10).astype(np.float32)
    return (network(folder, weights), state), weights


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder, data = tmp_path_factory.mktemp("joint"), flights()
    first, w1 = ready(folder / "1", data, ("healthy", "faulty"), 0.5)
    second, w2 = ready(folder / "2", data, FAULTS)
    roles = {name: [first, second] for name in ("shipped", "fp32", "distill", "teacher")}
    facts, golden = joint.judge(roles, data, options={})
    return data, first, second, (w1, w2), facts, golden


def test_decisions_are_those_of_two_models_on_the_prepared_flights(made):
    data, _, _, (w1, w2), facts, golden = made
    x = data.test.take(range(len(data.test)))[:, CHOSEN, 0].reshape(len(data.test), -1)
    chance = shares(x.astype(np.float64) @ w1, 1.5)[:, 1]
    fault = shares(x.astype(np.float64) @ w2, 1.5).argmax(1)
    named = np.where(chance >= 0.5, fault + 1, 0)
    assert 0 < facts["share"]["shipped"]["value"] < 1
    assert facts["share"]["shipped"]["value"] == pytest.approx((chance >= 0.5).mean())
    right = facts["rows"]["shipped"]["accuracy, 4 classes"]
    assert right["value"] == pytest.approx((named == data.test.kinds).mean())
    assert right["n"] == len(np.unique(data.test.groups))
    assert [row["same decision"] for row in facts["agreement"].values()] == [1.0, 1.0]
    assert np.isin(golden["chance"].round(4), chance.round(4)).all()
    assert {0, 1} == set(golden["flagged"].astype(int))
    assert sum(row["flights"] for row in facts["per fault"]["shipped"].values()) == int(
        (data.test.kinds > 0).sum()
    )


def test_golden_flights_are_diagnosed_again(made):
    _, first, second, _, _, golden = made
    facts, wrong = joint.replay(first, second, golden, 1e-3)
    assert wrong == []
    assert facts["same"] == facts["n"] == len(golden["chance"])
    assert facts["max_abs"] < 1e-6


def test_what_decides_otherwise_is_named(made):
    _, first, second, _, _, golden = made
    sure = int(np.flatnonzero(golden["flagged"])[-1])
    other = golden["fault"].copy()
    other[sure] = (other[sure] + 1) % 3
    chance = golden["chance"].copy()
    chance[0] += 0.2
    _, wrong = joint.replay(first, second, {**golden, "fault": other, "chance": chance}, 1e-3)
    assert any(text.startswith("flight 0: chance") for text in wrong)
    assert any(text.startswith(f"flight {sure}: ") and "recorded" in text for text in wrong)
    flags = golden["flagged"].copy()
    flags[0] = ~flags[0]
    _, wrong = joint.replay(first, second, {**golden, "flagged": flags}, 1e-3)
    assert wrong == ["flight 0: not flagged, recorded otherwise"]


def test_a_difference_at_the_line_is_told():
    def diagnosis(chance, fault):
        chance = np.array(chance)
        return Diagnosis(chance, chance >= 0.5, np.array(fault), np.zeros((3, 3)), FAULTS)

    found = joint.agreement(
        diagnosis([0.9, 0.49, 0.1], [1, -1, -1]), diagnosis([0.92, 0.51, 0.1], [1, 2, -1]), 0.5
    )
    assert found["same flag"] == found["same decision"] == pytest.approx(2 / 3)
    assert found["same name where both flag"] == 1.0
    assert found["largest difference of the chance"] == pytest.approx(0.02)
    assert found["farthest from the threshold where flags differ"] == pytest.approx(0.01)


def test_flights_must_know_their_faults(made):
    data, first, second, *_ = made
    blind = dataclasses.replace(data, test=dataclasses.replace(data.test, kinds=None))
    with pytest.raises(DataError, match="do not know their faults"):
        joint.judge({"shipped": [first, second]}, blind, options={})
