"""Two bundles, or two files of results, side by side: differences, intervals, pictures."""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from html import escape
from pathlib import Path
from typing import Any

from edgekd.bench import draw, recorded
from edgekd.bench.draw import Point
from edgekd.bench.judge import UNITS, WORDS, Pair, comparable, witnesses
from edgekd.bench.measure import Process, Settings, log_ratios, opened, rounds
from edgekd.bench.outputs import figure
from edgekd.bench.stats import Shift, centre, mann_whitney, pair_shift, sample_shift, signed_rank
from edgekd.bundle import open_bundle
from edgekd.device.lease import lease
from edgekd.errors import UsageError
from edgekd.events import Emit, Progress, silent

Row = dict[str, Any]


def compare(
    a: Path,
    b: Path,
    *,
    rounds: int = 0,
    threads: int | None = None,
    pin: int | None = None,
    on: str = "local",
    wait: float = 600,
    emit: Emit = silent,
) -> dict[str, Any]:
    """Put two bundles or two files of results side by side.

    Args:
        a: Bundle, or results of ``bench`` or ``gate`` (``.jsonl``).
        b: The same kind as ``a``.
        rounds: Rounds of fresh processes to measure of two bundles now; 0 takes what their
            manifests recorded.
        threads: Threads of the runtime.
        pin: Core to run on.
        on: Where rounds are measured: ``local``, ``ssh:HOST``, or a name of the user's list.
        wait: Seconds to wait for another job on the board.
        emit: Progress.

    Returns:
        ``rows``: name, values ``a`` and ``b``, ``unit``, relative ``change`` and, where it was
        measured, its interval ``low``/``high``, ``p`` (two-sided) and ``above``, the chance that
        b is larger; ``samples`` for pictures; ``notes``.

    Raises:
        UsageError: One is a bundle and the other is not, or they share nothing.
    """
    files = [path.suffix == ".jsonl" for path in (a, b)]
    if all(files):
        return _results(a, b)
    if any(files):
        raise UsageError("a bundle and a file of results cannot be compared", at=f"{a} {b}")
    return _bundles(a, b, rounds, Settings(threads or 0, pin=pin, on=on), wait, emit)


def _bundles(
    a: Path, b: Path, count: int, settings: Settings, wait: float, emit: Emit
) -> dict[str, Any]:
    with open_bundle(a) as first, open_bundle(b) as second:
        old, new = first.manifest, second.manifest
        digests = [first.digest, second.digest]
    rows = [_row("size", old["artefact"]["bytes"], new["artefact"]["bytes"], "bytes")]
    rows += _scores(old, new)
    rows += _latencies(old, new)
    machines = [manifest["measured"]["machine"].get("cpu") for manifest in (old, new)]
    notes = [f"recorded latency is from {machines[0]} and {machines[1]}"]
    if machines[0] == machines[1]:
        notes = [f"recorded on {machines[0]}, but not together: see --rounds"]
    samples: dict[str, Any] = {}
    if count:
        measure = new["target"].get("measure", {})
        settings = replace(settings, threads=settings.threads or measure.get("threads", 1))
        pairs = _measured(a, b, settings, count, wait, emit)
        rows += [_witness(name, pairs) for name in witnesses(pairs)]
        samples = _samples([pair[0] for pair in pairs], [pair[1] for pair in pairs])
        notes = [comparable(pairs) or f"measured side by side in {count} rounds of fresh processes"]
    return {
        "kind": "bundles",
        "a": {"path": str(a), "name": old["name"], "digest": digests[0]},
        "b": {"path": str(b), "name": new["name"], "digest": digests[1]},
        "rows": rows,
        "samples": samples,
        "notes": notes,
    }


def _row(name: str, a: float, b: float, unit: str, **more: Any) -> Row:
    change = b / a - 1 if a else None
    return {"name": name, "a": a, "b": b, "unit": unit, "change": change, **more}


def _scores(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Row]:
    first, second = (
        next(row for row in manifest["rows"] if row["shipped"])["metrics"]
        for manifest in (old, new)
    )
    rows = []
    for name in first:
        if name in second and "value" in first[name] and "value" in second[name]:
            between = [[m.get("low"), m.get("high")] for m in (first[name], second[name])]
            row = _row(name, first[name]["value"], second[name]["value"], "", intervals=between)
            rows.append(row)
    return rows


def _latencies(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Row]:
    first, second = (
        next(row for row in manifest["rows"] if row["shipped"])["latency"]
        for manifest in (old, new)
    )
    if "not_run" in first or "not_run" in second:
        return []
    return [
        _row("recorded p50", first["wall_ms"]["p50"], second["wall_ms"]["p50"], "ms"),
        _row("recorded p99", first["wall_ms"]["p99"], second["wall_ms"]["p99"], "ms"),
    ]


def _measured(
    a: Path, b: Path, settings: Settings, count: int, wait: float, emit: Emit
) -> list[Pair]:
    progress = Progress(emit, "compare", count, "rounds")
    pairs: list[Pair] = []
    with opened({"a": a, "b": b}) as both, lease(wait, emit, settings.on):
        contestants = [contestant for _, contestant in both.values()]
        seed = random.randrange(2**32)
        for first, second in itertools.islice(rounds(contestants, settings, seed), count):
            pairs.append((first, second))
            progress.advance()
    return pairs


