"""Time one network or artefact: fresh processes, wall and processor time, memory."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.artefact import Running, open_artefact
from edgekd.calls import invoke
from edgekd.events import Emit, Progress
from edgekd.spec import Call

SAMPLES = 16
KEPT = 300
"""Wall samples that the report draws."""


def profile(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, emit: Emit
) -> dict[str, Any]:
    """Measure batch-1 latency.

    Args:
        spec: ``measure`` (threads, runs, warmup, processes), ``data``, ``base``, ``step``.
        inputs: ``artefact``.
        out: Gets the folder ``device`` where the runtime tells of what it made: logs, layers.
        emit: Progress.

    Returns:
        ``latency`` as in a manifest's row; ``engine``: what the runtime told. The figures are
        medians over the processes.
    """
    base, measure = Path(spec["base"]), spec["measure"]
    val = invoke(Call(**spec["data"]), base).val
    places = np.linspace(0, len(val) - 1, SAMPLES).astype(np.int64)
    raw = np.stack([np.asarray(val[int(i)][0]) for i in places])
    artefact, device = inputs["artefact"], out / "device"
    return measure_artefact(artefact, raw, measure, base, spec["step"], emit, spec["on"], device)


def measure_artefact(
    folder: Path,
    raw: Any,
    measure: Mapping[str, Any],
    base: Path,
    step: str,
    emit: Emit,
    on: str = "local",
    evidence: Path | None = None,
) -> dict[str, Any]:
    """Time an artefact in ``measure['processes']`` fresh processes.

    Args:
        folder: Of the artefact.
        raw: (samples, …) raw samples to cycle over.
        measure: ``threads``, ``runs``, ``warmup``, ``processes``.
        base: Folder of the recipe (torch networks are built from it).
        step: Name in events.
        emit: Progress.
        on: Device that it runs on, in its own runtime.
        evidence: Folder for what the runtime tells of what it made.
    """
    artefact = open_artefact(folder)
    options = {"base": str(base)} if artefact.runtime == "torch" else {}
    timings, effective, energy, engine = [], {}, {}, {}
    progress = Progress(emit, step, measure["processes"], "processes")
    for number in range(measure["processes"]):
        with Running(
            artefact, measure["threads"], options=options, on=on, by_proxy=False
        ) as running:
            timing = running.agent.time(
                running.feeds(raw), warmup=measure["warmup"], runs=measure["runs"], max_seconds=20
            )
            effective = running.loaded.effective
            if number == measure["processes"] - 1:
                energy = running.agent.energy(running.feeds(raw))
                engine = {} if evidence is None else running.agent.evidence(evidence)
        timings.append(timing)
        progress.advance()
    rows = [t.summary() for t in timings]
    samples = np.concatenate([t.wall_ns for t in timings]) / 1e6
    return {
        "latency": {
            "wall_ms": {q: _median(rows, f"{q}_ms") for q in ("p50", "p90", "p99")},
            "cpu_ms": {"p50": _median(rows, "cpu_median_ms"), "min": _least(rows, "cpu_min_ms")},
            "threads": measure["threads"],
            "load": _median(rows, "load_before"),
            "rss_mib": _median(rows, "peak_rss_mib"),
            "n": len(samples),
            "processes": len(rows),
            "throttled": any(row["throttled"] for row in rows),
            "energy": energy,
            "samples_ms": [round(float(v), 4) for v in samples[:: max(1, len(samples) // KEPT)]],
        },
        "effective": effective,
        **({"engine": engine} if engine else {}),
    }


def _median(rows: list[dict[str, Any]], name: str) -> float | None:
    return _of(statistics.median, rows, name)


def _least(rows: list[dict[str, Any]], name: str) -> float | None:
    return _of(min, rows, name)


def _of(
    rule: Callable[[list[float]], float], rows: list[dict[str, Any]], name: str
) -> float | None:
    """Of what each process told; None where one cannot tell it."""
    values = [row[name] for row in rows]
    return None if None in values else float(rule(values))
