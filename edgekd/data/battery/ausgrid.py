"""Ausgrid's solar home electricity data: 300 homes near Sydney, half-hourly, 2010 to 2013.

Files as published (a title line, then a head, a row per home, category and day), or re-exported
without the title. Described in Ratnam et al. 2017, doi 10.1080/14786451.2015.1100196.

Clock: Sydney's wall time. The day that loses an hour (first Sunday of October) holds zeros at
``2:30`` and ``3:00``: they are filled along a line between their neighbours. The day that repeats
an hour (first Sunday of April) holds two hours' energy there: it is halved. ``strict_clock`` leaves
both as they are.
"""

from __future__ import annotations

import csv
import datetime
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgekd.data.battery.homes import MOST_KW, Floats, Homes, check
from edgekd.data.battery.table import parse_number
from edgekd.errors import DataError

__all__ = ["find_files", "load_ausgrid"]

HEAD = ["Customer", "Generator Capacity", "Postcode", "Consumption Category", "date"]
SLOTS = 48
CATEGORIES = ("GC", "CL", "GG")
DATES = ("%d-%b-%y", "%d/%m/%Y", "%d%b%Y", "%Y-%m-%d", "%d-%b-%Y")
SPRING, REPEATED = 4, 6
"""First and one past the last place of the columns 2:30 and 3:00."""
_NAME = re.compile(r"20(10|11|12)-20(11|12|13)")

Day = datetime.date


@dataclass
class Meter:
    """One home: category → day → 48 values."""

    days: dict[str, dict[Day, Floats]] = field(
        default_factory=lambda: {name: {} for name in CATEGORIES}
    )


def find_files(folder: Path) -> list[Path]:
    """The yearly files in a folder, by name and content."""
    return [
        path
        for path in sorted(folder.glob("*.csv"))
        if _NAME.search(path.name) and _head_line(path) is not None
    ]


def load_ausgrid(folder: Path, *, strict_clock: bool = False) -> Homes:
    """Read all yearly files of a folder.

    Load is general consumption plus controlled load (hot water; 0 where a home has none), and
    generation is the gross meter. Homes that do not cover every day of the files are left out and
    named in the note.

    Args:
        folder: Holds one or more yearly files.
        strict_clock: See the module.

    Raises:
        DataError: No file, an unknown layout, a day twice; file and line are named.
    """
    files = find_files(folder)
    if not files:
        raise DataError(
            "no file of Ausgrid's solar home data",
            at=str(folder),
            hint="'2011-2012 Solar home electricity data v2.csv' and the like",
        )
    meters: dict[str, Meter] = {}
    for path in files:
        for at, cells in _rows(path):
            _take(meters, cells, at)
    days = sorted({day for meter in meters.values() for day in meter.days["GC"]})
    _check_days(days, files)
    kept = {name: m for name, m in meters.items() if _complete(m, days)}
    if not kept:
        raise DataError("no home covers all days", at=str(folder), hint="remove a partial file")
    left_out = sorted(set(meters) - set(kept), key=_number)
    names = sorted(kept, key=_number)
    load = np.array([_series(kept[n], days, ("GC", "CL"), strict_clock) for n in names])
    pv = np.array([_series(kept[n], days, ("GG",), strict_clock) for n in names])
    note = f"Homes left out because days are missing: {', '.join(left_out)}." if left_out else ""
    homes = Homes(
        tuple(names), load, pv, np.full(load.shape[1], np.nan), 0.5,
        np.datetime64(days[0], "s"), "Ausgrid solar homes", tuple(map(str, files)), note,
    )  # fmt: skip
    return check(homes, str(folder))


def _number(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (10**9, name)


def _head_line(path: Path) -> int | None:
    """Number of lines before the head: 0, or 1 where a title stands first."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        for number, cells in zip(range(3), csv.reader(file), strict=False):
            if [c.strip() for c in cells[:5]] == HEAD:
                return number
    return None


def _rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    skip = _head_line(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        for number, cells in enumerate(reader):
            if skip is not None and number > skip and any(cells):
                yield f"{path}: line {reader.line_num}", cells


def _take(meters: dict[str, Meter], cells: list[str], at: str) -> None:
    if len(cells) < len(HEAD) + SLOTS:
        raise DataError(f"{len(cells)} cells, wanted at least {len(HEAD) + SLOTS}", at=at)
    customer, category = cells[0].strip(), cells[3].strip()
    if category not in CATEGORIES:
        raise DataError(f"unknown category {category!r}", at=at, hint="GC, CL or GG")
    day, days = _day(cells[4], at), meters.setdefault(customer, Meter()).days[category]
    if day in days:
        raise DataError(
            f"home {customer} has {category} twice on {day}", at=at, hint="remove one row"
        )
    values = cells[len(HEAD) : len(HEAD) + SLOTS]
    days[day] = np.array([parse_number(v, at) for v in values])
    wrong = days[day][(days[day] < 0) | (days[day] > MOST_KW / 2)]
    if len(wrong):
        raise DataError(
            f"home {customer} has {wrong[0]:g} kWh of {category} in half an hour on {day}",
            at=at,
            hint=f"energies are kWh a half-hour, from 0 to {MOST_KW / 2:g}; remove the home's rows",
        )


def _day(text: str, at: str) -> Day:
    for form in DATES:
        try:
            return datetime.datetime.strptime(text.strip(), form).date()
        except ValueError:
            continue
    raise DataError(f"{text!r} is not a date", at=at, hint="1-Jul-10 or 1/07/2011 (day first)")


def _check_days(days: list[Day], files: list[Path]) -> None:
    for before, after in itertools.pairwise(days):
        if (after - before).days != 1:
            raise DataError(
                f"a gap: {after} follows {before}",
                at=", ".join(path.name for path in files),
                hint="give the files of consecutive years",
            )


def _complete(meter: Meter, days: list[Day]) -> bool:
    return all(set(days) <= set(meter.days[name]) for name in ("GC", "GG"))


def _series(meter: Meter, days: list[Day], names: tuple[str, ...], strict: bool) -> Floats:
    zero = np.zeros(SLOTS)
    rows = [sum((meter.days[name].get(day, zero) for name in names), zero) for day in days]
    return np.concatenate(
        [row if strict else _on_clock(row, day) for row, day in zip(rows, days, strict=True)]
    )


def _on_clock(row: Floats, day: Day) -> Floats:
    """Undo what putting the clock forward or back did to a day."""
    first_sunday = day.weekday() == 6 and day.day <= 7
    if first_sunday and day.month == 10 and not row[SPRING:REPEATED].any():
        filled = row.copy()
        ends = (row[SPRING - 1], row[REPEATED])
        filled[SPRING:REPEATED] = np.interp([1, 2], [0, 3], ends)
        return filled
    if first_sunday and day.month == 4:
        halved = row.copy()
        halved[SPRING:REPEATED] /= 2
        return halved
    return row