def _witness(name: str, pairs: Sequence[Pair]) -> Row:
    logs = [log_ratios(*pair)[name] for pair in pairs]
    middles = [
        statistics.median(recorded.figure([pair[side] for pair in pairs])[name]) for side in (0, 1)
    ]
    p = min(1.0, 2 * min(signed_rank(logs), signed_rank([-v for v in logs])))
    return _effect(name, middles, pair_shift(logs), p, sum(v > 0 for v in logs) / len(logs))


def _effect(name: str, middles: Sequence[float], shift: Shift, p: float, above: float) -> Row:
    row = {"name": f"measured {WORDS[name]}", "a": middles[0], "b": middles[1], "unit": UNITS[name]}
    return {
        **row,
        "change": shift.value,
        "low": shift.low,
        "high": shift.high,
        "p": p,
        "above": above,
    }


def _samples(first: Sequence[Process], second: Sequence[Process]) -> dict[str, Any]:
    one, two = recorded.figure(first), recorded.figure(second)
    return {name: {"a": list(one[name]), "b": list(two[name])} for name in one if name in two}


def _results(a: Path, b: Path) -> dict[str, Any]:
    before, after = recorded.processes(a), recorded.processes(b)
    shared = [name for name in before if name in after]
    if not shared:
        raise UsageError("the two files have no bundle in common", at=f"{a} {b}")
    rows, samples, notes = [], {}, []
    for bundle in shared:
        first, second = before[bundle], after[bundle]
        one, two = recorded.relative(first), recorded.relative(second)
        plain = _samples(first, second)
        for name in plain:
            middles = [statistics.median(plain[name][side]) for side in ("a", "b")]
            p_values = (mann_whitney(one[name], two[name]), mann_whitney(two[name], one[name]))
            above = statistics.fmean((y > x) + 0.5 * (y == x) for x in one[name] for y in two[name])
            shift = sample_shift(one[name], two[name])
            row = _effect(name, middles, shift, min(1.0, 2 * min(p_values)), above)
            rows.append({**row, "name": f"{bundle}: {row['name']}"})
            samples[f"{bundle}: {name}"] = plain[name]
        apart = recorded.not_comparable(first, second)
        notes.append(f"{bundle}: {apart or 'not measured together'}")
    notes.append("changes of times are relative to the reference kernel of each run")
    sides = {side: {"path": str(path)} for side, path in (("a", a), ("b", b))}
    return {"kind": "results", **sides, "rows": rows, "samples": samples, "notes": notes}


# --- for people ----------------------------------------------------------------------------------


def cells(row: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    """Return a row as text: name, a, b, change with interval, effect."""
    a, b = (f"{figure(row[side])} {row['unit']}".strip() for side in ("a", "b"))
    change = "" if row["change"] is None else f"{100 * row['change']:+.2f} %"
    effect = ""
    if "low" in row:
        change += f" [{100 * row['low']:+.2f}, {100 * row['high']:+.2f}]"
        effect = f"b larger in {100 * row['above']:.0f} %, p {row['p']:.2g}"
    if "intervals" in row and None not in row["intervals"][0] + row["intervals"][1]:
        between = [f"[{figure(low)}, {figure(high)}]" for low, high in row["intervals"]]
        a, b = f"{a} {between[0]}", f"{b} {between[1]}"
    return row["name"], a, b, change, effect


HEADER = ("", "A", "B", "CHANGE (95 %)", "EFFECT")


def page(found: Mapping[str, Any], tolerance: float = 0.01) -> str:
    """Return a page with the table and the pictures."""
    head = "".join(f"<th>{escape(name)}</th>" for name in HEADER)
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells(row)) + "</tr>"
        for row in found["rows"]
    )
    body = [
        "<h1>Side by side</h1>",
        f"<p>A: {_called(found['a'])}<br>B: {_called(found['b'])}</p>",
        f'<div class="wide"><table><tr>{head}</tr>{lines}</table></div>',
        *(f"<p>{escape(note)}</p>" for note in found["notes"]),
    ]
    measured = [row for row in found["rows"] if "low" in row]
    if measured:
        points = [
            (row["name"].removeprefix("measured "), _point(row, cells(row)[3])) for row in measured
        ]
        body.append("<h2>Change from A to B, with 95 % intervals</h2>")
        body.append(f'<div class="wide">{draw.intervals(points, tolerance)}</div>')
    for name, sides in found["samples"].items():
        unit = UNITS[name.rpartition(": ")[2]]
        rows = [(side.upper(), values, _centre(side, values)) for side, values in sides.items()]
        body.append(f"<h2>{escape(WORDS.get(name, name))}, a dot for each fresh process</h2>")
        body.append(f'<div class="wide">{draw.strips(rows, unit)}</div>')
    return draw.page("edgekd: compare", "\n".join(body))


def _called(side: Mapping[str, Any]) -> str:
    name = f"{side['name']}, " if "name" in side else ""
    digest = f", {str(side['digest'])[:16]}" if "digest" in side else ""
    return f"{escape(name)}<code>{escape(side['path'])}</code>{escape(digest)}"


def _point(row: Mapping[str, Any], title: str) -> Point:
    return Point(row["change"], row["low"], row["high"], f"{row['name']}: {title}")


def _centre(side: str, values: Sequence[float]) -> Point:
    found: Mapping[str, float] = asdict(centre(values))
    title = f"{side.upper()}: {found['value']:.4g} [{found['low']:.4g}, {found['high']:.4g}]"
    return Point(found["value"], found["low"], found["high"], title)
