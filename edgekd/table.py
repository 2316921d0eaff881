"""The table of a bundle: every network that was measured, as strings.

One source for the command line, the README and the report. A number has its unit in the head of
its column or behind it; what was not run says so and a footnote says why.

    print(plain_text(bundle.manifest))
    print(markdown([cpu.manifest, jetson.manifest]))
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import Any

__all__ = [
    "Table",
    "columns",
    "count",
    "markdown",
    "metric",
    "metric_names",
    "plain_text",
    "quantity",
    "rows",
    "scale_of",
    "size",
    "tabulate",
]

Manifest = Mapping[str, Any]
Manifests = Manifest | Sequence[Manifest]
Row = Mapping[str, Any]

NOTHING = "–"
NOT_RUN = "not run"
SHIPS = "► "
_SHARES = re.compile(r"shot|accura|recall|precision|\bf1\b|top-\d|share", re.IGNORECASE)
"""Names of metrics that are shares of one, where the task names no unit."""


@dataclass(frozen=True)
class Table:
    """A table of strings.

    Attributes:
        columns: Heads, with units.
        rows: Cells; the network that ships is marked ``►``.
        notes: Why something was not run; a cell refers to note n as ``not run [n]``.
        remarks: What else must be known to read it.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    remarks: tuple[str, ...] = ()


class Notes:
    """Footnotes, each sentence once."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def refer(self, text: str) -> str:
        """Return the cell that refers to a footnote."""
        if text not in self.texts:
            self.texts.append(text)
        return f"{NOT_RUN} [{self.texts.index(text) + 1}]"


Cell = Callable[[Row, Notes], str]


def tabulate(manifests: Manifests) -> Table:
    """Make the table of one bundle, or of several with a column for the target."""
    many, notes = _listed(manifests), Notes()
    cells = _cells(many)
    lines = [
        (*_target(manifest, len(many)), *(cell(row, notes) for cell in cells.values()))
        for manifest in many
        for row in manifest["rows"]
    ]
    heads = (*(("target",) if len(many) > 1 else ()), *cells)
    remarks = dict.fromkeys(f"{m['undistilled']}." for m in many if "undistilled" in m)
    return Table(heads, tuple(lines), tuple(notes.texts), tuple(remarks))


def columns(manifests: Manifests) -> list[str]:
    """Return the heads."""
    return list(tabulate(manifests).columns)


def rows(manifests: Manifests) -> list[list[str]]:
    """Return the cells."""
    return [list(row) for row in tabulate(manifests).rows]


def plain_text(manifests: Manifests, width: int | None = None) -> str:
    """Write the table for a terminal: aligned, numbers to the right, footnotes below.

    Args:
        manifests: One or several.
        width: Characters a line may have; the columns then go into blocks below one another,
            each beginning with the network. None for one wide table.
    """
    table = tabulate(manifests)
    lines = [table.columns, *table.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.columns))]
    blocks = [
        _block(lines, widths, chosen, _words(table.columns)) for chosen in _fit(widths, width)
    ]
    return "\n".join(["\n\n".join(blocks), *_footnotes(table)]) + "\n"


def _fit(widths: Sequence[int], limit: int | None) -> list[list[int]]:
    """Divide the columns into blocks that fit; the first column leads each."""
    blocks, used = [[0]], widths[0]
    for column in range(1, len(widths)):
        if limit is not None and used + 2 + widths[column] > limit and len(blocks[-1]) > 1:
            blocks.append([0])
            used = widths[0]
        blocks[-1].append(column)
        used += 2 + widths[column]
    return blocks


def _block(
    lines: Sequence[Sequence[str]], widths: Sequence[int], columns: Sequence[int], words: int
) -> str:
    widths = [widths[column] for column in columns]
    left = sum(column < words for column in columns)
    head, *rest = [_aligned([line[c] for c in columns], widths, left) for line in lines]
    return "\n".join([head, "  ".join("─" * width for width in widths), *rest])


def markdown(manifests: Manifests) -> str:
    """Write the table in GitHub's Markdown, footnotes below."""
    table = tabulate(manifests)
    left = _words(table.columns)
    rule = [":---" if index < left else "---:" for index in range(len(table.columns))]
    lines = [_piped(line) for line in (table.columns, rule, *table.rows)]
    notes = [f"{note}  " for note in _footnotes(table)]
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"


def count(value: int | None) -> str:
    """Write a number of parameters or operations: ``951 k``, ``12.4 M``, ``1.30 G``."""
    if value is None:
        return NOTHING
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= limit * 0.9995:
            return _three(value / limit) + unit
    return str(value)


def size(value: int | None) -> str:
    """Write a number of bytes in binary units: ``1.25 MiB``."""
    if value is None:
        return NOTHING
    for limit, unit in ((2**30, " GiB"), (2**20, " MiB"), (2**10, " KiB")):
        if value >= limit * 0.9995:
            return _three(value / limit) + unit
    return f"{value} B"


def quantity(value: float | None) -> str:
    """Write a measured quantity in about three digits, without its unit."""
    return NOTHING if value is None else _three(value)


