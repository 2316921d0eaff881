"""From engine and airframe states to the 23 channels, with faults that act through physics.

JSBSim gives one cylinder-head and one exhaust temperature, both too crude to diagnose from. So
every cylinder, the oil, the electrics and the instruments are modelled here from rpm, manifold
pressure, fuel flow, power, mixture, airspeed and air density. Constants were set by hand to give
the values of a Cessna 172's log; they were not fitted to real flights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.data.flight.bases import SECONDS, Bases, States
from edgekd.data.flight.channels import CHANNELS
from edgekd.data.flight.fleet import FAULTS, Flights
from edgekd.data.flight.pilot import TROUBLES

__all__ = ["NOISE", "WINDOWS", "simulate", "twins"]

Array = NDArray[np.float32]
PLACE = {name: place for place, name in enumerate(CHANNELS)}
NOISE = np.array(
    [0.03, 0.05, 0.25, 0.2, 0.08, 0.08, 0.08, 0.25, 0.35, 4.0]
    + [0.6] * 4
    + [2.5] * 4
    + [0.3, 0.4, 25.0, 0.012, 4.0],
    np.float32,
)
"""Standard deviation of each sensor's noise at 1 Hz, in the channel's unit."""
WINDOWS = 16
"""Time windows of an effect, 256 s each."""
BLOCK = 64
"""Seconds filtered at a time; divides 4096."""
GROWTH = 300.0
"""Seconds from the onset of a fault to its full severity."""
PROBES = tuple(CHANNELS.index(f"E1 {name}") for name in ("CHT1", "CHT3", "EGT2", "OilT"))


def simulate(
    bases: Bases, flights: Flights, places: NDArray[np.int64], seed: int
) -> tuple[Array, Array]:
    """Fly some flights of the set.

    Args:
        bases: Base flights.
        flights: The set.
        places: Which flights.
        seed: Seed of the set; with a flight's ``draw`` it gives its noise.

    Returns:
        Channels at 1 Hz, (flights, 23, 4096), NaN where a sensor is absent; and what the fault
        really changed: flight minus healthy twin in units of the sensor's noise, (flights, 23,
        16), root mean square over windows of 256 s.
    """
    noise = _noise(flights.draw[places], seed)
    clean = _clean(bases, flights, places, noise, healthy=False)
    effect = np.zeros((len(places), len(CHANNELS), WINDOWS), np.float32)
    ill = np.flatnonzero(flights.severity[places] > 0)
    if len(ill):
        change = clean[ill] - _clean(bases, flights, places[ill], noise[ill], healthy=True)
        scaled = np.nan_to_num(change) / NOISE[:, None]
        parts = scaled.reshape(len(ill), len(CHANNELS), WINDOWS, -1)
        effect[ill] = np.sqrt(np.square(parts).mean(-1))
    return clean + noise[:, : len(CHANNELS)] * NOISE[:, None], effect


def twins(bases: Bases, flights: Flights, places: NDArray[np.int64], seed: int) -> Array:
    """The same flights with the same noise and no fault: (flights, 23, 4096)."""
    noise = _noise(flights.draw[places], seed)
    clean = _clean(bases, flights, places, noise, healthy=True)
    return clean + noise[:, : len(CHANNELS)] * NOISE[:, None]


def _noise(draws: NDArray[np.int64], seed: int) -> Array:
    """White noise, a row a channel and three more for slosh, load and dropouts."""
    rows = (len(CHANNELS) + 3, SECONDS)
    return np.stack(
        [np.random.default_rng([seed, d]).standard_normal(rows, np.float32) for d in draws]
    )


@dataclass(eq=False)
class Damage:
    """What is broken, as factors and sums on the physics; each may vary in time."""

    leak: Any = 0.0  # (flights, 4, time): unmetered air of a cylinder
    cooling: Any = 1.0  # (flights, 4, time)
    breath: Any = 1.0  # (flights, 4, time): share of its power that a cylinder gives
    oil: Any = 0.0  # (flights, time): share lost
    alternator: Any = 1.0  # (flights, time)


def _clean(
    bases: Bases, flights: Flights, places: NDArray[np.int64], noise: Array, *, healthy: bool
) -> Array:
    """Channels without sensor noise; kinds of faults are done one after the other."""
    out = np.empty((len(places), len(CHANNELS), SECONDS), np.float32)
    row: dict[str, Any] = flights.row(places)
    fault = np.where((row["severity"] > 0) & (not healthy), row["fault"], 0)
    for kind in np.unique(fault):
        chosen = np.flatnonzero(fault == kind)
        part = {name: values[chosen] for name, values in row.items()}
        name = "" if kind == 0 else list(FAULTS)[kind - 1]
        out[chosen] = _channels(bases, flights, part, noise[chosen], name)
    return out


def _channels(
    bases: Bases, flights: Flights, row: dict[str, Any], noise: Array, fault: str
) -> Array:
    state, growth = bases.states(row["base"]), _growth(row)
    if fault in TROUBLES:
        for name, change in bases.changes(row["base"], fault).items():
            state[name] = state[name] + growth * change
    air = _air(bases, row, state)
    frame = flights.frames.of(row["airframe"])
    damage = _damage(fault, row, growth, state)
    out = np.empty((len(noise), len(CHANNELS), SECONDS), np.float32)
    exhaust, heads = _cylinders(state, air, frame, damage, row)
    out[:, PLACE["E1 EGT1"] : PLACE["E1 EGT4"] + 1] = exhaust
    out[:, PLACE["E1 CHT1"] : PLACE["E1 CHT4"] + 1] = heads
    out[:, PLACE["E1 OilT"]], out[:, PLACE["E1 OilP"]] = _oil(state, air, frame, damage, row)
    out[:, :4] = _electrics(state, frame, damage, noise)
    out[:, 4:6] = _fuel(bases, row, state, noise)
    out[:, PLACE["E1 FFlow"]] = _lag(state["flow"] * frame["flow"], 2)
    out[:, PLACE["E1 RPM"]] = state["rpm"]
    out[:, PLACE["OAT"]] = (air["oat"] - 32) / 1.8
    out[:, PLACE["IAS"]], out[:, PLACE["AltMSL"]] = state["ias"], state["alt"]
    out[:, PLACE["VSpd"]] = np.gradient(state["alt"], axis=1) * 60
    out[:, PLACE["NormAc"]] = state["load"] - 1
    if fault in INSTRUMENTS:
        INSTRUMENTS[fault](out, row, growth, noise)
    return out


def _growth(row: dict[str, Any]) -> Array:
    """Severity over time: nothing before the onset, full 300 s later."""
    since = np.arange(SECONDS, dtype=np.float32) - row["onset"][:, None]
    grown: Array = row["severity"][:, None] * np.clip(since / GROWTH, 0, 1)
    return grown.astype(np.float32)


def _air(bases: Bases, row: dict[str, Any], state: States) -> States:
    """Outside air in °F and inHg, density against sea level, cooling airspeed in kt."""
    delta = (bases.scalar("delta_t")[row["base"]] + row["day"]).astype(np.float32)
    oat = 59 - 3.566e-3 * state["alt"] + 1.8 * delta[:, None]
    pressure = 29.92 * np.clip(1 - 6.876e-6 * state["alt"], 0.3, None) ** 5.256
    density = pressure / 29.92 * 518.67 / (oat + 459.67)
    flow = np.sqrt(state["ias"] ** 2 + (0.012 * state["rpm"]) ** 2)
    return {"oat": oat, "pressure": pressure, "density": density, "cooling": flow * density}


def _damage(fault: str, row: dict[str, Any], growth: Array, state: States) -> Damage:
    one = np.eye(4, dtype=np.float32)[row["cylinder"]][:, :, None]
    grown = growth[:, None]
    if fault == "intake_leak":
        return Damage(leak=0.30 * one * grown)
    if fault == "oil_leak":
        lasting = np.cumsum(growth, axis=1) / SECONDS
        return Damage(oil=0.12 * growth + 0.45 * lasting)
    if fault == "baffle":
        both = (row["variant"] < 0.5).astype(np.float32)[:, None, None]
        broken = np.maximum(one, both * np.roll(one, 2, axis=1))
        wind = state["ias"] / (state["ias"] + 35)
        return Damage(cooling=1 - 0.28 * broken * grown * wind[:, None])
    if fault == "compression":
        return Damage(breath=1 - 0.30 * one * grown)
    if fault == "alternator":
        return Damage(alternator=1 - 0.35 * growth)
    return Damage()


def _cylinders(
    state: States, air: States, frame: States, damage: Damage, row: dict[str, Any]
) -> tuple[Array, Array]:
    """Exhaust and head temperatures of four cylinders in °F: (flights, 4, time) each."""
    power = np.clip(state["power"] / 180, 0.02, 1.2)[:, None] * damage.breath
    suction = np.sqrt(np.clip(air["pressure"] - state["map"], 0, None) / 10)
    unmetered = (
        suction * 1100 / np.clip(state["rpm"], 400, None) * 12 / np.clip(state["map"], 6, None)
    )
    afr = np.clip(state["afr"], 6, 22)[:, None] * frame["mixture"]
    afr = np.clip(afr * (1 + damage.leak * unmetered[:, None]), 8, 22)
    rich = np.clip(15 - afr, 0, None)
    lean = np.clip(afr - 15, 0, None)
    off = state["magneto"][:, None]
    exhaust = 1130 + 360 * power**0.35 - (12 * rich**2 + 5 * rich) - 25 * lean**1.5
    exhaust = exhaust + frame["egt"] + 65 * off + 150 * (1 - damage.breath)
    burn = np.clip(1 - 0.02 * (afr - 13.8) ** 2, 0.4, 1)
    cooling = np.clip(air["cooling"] / 100, 0.02, None) ** 0.45
    rise = 415 * power**0.6 * burn / (cooling[:, None] * frame["cooling"] * damage.cooling)
    heads = air["oat"][:, None] + rise * (1 - 0.06 * off)
    soak = row["soak"][:, None]
    cold = air["oat"][:, :1] + soak * (heads[..., 0] - air["oat"][:, :1])
    return _lag(exhaust, 4), _lag(heads, 95, cold) + frame["cht"]


def _oil(
    state: States, air: States, frame: States, damage: Damage, row: dict[str, Any]
) -> tuple[Array, Array]:
    """Oil temperature in °F and pressure in psi."""
    power = np.clip(state["power"] / 180, 0.02, 1.2)
    lost = np.clip(1 - frame["oil"] + damage.oil, 0, 0.8)
    cooling = np.clip(air["cooling"] / 100, 0.05, None) ** 0.25
    hot = air["oat"] + (95 + 75 * np.sqrt(power)) / cooling * (1 + 0.30 * lost)
    cold = air["oat"][:, 0] + row["soak"] * (hot[:, 0] - air["oat"][:, 0])
    temperature = _lag(hot, 240, cold)
    thick = np.exp(-(temperature - 180) / 220 * 0.35)
    turning = np.clip(state["rpm"] / 2300, 0, 1.05) ** 0.6
    pressure = frame["pressure"] * turning * thick * (1 - 0.55 * lost**1.2)
    return temperature, _lag(pressure, 2)


def _electrics(state: States, frame: States, damage: Damage, noise: Array) -> Array:
    """Two bus voltages and two battery currents; the second bus is absent in some airframes."""
    wander = _lag(noise[:, -2], 60) * 8
    load = 20 + 6 * (state["ias"] > 45) + frame["load"] + wander
    able = 60 * damage.alternator * np.clip((state["rpm"] - 700) / 1300, 0, 1)
    short = np.clip(load - able, 0, None)
    volts = np.where(short > 0, 25.2 - 0.05 * short, frame["bus"] - (1 - damage.alternator) * 4)
    fading = np.exp(-np.arange(SECONDS, dtype=np.float32) / 900)
    amperes = np.where(short > 0, -short, frame["charge"] * fading + 0.7)
    there = np.where(frame["second"] > 0, 1, np.nan)
    first = _lag(volts, 3)
    out: Array = np.stack([first, (first - 0.25) * there, amperes, 0.3 * there + 0 * first], 1)
    return out


def _fuel(bases: Bases, row: dict[str, Any], state: States, noise: Array) -> Array:
    """Fuel in the left and right tank in gal, with slosh."""
    start = np.stack([bases.scalar(s)[row["base"]] for s in ("left", "right")], 1)
    start = np.clip(start + row["fuel"][:, None], 6, None).astype(np.float32)
    burnt = np.cumsum(state["flow"], axis=1) / 7200
    slosh = _lag(noise[:, -3], 6) * 0.5 * 3
    tanks = start[:, :, None] - burnt[:, None] + slosh[:, None] * np.array([[1], [-1]], np.float32)
    clipped: Array = np.clip(tanks, 0, None)
    return clipped


def _probe(out: Array, row: dict[str, Any], growth: Array, noise: Array) -> None:
    """One probe drifts, drops out, or sticks at the value it had."""
    for i, (cylinder, variant, sign) in enumerate(
        zip(row["cylinder"], row["variant"], row["sign"], strict=True)
    ):
        values = out[i, PROBES[cylinder]]
        spread = float(values.std()) + 1.0
        if variant < 0.4:
            values += sign * growth[i] * 1.2 * spread
        elif variant < 0.8:
            values -= (
                (_lag(noise[i : i + 1, -1], 8)[0] * 4 > 1.2 - growth[i]) * growth[i] * 2 * spread
            )
        else:
            start = int(np.clip(row["onset"][i], 0, SECONDS - 1))
            stuck = (growth[i] > 0) * min(1.0, float(row["severity"][i]))
            values += stuck * (values[start] - values)


def _fuel_quantity(out: Array, row: dict[str, Any], growth: Array, noise: Array) -> None:
    """One tank leaks 6 gal/h at full severity, or its sender sticks."""
    for i, (cylinder, variant) in enumerate(zip(row["cylinder"], row["variant"], strict=True)):
        values = out[i, 4 + cylinder % 2]
        if variant < 0.6:
            values -= np.cumsum(growth[i]) * 6 / 3600
            np.clip(values, 0, None, out=values)
        else:
            start = int(np.clip(row["onset"][i], 0, SECONDS - 1))
            values += (
                (growth[i] > 0) * min(1.0, float(row["severity"][i])) * (values[start] - values)
            )


def _pitot_static(out: Array, row: dict[str, Any], growth: Array, noise: Array) -> None:
    """A half-blocked pitot reads low; a leaking static line adds height and slows the needle."""
    pitot = (row["variant"] < 0.5)[:, None]
    ias, alt, climb = (PLACE[n] for n in ("IAS", "AltMSL", "VSpd"))
    out[:, ias] *= 1 - growth * np.where(pitot, 0.14, 0.05)
    leak = np.where(pitot, 0, growth)
    out[:, alt] += 90 * leak * (out[:, ias] / 100) ** 2
    out[:, climb] += np.clip(leak, 0, 1) * (_lag(out[:, climb], 12) - out[:, climb])


INSTRUMENTS = {"probe": _probe, "fuel_quantity": _fuel_quantity, "pitot_static": _pitot_static}


def _lag(values: Any, tau: float, first: Any = None) -> Array:
    """First-order lag along the last axis, starting at ``first`` (by default settled).

    Blocks of 64 s are filtered by one product each; only their last values are passed on.
    """
    keep = np.exp(-1 / tau)
    steps = np.arange(BLOCK)
    inside = np.tril(keep ** np.clip(steps[:, None] - steps, 0, None)) * (1 - keep)
    values = np.asarray(values, np.float32)
    parts = values.reshape(*values.shape[:-1], -1, BLOCK) @ inside.T.astype(np.float32)
    fade = (keep ** (steps + 1)).astype(np.float32)
    now = values[..., 0] if first is None else np.asarray(first, np.float32)
    for block in range(parts.shape[-2]):
        parts[..., block, :] += now[..., None] * fade
        now = parts[..., block, -1]
    lagged: Array = parts.reshape(values.shape)
    return lagged
