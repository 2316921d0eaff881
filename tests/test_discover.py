"""Discovery: where files are found, what is read without executing, what loading says."""

from __future__ import annotations

import os
import sys
import textwrap
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from edgekd import discover
from edgekd.errors import RecipeError, SetupError, TargetError

RECIPE = '''\
"""Module docstring."""

from pathlib import Path
from typing import Literal

from edgekd import Call, Input, Network, Objective, Recipe, Train


def recipe(
    *,
    size: Literal["xxs", "xs"] = "xxs",
    epochs: int = 3,
    data: Path | None = None,
    widths: tuple[int, ...] = (1, 2),
) -> Recipe:
    """A recipe for tests.

    It has a second paragraph.

    Args:
        size: Size of
            the student.
        epochs (int): How long.

    Data:
        Pictures in folders.
            From anywhere.

    Returns:
        A recipe.
    """
    return Recipe(
        name="a",
        data=Call("m:f"),
        input=Input((3,)),
        task=Call("m:f"),
        teacher=Network(None),
        student=Network(None),
        train=Train(epochs),
        objective=Objective("o", ()),
    )
'''
TARGET = "name: {0}\ntitle: Target {0}\ndevice: cpu\nbackends: [openvino]\nprecisions: [fp32]\n"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Work in an empty folder, with no entry points and nothing bundled."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEKD_PATH", raising=False)
    monkeypatch.setattr(discover, "_entry_points", lambda kind: iter(()))
    monkeypatch.setattr(discover, "_bundled", lambda kind: tmp_path / "bundled" / kind)
    return tmp_path


def write(path: str, text: str) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(text))
    return file


def body(text: str) -> str:
    return f"from edgekd import Recipe\n\n\ndef recipe(*, x: int = 1) -> Recipe:\n    {text}\n"


# --- where -------------------------------------------------------------------------------------


def test_the_doors_are_tried_in_order(monkeypatch, tmp_path):
    doors = ["path/recipes", "path2", "recipes", "plugin", "bundled/recipes"]
    for number, door in enumerate(doors):
        for name in range(number + 1):
            write(f"{door}/r{name}.py", RECIPE)
    monkeypatch.setenv("EDGEKD_PATH", os.pathsep.join(["path", "path2", "missing"]))
    monkeypatch.setattr(
        discover, "_entry_points", lambda kind: iter([("plugin", tmp_path / "plugin")])
    )
    origins = {found.name: found.origin for found in discover.recipes()}
    assert origins == {
        "r0": "$EDGEKD_PATH",
        "r1": "$EDGEKD_PATH",
        "r2": "./recipes",
        "r3": "plugin",
        "r4": "edgekd",
    }
    assert discover.find_recipe("r1") == tmp_path / "path2" / "r1.py"


def test_an_explicit_path_wins_and_needs_no_door():
    write("recipes/a.py", RECIPE)
    other = write("x/a.py", RECIPE)
    assert discover.find_recipe("x/a.py") == other.resolve()
    assert discover.find_recipe(other) == other.resolve()
    assert discover.find_target(write("t.yaml", TARGET.format("t"))).name == "t.yaml"


def test_unknown_names_offer_the_closest(snapshot):
    write("recipes/mobilevit.py", RECIPE)
    write("targets/cpu.yaml", TARGET.format("cpu"))
    for find, name, error in [
        (discover.find_recipe, "mobilvit", RecipeError),
        (discover.find_recipe, "no/such.py", RecipeError),
        (discover.find_target, "cpus", TargetError),
        (discover.find_target, "no.yaml", TargetError),
    ]:
        with pytest.raises(error) as caught:
            find(name)
        assert str(caught.value) == snapshot


def test_modules_beside_recipes_are_no_recipes():
    write("recipes/a.py", RECIPE)
    write("recipes/helper.py", "def other(): ...\n")
    write("recipes/_private.py", RECIPE)
    write("recipes/notes.txt", "x")
    assert [found.name for found in discover.recipes()] == ["a"]


def test_bundled_files_are_found_in_a_checkout_and_in_a_wheel(monkeypatch, tmp_path):
    monkeypatch.undo()
    root = Path(discover.__file__).parents[1]
    assert discover._bundled("targets") in (
        root / "targets",
        root / "edgekd" / "_bundled" / "targets",
    )
    monkeypatch.setattr(discover, "_PACKAGE", tmp_path)
    (tmp_path / "_bundled" / "targets").mkdir(parents=True)
    assert discover._bundled("targets") == tmp_path / "_bundled" / "targets"


def test_entry_points_are_located_without_importing(monkeypatch, tmp_path):
    monkeypatch.undo()
    write(str(tmp_path / "ekd_plugin" / "__init__.py"), "raise RuntimeError('imported')\n")
    write(str(tmp_path / "ekd_plugin" / "targets" / "t.yaml"), TARGET.format("t"))
    write(str(tmp_path / "ekd_plugin" / "one.py"), RECIPE)
    write(str(tmp_path / "ekd_single.py"), RECIPE)
    monkeypatch.syspath_prepend(str(tmp_path))
    points = [
        EntryPoint("a", "ekd_plugin.targets", "g"),
        EntryPoint("b", "ekd_plugin.one", "g"),
        EntryPoint("c", "ekd_single", "g"),
        EntryPoint("d", "ekd_absent.x", "g"),
        EntryPoint("e", "ekd_plugin.absent", "g"),
    ]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)
    assert list(discover._entry_points("recipes")) == [
        ("a", tmp_path / "ekd_plugin" / "targets"),
        ("b", tmp_path / "ekd_plugin" / "one.py"),
        ("c", tmp_path / "ekd_single.py"),
    ]
    assert "ekd_plugin" not in sys.modules


