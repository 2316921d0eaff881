"""The report: one HTML page from a manifest, readable offline, on a phone, in the dark, on paper.

Nothing is computed here but widths: every number is the manifest's, written by `edgekd.table`.
Charts are HTML and a little inline SVG instead of drawings of fixed size, so that their words stay
as large as the text around them on any screen and take their colours from the page.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from edgekd import extras
from edgekd.frontier import explored
from edgekd.table import count, metric, metric_names, quantity, scale_of, size, tabulate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["render_report"]

Manifest = Mapping[str, Any]
Row = Mapping[str, Any]
Facts = list[tuple[str, str]]

TEMPLATE = "templates/report.html.j2"
BINS = 72
SHOWN_IMAGES = 8
NOTHING = "–"


def render_report(
    manifest: Manifest,
    *,
    examples: Mapping[str, NDArray[np.uint8]] | None = None,
    curves: Mapping[str, Sequence[float]] | None = None,
) -> str:
    """Write the report of a bundle.

    Args:
        manifest: The bundle's manifest; nothing else is read.
        examples: Class → images (n, height, width, channels), 1 or 3 channels.
        curves: Training → loss of each epoch; the manifest's own when None.

    Returns:
        HTML without scripts and without links to anywhere; equal input gives an equal page.

    Raises:
        SetupError: jinja2 is not installed.
    """
    template = _template()
    return str(
        template.render(
            manifest=manifest,
            headline=_headline(manifest),
            proven=_proven(manifest),
            table=tabulate(manifest),
            shipped=[bool(row["shipped"]) for row in manifest["rows"]],
            examples=_examples(examples or {}),
            accuracy=_accuracy(manifest),
            gains=_gains(manifest),
            confusion=_confusion(manifest),
            latencies=_latencies(manifest["rows"]),
            costs=_costs(manifest["rows"]),
            tradeoff=_tradeoff(manifest),
            response=_response(manifest),
            candidates=_candidates(manifest),
            parity=[_hop(hop) for hop in manifest["parity"]],
            curves=_curves(_histories(manifest) if curves is None else curves),
            provenance=_provenance(manifest),
            commands=_commands(manifest),
            joint=_joint(manifest),
            parts=[_part(name, part) for name, part in manifest.get("parts", {}).items()],
        )
    )


def _template() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise extras.missing("jinja2", "the report") from error
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    source = files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(source)


# The head


def _headline(manifest: Manifest) -> list[dict[str, str]]:
    """Return the figures of what ships that a reader looks for first."""
    row = _shipped(manifest)
    if row is None:
        return []
    latency = row["latency"]
    measured = "not_run" not in latency
    primary = row["metrics"].get(row["primary"])
    tiles = [
        _tile(row["primary"], _score(row["primary"], primary), _interval_note(row, primary)),
        _tile("file size", size(row["file_bytes"]), f"{count(row['params'])} parameters"),
    ]
    if measured:
        wall, cpu = latency["wall_ms"], latency["cpu_ms"]
        threads = latency["threads"]
        note = "1 thread" if threads == 1 else f"{threads or 'unknown number of'} threads"
        tiles += [
            _tile("latency, p50", f"{quantity(wall['p50'])} ms", f"p99 {quantity(wall['p99'])} ms"),
            _tile("processor time", f"{quantity(cpu['p50'])} ms", note),
        ]
    else:
        tiles.append(_tile("latency", "not run", latency["not_run"]))
    return tiles


def _tile(name: str, value: str, note: str) -> dict[str, str]:
    return {"name": name, "value": value, "note": note}


def _shipped(manifest: Manifest) -> Row | None:
    return next((row for row in manifest["rows"] if row["shipped"]), None)


def _score(name: str, value: Row | None) -> str:
    if value is None or "not_run" in value:
        return "not run"
    return metric(name, value)


def _interval_note(row: Row, value: Row | None) -> str:
    if value is None:
        return "no such metric was measured"
    if "not_run" in value:
        return str(value["not_run"])
    return f"measured, 95 % interval, n = {value['n']}"


def _proven(manifest: Manifest) -> dict[str, Any]:
    ladder = manifest["ladder"]
    tally = {name: sum(rung["status"] == name for rung in ladder) for name in _WORDS}
    return {"rungs": [_rung(rung) for rung in ladder], "of": len(ladder), **tally}


_WORDS = {"passed": "passed", "failed": "failed", "not_run": "not run", "replay": "replay"}


def _rung(rung: Row) -> dict[str, Any]:
    why = rung.get("why") or ("" if rung["status"] == "passed" else "no reason given")
    facts = [(str(name), _plain(value)) for name, value in (rung.get("facts") or {}).items()]
    return {**rung, "word": _WORDS[rung["status"]], "why": _plain(why), "facts": facts}


# Charts: every position is a share of the track's width, in percent


def _accuracy(manifest: Manifest) -> list[dict[str, Any]]:
    """Return one panel a metric: value and interval of every row on a common axis."""
    return [_panel(name, manifest["rows"]) for name in metric_names(manifest)]


def _panel(name: str, rows: Sequence[Row]) -> dict[str, Any]:
    known = [row for row in rows if _measured(row["metrics"].get(name))]
    ends = [end for row in known for end in _ends(row["metrics"][name])]
    axis = _Axis.linear(ends)
    lines = []
    for row in known:
        value = row["metrics"][name]
        low, high = _ends(value)
        lines.append(
            {
                "label": row["label"],
                "kind": row["kind"],
                "shipped": row["shipped"],
                "text": metric(name, value),
                "at": axis.at(value["value"]),
                "from": axis.at(low),
                "width": round(axis.at(high) - axis.at(low), 2),
            }
        )
    scale, unit = scale_of(name, known[0]["metrics"][name]) if known else (1.0, "")
    units = sorted({row["metrics"][name]["n"] for row in known})
    return {
        "name": name,
        "lines": lines,
        "ticks": [(axis.at(tick), f"{tick * scale:.6g}{unit}") for tick in axis.ticks],
        "n": " or ".join(map(str, units)),
    }


def _measured(value: Row | None) -> bool:
    return value is not None and "not_run" not in value


def _ends(value: Row) -> tuple[float, float]:
    """Return the interval, or the value twice where there is none."""
    middle = float(value["value"])
    low, high = value.get("low"), value.get("high")
    return (middle if low is None else float(low)), (middle if high is None else float(high))


class _Axis:
    """Where a value stands between the ends of a track."""

    def __init__(self, low: float, high: float, ticks: Sequence[float], log: bool) -> None:
        self.ticks = list(ticks)
        self._log = log
        self._low, self._high = self._place(low), self._place(high)

    def _place(self, value: float) -> float:
        return math.log10(value) if self._log else value

    def at(self, value: float) -> float:
        """Return the place of a value, 0 to 100."""
        share = (self._place(value) - self._low) / (self._high - self._low)
        return round(100 * min(1.0, max(0.0, share)), 2)

    @classmethod
    def linear(cls, values: Sequence[float]) -> _Axis:
        """Span the values, rounded out to whole steps."""
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        step = _step((high - low) or abs(high) or 1.0)
        first, last = math.floor(low / step), math.ceil(high / step)
        last = max(last, first + 1)
        ticks = [index * step for index in range(first, last + 1)]
        return cls(ticks[0], ticks[-1], ticks, log=False)

    @classmethod
    def logarithmic(cls, values: Sequence[float]) -> _Axis:
        """Span positive values with ticks at 1, 2 and 5 times powers of ten."""
        low, high = min(values), max(values)
        low, high = low / 1.1, high * 1.1
        powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
        marks = [lead * 10.0**power for power in powers for lead in (1, 2, 5)]
        below, above = max(m for m in marks if m <= low), min(m for m in marks if m >= high)
        ticks = [mark for mark in marks if below <= mark <= above]
        if len(ticks) > 9:
            ticks = [tick for tick in ticks if f"{tick:e}"[0] == "1"]
        return cls(below, above, ticks, log=True)


def _step(span: float) -> float:
    """Return a round step that divides a span into four to eight parts."""
    raw = span / 4
    power = 10.0 ** math.floor(math.log10(raw))
    return max(lead * power for lead in (1.0, 2.0, 5.0) if lead * power <= raw * 1.0000001)


def _latencies(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the spread of wall times of every row on one logarithmic axis."""
    timed = [row for row in rows if row["latency"].get("samples_ms")]
    skipped = [(row["label"], row["latency"]["not_run"]) for row in rows if _skipped(row)]
    if not timed:
        return {"lines": [], "ticks": [], "skipped": skipped}
    values = [v for row in timed for v in row["latency"]["samples_ms"] if v > 0]
    values += [row["latency"]["wall_ms"][q] for row in timed for q in ("p50", "p99")]
    axis = _Axis.logarithmic(values)
    return {
        "lines": [_latency_line(row, axis) for row in timed],
        "ticks": [(axis.at(tick), f"{tick:.6g} ms") for tick in axis.ticks],
        "skipped": skipped,
    }


