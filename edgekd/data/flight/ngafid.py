"""The NGAFID maintenance set from a user's own download, layouts ``2days`` and ``all_flights``.

``2days``: ``flight_data.pkl`` (a dict from the flight's number to an array (seconds, 23)),
``flight_header.csv`` (a row a flight) and ``stats.csv`` (largest and least value of each channel),
in the folder itself, in ``2days`` or in ``2days/2days``. ``all_flights``: see `all_flights`.
Nothing is fetched.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.closure import code_digest
from edgekd.data.base import Splits
from edgekd.data.flight import all_flights
from edgekd.data.flight.channels import CHANNELS, check_names, check_values
from edgekd.data.flight.header import (
    INDEX,
    Header,
    check_columns,
    check_once,
    drawn,
    rows_of,
    whole,
)
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
DATA, HEADER, STATS = "flight_data.pkl", "flight_header.csv", "stats.csv"
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


def ngafid(
    *,
    path: str,
    layout: str = "2days",
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
        layout: ``2days``, or ``all_flights``, which has no folds.
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
    if layout == "all_flights":
        if protocol == "official":
            raise DataError(
                "the public code's protocol is one of 2days: all_flights has neither folds nor"
                " stats.csv",
                at="setting: protocol",
                hint="protocol=clean, or layout=2days",
            )
        root = all_flights.root_of(Path(path))
        header = all_flights.read_header(root / HEADER, random_split=random_split)
    else:
        root = _root(Path(path))
        header = read_header(root / HEADER, random_split=random_split)
    official = protocol == "official"
    kept, values, facts = _values(root, header, layout, length, official, emit)
    splits = by_fold(
        values,
        header.fold[kept],
        header.target[kept],
        test=fold,
        judge=fold if official else None,
        stage=stage,
        faults=header.labels,
        names=CHANNELS,
        source=f"NGAFID maintenance set, {layout}",
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
    if all_flights.found(path) is not None:
        raise DataError(
            "this is the layout all_flights, without folds",
            at=str(path),
            hint="layout=all_flights random_split=true, or the folder of 2days",
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
    rows = rows_of(path)
    found = list(rows[0]) if rows else []
    check_columns(found, (INDEX, *(c for c in COLUMNS if c != "fold")), path)
    number, target = whole(rows, INDEX, path), whole(rows, "target_class", path)
    check_once(number, path)
    if "fold" in found:
        fold = whole(rows, "fold", path)
    else:
        fold = drawn(len(rows), path, random_split, "take the header of 2days")
    return Header(number, fold, target, _labels(rows, target, path))


def _labels(
    rows: Sequence[Mapping[str, str]], target: NDArray[np.int64], path: Path
) -> tuple[str, ...]:
    """Names of the classes, from the header itself: their numbers follow no order of names."""
    kind = whole(rows, "class", path)
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
    root: Path, header: Header, layout: str, length: int, padded: bool, emit: Emit
) -> tuple[NDArray[np.int64], NDArray[np.float16], dict[str, Any]]:
    """Pooled flights from the store: which rows of the header, their values, what was seen."""
    store = Store()
    digests = Digests(store.root)
    place = root / (DATA if layout == "2days" else all_flights.DATA)
    made_of = {
        "step": "ngafid",
        "code": code_digest(["edgekd.data.flight.ngafid:_read"], Path(__file__).parent),
        "files": {path.name: digests.of(path) for path in (place, root / HEADER)},
        "size": [length, padded],
        "numpy": np.__version__,
    }
    digests.save()

    def work(out: Path) -> dict[str, Any]:
        return _read(place, header, length, padded, out, emit)

    entry = store.put(key_of(made_of), made_of, work, emit)
    kept = np.load(entry.path / "kept.npy")
    return kept, np.load(entry.path / "values.npy", mmap_mode="r"), dict(entry.facts)


def _read(
    path: Path, header: Header, length: int, padded: bool, out: Path, emit: Emit
) -> dict[str, Any]:
    """Write ``kept.npy`` and ``values.npy``; return counts of what was left out or is silent."""
    flights = all_flights.flights(path, header) if path.is_dir() else _flights(path, header)
    progress = Progress(emit, "ngafid", len(header.number), "flights")
    kept, values, silent_in = [], [], Counter[str]()
    short = empty = apart = 0
    for place, number, flight in flights:
        if place < 0:
            apart += 1
            continue
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
        "left_out": {
            "too_short": short,
            "without_values": empty,
            **({"in_no_class": apart} if apart else {}),
        },
        "silent_channels": dict(sorted(silent_in.items())),
    }


def _flights(path: Path, header: Header) -> Iterator[tuple[int, int, NDArray[Any]]]:
    """Row of the header, number and values of every flight.

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
    for place, number in enumerate(header.number.tolist()):
        flight = np.asarray(data[number])
        if flight.dtype.kind not in "fiu":
            raise DataError(f"holds {flight.dtype}, wanted numbers", at=f"{path}: flight {number}")
        yield place, number, flight


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
