"""What both layouts of the NGAFID maintenance set have in common: a header with a row a flight."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import DataError, did_you_mean

__all__ = ["FOLDS", "INDEX", "Header", "check_columns", "check_once", "drawn", "rows_of", "whole"]

INDEX = "Master Index"
FOLDS = 5


@dataclass(frozen=True, eq=False)
class Header:
    """A row a flight.

    Attributes:
        number: Of the flight, the key of the data.
        fold: 0…4; −1 where the file has no such column.
        target: 0 after the repair, else the class of the fault.
        labels: Name of each class, from 1.
    """

    number: NDArray[np.int64]
    fold: NDArray[np.int64]
    target: NDArray[np.int64]
    labels: tuple[str, ...]


def rows_of(path: Path) -> list[dict[str, str]]:
    """Read a header's rows.

    Raises:
        DataError: It is no CSV file.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot be read: {error}", at=str(path)) from error


def whole(rows: Sequence[Mapping[str, str]], column: str, path: Path) -> NDArray[np.int64]:
    """Read a column of whole numbers.

    Raises:
        DataError: A value is none; its line is named.
    """
    values = np.empty(len(rows), np.int64)
    for place, row in enumerate(rows):
        try:
            values[place] = int(float(row[column]))
        except (TypeError, ValueError):
            raise DataError(
                f"{column!r} is {row[column]!r}, wanted a whole number",
                at=f"{path}: line {place + 2}",
            ) from None
    return values


def check_columns(found: Sequence[str], wanted: Sequence[str], path: Path) -> None:
    """Refuse a header that lacks a column.

    Raises:
        DataError: With the column, and what it may be called.
    """
    for column in wanted:
        if column not in found:
            close = did_you_mean(column, found)
            raise DataError(f"column {column!r} is missing", at=str(path), hint=close)


def check_once(number: NDArray[np.int64], path: Path) -> None:
    """Refuse a header that lists a flight twice.

    Raises:
        DataError: With its number.
    """
    if len(np.unique(number)) < len(number):
        twice = Counter(number.tolist()).most_common(1)[0][0]
        raise DataError(f"flight {twice} is listed twice", at=str(path))


def drawn(count: int, path: Path, asked: bool, instead: str) -> NDArray[np.int64]:
    """Draw folds where a header has none, seeded.

    Args:
        count: Of flights.
        path: For the message.
        asked: Whether the user wants it.
        instead: What else can be done.

    Raises:
        DataError: It was not asked for.
    """
    if not asked:
        raise DataError(
            "there is no column 'fold', and a random split is refused: flights of one event"
            " would be trained on and tested",
            at=str(path),
            hint=f"{instead}, or ask with random_split=true",
        )
    return np.random.default_rng(0).permutation(count) % FOLDS
