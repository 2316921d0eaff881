"""A bench run: in turns, written as it happens, stopped anywhere, gone on with."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from edgekd import api
from edgekd.bench import history, run
from edgekd.errors import UsageError
from tests.bench import made


class Stopped(Exception):
    """The power went."""


@pytest.fixture
def board(monkeypatch):
    """A board that measures nothing; `after` processes it loses its power."""
    state = {"made": [], "after": None}

    def rounds(contestants, settings, seed, start=0):
        (contestant,) = contestants
        for number in itertools.count(start):
            if state["after"] is not None and len(state["made"]) >= state["after"]:
                raise Stopped
            state["made"].append((contestant.label, number))
            yield [made.process(contestant.label, number, cpu=1 + number / 100)]

    monkeypatch.setattr(run, "rounds", rounds)
    return state


@pytest.fixture
def job(bundle):
    return run.Job("s", {"a": bundle("a"), "b": bundle("b")}, processes=4)


def test_bundles_take_turns(board, job, tmp_path):
    found = run.bench(job, tmp_path / "r.jsonl")
    assert sorted(board["made"]) == [(x, n) for x in "ab" for n in range(4)]
    turns = [label for label, _ in board["made"]]
    assert all(set(turns[i : i + 2]) == {"a", "b"} for i in range(0, 8, 2))
    assert [row["name"] for row in found["rows"]] == ["a", "b"]
    cpu = found["rows"][0]["metrics"]["cpu_ms"]
    assert cpu["low"] <= cpu["value"] <= cpu["high"]
    assert cpu["n"] == 4
    kinds = [line["kind"] for line in history.read(tmp_path / "r.jsonl")]
    assert kinds == ["run", *["process"] * 8, "summary", "summary", "end"]


@pytest.mark.parametrize("after", range(9))
def test_a_run_that_was_stopped_goes_on_where_it_was(board, job, tmp_path, after):
    out, past = tmp_path / "r.jsonl", tmp_path / "history"
    board["after"] = after
    if after < 8:
        with pytest.raises(Stopped):
            run.bench(job, out, history_folder=past)
        assert not past.exists()
    else:
        run.bench(job, out, history_folder=past)
    board["after"] = None
    found = run.bench(job, out, history_folder=past, resume=True)
    assert found["resumed"] == after
    assert sorted(board["made"]) == [(x, n) for x in "ab" for n in range(4)]
    assert len(history.recall(past)) == 2


def test_any_cut_of_the_file_can_be_gone_on_with(board, job, tmp_path):
    out, past = tmp_path / "r.jsonl", tmp_path / "history"
    run.bench(job, out, history_folder=past)
    whole = out.read_bytes()
    for cut in range(0, len(whole), max(1, len(whole) // 23)):
        out.write_bytes(whole[:cut])
        run.bench(job, out, history_folder=past, resume=True)
        lines = history.read(out)
        assert [line["kind"] for line in lines[-3:]] == ["summary", "summary", "end"]
        assert sum(line["kind"] == "process" for line in lines) == 8
    runs = [row["run"] for row in history.recall(past)]
    assert all(runs.count(one) == 2 for one in runs)


def test_results_are_not_mixed(board, job, bundle, tmp_path):
    out = tmp_path / "r.jsonl"
    run.bench(job, out)
    with pytest.raises(UsageError, match="results in this file already"):
        run.bench(job, out)
    other = run.Job("s", {"a": job.bundles["a"]}, processes=4)
    with pytest.raises(UsageError, match="another job"):
        run.bench(other, out, resume=True)


def test_a_suite_builds_what_it_names_and_measures_all(board, bundle, tmp_path, monkeypatch):
    built = []

    def compress(recipe, target, *, settings, out, **_):
        built.append((recipe, target, settings, out))
        return [type("B", (), {"manifest": {"name": f"{recipe}-{target}"}, "path": bundle(out)})()]

    monkeypatch.setattr(api, "compress", compress)
    bundle("ready")
    file = tmp_path / "suite.yaml"
    file.write_text(
        "name: nightly\nbundles: [ready]\nbuild:\n"
        "  - {recipe: r, targets: [t, u], settings: [{size: 32}, {size: 64}]}\n"
        "measure: {processes: 3}\n"
    )
    found = api.bench(suite=file, out=tmp_path / "out" / "r.jsonl")
    assert [row["name"] for row in found["rows"]] == [
        "mobilevit-cpu", "r-t size=32", "r-u size=32", "r-t size=64", "r-u size=64",
    ]  # fmt: skip
    assert len({out for *_, out in built}) == 4
    assert built[0][2] == {"size": 32}
    assert found["plan"]["processes"] == 3


def test_bundles_or_a_suite(tmp_path, bundle):
    with pytest.raises(UsageError, match="give bundles, or --suite"):
        api.bench(out=tmp_path / "r.jsonl")
    with pytest.raises(UsageError, match="no device is called 'board'"):
        api.bench([bundle("b")], out=tmp_path / "r.jsonl", on="board")
    assert not (tmp_path / "r.jsonl").exists()
    with pytest.raises(UsageError, match="give bundles, or --suite"):
        api.bench([bundle("a")], suite=tmp_path / "s.yaml", out=tmp_path / "r.jsonl")


def test_the_command_writes_all_that_ci_reads(board, bundle, tmp_path, capfd, monkeypatch):
    from edgekd.cli import run as command

    monkeypatch.chdir(tmp_path)
    bundle("a")
    names = ["--github", "s.json", "--github-bigger", "b.json", "--openmetrics", "m.txt"]
    names += ["--history", "h", "--page", "t.html", "--label", "Pi 5"]
    assert command(["bench", "a", "--out", "r.jsonl", "--processes", "3", *names]) == 0
    assert "mobilevit-cpu" in capfd.readouterr().out
    assert len(json.loads(Path("s.json").read_text())) == 5
    assert len(json.loads(Path("b.json").read_text())) == 1
    assert Path("m.txt").read_text().endswith("# EOF\n")
    assert "mobilevit-cpu on pi-5" in Path("t.html").read_text()
    assert Path("h/pi-5/mobilevit-cpu.jsonl").exists()
    assert history.read(Path("h/pi-5/mobilevit-cpu.jsonl"))[0]["path"] == "../a"
    assert command(["bench", "--history", "h", "--page", "again.html"]) == 0
    assert Path("again.html").read_text() == Path("t.html").read_text()
    capfd.readouterr()
    assert command(["bench", "a"]) == 2
    assert "where do the results go?" in capfd.readouterr().err
    assert command(["bench", "--schema"]) == 0
    assert json.loads(capfd.readouterr().out)["properties"]["measure"]


def test_a_profile_tells_cold_from_warm_and_memory_over_the_life_of_a_process(bundle):
    found = api.profile(bundle("a"), runs=40)
    cold, memory = found["cold"], found["rss_mib"]
    assert cold["import_s"] > 0
    assert cold["load_s"] > 0
    assert cold["first_over_warm"] == pytest.approx(cold["first_ms"] / found["p50_ms"])
    assert memory["start"] < memory["loaded"] <= memory["peak"]
    assert memory["end"] <= memory["peak"]