# --- reading -----------------------------------------------------------------------------------


def test_listing_executes_nothing_and_shows_faults():
    write("recipes/a.py", RECIPE)
    write("recipes/bomb.py", "raise SystemExit\n\ndef recipe():\n    'Never executed.'\n")
    write("recipes/broken.py", "def recipe(:\n")
    write("recipes/null.py", "\0")
    listed = {found.name: (found.title, found.fault) for found in discover.recipes()}
    assert listed.pop("null")[1]
    assert listed == {
        "a": ("A recipe for tests.", ""),
        "bomb": ("Never executed.", ""),
        "broken": ("", "line 1: invalid syntax"),
    }


def test_listing_targets_reads_titles_and_faults():
    write("targets/a.yaml", TARGET.format("a"))
    write("targets/b.yml", "[")
    write("targets/c.yaml", "- x\n")
    listed = discover.targets()
    assert [found.name for found in listed] == ["a", "b", "c"]
    assert listed[0].title == "Target a"
    assert "expected" in listed[1].fault
    assert listed[2].fault == "not a mapping of keys to values"


def test_a_description_comes_from_signature_and_docstring():
    write("recipes/a.py", RECIPE)
    described = discover.describe_recipe("a")
    assert described.title == "A recipe for tests."
    assert described.doc == "A recipe for tests.\n\nIt has a second paragraph."
    assert described.data == "Pictures in folders.\n    From anywhere."
    assert [(s.name, s.type, s.default, s.doc) for s in described.settings] == [
        ("size", "Literal['xxs', 'xs']", "'xxs'", "Size of the student."),
        ("epochs", "int", "3", "How long."),
        ("data", "Path | None", "None", ""),
        ("widths", "tuple[int, ...]", "(1, 2)", ""),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def recipe(:\n", "not Python"),
        ("x = 1\n", r"no function recipe"),
        ("\0", "not Python|cannot read"),
    ],
)
def test_what_cannot_be_described_says_why(text, message):
    write("recipes/a.py", text)
    with pytest.raises(RecipeError, match=message):
        discover.describe_recipe("recipes/a.py")


# --- loading -----------------------------------------------------------------------------------


def test_loading_binds_settings_and_records_them(tmp_path):
    write("recipes/a.py", RECIPE)
    loaded = discover.load_recipe("a", {"epochs": "5", "data": "d", "widths": "3"})
    assert loaded.train.epochs == 5
    assert loaded.file == str(tmp_path / "recipes" / "a.py")
    assert loaded.settings == {"size": "xxs", "epochs": 5, "data": "d", "widths": [3]}


def test_an_edited_file_is_executed_again():
    write("recipes/a.py", RECIPE)
    assert discover.load_recipe("a").name == "a"
    write("recipes/a.py", RECIPE.replace('name="a"', 'name="edited"'))
    assert discover.load_recipe("a").name == "edited"


def test_a_module_beside_the_recipe_can_be_imported():
    write("recipes/beside_it_x.py", "NAME = 'from beside'\n")
    write("recipes/a.py", "from beside_it_x import NAME\n" + RECIPE.replace('"a"', "NAME"))
    assert discover.load_recipe("a").name == "from beside"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        pytest.param("def recipe(:\n", RecipeError, id="syntax"),
        pytest.param("x = 1\n", RecipeError, id="no function"),
        pytest.param(body('return {}["absent"]'), RecipeError, id="exception"),
        pytest.param(body("return 3"), RecipeError, id="wrong type"),
        pytest.param(body("import edgekd_absent"), SetupError, id="module"),
        pytest.param("import torch_absent\n" + body("..."), SetupError, id="module at import"),
        pytest.param(
            "from edgekd.errors import RecipeError\n" + body("raise RecipeError('own words')"),
            RecipeError,
            id="own error",
        ),
        pytest.param(body("assert not x"), RecipeError, id="no message"),
    ],
)
def test_an_error_in_the_file_names_its_line(text, error, snapshot):
    write("recipes/a.py", text)
    with pytest.raises(error) as caught:
        discover.load_recipe("recipes/a.py")
    assert str(caught.value) == snapshot


def test_wrong_settings_are_found_before_the_function_runs():
    write("recipes/a.py", body("raise SystemExit"))
    with pytest.raises(RecipeError, match="did you mean 'x'"):
        discover.load_recipe("a", {"xx": "1"})


def test_the_extra_of_a_missing_module_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jsbsim", None)
    write("recipes/a.py", body("import jsbsim"))
    with pytest.raises(SetupError) as caught:
        discover.load_recipe("a")
    assert caught.value.hint == "pip install 'edgekd[flight]'"


def test_loading_a_target_validates_it():
    write("targets/a.yaml", TARGET.format("a"))
    assert discover.load_target("a").title == "Target a"
    write("targets/b.yaml", "name: b\n")
    with pytest.raises(TargetError, match="required, but absent"):
        discover.load_target("b")
