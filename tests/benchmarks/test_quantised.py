"""What every quantised candidate costs: what is concluded, and what was committed."""

import json
from pathlib import Path

import pytest

from benchmarks import quantised

RESULT = Path(quantised.__file__).parent / "results" / "decision_transformer-quantised.json"


def row(name, precision, cost, why=""):
    values = {s: {"score": 2 - cost / 100, "cost": cost} for s in quantised.SPLITS}
    return {"target": "cpu", "candidate": name, "precision": precision, "policy": "all",
            "bytes": 9, "limit": 0.01, "rejected": why, **values}  # fmt: skip


@pytest.fixture
def found():
    lost = {"target": "cpu", "candidate": "conv", "precision": "int8", "policy": "conv",
            "not_run": "conv quantises no operator of this network"}  # fmt: skip
    rows = [lost, row("exact", "fp32", 100.0), row("half", "bf16", 150.0)]
    rows += [row("good", "int8", 99.5), row("bad", "int8", 103.0, "task metric: lost 3 %")]
    return quantised.changes(rows, "cost")


def test_the_change_is_that_to_the_first_float32(found):
    change = {r["candidate"]: r["val cost, %"] for r in found if "val" in r}
    assert change == pytest.approx({"exact": 0, "half": 50, "good": -0.5, "bad": 3})


def test_those_that_hold_are_told_from_the_rejected(found):
    said = quantised.summary(found, "cost")
    assert (said["quantised"], said["held"], said["rejected"]) == (2, 1, ["bad"])
    worst = said["largest difference in cost of those that hold, %"]
    assert worst["test"] == (pytest.approx(0.5), "good")


def test_the_table_has_every_candidate_and_why(found):
    page = quantised.text(found, quantised.Asked("cost", 0.01), "score")
    assert (
        "| bad | all | 9 | 0.9700 | +3.000 % | 0.9700 | +3.000 % | task metric: lost 3 % |" in page
    )
    assert "not run: conv quantises no operator" in page
    assert len(page.splitlines()) == 2 + 5
    assert {line.count("|") for line in page.splitlines()} == {9}


def test_the_batterys_quantised_artefacts_cost_within_one_percent_or_are_rejected():
    rows = [r for r in json.loads(RESULT.read_text("utf-8"))["rows"] if "val" in r]
    assert {r["runtime"] for r in rows} >= {"onnxruntime", "openvino", "litert"}
    for one in rows:
        held = all(abs(one[f"{split} cost, %"]) < 1 for split in quantised.SPLITS)
        assert held or "lost" in one["rejected"], one["candidate"]