def _skipped(row: Row) -> bool:
    return "not_run" in row["latency"] and row["kind"] not in ("trivial", "bound")


def _latency_line(row: Row, axis: _Axis) -> dict[str, Any]:
    wall = row["latency"]["wall_ms"]
    return {
        "label": row["label"],
        "kind": row["kind"],
        "shipped": row["shipped"],
        "text": f"{quantity(wall['p50'])} ms",
        "note": f"p99 {quantity(wall['p99'])} ms",
        "p50": axis.at(wall["p50"]),
        "p99": axis.at(wall["p99"]),
        "shape": _histogram([axis.at(v) for v in row["latency"]["samples_ms"] if v > 0]),
        "n": row["latency"]["n"],
    }


def _histogram(places: Sequence[float]) -> str:
    """Return an SVG path, 100 wide and 20 high, of how often each place occurs."""
    tally = [0] * BINS
    for place in places:
        tally[min(BINS - 1, int(place / 100 * BINS))] += 1
    peak = max(tally) or 1
    wide = 100 / BINS
    path = "M0 20"
    for index, number in enumerate(tally):
        if number:
            left, height = index * wide, max(1.2, 19 * math.sqrt(number / peak))
            path += f"M{left:.2f} 20v-{height:.2f}h{wide:.2f}V20z"
    return path


