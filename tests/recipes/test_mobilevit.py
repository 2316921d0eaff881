"""What the settings of the recipe ask for; nothing is trained here."""

from pathlib import Path

import pytest

from edgekd import extras, steps
from edgekd.discover import load_recipe
from edgekd.errors import RecipeError, SetupError


def test_the_default_pins_its_teacher():
    recipe = load_recipe("mobilevit", {})
    assert recipe.teacher.sha256
    assert recipe.teacher.license == "Apache-2.0"
    assert recipe.distill_data == "base"
    assert recipe.input.shape == (3, 64, 64)
    conv4, resnet = recipe.baselines
    assert conv4.train.epochs < resnet.train.epochs == recipe.train.epochs


def test_relative_paths_count_from_where_the_command_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("mobilevit", {"data": "mine", "teacher": "t.onnx"})
    assert recipe.files == (str(tmp_path / "mine"),)
    assert recipe.data.args["path"] == str(tmp_path / "mine")
    assert recipe.teacher.weights == str(tmp_path / "t.onnx")
    assert recipe.distill_data == "external"
    assert load_recipe("mobilevit", {"data": "mine"}).distill_data == "base"


def test_a_teacher_of_ones_own():
    recipe = load_recipe(
        "mobilevit", {"teacher": "mine.py:build", "weights": "w.pt", "teacher_size": "224"}
    )
    assert recipe.teacher.build.to == f"{Path.cwd() / 'mine.py'}:build"
    assert recipe.teacher.input.shape == (3, 224, 224)
    with pytest.raises(RecipeError, match="needs its weights"):
        load_recipe("mobilevit", {"teacher": "mine.py:build"})


def test_the_paper(tmp_path):
    asked = {
        "preset": "paper",
        "data": str(tmp_path),
        "teacher": "dino.onnx",
        "teacher_norm": "imagenet",
    }
    recipe = load_recipe("mobilevit", asked)
    (term,) = recipe.objective.terms
    assert (term.tap, term.divergence, term.project) == ("features", "mse", "linear")
    assert recipe.input.shape == (3, 128, 128)
    assert (recipe.train.lr, recipe.train.epochs) == (1e-3, 100)
    assert recipe.task.args == {"query": 15, "episodes": 10_000}
    assert recipe.teacher.input.mean == (0.485, 0.456, 0.406)
    assert recipe.distill_data == "external"
    assert load_recipe("mobilevit", {**asked, "variant": "resnet12"}).student.build.args == {
        "maps": 32
    }
    with pytest.raises(RecipeError, match="your MiniImageNet"):
        load_recipe("mobilevit", {"preset": "paper"})


def test_a_teacher_from_a_package_that_is_not_there_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setattr(extras, "installed", lambda module: False)
    monkeypatch.setattr(steps, "locate", lambda name, base: tmp_path / "absent.pth")
    with pytest.raises(SetupError) as caught:
        steps.shared(load_recipe("mobilevit", {"teacher": "efficientnet-lite0"}))
    assert "edgekd[efficientnet]" in caught.value.hint


@pytest.mark.parametrize("size", ["84", "100"])
def test_sizes_that_make_bad_graphs_are_refused(size):
    with pytest.raises(RecipeError, match="64"):
        load_recipe("mobilevit", {"size": size})


def test_logits_are_learnt_from_where_the_teacher_has_them(tmp_path):
    recipe = load_recipe("mobilevit", {"objective": "ce+mse+kd"})
    assert [term.tap for term in recipe.objective.terms] == ["label", "features", "logits"]
    (tmp_path / "teacher.onnx").write_bytes(b"")
    blind = {"objective": "ce+mse+kd", "teacher": str(tmp_path / "teacher.onnx")}
    with pytest.raises(RecipeError, match="no objective is called 'ce\\+mse\\+kd'"):
        load_recipe("mobilevit", blind)
    assert load_recipe("mobilevit", {}).objective.name == "mse+kd"
    assert load_recipe("mobilevit", blind | {"objective": "preset"}).objective.name == "ce+mse"


def test_the_smoke_presets_classes_are_not_the_shipped_teachers():
    with pytest.raises(RecipeError, match="compares logits"):
        load_recipe("mobilevit", {"objective": "kd", "preset": "smoke"})
    names = [o.name for o in load_recipe("mobilevit", {"objective": "auto"}).objective.among]
    few = load_recipe("mobilevit", {"objective": "auto", "preset": "smoke"}).objective.among
    assert "kd" in names
    assert "kd" not in [o.name for o in few]
    assert load_recipe("mobilevit", {"objective": "kd", "preset": "smoke", "teacher": "train"})
