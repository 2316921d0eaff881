"""Pictures as inline SVG, without any library: a lean host draws them, light and dark.

Colours are CSS variables of the page; every mark has a `<title>`, so that values can be read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 30, 14, 34

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1c2024; --soft: #60646c;
 --line: #d9d9e0; --mark: #0b68cb; --band: #0b68cb33; --good: #18794e; --bad: #ce2c31;
 --other: #ad5700; }
@media (prefers-color-scheme: dark) { :root { --paper: #111113; --ink: #edeef0; --soft: #b0b4ba;
 --line: #363a3f; --mark: #70b8ff; --band: #70b8ff33; --good: #3dd68c; --bad: #ff9592;
 --other: #ffca16; } }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif;
 max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; } h3 { font-size: 1rem; }
a { color: var(--mark); } small, .soft { color: var(--soft); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .7rem .25rem 0; text-align: left;
 vertical-align: top; } td.n, th.n { text-align: right; }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; }
svg { max-width: 100%; height: auto; display: block; } svg text { fill: var(--soft);
 font: 11px system-ui, sans-serif; } .wide { overflow-x: auto; }
"""


@dataclass(frozen=True)
class Point:
    """A value with its interval.

    Attributes:
        value: The value.
        low: Lower end; None without an interval.
        high: Upper end.
        title: What a reader sees when pointing at it.
        link: Where it leads; empty for nowhere.
    """

    value: float
    low: float | None = None
    high: float | None = None
    title: str = ""
    link: str = ""


