"""The .tflite files of every recipe's student, in today's interpreter and in the old one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd import load_recipe
from edgekd.backends import litert
from edgekd.backends.base import backend
from edgekd.calls import invoke
from edgekd.device.link import Agent
from edgekd.environments import environment
from edgekd.errors import SetupError
from edgekd.events import silent
from edgekd.stages.convert import program

torch = pytest.importorskip("torch")

from edgekd.models.shipped import shipped

OLD = environment("tflite-runtime")
STUDENTS = {
    "mobilevit": {},
    "decision_transformer": {},
    "liteinception": {"stage": 1, "length": 64},
}
FAR = {"none": 1e-5, "static-products": 0.1, "static": 0.15, "dynamic": 0.1}
"""Largest error, as a share of the largest output, of untrained students on noise."""

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(600),
    pytest.mark.needs("edgekd setup litert", install="edgekd setup litert"),
    pytest.mark.needs("ai_edge_litert", install="pip install 'edgekd[litert]'"),
    pytest.mark.needs(OLD.command, install=OLD.command),
]


@pytest.mark.parametrize("name", STUDENTS)
def test_both_interpreters_run_the_same_files(name, tmp_path):
    """Dynamic layers alone are refused by the old one, which would compute zeros."""
    recipe = load_recipe(name, {"preset": "smoke", **STUDENTS[name]})
    torch.manual_seed(0)
    model = shipped(invoke(recipe.student.build, Path())).eval()
    noise = np.random.default_rng(0).normal(0, 1, (16, *recipe.input.shape)).astype(np.float32)
    feeds = {recipe.input.name: noise}
    with torch.no_grad():
        truth = model(torch.from_numpy(noise)).numpy()
    torch.export.save(program(model, (torch.from_numpy(noise[:1]),)), tmp_path / "student.pt2")
    converted = tmp_path / "float.tflite"
    litert.convert(tmp_path / "student.pt2", feeds, truth, "y", converted)
    ran = []
    for row in backend("litert").candidates(["fp32", "int8"], ()):
        place = tmp_path / row.id
        facts = backend("litert").build(converted, row, feeds, place, silent)
        with Agent() as new, Agent(python=OLD.python, timeout_s=60) as old:
            assert new.load("litert", place / facts["main"]).effective["package"] != OLD.probe[0]
            known = new.run(feeds)["y"]
            limit = FAR[row.policy] * np.abs(truth).max()
            assert np.abs(known - truth).max() < limit, row.id
            try:
                loaded = old.load("litert", place / facts["main"])
            except SetupError as error:
                assert row.policy == "dynamic", row.id
                assert "computes zeros for dynamic int8" in error.what
                continue
            assert loaded.version == "2.14.0"
            assert np.abs(old.run(feeds)["y"] - truth).max() < limit, row.id
        ran.append(row.policy)
    assert {"none", "static-products", "static"} <= set(ran)
