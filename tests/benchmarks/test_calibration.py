"""How ranges are compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import calibration

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "calibration.json"


def test_ranges_are_compared_as_shares_of_the_wider_one():
    mine = {"a": (-1.0, 1.0), "b": (0.5, 2.0), "c": (0.0, 0.0), "mine": (0, 1)}
    found = calibration.apart(mine, {"a": (-1.0, 0.99), "b": (0.0, 2.0), "c": (0.0, 0.0)})
    assert found == {
        "tensors": 2,
        "median": pytest.approx(0.0025),
        "worst": pytest.approx(0.005),
        "worst_tensor": "a",
        "within_1_percent": 2,
    }


def test_the_committed_result_keeps_its_goals():
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    few, many = result["rows"]["edgekd, 32"], result["rows"]["edgekd, 1000"]
    assert many["samples"] == 1000 and many["peak_mib"] <= calibration.MOST_MIB
    assert many["peak_mib"] / few["peak_mib"] <= calibration.MOST_RATIO
    assert result["agreement_with_onnxruntime"]["worst"] <= calibration.WORST
    assert result["agreement_with_its_symmetric_default"]["worst"] > calibration.WORST
