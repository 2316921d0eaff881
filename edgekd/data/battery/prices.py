"""Price series: SMARD (day-ahead, Germany and neighbours), AEMO (Australia), or a plain CSV."""

from __future__ import annotations

import csv
import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from edgekd.data.battery.homes import Floats, Times, regular
from edgekd.data.battery.table import parse_number, parse_time, rows_of
from edgekd.errors import DataError

__all__ = ["Prices", "at_steps", "load_prices"]

BERLIN = "Europe/Berlin"
DATES = ("%d.%m.%Y %H:%M", "%b %d, %Y %I:%M %p", "%Y-%m-%d %H:%M")
MISSING = {"-", ""}


@dataclass(frozen=True, eq=False)
class Prices:
    """A price series with even steps.

    Attributes:
        values: (steps,) money per kWh.
        begin: Start of the first step.
        hours: Length of a step.
        file: Where it comes from.
    """

    values: Floats
    begin: np.datetime64
    hours: float
    file: str


def load_prices(path: Path, *, column: str = "", scale: float = 1.0, add: float = 0.0) -> Prices:
    """Read a price file, telling the kind by its head.

    SMARD: ``;`` between cells, decimal comma, ``-`` where a value is missing, EUR/MWh; local time
    of Berlin is brought to UTC. AEMO: ``SETTLEMENTDATE`` is the end of the period, ``RRP`` is per
    MWh. Any other file needs ``timestamp`` and ``price`` (money per kWh).

    Args:
        path: The file.
        column: Column of a SMARD file that holds several; the first with values by default.
        scale: Factor, for instance to turn a wholesale price into a retail level.
        add: Money per kWh added after scaling: fees, taxes.

    Raises:
        DataError: Unknown layout, missing or duplicate times, missing values; the line is named.
    """
    head = _head(path)
    if "settlementdate" in head.lower():
        times, values, hours = _aemo(path)
    elif ";" in head and "mwh]" in head.lower():
        times, values, hours = _smard(path, column)
    elif "price" in head.lower():
        times, values, hours = _plain(path)
    else:
        raise DataError(
            "not a price file that edgekd knows",
            at=f"{path}: line 1",
            hint="a SMARD or AEMO export, or columns timestamp and price (money per kWh)",
        )
    return Prices(values * scale + add, times[0], hours, str(path))


def at_steps(prices: Prices, begin: np.datetime64, hours: float, steps: int) -> Floats:
    """Return the price of every step of a load series.

    A coarser price holds for all steps within its own; a finer one is averaged.

    Args:
        prices: The series.
        begin: Start of the first step of the load, on the same clock.
        hours: Length of a step of the load.
        steps: How many.

    Raises:
        DataError: The prices do not cover the load.
    """
    fine = min(hours, prices.hours)
    values = np.repeat(prices.values, round(prices.hours / fine))
    offset = (begin - prices.begin).astype("timedelta64[s]").astype(int) / 3600 / fine
    start, wanted = round(offset), steps * round(hours / fine)
    if abs(offset - start) > 1e-6 or start < 0 or start + wanted > len(values):
        last = prices.begin.astype("datetime64[m]") + round(len(prices.values) * prices.hours * 60)
        end = begin.astype("datetime64[m]") + round(steps * hours * 60)
        raise DataError(
            f"prices run from {prices.begin.astype('datetime64[m]')} to {last}, the load from"
            f" {begin.astype('datetime64[m]')} to {end}",
            at=prices.file,
            hint="get prices for the whole load; --set align=position lays them side by side",
        )
    covered: Floats = values[start : start + wanted].reshape(steps, -1).mean(1)
    return covered


def _head(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return file.readline()
    except OSError as error:
        raise DataError(f"cannot read the file: {error.strerror}", at=str(path)) from error


def _plain(path: Path) -> tuple[Times, Floats, float]:
    times, values, lines = [], [], []
    for line, row in rows_of(path):
        lines.append(line)
        at = f"{path}: line {line}"
        if "timestamp" not in row or "price" not in row:
            raise DataError(
                f"columns {', '.join(row)}; wanted timestamp and price",
                at=f"{path}: line 1",
                hint="name the column of the time timestamp, money per kWh price",
            )
        times.append(parse_time(row["timestamp"], at))
        values.append(parse_number(row["price"], at))
    return _series(times, values, path, lines)


def _aemo(path: Path) -> tuple[Times, Floats, float]:
    ends, values, lines = [], [], []
    for line, row in rows_of(path):
        lines.append(line)
        at = f"{path}: line {line}"
        ends.append(parse_time(row["settlementdate"].replace("/", "-"), at))
        values.append(parse_number(row["rrp"], at) / 1000)
    times, prices, hours = _series(ends, values, path, lines)
    return times - np.timedelta64(round(hours * 3600), "s"), prices, hours


def _series(
    times: list[np.datetime64], values: list[float], path: Path, lines: list[int]
) -> tuple[Times, Floats, float]:
    stamps = np.array(times, "datetime64[s]")
    hours = regular(stamps, str(path), lines=lines) if len(stamps) != 1 else 1.0
    return stamps, np.array(values), hours


def _smard(path: Path, column: str) -> tuple[Times, Floats, float]:
    rows = list(_smard_rows(path))
    head, body = rows[0][1], rows[1:]
    place = _price_column(head, body, column, path)
    times: list[np.datetime64] = []
    values, before = [], None
    for line, cells in body:
        at = f"{path}: line {line}"
        local = _local(head, cells, at)
        # The hour that the clock repeats in autumn: its second time comes right after the first.
        twice = before is not None and local <= before
        before = local
        zone = local.replace(tzinfo=ZoneInfo(BERLIN), fold=int(twice))
        utc = zone.astimezone(datetime.timezone.utc).replace(tzinfo=None)
        times.append(np.datetime64(utc, "s"))
        text = cells[place].strip()
        if text in MISSING:
            raise DataError(f"no price at {local}", at=at, hint="cut or fill the missing hours")
        values.append(parse_number(text.replace(".", "").replace(",", "."), at) / 1000)
    return _series(times, values, path, [line for line, _ in body])


def _smard_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=";")
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, cells


def _price_column(
    head: list[str], body: list[tuple[int, list[str]]], column: str, path: Path
) -> int:
    places = [i for i, name in enumerate(head) if "mwh]" in name.lower()]
    named = [i for i in places if column and column.lower() in head[i].lower()]
    filled = [i for i in places if body and body[0][1][i].strip() not in MISSING]
    found = named if column else filled
    if not found:
        raise DataError(
            f"no price column {column!r}" if column else "no price column with values",
            at=f"{path}: line 1",
            hint="columns: " + ", ".join(head[i] for i in places),
        )
    return found[0]


def _local(head: list[str], cells: list[str], at: str) -> datetime.datetime:
    """Start of a SMARD row: one cell, or date and time in two."""
    text = cells[0].strip()
    if ":" not in text and len(cells) > 1:
        text = f"{text} {cells[1].strip()}"
    for form in DATES:
        try:
            return datetime.datetime.strptime(text, form)
        except ValueError:
            continue
    raise DataError(f"{text!r} is not a time", at=at, hint="wanted 01.07.2015 00:00")
