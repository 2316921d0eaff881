"""The gate: candidates against accepted baselines, measured again side by side."""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edgekd.bench import baseline as pointer
from edgekd.bench import history, judge, record, recorded
from edgekd.bench.judge import IMPROVED, OK, OVER, REGRESSED, Check, Pair, Rule
from edgekd.bench.measure import Contestant, Settings, opened, refuse_replayed, rounds
from edgekd.bundle import Bundle, open_bundle
from edgekd.device.lease import lease, refuse_recording
from edgekd.errors import SetupError, UsageError
from edgekd.events import Emit, Event, Progress, silent

DROP = 0.01
"""Largest relative loss of the task metric where the target sets no limit."""


@dataclass
class Match:
    """One candidate and its baseline.

    Attributes:
        name: How the candidate is called in the outcome.
        candidate: Its bundle.
        baseline: The accepted bundle.
        contestants: Both, ready to run: baseline, candidate.
        pairs: Rounds so far.
        missing: Why it could not be measured; empty when it was.
    """

    name: str
    candidate: Bundle
    baseline: Bundle
    contestants: tuple[Contestant, Contestant]
    pairs: list[Pair] = field(default_factory=list)
    missing: str = ""

    @property
    def processor(self) -> bool:
        """Whether the network runs on the processor whose time is counted."""
        return bool(self.candidate.manifest["target"].get("device", "cpu") == "cpu")


def gate(
    bundle: Path | str | Sequence[Path | str],
    baseline: Path | str | Sequence[Path | str],
    *,
    on: str = "local",
    threads: int | None = None,
    pin: int | None = None,
    tolerance: float = Rule.tolerance,
    alpha: float = Rule.alpha,
    accept: str | None = None,
    allow_recorded: bool = False,
    wait: float = 600,
    out: Path | None = None,
    history_folder: Path | None = None,
    label: str | None = None,
    seed: int | None = None,
    emit: Emit = silent,
) -> dict[str, Any]:
    """Measure bundles beside their baselines and judge what changed.

    Args:
        bundle: Candidate, or several, which make one job with one error rate.
        baseline: Baseline of each: a bundle, or a file that ``accept`` writes. Two files of
            results (``.jsonl``) are compared only with ``allow_recorded``.
        on: Where the board is: ``local``, ``ssh:HOST``, or a name of the user's list.
        threads: Threads of the runtime; the target's by default.
        pin: Core to run on.
        tolerance: Relative change below which nothing is claimed.
        alpha: Chance that a job of unchanged bundles raises any alarm.
        accept: Make the candidate the baseline, for this reason.
        allow_recorded: Compare files of results, relative to the reference kernel.
        wait: Seconds to wait for another job on the board.
        out: File that every measured process is added to, as JSON lines.
        history_folder: History to add the candidates' figures to.
        label: Name of the board in the history.
        seed: Of the order of the processes; drawn by default, and in the outcome.
        emit: Progress.

    Returns:
        ``checks``, ``verdict``, ``exit_code`` (0, 3 failed, 4 not measured), ``pairs`` (rounds,
        seconds timed and seconds of start-up), ``rule``, the machine and the versions.

    Raises:
        UsageError: No such bundle, or the two lists do not match.
        SetupError: A recording of a device was named, or a bundle was made on one.
        VerifyError: A baseline is not the bundle that was accepted.
        RuntimeCrash: A runtime died.
    """
    refuse_recording(on)
    candidates, baselines = _listed(bundle), _listed(baseline)
    if len(candidates) != len(baselines):
        raise UsageError(
            f"{len(candidates)} bundles and {len(baselines)} baselines; each needs its own",
            at="--baseline",
        )
    if any(path.suffix == ".jsonl" for path in (*candidates, *baselines)):
        return recorded.gate(candidates, baselines, allow_recorded, Rule(alpha, tolerance))
    if accept is not None and not all(map(pointer.is_pointer, baselines)):
        raise UsageError(
            "--accept moves a baseline file, and --baseline is a bundle",
            at="--baseline",
            hint="give a .json file, which --accept makes when it is missing",
        )
    rule, seed = Rule(alpha, tolerance), random.randrange(2**32) if seed is None else seed
    new = [path for path in baselines if pointer.is_pointer(path) and not path.exists()]
    if accept is not None and len(new) == len(baselines):
        return _first(candidates, baselines, accept)
    with ExitStack() as stack:
        matches = _matches(stack, candidates, [pointer.resolve(path) for path in baselines])
        settings = replace(_settings(matches[0], threads, pin), on=on)
        facts = _circumstances(on, emit)
        _measure(matches, settings, rule, seed, wait, out, emit)
        checks = [check for match in matches for check in _static(match, rule)]
        checks += _timed(matches, rule)
        outcome = _outcome(matches, checks, rule, seed, facts)
        if history_folder is not None:
            _remember(history_folder, matches, candidates, facts, label)
        if accept is not None:
            _accept(matches, candidates, baselines, accept, outcome)
    return outcome


