"""What CI systems read: parsed again, and compared with what it says."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET

import pytest

from edgekd.bench import outputs, record
from edgekd.bench.gate import gate
from edgekd.bundle import open_bundle
from edgekd.errors import SetupError
from tests.bench import made


@pytest.fixture
def outcome(bundle, measured):
    measured(1.06, seed=3)
    return gate(bundle("new"), bundle("old"), seed=0)


@pytest.fixture
def row(bundle):
    with open_bundle(bundle("b")) as opened:
        processes = [pair[1] for pair in made.pairs(11)]
        summary = record.summary(opened, processes, "bench")
    return {"device": 'pi"5\\', "when": "2026-01-01", "git": None, **summary}


def test_junit_counts_and_names_every_check(outcome):
    root = ET.fromstring(outputs.junit(outcome))
    suite = root.find("testsuite")
    cases = suite.findall("testcase")
    assert suite.get("tests") == str(len(cases)) == str(len(outcome["checks"]))
    assert (suite.get("failures"), suite.get("skipped")) == ("1", "1")
    named = {case.get("name"): case for case in cases}
    assert len(named) == len(cases)
    assert "regressed" in named["latency"].find("failure").get("message")
    assert "decided by processor time" in named["latency"].find("failure").text
    assert named["energy"].find("skipped").get("message") == "energy not measured"
    assert float(named["latency"].get("time")) > 0


def test_a_missing_device_is_skipped_and_never_a_pass(outcome):
    for check in outcome["checks"]:
        check.update(verdict="not run: no device", why="cable \x01 <cut> & gone", shift={})
    root = ET.fromstring(outputs.junit(outcome))
    messages = {skipped.get("message") for skipped in root.iter("skipped")}
    assert messages == {"no device (cable ? <cut> & gone)"}
    assert len(list(root.iter("skipped"))) == len(list(root.iter("testcase")))


def test_github_action_benchmark_gets_arrays_of_one_direction(row):
    smaller = json.loads(outputs.benchmark_json([row]))
    bigger = json.loads(outputs.benchmark_json([row], bigger=True))
    assert isinstance(smaller, list)
    assert {entry["unit"] for entry in smaller} == {"ms", "MiB", "bytes"}
    assert [entry["unit"] for entry in bigger] == ["5-way 5-shot"]
    for entry in (*smaller, *bigger):
        assert set(entry) <= {"name", "unit", "value", "range", "extra"}
        assert isinstance(entry["value"], int | float)
        assert isinstance(entry["name"], str)


def test_openmetrics_is_what_the_format_asks(row):
    text = outputs.openmetrics([row])
    lines = text.splitlines()
    assert lines[-1] == "# EOF"
    assert text.endswith("\n")
    sample = re.compile(r'[a-z_]+\{([a-z]+="(\\.|[^"\\])*",?)+\} \S+')
    for line in lines[:-1]:
        assert line.startswith("# TYPE edgekd_") or sample.fullmatch(line), line
    value = row["metrics"]["wall_p50_ms"]["value"]
    wanted = f'target="cpu",device="pi\\"5\\\\",q="p50"}} {value!r}'
    assert any(line.endswith(wanted) for line in lines), text
    types = [line for line in lines if line.startswith("# TYPE")]
    assert len(types) == len(set(types)) == 5


def test_markdown_marks_what_failed_and_says_what_was_measured(outcome):
    outcome["checks"][0]["why"] = "a | b"
    text = outputs.markdown(outcome)
    assert "### edgekd gate: failed: mobilevit-cpu latency" in text
    assert "| mobilevit-cpu | latency | **regressed** |" in text
    assert "rounds of fresh processes side by side" in text
    assert "at most 1 % (Holm over 3 tests)" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") - line.count("\\|") for line in table}) == 1


def test_outputs_are_whole_or_not_there(tmp_path):
    outputs.write(tmp_path / "a" / "b.txt", "one")
    outputs.write(tmp_path / "a" / "b.txt", "two", add=True)
    assert (tmp_path / "a" / "b.txt").read_text() == "onetwo"
    with pytest.raises(SetupError):
        outputs.write(tmp_path / "a" / "b.txt" / "c", "x")
