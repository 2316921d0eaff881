"""The NGAFID maintenance set from a user's own download, layout ``2days``.

Layout: ``flight_data.pkl`` (a dict from the flight's number to an array (seconds, 23)),
``flight_header.csv`` (a row a flight) and ``stats.csv`` (largest and least value of each channel),
in the folder itself, in ``2days`` or in ``2days/2days``. Nothing is fetched.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.closure import code_digest
from edgekd.data.base import Splits
from edgekd.data.flight.channels import CHANNELS, check_names, check_values
from edgekd.data.flight.series import Series, by_fold, pool
from edgekd.data.unpickle import unpickle
from edgekd.errors import DataError, did_you_mean
from edgekd.events import Emit, Progress, silent
from edgekd.store import Digests, Store, key_of

__all__ = ["CLASSES", "PROTOCOLS", "SECONDS", "ngafid", "read_header"]

SECONDS = 4096
"""The last seconds of a flight that are looked at."""
SHORTEST = 60
CLASSES = 19
"""Kinds of unplanned maintenance."""
FOLDS = 5
DATA, HEADER, STATS = "flight_data.pkl", "flight_header.csv", "stats.csv"
INDEX = "Master Index"
COLUMNS = ("before_after", "date_diff", "label", "fold", "class", "target_class")
PROTOCOLS: Mapping[str, str] = {
    "clean": (
        "Scaling from the training folds alone, the fold after the tested one validates, absent"
        " and padded samples are the channel's mean."
    ),
    "official": (
        "As the public code: scaling by the extremes of all folds, zeros in raw units behind a"
        " short flight, and the tested fold also validates. The score is optimistic: threshold,"
        " temperature and the choice of the artefact have seen the tested flights."
    ),
}


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


def ngafid(
    *,
    path: str,
    stage: int = 1,
    length: int = 512,
    fold: int = 0,
    protocol: str = "clean",
    random_split: bool = False,
    emit: Emit = silent,
) -> Splits:
    """Load the set and split it by its official folds.

    Flights without values or shorter than 60 s are left out and counted.

    Args:
        path: Folder of the download.
        stage: 1 tells flights before a repair from those after it, 2 names the fault.
        length: Samples a flight; its last 4096 s are mean-pooled to it.
        fold: Of the test.
        protocol: Row of `PROTOCOLS`.
        random_split: Draw folds where the header has none. Flights of one event then lie on both
            sides, which flatters every score.
        emit: Progress.

    Raises:
        DataError: A file is absent, damaged or does not fit the others.
    """
    if protocol not in PROTOCOLS:
        raise DataError(
            f"no protocol {protocol!r}",
            at="setting: protocol",
            hint=did_you_mean(protocol, PROTOCOLS),
        )
    root = _root(Path(path))
    header = read_header(root / HEADER, random_split=random_split)
    kept, values, facts = _values(root, header, length, protocol == "official", emit)
    official = protocol == "official"
    splits = by_fold(
        values,
        header.fold[kept],
        header.target[kept],
        test=fold,
        judge=fold if official else None,
        stage=stage,
        faults=header.labels,
        names=CHANNELS,
        source="NGAFID maintenance set, 2days",
        note=PROTOCOLS[protocol] + (_RANDOM if random_split else ""),
        facts={"protocol": protocol, "length": length, **facts},
    )
    return _by_extremes(splits, root / STATS) if official else splits


_RANDOM = (
    " Folds were drawn at random: flights of one event and airframe lie in training and test, so"
    " the score is no measure of unseen events."
)


def _root(path: Path) -> Path:
    """The folder with the files.

    Raises:
        DataError: There is none.
    """
    for folder in (path / "2days" / "2days", path / "2days", path):
        if (folder / HEADER).is_file() and (folder / DATA).is_file():
            return folder
    parts = [p for p in (path / "all_flights", path) if (p / "one_parq").exists()]
    if parts:
        raise DataError(
            "the layout all_flights (parquet, without folds) is not read",
            at=str(parts[0]),
            hint="give the folder of 2days, which has the official folds",
        )
    raise DataError(
        f"no {HEADER} and {DATA} in it, in 2days or in 2days/2days",
        at=str(path),
        hint="unpack 2days.tar.gz of doi 10.5281/zenodo.6624956 there",
    )


def read_header(path: Path, *, random_split: bool = False) -> Header:
    """Read ``flight_header.csv``.

    Args:
        path: The file.
        random_split: Draw folds where there are none (seeded).

    Raises:
        DataError: A column is missing, a value is no number, a class has two names or a number
            without flights, or there are no folds and none shall be drawn.
    """
    rows = _rows(path)
    found = list(rows[0]) if rows else []
    for column in (INDEX, *COLUMNS):
        if column in found or (column == "fold" and random_split):
            continue
        if column == "fold":
            raise DataError(
                "there is no column 'fold', and a random split is refused: flights of one event"
                " would be trained on and tested",
                at=str(path),
                hint="take the header of 2days, or ask with random_split=true",
            )
        close = did_you_mean(column, found)
        raise DataError(f"column {column!r} is missing", at=str(path), hint=close)
    number, target = _whole(rows, INDEX, path), _whole(rows, "target_class", path)
    if len(np.unique(number)) < len(number):
        twice = Counter(number.tolist()).most_common(1)[0][0]
        raise DataError(f"flight {twice} is listed twice", at=str(path))
    if "fold" in found:
        fold = _whole(rows, "fold", path)
    else:
        fold = np.random.default_rng(0).permutation(len(rows)) % FOLDS
    return Header(number, fold, target, _labels(rows, target, path))


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot be read: {error}", at=str(path)) from error


def _whole(rows: Sequence[Mapping[str, str]], column: str, path: Path) -> NDArray[np.int64]:
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


def _labels(
    rows: Sequence[Mapping[str, str]], target: NDArray[np.int64], path: Path
) -> tuple[str, ...]:
    """Names of the classes, from the header itself: their numbers follow no order of names."""
    kind = _whole(rows, "class", path)
    names: dict[int, str] = {}
    for place, (number, row) in enumerate(zip(kind.tolist(), rows, strict=True)):
        at = f"{path}: line {place + 2}"
        if not 1 <= number <= CLASSES:
            raise DataError(f"class {number} is unknown", at=at, hint=f"classes are 1 to {CLASSES}")
        if target[place] not in (0, number):
            raise DataError(
                f"target_class is {target[place]}, class {number}", at=at, hint="0 or the class"
            )
        name = names.setdefault(number, row["label"])
        if name != row["label"]:
            raise DataError(f"class {number} is {row['label']!r}, earlier {name!r}", at=at)
    return tuple(names.get(number, f"class {number}") for number in range(1, CLASSES + 1))


def _values(
    root: Path, header: Header, length: int, padded: bool, emit: Emit
) -> tuple[NDArray[np.int64], NDArray[np.float16], dict[str, Any]]:
    """Pooled flights from the store: which rows of the header, their values, what was seen."""
    store = Store()
    digests = Digests(store.root)
    made_of = {
        "step": "ngafid",
        "code": code_digest(["edgekd.data.flight.ngafid:_read"], Path(__file__).parent),
        "files": {name: digests.of(root / name) for name in (DATA, HEADER)},
        "size": [length, padded],
        "numpy": np.__version__,
    }
    digests.save()

    def work(out: Path) -> dict[str, Any]:
        return _read(root / DATA, header, length, padded, out, emit)

    entry = store.put(key_of(made_of), made_of, work, emit)
    kept = np.load(entry.path / "kept.npy")
    return kept, np.load(entry.path / "values.npy", mmap_mode="r"), dict(entry.facts)


def _read(
    path: Path, header: Header, length: int, padded: bool, out: Path, emit: Emit
) -> dict[str, Any]:
    """Write ``kept.npy`` and ``values.npy``; return counts of what was left out or is silent."""
    flights = _flights(path, header)
    progress = Progress(emit, "ngafid", len(header.number), "flights")
    kept, values, silent_in = [], [], Counter[str]()
    short = empty = 0
    for place, (number, flight) in enumerate(flights):
        progress.advance(1)
        at = f"{path}: flight {number}"
        if flight.ndim == 2 and len(flight) < SHORTEST:
            short += 1
            continue
        if flight.ndim == 2 and not np.isfinite(flight).any():
            empty += 1
            continue
        notes = check_values(flight, at, SHORTEST)
        silent_in.update(note.partition(":")[0] for note in notes)
        kept.append(place)
        values.append(pool(_last(flight, padded)[None], length)[0].astype(np.float16))
    if not kept:
        raise DataError(f"no flight of {SHORTEST} s or more", at=str(path))
    np.save(out / "kept.npy", np.array(kept, np.int64))
    np.save(out / "values.npy", np.stack(values))
    return {
        "left_out": {"too_short": short, "without_values": empty},
        "silent_channels": dict(sorted(silent_in.items())),
    }


def _flights(path: Path, header: Header) -> Iterator[tuple[int, NDArray[Any]]]:
    """Flights in the order of the header.

    Raises:
        DataError: No dict of arrays, or header and data do not name the same flights.
    """
    held = unpickle(path)
    if not isinstance(held, dict):
        raise DataError(f"holds a {type(held).__name__}, wanted a dict of arrays", at=str(path))
    data = {int(number): flight for number, flight in held.items()}
    listed = set(header.number.tolist())
    for what, numbers in (
        ("in the header but not in the data", sorted(listed - set(data))),
        ("in the data but not in the header", sorted(set(data) - listed)),
    ):
        if numbers:
            shown = ", ".join(map(str, numbers[:5])) + (" …" if len(numbers) > 5 else "")
            raise DataError(
                f"{len(numbers)} flights are {what}: {shown}",
                at=str(path.parent),
                hint=f"{DATA} and {HEADER} must be of one download",
            )
    for number in header.number.tolist():
        flight = np.asarray(data[number])
        if flight.dtype.kind not in "fiu":
            raise DataError(f"holds {flight.dtype}, wanted numbers", at=f"{path}: flight {number}")
        yield number, flight


def _last(flight: NDArray[Any], padded: bool) -> NDArray[np.float32]:
    """The last 4096 s at the front, (23, 4096); behind them zeros, or nothing (NaN)."""
    cut = np.asarray(flight[-SECONDS:], np.float32)
    out = np.full((len(CHANNELS), SECONDS), 0.0 if padded else np.nan, np.float32)
    out[:, : len(cut)] = cut.T
    return out


def _by_extremes(splits: Splits, path: Path) -> Splits:
    """Scale by (value − least) / (largest − least) of ``stats.csv``."""
    low, high = _extremes(path)
    spread = np.where(high > low, high - low, 1).astype(np.float32)

    parts: dict[str, Any] = {}
    for name, part in splits:
        if not isinstance(part, Series):
            raise TypeError(f"split {name} holds no flights")
        parts[name] = replace(part, mean=low, std=spread)
    return replace(splits, **parts)


def _extremes(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Least and largest value of each channel, whichever row holds which."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            names, *rows = [row[1:] for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise DataError(f"cannot be read: {error}", at=str(path)) from error
    if not all(name.strip().replace(".", "").isdigit() for name in names):
        check_names(names, str(path))
    if len(rows) != 2 or any(len(row) != len(CHANNELS) for row in rows):
        raise DataError(
            f"has {len(rows)} rows of {len(rows[0]) if rows else 0} values, wanted 2 of"
            f" {len(CHANNELS)}",
            at=str(path),
        )
    try:
        both = np.array(rows, np.float32)
    except ValueError as error:
        raise DataError(f"holds no numbers: {error}", at=str(path)) from error
    return both.min(0), both.max(0)
