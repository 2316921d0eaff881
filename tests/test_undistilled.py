"""A teacher that is not better than the control: nothing is distilled, and that is said."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgekd import steps
from edgekd.artefact import Artefact
from edgekd.discover import load_recipe
from edgekd.report import render_report
from edgekd.stages.keep import keep
from edgekd.table import markdown, plain_text, tabulate
from tests.fakes import manifest

RECIPE = load_recipe("mobilevit", {"preset": "smoke"})


def facts(value, higher=True):
    score = {"metrics": {"m": {"value": value}}, "primary": "m", "higher_is_better": higher}
    return {"val": score, "params": 7}


@pytest.mark.parametrize(
    ("teacher", "control", "higher", "attempted"),
    [(0.8, 0.7, True, True), (0.7, 0.7, True, False), (0.6, 0.7, True, False),
     (3.0, 4.0, False, True), (5.0, 4.0, False, False), (float("nan"), 0.5, True, False)],
)  # fmt: skip
def test_only_a_better_teacher_teaches(teacher, control, higher, attempted):
    kept = steps.undistilled(RECIPE, facts(teacher, higher), facts(control, higher))
    assert (kept is None) == attempted
    if kept is not None:
        assert f"{teacher:.4g} against {control:.4g}" in kept["undistilled"]
        assert kept["facts"]["params"] == 7


def test_it_can_be_forced_and_an_objective_without_teacher_asks_none():
    worse = facts(0.1), facts(0.9)
    forced = dataclasses.replace(RECIPE, distill="always")
    assert steps.undistilled(forced, *worse) is None
    assert load_recipe("mobilevit", {"distill": "always"}).distill == "always"
    alone = load_recipe("mobilevit", {"objective": "dml"})
    assert steps.undistilled(alone, *worse) is None
    assert [s.name for s in steps.shared(alone)][:3] == ["teacher", "control", "distill"]


def test_the_control_takes_the_students_place_and_the_teacher_is_not_run():
    kept = steps.undistilled(RECIPE, facts(0.1), facts(0.9))
    usual = {s.name: s for s in steps.shared(RECIPE)}
    found = {s.name: s for s in steps.shared(RECIPE, kept)}
    assert set(usual) - set(found) == {"teach"}
    assert found["distill"].inputs == {"network": "control"}
    assert found["distill"].stage.endswith("keep:keep")
    assert found["control"] == usual["control"]


def test_teacher_and_control_are_judged_before_anything_else():
    ran, worse = [], {"teacher": facts(0.1), "control": facts(0.9)}
    for step in steps.learned(RECIPE, worse.get):
        ran.append(step.name)
    assert ran == ["teacher", "control", "distill"]
    foreseen = [step.name for step in steps.learned(RECIPE, lambda name: None)]
    assert foreseen == ["teacher", "control", "teach", "distill"]


def test_the_key_of_what_is_kept_depends_on_the_control(tmp_path):
    keys = steps.Keys(RECIPE, tmp_path)
    keys.of["control"] = "a"
    (step,) = [s for s in steps.shared(RECIPE, {"facts": {}, "undistilled": "w"})
               if s.name == "distill"]  # fmt: skip
    first = keys.add(step)
    keys.of["control"] = "b"
    assert keys.add(step) != first


def test_the_stage_copies_what_ships(tmp_path):
    source, out = tmp_path / "control", tmp_path / "out"
    source.mkdir(), out.mkdir()
    (source / "network.json").write_text("{}")
    (source / "checkpoint.pt").write_text("not part of it")
    np.savez(source / "state.npz", threshold=0.5)
    Artefact(source, "network.json", "torch", {}, {}, "fp32", ("network.json",)).save()
    told = []
    spec = {"facts": {"params": 7}, "undistilled": "no better", "step": "distill"}
    assert keep(spec, {"network": source}, out, told.append) == {
        "params": 7, "undistilled": "no better",
    }  # fmt: skip
    assert sorted(p.name for p in out.iterdir()) == ["artefact.json", "network.json", "state.npz"]
    assert [(e.kind, e.text) for e in told] == [("warning", "no better")]


def test_table_and_report_say_it():
    why = "The teacher is not better than the control on validation data: not attempted"
    made = {**manifest(), "undistilled": why}
    assert tabulate(made).remarks == (f"{why}.",)
    for text in (plain_text(made), markdown([made, made]), render_report(made)):
        assert text.count(f"{why}.") == 1
    assert why not in plain_text(manifest())
