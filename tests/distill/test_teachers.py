"""Several teachers: whose tap a term reads, what is cached, who must be better than the control."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from edgekd import api, manifest, steps
from edgekd.discover import load_recipe
from edgekd.distill import presets
from edgekd.distill.loss import Batch, objective_loss
from edgekd.distill.student import Student
from edgekd.distill.teacher import keep_outputs, open_all
from edgekd.errors import RecipeError
from edgekd.events import silent
from edgekd.run import Walk
from edgekd.spec import Call, Network, Objective, Term
from edgekd.store import Store
from tests.project import make

SOFT = {"temperature": 4.0}
FIRST = Term("logits", "kl", weight=0.5, args=SOFT)
SECOND = replace(FIRST, teacher="wide:logits")
BOTH = Objective("both", (FIRST, SECOND))


def conv4(maps):
    return Network(Call("edgekd.models.conv4:conv4", {"maps": maps, "classes": 3}), label="conv4")


def asked(objective=BOTH, **changes):
    recipe = load_recipe("classify", {"data": "pictures", "classes": "3", "preset": "smoke",
                                      "student": "conv4"})  # fmt: skip
    return replace(
        recipe, teacher=conv4(6), teachers={"wide": conv4(9)}, student=conv4(4),
        objective=objective, distill="always", **changes,
    )  # fmt: skip


def test_a_term_names_a_teacher_and_its_tap():
    assert FIRST.told_by == ("", "logits")
    assert SECOND.told_by == ("wide", "logits")
    assert replace(SECOND, teacher="wide:feat:blocks.2").told_by == ("wide", "feat:blocks.2")
    assert Term("feat:blocks.2", "mse").told_by == ("", "feat:blocks.2")
    assert SECOND.needs_teacher


def test_every_teacher_that_is_read_is_cached_for_itself():
    found = {step.name: step for step in steps.shared(asked())}
    assert list(found)[:3] == ["teacher", "teacher:wide", "control"]
    assert found["teach:wide"].inputs == {"teacher": "teacher:wide"}
    assert found["distill"].inputs == {"teach": "teach", "teach:wide": "teach:wide"}
    inner = Objective("maps", (Term("map", "mse", project="conv", teacher="wide:map"),))
    found = {step.name: step for step in steps.shared(asked(inner))}
    assert "teach" not in found
    assert found["teach:wide"].spec["inner"] == ["map"]
    assert found["distill"].inputs == {"teach:wide": "teach:wide"}
    assert "teacher:wide" in steps.networks(asked())


def test_each_objective_that_is_tried_reads_its_own_teachers():
    one, other = Objective("one", (FIRST,)), Objective("other", (SECOND,))
    tried = asked(presets.auto(BOTH, one, other))
    found = {s.name: s for s in steps.learned(tried, lambda name: None)}
    inputs = {n: sorted(s.inputs) for n, s in found.items() if n.startswith(f"{steps.TRIAL}1")}
    assert inputs == {
        "trial:1:none": [], "trial:1:one": ["teach"], "trial:1:other": ["teach:wide"],
        "trial:1:both": ["teach", "teach:wide"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"objective": Objective("x", (replace(FIRST, teacher="wied:logits"),))},
         "no teacher is called 'wied'"),
        ({"teachers": {"self": conv4(9)}}, "cannot be called 'self'"),
        ({"teachers": {"a/b": conv4(9)}}, "cannot be called 'a/b'"),
    ],
)  # fmt: skip
def test_names_that_lead_nowhere_are_refused_before_any_work(change, said):
    with pytest.raises(RecipeError, match=said):
        steps.shared(replace(asked(), **change))


def test_rollouts_are_judged_by_one():
    recipe = asked()
    acting = replace(recipe.train, rollout=Call("x:y"), rounds=1)
    with pytest.raises(RecipeError, match="first teacher alone"):
        steps.shared(replace(recipe, train=acting))


def facts(value):
    score = {"metrics": {"m": {"value": value}}, "primary": "m", "higher_is_better": True}
    return {"val": score, "params": 7}


def test_distilling_is_attempted_where_any_teacher_is_better():
    recipe = replace(asked(), distill="if-better")
    assert steps.undistilled(recipe, facts(0.1), facts(0.5), facts(0.6)) is None
    kept = steps.undistilled(recipe, facts(0.1), facts(0.5), facts(0.4))
    assert "No teacher is better than the control" in kept["undistilled"]
    assert "(m 0.1, 0.4 against 0.5)" in kept["undistilled"]
    values = {"teacher": 0.1, "teacher:wide": 0.4, "control": 0.5}
    walked = [s.name for s in steps.learned(recipe, lambda n: facts(values.get(n, 0.9)))]
    assert walked == ["teacher", "teacher:wide", "control", "distill"]


def test_outputs_are_joined_under_their_names(tmp_path):
    made = {}
    for name, width in (("teach", 2), ("teach:wide", 3)):
        folder = made[name] = tmp_path / name.replace(":", "-")
        folder.mkdir()
        views = [{"logits": torch.full((4, width), float(width + v))} for v in range(2)]
        keep_outputs(folder, views, None, "logits", 0)
    found = open_all({**made, "teacher": tmp_path})
    assert found.shapes == {"logits": (2,), "wide:logits": (3,)}
    assert found.access == "logits"
    taps = found.take(1, torch.tensor([3, 0]))
    assert torch.equal(taps["wide:logits"], torch.full((2, 3), 4.0))
    assert open_all({"teacher": tmp_path}) is None
    alone = open_all({"teach:wide": made["teach:wide"]})
    assert list(alone.shapes) == ["wide:logits"]


def test_two_of_half_weight_are_one_whose_probabilities_are_the_mean():
    """Σ wᵢ·KL(pᵢ ‖ s) is KL(Σ wᵢ·pᵢ ‖ s) but for a number that is not the student's."""
    torch.manual_seed(0)
    one, two, mine = (torch.randn(5, 3, dtype=torch.float64) for _ in range(3))
    mean = ((one / 4).softmax(1) + (two / 4).softmax(1)) / 2
    shapes = {"logits": (3,), "wide:logits": (3,)}
    grads = []
    for asked_, taps in (
        (BOTH, {"logits": one, "wide:logits": two}),
        (Objective("mean", (replace(FIRST, weight=1.0),)), {"logits": 4 * mean.log()}),
    ):
        net = Student(torch.nn.Identity(), "logits", 0, 3, asked_, shapes)
        logits = mine.clone().requires_grad_()
        batch = Batch(mine, torch.zeros(5, dtype=torch.int64), taps)
        objective_loss(net, {"logits": logits}, batch).backward()
        grads.append(logits.grad)
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-7)


