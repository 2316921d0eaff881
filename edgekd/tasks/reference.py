"""What a task is measured against besides networks: the field's rules, planners, bounds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgekd.tasks.base import Score

RUNS = 50


@dataclass(frozen=True)
class Reference:
    """One row of the table that is no network.

    Attributes:
        name: Identity in files: plain characters.
        label: How the report calls it.
        score: On the split that was asked for.
        knows: What it must know that a network need not, in a few words; empty for nothing.
        bound: Whether it knows what nobody can, and so only bounds what is possible.
        code_bytes: Size of its code; None where it cannot run on a device.
        latency: As in a manifest's row; a dict with ``not_run`` where it decides nothing.
    """

    name: str
    label: str
    score: Score
    knows: str = ""
    bound: bool = False
    code_bytes: int | None = None
    latency: dict[str, Any] = field(default_factory=lambda: {"not_run": "decides nothing"})

    def facts(self) -> dict[str, Any]:
        """Return it as small JSON."""
        return {
            "name": self.name,
            "label": self.label,
            "knows": self.knows,
            "bound": self.bound,
            "code_bytes": self.code_bytes,
            "latency": self.latency,
            **self.score.facts(),
        }


def timed(decide: Callable[[], Any], *, runs: int = RUNS) -> dict[str, Any]:
    """Latency of one decision in this process, as in a manifest's row.

    Args:
        decide: Takes one decision for one device.
        runs: Decisions to time, after a tenth as many to warm up.

    Returns:
        ``wall_ms``, ``cpu_ms``, ``threads``, ``load``, ``rss_mib``, ``n``. Memory is not split
        from this process's own, so it is None.
    """
    for _ in range(max(1, runs // 10)):
        decide()
    wall, cpu = [], []
    for _ in range(runs):
        before, busy = time.perf_counter_ns(), time.process_time_ns()
        decide()
        cpu.append((time.process_time_ns() - busy) / 1e6)
        wall.append((time.perf_counter_ns() - before) / 1e6)
    p50, p90, p99 = np.percentile(wall, [50, 90, 99])
    return {
        "wall_ms": {"p50": float(p50), "p90": float(p90), "p99": float(p99)},
        "cpu_ms": {"p50": float(np.median(cpu)), "min": float(min(cpu))},
        "threads": 1,
        "load": None,
        "rss_mib": None,
        "n": runs,
        "samples_ms": [round(float(value), 4) for value in wall],
    }
