"""What is committed must not tell where it was made."""

import re
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[2] / "benchmarks/results"
ABSOLUTE = re.compile(r"(?<![\w.:/])/[A-Za-z0-9_.-]+/[A-Za-z0-9_./-]+")


@pytest.mark.parametrize("path", sorted(RESULTS.iterdir()), ids=lambda path: path.name)
def test_results_hold_no_path_of_the_machine_that_made_them(path):
    assert ABSOLUTE.findall(path.read_text(encoding="utf-8")) == []


def test_the_pattern_sees_a_path():
    assert ABSOLUTE.findall('{"bundle": "net (/srv/bench/suite-1)"}') == ["/srv/bench/suite-1"]