def metric(name: str, value: Row, *, interval: bool = True) -> str:
    """Write a metric and half the width of its 95 % interval.

    Shares of one are written in percent, all else as it is. An interval that is not symmetric is
    written with both its ends.

    Args:
        name: Name of the metric.
        value: ``value``, ``low``, ``high``; ``unit`` where the task names one.
        interval: Whether to write the interval.
    """
    low, high, middle = value.get("low"), value.get("high"), value["value"]
    scale, unit = scale_of(name, value)
    if not interval or low is None or high is None:
        return f"{_digits(middle * scale, None)}{unit}"
    half = (high - low) / 2
    shown = _digits(middle * scale, half * scale)
    if abs((low + high) / 2 - middle) <= 0.05 * half:
        return f"{shown} ± {_digits(half * scale, half * scale)}{unit}"
    ends = ", ".join(_digits(end * scale, half * scale) for end in (low, high))
    return f"{shown} [{ends}]{unit}"


def scale_of(name: str, value: Row) -> tuple[float, str]:
    """Return the factor and the unit to write a metric in: percent for a share of one."""
    unit = value.get("unit")
    if unit == "%" or (unit is None and _SHARES.search(name)):
        return 100.0, " %"
    return 1.0, f" {unit}" if unit else ""


def metric_names(manifests: Manifests) -> list[str]:
    """Return the metrics that any row carries, in order of appearance."""
    found = (name for m in _listed(manifests) for row in m["rows"] for name in row["metrics"])
    return list(dict.fromkeys(found))


def _listed(manifests: Manifests) -> Sequence[Manifest]:
    return [manifests] if isinstance(manifests, Mapping) else manifests


def _target(manifest: Manifest, bundles: int) -> tuple[str, ...]:
    return (str(manifest["target"]["name"]),) if bundles > 1 else ()


def _cells(manifests: Sequence[Manifest]) -> dict[str, Cell]:
    """Return the columns: head → what makes a cell of a row."""
    metrics = {name: _metric_cell(name) for name in metric_names(manifests)}
    rows = [row for m in manifests for row in m["rows"]]
    sensed = any("net_mj" in row["latency"].get("energy", {}) for row in rows)
    return {
        "network": lambda row, notes: (SHIPS if row["shipped"] else "") + str(row["label"]),
        "runtime": lambda row, notes: str(row["runtime"]),
        "precision": lambda row, notes: str(row["precision"]),
        "parameters": lambda row, notes: count(row["params"]),
        "MACs": lambda row, notes: count(row["macs"]),
        "file size": lambda row, notes: size(row["file_bytes"]),
        **metrics,
        "p50 / p99 wall, ms": _latency_cell(_wall),
        "CPU, ms": _latency_cell(lambda latency: quantity(latency["cpu_ms"]["p50"])),
        "threads / load": _latency_cell(_threads),
        "peak RSS, MiB": _latency_cell(lambda latency: quantity(latency["rss_mib"])),
        **({"energy, mJ": _latency_cell(_energy)} if sensed else {}),
    }


def _metric_cell(name: str) -> Cell:
    def cell(row: Row, notes: Notes) -> str:
        value = row["metrics"].get(name)
        if value is None:
            return NOTHING
        return notes.refer(value["not_run"]) if "not_run" in value else metric(name, value)

    return cell


def _latency_cell(write: Callable[[Row], str]) -> Cell:
    def cell(row: Row, notes: Notes) -> str:
        latency = row["latency"]
        return notes.refer(latency["not_run"]) if "not_run" in latency else write(latency)

    return cell


def _wall(latency: Row) -> str:
    wall = latency["wall_ms"]
    return f"{quantity(wall['p50'])} / {quantity(wall['p99'])}"


def _energy(latency: Row) -> str:
    """Millijoules an inference, the idle board's share taken off."""
    net = latency.get("energy", {}).get("net_mj")
    return NOTHING if net is None else str(quantity(net))


def _threads(latency: Row) -> str:
    threads, load = latency["threads"], latency["load"]
    return f"{threads or NOTHING} / {NOTHING if load is None else f'{load:.1f}'}"


def _three(value: float) -> str:
    """Write about three digits: 0.123, 1.23, 12.3, 123, 1234."""
    for limit, places in ((99.95, 0), (9.995, 1), (0.9995, 2)):
        if abs(value) >= limit:
            return f"{value:.{places}f}"
    return f"{value:.3f}"


def _digits(value: float, half: float | None) -> str:
    """Write a value to the first two digits of its uncertainty, at most four places."""
    if half is None or half <= 0:
        return f"{value:.4g}"
    places = 0
    while places < 4 and round(half * 10**places) < 10:
        places += 1
    return f"{value:.{places}f}"


def _words(heads: Iterable[str]) -> int:
    """Return how many columns, from the left, hold words."""
    return 1 + list(heads).index("precision")


def _aligned(line: Sequence[str], widths: Sequence[int], left: int) -> str:
    cells = [
        f"{cell:<{width}}" if index < left else f"{cell:>{width}}"
        for index, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _piped(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _footnotes(table: Table) -> list[str]:
    notes = list(starmap("[{}] {}".format, enumerate(table.notes, start=1)))
    ships = any(cell.startswith(SHIPS) for row in table.rows for cell in row)
    return [*([f"{SHIPS}ships"] if ships else []), *notes, *table.remarks]
