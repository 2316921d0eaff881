"""The objective of one's own that the docs show: it is executed as it stands there."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgekd import steps
from edgekd.discover import load_recipe
from edgekd.distill import terms
from edgekd.events import silent
from edgekd.run import Walk
from edgekd.spec import Call, Network
from edgekd.store import Store
from tests.project import make

DOCS = Path(__file__).parents[2] / "docs" / "methods.md"
CODE, SEVERAL = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.S)


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "far.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def asked():
    return load_recipe("far.py", {"data": "pictures", "classes": "3", "preset": "smoke"})


def test_it_is_short():
    assert sum(bool(line.strip()) for line in CODE.splitlines()) < 10


def test_its_function_is_the_divergence_and_part_of_the_key(project):
    recipe = asked()
    (_, term) = recipe.objective.terms
    base = steps.base_of(recipe)
    terms.check(term, base)
    found = terms.compare(term, torch.zeros(2, 3), torch.full((2, 3), 4.0), base=base)
    assert float(found) == 8
    (project / "pictures").mkdir()
    keys = [_keys(recipe, project)]
    (project / "far.py").write_text(CODE.replace("power=1.5", "power=2.5"))
    keys.append(_keys(recipe, project))
    assert {n for n in keys[0] if keys[0][n] != keys[1][n]} == {"distill"}


def _keys(recipe, folder):
    keys = steps.Keys(recipe, folder / "digests")
    return {step.name: keys.add(step) for step in steps.shared(recipe)}


def test_a_student_learns_by_it(project):
    make(project)
    small = Network(Call("edgekd.models.conv4:conv4", {"maps": 4, "classes": 3}), label="small")
    recipe = replace(asked(), teacher=small, student=small, distill="always")
    walk = Walk(recipe, Store(project / "store"), silent)
    for step in steps.learned(recipe, lambda name: walk.done[name].facts):
        walk.step(step)
    assert walk.done["distill"].facts["history"][-1] < walk.done["distill"].facts["history"][0]


def test_the_recipe_of_two_teachers_is_one(project):
    (project / "two.py").write_text(SEVERAL)
    recipe = load_recipe("two.py", {"data": "pictures", "classes": "3"})
    names = [step.name for step in steps.shared(recipe)]
    assert names[:2] == ["teacher", "teacher:wide"]
    assert {"teach", "teach:wide"} <= set(names)
