"""`objective: auto`: short trainings choose on validation data, within a budget; also no teacher."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd import api, halving, steps
from edgekd.discover import load_recipe
from edgekd.distill import presets
from edgekd.errors import RecipeError, StageError, TrainingError
from edgekd.events import silent
from edgekd.run import Walk
from edgekd.spec import Call, Objective, Term, plain, rebuild
from edgekd.store import Store
from tests.project import make

ASKED = {"data": "pictures", "classes": "3", "preset": "smoke", "student": "conv4",
         "teacher": "edgekd.models.conv4:conv4", "objective": "auto", "distill": "always"}  # fmt: skip
SHORT = ["none", "lskd", "dist", "kd"]


# The plan


def test_a_plan_halves_and_lengthens():
    assert halving.turns(5, 12) == [(1, 3), (3, 2), (5, 1)]
    assert halving.turns(4, 30) == [(7, 2), (15, 1)]
    assert halving.turns(5, 2) == [(1, 1)]
    assert halving.turns(1, 30) == []


@given(st.integers(2, 40), st.integers(1, 400))
def test_no_plan_exceeds_its_budget(count, epochs):
    plan, left, spent = halving.turns(count, epochs), count, 0
    for length, stay in plan:
        spent += left * length
        assert stay <= left
        left = stay
    assert left == 1
    assert spent <= halving.budget(count, epochs)
    lengths = [length for length, _ in plan]
    assert lengths == sorted(set(lengths))
    assert lengths[-1] <= max(1, epochs // 2)


def test_the_better_half_keeps_its_order_among_equals_and_drops_what_failed():
    scores = {"none": 0.5, "kd": None, "lskd": 0.5, "dist": float("nan"), "own": 0.7}
    assert halving.better(scores, True, 3) == ["own", "none", "lskd"]
    assert halving.better(scores, False, 2) == ["none", "lskd"]
    assert halving.better({"kd": None}, True, 1) == []


# What is tried


def test_recipes_offer_it_with_their_own_objective_last():
    found = load_recipe("classify", {**ASKED, "temperature": "3"}).objective
    assert [one.name for one in found.among] == SHORT
    assert found.among[-1].terms == found.terms
    assert found.among[-1].terms[1].args == {"temperature": 3.0}
    assert rebuild(Objective, plain(found)).among[1].name == "lskd"
    found = load_recipe("mobilevit", {"objective": "auto"}).objective
    assert [one.name for one in found.among] == ["none", "kd", "lskd", "dist", "mse+kd"]
    assert found.without_teacher() == Objective("none", (Term("label", "auto"),))
    found = load_recipe("mobilevit", {"objective": "auto", "teacher": "t.onnx"}).objective
    assert [one.name for one in found.among] == ["none", "ce+mse"]
    alone = presets.objective("auto", usual="none", offers=())
    assert [one.name for one in alone.among] == ["none"]


def test_it_is_refused_where_it_cannot_apply():
    with pytest.raises(RecipeError, match="objective"):
        load_recipe("decision_transformer", {"objective": "auto"})
    with pytest.raises(RecipeError, match="no objective is called 'auto'"):
        presets.objective("auto")
    recipe = load_recipe("classify", ASKED)
    acting = replace(recipe, train=replace(recipe.train, rollout=Call("x:y"), rounds=1))
    with pytest.raises(RecipeError, match="divides by rollouts"):
        next(steps.learned(acting, lambda name: None))


# The course of it, on made-up scores


def scored(value, higher=True):
    score = {"metrics": {"m": {"value": value}}, "primary": "m", "higher_is_better": higher}
    return {"val": score, "steps": 10, "cpu_s": 1.0}


def course(scores, higher=True, epochs=12):
    """Names of the steps that are walked, and what the stage ``keep`` is told."""
    recipe = load_recipe("mobilevit", {"objective": "auto", "epochs": epochs, "distill": "always"})

    def found(name):
        if name.startswith(steps.TRIAL):
            value = scores[name.removeprefix(steps.TRIAL)]
            return value if isinstance(value, dict) else scored(value, higher)
        return scored(scores.get(name, 0.5), higher)

    walked = list(steps.learned(recipe, found))
    (kept,) = [step for step in walked if step.name == "distill"]
    return [step.name for step in walked if not step.name.startswith("baseline")], kept


FIRST = {"1:none": 0.1, "1:kd": 0.3, "1:lskd": 0.4, "1:dist": 0.0, "1:mse+kd": 0.2,
         "2:lskd": 0.5, "2:kd": 0.6, "2:mse+kd": 0.1, "3:kd": 0.7, "3:lskd": 0.65}  # fmt: skip


def test_half_goes_on_each_time_and_the_last_has_to_beat_the_control():
    names, kept = course({**FIRST, "whole:kd": 0.9, "control": 0.8})
    t = steps.TRIAL
    assert names == [
        "teacher", "control", "teach",
        *(f"{t}1:{n}" for n in ("none", "kd", "lskd", "dist", "mse+kd")),
        *(f"{t}2:{n}" for n in ("lskd", "kd", "mse+kd")), f"{t}3:kd", f"{t}3:lskd",
        f"{t}whole:kd", "distill",
    ]  # fmt: skip
    assert kept.inputs == {"network": f"{t}whole:kd"}
    auto = kept.spec["auto"]
    assert (auto["chosen"], auto["metric"], auto["budget"]) == ("kd", "m", 24)
    assert auto["steps"] == 110  # ten short ones and the whole; the control is there anyway
    assert [(r["objective"], r["epochs"], r["value"]) for r in auto["tried"][-3:]] == [
        ("lskd", 5, 0.65), ("kd", 12, 0.9), ("none", 12, 0.8),
    ]  # fmt: skip
    assert "undistilled" not in kept.spec


@pytest.mark.parametrize("control", [0.9, 0.95])
def test_a_winner_that_is_no_better_than_the_control_does_not_ship(control):
    _, kept = course({**FIRST, "whole:kd": 0.9, "control": control})
    assert kept.inputs == {"network": "control"}
    assert kept.spec["auto"]["chosen"] == "none"
    assert f"12 epochs: kd 0.9, none {control}" in kept.spec["undistilled"]


def test_no_teacher_may_win_and_then_nothing_whole_is_trained():
    names, kept = course({**FIRST, "1:none": 0.5, "2:none": 0.7, "2:kd": 0.1, "3:none": 0.9})
    assert f"{steps.TRIAL}whole:none" not in names
    assert kept.inputs == {"network": "control"}
    assert kept.spec["undistilled"].startswith("Objective auto chose no teacher on validation")


def test_a_lower_score_wins_where_lower_is_better():
    scores = {"1:none": 9, "1:kd": 3, "1:lskd": 4, "1:dist": 9, "1:mse+kd": 5, "2:kd": 4,
              "2:lskd": 3, "2:mse+kd": 5, "3:lskd": 2, "3:kd": 3, "whole:lskd": 1}  # fmt: skip
    _, kept = course({**scores, "control": 2}, higher=False)
    assert kept.spec["auto"]["chosen"] == "lskd"


def test_a_training_that_fails_is_out_and_that_is_recorded():
    broken = {"failed": "the loss is not finite"}
    scores = {**FIRST, "1:lskd": broken, "2:none": 0.1, "3:mse+kd": 0.1, "whole:kd": broken}
    _, kept = course(scores)
    assert kept.inputs == {"network": "control"}
    assert "lskd the loss is not finite" in kept.spec["undistilled"]
    all_out = dict.fromkeys(FIRST, broken)
    names, kept = course(all_out)
    assert sum(name.startswith(steps.TRIAL) for name in names) == 5
    assert kept.spec["auto"]["chosen"] == "none"


def test_a_worse_teacher_is_not_tried():
    recipe = load_recipe("mobilevit", {"objective": "auto"})
    facts = {"teacher": scored(0.1), "control": scored(0.9)}
    names = [step.name for step in steps.learned(recipe, facts.get)]
    assert not any(name.startswith(steps.TRIAL) for name in names)


def test_a_plan_foresees_the_recipes_own(tmp_path):
    recipe = load_recipe("mobilevit", {"objective": "auto"})
    names = [step.name for step in steps.learned(recipe, lambda name: None)]
    assert f"{steps.TRIAL}3:mse+kd" in names and f"{steps.TRIAL}whole:mse+kd" in names
    keys = steps.Keys(recipe, tmp_path)
    for step in steps.learned(recipe, lambda name: None):
        keys.add(step)


# On data


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = make(tmp_path_factory.mktemp("auto"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def walked(project, **changes):
    recipe = load_recipe("classify", ASKED)
    small = Call("edgekd.models.conv4:conv4", {"maps": 4, "classes": 3})
    recipe = replace(recipe, student=replace(recipe.student, build=small),
                     teacher=replace(recipe.teacher, build=small), **changes)  # fmt: skip
    told = []
    walk = Walk(recipe, Store(project / "store"), told.append)
    api._learn(walk)
    return walk, told


def test_trials_are_kept_and_the_same_run_again_is_the_same(project):
    walk, told = walked(project)
    facts = walk.done["distill"].facts
    auto = facts["auto"]
    ran = [name for name in walk.done if name.startswith(steps.TRIAL)]
    assert ran[:4] == [f"{steps.TRIAL}1:{n}" for n in SHORT]
    assert [row["objective"] for row in auto["tried"][:4]] == SHORT
    for name, row in zip(ran, auto["tried"], strict=False):
        made = walk.done[name].facts
        assert row["value"] == made["val"]["metrics"]["accuracy"]["value"]
        assert (row["epochs"], row["steps"]) == (made["epochs"], made["steps"])
    winner = auto["chosen"]
    source = "control" if winner == "none" else f"{steps.TRIAL}whole:{winner}"
    same = [(walk.done[n].path / "weights.pt").read_bytes() for n in ("distill", source)]
    assert same[0] == same[1]
    assert facts["history"] == walk.done[source].facts["history"]
    again, told = walked(project)
    assert {event.kind for event in told} == {"cached"}
    assert again.keys.of == walk.keys.of


def test_a_failing_trial_does_not_end_the_run(project):
    recipe = load_recipe("classify", ASKED)
    bad = Objective("bad", (Term("logits", "bad.py:nan"),))
    (project / "bad.py").write_text(
        "def nan(student, teacher):\n    return student.sum() * float('nan')\n"
    )
    asked = presets.auto(bad, presets.objective("kd"))
    walk, told = walked(project, objective=asked, file=str(project / "recipe.py"),
                        files=recipe.files)  # fmt: skip
    rows = {row["objective"]: row for row in walk.done["distill"].facts["auto"]["tried"]}
    assert rows["bad"]["value"] is None
    assert rows["bad"]["failed"] == "the loss is not finite"
    assert any(e.text == "the loss is not finite; it is out" for e in told)
    alone = replace(walk.recipe, objective=bad)
    with pytest.raises(TrainingError, match="not finite"):
        api._learn(Walk(alone, Store(project / "store"), silent))


WRONG = """
from edgekd.errors import StageError

def hungry(student, teacher):
    return student.new_empty(2**58).sum()

def torn(student, teacher):
    raise StageError("a file of the store is torn")

def mistaken(student, teacher):
    return student.no_such_thing
"""


def trial_of(project, name):
    (project / "wrong.py").write_text(WRONG)
    asked = presets.auto(Objective(name, (Term("logits", f"wrong.py:{name}"),)))
    asked = replace(asked, among=(*asked.among, presets.objective("kd")))
    return walked(project, objective=asked, file=str(project / "recipe.py"))


def test_a_trial_without_enough_memory_is_out(project):
    walk, _ = trial_of(project, "hungry")
    rows = {row["objective"]: row for row in walk.done["distill"].facts["auto"]["tried"]}
    assert rows["hungry"]["failed"].startswith("out of memory with batches of 16")


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [("torn", StageError, "is torn"), ("mistaken", StageError, "no_such_thing")],
)
def test_anything_else_that_goes_wrong_in_a_trial_ends_the_run(project, name, kind, said):
    with pytest.raises(kind, match=said) as caught:
        trial_of(project, name)
    assert not isinstance(caught.value, TrainingError)