def test_the_gap_is_to_the_teacher_of_the_term():
    labels = torch.tensor([0, 1])
    good = torch.tensor([[9.0, 0, 0], [0, 9, 0]])
    asked_ = Objective("gap", (replace(SECOND, gate="gap", weight=1.0),))
    net = Student(torch.nn.Identity(), "logits", 0, 3, asked_, {"wide:logits": (3,)})
    mine = torch.zeros(2, 3)
    for theirs, positive in ((good, True), (-good, False)):
        batch = Batch(mine, labels, {"wide:logits": theirs, "logits": -theirs})
        assert (float(objective_loss(net, {"logits": mine}, batch)) > 0) == positive


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    folder = make(tmp_path_factory.mktemp("teachers"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = Walk(asked(), Store(folder / "store"), silent)
        api._learn(done)
        for step in steps.scored(done.recipe):
            done.step(step)
        return done


def test_two_teachers_teach_one_student_on_data(walk):
    made = walk.done["distill"].facts
    assert made["history"][-1] < made["history"][0]
    assert walk.done["teacher"].facts["params"] < walk.done["teacher:wide"].facts["params"]
    said = [np.load(walk.done[n].path / "logits_0.npy") for n in ("teach", "teach:wide")]
    assert said[0].shape == said[1].shape
    assert not np.array_equal(*said)


def test_a_row_and_the_provenance_of_each(walk):
    evidence = SimpleNamespace(
        recipe=walk.recipe, done=walk.done, undistilled="",
        facts=lambda step: {**walk.done[step].facts, "data": {}} if step in walk.done
        else {"data": {}}, latency=lambda step: {"not_run": "here"},
    )  # fmt: skip
    rows = {row["id"]: row for row in manifest.network_rows(evidence)}
    assert rows["teacher:wide"]["label"] == "conv4 (teacher wide)"
    assert rows["teacher:wide"]["kind"] == "teacher"
    assert rows["teacher"]["label"] == "conv4 (teacher)"
    found = manifest._inputs(evidence)
    assert found["teacher"]["made_by"] == "trained by this recipe"
    assert [one["label"] for one in found["teachers"]] == ["conv4"]
