"""The plan of the simulated set: airframes, maintenance events, and the flights around them.

An event is one fault of one airframe: four flights before the repair, with the fault, and four
after it, without. Airframes and base flights belong to folds, so whatever is split by fold has
seen neither the airframe nor the trajectory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.data.flight.bases import SECONDS, Bases
from edgekd.data.flight.pilot import TROUBLES
from edgekd.errors import DataError, did_you_mean

__all__ = ["DIFFICULTIES", "FAULTS", "FOLDS", "Airframes", "Difficulty", "Flights", "plan_fleet"]

FOLDS = 5
FAULTS: Mapping[str, str] = {
    "intake_leak": "unmetered air into one cylinder: lean, hot exhaust at low power",
    "oil_leak": "oil is lost in flight: pressure falls, temperature rises",
    "baffle": "one or two cylinders lose cooling air with airspeed",
    "compression": "one weak cylinder (closed loop: power, rpm)",
    "magneto": "one of two magnetos drops out for a while (closed loop: power, rpm, exhaust)",
    "mixture": "the mixture hunts and runs lean (closed loop: fuel flow, exhaust)",
    "governor": "the throttle hunts (closed loop: rpm, manifold pressure, fuel flow)",
    "alternator": "weak charging: bus voltage falls, the battery discharges",
    "probe": "one temperature or pressure probe drifts, drops out or sticks",
    "fuel_quantity": "one tank loses fuel, or its sender sticks",
    "pitot_static": "airspeed reads low, or altitude and vertical speed lag",
}
"""Faults in the order of their class numbers 1…11; 0 is healthy."""
BEFORE = 4
"""Flights before a repair, and as many after."""
EVENTS = 13
"""Events an airframe."""


@dataclass(frozen=True)
class Difficulty:
    """How hard the set is.

    Attributes:
        scatter: Factor on how much airframes differ.
        severity: Range of the faults' severity; 1 is plain to see.
        label_noise: Share of the flights before a repair that show nothing.
        seed: Seed of the set; part of the definition.
    """

    scatter: float
    severity: tuple[float, float]
    label_noise: float
    seed: int


DIFFICULTIES: Mapping[str, Difficulty] = {
    "clear": Difficulty(0.5, (0.5, 1.2), 0.0, 20260),
    "fleet": Difficulty(1.0, (0.4, 1.1), 0.1, 20261),
}
"""``fleet`` is frozen. Its severities were set before any network was trained, so that extremely
randomised trees on window statistics reach an AUC of 0.632 ± 0.034 on validation (0.705 with
0.6 to 1.4, 0.546 with 0.2 to 0.8 and fewer base flights)."""


@dataclass(frozen=True, eq=False)
class Airframes:
    """What differs between airframes; every array has one row an airframe."""

    mixture: NDArray[np.float32]
    egt: NDArray[np.float32]
    cht: NDArray[np.float32]
    cooling: NDArray[np.float32]
    oil: NDArray[np.float32]
    pressure: NDArray[np.float32]
    flow: NDArray[np.float32]
    bus: NDArray[np.float32]
    load: NDArray[np.float32]
    charge: NDArray[np.float32]
    second: NDArray[np.float32]

    def of(self, airframe: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        """Rows of some flights' airframes, with a last axis for time."""
        return {f.name: getattr(self, f.name)[airframe][..., None] for f in fields(self)}


@dataclass(frozen=True, eq=False)
class Flights:
    """All flights of a set; every array has one row a flight.

    Attributes:
        airframe: Which one.
        fold: Of airframe and base flight alike.
        event: Number of the maintenance event.
        fault: Class of the event, 1…11.
        before: 1 before the repair, 0 after it.
        left: Flights left before the repair (0 is the last one), -1 after it.
        severity: Of the fault in this flight; 0 after the repair, and for label noise.
        base: Base flight.
        onset: Second at which the fault begins; negative: there from the start.
        cylinder: 0…3, which cylinder, tank or probe.
        variant: In [0, 1): chooses among the forms of a fault.
        sign: Direction of a drift.
        day: Deviation of the day's temperature, K.
        soak: How warm the engine is at the first sample, 0 to 1.
        fuel: Gallons more or less than the base flight had.
        draw: Number of the flight's noise; a flight and its healthy twin share it.
        frames: The airframes.
        difficulty: Name.
    """

    airframe: NDArray[np.int64]
    fold: NDArray[np.int64]
    event: NDArray[np.int64]
    fault: NDArray[np.int64]
    before: NDArray[np.int64]
    left: NDArray[np.int64]
    severity: NDArray[np.float32]
    base: NDArray[np.int64]
    onset: NDArray[np.float32]
    cylinder: NDArray[np.int64]
    variant: NDArray[np.float32]
    sign: NDArray[np.float32]
    day: NDArray[np.float32]
    soak: NDArray[np.float32]
    fuel: NDArray[np.float32]
    draw: NDArray[np.int64]
    frames: Airframes
    difficulty: str

    def __len__(self) -> int:
        return len(self.airframe)

    @property
    def target(self) -> NDArray[np.int64]:
        """The fault before the repair, 0 after it."""
        return self.fault * self.before

    def row(self, places: NDArray[np.int64]) -> dict[str, NDArray[np.generic]]:
        """Columns of some flights, without the airframes."""
        names = [f.name for f in fields(self) if f.name not in ("frames", "difficulty")]
        return {name: getattr(self, name)[places] for name in names}


