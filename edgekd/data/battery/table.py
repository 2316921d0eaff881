"""Users' own CSV: a row a step, with ``timestamp``, ``load``, ``pv`` and perhaps ``price``."""

from __future__ import annotations

import csv
import datetime
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekd.data.battery.homes import Homes, check, regular
from edgekd.errors import DataError, did_you_mean

__all__ = ["load_table", "parse_number", "parse_time", "rows_of"]

TIME = ("timestamp", "time", "datetime")
UNITS = {"": 1.0, "_kwh": 1.0, "_wh": 1e-3}
POWERS = {"_kw": 1.0, "_w": 1e-3}


def load_table(path: Path) -> Homes:
    """Read one file (one home, or several told apart by a column ``home``) or a folder of them.

    Columns: ``timestamp`` (ISO 8601, start of the step; with an offset it is brought to UTC),
    ``load`` and ``pv`` in kWh a step, or ``load_kw``, ``load_w``, ``load_wh`` (same for pv), which
    are converted; ``price`` (money per kWh) is only needed without a price file. Other columns are
    ignored.

    Args:
        path: A ``.csv`` file or a folder of them; a file's name is then the home's.

    Raises:
        DataError: File, line and remedy are named.
    """
    files = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    if not files:
        raise DataError("no .csv file", at=str(path))
    parts = [part for file in files for part in _read(file)]
    first, hours = parts[0], 0.0
    for part in parts:
        hours = regular(part.times, part.at, lines=part.lines)
        check(_joined([part], hours, files), part.at, lines=part.lines)
    for part in parts[1:]:
        if len(part.times) != len(first.times) or (part.times != first.times).any():
            raise DataError(
                f"home {part.name!r} covers {part.times[0]} to {part.times[-1]}, home"
                f" {first.name!r} {first.times[0]} to {first.times[-1]}",
                at=part.at,
                hint="cut all homes to the same times",
            )
    return _joined(parts, hours, files)


class Part:
    """One home as read."""

    def __init__(self, name: str, at: str) -> None:
        self.name, self.at = name, at
        self.stamps: list[np.datetime64] = []
        self.lines: list[int] = []
        self.columns: dict[str, list[float]] = {"load": [], "pv": [], "price": []}

    @property
    def times(self) -> NDArray[np.datetime64]:
        """(steps,) starts of the steps."""
        return np.array(self.stamps, "datetime64[s]")


def _joined(parts: list[Part], hours: float, files: list[Path]) -> Homes:
    first = parts[0]
    price = first.columns["price"] or [np.nan] * len(first.stamps)
    return Homes(
        tuple(part.name for part in parts),
        np.array([part.columns["load"] for part in parts]),
        np.array([part.columns["pv"] for part in parts]),
        np.array(price),
        hours,
        first.times[0],
        "CSV",
        tuple(map(str, files)),
    )


def _read(path: Path) -> list[Part]:
    parts: dict[str, Part] = {}
    columns: dict[str, tuple[str, float]] | None = None
    for line, row in rows_of(path):
        if columns is None:
            columns = _columns(list(row), path)
        at = f"{path}: line {line}"
        name = row.get("home") or path.stem
        part = parts.setdefault(name, Part(name, str(path)))
        part.stamps.append(parse_time(row[_time_column(row, path)], at))
        part.lines.append(line)
        for what, (column, factor) in columns.items():
            part.columns[what].append(parse_number(row[column], f"{at}, column {column}") * factor)
    if columns is None:
        raise DataError("no rows", at=str(path))
    for part in parts.values():
        _to_energy(part, columns, path)
    return list(parts.values())


def _to_energy(part: Part, columns: Mapping[str, tuple[str, float]], path: Path) -> None:
    """Turn columns of power into energy, now that the length of a step is known."""
    powers = [w for w, (c, _) in columns.items() if any(c.endswith(s) for s in POWERS)]
    if powers:
        hours = regular(part.times, str(path), lines=part.lines)
        for what in powers:
            part.columns[what] = [value * hours for value in part.columns[what]]


def _columns(names: list[str], path: Path) -> dict[str, tuple[str, float]]:
    """Find the columns: what → name and factor to kW(h)."""
    found: dict[str, tuple[str, float]] = {}
    for what in ("load", "pv"):
        for suffix, factor in {**UNITS, **POWERS}.items():
            if what + suffix in names:
                found[what] = (what + suffix, factor)
        if what not in found:
            raise DataError(f"no column {what!r}", at=f"{path}: line 1",
                            hint=did_you_mean(what, names))  # fmt: skip
    if "price" in names:
        found["price"] = ("price", 1.0)
    return found


def _time_column(row: Mapping[str, str], path: Path) -> str:
    found = next((name for name in TIME if name in row), None)
    if found is None:
        raise DataError(
            f"no column with the time: {', '.join(row)}",
            at=f"{path}: line 1",
            hint=f"call it {TIME[0]}",
        )
    return found


def rows_of(path: Path, delimiter: str = ",") -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and cells by lower-case column name.

    Raises:
        DataError: No such file, or a row with another number of cells than the head.
    """
    try:
        file = path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise DataError(f"cannot read the file: {error.strerror}", at=str(path)) from error
    with file:
        reader = csv.reader(file, delimiter=delimiter)
        head = [cell.strip().lower() for cell in next(reader, [])]
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(head):
                raise DataError(
                    f"{len(cells)} cells, the head has {len(head)}",
                    at=f"{path}: line {reader.line_num}",
                    hint="complete or remove the row; decimals have a point, cells a comma between",
                )
            yield reader.line_num, dict(zip(head, cells, strict=True))


def parse_number(text: str, at: str) -> float:
    """Read a number.

    Raises:
        DataError: It is empty or not a number.
    """
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise DataError(
            f"{text!r} is not a number", at=at, hint="fill or remove the days with missing values"
        )
    return value


def parse_time(text: str, at: str) -> np.datetime64:
    """Read an ISO 8601 time; one with an offset is brought to UTC.

    Raises:
        DataError: It is none.
    """
    cleaned = text.strip().replace("Z", "+00:00")
    try:
        time = datetime.datetime.fromisoformat(cleaned)
    except ValueError as error:
        raise DataError(
            f"{text!r} is not a time",
            at=at,
            hint="write 2024-07-01T00:30 or 2024-07-01T00:30+02:00",
        ) from error
    if time.tzinfo is not None:
        time = time.astimezone(datetime.timezone.utc).replace(tzinfo=None)
    return np.datetime64(time, "s")
