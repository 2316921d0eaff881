"""Fixed-point arithmetic against real numbers and against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.firmware.fixed import (
    exp_table,
    high_product,
    quantize_factor,
    reciprocal,
    rescale,
    rescale_wide,
    shift_right,
)


@given(st.floats(1e-8, 1e6))
def test_a_factor_is_kept_to_thirty_bits(factor):
    multiplier, shift = quantize_factor(factor)
    assert 2**30 <= multiplier < 2**31
    assert multiplier * 2.0 ** (shift - 31) == pytest.approx(factor, rel=2**-30)


def test_tiny_factors_vanish():
    assert quantize_factor(0.0) == (0, 0)
    assert quantize_factor(2.0**-40) == (0, 0)


@pytest.mark.parametrize(
    ("value", "bits", "wanted"),
    [
        (5, 1, 3),
        (-5, 1, -3),
        (4, 1, 2),
        (6, 2, 2),
        (-6, 2, -2),
        (7, 0, 7),
        (-7, 0, -7),
        (-1, 1, -1),
    ],
)
def test_shifting_right_rounds_halves_away_from_zero(value, bits, wanted):
    assert int(shift_right(value, bits)) == wanted


def test_products_round_halves_up():
    assert int(high_product(1, 2**30)) == 1
    assert int(high_product(-1, 2**30)) == 0
    assert int(high_product(-3, 2**30)) == -1


@given(st.integers(-(2**24), 2**24), st.floats(1e-4, 4.0))
def test_rescaling_is_multiplication(value, factor):
    multiplier, shift = quantize_factor(factor)
    assert float(rescale(value, multiplier, shift)) == pytest.approx(value * factor, abs=1.01)


@given(st.integers(-(2**40), 2**40), st.floats(1e-8, 1e-6))
def test_wide_sums_keep_fifteen_bits_of_the_factor(value, factor):
    multiplier, shift = quantize_factor(factor)
    wanted = value * factor
    assert float(rescale_wide(value, multiplier, shift)) == pytest.approx(
        wanted, abs=0.51 + abs(wanted) * 2**-14
    )


def test_a_sum_that_leaves_32_bits_is_refused():
    with pytest.raises(OverflowError):
        rescale(2**31, 2**30, 0)


def test_shifting_to_the_left_saturates():
    assert int(rescale(2**30, 2**30, 2)) == 2**30 - 2
    assert int(rescale(-(2**30), 2**30, 2)) == -(2**30) + 2


def test_exp_and_reciprocal_are_those_of_the_reals():
    table = exp_table(0.05, 1.0) / 2**31
    wanted = np.exp(-0.05 * np.arange(256))
    assert np.abs(table - wanted).max() < 5e-7
    for a in (0.0, 0.25, 0.999):
        assert reciprocal(int(a * 2**31)) / 2**31 == pytest.approx(1 / (1 + a), abs=1e-8)


def test_differences_beyond_the_fixed_point_count_nothing():
    table = exp_table(0.2, 1.0)
    assert table[154] > 0 or math.exp(-0.2 * 154) < 2**-31
    assert table[156] == 0
