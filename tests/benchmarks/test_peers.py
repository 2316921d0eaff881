"""The comparison with peers: what is concluded, and how a tool is found, run and skipped."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("torch")
from benchmarks import peers
from benchmarks.peer_tools import TOOLS, SkippedError, Tool
from edgekd.artefact import Artefact

ROUNDS = 8
RESULTS = sorted((Path(__file__).parents[2] / "benchmarks" / "results").glob("peers*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_the_committed_results_say_of_every_peer_what_became_of_it(path):
    result = json.loads(path.read_text(encoding="utf-8"))
    for found in result["cases"]:
        names = [row["name"] for row in found["rows"]]
        assert set(found["choice"].values()) <= set(names)
        for tool in TOOLS:
            assert any(n.startswith(tool.label) for n in [*names, *found["skipped"]])
            assert result["versions"][tool.label]
        for verdict in found["verdicts"]:
            ratio, most = verdict["ratio"], verdict["at_most"]
            assert verdict["holds"] == (ratio["value"] <= most or ratio["low"] <= most)


def row(name, ms, *, kind="candidate", precision="int8", loss=0.0, folder=None):
    rng = np.random.default_rng(len(name))
    made = peers.Row(name, kind, Artefact(folder, "m.onnx", "onnxruntime", {}, {}, precision))
    logs = list(np.log(ms) + rng.normal(0, 0.002, ROUNDS))
    made.facts = {"cpu_ms": ms, "logs": logs, "loss": loss, "metric": 1 - loss}
    return made


def case(*rows, choice="ours", far=None):
    return peers.Case(
        "case", "accuracy", {r.name: r for r in rows}, {"1 %": choice},
        {"1 %": lambda facts: facts["loss"] <= 0.01}, {}, None, None, {}, None, {}, far or {},
    )  # fmt: skip


def test_a_choice_that_is_the_best_holds_everywhere():
    found = peers.verdicts(
        case(row("ours", 1.0), row("fp32", 1.4, precision="fp32"), row("tool", 1.2, kind="peer"))
    )
    assert [v["against"] for v in found] == ["best of the exhaustive search", "best fp32", "tool"]
    assert all(v["holds"] for v in found)
    assert found[1]["ratio"]["value"] == pytest.approx(1 / 1.4, abs=0.01)


@pytest.mark.parametrize(
    ("other", "against"),
    [
        (row("faster", 0.9), "best of the exhaustive search"),
        (row("fp32", 0.97, precision="fp32"), "best fp32"),
        (row("tool", 0.95, kind="peer"), "tool"),
    ],
)
def test_a_choice_that_is_slower_than_what_keeps_the_metric_is_missed(other, against):
    found = {v["against"]: v["holds"] for v in peers.verdicts(case(row("ours", 1.0), other))}
    assert found[against] is False
    other.facts["loss"] = 0.02
    found = {v["against"]: v["holds"] for v in peers.verdicts(case(row("ours", 1.0), other))}
    assert all(found.values())


def test_how_much_faster_than_a_named_peer():
    tool = row("olive run, folded", 1.4, kind="peer", loss=0.5)
    found = peers.verdicts(case(row("ours", 1.0), tool, far={"olive run": 1.5}))
    assert found[-1]["at_most"] == pytest.approx(1 / 1.5, abs=1e-3) and not found[-1]["holds"]
    tool.facts |= row("olive run, folded", 1.6).facts
    assert peers.verdicts(case(row("ours", 1.0), tool, far={"olive run": 1.5}))[-1]["holds"]


def test_an_environment_with_the_wanted_versions_is_taken_as_it_is(tmp_path):
    tool = Tool("t", "mine", {"numpy[extra]": version("numpy")}, lambda *a: [])
    python = tmp_path / "mine" / "bin" / "python"
    python.parent.mkdir(parents=True)
    assert tool.versions(python) == {}
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    assert tool.python(tmp_path) == python
    assert tool.versions(python) == {"numpy": version("numpy")}


def made(code):
    return lambda python, model, samples, out: [str(python), "-c", code, str(model), str(out)]


def test_what_a_tool_makes_and_why_it_is_skipped(tmp_path):
    model = tmp_path / "m.onnx"
    model.write_bytes(b"network")
    copy = "import shutil, sys; shutil.copy(sys.argv[1], sys.argv[2] + '/q.onnx')"
    fine = Tool("t", "t", {}, made(copy))
    found = fine.quantise(sys.executable, model, model, tmp_path / "a")
    assert found["main"].read_bytes() == b"network" and found["cpu_s"] >= 0
    nothing = Tool("t", "t", {}, made("print('all is well')"))
    with pytest.raises(SkippedError, match="failed: all is well"):
        nothing.quantise(sys.executable, model, model, tmp_path / "b")
    broken = Tool("t", "t", {}, made("raise SystemExit('no such operator')"))
    with pytest.raises(SkippedError, match="no such operator"):
        broken.quantise(sys.executable, model, model, tmp_path / "c")
    assert "no such operator" in (tmp_path / "c" / "log.txt").read_text()


def test_olive_gets_files_of_raw_samples(tmp_path):
    from benchmarks.peer_tools import _olive

    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.savez(tmp_path / "s.npz", input=values)
    (tmp_path / "out").mkdir()
    _olive(tmp_path, tmp_path / "m.onnx", tmp_path / "s.npz", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "run.json").read_text())
    params = config["data_configs"][0]["load_dataset_config"]["params"]
    assert params["input_shapes"] == [[1, 4]]
    files = sorted((tmp_path / "out" / "raw" / "input").iterdir())
    read = [np.fromfile(file, np.float32) for file in files]
    assert np.array_equal(read, values)


def test_smooth_samples_have_the_shape_and_are_no_constant():
    found = peers._smooth((3, 1, 64), 5)
    assert found.shape == (5, 3, 1, 64) and found.dtype == np.float32 and found.std() > 0.1
    step, whole = np.abs(np.diff(found)).mean(), np.abs(found).mean()
    assert step < whole / 2


def test_the_cost_of_the_search_is_held_against_three_plain_routes(tmp_path):
    made = {"NNCF default": 20.0, "ONNX Runtime static default": 5.0, "LiteRT full int8": 5.0}
    rows = [row(name, 1.0, kind="peer") for name in made]
    for one in rows:
        one.cost = {"cpu_s": made[one.name], "wall_s": 0.0}
    other = row("NNCF default, plain", 1.0, kind="peer")
    other.cost = {"cpu_s": 99.0, "wall_s": 0.0}
    found = case(row("ours", 1.0), other, *rows)
    found.search = {"convert_cpu_s": 10.0, "search_cpu_s": 46.0}
    told = peers.cost(found)
    assert (told["ratio"], told["bare"], told["holds"]) == (1.4, 1.533, True)
    del found.rows["LiteRT full int8"]
    assert "not_run" in peers.cost(found)
