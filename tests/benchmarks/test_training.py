"""The loop written by hand is the trainer's own work: it ends at the same weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")
from benchmarks import training


@pytest.fixture
def case():
    made = []
    usual = training.convolutions()

    def student():
        made.append(usual.student())
        return made[-1]

    return replace(usual, student=student, batch=16, steps=5, pairs=1), made


def test_both_loops_end_at_the_same_weights(case, tmp_path):
    case, made = case
    said = np.random.default_rng(1).normal(size=(80, 100)).astype(np.float32)
    cached = training.Timed(training.TeacherOutputs(({"logits": said},)))
    assert training.trainer(case, cached, tmp_path) > 0
    assert training.by_hand(case, cached, tmp_path) > 0
    assert cached.seconds > 0
    one, two = (net.state_dict() for net in made)
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-6)


def test_the_figures_are_there(case):
    found = training.measured(case[0], 1)
    assert found["cached_over_live"]["pairs"] == 1
    assert found["trainer_over_loop"]["pairs"] == 2
    assert 0 < found["reading_share"] < 1
    assert found["teacher_over_step"] > 0
