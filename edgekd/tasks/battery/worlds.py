"""From homes over a year to worlds: which home at which time, with which battery and forecast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekd.agent.loops.battery import DAYS, World, forecast
from edgekd.data.battery.homes import Homes
from edgekd.errors import DataError, RecipeError

Floats = NDArray[np.float64]

PERIOD_DAYS = 28
"""Length of what is judged: one home over 28 days."""
WARM_UP_DAYS = DAYS
PATTERN = ("train", "train", "val", "test")
"""Whose turn a period of 28 days is, over and over."""


@dataclass(frozen=True)
class Setup:
    """What stands in every home, and what its controller knows.

    Attributes:
        capacity: kWh; 0 for a day's mean surplus of each home, rounded up.
        power: kW; 0 for a quarter of the capacity per hour.
        efficiency: Of a round trip; its root each way.
        standby: kW that the inverter takes.
        feed_in: Money per kWh exported.
        horizon: Steps of known prices and forecast net load.
        information: See `edgekd.agent.loops.battery.Contract`.
    """

    capacity: float = 6.4
    power: float = 5.0
    efficiency: float = 0.9
    standby: float = 0.0
    feed_in: float = 0.05
    horizon: int = 24
    information: str = "mean7"

    def __post_init__(self) -> None:
        fine = {
            "capacity": self.capacity >= 0,
            "power": self.power >= 0,
            "efficiency": 0 < self.efficiency <= 1,
            "standby": self.standby >= 0,
            "horizon": self.horizon >= 2,
            "information": self.information in ("mean7", "perfect", "none"),
        }
        for name, good in fine.items():
            if not good:
                raise RecipeError(
                    f"{name} cannot be {getattr(self, name)!r}", at=f"setting: {name}"
                )


@dataclass(frozen=True)
class Place:
    """A stretch of time of one home.

    Attributes:
        home: Row of the homes.
        first: First step to control.
        past: First step that the forecast may look at.
    """

    home: int
    first: int
    past: int = 0


def capacities(homes: Homes, setup: Setup, *, steps: int | None = None) -> Floats:
    """(homes,) kWh.

    Args:
        homes: The homes.
        setup: With capacity 0, each home gets its mean surplus of a day over the first ``steps``.
        steps: All by default.
    """
    if setup.capacity > 0:
        return np.full(len(homes.names), setup.capacity)
    surplus = np.maximum(homes.pv - homes.load, 0)[:, :steps]
    sizes: Floats = np.maximum(np.ceil(surplus.mean(1) * homes.day), 1.0)
    return sizes


def world_of(
    homes: Homes,
    setup: Setup,
    places: Sequence[Place],
    steps: int,
    *,
    capacity: Floats | None = None,
    start: Floats | None = None,
) -> World:
    """Put batteries into homes and cut out the time to control.

    Args:
        homes: The homes.
        setup: Batteries and information.
        places: Which home from when.
        steps: How many.
        capacity: (homes,) of all homes; by default `capacities`.
        start: (places,) share of the capacity that is charged at the beginning; 0 by default.

    Raises:
        DataError: The data ends before the last step's horizon.
    """
    if setup.horizon > homes.day:
        raise RecipeError(
            f"the horizon of {setup.horizon} steps is longer than a day of {homes.day}",
            at="setting: horizon",
        )
    length = steps + setup.horizon
    for place in places:
        if place.first + length > homes.steps:
            raise DataError(
                f"{homes.steps} steps of data, wanted {place.first + length}",
                at=homes.source,
                hint="give more days",
            )
    net = homes.load - homes.pv
    rows = [p.home for p in places]
    sizes = (capacities(homes, setup) if capacity is None else capacity)[rows]
    count, root = len(places), math.sqrt(setup.efficiency)

    def each(value: float) -> Floats:
        return np.full(count, float(value))

    def cut(series: Floats) -> Floats:
        return np.stack([series[p.home, p.first : p.first + length] for p in places])

    expected = [_expected(net[p.home], p, length, homes.day, setup.information) for p in places]
    clock = np.tile(homes.slots / homes.day, (len(homes.names), 1))
    power = each(setup.power) if setup.power > 0 else sizes / 4
    return World(
        cut(homes.load), cut(homes.pv), cut(np.tile(homes.price, (len(homes.names), 1))),
        np.stack(expected), cut(clock), each(setup.feed_in), sizes, power * homes.hours,
        each(root), each(root), each(setup.standby * homes.hours),
        np.zeros(count) if start is None else start * sizes, steps,
    )  # fmt: skip


def _expected(net: Floats, place: Place, length: int, day: int, information: str) -> Floats:
    known = net[None, place.past : place.first + length]
    found: Floats = forecast(known, day, information)[0, place.first - place.past :]
    return found


def scenarios(homes: Homes, places: Sequence[Place], length: int) -> Floats:
    """Net load of the last seven days as seven forecasts: (7, places, length).

    Args:
        homes: The homes.
        places: Each with seven days between ``past`` and ``first``.
        length: Steps and horizon.
    """
    net, day = homes.load - homes.pv, homes.day

    def back(place: Place, days: int) -> Floats:
        start = place.first - days * day
        row: Floats = net[place.home, start : start + length]
        return row

    return np.stack([[back(p, d) for p in places] for d in range(1, DAYS + 1)])


def turns(count: int, split: int) -> list[str]:
    """Whose turn each of ``count`` homes is: ``train``, ``val`` or ``test``.

    Every fourth home is for test, the one before it for validation; ``split`` moves the pattern,
    so that four splits test every home. With fewer than four homes all are in every split.
    """
    if count < 4:
        return ["all"] * count
    order = ("train", "val", "test", "train")
    return [order[(i + split) % 4] for i in range(count)]


def periods(homes: Homes, horizon: int) -> list[tuple[int, str]]:
    """First step and turn of every period of 28 days whose horizon lies in the data."""
    steps = PERIOD_DAYS * homes.day
    count = (homes.steps - horizon) // steps
    if count < len(PATTERN):
        need = len(PATTERN) * PERIOD_DAYS + 1
        raise DataError(
            f"{homes.steps // homes.day} days of data, wanted at least {need}",
            at=homes.source,
            hint="training, validation and test take turns every 28 days",
        )
    return [(i * steps, PATTERN[i % len(PATTERN)]) for i in range(count)]


def judged(homes: Homes, setup: Setup, part: str, split: int) -> list[Place]:
    """Homes and periods of ``val`` or ``test``: none of both is ever trained on."""
    whose = turns(len(homes.names), split)
    rows = [i for i, turn in enumerate(whose) if turn in (part, "all")]
    starts = [start for start, turn in periods(homes, setup.horizon) if turn == part]
    return [Place(row, start) for start in starts for row in rows]


@dataclass(frozen=True)
class Stretch:
    """Days in a row to train on, of some homes.

    Attributes:
        places: The homes, from the first step to control.
        steps: How many.
    """

    places: tuple[Place, ...]
    steps: int


def trained(homes: Homes, setup: Setup, split: int) -> list[Stretch]:
    """Homes and stretches to train on.

    Neither forecast nor horizon leaves a stretch, so nothing of another split is looked at: its
    first seven days only serve as past, its last horizon only as future.
    """
    whose = turns(len(homes.names), split)
    rows = [i for i, turn in enumerate(whose) if turn in ("train", "all")]
    steps, warm = PERIOD_DAYS * homes.day, WARM_UP_DAYS * homes.day
    runs: list[list[int]] = []
    for first, turn in periods(homes, setup.horizon):
        if turn != "train":
            continue
        if runs and runs[-1][1] == first:
            runs[-1][1] = first + steps
        else:
            runs.append([first, first + steps])
    return [
        Stretch(
            tuple(Place(row, first + warm, first) for row in rows),
            end - first - warm - setup.horizon,
        )
        for first, end in runs
    ]
