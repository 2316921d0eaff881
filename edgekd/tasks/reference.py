"""What a task is measured against besides networks: the field's rules, planners, bounds."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.agent import process
from edgekd.errors import StageError
from edgekd.inputs import save_arrays
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


def timed_alone(
    place: str, arrays: Mapping[str, Any], settings: Mapping[str, Any], *, runs: int = RUNS
) -> dict[str, Any]:
    """Latency and memory of one decision in a process of its own, as in a manifest's row.

    Args:
        place: ``module:function``, called with the arrays and the settings; returns what decides.
        arrays: What it needs.
        settings: Further keywords, JSON.
        runs: Decisions to time, after a tenth as many to warm up.

    Returns:
        As `timed`; ``rss_mib`` is the process's peak, Python and numpy included, as for networks.

    Raises:
        StageError: The process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "arrays.npz"
        save_arrays(file, arrays)
        asked = json.dumps({"place": place, "file": str(file), "settings": settings, "runs": runs})
        program = f"from {__name__} import _alone; _alone()"
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        done = subprocess.run(
            [sys.executable, "-c", program], input=asked, cwd=folder, capture_output=True,
            text=True, env={**os.environ, **threads, "PYTHONPATH": path}, check=False,
        )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        raise StageError(f"timing {place} failed: {last}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _alone() -> None:
    """The process of `timed_alone`: one request on standard input, one answer."""
    asked = json.loads(sys.stdin.read())
    module, _, name = asked["place"].partition(":")
    with np.load(asked["file"], allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
    decide = getattr(importlib.import_module(module), name)(arrays, **asked["settings"])
    found = timed(decide, runs=asked["runs"]) | {"rss_mib": process.peak_rss_mib()}
    sys.stdout.write(json.dumps(found))


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