def _costs(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return bars of file size, operations and parameters."""
    kinds = (
        ("File size", "file_bytes", size),
        ("Multiply–accumulates per sample", "macs", count),
        ("Parameters", "params", count),
    )
    charts = []
    for title, key, write in kinds:
        known = [row for row in rows if row[key]]
        most = max((row[key] for row in known), default=1)
        lines = [
            {
                "label": row["label"],
                "kind": row["kind"],
                "shipped": row["shipped"],
                "text": write(row[key]),
                "width": round(100 * row[key] / most, 2),
            }
            for row in known
        ]
        charts.append({"name": title, "lines": lines})
    return [chart for chart in charts if chart["lines"]]


def _tradeoff(manifest: Manifest) -> dict[str, Any]:
    """Return the primary metric against processor time, and which rows no other one beats.

    A row is beaten by one that takes no more time and is no worse, and better in one of both. A
    bound knows what nobody can know, so it neither beats nor is beaten.
    """
    known = [row for row in manifest["rows"] if _cpu_ms(row) and _measured(_primary(row))]
    if len({_cpu_ms(row) for row in known}) < 2:
        return {"lines": []}
    sign = 1 if manifest.get("higher_is_better", True) else -1
    spots = [(_cpu_ms(row), -sign * _primary(row)["value"]) for row in known]
    able = [s for s, row in zip(spots, known, strict=True) if row["kind"] != "bound"]
    x = _Axis.logarithmic([cpu for cpu, _ in spots])
    y = _Axis.linear([_primary(row)["value"] for row in known])
    name = known[0]["primary"]
    scale, unit = scale_of(name, _primary(known[0]))
    lines = [
        {
            "number": number,
            "label": row["label"],
            "kind": row["kind"],
            "shipped": row["shipped"],
            "x": x.at(cpu),
            "y": y.at(_primary(row)["value"]),
            "text": metric(name, _primary(row)),
            "cpu": f"{quantity(cpu)} ms",
            "knows": row.get("knows") or "",
            "front": row["kind"] != "bound"
            and not any(a <= cpu and b <= bad and (a, b) != (cpu, bad) for a, b in able),
        }
        for number, (row, (cpu, bad)) in enumerate(zip(known, spots, strict=True), 1)
    ]
    return {
        "name": name,
        "lines": lines,
        "x": [(x.at(tick), f"{tick:.6g} ms") for tick in x.ticks],
        "y": [(y.at(tick), f"{tick * scale:.6g}{unit}") for tick in y.ticks],
    }


def _primary(row: Row) -> Row:
    found: Row = row["metrics"].get(row["primary"]) or {"not_run": "no such metric"}
    return found


def _cpu_ms(row: Row) -> float:
    """Processor time of an inference; 0 where none was measured."""
    cpu: Row = row["latency"].get("cpu_ms") or {}
    return float(cpu.get("p50") or 0.0)


def _joint(manifest: Manifest) -> dict[str, Any]:
    """Return what all networks of the bundle decide together, a column a cascade, and its cost."""
    joint = manifest.get("joint")
    if not joint:
        return {}
    roles = joint["rows"]
    lines = [("reach stage 2", [metric("share", joint["share"][role]) for role in roles])]
    lines += [
        (name, [metric(name, roles[role][name]) for role in roles]) for name in roles["shipped"]
    ]
    lines.append(("processor time of a mean flight", [_cost(joint["cost"], r) for r in roles]))
    exported = joint["cost"].get("teacher, exported")
    faults = [
        (name, [_fault(joint["per fault"][role][name]) for role in roles], row["flights"])
        for name, row in joint["per fault"]["shipped"].items()
    ]
    return {
        "heads": [joint["called"][role] for role in roles],
        "lines": lines,
        "exported": exported and f"{_mean_cost(exported)} in {exported['runtime']}",
        "faults": faults,
        "agreement": [
            (f"{joint['called'][role]}: {name}", f"{value:.4g}")
            for role, found in joint["agreement"].items()
            for name, value in found.items()
        ],
        "flights": joint["flights"],
    }


def _cost(costs: Row, role: str) -> str:
    cost = costs[role]
    return f"not run: {cost['not_run']}" if "not_run" in cost else _mean_cost(cost)


def _mean_cost(cost: Row) -> str:
    first, second = (quantity(value) for value in cost["stage_ms"])
    return f"{first} + {cost['share']:.3f} · {second} = {quantity(cost['mean_ms'])} ms"


def _fault(row: Row) -> str:
    return f"{100 * row['flagged']:.0f} % / {100 * row['named']:.0f} %"


def _part(folder: str, part: Manifest) -> dict[str, Any]:
    """Return another network of the bundle: its table; the rest is in its own report."""
    return {
        "folder": folder,
        "artefact": part["artefact"],
        "claims": part["claims"],
        "table": tabulate(part),
        "shipped": [bool(row["shipped"]) for row in part["rows"]],
    }


def _response(manifest: Manifest) -> dict[str, Any]:
    """Return what ships reaches when it is asked for more and for less, on one axis."""
    found = manifest.get("response")
    if not found:
        return {"lines": []}
    axis = _Axis.linear([end for row in found["rows"] for end in _ends(row)])
    lines = []
    for row in found["rows"]:
        low, high = _ends(row)
        lines.append(
            {
                "label": f"{row['asked']:g}",
                "text": metric(found["metric"], row),
                "at": axis.at(row["value"]),
                "from": axis.at(low),
                "width": round(axis.at(high) - axis.at(low), 2),
            }
        )
    ticks = [(axis.at(tick), f"{tick:.6g}") for tick in axis.ticks]
    return {"asked": found["asked"], "name": found["metric"], "lines": lines, "ticks": ticks}


def _histories(manifest: Manifest) -> dict[str, Sequence[float]]:
    trainings = manifest.get("training") or {}
    return {name: made["history"] for name, made in trainings.items() if made.get("history")}


def _curves(histories: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Return the loss of each training as a polyline, 100 wide and 40 high."""
    return [_curve(name, losses) for name, losses in histories.items() if len(losses) > 1]


def _curve(name: str, losses: Sequence[float]) -> dict[str, Any]:
    finite = [loss for loss in losses if math.isfinite(loss)] or [0.0]
    low, high = min(finite), max(finite)
    span = (high - low) or 1.0
    points = " ".join(
        f"{100 * index / (len(losses) - 1):.2f},{38 - 36 * (loss - low) / span:.2f}"
        for index, loss in enumerate(losses)
        if math.isfinite(loss)
    )
    return {
        "name": name,
        "points": points,
        "epochs": len(losses),
        "first": quantity(losses[0]),
        "last": quantity(losses[-1]),
    }


# Tables


def _gains(manifest: Manifest) -> dict[str, Any]:
    """Return paired differences on the test split, where the manifest has them."""
    gains = manifest.get("gains") or {}
    names = list(dict.fromkeys(name for pair in gains.values() for name in pair))
    lines = [
        (pair, [_gain(name, values[name]) if name in values else None for name in names])
        for pair, values in gains.items()
    ]
    return {"names": names, "lines": lines}


def _gain(name: str, value: Row) -> dict[str, Any]:
    scale, unit = scale_of(name, value)
    unit = " points" if unit == " %" else unit
    low, high = value["low"] * scale, value["high"] * scale
    middle = value["value"] * scale
    return {
        "text": _signed(middle) + unit,
        "interval": f"{_signed(low)} to {_signed(high)}",
        "sure": not low <= 0 <= high,
    }


def _confusion(manifest: Manifest) -> dict[str, Any]:
    """What the shipped artefact calls each class, where the task tells: counts and shares."""
    details = (_shipped(manifest) or {}).get("details") or {}
    if not {"classes", "confusion"} <= set(details):
        return {}
    counts: list[list[int]] = details["confusion"]
    named = [sum(column) for column in zip(*counts, strict=True)]
    lines = []
    for place, (name, row) in enumerate(zip(details["classes"], counts, strict=True)):
        right, total = row[place], sum(row)
        shades = [round(100 * n / total) if total else 0 for n in row]
        lines.append(
            {
                "name": name,
                "cells": list(zip(row, shades, strict=True)),
                "total": total,
                "recall": f"{right / total:.0%}" if total else "–",
                "precision": f"{right / named[place]:.0%}" if named[place] else "–",
            }
        )
    return {"classes": list(details["classes"]), "lines": lines}


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _candidates(manifest: Manifest) -> dict[str, Any]:
    """Return everything that was explored: a table, and a picture whose points it numbers."""
    choice = manifest["choice"]
    rows = manifest.get("explored") or explored(choice)  # older bundles have the choice alone
    return {
        "rule": choice["rule"],
        "limit": _limit(choice),
        "by": "processor" if choice.get("by", "cpu_ms") == "cpu_ms" else "wall",
        "lines": [_candidate(row, number) for number, row in enumerate(rows, 1)],
        "picture": _picture(rows, choice.get("limit")),
    }


def _limit(choice: Row) -> str:
    limit, name = choice.get("limit"), choice.get("metric")
    if not isinstance(limit, int | float) or not name:
        return ""
    return f"At most {100 * limit:g} % of {name} may be lost, on validation data."


def _candidate(row: Row, number: int) -> dict[str, Any]:
    loss, sqnr = row["loss"], row["sqnr_db"]
    time = quantity(row["time_ms"])
    return {
        "number": number,
        "name": row["candidate"],
        "precision": row["precision"],
        "runtime": row["runtime"],
        "outcome": row["outcome"],
        "frontier": row["on_frontier"],
        "loss": NOTHING if loss is None else f"{100 * loss:.2f} %".replace("-", "−"),
        "sqnr": NOTHING if sqnr is None else f"{sqnr:.0f}",
        "time": time if row["timed"] != "hint" else f"~{time}",
        "size": size(row["bytes"]),
        "why": row["why"],
    }


def _picture(rows: Sequence[Row], limit: float | None) -> dict[str, Any]:
    """Return time × metric lost × size: a point each, in percent; what was not scored in a strip.

    A loss far beyond the limit would leave no room for the rest: such points stand at the edge.
    """
    timed = [(n, row) for n, row in enumerate(rows, 1) if row["time_ms"]]
    scored = [(n, row) for n, row in timed if row["loss"] is not None]
    if len(scored) < 2:
        return {}
    edge = 3 * max(limit or 0.01, 1e-4)
    losses = [min(row["loss"], edge) for _, row in scored]
    across = _Axis.logarithmic([row["time_ms"] for _, row in timed])
    down = _Axis.linear([*losses, 0.0, *([limit] if limit else [])])
    most = max(row["bytes"] for _, row in timed)
    points = [
        {
            "number": n,
            "name": row["candidate"],
            "outcome": row["outcome"].replace(" ", "-"),
            "frontier": row["on_frontier"],
            "left": across.at(row["time_ms"]),
            "top": down.at(min(row["loss"], edge)),
            "beyond": row["loss"] > edge,
            "wide": round(14 + 26 * math.sqrt(row["bytes"] / most), 1),
        }
        for n, row in scored
    ]
    return {
        "points": sorted(points, key=lambda point: -point["wide"]),
        "strip": [
            {"number": n, "name": row["candidate"], "left": across.at(row["time_ms"])}
            for n, row in timed
            if row["loss"] is None
        ],
        "limit": None if limit is None else down.at(limit),
        "ticks": [(across.at(tick), f"{tick:.6g} ms") for tick in across.ticks],
        "losses": [(down.at(t), f"{100 * t:.4g} %".replace("-", "−")) for t in down.ticks],
    }


def _hop(hop: Row) -> dict[str, str]:
    if "not_run" in hop:
        return {"hop": hop.get("hop", "parity"), "status": "not_run", "why": hop["not_run"]}
    tolerance = hop.get("tolerance") or {}
    bounds = [f"{name.replace('_', ' ')} {value:g}" for name, value in tolerance.items()]
    return {
        "hop": hop["hop"],
        "status": hop["status"],
        "word": _WORDS[hop["status"]],
        "max_abs": _small(hop.get("max_abs")),
        "max_rel": _small(hop.get("max_rel")),
        "cosine": _cosine(hop.get("min_cosine")),
        "n": str(hop.get("n", NOTHING)),
        "tolerance": ", ".join(bounds) or NOTHING,
        "why": "",
    }


def _small(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2g}"


def _cosine(value: float | None) -> str:
    """Write a cosine so that one near 1 does not look like 1."""
    if value is None:
        return NOTHING
    if value < 0.9999:
        return f"{value:.4f}"
    return f"1 − {1 - value:.0e}" if value < 1 else "1"


# Where everything came from


def _provenance(manifest: Manifest) -> list[tuple[str, Facts]]:
    """Return groups of facts: name, value."""
    recipe, inputs, measured = manifest["recipe"], manifest["inputs"], manifest["measured"]
    teacher = inputs.get("teacher") or {}
    artefact = manifest["artefact"]
    seconds = measured.get("seconds_per_step") or {}
    shipped = ("candidate", "runtime", "precision", "options", "main", "bytes")
    groups = [
        ("Recipe", [*((k, recipe[k]) for k in ("name", "digest")), *_leaves(recipe["settings"])]),
        ("Data", _leaves(inputs["data"])),
        ("Teacher", _leaves(teacher)),
        *(("Teacher", _leaves(further)) for further in inputs.get("teachers") or ()),
        ("Artefact", _leaves({k: artefact[k] for k in shipped})),
        ("Input and output", _tensors(manifest["io"])),
        ("Target", _leaves(manifest["target"])),
        ("Machine", [("measured at", measured["when"]), *_leaves(_steady(measured["machine"]))]),
        ("Versions", [("edgekd", manifest["edgekd"]), *_leaves(measured["versions"])]),
        ("Time of each step", [(name, _duration(value)) for name, value in seconds.items()]),
        ("sha256 of every file", sorted((manifest.get("files") or {}).items())),
    ]
    return [(title, facts) for title, facts in groups if facts]


def _steady(machine: Row) -> dict[str, Any]:
    """Leave out what a machine says of one moment only: clocks, temperatures."""
    return {name: value for name, value in machine.items() if name != "state"}


def _leaves(facts: Row, before: str = "") -> Facts:
    found: Facts = []
    for name, value in facts.items():
        if isinstance(value, Mapping) and value:
            found += _leaves(value, f"{before}{name} · ")
        elif value is not None and value not in ("", [], {}):
            found.append((f"{before}{name}".replace("_", " "), _plain(value)))
    return found


def _plain(value: Any) -> str:
    """Write a JSON value for a reader."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items())
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(map(_plain, value))
    return str(value)


def _tensors(io: Row) -> Facts:
    found: Facts = []
    for side in ("inputs", "outputs"):
        for tensor in io[side]:
            shape = " × ".join("n" if part is None else str(part) for part in tensor["shape"])
            found.append((f"{side[:-1]} {tensor['name']}", f"{shape}, {tensor['dtype']}"))
            rest = {k: v for k, v in tensor.items() if k not in ("name", "shape", "dtype")}
            found += _leaves(rest, f"{tensor['name']} · ")
    return found


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def _commands(manifest: Manifest) -> list[str]:
    """Return what makes this bundle again, and what proves it."""
    recipe, name = manifest["recipe"], manifest["name"]
    target = manifest["target"]["name"]
    words = ["edgekd compress", f"--recipe {recipe['name']}", f"--target {target}"]
    words += [f"--set {key}={_argument(value)}" for key, value in recipe["settings"].items()]
    again = " \\\n    ".join([" ".join(words[:3]), *words[3:]])
    return [again, f"edgekd verify {name}", f"edgekd verify {name} --task"]


def _argument(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    plain = all(letter.isalnum() or letter in "._-/+:,=" for letter in text) and text
    return text if plain else "'" + text.replace("'", "'\\''") + "'"


# Pictures


def _examples(examples: Mapping[str, NDArray[np.uint8]]) -> list[tuple[str, list[str], int]]:
    """Return the class, its first images as data URIs, and how many there are."""
    return [
        (name, [_data_uri(image) for image in images[:SHOWN_IMAGES]], len(images))
        for name, images in examples.items()
    ]


def _data_uri(image: NDArray[np.uint8]) -> str:
    return "data:image/png;base64," + base64.b64encode(_png(image)).decode()


def _png(image: NDArray[np.uint8]) -> bytes:
    """Encode an image (height, width, 1 or 3 channels) without a library or a time stamp."""
    height, width, channels = image.shape
    colour = {1: 0, 3: 2}[channels]
    lines = b"".join(b"\0" + image[row].tobytes() for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
