"""The layout ``all_flights`` of the NGAFID maintenance set: parquet in many parts, no folds.

``one_parq`` (a folder of ``.parquet`` parts, or one file) has a row a second: index ``Master
Index``, the 23 channels, ``timestep``; rows of one flight stand together but in no order of time.
``flight_header.csv`` has a row a flight: ``before_after`` is before, same or after; flights of the
day of the repair itself (same) belong to no class and are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.data.flight.channels import CHANNELS, check_names
from edgekd.data.flight.header import (
    INDEX,
    Header,
    check_columns,
    check_once,
    drawn,
    rows_of,
    whole,
)
from edgekd.errors import DataError
from edgekd.extras import installed, missing

__all__ = ["CLASSES", "DATA", "flights", "found", "read_header", "root_of"]

DATA = "one_parq"
CLASSES = 36
"""Kinds of maintenance; the header names them, and the alphabet numbers them here."""
TIME = "timestep"
WHEN = ("before", "same", "after")
Rows = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""Numbers, time steps, values (rows, 23)."""


def found(path: Path) -> Path | None:
    """The folder with the parquet, or None."""
    for folder in (path / "all_flights" / "all_flights", path / "all_flights", path):
        if (folder / DATA).exists():
            return folder
    return None


def root_of(path: Path) -> Path:
    """The folder with both.

    Raises:
        DataError: There is none.
    """
    folder = found(path)
    if folder is None or not (folder / "flight_header.csv").is_file():
        raise DataError(
            f"no flight_header.csv and {DATA} in it or in all_flights",
            at=str(path),
            hint="unpack all_flights.tar.gz of doi 10.5281/zenodo.6624956 there",
        )
    return folder


def read_header(path: Path, *, random_split: bool = False) -> Header:
    """Read ``flight_header.csv``.

    Args:
        path: The file.
        random_split: Draw folds (seeded); there are none.

    Raises:
        DataError: A column is missing, a value is unknown, or no folds shall be drawn.
    """
    rows = rows_of(path)
    check_columns(list(rows[0]) if rows else [], (INDEX, "before_after", "label"), path)
    number = whole(rows, INDEX, path)
    check_once(number, path)
    for place, row in enumerate(rows):
        if row["before_after"] not in WHEN:
            raise DataError(
                f"before_after is {row['before_after']!r}, wanted {', '.join(WHEN)}",
                at=f"{path}: line {place + 2}",
                hint="the header of 2days has 1 and 0: layout=2days",
            )
    labels = sorted({row["label"] for row in rows})
    if len(labels) > CLASSES:
        raise DataError(f"has {len(labels)} labels, wanted at most {CLASSES}", at=str(path))
    counted = np.array([row["before_after"] != "same" for row in rows], bool)
    target = np.array(
        [1 + labels.index(r["label"]) if r["before_after"] == "before" else 0 for r in rows],
        np.int64,
    )
    more = tuple(f"class {kind}" for kind in range(len(labels) + 1, CLASSES + 1))
    return Header(
        number[counted],
        drawn(int(counted.sum()), path, random_split, "take 2days, which has the official folds"),
        target[counted],
        (*labels, *more),
    )


def flights(path: Path, header: Header) -> Iterator[tuple[int, int, NDArray[Any]]]:
    """Row of the header, number and values (seconds, 23) of every flight.

    The row is -1 where a flight is in no class: of the day of the repair, or not in the header.
    Parts are read one after the other, so memory holds one of them.

    Raises:
        SetupError: pyarrow is not installed.
        DataError: A column is missing, or a flight of the header is not in the data.
    """
    if not installed("pyarrow"):
        raise missing("pyarrow", "the layout all_flights", at=str(path))
    places = {number: place for place, number in enumerate(header.number.tolist())}
    seen: set[int] = set()
    for number, flight in _joined(path):
        if number in seen:
            raise DataError(f"flight {number} lies in parts that are not neighbours", at=str(path))
        seen.add(number)
        yield places.get(number, -1), number, flight
    if absent := sorted(set(places) - seen):
        shown = ", ".join(map(str, absent[:5])) + (" …" if len(absent) > 5 else "")
        raise DataError(
            f"{len(absent)} flights are in the header but not in the data: {shown}",
            at=str(path.parent),
            hint=f"{DATA} and flight_header.csv must be of one download",
        )


def _joined(path: Path) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Flights in the order of the parts; one that goes on in the next part is one flight."""
    left = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, len(CHANNELS)), np.float32))
    for part in _parts(path):
        rows = _columns(part)
        number, time = (np.concatenate([left[i], rows[i]]) for i in (0, 1))
        values = np.concatenate([left[2], rows[2]])
        last = number == number[-1:]
        left = number[last], time[last], values[last]
        yield from _flown(number[~last], time[~last], values[~last])
    yield from _flown(*left)


def _flown(
    number: NDArray[np.int64], time: NDArray[np.int64], values: NDArray[np.float32]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Flights of some rows, each in the order of time."""
    order = np.lexsort((time, number))
    numbers, starts = np.unique(number[order], return_index=True)
    for one, places in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
        yield one, values[places]


def _parts(path: Path) -> list[Path]:
    """Files in the order of their numbers: part.9 before part.10."""
    parts = [path] if path.is_file() else list(path.glob("*.parquet"))
    if not parts:
        raise DataError("holds no .parquet files", at=str(path))
    return sorted(parts, key=lambda p: [int(n) if n.isdigit() else 0 for n in p.name.split(".")])


def _columns(part: Path) -> Rows:
    """Numbers, time steps and values (rows, 23) of one part."""
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        file = parquet.ParquetFile(part)
        names = file.schema_arrow.names
        for column in (INDEX, TIME):
            check_columns(names, (column,), part)
        listed = [name for name in names if name not in (INDEX, TIME, "cluster")]
        if sorted(listed) != sorted(CHANNELS):
            check_names(listed, str(part))
        table = file.read([INDEX, TIME, *CHANNELS])
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"cannot be read: {error}", at=str(part)) from error
    number, time = (table[name].to_numpy().astype(np.int64) for name in (INDEX, TIME))
    values = [table[name].to_numpy().astype(np.float32) for name in CHANNELS]
    return number, time, np.stack(values, axis=1)