def _circumstances(on: str, emit: Emit) -> dict[str, Any]:
    """Facts of the board; of this machine where the board cannot be reached, which is said."""
    try:
        return record.circumstances(on)
    except SetupError as error:
        emit(Event("warning", "gate", error.what))
        return {**record.circumstances(), "board": {"not_run": error.what}}


def _listed(paths: Path | str | Sequence[Path | str]) -> list[Path]:
    return [Path(paths)] if isinstance(paths, Path | str) else [Path(path) for path in paths]


def _matches(stack: ExitStack, candidates: list[Path], baselines: list[Path]) -> list[Match]:
    sides = {
        f"{side}/{number}": path
        for side, paths in (("baseline", baselines), ("candidate", candidates))
        for number, path in enumerate(paths)
    }
    found = stack.enter_context(opened(sides))
    matches: list[Match] = []
    for number, path in enumerate(candidates):
        before, one = found[f"baseline/{number}"]
        after, two = found[f"candidate/{number}"]
        name = _distinct(str(after.manifest["name"]), path, {match.name for match in matches})
        matches.append(Match(name, after, before, (one, two)))
    return matches


def _distinct(name: str, path: Path, taken: set[str]) -> str:
    """Tell bundles of one name apart by their folders; where they lie is this machine's affair."""
    if name not in taken:
        return name
    told = f"{name} ({path.name})"
    numbered = (f"{name} ({path.name}, {number})" for number in itertools.count(2))
    return told if told not in taken else next(n for n in numbered if n not in taken)


def _settings(match: Match, threads: int | None, pin: int | None) -> Settings:
    measure = match.candidate.manifest["target"].get("measure", {})
    return Settings(
        threads=threads or measure.get("threads", 1), warmup=measure.get("warmup", 20), pin=pin
    )


def _measure(
    matches: Sequence[Match],
    settings: Settings,
    rule: Rule,
    seed: int,
    wait: float,
    out: Path | None,
    emit: Emit,
) -> None:
    """Fill in the pairs of every match; a board that cannot be had is kept as a reason."""
    try:
        with lease(wait, emit, settings.on):
            for match in matches:
                _rounds(match, settings, rule, len(matches), seed, out, emit)
    except SetupError as error:
        for match in matches:
            if not match.pairs:
                match.missing = error.what
        emit(Event("warning", "gate", error.what))


def _rounds(
    match: Match,
    settings: Settings,
    rule: Rule,
    bundles: int,
    seed: int,
    out: Path | None,
    emit: Emit,
) -> None:
    progress = Progress(emit, f"gate {match.name}", rule.rounds, "rounds")
    for before, after in rounds(match.contestants, settings, seed):
        match.pairs.append((before, after))
        if out is not None:
            lines = (
                {"kind": "process", "bundle": match.name, "side": side, **process.plain()}
                for side, process in (("baseline", before), ("candidate", after))
            )
            history.append(out, lines)
        progress.advance()
        family = bundles * len(judge.witnesses(match.pairs))
        if judge.settled(match.pairs, rule, family, processor=match.processor):
            return


