"""Homes over time, and the checks that every loader's result must pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import DataError

__all__ = ["Homes", "check", "choose", "regular"]

Floats = NDArray[np.float64]
Times = NDArray[np.datetime64]

STEPS_MINUTES = (15, 30, 60)
MOST_KW = 30.0
"""Mean power of a home in one step beyond which a value is taken for another unit."""
MOST_DAILY_KWH = 150.0
"""Mean load or generation a day beyond which a whole series is taken for another unit."""


@dataclass(frozen=True, eq=False)
class Homes:
    """Load, generation and price of some homes over the same steps.

    Attributes:
        names: One a home.
        load: (homes, steps) kWh a step, at least 0.
        pv: (homes, steps) kWh a step, at least 0.
        price: (steps,) import price, money per kWh; may be negative. All NaN while no prices have
            been given.
        hours: Length of a step.
        begin: Start of the first step, on the clock that the time of day is taken from.
        source: What the data is, in a few words.
        files: Paths read.
        note: What a reader of the results must know; empty when nothing.
        money: Currency, for the report.
    """

    names: tuple[str, ...]
    load: Floats
    pv: Floats
    price: Floats
    hours: float
    begin: np.datetime64
    source: str
    files: tuple[str, ...] = ()
    note: str = ""
    money: str = "money"

    @property
    def steps(self) -> int:
        """How many."""
        return int(self.load.shape[1])

    @property
    def day(self) -> int:
        """Steps a day."""
        return round(24 / self.hours)

    @property
    def slots(self) -> NDArray[np.int64]:
        """(steps,) place of each step in its day."""
        minutes = (self.begin - self.begin.astype("datetime64[D]")).astype("timedelta64[m]")
        first = round(minutes.astype(int) / 60 / self.hours)
        slots: NDArray[np.int64] = (first + np.arange(self.steps)) % self.day
        return slots


def choose(homes: Homes, names: Iterable[str]) -> Homes:
    """Keep some homes, in the order given.

    Raises:
        DataError: A name is unknown.
    """
    wanted = list(names)
    if not wanted:
        return homes
    unknown = [name for name in wanted if name not in homes.names]
    if unknown:
        raise DataError(
            f"no home is called {unknown[0]!r}",
            at=homes.source,
            hint=f"homes: {', '.join(homes.names)}",
        )
    rows = [homes.names.index(name) for name in wanted]
    return replace(homes, names=tuple(wanted), load=homes.load[rows], pv=homes.pv[rows])


def check(homes: Homes, at: str, *, lines: Sequence[int] = ()) -> Homes:
    """Refuse what cannot be right, and return the homes unchanged.

    Args:
        homes: What a loader made.
        at: File or folder, for the message.
        lines: Line of the file that holds each step; empty where lines mean nothing.

    Raises:
        DataError: NaN, negative values, implausible magnitudes, a wrong length; home, row and
            time are named.
    """
    if homes.price.shape != (homes.steps,):
        raise DataError(
            f"{len(homes.price)} prices for {homes.steps} steps",
            at=at,
            hint="give a price file that covers the whole load",
        )
    if not np.isnan(homes.price).all() and not np.isfinite(homes.price).all():
        place = int(np.argmin(np.isfinite(homes.price)))
        raise DataError(
            f"the price is missing at {_time(homes, place)}",
            at=_at(at, place, lines),
            hint="fill or cut the hours without a price; nothing is filled here",
        )
    for what, values in (("load", homes.load), ("generation", homes.pv)):
        for name, series in zip(homes.names, values, strict=True):
            _check_series(homes, f"{what} of home {name}", series, at, lines)
    return homes


def _check_series(homes: Homes, what: str, series: Floats, at: str, lines: Sequence[int]) -> None:
    bad = ~np.isfinite(series)
    if bad.any():
        place = int(np.argmax(bad))
        raise DataError(
            f"the {what} is not a number at {_time(homes, place)} ({int(bad.sum())} such values)",
            at=_at(at, place, lines),
            hint="fill or remove the days with missing values; nothing is filled here",
        )
    if (series < 0).any():
        place = int(np.argmax(series < 0))
        raise DataError(
            f"the {what} is negative at {_time(homes, place)}: {series[place]:g} kWh",
            at=_at(at, place, lines),
            hint="load and generation are both counted as positive; net values must be split",
        )
    hint = (
        "energies are kWh a step: multiply kW by the hours of a step, divide W by 1000;"
        " a column named load_kw or load_w is converted"
    )
    if series.max() > MOST_KW * homes.hours:
        place = int(series.argmax())
        raise DataError(
            f"the {what} is {series[place]:g} kWh in {60 * homes.hours:g} minutes at"
            f" {_time(homes, place)}, that is {series[place] / homes.hours:.0f} kW",
            at=_at(at, place, lines),
            hint=hint,
        )
    daily = series.mean() * homes.day
    if daily > MOST_DAILY_KWH:
        raise DataError(f"the {what} is {daily:.0f} kWh a day on average", at=at, hint=hint)


def regular(times: Times, at: str, *, lines: Sequence[int] = ()) -> float:
    """Return the length of a step in hours of evenly spaced times.

    Args:
        times: Start of each step.
        at: File or folder, for the message.
        lines: Line of the file that holds each step; empty where lines mean nothing.

    Raises:
        DataError: Duplicate, unordered or missing times, or a step that is not 15, 30 or 60
            minutes; the row is named.
    """
    if len(times) < 2:
        raise DataError(f"only {len(times)} rows", at=at)
    seconds = np.diff(times.astype("datetime64[s]")).astype(np.int64)
    usual = int(np.median(seconds))
    for place, gap in enumerate(seconds):
        if gap == usual and gap > 0:
            continue
        now, line = times[place + 1], _at(at, place + 1, lines)
        if gap == 0:
            raise DataError(
                f"the time {now} is there twice", at=line,
                hint="remove one of them; when the clock was put back, use times with an offset",
            )  # fmt: skip
        if gap < 0:
            raise DataError(
                f"the time {now} comes after {times[place]}", at=line, hint="sort the file by time"
            )
        due = times[place] + np.timedelta64(usual, "s")
        if gap > usual > 0 and due in times[place + 1 :]:
            raise DataError(
                f"the time {now} comes before {due}", at=line, hint="sort the file by time"
            )
        raise DataError(
            f"a gap: {now} follows {times[place]}, steps are {usual // 60} minutes", at=line,
            hint="fill or cut it; when the clock was put forward, use times with an offset",
        )  # fmt: skip
    if usual // 60 not in STEPS_MINUTES or usual % 60:
        raise DataError(
            f"steps of {usual / 60:g} minutes", at=at, hint="resample to 15, 30 or 60 minutes"
        )
    return usual / 3600


def _time(homes: Homes, place: int) -> str:
    return str(homes.begin.astype("datetime64[m]") + round(place * homes.hours * 60))


def _at(at: str, place: int, lines: Sequence[int]) -> str:
    return f"{at}: line {lines[place]}" if len(lines) else at
