"""What a run writes down beside its numbers: when, where, from which source, with what."""

from __future__ import annotations

import os
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgekd.bench import history
from edgekd.bench.judge import middle
from edgekd.bench.measure import Process
from edgekd.bench.stats import centre
from edgekd.bundle import Bundle
from edgekd.device.link import agent_on
from edgekd.version import __version__

_GIT_VARIABLES = ("GITHUB_SHA", "CI_COMMIT_SHA")


def circumstances(on: str = "local") -> dict[str, Any]:
    """Return time, source revision, version and machine of a run.

    Args:
        on: Where the board is; see `edgekd.device.reach`.
    """
    with agent_on(on) as agent:
        machine = agent.facts()
    return {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "git": git_revision(),
        "edgekd": __version__,
        "machine": machine,
    }


def git_revision(folder: Path | None = None) -> str | None:
    """Return the revision under test: what CI says, else that of the working folder."""
    for name in _GIT_VARIABLES:
        if os.environ.get(name):
            return os.environ[name]
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def device_label(machine: Mapping[str, Any], given: str | None = None) -> str:
    """Return how history files the machine: the name given, else one made of its processor's."""
    return history.slug(
        given or str(machine.get("board") or "") or str(machine.get("cpu") or "machine")
    )


def summary(bundle: Bundle, processes: Sequence[Process], source: str) -> dict[str, Any]:
    """Return the figures of one bundle in one run, for history and trend.

    Args:
        bundle: What was measured.
        processes: Its fresh processes; the unit of every interval.
        source: ``bench`` or ``gate``.
    """
    manifest = bundle.manifest
    shipped = next(row for row in manifest["rows"] if row["shipped"])
    score = shipped["metrics"].get(shipped["primary"], {})
    weighed = [p.energy_mj for p in processes if p.energy_mj is not None]
    metrics = {
        "cpu_ms": _centre([p.cpu_least_ms for p in processes], "ms"),
        "wall_p50_ms": _centre([p.quantiles_ms["p50"] for p in processes], "ms"),
        "wall_p99_ms": _centre([p.quantiles_ms["p99"] for p in processes], "ms"),
        "peak_rss_mib": _centre([p.peak_rss_mib for p in processes], "MiB"),
        **({"energy_mj": _centre(weighed, "mJ")} if len(weighed) == len(processes) else {}),
        "size_bytes": {"value": manifest["artefact"]["bytes"], "unit": "bytes"},
    }
    if "value" in score:
        metrics["task"] = {
            **{key: score[key] for key in ("value", "low", "high", "n") if key in score},
            "unit": shipped["primary"],
        }
    return {
        "name": manifest["name"],
        "target": manifest["target"]["name"],
        "candidate": manifest["artefact"]["candidate"],
        "digest": bundle.digest,
        "source": source,
        "metrics": metrics,
        "kernel": processes[0].kernel,
        "kernel_ms": statistics.median(p.kernel_ms for p in processes),
        "load": middle(processes, "load"),
        "throttled": any(p.throttled for p in processes),
        "runtime": f"{manifest['artefact']['runtime']} {processes[0].version}",
    }


def _centre(values: Sequence[float], unit: str) -> dict[str, Any]:
    return {**asdict(centre(values)), "n": len(values), "unit": unit}
