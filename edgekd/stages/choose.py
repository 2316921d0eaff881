"""Choose what ships: the fastest artefact that keeps the task metric on validation data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekd.errors import BudgetError, UsageError
from edgekd.events import Emit
from edgekd.verdict import beyond, loss_of, verdict

TIE = 0.03
"""Candidates within 3 % of the fastest tie; the smaller file wins, then the name."""
REDUCED = ("bf16", "fp16", "int8", "int16x8")


def choose(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, emit: Emit
) -> dict[str, Any]:
    """Rank the candidates and copy the best of each class.

    Args:
        spec: ``candidates`` (ids), ``failed`` (rows of those that could not be built or run
            or that the shortlist left out), ``metric_drop``, ``budget`` (``size_mib``,
            ``peak_memory_mib``), ``pick``; ``unmeasured``: where no device
            could be measured, the target's precisions in its order of preference.
        inputs: Per candidate ``build:ID``, ``parity:ID``, ``val:ID``, ``profile:ID`` (but for a
            choice without measurement), ``check:ID`` where the backend has one; ``student``.
        out: Gets the folders ``shipped``, ``fp32`` and, where one exists, ``reduced``.
        emit: Progress.

    Returns:
        ``picked``, ``fp32``, ``reduced``, ``ranking``, ``rejected``, ``by``, ``rule``,
        ``unmeasured``, ``metric``, ``limit``.

    Raises:
        BudgetError: No candidate passes.
        UsageError: ``pick`` names no candidate.
    """
    goal = facts(inputs["student"])["val"]
    limits = (goal, spec["metric_drop"], spec.get("budget", {}))
    rows = [_row(identity, inputs, *limits) for identity in spec["candidates"]]
    fit = [row for row in rows if not row["why"]]
    if not fit:
        reasons = "; ".join(f"{row['candidate']}: {row['why']}" for row in rows)
        raise BudgetError(f"no candidate keeps parity and the task metric: {reasons}")
    order = spec.get("unmeasured")
    by = spec.get("by", "cpu_ms")
    ranking = rank(fit, by) if order is None else rank_unmeasured(fit, order)
    picked = pick(ranking, spec["pick"])
    best = {
        "shipped": picked,
        "fp32": next((r for r in ranking if r["precision"] == "fp32"), None),
        "reduced": next((r for r in ranking if r["precision"] in REDUCED), None)
        or next((r for r in rows if r["precision"] in REDUCED and r["status"] == "passed"), None),
    }
    for role, row in best.items():
        if row is not None:
            shutil.copytree(inputs[f"build:{row['candidate']}"], out / role)
    return {
        "picked": picked["candidate"],
        "fp32": best["fp32"] and best["fp32"]["candidate"],
        "reduced": best["reduced"] and best["reduced"]["candidate"],
        "ranking": ranking,
        "rejected": [*(row for row in rows if row["why"]), *spec.get("failed", ())],
        "by": by,
        "rule": _rule(spec["pick"], order, by),
        "unmeasured": order is not None,
        "metric": goal["primary"],
        "limit": spec["metric_drop"],
    }


def facts(folder: Path) -> dict[str, Any]:
    """Facts of an earlier step."""
    value: dict[str, Any] = json.loads((folder / "facts.json").read_text())
    return value


def _row(
    identity: str,
    inputs: Mapping[str, Path],
    goal: Mapping[str, Any],
    drop: float,
    budget: Mapping[str, float],
) -> dict[str, Any]:
    built = facts(inputs[f"build:{identity}"])
    parity, val = facts(inputs[f"parity:{identity}"]), facts(inputs[f"val:{identity}"])
    timed = inputs.get(f"profile:{identity}")
    latency = facts(timed)["latency"] if timed else None
    value = val["metrics"][val["primary"]]["value"]
    checked = inputs.get(f"check:{identity}")
    refused = facts(checked)["why"] if checked else []
    return {
        "candidate": identity,
        "precision": built["precision"],
        "runtime": built["runtime"],
        "metric": value,
        "loss": loss_of(val, goal),
        "cpu_ms": latency and latency["cpu_ms"]["p50"],
        "wall_ms": latency and latency["wall_ms"]["p50"],
        "bytes": built["bytes"],
        "min_cosine": parity["min_cosine"],
        "sqnr_db": parity["sqnr_db"],
        "status": parity["status"],
        "why": "; ".join(refused)
        or beyond(parity)
        or verdict(built["bytes"], val, latency, goal, drop, budget),
    }


def rank(rows: Sequence[dict[str, Any]], by: str = "cpu_ms") -> list[dict[str, Any]]:
    """Fastest first; within 3 % of the fastest, the smaller file first.

    Args:
        rows: Candidates.
        by: ``cpu_ms``, or ``wall_ms`` where the processor only waits for an accelerator.
    """
    left, ranking = sorted(rows, key=lambda r: (r[by], r["candidate"])), []
    while left:
        limit = left[0][by] * (1 + TIE)
        tied = [row for row in left if row[by] <= limit]
        best = min(tied, key=lambda r: (r["bytes"], r["candidate"]))
        ranking.append(best)
        left.remove(best)
    return ranking


def rank_unmeasured(rows: Sequence[dict[str, Any]], order: Sequence[str]) -> list[dict[str, Any]]:
    """By the target's order of precisions, then the smaller file: no device told the speed."""
    place = {precision: index for index, precision in enumerate(order)}
    return sorted(
        rows, key=lambda r: (place.get(r["precision"], len(place)), r["bytes"], r["candidate"])
    )


def pick(ranking: Sequence[dict[str, Any]], wanted: str | int | None) -> dict[str, Any]:
    """Apply ``--pick``.

    Raises:
        UsageError: The index is past the end, or the name is not a candidate that passed.
    """
    if wanted in (None, "fastest"):
        return ranking[0]
    if wanted == "smallest":
        return min(ranking, key=lambda r: (r["bytes"], r["candidate"]))
    if wanted == "most-accurate":
        return min(ranking, key=lambda r: (r["loss"], r["cpu_ms"] or 0.0))
    named = {row["candidate"]: row for row in ranking}
    if isinstance(wanted, str) and wanted in named:
        return named[wanted]
    if isinstance(wanted, int) and wanted < len(ranking):
        return ranking[wanted]
    raise UsageError(
        f"--pick {wanted}: {len(ranking)} candidates passed",
        hint="0 … " + ", ".join(f"{i} {row['candidate']}" for i, row in enumerate(ranking)),
    )


def _rule(wanted: str | int | None, order: Sequence[str] | None, by: str) -> str:
    if wanted in (None, "fastest"):
        if order is not None:
            return (
                f"unmeasured: no device; by the target's order of precisions ({', '.join(order)}),"
                " then the smaller file, among those that keep the task metric on this host"
            )
        time = "processor time" if by == "cpu_ms" else "wall time"
        return f"least {time} among those within the limits; ties (3 %) to the smaller file"
    return f"--pick {wanted}"
