"""Everything that was explored: what holds, what nothing beats, and why the rest was not taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["explored"]

TIE = 0.03
"""Times within 3 % are equal."""

Row = Mapping[str, Any]


def explored(choice: Row) -> list[dict[str, Any]]:
    """Return one row a candidate, as a choice left it: the picked one first, then by outcome.

    Args:
        choice: Facts of the stage ``choose``.

    Returns:
        Rows of ``candidate``, ``runtime``, ``precision``, ``outcome`` (``picked``, ``not taken``:
        it holds and another was better; ``rejected``: it was run and breaks a limit; ``left
        out``: a hint of its speed already showed it to lose, so it was not scored; ``failed``: it
        could not be built or run), ``on_frontier`` (it holds, and no other that does is as fast,
        as accurate and as small), ``time_ms`` and ``timed`` (``measured``, ``hint``, or empty),
        ``metric``, ``loss``, ``bytes``, ``sqnr_db``, ``why``.
    """
    by = choice.get("by", "cpu_ms")
    held = [_row(row, by, "not taken") for row in choice["ranking"]]
    best = next((row for row in held if row["candidate"] == choice["picked"]), None)
    for row in held:
        row["on_frontier"] = not any(_dominates(other, row) for other in held)
        if row["candidate"] == choice["picked"]:
            row["outcome"] = "picked"
        elif best is not None:
            row["why"] = _not_taken(row, best, choice["rule"])
    rest = [_row(row, by, _outcome(row)) for row in choice["rejected"]]
    order = ("picked", "not taken", "rejected", "left out", "failed")
    return sorted([*held, *rest], key=lambda row: order.index(row["outcome"]))


def _row(row: Row, by: str, outcome: str) -> dict[str, Any]:
    measured, hint = row.get(by), row.get("quick_ms")
    timed = "measured" if measured is not None else "hint" if hint is not None else ""
    kept = ("metric", "loss", "bytes", "sqnr_db")
    return {
        "candidate": row["candidate"],
        "runtime": row["runtime"],
        "precision": row["precision"],
        "outcome": outcome,
        "on_frontier": False,
        "time_ms": measured if measured is not None else hint,
        "timed": timed,
        **{name: row.get(name) for name in kept},
        "why": row.get("why") or "",
    }


def _outcome(row: Row) -> str:
    if row["why"].startswith("proxy: "):
        return "left out"
    return "failed" if row.get("bytes") is None else "rejected"


def _dominates(one: Row, other: Row) -> bool:
    """Tell whether one is nowhere worse and somewhere better; None counts as equal."""
    pairs = [(one[name] or 0.0, other[name] or 0.0) for name in ("time_ms", "loss", "bytes")]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _not_taken(row: Row, picked: Row, rule: str) -> str:
    if rule.startswith("--pick"):
        return f"asked for was another: {rule}"
    if not row["time_ms"] or not picked["time_ms"]:
        return f"{picked['candidate']} comes first by the target's order or its size"
    ratio = row["time_ms"] / picked["time_ms"]
    if ratio > 1 + TIE:
        return f"slower: {ratio:.3g} × {picked['candidate']}"
    return f"as fast as {picked['candidate']} within {100 * TIE:g} %, not smaller"
