"""Plain text for people: aligned tables, sizes, durations. No colour, no control characters."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["duration", "flat", "indent", "size", "table", "width"]

WIDTH = 100


def table(rows: Iterable[Sequence[str]], *, header: Sequence[str] = (), width: int = WIDTH) -> str:
    """Align columns; the last one is wrapped."""
    lines = [list(header)] if header else []
    lines += [list(row) for row in rows]
    if not lines:
        return ""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]) - 1)]
    room = max(20, width - sum(widths) - 2 * len(widths))
    return "\n".join(_row(line, widths, room) for line in lines)


def _row(cells: Sequence[str], widths: Sequence[int], room: int) -> str:
    start = "".join(f"{cell:<{wide}}  " for cell, wide in zip(cells, widths, strict=False))
    wrapped = textwrap.wrap(cells[-1], room, break_long_words=False, break_on_hyphens=False) or [""]
    blank = " " * len(start)
    return "\n".join(
        (start if number == 0 else blank) + line for number, line in enumerate(wrapped)
    ).rstrip()


def flat(facts: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Give the leaves of nested facts as rows: dotted name, value."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", f"{value:.6g}" if isinstance(value, float) else str(value)


def indent(text: str, by: int = 2) -> str:
    """Indent every line that is not empty."""
    return textwrap.indent(text, " " * by)


def duration(seconds: float) -> str:
    """Write a duration: ``0.4 s``, ``12 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def width() -> int | None:
    """Return the width of the terminal that is written to; None where there is none."""
    if not sys.stdout.isatty():
        return None
    return max(60, shutil.get_terminal_size().columns)


def size(count: float) -> str:
    """Write a number of bytes in binary units."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
