"""Whether a candidate may ship: parity, the task metric, size and memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["RULES", "beyond", "loss_of", "verdict"]

RULES = ("fastest", "smallest", "most-accurate")
"""Rules by which one of those that hold can be picked."""


def loss_of(val: Mapping[str, Any], goal: Mapping[str, Any]) -> float:
    """Relative loss of the task metric against the student's; negative for a gain."""
    value: float = val["metrics"][val["primary"]]["value"]
    best: float = goal["metrics"][goal["primary"]]["value"]
    sign = 1 if goal["higher_is_better"] else -1
    return sign * (best - value) / max(abs(best), 1e-12)


def beyond(parity: Mapping[str, Any]) -> str:
    """Say why an artefact fails parity; empty when it does not."""
    if parity["status"] == "passed":
        return ""
    return (
        f"parity: max relative error {parity['max_rel']:.2g}, worst cosine"
        f" {parity['min_cosine']:.4f}; limits {parity['tolerance']['max_rel']:g} and"
        f" {parity['tolerance']['min_cosine']:g}"
    )


def verdict(
    size: int,
    val: Mapping[str, Any],
    latency: Mapping[str, Any] | None,
    goal: Mapping[str, Any],
    drop: float,
    budget: Mapping[str, float],
) -> str:
    """Say why a scored candidate is rejected; empty when it holds.

    Args:
        size: Bytes of its files.
        val: Its facts of the step ``val``.
        latency: Its latency; None where it was not measured.
        goal: The student's score.
        drop: Largest relative loss of the metric.
        budget: Limits of ``size_mib`` and ``peak_memory_mib``.
    """
    loss = loss_of(val, goal)
    if loss > drop and goal.get("floor"):
        name = goal["primary"]
        found, least = (one["metrics"][name]["value"] for one in (val, goal))
        return f"fidelity: {name} {found:.1f}, at least {least:g} asked"
    if loss > drop:
        return f"task metric: lost {100 * loss:.2f} %, limit {100 * drop:g} %"
    return _over(budget, size / 2**20, latency)


def _over(budget: Mapping[str, float], mib: float, latency: Mapping[str, Any] | None) -> str:
    """Say which limit of size or memory a candidate exceeds."""
    found = {"size_mib": mib}
    if latency and latency["rss_mib"] is not None:
        found["peak_memory_mib"] = float(latency["rss_mib"])
    return "; ".join(
        f"budget: {name} {found[name]:.4g}, limit {limit:g}"
        for name, limit in budget.items()
        if found.get(name, 0.0) > limit
    )
