"""What was explored: outcomes, the frontier in three dimensions, reasons."""

from __future__ import annotations

import json

import pytest

from edgekd.frontier import explored


def row(name, time, loss, size, why=""):
    return {
        "candidate": name,
        "runtime": "openvino",
        "precision": "int8",
        "cpu_ms": time,
        "wall_ms": None if time is None else 2 * time,
        "metric": 0.8 * (1 - loss),
        "loss": loss,
        "bytes": size,
        "sqnr_db": 30.0,
        "why": why,
    }


HELD = [
    row("fast", 1.0, 0.004, 900),
    row("tied", 1.02, 0.005, 950),
    row("small", 3.0, 0.0, 500),
    row("float", 4.0, 0.0, 4000),
    row("true", 2.0, -0.001, 4000),
]
REJECTED = [
    row("lossy", 0.5, 0.08, 900, "task metric: lost 8.00 %, limit 1 %"),
    {
        "candidate": "slow",
        "runtime": "onnxruntime",
        "precision": "int8",
        "quick_ms": 9.0,
        "sqnr_db": 20.0,
        "bytes": 1000,
        "why": "proxy: fast is faster (1 against 9 ms), as faithful and no larger",
    },
    {
        "candidate": "wrong",
        "runtime": "openvino",
        "precision": "fp32",
        "quick_ms": 2.0,
        "sqnr_db": 30.0,
        "bytes": 4000,
        "why": "parity: max relative error 0.02",
    },
    {"candidate": "dead", "runtime": "openvino", "precision": "int8", "why": "build: it died"},
]


def choice(**changes):
    return {
        "picked": "fast",
        "ranking": HELD,
        "rejected": REJECTED,
        "rule": "least processor time",
        "by": "cpu_ms",
        **changes,
    }


def by_name(rows):
    return {row["candidate"]: row for row in rows}


def test_outcomes_in_order():
    rows = explored(choice())
    assert [(r["candidate"], r["outcome"]) for r in rows] == [
        ("fast", "picked"),
        ("tied", "not taken"),
        ("small", "not taken"),
        ("float", "not taken"),
        ("true", "not taken"),
        ("lossy", "rejected"),
        ("wrong", "rejected"),
        ("slow", "left out"),
        ("dead", "failed"),
    ]
    json.dumps(rows)


def test_the_frontier_is_what_no_other_that_holds_beats():
    rows = explored(choice())
    assert {r["candidate"] for r in rows if r["on_frontier"]} == {"fast", "small", "true"}


def test_every_row_but_the_picked_says_why():
    rows = by_name(explored(choice()))
    assert rows["fast"]["why"] == ""
    assert rows["float"]["why"] == "slower: 4 × fast"
    assert rows["tied"]["why"] == "as fast as fast within 3 %, not smaller"
    assert all(row["why"] for name, row in rows.items() if name != "fast")
    assert (
        "asked for" in by_name(explored(choice(picked="true", rule="--pick true")))["fast"]["why"]
    )


@pytest.mark.parametrize(("by", "time"), [("cpu_ms", 4.0), ("wall_ms", 8.0)])
def test_times_are_measured_or_hints(by, time):
    rows = by_name(explored(choice(by=by)))
    assert (rows["float"]["time_ms"], rows["float"]["timed"]) == (time, "measured")
    assert (rows["slow"]["time_ms"], rows["slow"]["timed"]) == (9.0, "hint")
    assert (rows["dead"]["time_ms"], rows["dead"]["timed"]) == (None, "")


def test_without_a_device_time_counts_for_nothing():
    held = [row("a", None, 0.0, 500), row("b", None, 0.0, 900)]
    rows = by_name(explored(choice(picked="a", ranking=held, rejected=[])))
    assert rows["a"]["on_frontier"] and not rows["b"]["on_frontier"]
    assert "target's order" in rows["b"]["why"]
