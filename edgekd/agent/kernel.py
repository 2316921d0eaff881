"""A fixed piece of work, timed in every process: how fast this machine is, whatever it runs."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from .facts import version_of

NAME = "matmul-128-v1"
_SIZE = 128
_PRODUCTS = 8


def reference(repeats: int = 7) -> dict[str, Any]:
    """Time products of fixed single-precision matrices.

    Returns:
        ``name``, ``numpy``, and the least ``cpu_ns`` and ``wall_ns`` of the repeats: noise only
        adds, so the least is the machine's own speed.
    """
    side = np.arange(_SIZE * _SIZE, dtype=np.float32).reshape(_SIZE, _SIZE) % 7 / 7
    spent = [_once(side) for _ in range(repeats + 1)][1:]
    return {
        "name": NAME,
        "numpy": version_of("numpy"),
        "cpu_ns": min(cpu for cpu, _ in spent),
        "wall_ns": min(wall for _, wall in spent),
    }


def _once(side: Any) -> tuple[int, int]:
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    product = side
    for _ in range(_PRODUCTS):
        product = side @ product / _SIZE
    return time.process_time_ns() - cpu, time.perf_counter_ns() - wall