def _timed(matches: Sequence[Match], rule: Rule) -> Iterator[Check]:
    measured = {match.name: match.pairs for match in matches if not match.missing}
    yield from judge.judge(measured, rule, {match.name: match.processor for match in matches})
    for match in matches:
        if match.missing:
            for name in ("latency", "memory", "energy"):
                yield Check(match.name, name, "not run: no device", why=match.missing)
        elif why := _no_energy(match):
            yield Check(match.name, "energy", f"not run: {why}")
        yield from _budgets(match)


def _no_energy(match: Match) -> str:
    """Why the rounds of a match say nothing of energy; empty when they do."""
    processes = (process for pair in match.pairs for process in pair)
    return next((p.no_energy for p in processes if p.energy_mj is None), "")


def _static(match: Match, rule: Rule) -> Iterator[Check]:
    """Check what needs no clock: the manifests have it."""
    old, new = (b.manifest["artefact"]["bytes"] for b in (match.baseline, match.candidate))
    verdict = _moved(new / old - 1, rule.tolerance)
    yield Check(match.name, "size", verdict, "the manifests", old, new, "bytes")
    yield _metric(match)


def _moved(change: float, tolerance: float) -> str:
    return REGRESSED if change > tolerance else IMPROVED if change < -tolerance else OK


def _metric(match: Match) -> Check:
    rows = [
        next(row for row in b.manifest["rows"] if row["shipped"])
        for b in (match.baseline, match.candidate)
    ]
    name = rows[1]["primary"]
    found = [row["metrics"].get(name, {"not_run": "the manifest has none"}) for row in rows]
    missing = [metric["not_run"] for metric in found if "not_run" in metric]
    if missing:
        return Check(match.name, "task metric", f"not run: {missing[0]}", unit=name)
    data = [b.manifest["inputs"]["data"].get("digest") for b in (match.baseline, match.candidate)]
    values = [metric["value"] for metric in found]
    verdict = "not comparable: scored on other data"
    if data[0] == data[1]:
        limits = match.candidate.manifest["target"].get("limits", {})
        sign = 1 if match.candidate.manifest.get("higher_is_better", True) else -1
        loss = sign * (values[0] - values[1]) / max(abs(values[0]), 1e-12)
        verdict = _moved(loss, limits.get("metric_drop") or DROP)
    return Check(match.name, "task metric", verdict, "the manifests", values[0], values[1], name)


_BUDGETS = {
    "latency_p50_ms": ("p50", "ms"),
    "latency_p99_ms": ("p99", "ms"),
    "peak_memory_mib": ("peak_rss_mib", "MiB"),
    "energy_mj": ("energy_mj", "mJ"),
}


def _budgets(match: Match) -> Iterator[Check]:
    """Hold the candidate's own figures against its target's limits."""
    limits: Mapping[str, Any] = match.candidate.manifest["target"].get("limits", {})
    for limit, wanted in limits.items():
        name = f"budget {limit}"
        if wanted is None or limit == "metric_drop":
            continue
        if limit == "size_mib":
            value = match.candidate.manifest["artefact"]["bytes"] / 2**20
            yield _budget(match.name, name, value, wanted, "MiB")
        elif match.missing:
            yield Check(match.name, name, "not run: no device", why=match.missing)
        elif limit == "energy_mj" and (why := _no_energy(match)):
            yield Check(match.name, name, f"not run: {why}")
        else:
            figure, unit = _BUDGETS[limit]
            value = judge.middle([after for _, after in match.pairs], figure)
            yield _budget(match.name, name, value, wanted, unit)


