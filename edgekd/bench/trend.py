"""The trend page: every metric of every bundle on every board, over the recorded runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from edgekd.bench import draw
from edgekd.bench.draw import Point
from edgekd.bench.outputs import QUANTITIES, figure
from edgekd.bench.stats import mann_whitney, sample_shift

Row = Mapping[str, Any]

_LEAST = 5
"""Runs on each side of a change point, at least."""
_CHANCE = 0.01
_CHANGE = 0.01


def page(rows: Sequence[Row], place: Path | None = None) -> str:
    """Return the page.

    Args:
        rows: Records of a history, by time; see `edgekd.bench.history.recall`.
        place: Where the page will lie, so that links to bundles are relative.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((str(row["device"]), str(row["name"])), []).append(row)
    runs = len({(row.get("run"), row["when"]) for row in rows})
    boards = len({device for device, _ in groups})
    body = [
        "<h1>Measured, run by run</h1>",
        f"<p>Bundles: {len(groups)}, boards: {boards}, runs: {runs}. The band is the 95 % interval "
        "of the centre over fresh processes. It does not hold the differences between days: two "
        "runs of one artefact may differ by more, so this page shows and "
        "<code>edgekd gate</code> decides.</p>",
    ]
    if not groups:
        body.append("<p>Nothing has been recorded yet.</p>")
    for (device, name), found in groups.items():
        body.append(_section(device, name, found, place))
    return draw.page("edgekd: trend", "\n".join(body))


def _section(device: str, name: str, rows: Sequence[Row], place: Path | None) -> str:
    last = rows[-1]
    parts = [
        f"<section><h2>{escape(name)} on {escape(device)}</h2>",
        f'<p class="soft">last: {escape(str(last["when"]))}, {escape(str(last["candidate"]))}, '
        f"{escape(str(last['runtime']))}, load {last['load']:.1f}, {_bundle(last, place)}</p>",
    ]
    names = list(dict.fromkeys(key for row in rows for key in row["metrics"]))
    for key in names:
        have = [row for row in rows if key in row["metrics"]]
        parts.append(_metric(key, have, place))
    return "\n".join([*parts, "</section>"])


def _metric(key: str, rows: Sequence[Row], place: Path | None) -> str:
    unit = str(rows[-1]["metrics"][key]["unit"])
    title = QUANTITIES[key][0] if key in QUANTITIES else f"task metric: {unit}"
    points = [_point(key, row, place) for row in rows]
    values = [point.value for point in points]
    changes = change_points(values)
    said = "".join(
        f'<p><span class="bad">change</span> at {escape(str(rows[index]["when"]))}: '
        f"{100 * (_level(values[index:]) / _level(values[:index]) - 1):+.1f} %</p>"
        for index in changes
    )
    latest = f"{figure(points[-1].value)} {escape(unit)}"
    picture = draw.trend(points, unit, changes)
    return f'<h3>{escape(title)}: {latest}</h3>\n<div class="wide">{picture}</div>{said}'


def _level(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2] or 1e-12


def _point(key: str, row: Row, place: Path | None) -> Point:
    metric = row["metrics"][key]
    low, high = metric.get("low"), metric.get("high")
    between = "" if low is None or high is None else f" [{figure(low)}, {figure(high)}]"
    git = f", {str(row['git'])[:12]}" if row.get("git") else ""
    title = f"{row['when']}: {figure(metric['value'])}{between} {metric['unit']}{git}"
    return Point(float(metric["value"]), low, high, title, _link(row, place))


def _bundle(row: Row, place: Path | None) -> str:
    digest = f"bundle {escape(str(row['digest'])[:16])}"
    link = _link(row, place)
    return f'<a href="{escape(link)}">{digest}</a>' if link else digest


def _link(row: Row, place: Path | None) -> str:
    """Return the way to a bundle's report from the page; empty where it is not known."""
    path = row.get("path")
    if not path or place is None:
        return ""
    report = Path(str(path)) / "report.html"
    return Path(os.path.relpath(report, place.absolute().parent)).as_posix()


def change_points(values: Sequence[float]) -> list[int]:
    """Return where a series changes its level for good, by splitting it where it differs most.

    A split counts when it is significant for all the places it could have been at, and larger
    than 1 %; both halves are then searched.
    """
    return sorted(_split(list(values), 0))


def _split(values: list[float], offset: int) -> list[int]:
    places = range(_LEAST, len(values) - _LEAST + 1)
    if not places or min(values) <= 0:
        return []
    found = [(_p_value(values[:i], values[i:]), i) for i in places]
    p, index = min(found)
    shift = sample_shift(values[:index], values[index:])
    if p * len(places) > _CHANCE or abs(shift.value) < _CHANGE:
        return []
    left = _split(values[:index], offset)
    return [*left, offset + index, *_split(values[index:], offset + index)]


def _p_value(first: Sequence[float], second: Sequence[float]) -> float:
    return min(1.0, 2 * min(mann_whitney(first, second), mann_whitney(second, first)))
