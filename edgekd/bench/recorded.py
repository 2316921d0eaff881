"""Results that were written down on different days: compared only when asked, and never quite.

Two runs of one artefact on one board differ from day to day by more than a gate may allow, and no
statistics of the samples can see it. Times are therefore taken relative to the reference kernel
of the same run, and runs whose kernels differ by more than 10 % are not compared at all.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgekd.bench import history, judge
from edgekd.bench.judge import UNITS, WORDS, Check, Finding, Rule
from edgekd.bench.measure import Process, process_of
from edgekd.bench.stats import holm, mann_whitney, sample_shift
from edgekd.errors import UsageError

APART = "not comparable: not measured together"
Samples = Mapping[str, Sequence[float]]


def processes(path: Path) -> dict[str, list[Process]]:
    """Return the processes in a file of results, by bundle; baselines of a gate are left out.

    Raises:
        UsageError: The file cannot be read or holds no process.
    """
    found: dict[str, list[Process]] = {}
    for row in history.read(path):
        if row.get("kind") != "process" or row.get("side") == "baseline":
            continue
        bundle = str(row["bundle"])
        fields = {k: v for k, v in row.items() if k not in ("kind", "bundle", "side")}
        found.setdefault(bundle, []).append(process_of(fields))
    if not found:
        raise UsageError("no measured process in this file", at=str(path))
    return found


def gate(
    candidates: Sequence[Path], baselines: Sequence[Path], allowed: bool, rule: Rule
) -> dict[str, Any]:
    """Judge files of results; see `edgekd.bench.gate.gate`."""
    checks: list[Check] = []
    for new, old in zip(candidates, baselines, strict=True):
        before, after = processes(old), processes(new)
        shared = [name for name in after if name in before]
        if not shared:
            raise UsageError(f"{new} and {old} have no bundle in common", at="--baseline")
        checks += _judged({name: (before[name], after[name]) for name in shared}, rule, allowed)
    return {
        "kind": "gate",
        "checks": [check.plain() for check in checks],
        "verdict": judge.in_words(checks),
        "exit_code": judge.exit_code(checks),
        "pairs": [],
        "rule": asdict(rule),
        "notes": [
            "compared with recorded figures, relative to the reference kernel"
            if allowed
            else "--allow-recorded compares figures that were not measured together"
        ],
        "accepted": None,
    }


def _judged(
    sides: Mapping[str, tuple[list[Process], list[Process]]], rule: Rule, allowed: bool
) -> list[Check]:
    found = {name: findings(*both) for name, both in sides.items()}
    worse = holm({f"{b}/{w}": f.worse for b, each in found.items() for w, f in each.items()})
    better = holm({f"{b}/{w}": f.better for b, each in found.items() for w, f in each.items()})
    checks = []
    for bundle, each in found.items():
        before, after = sides[bundle]
        apart = "" if allowed else APART
        apart = apart or not_comparable(before, after)
        for witness, finding in each.items():
            p_values = worse[f"{bundle}/{witness}"], better[f"{bundle}/{witness}"]
            shift = {**asdict(finding.shift), "p_worse": p_values[0], "p_better": p_values[1]}
            verdict = apart or finding.verdict(rule, *p_values)
            old, new = (statistics.median(figure(side)[witness]) for side in (before, after))
            unit = UNITS[witness]
            name = f"latency ({WORDS[witness]})" if unit == "ms" else witness
            checks.append(
                Check(bundle, name, verdict, WORDS[witness], old, new, unit, {witness: shift})
            )
    return checks


def not_comparable(before: Sequence[Process], after: Sequence[Process]) -> str:
    """Return why two runs cannot be compared; empty when they can."""
    if {p.kernel for p in before} != {p.kernel for p in after}:
        return "not comparable: another reference kernel"
    if any(p.throttled for p in (*before, *after)):
        return "not comparable: the machine throttled"
    kernels = [statistics.median(p.kernel_ms for p in side) for side in (before, after)]
    if max(kernels) > (1 + judge.KERNEL_APART) * min(kernels):
        return "not comparable: clocks differ"
    return ""


def findings(before: Sequence[Process], after: Sequence[Process]) -> dict[str, Finding]:
    """Compare two independent runs, times relative to the kernel of each run."""
    first, second = relative(before), relative(after)
    return {
        name: Finding(
            mann_whitney(first[name], second[name]),
            mann_whitney(second[name], first[name]),
            sample_shift(first[name], second[name]),
        )
        for name in first
        if name in second
    }


def figure(side: Sequence[Process]) -> Samples:
    """Return the figures of each process, as measured; energy where every process has it."""
    energy = [p.energy_mj for p in side if p.energy_mj is not None]
    return {
        "cpu": [p.cpu_least_ms for p in side],
        "wall": [p.quantiles_ms["p50"] for p in side],
        "memory": [p.peak_rss_mib for p in side],
        **({"energy": energy} if len(energy) == len(side) else {}),
    }


def relative(side: Sequence[Process]) -> Samples:
    """Return the figures of each process, times as multiples of the run's reference kernel."""
    kernel = statistics.median(p.kernel_ms for p in side)
    plain = figure(side)
    return {
        name: [v / (kernel if UNITS[name] == "ms" else 1) for v in values]
        for name, values in plain.items()
    }
