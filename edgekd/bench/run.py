"""Measure bundles in turns and write everything down as it happens.

The file of results is the only state: a line for the run, a line for each process as soon as it
was measured, and at the end a line a bundle. Whatever stops a run, the file holds what was
measured, and the same command with ``resume`` goes on behind its last whole line.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgekd.bench import history, record
from edgekd.bench.measure import Contestant, Process, Settings, opened, process_of, rounds
from edgekd.bundle import Bundle
from edgekd.device.lease import lease
from edgekd.errors import UsageError
from edgekd.events import Emit, Progress, silent

Opened = Mapping[str, tuple[Bundle, Contestant]]
TARGETS_THREADS = Settings(threads=0)
"""The defaults, with the threads that each bundle's target asks for."""


@dataclass(frozen=True)
class Job:
    """What to measure.

    Attributes:
        suite: Name in the results.
        bundles: Folders or zips by label.
        processes: Fresh processes of each.
        settings: How each is measured; ``threads`` 0 takes the target's.
    """

    suite: str
    bundles: Mapping[str, Path]
    processes: int = 11
    settings: Settings = TARGETS_THREADS


def bench(
    job: Job,
    out: Path,
    *,
    history_folder: Path | None = None,
    label: str | None = None,
    resume: bool = False,
    wait: float = 600,
    emit: Emit = silent,
) -> dict[str, Any]:
    """Measure a job's bundles, in turns, in fresh processes.

    Args:
        job: What, and how.
        out: File of results (``.jsonl``), added to line by line.
        history_folder: History that each bundle's figures are added to, once.
        label: Name of the board in the history.
        resume: Go on with a file that an interrupted run left.
        wait: Seconds to wait for another job on the board.
        emit: Progress.

    Returns:
        The line of the run, ``rows``: a summary of each bundle, and ``resumed``: how many
        processes an earlier attempt had measured.

    Raises:
        UsageError: The file exists and ``resume`` is off, or holds another job.
        SetupError: The board is in use, or a runtime is missing.
    """
    with opened(job.bundles) as bundles:
        settings = {label: _settings(job, bundle) for label, (bundle, _) in bundles.items()}
        plan = _plan(job, bundles, settings)
        with lease(wait, emit, job.settings.on):
            head, done, finished = _begun(out, plan, resume, job.settings.on)
            resumed = sum(map(len, done.values()))
            if not finished:
                _measure(job, bundles, settings, head, done, out, emit)
        rows = [
            _row(head, bundles[name], done[name], name, path, label)
            for name, path in job.bundles.items()
        ]
        if not finished:
            if history_folder is not None:
                _remember(history_folder, rows)
            history.append(out, [*({"kind": "summary", **row} for row in rows), {"kind": "end"}])
    return {**head, "rows": rows, "resumed": resumed}


def _settings(job: Job, bundle: Bundle) -> Settings:
    measure = bundle.manifest["target"].get("measure", {})
    return replace(job.settings, threads=job.settings.threads or measure.get("threads", 1))


def _plan(job: Job, bundles: Opened, settings: Mapping[str, Settings]) -> dict[str, Any]:
    """Return what must be the same for a run to be gone on with."""
    return {
        "suite": job.suite,
        "processes": job.processes,
        "bundles": {
            label: {"digest": bundle.digest, "settings": asdict(settings[label])}
            for label, (bundle, _) in bundles.items()
        },
    }


def _begun(
    out: Path, plan: Mapping[str, Any], resume: bool, on: str
) -> tuple[dict[str, Any], dict[str, list[Process]], bool]:
    """Return the run's first line, the processes so far, and whether it had ended."""
    lines = history.read(out) if out.exists() else []
    done: dict[str, list[Process]] = {label: [] for label in plan["bundles"]}
    if not lines:
        head = {"kind": "run", "schema": history.SCHEMA, "run": uuid.uuid4().hex, "plan": plan}
        head |= {"seed": random.randrange(2**32), **record.circumstances(on)}
        history.append(out, [head])
        return head, done, False
    if not resume:
        raise UsageError(
            "there are results in this file already",
            at=str(out),
            hint="--resume goes on with them, or give another --out",
        )
    head = lines[0]
    if head.get("kind") != "run" or head["plan"] != plan:
        raise UsageError("the file holds another job", at=str(out), hint="give another --out")
    for line in lines[1:]:
        if line["kind"] == "process":
            fields = {k: v for k, v in line.items() if k not in ("kind", "bundle")}
            done[line["bundle"]].append(process_of(fields))
    return head, done, lines[-1]["kind"] == "end"


def _measure(
    job: Job,
    bundles: Opened,
    settings: Mapping[str, Settings],
    head: Mapping[str, Any],
    done: Mapping[str, list[Process]],
    out: Path,
    emit: Emit,
) -> None:
    measuring = {
        label: rounds([contestant], settings[label], head["seed"], len(done[label]))
        for label, (_, contestant) in bundles.items()
    }
    before = sum(map(len, done.values()))
    total = job.processes * len(bundles)
    progress = Progress(emit, f"bench {job.suite}", total, "processes", before)
    for label, number in _turns(job, head["seed"]):
        if len(done[label]) <= number:
            (process,) = next(measuring[label])
            history.append(out, [{"kind": "process", "bundle": label, **process.plain()}])
            done[label].append(process)
            progress.advance()


def _turns(job: Job, seed: int) -> Iterator[tuple[str, int]]:
    """Give each bundle's label round after round, with the number of the round, from 0.

    Each round has an order of its own, so that no bundle always follows the same one.
    """
    for number in range(job.processes):
        labels = list(job.bundles)
        random.Random(f"{seed}/{number}").shuffle(labels)
        for label in labels:
            yield label, number


def _row(
    head: Mapping[str, Any],
    found: tuple[Bundle, Contestant],
    processes: list[Process],
    name: str,
    path: Path,
    label: str | None,
) -> dict[str, Any]:
    return {
        "run": head["run"],
        "device": record.device_label(head["machine"], label),
        "when": head["when"],
        "git": head["git"],
        **record.summary(found[0], processes, "bench"),
        "name": name,
        "path": str(path.absolute()),
    }


def _remember(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Add rows that are not there: a run stopped in between has added some."""
    for row in rows:
        path = history.place(folder, row)
        known = history.read(path) if path.exists() else []
        if not any(line.get("run") == row["run"] for line in known):
            history.remember(folder, row)
