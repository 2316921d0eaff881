"""The 23 channels of the NGAFID maintenance set: names, order, groups, and checks.

Names and order are those of the public files. Units by value: V, A, gal, gal/h, °F, psi, 1/min,
°F, °F, °C, kt, ft/min, g − 1, ft; one sample a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import DataError, did_you_mean

__all__ = ["CHANNELS", "GROUPS", "SELECTIONS", "check_names", "check_values", "select"]

CHANNELS = (
    *("volt1", "volt2", "amp1", "amp2", "FQtyL", "FQtyR"),
    *("E1 FFlow", "E1 OilT", "E1 OilP", "E1 RPM"),
    *("E1 CHT1", "E1 CHT2", "E1 CHT3", "E1 CHT4"),
    *("E1 EGT1", "E1 EGT2", "E1 EGT3", "E1 EGT4"),
    *("OAT", "IAS", "VSpd", "NormAc", "AltMSL"),
)
GROUPS: Mapping[str, tuple[str, ...]] = {
    "volts": ("volt1", "volt2"),
    "amperes": ("amp1", "amp2"),
    "fuel quantity": ("FQtyL", "FQtyR"),
    "fuel flow": ("E1 FFlow",),
    "oil temperature": ("E1 OilT",),
    "oil pressure": ("E1 OilP",),
    "rpm": ("E1 RPM",),
    "cylinder heads": ("E1 CHT1", "E1 CHT2", "E1 CHT3", "E1 CHT4"),
    "exhaust gas": ("E1 EGT1", "E1 EGT2", "E1 EGT3", "E1 EGT4"),
    "outside air": ("OAT",),
    "airspeed": ("IAS",),
    "vertical speed": ("VSpd",),
    "acceleration": ("NormAc",),
    "altitude": ("AltMSL",),
}
"""Sensors that stand or fall together: a net that keeps one cylinder keeps all four."""
SELECTIONS: Mapping[str, tuple[str, ...]] = {
    "all": CHANNELS,
    "paper15": tuple(
        name
        for group in ("volts", "amperes", "fuel flow", "oil temperature", "oil pressure")
        for name in GROUPS[group]
    )
    + GROUPS["cylinder heads"]
    + GROUPS["exhaust gas"],
    "trees15": tuple(
        name
        for group in ("volts", "amperes", "fuel quantity", "oil pressure")
        for name in GROUPS[group]
    )
    + GROUPS["cylinder heads"]
    + GROUPS["exhaust gas"],
}
"""``paper15``: the list that third parties report for LiteInception (arXiv 2604.01725).
``trees15``: the six groups without which extremely randomised trees lose most AUC on the
validation flights of simflight's ``clear`` (0.010 to 0.048 each, of 0.714). It is no fusion of
mutual information, gradients and gates, which needs a converged teacher."""

CONSTANT = 0.98
"""A channel with one value for this share of a flight is reported as stuck."""


def select(name: str) -> tuple[int, ...]:
    """Return the places of a selection's channels among the 23.

    Raises:
        DataError: There is no such selection.
    """
    if name not in SELECTIONS:
        raise DataError(
            f"no channel selection {name!r}", at="channels", hint=did_you_mean(name, SELECTIONS)
        )
    return tuple(CHANNELS.index(channel) for channel in SELECTIONS[name])


def check_names(names: Sequence[str], at: str) -> None:
    """Refuse anything but the 23 channels in their order.

    Raises:
        DataError: With the first name that is wrong, and what it probably means.
    """
    if tuple(names) == CHANNELS:
        return
    unknown = [name for name in names if name not in CHANNELS]
    absent = [name for name in CHANNELS if name not in names]
    listed = f"the {len(CHANNELS)} channels in order: {', '.join(CHANNELS)}"
    if unknown:
        close = did_you_mean(unknown[0], absent or CHANNELS)
        raise DataError(f"unknown channel {unknown[0]!r}", at=at, hint=f"{close}; {listed}")
    if absent:
        raise DataError(f"channel {absent[0]!r} is missing", at=at, hint=listed)
    place = next(i for i, name in enumerate(names) if i >= 23 or name != CHANNELS[i])
    raise DataError(f"channel {place} is {names[place]!r}, out of order", at=at, hint=listed)


def check_values(flight: NDArray[np.floating], at: str, shortest: int = 60) -> list[str]:
    """Look at one flight; return a sentence for every channel that says nothing.

    Args:
        flight: (seconds, 23).
        at: For messages.
        shortest: Seconds that a flight must have.

    Raises:
        DataError: Wrong shape, too short, or no channel has a value.
    """
    if flight.ndim != 2 or flight.shape[1] != len(CHANNELS):
        raise DataError(
            f"a flight has shape {flight.shape}, wanted (seconds, {len(CHANNELS)})", at=at
        )
    if len(flight) < shortest:
        raise DataError(
            f"the flight has {len(flight)} s, at least {shortest} are needed",
            at=at,
            hint="leave it out, or join the parts of a cut log",
        )
    seen = np.isfinite(flight)
    if not seen.any():
        raise DataError("no channel of the flight has a value", at=at)
    notes = []
    for place, name in enumerate(CHANNELS):
        values = flight[seen[:, place], place]
        if len(values) == 0:
            notes.append(f"{name}: no value in the whole flight")
        elif len(values) > 1 and np.mean(values == values[0]) >= CONSTANT:
            notes.append(f"{name}: constant at {values[0]:g}")
    return notes
