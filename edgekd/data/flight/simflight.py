"""The embedded set "simflight": simulated flights of a fleet with maintenance events.

Base flights come from JSBSim and lie beside this file; everything else (sensors, airframes,
faults, noise) is computed from seeds when the set is first used, and kept in the store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.closure import code_digest
from edgekd.data.base import Splits
from edgekd.data.flight import sensors
from edgekd.data.flight.as_ngafid import write
from edgekd.data.flight.bases import FILE, SECONDS, Bases, load_bases
from edgekd.data.flight.channels import CHANNELS
from edgekd.data.flight.fleet import EVENTS, FAULTS, Flights, difficulty_of, plan_fleet
from edgekd.data.flight.series import Series, by_fold, pool
from edgekd.events import Emit, Progress, silent
from edgekd.store import Store, key_of

__all__ = ["Made", "Simulated", "make", "simflight", "truth_of"]

BATCH = 96
NOTE = (
    "Simulated flights of one aircraft type with one simple pilot; each fault acts alone, without "
    "wear history or weather fronts. A number measured on them ranks methods; it says nothing "
    "about NGAFID's flights or any real fleet."
)


@dataclass(frozen=True, eq=False)
class Made:
    """A computed set.

    Attributes:
        flights: Its plan.
        values: Raw units, float16 (flights, 23, length).
        effect: What each fault really changed, float16 (flights, 23, 16), see `sensors.simulate`;
            zeros for healthy flights.
    """

    flights: Flights
    values: NDArray[np.float16]
    effect: NDArray[np.float16]


@dataclass(frozen=True)
class Simulated(Splits):
    """The set, split; it can be written at 1 Hz.

    Attributes:
        size: ``difficulty``, ``airframes``, ``events`` and ``bases`` of `make`.
    """

    size: Mapping[str, Any] = field(default_factory=dict)

    def export(self, folder: Path) -> dict[str, Any]:
        """Write all flights in NGAFID's layout; see `edgekd.data.flight.as_ngafid`."""
        made, bases = make(**self.size, length=SECONDS), self.size["bases"]
        ground = load_bases(FILE if bases is None else Path(bases))
        return write(ground, made.flights, made.values, made.effect, folder)


def simflight(
    *,
    difficulty: str = "clear",
    stage: int = 1,
    length: int = 512,
    airframes: int = 50,
    events: int = EVENTS,
    fold: int = 0,
    bases: str | None = None,
) -> Splits:
    """Load the simulated set, split by airframe and base flight.

    Args:
        difficulty: ``clear`` or ``fleet``.
        stage: 1 faulty or healthy, 2 which fault.
        length: Samples a flight; 4096 s are mean-pooled to it.
        airframes: How many, a multiple of 5.
        events: Maintenance events an airframe, eight flights each.
        fold: Of the test; the next one validates.
        bases: File of base flights; None takes the embedded ones.
    """
    made = make(difficulty, length, airframes, events, bases)
    splits = by_fold(
        made.values,
        made.flights.fold,
        made.flights.target,
        test=fold,
        stage=stage,
        faults=tuple(FAULTS),
        names=CHANNELS,
        source="simflight (JSBSim)",
        groups=made.flights.airframe,
        note=NOTE,
        facts={"difficulty": difficulty, "airframes": airframes, "length": length},
    )
    size = {"difficulty": difficulty, "airframes": airframes, "events": events, "bases": bases}
    return Simulated(**{f.name: getattr(splits, f.name) for f in fields(Splits)}, size=size)


def truth_of(part: Series, made: Made) -> NDArray[np.float32]:
    """What the faults of some flights really changed.

    Returns:
        (flights, 23, 16): root mean square over windows of 256 s, in standard deviations of the
        channel, which are the units that a network sees.
    """
    scale = (sensors.NOISE / part.std)[:, None]
    return np.asarray(made.effect[part.rows], np.float32) * scale


def make(
    difficulty: str = "clear",
    length: int = 512,
    airframes: int = 50,
    events: int = EVENTS,
    bases: str | None = None,
    emit: Emit = silent,
) -> Made:
    """Compute a set, or take it from the store."""
    source = FILE if bases is None else Path(bases)
    ground = load_bases(source)
    flights = plan_fleet(ground, difficulty, airframes=airframes, events=events)
    made_of = {
        "step": "simflight",
        "code": code_digest(["edgekd.data.flight.simflight:_compute"], Path(__file__).parent),
        "bases": _digest(source),
        "difficulty": [difficulty, difficulty_of(difficulty).seed],
        "plan": hashlib.sha256(repr(flights.row(np.arange(8))).encode()).hexdigest(),
        "size": [length, airframes, events],
        "numpy": np.__version__,
    }

    def work(out: Path) -> dict[str, Any]:
        return _compute(ground, flights, length, out, emit)

    entry = Store().put(key_of(made_of), made_of, work, emit)
    values = np.load(entry.path / "values.npy", mmap_mode="r")
    return Made(flights, values, np.load(entry.path / "effect.npy", mmap_mode="r"))


def _compute(bases: Bases, flights: Flights, length: int, out: Path, emit: Emit) -> dict[str, Any]:
    """Write ``values.npy`` and ``effect.npy``."""
    seed = difficulty_of(flights.difficulty).seed
    values = np.empty((len(flights), len(CHANNELS), length), np.float16)
    effect = np.zeros((len(flights), len(CHANNELS), sensors.WINDOWS), np.float16)
    order = np.lexsort((flights.airframe, flights.fault * (flights.severity > 0)))
    progress = Progress(emit, "simflight", len(flights), "flights")
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        flown, changed = sensors.simulate(bases, flights, places, seed)
        values[places] = pool(flown, length)
        effect[places] = np.minimum(changed, 60000)
        progress.advance(len(places))
    np.save(out / "values.npy", values)
    np.save(out / "effect.npy", effect)
    return {"flights": len(flights)}


@lru_cache(maxsize=4)
def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
