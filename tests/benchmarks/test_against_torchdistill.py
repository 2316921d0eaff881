"""Our side of the comparison, against its own formulas; what is committed covers every loss."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import against_torchdistill as against

RESULT = Path(__file__).parents[2] / "benchmarks/results/torchdistill.json"


def test_what_is_committed_is_of_these_losses_and_all_but_the_known_one_are_the_same():
    found = json.loads(RESULT.read_text(encoding="utf-8"))
    rows = {(row["loss"], row["precision"]): row for row in found["rows"]}
    assert set(rows) == {(name, p) for name in against.CASES for p in against.BOUND}
    assert {name for (name, _), row in rows.items() if not row["same"]} == {"sp"}
    assert all(row["bound"] == against.BOUND[row["precision"]] for row in rows.values())
    assert all("found" in one for one in found["defects"].values())
    assert all(found["ours_is_finite"].values())
    assert found["theirs"]["versions"]["torchdistill"]


def test_a_side_compared_with_itself_is_the_same_and_a_change_is_seen():
    made = against.arrays()
    ours = against.answers(made, against._ours)
    assert all(row["same"] for row in against.compared(ours, ours))
    for part, factor in (("value", 1.01), ("gradient", 1.01), ("gradient", np.nan)):
        key = f"rkd|float64|2|{part}"
        changed = {**ours, key: np.asarray(ours[key]) * factor}
        off = [row for row in against.compared(ours, changed) if not row["same"]]
        assert [(row["loss"], row["precision"]) for row in off] == [("rkd", "float64")]


def test_our_side_is_the_preset():
    one = against.given(against.arrays(), "logits", 0, torch.float64)
    found = float(against._ours(against.CASES["kd"], one).detach())
    soft = torch.nn.functional.kl_div(
        (one.student / 4).log_softmax(1), (one.teacher / 4).softmax(1), reduction="batchmean"
    )
    hard = torch.nn.functional.cross_entropy(one.student, one.labels)
    assert found == pytest.approx(float((0.1 * hard + 0.9 * 16 * soft).detach()), rel=1e-12)
