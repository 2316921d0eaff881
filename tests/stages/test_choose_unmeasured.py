"""The choice where no device could be measured."""

import json

import pytest

from edgekd.errors import BudgetError
from edgekd.events import silent
from edgekd.stages.choose import choose, rank, rank_unmeasured

METRIC = {"primary": "acc", "higher_is_better": True}


def step(folder, facts, name="x"):
    folder.mkdir(parents=True)
    (folder / "facts.json").write_text(json.dumps(facts))
    (folder / name).write_text(name)
    return folder


@pytest.fixture
def inputs(tmp_path):
    """Three candidates without a latency, and the student; int8 is the smallest."""
    rows = {
        "a-fp32": ("fp32", 0.80, 400),
        "b-fp16": ("fp16", 0.80, 200),
        "c-int8": ("int8", 0.797, 100),
    }
    found = {}
    for name, (precision, value, size) in rows.items():
        built = {"precision": precision, "runtime": "far", "bytes": size}
        val = METRIC | {"metrics": {"acc": {"value": value}}}
        found[f"build:{name}"] = step(tmp_path / name / "build", built)
        found[f"parity:{name}"] = step(
            tmp_path / name / "parity", {"min_cosine": 1.0, "sqnr_db": 99.0, "status": "passed"}
        )
        found[f"val:{name}"] = step(tmp_path / name / "val", val)
    val = METRIC | {"metrics": {"acc": {"value": 0.80}}}
    return found | {"student": step(tmp_path / "student", {"val": val})}


def spec(order, drop=0.01, pick=None):
    names = ["a-fp32", "b-fp16", "c-int8"]
    return {"candidates": names, "metric_drop": drop, "pick": pick, "unmeasured": order}


@pytest.mark.parametrize(
    ("order", "picked"),
    [(["fp16", "int8", "fp32"], "b-fp16"), (["int8", "fp16", "fp32"], "c-int8"), ([], "c-int8")],
)
def test_the_targets_order_decides(inputs, tmp_path, order, picked):
    facts = choose(spec(order), inputs, tmp_path / "out", silent)
    assert facts["picked"] == picked
    assert facts["unmeasured"] is True
    assert facts["rule"].startswith("unmeasured: no device")
    assert [row["cpu_ms"] for row in facts["ranking"]] == [None] * 3
    assert (tmp_path / "out" / "shipped" / "x").is_file()


def test_the_task_metric_decides_first(inputs, tmp_path):
    facts = choose(spec(["int8", "fp16"], drop=0.001), inputs, tmp_path / "out", silent)
    assert facts["picked"] == "b-fp16"
    assert "task metric" in facts["rejected"][0]["why"]
    for name in ("a-fp32", "b-fp16", "c-int8"):
        val = json.loads((inputs[f"val:{name}"] / "facts.json").read_text())
        val["metrics"]["acc"]["value"] = 0.1
        (inputs[f"val:{name}"] / "facts.json").write_text(json.dumps(val))
    with pytest.raises(BudgetError, match="no candidate keeps"):
        choose(spec(["int8"]), inputs, tmp_path / "other", silent)


@pytest.mark.parametrize("wanted", ["smallest", "most-accurate", "a-fp32"])
def test_a_pick_needs_no_latency(inputs, tmp_path, wanted):
    facts = choose(spec(["fp16"], pick=wanted), inputs, tmp_path / "out", silent)
    expected = {"smallest": ["c-int8"], "most-accurate": ["a-fp32", "b-fp16"], "a-fp32": ["a-fp32"]}
    assert facts["picked"] in expected[wanted]


def test_equal_precisions_go_to_the_smaller_file():
    rows = [
        {"precision": "int8", "bytes": size, "candidate": n}
        for n, size in (("b", 2), ("c", 1), ("a", 2))
    ]
    assert [row["candidate"] for row in rank_unmeasured(rows, ["int8"])] == ["c", "a", "b"]


def test_where_the_processor_only_waits_wall_time_counts():
    rows = [
        {"candidate": name, "cpu_ms": cpu, "wall_ms": wall, "bytes": 1}
        for name, cpu, wall in (("a", 1.0, 9.0), ("b", 9.0, 1.0))
    ]
    assert [row["candidate"] for row in rank(rows)] == ["a", "b"]
    assert [row["candidate"] for row in rank(rows, "wall_ms")] == ["b", "a"]
