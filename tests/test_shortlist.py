"""The shortlist leaves out what loses in everything, and names what beat it."""

from __future__ import annotations

from edgekd.stages.shortlist import FINALISTS, split


def row(name, quick, sqnr, size, precision="int8", why=""):
    return {
        "candidate": name,
        "precision": precision,
        "quick_ms": quick,
        "sqnr_db": sqnr,
        "bytes": size,
        "why": why,
    }


FLOAT = row("float", 2.0, 120.0, 4000, "fp32")


def names(rows):
    return [r["candidate"] for r in rows]


def test_dominated_rows_name_their_better():
    kept, dropped = split([FLOAT, row("good", 1.0, 30.0, 1000), row("bad", 3.0, 25.0, 1200)])
    assert names(kept) == ["good", "float"]
    (lost,) = dropped
    assert "good is faster (1 against 3 ms)" in lost["why"]


def test_a_small_difference_of_a_proxy_decides_nothing():
    kept, dropped = split([FLOAT, row("a", 1.0, 30.0, 1000), row("b", 1.14, 30.0, 1000)])
    assert names(kept) == ["a", "b", "float"] and not dropped


def test_more_faithful_or_smaller_stays():
    rows = [
        FLOAT,
        row("fast", 1.0, 20.0, 1000),
        row("true", 1.9, 40.0, 1000),
        row("tiny", 9.0, 9.0, 500),
    ]
    assert set(names(split(rows)[0])) == {"float", "fast", "true", "tiny"}


def crowd():
    """Twelve int8 rows, the faster the less faithful, and a slow float."""
    rows = [row(f"r{i:02}", 1 + i, 10.0 + i, 1000 - i) for i in range(12)]
    return [*rows, row("float", 11.5, 120.0, 4000, "fp32")]


def test_at_most_so_many_but_float_smallest_and_faithful_always():
    kept, dropped = split(crowd())
    assert len(kept) == FINALISTS
    # r10 is the most faithful of those faster than float, r11 the smallest.
    assert set(names(kept)) == {"float", "r11", "r10", "r00", "r01"}
    assert all("finalists" in r["why"] for r in dropped)
    assert len(kept) + len(dropped) == 13


def test_what_failed_parity_beats_nobody():
    kept, dropped = split([FLOAT, row("wrong", 0.1, 99.0, 1, why="parity: max relative error 2")])
    assert names(kept) == ["float"]
    assert dropped[0]["why"].startswith("parity")


def test_what_only_a_rejected_one_had_beaten_comes_back():
    rows = [FLOAT, row("lossy", 0.5, 30.0, 900), row("next", 1.0, 30.0, 1000)]
    kept, dropped = split(rows)
    assert names(kept) == ["lossy", "float"] and names(dropped) == ["next"]
    kept, dropped = split(rows, {"lossy": "task metric: lost 5 %", "float": ""})
    assert names(kept) == ["next", "float"] and not dropped


def test_the_list_is_walked_down_while_finalists_fail():
    """Every turn brings the next ones, until as many hold as may, or nothing faster is left."""
    rows, verdicts, turns = crowd(), {}, []
    while True:
        fresh = [name for name in names(split(rows, verdicts)[0]) if name not in verdicts]
        if not fresh:
            break
        turns.append(fresh)
        verdicts |= {name: "" if name >= "r06" or name == "float" else "lost" for name in fresh}
    assert turns[0] == ["r00", "r01", "r10", "float", "r11"]
    assert turns[1:] == [["r02", "r03"], ["r04", "r05"], ["r06", "r07"]]


def test_one_that_holds_ends_the_search_for_slower_ones():
    rows = crowd()
    verdicts = {"r00": "", "r10": "", "r11": "", "float": "", "r01": "lost"}
    kept, dropped = split(rows, verdicts)
    assert set(names(kept)) == {"r00", "r10", "r11", "float"}
    assert all("r00, which holds, is faster" in r["why"] for r in dropped)
    assert "r01" not in names(dropped)
