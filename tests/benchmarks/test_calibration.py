"""How ranges are compared."""

from __future__ import annotations

import pytest

from benchmarks import calibration


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
