"""What the settings of the recipe ask for; nothing is trained here."""

from pathlib import Path

import pytest

from edgekd.data.flight.channels import CHANNELS
from edgekd.discover import load_recipe
from edgekd.errors import RecipeError


def test_the_default_has_seventy_percent_fewer_parameters_than_its_teacher():
    torch = pytest.importorskip("torch")
    from edgekd.calls import invoke

    recipe = load_recipe("liteinception", {})
    counts = []
    for network in (recipe.student, recipe.teacher, *recipe.baselines):
        made = invoke(network.build, Path()).eval()
        assert made(torch.zeros(1, *recipe.input.shape)).shape == (1, 2)
        counts.append(sum(p.numel() for p in made.parameters()))
    assert len(counts) == 3
    assert counts[0] <= 0.31 * min(counts[1:])


def test_the_default_is_both_stages_in_one_bundle():
    recipe = load_recipe("liteinception", {"difficulty": "fleet", "seed": 3})
    part = recipe.parts["stage2"]
    assert [r.data.args["stage"] for r in (recipe, part)] == [1, 2]
    assert [r.student.build.args["classes"] for r in (recipe, part)] == [2, 11]
    assert part.data.args["difficulty"] == "fleet" and part.seed == 3
    assert part.file == recipe.file
    assert recipe.settings["stage"] == "both"
    assert part.settings == {**recipe.settings, "stage": 2}
    assert recipe.joint.to.endswith("joint:judge")


def test_a_stage_alone_is_the_same_network_without_the_other():
    both = load_recipe("liteinception", {})
    for number, twin in ((1, both), (2, both.parts["stage2"])):
        alone = load_recipe("liteinception", {"stage": number})
        assert not alone.parts and alone.joint is None
        assert (alone.data, alone.train, alone.student) == (twin.data, twin.train, twin.student)


def test_every_member_of_the_teacher_learns_as_long_as_the_student():
    recipe = load_recipe("liteinception", {"epochs": 7})
    members = recipe.teacher.build.args["members"]
    assert recipe.teacher.train.epochs == 7 * members
    assert recipe.teacher.train.batch == recipe.train.batch * members


def test_one_inception_as_the_teacher():
    recipe = load_recipe("liteinception", {"teacher": "inception", "teacher_channels": "all"})
    assert recipe.teacher.input.shape[0] == 23
    assert recipe.teacher.build.args["form"] == "teacher"
    assert not recipe.baselines


def test_a_selection_says_what_the_student_cannot_see():
    recipe = load_recipe("liteinception", {"channels": "paper15"})
    assert recipe.input.shape[0] == 15 and recipe.input.channels[0] == CHANNELS.index("volt1")
    assert "FQtyL, FQtyR" in recipe.notes[0]
    assert not load_recipe("liteinception", {"channels": "all"}).notes


def test_modes_are_different_lessons():
    def lesson(**settings):
        return load_recipe("liteinception", settings).objective.terms

    assert [t.tap for t in lesson(mode="balanced")] == ["label"]
    assert [t.tap for t in lesson(mode="kd")] == ["label", "logits"]
    assert lesson(mode="recall-first")[0].args == {"weights": (1.0, 2.0)}
    assert not lesson(mode="recall-first", stage=2)[0].args


def test_a_method_by_name_takes_the_place_of_the_modes():
    def chosen(**settings):
        return load_recipe("liteinception", settings).objective

    assert chosen() == chosen(mode="kd", objective="mode")
    assert chosen(objective="kd") == chosen()
    assert chosen(objective="dist").name == "dist"
    auto = chosen(objective="auto", mode="recall-first")
    assert [one.name for one in auto.among] == ["none", "kd", "lskd", "dist", "recall-first"]
    assert auto.among[0].terms[0].args == {"weights": (1.0, 2.0)}
    plain = chosen(objective="auto", mode="balanced")
    assert [one.name for one in plain.among] == ["none", "kd", "lskd", "dist"]
    with pytest.raises(RecipeError, match="compares map"):
        chosen(objective="at")


def test_your_own_flights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("liteinception", {"data": "mine", "stage": 2, "protocol": "official"})
    assert recipe.files == (str(tmp_path / "mine"),)
    assert recipe.data.args["path"] == str(tmp_path / "mine")
    assert recipe.data.args["protocol"] == "official"
    assert recipe.student.build.args["classes"] == 19
    more = {"data": "mine", "stage": 2, "layout": "all_flights", "random_split": True}
    assert load_recipe("liteinception", more).student.build.args["classes"] == 36
    assert load_recipe("liteinception", {"stage": 2}).student.build.args["classes"] == 11


def test_a_wrong_setting_is_named():
    with pytest.raises(RecipeError, match="chanels"):
        load_recipe("liteinception", {"chanels": "all"})
