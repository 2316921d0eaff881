"""The table of methods: kd and its control with one seed, and what the table says of its rows."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("sklearn")
from benchmarks import methods
from edgekd.distill.presets import PRESETS


def test_every_preset_has_a_task_that_measures_it():
    measured = {m.partition(",")[0] for task in methods.TASKS.values() for m in task.methods}
    assert measured | {"none"} == set(PRESETS)


@pytest.mark.timeout(600)
def test_kd_gains_on_digit_pairs():
    task = methods.TASKS["pairs"]
    taught = methods._taught(task, 0)
    control, kd = (methods.one("pairs", name, 0, taught)["score"] for name in ("control", "kd"))
    assert control < kd < taught.score
    assert kd - control > 3


def test_a_row_says_helps_only_where_all_seeds_agree():
    scores = {"control": (50, 60), "kd": (55, 61), "dkd": (49, 62), "at": (40, 41)}
    done = {
        ("pairs", name, seed): {"score": found[seed], "params": 7, "cpu_s": 1.0}
        for name, found in scores.items()
        for seed in (0, 1)
    }
    rows = {row["method"]: row for row in methods.summary(done)}
    assert {n: r["verdict"] for n, r in rows.items()} == {
        "control": "", "kd": "helps", "dkd": "unclear", "at": "hurts",
    }  # fmt: skip
    assert rows["kd"]["gain"] == 3
    assert methods._verdict("kd", [3.0]) == "one seed"
    text = methods.markdown(list(rows.values()))
    assert "Not run: task towers." in text
    assert "Not run: reverse-kl" in text
    assert "| kd | 7 | 2 | 58.00 ± 4.24 | +3.00 | +1.00 … +5.00 | helps | 1.0 |" in text


def test_a_run_goes_on_where_it_stopped(tmp_path, capsys, monkeypatch):
    out = tmp_path / "methods.json"
    done = {"task": "heads", "method": "control", "seed": 0, "score": 1.0, "cpu_s": 1, "params": 2}
    out.with_suffix(".jsonl").write_text(json.dumps(done) + "\n")
    monkeypatch.setattr("sys.argv", ["methods.py", "--out", str(out), "--task", "heads",
                                     "--seeds", "0"])  # fmt: skip
    methods.main()
    rows = {row["method"]: row for row in json.loads(out.read_text())["rows"]}
    assert rows["control"]["scores"] == [1.0]
    assert rows["dmc"]["scores"][0] > 50
    assert "heads" in out.with_suffix(".md").read_text()
    capsys.readouterr()
