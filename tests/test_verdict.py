"""Whether a scored candidate may ship, and the sentence when it may not."""

from __future__ import annotations

import pytest

from edgekd.verdict import beyond, loss_of, verdict


def score(value, higher=True, **rest):
    metrics = {"accuracy": {"value": value}}
    return {"primary": "accuracy", "higher_is_better": higher, "metrics": metrics, **rest}


GOAL = score(0.8)
LATENCY = {"rss_mib": 100.0}


@pytest.mark.parametrize(
    ("value", "higher", "loss"), [(0.76, True, 0.05), (0.84, True, -0.05), (0.84, False, 0.05)]
)
def test_a_loss_counts_against_the_direction_of_the_metric(value, higher, loss):
    assert loss_of(score(value), score(0.8, higher)) == pytest.approx(loss)


def test_a_harmful_policy_is_rejected_with_its_loss_and_a_harmless_one_taken():
    assert verdict(1, score(0.7), LATENCY, GOAL, 0.01, {}) == (
        "task metric: lost 12.50 %, limit 1 %"
    )
    assert verdict(1, score(0.793), LATENCY, GOAL, 0.01, {}) == ""


def test_fidelity_has_a_floor():
    goal = score(30, floor=True)
    assert verdict(1, score(28.25), None, goal, 0.0, {}) == (
        "fidelity: accuracy 28.2, at least 30 asked"
    )
    assert verdict(1, score(30.0), None, goal, 0.0, {}) == ""


def test_budgets():
    budget = {"size_mib": 1.0, "peak_memory_mib": 64.0}
    assert verdict(2**21, GOAL, LATENCY, GOAL, 0.01, budget) == (
        "budget: size_mib 2, limit 1; budget: peak_memory_mib 100, limit 64"
    )
    assert verdict(2**20, GOAL, None, GOAL, 0.01, budget) == ""


def test_parity():
    facts = {"max_rel": 0.2, "min_cosine": 0.9, "tolerance": {"max_rel": 0.1, "min_cosine": 0.99}}
    assert beyond({**facts, "status": "passed"}) == ""
    assert beyond({**facts, "status": "failed"}) == (
        "parity: max relative error 0.2, worst cosine 0.9000; limits 0.1 and 0.99"
    )