def _budget(bundle: str, name: str, value: float, limit: float, unit: str) -> Check:
    verdict = OVER if value > limit else OK
    return Check(bundle, name, verdict, "the target's limit", limit, value, unit)


def _outcome(
    matches: Sequence[Match],
    checks: Sequence[Check],
    rule: Rule,
    seed: int,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    order = {match.name: place for place, match in enumerate(matches)}
    checks = sorted(checks, key=lambda check: order[check.bundle])
    family = sum(len(judge.witnesses(match.pairs)) for match in matches)
    return {
        "kind": "gate",
        **facts,
        "checks": [check.plain() for check in checks],
        "verdict": judge.in_words(checks),
        "exit_code": judge.exit_code(checks),
        "pairs": [_effort(match) for match in matches],
        "rule": {**asdict(rule), "family": family, "seed": seed},
        "notes": [note for match in matches for note in _notes(match)],
        "accepted": None,
    }


def _effort(match: Match) -> dict[str, Any]:
    sides = {
        "baseline": [before for before, _ in match.pairs],
        "candidate": [after for _, after in match.pairs],
    }
    every = [process for processes in sides.values() for process in processes]
    return {
        "bundle": match.name,
        "digests": {"baseline": match.baseline.digest, "candidate": match.candidate.digest},
        "rounds": len(match.pairs),
        "inferences": sum(p.inferences for p in every),
        "timed_s": sum(p.timed_s for p in every),
        "startup_s": sum(p.startup_s for p in every),
        "load": statistics.fmean(p.load for p in every) if every else None,
        "figures": {
            side: {name: judge.middle(processes, name) for name in ("p50", "p99", "peak_rss_mib")}
            for side, processes in sides.items()
            if processes
        },
    }


def _notes(match: Match) -> Iterator[str]:
    if match.baseline.digest == match.candidate.digest:
        yield f"{match.name}: candidate and baseline are the same bundle"
    names = [b.manifest["target"]["name"] for b in (match.baseline, match.candidate)]
    if names[0] != names[1]:
        yield f"{match.name}: the baseline was made for {names[0]}, the candidate for {names[1]}"


def _remember(
    folder: Path,
    matches: Sequence[Match],
    places: Sequence[Path],
    facts: Mapping[str, Any],
    label: str | None,
) -> None:
    device = record.device_label(facts["machine"], label)
    for match, place in zip(matches, places, strict=True):
        if match.pairs:
            row = record.summary(match.candidate, [after for _, after in match.pairs], "gate")
            found = {"device": device, "when": facts["when"], "git": facts["git"], **row}
            found["path"] = str(place.absolute())
            history.remember(folder, found)


def _accept(
    matches: Sequence[Match],
    candidates: Sequence[Path],
    baselines: Sequence[Path],
    reason: str,
    outcome: dict[str, Any],
) -> None:
    """Move the baselines; what was not measured is not accepted."""
    if outcome["exit_code"] == judge.UNMEASURED:
        raise SetupError(f"nothing is accepted that was not measured ({outcome['verdict']})")
    for match, place, path in zip(matches, candidates, baselines, strict=True):
        checks = [
            {"name": check["name"], "verdict": check["verdict"]}
            for check in outcome["checks"]
            if check["bundle"] == match.name
        ]
        pointer.accept(path, match.candidate, place, reason, checks)
    outcome.update(accepted=reason, exit_code=0)


def _first(candidates: list[Path], baselines: list[Path], reason: str) -> dict[str, Any]:
    """Accept the first baselines: there is nothing to measure them against."""
    for place, path in zip(candidates, baselines, strict=True):
        with open_bundle(place) as bundle:
            refuse_replayed(bundle)
            pointer.accept(path, bundle, place, reason, [])
    return {
        "kind": "gate",
        "checks": [],
        "verdict": "accepted as the first baseline",
        "exit_code": 0,
        "pairs": [],
        "notes": [],
        "accepted": reason,
    }