def page(title: str, body: str) -> str:
    """Return a self-contained HTML page."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def trend(points: Sequence[Point], unit: str, changes: Sequence[int] = ()) -> str:
    """Draw values in order, with a band of their intervals.

    Args:
        points: At least one.
        unit: Of the values.
        changes: Indices at which the level changed; drawn as dashed lines.
    """
    ends = [p.low if p.low is not None else p.value for p in points]
    ends += [p.high if p.high is not None else p.value for p in points]
    low, high, ticks = scale(min(ends), max(ends))
    y = _between(low, high, HEIGHT - _BOTTOM, _TOP)
    x = _between(0, max(1, len(points) - 1), _LEFT + 8, WIDTH - _RIGHT - 8)
    upper = [(x(i), y(p.value if p.high is None else p.high)) for i, p in enumerate(points)]
    lower = [(x(i), y(p.value if p.low is None else p.low)) for i, p in enumerate(points)]
    parts = [_grid(ticks, y, unit)]
    parts.append(f'<polygon points="{_path([*upper, *reversed(lower)])}" fill="var(--band)"/>')
    line = _path([(x(i), y(p.value)) for i, p in enumerate(points)])
    parts.append(f'<polyline points="{line}" fill="none" stroke="var(--mark)" stroke-width="1.5"/>')
    for index in changes:
        at = (x(index - 1) + x(index)) / 2
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}" '
            'stroke="var(--bad)" stroke-dasharray="4 3">'
            "<title>the level changed here</title></line>"
        )
    parts += [_dot(x(i), y(p.value), p) for i, p in enumerate(points)]
    return _svg(parts, HEIGHT, f"trend in {unit}")


def strips(rows: Sequence[tuple[str, Sequence[float], Point]], unit: str) -> str:
    """Draw samples as dots on a line a row, with an interval above each.

    Args:
        rows: Name, samples (the medians of processes), and their centre.
        unit: Of the samples.
    """
    every = [v for _, values, _ in rows for v in values]
    low, high, ticks = scale(min(every), max(every))
    x = _between(low, high, _LEFT + 90, WIDTH - _RIGHT)
    height = 34 + 40 * len(rows)
    parts = []
    for tick in ticks:
        parts.append(
            f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="6" y2="{height - 26}" '
            'stroke="var(--line)"/>'
        )
        text = f"{tick:g} {unit}" if tick == ticks[-1] else f"{tick:g}"
        parts.append(
            f'<text x="{x(tick):.1f}" y="{height - 10}" text-anchor="middle">{escape(text)}</text>'
        )
    for number, (name, values, centre) in enumerate(rows):
        at = 26 + 40 * number
        colour = ("var(--mark)", "var(--other)")[number % 2]
        parts.append(f'<text x="4" y="{at + 4}">{escape(name[:24])}</text>')
        parts += [
            f'<circle cx="{x(v):.1f}" cy="{at}" r="3.2" fill="{colour}" fill-opacity=".55">'
            f"<title>{escape(name)}: {v:.4g} {escape(unit)}</title></circle>"
            for v in values
        ]
        if centre.low is not None and centre.high is not None:
            parts.append(
                f'<line x1="{x(centre.low):.1f}" x2="{x(centre.high):.1f}" y1="{at - 11}" '
                f'y2="{at - 11}" stroke="{colour}" stroke-width="3"/>'
            )
        parts.append(
            f'<circle cx="{x(centre.value):.1f}" cy="{at - 11}" r="4.5" fill="{colour}">'
            f"<title>{escape(centre.title)}</title></circle>"
        )
    return _svg(parts, height, f"processes in {unit}")


def intervals(rows: Sequence[tuple[str, Point]], tolerance: float) -> str:
    """Draw relative changes with their intervals around zero.

    Args:
        rows: Name and change (0.03 is +3 %).
        tolerance: Changes smaller than this are shaded.
    """
    ends = [v for _, p in rows for v in (p.low or 0, p.high or 0, p.value)]
    most = max(1.2 * max(map(abs, ends)), 2 * tolerance, 1e-3)
    low, high, ticks = scale(-100 * most, 100 * most)
    x = _between(low, high, _LEFT + 110, WIDTH - _RIGHT)
    height = 34 + 28 * len(rows)
    left, right = x(-100 * tolerance), x(100 * tolerance)
    parts = [
        f'<rect x="{left:.1f}" y="4" width="{right - left:.1f}" height="{height - 30}" '
        'fill="var(--band)"><title>nothing is claimed in here</title></rect>'
    ]
    for tick in ticks:
        parts.append(
            f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="4" y2="{height - 26}" '
            'stroke="var(--line)"/>'
        )
        parts.append(
            f'<text x="{x(tick):.1f}" y="{height - 10}" text-anchor="middle">{tick:+g} %</text>'
        )
    for number, (name, p) in enumerate(rows):
        at = 20 + 28 * number
        parts.append(f'<text x="4" y="{at + 4}">{escape(name[:30])}</text>')
        if p.low is not None and p.high is not None:
            parts.append(
                f'<line x1="{x(100 * p.low):.1f}" x2="{x(100 * p.high):.1f}" y1="{at}" y2="{at}" '
                'stroke="var(--mark)" stroke-width="3"/>'
            )
        parts.append(_dot(x(100 * p.value), at, p))
    return _svg(parts, height, "relative change in per cent")


def scale(low: float, high: float, count: int = 4) -> tuple[float, float, list[float]]:
    """Return an axis that holds both values, and its round ticks."""
    if high <= low:
        low, high = low - abs(low) * 0.05 - 1e-9, high + abs(high) * 0.05 + 1e-9
    raw = (high - low) / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= raw * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step)
    ticks = [round(i * step, 12) for i in range(first, last + 1)]
    return ticks[0], ticks[-1], ticks


def _between(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _grid(ticks: Sequence[float], y: Callable[[float], float], unit: str) -> str:
    parts = []
    for tick in ticks:
        at = f"{y(tick):.1f}"
        parts.append(
            f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at}" y2="{at}" stroke="var(--line)"/>'
        )
        parts.append(
            f'<text x="{_LEFT - 6}" y="{float(at) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    parts.append(f'<text x="{_LEFT}" y="{HEIGHT - 8}">{escape(unit)}, oldest to newest</text>')
    return "".join(parts)


def _dot(x: float, y: float, point: Point) -> str:
    dot = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="var(--mark)">'
        f"<title>{escape(point.title)}</title></circle>"
    )
    return f'<a href="{escape(point.link)}">{dot}</a>' if point.link else dot


def _svg(parts: Sequence[str], height: int, label: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
