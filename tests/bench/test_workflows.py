"""The workflows to copy: their YAML, and their steps executed as shell with the real command."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml

from edgekd.bench.gate import gate

ROOT = Path(__file__).parents[2]


def steps(name):
    """Return a workflow's lines of shell and its variables."""
    value = yaml.safe_load((ROOT / "benchmarks" / "ci" / name).read_text())
    if name == "github.yml":
        job = value["jobs"]["gate"]
        return [step["run"] for step in job["steps"] if "run" in step], job["env"]
    job = value["edgekd-gate"]
    return job["script"], job["variables"]


def test_github_has_one_job_a_board():
    value = yaml.safe_load((ROOT / "benchmarks/ci/github.yml").read_text())
    job = value["jobs"]["gate"]
    assert job["runs-on"] == ["self-hosted", "jetson-orin-nano"]
    assert job["concurrency"] == {"group": "board-jetson-orin-nano", "cancel-in-progress": False}
    assert all(("uses" in step) != ("run" in step) for step in job["steps"])


def test_gitlab_takes_a_missing_board_for_a_warning_and_a_regression_for_a_failure():
    job = yaml.safe_load((ROOT / "benchmarks/ci/gitlab.yml").read_text())["edgekd-gate"]
    assert job["resource_group"] == "board-jetson-orin-nano"
    assert job["allow_failure"] == {"exit_codes": [4]}
    assert job["artifacts"]["reports"]["junit"] == "results/junit.xml"


@pytest.mark.parametrize("name", ["github.yml", "gitlab.yml"])
@pytest.mark.parametrize(("factor", "code"), [(1.0, 0), (1.3, 3)])
def test_the_steps_run_as_shell(name, factor, code, bundle, measured, tmp_path):
    """With recorded results in the place of bundles, so that nothing waits for a measurement."""
    place = bundle("b")
    files = []
    for label, times in (("old", 1.0), ("new", factor)):
        measured(times, noise=0.003, wall_noise=0.001)
        files.append(tmp_path / f"{label}.jsonl")
        gate(place, place, out=files[-1])
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "edgekd").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m edgekd "$@"\n')
    (tools / "edgekd").chmod(0o755)
    lines, variables = steps(name)
    asked = {"BASELINE": str(files[0]), "CANDIDATE": str(files[1])}
    asked |= {"OPTIONS": "--allow-recorded"}
    assert set(asked) == set(variables)
    environment = {**os.environ, **asked, "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{tools}{os.pathsep}{os.environ['PATH']}"
    environment["GITHUB_STEP_SUMMARY"] = str(tmp_path / "step.md")
    work = tmp_path / "work"
    work.mkdir()
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", "\n".join(lines)],
        cwd=work, env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert list(ET.parse(work / "results" / "junit.xml").getroot().iter("testcase"))
    assert "edgekd gate" in (tmp_path / "step.md").read_text()
