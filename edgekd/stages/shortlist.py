"""Leave out what cheap proxies already show to lose, before anything is measured or scored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekd.events import Emit, Event
from edgekd.verdict import beyond

SLOWER = 1.15
"""A proxy of the latency must differ by more than this to count: it is one short process."""
FINALISTS = 5


def shortlist(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, emit: Emit
) -> dict[str, Any]:
    """Keep the candidates that may win.

    Speed is the least time of a few inferences, fidelity the signal to noise of the golden
    outputs; both come from the step ``parity``. At first, those go on that no other beats in
    speed, fidelity and size at once, `FINALISTS` at most; among them are the fastest in float32,
    the smallest, and the most faithful of those faster than float32, so that quick and lossy ones
    cannot take every place. Once some are scored (``verdicts``), rejected ones count for nothing:
    whoever they displaced comes back, unless one that holds is clearly faster.

    Args:
        spec: ``candidates``, ``verdicts`` (scored candidate → why it is rejected, empty when it
            holds), ``by`` (``cpu_ms`` or ``wall_ms``), ``step``.
        inputs: Per candidate ``build:ID``, ``parity:ID``, and ``check:ID`` where there is one.
        out: Gets nothing.
        emit: Progress.

    Returns:
        ``kept`` (ids: what holds, and what is to be scored next), ``dropped`` (rows with ``why``).
    """
    rows = [_row(identity, inputs, spec["by"]) for identity in spec["candidates"]]
    kept, dropped = split(rows, spec["verdicts"])
    emit(Event("note", spec["step"], f"{len(kept)} of {len(rows)} candidates go on"))
    return {"kept": [row["candidate"] for row in kept], "dropped": dropped}


def _row(identity: str, inputs: Mapping[str, Path], by: str) -> dict[str, Any]:
    built = _facts(inputs[f"build:{identity}"])
    parity = _facts(inputs[f"parity:{identity}"])
    checked = inputs.get(f"check:{identity}")
    refused = _facts(checked)["why"] if checked else []
    return {
        "candidate": identity,
        "precision": built["precision"],
        "runtime": built["runtime"],
        "quick_ms": parity["quick"][by],
        "sqnr_db": parity["sqnr_db"],
        "min_cosine": parity["min_cosine"],
        "bytes": built["bytes"],
        "status": parity["status"],
        "why": "; ".join(refused) or beyond(parity),
    }


def _facts(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "facts.json").read_text())
    return value


def split(
    rows: Sequence[dict[str, Any]],
    verdicts: Mapping[str, str] | None = None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Divide rows into those that go on, fastest first, and those that do not, with reasons.

    Rejected ones are in neither.
    """
    said = verdicts or {}
    fit = [r for r in rows if not r["why"] and not said.get(r["candidate"])]
    fit.sort(key=lambda r: (r["quick_ms"], r["candidate"]))
    held = {r["candidate"] for r in fit if r["candidate"] in said}
    certain = held | (set() if said else _certain(fit))
    dropped = [row for row in rows if row["why"]]
    places = FINALISTS - len(certain)
    kept = []
    for row in fit:
        if row["candidate"] in certain:
            kept.append(row)
            continue
        why = _beaten(row, fit, held) or ("" if places > 0 else _late(row))
        if why:
            dropped.append({**row, "why": why})
        else:
            kept.append(row)
            places -= 1
    return kept, dropped


def _certain(fit: Sequence[Mapping[str, Any]]) -> set[str]:
    """The fastest in float32, the smallest, and the most faithful that is faster than float32."""
    floats = [row for row in fit if row["precision"] == "fp32"][:1]
    small = sorted(fit, key=lambda r: (r["bytes"], r["quick_ms"], r["candidate"]))[:1]
    limit = floats[0]["quick_ms"] if floats else float("inf")
    fast = [row for row in fit if row["precision"] != "fp32" and row["quick_ms"] < limit]
    true = sorted(fast, key=lambda r: (-r["sqnr_db"], r["candidate"]))[:1]
    return {row["candidate"] for row in (*floats, *small, *true)}


def _beaten(row: Mapping[str, Any], fit: Sequence[Mapping[str, Any]], held: set[str]) -> str:
    """Say what makes a row pointless: a better one, or a clearly faster one that holds."""
    for other in fit:
        if not _faster(other, row):
            return ""
        if other["candidate"] in held:
            return f"proxy: {other['candidate']}, which holds, is faster ({_times(other, row)})"
        if other["bytes"] <= row["bytes"] * 1.02 and other["sqnr_db"] >= row["sqnr_db"] - 0.5:
            return (
                f"proxy: {other['candidate']} is faster ({_times(other, row)}), as faithful"
                f" ({other['sqnr_db']:.0f} against {row['sqnr_db']:.0f} dB) and no larger"
            )
    return ""


def _faster(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return bool(one["quick_ms"] * SLOWER < other["quick_ms"])


def _times(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    return f"{one['quick_ms']:.3g} against {other['quick_ms']:.3g} ms"


def _late(row: Mapping[str, Any]) -> str:
    return f"proxy: slower ({row['quick_ms']:.3g} ms) than {FINALISTS} finalists"
