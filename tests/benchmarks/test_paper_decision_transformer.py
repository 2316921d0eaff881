from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from benchmarks.paper import decision_transformer as paper


def test_the_papers_sizes_come_out_of_counting():
    """−96.1 % and −78.1 % parameters, −89.9 % and −63.9 % of torchinfo's estimate."""
    sizes = {name: paper.counted(*size) for name, size in paper.SIZES.items()}
    assert sizes["Tiny"]["params"] == 387_713
    assert sizes["Small"]["params"] == 2_157_569
    assert sizes["Medium"]["params"] == 9_831_681
    found = {n: s["torchinfo_mb"] for n, s in sizes.items()}
    assert found == pytest.approx({"Tiny": 7.09, "Small": 25.45, "Medium": 70.56}, abs=0.01)
    assert 1 - sizes["Tiny"]["params"] / sizes["Medium"]["params"] == pytest.approx(0.961, abs=5e-4)
    assert 1 - found["Tiny"] / found["Medium"] == pytest.approx(0.899, abs=1e-3)


def test_counting_agrees_with_torch():
    layer = nn.TransformerDecoderLayer(64, 1, paper.HIDDEN)
    rest = [nn.Embedding(1344, 64), nn.Linear(1, 64), nn.Linear(1, 64), nn.Linear(51, 64)]
    parts = [layer, *rest, nn.LayerNorm(64), nn.Linear(64, 1)]
    assert sum(p.numel() for m in parts for p in m.parameters()) == 387_713


def test_every_home_stands_beside_what_is_reported(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    steps = 16 * 48
    hour = np.arange(steps) / 2 % 24
    arrays = {"price": 0.3 + 0.2 * np.sin(hour / 24 * 6.28) + 0.05 * rng.random(steps)}
    for name in ("13", "20"):
        arrays[f"{name}_load"] = rng.uniform(0.1, 0.6, steps)
        arrays[f"{name}_pv"] = np.clip(np.sin((hour - 6) / 12 * np.pi), 0, None) * 1.2
    np.savez(tmp_path / "a.npz", **arrays)
    monkeypatch.setattr(paper, "FIRST", 8 * 48)
    monkeypatch.setattr(paper, "STEPS", 4 * 48)
    monkeypatch.setattr(paper, "SIZED", 8 * 48)
    measured = paper.measure(tmp_path / "a.npz")
    costs = {name: np.array(values) for name, values in measured["cost"].items()}
    for values in costs.values():
        assert (values >= costs["optimum"] - 1e-3).all()
    assert (costs["self-consumption"] < costs["no battery"]).all()
    said = paper.text(measured)
    assert "another home set" in said and "220.25" in said
    assert said.splitlines()[3].split()[:2] == ["13", f"{measured['capacity_kwh'][0]:g}"]
