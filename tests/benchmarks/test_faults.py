"""Planted faults: a few in CI, all of them in the slow suite; each named at its own stage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("torch")
from benchmarks import faults
from edgekd.discover import load_target
from edgekd.verify import FILES, GOLDEN, MANIFEST, RUNS, TASK, verify

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "faults.json"
FEW = (
    "flipped bit",
    "wrong opset",
    "silent bfloat16 weights",
    "edited metric, differences alike",
    "loosened tolerance over a wrong scale",
    "int8 zero point shifted by one",
    "float network called int8, golden made again",
)


def test_the_suite_is_what_it_promises():
    names = [fault.name for fault in faults.FAULTS]
    assert len(names) == len(set(names)) >= 30
    assert {fault.stage for fault in faults.FAULTS} == {FILES, MANIFEST, RUNS, GOLDEN, TASK}
    assert set(FEW) <= set(names)
    assert sum(fault.sealed for fault in faults.FAULTS) >= 30, "most are not found by checksums"


@pytest.mark.parametrize("name", ["cpu", "cpu-ort"])
def test_the_limit_of_the_metric_is_the_suite_s_own(name, tmp_path):
    """The stricter limit holds, a recipe's or its target's."""
    found = load_target(faults._lenient(name, tmp_path))
    assert found.limits.metric_drop == faults.MAY_LOSE
    known = load_target(name)
    assert found.model_copy(update={"limits": known.limits}) == known


def test_the_committed_result_is_of_this_suite():
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    assert [row["fault"] for row in result["rows"]] == [f.name for f in faults.FAULTS]
    assert [row["expected"] for row in result["rows"]] == [f.stage for f in faults.FAULTS]
    assert result["caught_at_the_right_stage"] == result["faults"] == len(faults.FAULTS)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    counts = {"train": 24, "val": 12, "test": 24}
    work = tmp_path_factory.mktemp("faults")
    return faults.bundles(work, (faults.FP32, faults.INT8), counts, epochs=3)


@pytest.mark.system
@pytest.mark.timeout(600)
def test_a_few_are_named_at_their_stage(made):
    for path in made.values():
        assert verify(path, task=True)["status"] == "passed"
    rows = faults.run([f for f in faults.FAULTS if f.name in FEW], made)
    assert len(rows) == len(FEW)
    assert {row["fault"]: row["named"] for row in rows} == {
        row["fault"]: row["expected"] for row in rows
    }


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_are_named_at_their_stage(tmp_path_factory):
    pytest.importorskip("nncf")
    made = faults.bundles(tmp_path_factory.mktemp("all"))
    rows = faults.run(faults.FAULTS, made)
    assert [row["fault"] for row in rows if not row["caught"]] == []
