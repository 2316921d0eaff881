"""Times at long windows: what is put beside what."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import windows
from edgekd.backends.torch_eager import load_network
from edgekd.discover import load_recipe

RESULT = Path(__file__).parents[2] / "benchmarks/results/liteinception-windows.json"
MS = {
    "student, torch": 8.0,
    "student, ort-fp32": 4.0,
    "student, ort-int8": 1.0,
    "teacher, torch": 20.0,
    "teacher, ort-fp32": 9.0,
    "InceptionTime, torch": 13.0,
    "InceptionTime, ort-fp32": 7.0,
}


def process(label, ms):
    """What `ratios` reads of a process."""
    return SimpleNamespace(
        label=label, cpu_least_ms=ms, wall_ms=(ms,), peak_rss_mib=1.0, energy_mj=None
    )


@pytest.fixture
def found(monkeypatch):
    monkeypatch.setattr(windows, "INT8", {"ort-int8": "onnxruntime", "ov-int8": "openvino"})
    return [[process(label, ms * slow) for label, ms in MS.items()] for slow in (1, 1.5, 1.1)]


def test_each_ratio_is_of_one_runtime_and_paired_by_round(found):
    rows = {row["slow"]: row for row in windows.ratios(found)}
    assert set(rows) == set(MS) - {"student, ort-int8"}
    assert rows["teacher, torch"]["value"] == pytest.approx(20)
    assert rows["student, ort-fp32"]["low"] == pytest.approx(4)  # a slow round is slow for both


def test_a_goal_missed_is_said(found):
    part = {
        "length": 4096,
        "rows": [],
        "times as fast": windows.ratios(found),
    }
    page = windows.text({"windows": [part]})
    assert "| student, ort-int8 | teacher, torch | 20.00 [20.00, 20.00] | 14 holds |" in page
    assert "InceptionTime, torch | 13.00 [13.00, 13.00] | 14 MISSED |" in page
    assert "student, ort-fp32 | 4.00 [4.00, 4.00] |  |" in page


def test_the_network_that_is_timed_is_the_recipes_at_seed_0(tmp_path):
    recipe = load_recipe("liteinception", {"stage": 1, "length": 512})
    build, seen = windows.networks(recipe)["student"]
    assert len(seen) == 15
    x = np.random.default_rng(0).normal(3, 2, (16, 15, 1, 512)).astype(np.float32)
    network, _ = load_network(windows.untrained(build, x, tmp_path), tmp_path)
    assert network.blocks[0].branches[0][1].running_var.std() > 0  # flights were seen
    with torch.no_grad():
        assert network.eval()(torch.from_numpy(x)).std() < 10


def test_what_is_committed_keeps_the_goals_in_openvino():
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    assert [part["length"] for part in result["windows"]] == list(windows.LENGTHS)
    longest = result["windows"][0]["times as fast"]
    held = {row["slow"]: row for row in longest if row["fast"] == "student, ov-int8"}
    for slow, goal in (("teacher, torch", 14), ("InceptionTime, torch", 14)):
        assert held[slow]["goal"] == goal <= held[slow]["value"]
    for slow in ("teacher, ov-f32", "InceptionTime, ov-f32"):
        assert held[slow]["goal"] == 8 <= held[slow]["low"]
    assert "MISSED" in windows.text(result)  # and in ONNX Runtime it does not hold
