"""From the command to one bundle of both stages, in its smallest form."""

import json
import re
import shutil
import subprocess
import sys

import pytest

pytest.importorskip("torch")

from tests.project import edgekd

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]
ASK = ("--recipe", "liteinception", "--target", "cpu-ort", "--set", "preset=smoke")


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flights")
    edgekd(folder, "compress", *ASK, "--out", "out")
    return folder


def test_both_stages_and_what_they_decide_are_proven(room):
    said = edgekd(room, "verify", "out")
    assert "golden outputs of stage2" in said and "decisions together" in said
    joint = json.loads((room / "out/manifest.json").read_text())["joint"]
    shipped = joint["cost"]["shipped"]
    first, second = shipped["stage_ms"]
    share = joint["share"]["shipped"]["value"]
    assert shipped["mean_ms"] == pytest.approx(first + share * second)
    assert shipped["mean_ms"] < joint["cost"]["teacher"]["mean_ms"]
    assert joint["agreement"]["fp32"]["same decision"] == 1.0
    assert "passed" in edgekd(room, "verify", "out/stage2")


def test_a_model_of_either_stage_that_was_touched_is_named(room):
    for name in ("model", "stage2/model"):
        copy = shutil.copytree(room / "out", room / "copy")
        model = next((copy / name).iterdir())
        model.write_bytes(model.read_bytes()[:-1] + b"?")
        assert f"{name}/{model.name}" in edgekd(room, "verify", copy, code=5)
        shutil.rmtree(copy)


def test_the_readme_of_the_bundle_runs_both_networks(room):
    page = (room / "out/README.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL).group(1)
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=room / "out", capture_output=True, text=True, check=True
    )
    named = ran.stdout.splitlines()[-1]
    assert named.startswith("[") and "healthy" in named


def test_a_second_run_finds_everything(room):
    assert ", 0 to run" not in edgekd(room, "plan", *ASK, "--set", "seed=1")
    assert re.search(r"(\d+) steps: \1 cached, 0 to run", edgekd(room, "plan", *ASK))
    files = {path: path.stat().st_mtime_ns for path in (room / "out").rglob("*.*")}
    edgekd(room, "compress", *ASK, "--out", "out")
    assert {path: path.stat().st_mtime_ns for path in (room / "out").rglob("*.*")} == files
