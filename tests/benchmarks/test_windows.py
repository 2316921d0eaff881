"""Times at long windows: what is put beside what."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import windows
from edgekd.backends.torch_eager import load_network
from edgekd.bench.measure import Process
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
    one = Process(
        **dict.fromkeys(Process.__dataclass_fields__, 0.0)  # type: ignore[arg-type]
    )
    return replace(one, label=label, cpu_least_ms=ms, wall_ms=(ms,), cpu_ms=(ms,), peak_rss_mib=1.0)


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
