"""The statistics against slow twins that enumerate, and against scipy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.bench import stats

numbers = st.lists(st.integers(-6, 6), min_size=1, max_size=9)


def enumerated_signed_rank(values):
    """Every assignment of signs, one by one."""
    size = np.abs(values)
    ranks = np.array([(size < v).sum() + ((size == v).sum() + 1) / 2 for v in size])
    ranks[size == 0] = 0
    observed = ranks[np.array(values) > 0].sum()
    sums = [
        sum(r for r, plus in zip(ranks, signs, strict=True) if plus)
        for signs in itertools.product((0, 1), repeat=len(values))
    ]
    return np.mean([s >= observed for s in sums])


@given(numbers)
def test_signed_rank_is_what_enumeration_gives(values):
    assert stats.signed_rank(values) == pytest.approx(enumerated_signed_rank(values))


@given(st.integers(1, 5), st.integers(1, 5), st.randoms(use_true_random=False))
def test_mann_whitney_is_what_enumeration_gives(first, second, random):
    values = random.sample(range(100), first + second)
    a, b = values[:first], values[first:]
    won = sum(y > x for x in a for y in b)
    splits = [
        sum(y > x for x in set(values) - set(chosen) for y in chosen)
        for chosen in itertools.combinations(values, second)
    ]
    assert stats.mann_whitney(a, b) == pytest.approx(np.mean([s >= won for s in splits]))


def test_the_tests_agree_with_scipy_beyond_the_exact_range():
    scipy = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, 60), rng.integers(1, 9, 50)
    wanted = scipy.mannwhitneyu(b, a, alternative="greater", method="asymptotic").pvalue
    assert stats.mann_whitney(a, b) == pytest.approx(wanted)
    d = rng.normal(0.2, 1, 90)
    wanted = scipy.wilcoxon(d, alternative="greater", method="approx", correction=True).pvalue
    assert stats.signed_rank(d) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (4, 200), (95, 100), (10, 10), (3, 500)])
def test_the_binomial_interval_is_that_of_clopper_and_pearson(hits, trials):
    scipy = pytest.importorskip("scipy.stats")
    exact = scipy.binomtest(hits, trials).proportion_ci(method="exact")
    assert stats.binomial_interval(hits, trials) == pytest.approx((exact.low, exact.high), abs=1e-9)


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_its_stepwise_rule_rejects(p_values):
    adjusted = stats.holm(p_values)
    alpha, rejected = 0.05, set()
    ordered = sorted(p_values, key=p_values.__getitem__)
    for place, name in enumerate(ordered):
        if p_values[name] * (len(ordered) - place) > alpha:
            break
        rejected.add(name)
    assert {name for name, p in adjusted.items() if p <= alpha} == rejected


@pytest.mark.parametrize("count", [6, 11, 20])
def test_the_interval_of_pairs_covers_as_often_as_it_says(count):
    rng = np.random.default_rng(count)
    hits = 0
    for _ in range(400):
        shift = stats.pair_shift(0.05 + 0.02 * rng.standard_t(3, count))
        hits += shift.low <= math.expm1(0.05) <= shift.high
    _, high = stats.binomial_interval(hits, 400, 0.999)
    assert high >= 0.95


def test_the_interval_inverts_the_test():
    """Shifting the values by a bound of the interval is where the test stops rejecting."""
    values = np.random.default_rng(3).normal(0.02, 0.01, 12)
    shift = stats.pair_shift(values)
    inside = math.log1p(shift.low)
    assert stats.signed_rank(values - (inside + 1e-9)) > 0.025
    assert stats.signed_rank(values - (inside - 1e-9)) <= 0.025


def test_the_shift_of_two_samples_is_a_ratio():
    a = [1.0, 1.1, 0.9, 1.05, 0.95]
    shift = stats.sample_shift(a, [1.1 * v for v in a])
    assert shift.value == pytest.approx(0.1, abs=1e-9)
    assert shift.low < 0.1 < shift.high


def test_looks_spend_no_more_than_the_whole_error():
    """Under no difference, p-values of a run that stops whenever it likes stay p-values."""
    looks = stats.Looks((6, 9, 12), (0.3, 0.3, 0.4))
    rng = np.random.default_rng(0)
    p_values = [looks.p_value(rng.normal(size=12)) for _ in range(2000)]
    for level in (0.05, 0.1, 0.3):
        low, _ = stats.binomial_interval(sum(p <= level for p in p_values), 2000, 0.999)
        assert low <= level
    assert looks.p_value(np.ones(5)) == 1.0
    assert looks.p_value(np.ones(6)) == pytest.approx(2**-6 / 0.3)
    assert looks.p_value(-np.ones(6), -1) == pytest.approx(2**-6 / 0.3)


@pytest.mark.parametrize(
    ("rounds", "shares"), [((6, 5), (0.5, 0.5)), ((5,), (0.9,)), ((5, 6), (1.0, 0.0)), ((5,), ())]
)
def test_looks_that_spend_more_are_refused(rounds, shares):
    with pytest.raises(ValueError, match="looks want"):
        stats.Looks(rounds, shares)


def test_nothing_measured_proves_nothing():
    assert stats.signed_rank([]) == 1.0
    assert stats.signed_rank([0.0, 0.0]) == 1.0
    assert stats.mann_whitney([], [1.0]) == 1.0
    assert stats.mann_whitney([1.0] * 3, [1.0] * 3) == 1.0
