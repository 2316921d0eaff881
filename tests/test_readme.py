import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import seeds
from edgekd.table import markdown

ROOT = Path(__file__).parents[1]


def test_tables_are_those_of_the_committed_results():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"<!-- table: (\S+) -->\n(.*?)\n<!-- end -->", text, re.DOTALL)
    assert found
    for name, table in found:
        results = json.loads((ROOT / name).read_text(encoding="utf-8"))
        assert table.strip() == markdown(results).strip()


def test_seeds_are_those_of_the_committed_results():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"<!-- seeds: (\S+) -->\n(.*?)\n<!-- end -->", text, re.DOTALL)
    assert found
    for name, table in found:
        results = json.loads((ROOT / name).read_text(encoding="utf-8"))
        assert table.strip() == seeds.text(results).strip()


def test_the_printed_output_agrees_with_the_results():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    results = json.loads((ROOT / "benchmarks/results/mobilevit-cpu.json").read_text("utf-8"))
    row = next(row for row in results["rows"] if row["shipped"])
    found = row["metrics"][row["primary"]]
    wall = row["latency"]["wall_ms"]
    assert (
        f"{found['value']:.4g}  [{found['low']:.4g}, {found['high']:.4g}]  n={found['n']}" in text
    )
    assert f"p50 {wall['p50']:.3g} ms, p99 {wall['p99']:.3g} ms" in text
    shown = text.split("```")
    printed = " ".join(next(part for part in shown if "mobilevit-cpu: " in part).split())
    assert all(" ".join(claim.split()) in printed for claim in results["claims"])


BOARD = "needs a board"
SELF = "is what runs these tests"
CORES = "tests/firmware/test_to_the_core.py runs it"
SLOW = "slow: "
FIRST = ".venv/bin/edgekd compress --recipe mobilevit --target cpu"
# command of the README → what the quick run executes in its place ("" for the command itself,
# after the bundle of the first one is there), or why it cannot be run here
COMMANDS = {
    "edgekd compress --recipe mobilevit --target cpu": "{} --set preset=smoke",
    "edgekd verify out/mobilevit-cpu": "",
    "edgekd verify --hashes-only out/mobilevit-cpu": "",
    "edgekd verify --task out/mobilevit-cpu": "",
    "edgekd enroll out/mobilevit-cpu PICTURES --out enrolled": "",
    "edgekd quantize net.py:build --data samples.npz --target cpu --out quantised": "",
    "edgekd export net.py:build --data samples.npz --out model.onnx": "",
    "edgekd sensitivity net.py:build --data samples.npz --out sensitivity.html": "",
    "edgekd methods": "",
    "edgekd methods dkd": "",
    "edgekd methods --papers": "",
    "edgekd compress --recipe mobilevit --target jetson --allow-unbuilt": "{} --set preset=smoke",
    "edgekd compress --recipe mobilevit --target jetson --on ssh:orin": BOARD,
    "edgekd doctor --target jetson --on ssh:orin": BOARD,
    "edgekd verify out/mobilevit-jetson --on ssh:orin": BOARD,
    "edgekd profile out/mobilevit-jetson --on ssh:orin --layers": BOARD,
    "edgekd setup litert": CORES,
    "edgekd compress --recipe decision_transformer --target mcu-m4 --target mcu-m33": CORES,
    "edgekd compress --recipe liteinception --target cpu": SLOW + "{} --set preset=smoke",
    "python -m benchmarks.explain out/liteinception-cpu/stage2": SLOW,
    "bash .ci/run": SELF,
}


def readme_commands():
    """Every command that the README shows, without its comment."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    blocks += re.findall(r"^    ((?:edgekd|python|bash) .*)$", text, re.MULTILINE)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def test_every_command_is_known_here():
    given = [line for line in readme_commands() if not line.endswith(FIRST)]
    assert dict.fromkeys(given) == dict.fromkeys(c for c in COMMANDS if c in given)
    assert sum(line.endswith(FIRST) for line in readme_commands()) == 1


def _run(command, instead, folder):
    environment = {**os.environ, "EDGEKD_STORE": str(folder / "store"), "PYTHONPATH": str(ROOT)}
    words = shlex.split(instead.format(command) or command)
    program = {"edgekd": ["-m", "edgekd"], "python": []}[words[0]]
    done = subprocess.run(
        [sys.executable, *program, *words[1:]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


def _pictures(folder):
    """A few icons as a user's own pictures, a folder a class."""
    from PIL import Image

    from edgekd.data.icons import icons

    test = icons(size=64).test
    for label in range(3):
        place = folder / "PICTURES" / test.classes[label]
        place.mkdir(parents=True)
        for number in (test.labels == label).nonzero()[0][:4]:
            Image.fromarray(test[int(number)][0]).save(place / f"{number}.png")


NETWORK = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 49, 4))
"""


@pytest.mark.system
@pytest.mark.timeout(1200)
def test_its_commands_run(tmp_path):
    _pictures(tmp_path)
    (tmp_path / "net.py").write_text(NETWORK)
    samples = np.random.default_rng(0).normal(size=(32, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", input=samples)
    for command, instead in COMMANDS.items():
        if instead not in (BOARD, SELF, CORES) and not instead.startswith(SLOW):
            _run(command, instead, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_its_longer_commands_run(tmp_path):
    for command, instead in COMMANDS.items():
        if instead.startswith(SLOW):
            _run(command, instead.removeprefix(SLOW), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_first_command_works_in_a_fresh_environment(tmp_path):
    """Word for word, in a clone, with the full preset: about 20 minutes; installs packages."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(tmp_path / "clone")], check=True)
    (command,) = [line for line in readme_commands() if line.endswith(FIRST)]
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["EDGEKD_STORE"] = str(tmp_path / "store")
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path / "clone",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "prove it again: edgekd verify out/mobilevit-cpu" in done.stdout
