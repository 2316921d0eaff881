"""The wheel holds what a user needs, and runs without the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:  # the base install supports 3.10, the tests of packaging need 3.11
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {
    "all",
    "dev",
    "efficientnet",
    "ethos",
    "flight",
    "litert",
    "minari",
    "ngafid",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
    "tflite-runtime",
    "train",
}


def test_the_base_install_is_small():
    names = {re.split(r"[><=!]", line)[0] for line in PROJECT["dependencies"]}
    assert names == {"click", "numpy", "pydantic", "PyYAML", "rich"}


def test_the_extras_are_these():
    assert set(PROJECT["optional-dependencies"]) == EXTRAS
    assert PROJECT["optional-dependencies"]["all"] == ["edgekd[train,openvino,litert,flight]"]
    assert "torch==2.13.0" in PROJECT["optional-dependencies"]["train"]


def test_every_extra_that_a_message_names_exists():
    from edgekd.extras import EXTRAS as PACKAGES

    listed = {
        name: {re.split(r"[\[><=!;]", line)[0] for line in lines}
        for name, lines in PROJECT["optional-dependencies"].items()
    }
    for package in PACKAGES:
        assert package.distribution in listed[package.extra]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Build sdist and wheel from a copy of the checkout, without the network."""
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    source = tmp_path_factory.mktemp("source")
    out = tmp_path_factory.mktemp("dist")
    for name in ("edgekd", "recipes", "targets", "benchmarks"):
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source],
        check=True,
        capture_output=True,
    )
    (built,) = out.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_package_recipes_targets_and_data(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert wheel.name == "edgekd-0.1.0-py3-none-any.whl"
    for path in [*(ROOT / "targets").glob("*.yaml"), *(ROOT / "recipes").glob("*.py")]:
        assert f"edgekd/_bundled/{path.parent.name}/{path.name}" in names
    for name in (
        "py.typed",
        "data/icons.npz",
        "data/flight/bases.npz",
        "data/ICONS_LICENSES.md",
        "cli/recipe_template.py",
    ):
        assert f"edgekd/{name}" in names
    code = {f"edgekd/{p.relative_to(ROOT / 'edgekd')}" for p in (ROOT / "edgekd").rglob("*.py")}
    assert code <= names
    strangers = {n for n in names if not n.startswith(("edgekd/", "edgekd-0.1.0.dist-info/"))}
    assert not strangers
    assert "edgekd-0.1.0.dist-info/licenses/LICENSE" in names
    assert wheel.stat().st_size < 20 * 2**20


@pytest.mark.slow
def test_the_wheel_runs_by_itself(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    environment.pop("EDGEKD_PATH", None)

    def output(*arguments: str) -> str:
        command = [sys.executable, "-m", "edgekd", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
        ).stdout

    assert re.search(r"^cpu +edgekd ", output("targets"), re.MULTILINE)
    for recipe in (ROOT / "recipes").glob("[!_]*.py"):
        assert recipe.stem in output("recipes")
    assert str(tmp_path / "site" / "edgekd" / "_bundled") in output("targets", "show", "cpu")
    assert output("recipes", "new", "mine.py").startswith("wrote mine.py")