def difficulty_of(name: str) -> Difficulty:
    """Look a difficulty up.

    Raises:
        DataError: There is none of that name.
    """
    if name not in DIFFICULTIES:
        raise DataError(
            f"no difficulty {name!r}", at="difficulty", hint=did_you_mean(name, DIFFICULTIES)
        )
    return DIFFICULTIES[name]


def plan_fleet(
    bases: Bases, difficulty: str, *, airframes: int = 50, events: int = EVENTS
) -> Flights:
    """Draw the set.

    Args:
        bases: Base flights; base i belongs to fold i mod 5.
        difficulty: Row of `DIFFICULTIES`.
        airframes: How many; airframe i belongs to fold i mod 5.
        events: Events an airframe, eight flights each.
    """
    level = difficulty_of(difficulty)
    rng = np.random.default_rng(level.seed)
    frames = _airframes(rng, airframes, level.scatter)
    rows: list[tuple[Any, ...]] = []
    for airframe in range(airframes):
        turn = [f for _ in range(0, events, len(FAULTS)) for f in rng.permutation(len(FAULTS))]
        for number, fault in enumerate(turn[:events]):
            event = airframe * events + number
            rows += _event(rng, level, bases, airframe, event, int(fault) + 1)
    columns = np.array(rows).T
    return Flights(
        **{
            name: column.astype(np.int64 if name in _WHOLE else np.float32)
            for name, column in zip(_COLUMNS, columns, strict=True)
        },
        draw=np.arange(len(rows)),
        frames=frames,
        difficulty=difficulty,
    )


_COLUMNS = (
    *("airframe", "fold", "event", "fault", "before", "left", "severity", "base", "onset"),
    *("cylinder", "variant", "sign", "day", "soak", "fuel"),
)
_WHOLE = frozenset(("airframe", "fold", "event", "fault", "before", "left", "base", "cylinder"))


def _event(
    rng: np.random.Generator, level: Difficulty, bases: Bases, airframe: int, event: int, fault: int
) -> list[tuple[Any, ...]]:
    """The eight flights of one event; the fault grows towards the repair."""
    fold = airframe % FOLDS
    severity = rng.uniform(*level.severity)
    cylinder, variant, sign = rng.integers(0, 4), rng.uniform(), rng.choice([-1.0, 1.0])
    able = _able(bases, fold, fault)
    rows = []
    for number in range(2 * BEFORE):
        before = number < BEFORE
        left = BEFORE - 1 - number if before else -1
        shown = before and rng.uniform() >= level.label_noise
        rows.append(
            (
                *(airframe, fold, event, fault, int(before), left),
                severity * (1 - 0.08 * left) if shown else 0.0,
                able[rng.integers(len(able))],
                rng.uniform(-0.6, 0.5) * SECONDS,
                *(cylinder, variant, sign),
                *(rng.normal(0, 5), rng.uniform(0.3, 1.0), rng.uniform(-4, 4)),
            )
        )
    return rows


def _able(bases: Bases, fold: int, fault: int) -> NDArray[np.int64]:
    """Base flights of a fold; for a closed-loop fault those that have its response."""
    mine = np.arange(fold, len(bases), FOLDS)
    name = list(FAULTS)[fault - 1]
    if name in TROUBLES:
        mine = mine[(bases.trouble[mine] == TROUBLES.index(name)).any(1)]
    if not len(mine):
        raise DataError(f"no base flight of fold {fold} has a response to {name}", at="bases")
    return mine


def _airframes(rng: np.random.Generator, count: int, k: float) -> Airframes:
    def normal(spread: float, *shape: int) -> NDArray[np.float32]:
        return rng.normal(0, spread * k, (count, *shape)).astype(np.float32)

    return Airframes(
        mixture=1 + normal(0.012, 4),
        egt=normal(28, 4),
        cht=normal(7, 4),
        cooling=1 + normal(0.045, 4),
        oil=rng.uniform(1 - 0.14 * k, 1.0, count).astype(np.float32),
        pressure=68 + normal(4),
        flow=1 + normal(0.02),
        bus=28.1 + normal(0.18),
        load=normal(2),
        charge=rng.uniform(2, 9, count).astype(np.float32),
        second=(rng.uniform(size=count) < 0.55).astype(np.float32),
    )
