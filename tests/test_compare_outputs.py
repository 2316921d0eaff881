from __future__ import annotations

import numpy as np
import pytest

from edgekd.compare import compare


def test_vectors_are_compared_sample_by_sample():
    truth = np.array([[1.0, 0.0], [0.0, 2.0]])
    got = np.array([[1.0, 0.0], [2.0, 0.0]])
    found = compare(truth, got)
    assert found["min_cosine"] == pytest.approx(0)
    assert (found["worst"], found["n"], found["max_abs"]) == (1, 2, 2)


def test_a_single_number_near_zero_may_change_its_sign():
    """A controller's output is one number: the direction is that of all samples together."""
    truth = np.array([[0.5], [-0.4], [1e-6]])
    got = np.array([[0.49], [-0.41], [-1e-6]])
    found = compare(truth, got)
    assert found["min_cosine"] > 0.999
    assert found["n"] == 3
    assert compare(truth, -truth)["min_cosine"] == pytest.approx(-1)
