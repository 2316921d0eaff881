"""Fly the base flights of the simulated set again, with JSBSim."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.data.flight.bases import FILE, Bases, load_bases, pack, save_bases
from edgekd.data.flight.pilot import TROUBLES, Plan, fly, plan_flight
from edgekd.errors import DataError
from edgekd.extras import installed, missing

__all__ = ["BASES", "build_bases", "troubles_of"]

BASES = 65
"""Base flights in the embedded file: thirteen a fold."""
Emit = Callable[[str], None]
Flown = tuple[Plan, NDArray[np.float32], list[tuple[str, NDArray[np.float32]]]]


def troubles_of(base: int) -> tuple[str, str]:
    """The two closed-loop faults that a base is also flown with; every fold has all four."""
    turn = base // 5
    return TROUBLES[turn % 4], TROUBLES[(turn + 1) % 4]


def build_bases(
    out: Path, *, bases: int = BASES, jobs: int = 1, emit: Emit = print
) -> dict[str, Any]:
    """Fly and write ``bases.npz``; about 7 s of processor time a base.

    JSBSim is deterministic, but rounds differently on other processors; a flight that is made
    again agrees to within the file's resolution in all but a few values.

    Args:
        out: Folder for the file.
        bases: How many; at least 20, so that every fold has every fault.
        jobs: Processes.
        emit: Called with one line of progress at a time.

    Returns:
        ``bases``, ``bytes``, ``sha256``, ``jsbsim``, and ``differs``: the share of stored values
        that differ from the embedded file, where it has the same bases.

    Raises:
        SetupError: JSBSim is not installed.
        DataError: Too few bases.
    """
    if bases < 20:
        raise DataError(f"{bases} base flights are too few, at least 20", at="--bases")
    if not installed("jsbsim"):
        raise missing("jsbsim", "building simflight")
    flown = []
    with ProcessPoolExecutor(jobs) as pool:
        for flight in pool.map(_fly, range(bases)):
            flown.append(flight)
            emit(f"base {len(flown)} of {bases}: {len(flight[1])} s")
    packed = pack(flown)
    out.mkdir(parents=True, exist_ok=True)
    digest = save_bases(packed, out / FILE.name)
    return {
        "bases": bases,
        "bytes": (out / FILE.name).stat().st_size,
        "sha256": digest,
        "jsbsim": version("jsbsim"),
        "differs": _difference(packed, load_bases()),
    }


def _fly(base: int) -> Flown:
    plan = plan_flight(base)
    return plan, fly(plan), [(name, fly(plan, name)) for name in troubles_of(base)]


def _difference(made: Bases, known: Bases) -> float:
    """Share of the healthy values that differ, over the bases that both have."""
    both = min(len(made), len(known))
    return float((made.healthy[:both] != known.healthy[:both]).mean())
