from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekd.discover import load_recipe
from edgekd.errors import RecipeError
from edgekd.spec import Recipe, rebuild
from edgekd.steps import shared

ROOT = Path(__file__).parents[2]


def recipe(**settings) -> Recipe:
    return load_recipe(ROOT / "recipes" / "decision_transformer.py", settings)


def test_the_default_asks_for_what_the_table_promises():
    asked = recipe()
    assert asked.teacher.build.args["width"] == 128 and asked.teacher.build.args["depth"] == 3
    assert asked.student.build.args == {
        "features": 53, "window": 8, "width": 32, "depth": 1, "heads": 2, "hidden": 0, "answers": 8,
    }  # fmt: skip
    assert asked.input.shape == (8, 53)
    assert asked.input.channels == tuple(range(8, 16))
    assert asked.teacher.input.shape == (16, 53) and asked.teacher.input.channels is None
    assert asked.data.args["window"] == 16
    assert [term.tap for term in asked.objective.terms] == ["label", "logits"]


def test_teacher_and_control_are_corrected_while_they_learn_like_the_student():
    """So that student − control is what the teacher's outputs are worth."""
    asked = recipe()
    steps = {step.name: step.spec for step in shared(asked)}
    for name in ("teacher", "control", "distill"):
        assert steps[name]["train"]["rollout"] is not None
    assert steps["control"]["train"] == steps["distill"]["train"]
    assert steps["control"]["network"] == steps["distill"]["network"]
    assert [t["tap"] for t in steps["control"]["objective"]["terms"]] == ["label"]


def test_own_data_is_a_file_of_the_key_and_sizes_its_own_battery(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = recipe(data="mine.csv", prices="smard.csv", student="pi")
    assert asked.files == (str(tmp_path / "mine.csv"), str(tmp_path / "smard.csv"))
    assert asked.data.args["path"] == asked.files[0]
    assert asked.data.args["prices"] == asked.files[1]
    assert asked.data.args["capacity"] == asked.data.args["power"] == 0
    assert asked.input.shape == (16, 53) and asked.input.channels is None
    assert recipe(data="mine.csv", capacity="9").data.args["capacity"] == 9
    assert recipe().files == ()


@pytest.mark.parametrize("objective", ["none", "kd", "kd+label"])
def test_objectives(objective):
    asked = recipe(objective=objective, alpha="0.3", learn="action")
    terms = {t.tap: t.weight for t in asked.objective.terms}
    wanted = {"none": {"label": 1}, "kd": {"logits": 1}, "kd+label": {"label": 0.7, "logits": 0.3}}
    assert terms == pytest.approx(wanted[objective])


def test_wrong_settings_fail_before_any_work():
    with pytest.raises(RecipeError, match="forecast"):
        recipe(forecast="oracle")
    with pytest.raises(RecipeError, match="control learns"):
        recipe(objective="kd", learn="cost")
    with pytest.raises(RecipeError, match="demonstrations hold what was done"):
        recipe(demonstrations="logs", learn="cost")


@pytest.mark.parametrize(
    ("settings", "learn"),
    [
        ({}, "cost"), ({"preset": "paper"}, "cost"), ({"objective": "none"}, "cost"),
        ({"objective": "kd"}, "action"), ({"preset": "smoke"}, "action"),
        ({"demonstrations": "logs"}, "action"), ({"preset": "smoke", "learn": "cost"}, "cost"),
    ],
)  # fmt: skip
def test_what_is_taught(settings, learn):
    asked = recipe(**settings)
    assert asked.data.args["labels"] == learn
    label = [term.divergence for term in asked.objective.terms if term.tap == "label"]
    regret = "edgekd.tasks.battery.regret:regret"
    assert label == ([] if settings.get("objective") == "kd" else
                     [regret if learn == "cost" else "smooth_l1"])  # fmt: skip


def test_demonstrations_are_a_file_of_the_key(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = recipe(demonstrations="logs")
    assert asked.files == (str(tmp_path / "logs"),)
    assert asked.data.args["demonstrations"] == asked.files[0]
    assert "demonstrations" not in recipe().data.args


def test_a_recipe_survives_the_round_trip():
    from edgekd.spec import plain

    asked = recipe(preset="smoke")
    assert plain(rebuild(Recipe, plain(asked))) == plain(asked)


@pytest.mark.system
@pytest.mark.timeout(900)
def test_from_homes_to_a_verified_bundle(tmp_path):
    """The smoke preset, end to end, and the controller of its bundle run from the bundle alone."""

    def run(*command):
        env = {**os.environ, "EDGEKD_STORE": str(tmp_path / "store"), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=800
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    edgekd = (sys.executable, "-m", "edgekd")
    run(
        *edgekd, "compress", "--recipe", "decision_transformer", "--target", "cpu-ort",
        "--set", "preset=smoke", "--out", "b",
    )  # fmt: skip
    run(*edgekd, "verify", "b")
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    rows = {row["id"]: row for row in manifest["rows"]}
    assert rows["reference:optimum"]["kind"] == "bound"
    assert rows["reference:optimum"]["metrics"]["score"]["value"] == pytest.approx(1, abs=1e-3)
    assert rows["reference:mpc-mean7"]["latency"]["cpu_ms"]["p50"] > 0
    shipped = next(row for row in manifest["rows"] if row["shipped"])
    assert shipped["metrics"]["fallbacks"]["value"] == 0
    torch = rows["distill"]["metrics"]["cost"]["value"]
    assert shipped["precision"] != "fp32" or shipped["metrics"]["cost"]["value"] == pytest.approx(
        torch, rel=1e-3
    )
    assert "shipped − self-consumption rule" in manifest["gains"]
    assert (tmp_path / "b" / "licences" / "HOMES_LICENSE.md").is_file()
    code = (tmp_path / "b" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "b" / "run.py").write_text(
        code.replace("import sys;", "import sys; sys.path[1:1] = [];")
    )
    said = subprocess.run(
        [sys.executable, "run.py"], cwd=tmp_path / "b", env={**os.environ, "PYTHONPATH": ""},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    kwh = float(said.stdout.splitlines()[-1].split()[0])
    assert np.isfinite(kwh) and abs(kwh) <= 5
