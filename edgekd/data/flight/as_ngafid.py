"""Write the simulated set in the layout of NGAFID's ``2days``, with what only a simulation knows.

``flight_data.pkl``, ``flight_header.csv`` and ``stats.csv`` are read by every reader of that
layout, ours included. Beside them lie ``truth.csv`` (fault, severity, onset, sensors moved),
``truth.npz`` (how far, sensor by window) and ``twins.pkl``: each faulty flight without its fault.
It is not NGAFID: one aircraft type, one pilot, faults that act alone.
"""

from __future__ import annotations

import csv
import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.data.flight import sensors
from edgekd.data.flight.bases import SECONDS, Bases
from edgekd.data.flight.channels import CHANNELS
from edgekd.data.flight.fleet import FAULTS, Flights, difficulty_of
from edgekd.data.flight.header import INDEX
from edgekd.errors import DataError
from edgekd.events import Emit, Progress, silent

__all__ = ["HEADER", "TRUTH", "write"]

HEADER = (
    *(INDEX, "before_after", "date_diff", "flight_length", "label", "hierarchy"),
    *("fold", "class", "target_class", "hclass", "number_flights_before"),
)
TRUTH = (INDEX, "airframe", "event", "fault", "severity", "onset_s", "moved")
NOTICEABLE = 1.0
"""A sensor was moved where the fault's change, root mean square over 256 s, reaches its noise."""
BATCH = 96


def write(
    bases: Bases,
    flights: Flights,
    values: NDArray[np.float16],
    effect: NDArray[np.float16],
    folder: Path,
    emit: Emit = silent,
) -> dict[str, Any]:
    """Write a set; flight i of the plan has the number i + 1.

    Args:
        bases: Base flights.
        flights: The plan.
        values: (flights, 23, 4096), 1 Hz.
        effect: (flights, 23, 16), see `sensors.simulate`.
        folder: Gets the folder ``simflight-DIFFICULTY/2days``.
        emit: Progress.

    Returns:
        ``path``, ``flights``, ``faulty``, ``bytes``.

    Raises:
        DataError: It is there already.
    """
    root = folder / f"simflight-{flights.difficulty}"
    if root.exists():
        raise DataError("is there already", at=str(root), hint="another --out, or remove it")
    place = root / "2days"
    place.mkdir(parents=True)
    ill = np.flatnonzero(flights.severity > 0)
    with (place / "flight_data.pkl").open("wb") as file:
        held = {i + 1: np.ascontiguousarray(values[i].T) for i in range(len(flights))}
        pickle.dump(held, file, protocol=4)
    with (place / "twins.pkl").open("wb") as file:
        pickle.dump(_twins(bases, flights, ill, emit), file, protocol=4)
    _table(place / "flight_header.csv", HEADER, _header(flights))
    _table(place / "truth.csv", TRUTH, _truth(flights, effect))
    _table(place / "stats.csv", ("", *CHANNELS), _extremes(values))
    np.savez_compressed(
        place / "truth.npz",
        number=np.arange(1, len(flights) + 1),
        channels=np.array(CHANNELS),
        effect=effect,
    )
    return {
        "path": str(root),
        "flights": len(flights),
        "faulty": len(ill),
        "bytes": sum(path.stat().st_size for path in place.iterdir()),
    }


def _twins(
    bases: Bases, flights: Flights, ill: NDArray[np.int64], emit: Emit
) -> dict[int, NDArray[np.float16]]:
    """Number of a faulty flight → the same flight, the same noise, no fault: (seconds, 23)."""
    seed = difficulty_of(flights.difficulty).seed
    found: dict[int, NDArray[np.float16]] = {}
    progress = Progress(emit, "twins", len(ill), "flights")
    for start in range(0, len(ill), BATCH):
        places = ill[start : start + BATCH]
        flown = sensors.twins(bases, flights, places, seed).astype(np.float16)
        found |= {int(i) + 1: one.T.copy() for i, one in zip(places, flown, strict=True)}
        progress.advance(len(places))
    return found


def _header(flights: Flights) -> Iterable[Sequence[Any]]:
    """NGAFID counts days: 2 and 1 before a repair, 1 and 2 after it; we fly twice a day."""
    names, after = list(FAULTS), 0
    for i in range(len(flights)):
        before, left = bool(flights.before[i]), int(flights.left[i])
        after = 0 if before else after + 1
        kind = int(flights.fault[i])
        day = -(1 + left // 2) if before else 1 + (after - 1) // 2
        yield (
            *(i + 1, int(before), day, float(SECONDS), names[kind - 1], "", int(flights.fold[i])),
            *(kind, kind if before else 0, 1, left if before else -1),
        )


def _truth(flights: Flights, effect: NDArray[np.float16]) -> Iterable[Sequence[Any]]:
    names = list(FAULTS)
    for i in range(len(flights)):
        most, ill = effect[i].max(1), flights.severity[i] > 0
        moved = [CHANNELS[c] for c in np.argsort(-most, kind="stable") if most[c] >= NOTICEABLE]
        yield (
            *(i + 1, int(flights.airframe[i]), int(flights.event[i])),
            names[int(flights.fault[i]) - 1] if ill else "",
            f"{flights.severity[i]:.4f}",
            f"{max(0.0, float(flights.onset[i])):.0f}" if ill else "",
            ";".join(moved),
        )


def _extremes(values: NDArray[np.float16]) -> Iterable[Sequence[Any]]:
    """Largest and least value of each channel."""
    high, low = np.full(len(CHANNELS), -np.inf), np.full(len(CHANNELS), np.inf)
    for start in range(0, len(values), BATCH):
        part = np.asarray(values[start : start + BATCH], np.float32)
        high = np.fmax(high, np.nan_to_num(part, nan=-np.inf).max((0, 2)))
        low = np.fmin(low, np.nan_to_num(part, nan=np.inf).min((0, 2)))
    return [("max", *map(float, high)), ("min", *map(float, low))]


def _table(path: Path, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(rows)
