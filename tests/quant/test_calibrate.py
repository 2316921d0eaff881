from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.errors import DataError
from edgekd.quant.calibrate import calibration_indices, check_calibration

PORT = {"name": "input", "shape": [3, 4, 4], "dtype": "float32"}


@given(st.lists(st.integers(0, 5), min_size=1, max_size=80), st.integers(0, 100), st.integers(0, 9))
def test_even_over_classes(labels, count, seed):
    labels = np.array(labels)
    taken = calibration_indices(labels, count, seed)
    assert taken.dtype == np.int64
    assert len(taken) == min(count, len(labels)) == len(set(taken.tolist()))
    assert (np.diff(taken) > 0).all()
    counts = {value: int((labels[taken] == value).sum()) for value in set(labels.tolist())}
    left = {value: int((labels == value).sum()) - n for value, n in counts.items()}
    open_counts = [n for value, n in counts.items() if left[value]]
    if open_counts:
        assert max(counts.values()) <= min(open_counts) + 1


def test_the_seed_decides():
    labels = np.repeat(np.arange(10), 20)
    first = calibration_indices(labels, 30, 0)
    assert np.array_equal(first, calibration_indices(labels, 30, 0))
    assert not np.array_equal(first, calibration_indices(labels, 30, 1))


@pytest.mark.parametrize("shape", [[3, 4, 4], ["batch", 3, 4, 4], [3, None, 4], [3, "h", 4]])
def test_good_samples_pass(shape):
    check_calibration({"input": np.zeros((2, 3, 4, 4), np.float32)}, [{**PORT, "shape": shape}])


NAN = np.zeros((4, 3, 4, 4), np.float32)
NAN[1, 0, 0, 0] = np.nan


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((0, 3, 4, 4), np.float32), "no calibration samples"),
        (np.zeros((2, 4, 4, 3), np.float32), r"shape \(4, 4, 3\), wanted \(3, 4, 4\)"),
        (np.zeros((2, 3, 16), np.float32), r"shape \(3, 16\), wanted"),
        (np.zeros((2, 3, 4, 4), np.uint8), "are uint8, wanted float32"),
        (NAN, "1 of 4 calibration samples hold NaN"),
    ],
)
def test_bad_samples_name_the_input(values, message):
    with pytest.raises(DataError, match=message) as caught:
        check_calibration({"input": values}, [PORT])
    assert "'input'" in str(caught.value)


def test_missing_and_unequal_inputs():
    with pytest.raises(DataError, match="no calibration samples for input 'input'"):
        check_calibration({}, [PORT])
    feeds = {"input": np.zeros((2, 3, 4, 4), np.float32), "b": np.zeros((3, 1), np.float32)}
    with pytest.raises(DataError, match="different numbers"):
        check_calibration(feeds, [PORT, {"name": "b", "shape": [1], "dtype": "float32"}])
