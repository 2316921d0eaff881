"""Fly JSBSim's Cessna 172 from the apron to the apron, as a simple pilot would.

Taxi with a run-up and magneto check, take-off, climb, air work, descent, landing. Everything
random is drawn before the engine starts and tied to the clock, so that the same flight with a
troubled engine differs from the healthy one only where the trouble acts.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import StageError
from edgekd.extras import missing

__all__ = ["COLUMNS", "TROUBLES", "Plan", "fly", "plan_flight"]

MODEL = "c172r"
"""IO-360 and fixed-pitch propeller; the c172p of JSBSim 1.3 gives 222 of its 160 hp."""
TICK = 0.1
"""Seconds between two decisions of the pilot."""
STEPS = (6, 3)
"""Steps a tick near the ground and aloft; at three the landing gear chatters."""
COLUMNS = ("rpm", "map", "flow", "power", "afr", "ias", "alt", "load", "magneto")
"""What is recorded every second: 1/min, inHg, gal/h, hp, air to fuel, kt, ft, g, magnetos off."""
TROUBLES = ("compression", "magneto", "mixture", "governor")
"""Faults that act in closed loop with engine, airframe and pilot; full severity is flown."""
LONGEST = 2000.0
"""Seconds past the planned end after which a flight counts as lost."""
TAXI, TAKEOFF, CLIMB, CRUISE, DESCENT, APPROACH, ROLLOUT = range(7)
ENGINE = "propulsion/engine/"


@dataclass(frozen=True)
class Plan:
    """Everything about a flight that is decided beforehand.

    Attributes:
        seed: Where it was drawn from.
        elevation: Of the field, ft.
        delta_t: Deviation from the standard atmosphere, K.
        cruise: Altitude, ft.
        duration: Planned, s.
        rpm: In cruise.
        afr: Air to fuel that the pilot leans to in cruise.
        turbulence: 0 to 1.
        taxi: Seconds before take-off.
        wind: Direction in rad and speed in ft/s.
        heading: Of the runway, degrees.
        fuel: In each tank, lb.
        work: Air work: (start in s, kind, value).
        gusts: Standard normal numbers, a row of three for each tick.
        misfires: Start and length of each magneto event, s.
        period: Of a hunting mixture or throttle, s.
        phase: Of the hunting, rad.
    """

    seed: int
    elevation: float
    delta_t: float
    cruise: float
    duration: float
    rpm: float
    afr: float
    turbulence: float
    taxi: float
    wind: tuple[float, float]
    heading: float
    fuel: tuple[float, float]
    work: tuple[tuple[float, int, float], ...]
    gusts: NDArray[np.float64]
    misfires: tuple[tuple[float, float], ...]
    period: float
    phase: float


def plan_flight(seed: int) -> Plan:
    """Draw a flight."""
    rng = np.random.default_rng([172, seed])
    elevation, duration = rng.uniform(300, 1500), rng.uniform(4000, 4900)
    taxi = rng.uniform(150, 420)
    return Plan(
        seed=seed,
        elevation=elevation,
        delta_t=rng.uniform(-12, 14),
        cruise=elevation + rng.uniform(1800, 5500),
        duration=duration,
        rpm=rng.uniform(2250, 2500),
        afr=rng.uniform(12.6, 14.2),
        turbulence=rng.uniform(),
        taxi=taxi,
        wind=(rng.uniform(0, 2 * math.pi), rng.uniform(0, 20)),
        heading=rng.uniform(0, 360),
        fuel=(rng.uniform(90, 160), rng.uniform(90, 160)),
        work=tuple(_work(rng, taxi + 500, duration, elevation)),
        gusts=rng.standard_normal((round((duration + LONGEST) / TICK) + 2, 3)),
        misfires=tuple(_misfires(rng, taxi + 60, duration)),
        period=rng.uniform(30, 60),
        phase=rng.uniform(0, 2 * math.pi),
    )


def _work(
    rng: np.random.Generator, start: float, end: float, elevation: float
) -> list[tuple[float, int, float]]:
    """Air work: 0 altitude in ft, 1 heading in degrees, 2 rpm, 3 steep turn in degrees, 4 none."""
    found, at = [], start
    while at < end:
        kind = int(rng.integers(0, 5))
        low, high = (
            (elevation + 1500, elevation + 6500),
            (0, 360),
            (2100, 2500),
            (30, 42),
            (0, 1),
        )[kind]
        value = float(rng.uniform(low, high))
        found.append((at, kind, value * float(rng.choice([-1, 1])) if kind == 3 else value))
        at += float(rng.uniform(25, 60) if kind == 3 else rng.uniform(90, 350))
    return found


def _misfires(rng: np.random.Generator, start: float, end: float) -> list[tuple[float, float]]:
    found, at = [], start + float(rng.exponential(200))
    while at < end:
        length = float(rng.uniform(15, 90))
        found.append((at, length))
        at += length + float(rng.exponential(300))
    return found


def fly(plan: Plan, trouble: str = "") -> NDArray[np.float32]:
    """Fly a plan.

    Args:
        plan: From `plan_flight`.
        trouble: One of `TROUBLES` at full severity, or nothing.

    Returns:
        (seconds, columns) at 1 Hz, see `COLUMNS`.

    Raises:
        SetupError: JSBSim is not installed.
        StageError: The flight did not end on the ground.
    """
    pilot = Pilot(_aircraft(plan, trouble), plan, trouble)
    rows: list[list[float]] = []
    second, tick = round(1 / TICK), 0
    while not pilot.stopped:
        pilot.act(tick * TICK)
        if tick % second == 0:
            rows.append(pilot.record())
        pilot.advance()
        tick += 1
        if tick * TICK > plan.duration + LONGEST or not all(map(math.isfinite, rows[-1])):
            raise StageError(f"flight {plan.seed} {trouble or 'healthy'}: lost in {pilot.phase}")
    return np.asarray(rows, np.float32)


def _aircraft(plan: Plan, trouble: str) -> Any:
    try:
        import jsbsim
    except ImportError as error:
        raise missing("jsbsim", "flying the simulator") from error
    os.environ.setdefault("JSBSIM_DEBUG", "0")  # else it greets on standard output
    aircraft = jsbsim.FGFDMExec(None)
    aircraft.set_debug_level(0)
    aircraft.load_model(MODEL)
    aircraft.set_dt(TICK / STEPS[0])
    start = {
        "ic/terrain-elevation-ft": plan.elevation,
        "ic/h-agl-ft": 4.6,
        "ic/psi-true-deg": plan.heading,
        "ic/vc-kts": 0,
        "ic/lat-geod-deg": 47.9,
        "ic/long-gc-deg": -97,
        "atmosphere/delta-T": plan.delta_t * 1.8,
    }
    for name, value in start.items():
        aircraft[name] = value
    aircraft.run_ic()
    aircraft["propulsion/set-running"] = -1
    aircraft["propulsion/magneto_cmd"] = 3
    for tank, pounds in enumerate(plan.fuel):
        aircraft[f"propulsion/tank[{tank}]/contents-lbs"] = pounds
    if trouble == "compression":
        aircraft[ENGINE + "volumetric-efficiency"] *= 0.93
    return aircraft


@dataclass(frozen=True)
class Seen:
    """What the pilot reads: ft above ground, ft, kt, degrees, degrees a second, 1/min, ft/min."""

    agl: float
    alt: float
    ias: float
    theta: float
    phi: float
    psi: float
    p: float
    q: float
    r: float
    rpm: float
    climb: float
    afr: float


@dataclass(frozen=True)
class Wish:
    """What the pilot wants; ``pitch`` None leaves the elevator almost neutral (on the ground)."""

    pitch: float | None
    bank: float = 0.0
    brake: float = 0.0
    afr: float = 11.3
    magneto: int = 3


READ: Mapping[str, str] = {
    "agl": "position/h-agl-ft",
    "alt": "position/h-sl-ft",
    "ias": "velocities/vc-kts",
    "theta": "attitude/theta-deg",
    "phi": "attitude/phi-deg",
    "psi": "attitude/psi-deg",
    "rpm": ENGINE + "engine-rpm",
    "afr": ENGINE + "AFR",
}


class Pilot:
    """Decides ten times a second.

    Args:
        aircraft: A running JSBSim executive.
        plan: The flight.
        trouble: The fault flown.
    """

    def __init__(self, aircraft: Any, plan: Plan, trouble: str) -> None:
        self.aircraft, self.plan, self.trouble = aircraft, plan, trouble
        self.phase, self.stopped, self.now = TAXI, False, 0.0
        self.throttle, self.mixture, self.trim = 0.12, 1.0, 0.0
        self.altitude, self.course, self.rpm, self.turn = plan.cruise, plan.heading, plan.rpm, 0.0
        self.work, self.landed, self.magneto = 0, 0.0, 3
        self.gust = np.zeros(3)

    def act(self, now: float) -> None:
        """Look, decide, set the controls."""
        self.now = now
        seen = self._look()
        self._blow(seen)
        self._next_phase(seen)
        wish = PHASES[self.phase](self, seen)
        self._engine(seen, wish)
        self._surfaces(seen, wish)

    def advance(self) -> None:
        """Run the simulator to the next tick."""
        steps = STEPS[self.aircraft["position/h-agl-ft"] > 50]
        self.aircraft.set_dt(TICK / steps)
        for _ in range(steps):
            self.aircraft.run()

    def record(self) -> list[float]:
        """One row of `COLUMNS`."""
        read = self.aircraft
        return [
            read[ENGINE + "engine-rpm"],
            read[ENGINE + "map-inhg"],
            read[ENGINE + "fuel-flow-rate-gph"],
            read[ENGINE + "power-hp"],
            min(read[ENGINE + "AFR"], 40.0),
            read["velocities/vc-kts"],
            read["position/h-sl-ft"],
            read["accelerations/Nz"],
            float(self.magneto != 3),
        ]

    def _look(self) -> Seen:
        read = self.aircraft
        rates = {k: read[f"velocities/{k}-rad_sec"] * 57.3 for k in "pqr"}
        values = {name: read[place] for name, place in READ.items()}
        return Seen(**values, **rates, climb=read["velocities/h-dot-fps"] * 60)

    def _blow(self, seen: Seen) -> None:
        """Steady wind, weaker near the ground, and first-order gusts."""
        plan, tau = self.plan, 3.0
        strength = (1 + 4 * plan.turbulence) * min(1.0, seen.agl / 300)
        noise = plan.gusts[min(round(self.now / TICK), len(plan.gusts) - 1)]
        self.gust += -self.gust * TICK / tau + strength * math.sqrt(2 * TICK / tau) * noise
        steady = plan.wind[1] * min(1.0, (seen.agl + 50) / 500)
        self.aircraft["atmosphere/wind-north-fps"] = steady * math.cos(plan.wind[0]) + self.gust[0]
        self.aircraft["atmosphere/wind-east-fps"] = steady * math.sin(plan.wind[0]) + self.gust[1]
        self.aircraft["atmosphere/wind-down-fps"] = 0.6 * self.gust[2]

    def _next_phase(self, seen: Seen) -> None:
        plan = self.plan
        above = seen.alt - plan.elevation
        descend = plan.duration - 60 * (above - 900) / 450 - 260
        done = {
            TAXI: self.now > plan.taxi,
            TAKEOFF: seen.agl > 60,
            CLIMB: seen.alt > self.altitude - 80,
            CRUISE: self.now > descend,
            DESCENT: above < 950,
            APPROACH: seen.agl < 5 and seen.ias < 50,
            ROLLOUT: False,
        }
        if done[self.phase]:
            self.phase += 1
            self.landed, self.turn = self.now, 0.0
        ends = self.landed + min(240.0, 60 + plan.taxi / 2)
        self.stopped = self.phase == ROLLOUT and self.now > ends

    def _hold_rpm(self, rpm: float, gain: float, low: float, high: float, seen: Seen) -> None:
        self.throttle = _clip(self.throttle + gain * (rpm - seen.rpm), low, high)

    def _taxi(self, seen: Seen) -> Wish:
        before = self.plan.taxi - self.now
        self._hold_rpm(1800 if 20 < before < 70 else 1050, 3e-5, 0.02, 0.9, seen)
        left, right = 50 < before < 55, 40 < before < 45
        return Wish(None, brake=1.0, magneto=1 if left else 2 if right else 3)

    def _take_off(self, seen: Seen) -> Wish:
        self.throttle = _clip(self.throttle + 0.03, 0, 1)
        return Wish(None if seen.ias < 52 else 8.0, afr=11.0)

    def _climb(self, seen: Seen) -> Wish:
        self.throttle = 1.0
        lean = 11.0 if seen.alt < self.plan.elevation + 3000 else 12.3
        return Wish(_clip(7 + 0.35 * (seen.ias - 78), 0, 12), afr=lean)

    def _cruise(self, seen: Seen) -> Wish:
        self._take_up_work()
        wanted = _clip((self.altitude - seen.alt) * 2, -700, 600)
        self.trim = _clip(self.trim + 0.002 * (wanted - seen.climb) * TICK, -6, 8)
        pitch = _clip(1.5 + 0.004 * (wanted - seen.climb) + self.trim, -8, 11)
        if seen.ias < 70:
            pitch = min(pitch, seen.theta - 0.5 + 0.2 * (seen.ias - 66))
        change = 200 if wanted > 250 else -250 if wanted < -400 else 0
        self._hold_rpm(self.rpm + change, 4e-6, 0.15, 1.0, seen)
        bank = self.turn or self._bank_to_course(seen)
        return Wish(pitch, bank, afr=self.plan.afr)

    def _take_up_work(self) -> None:
        work = self.plan.work
        while self.work < len(work) and self.now >= work[self.work][0]:
            _, kind, value = work[self.work]
            self.turn = value if kind == 3 else 0.0
            if kind == 0:
                self.altitude = value
            elif kind == 1:
                self.course = value
            else:
                self.rpm = value if kind == 2 else self.plan.rpm
            self.work += 1

    def _descend(self, seen: Seen) -> Wish:
        wanted = -450 if seen.alt > self.plan.elevation + 950 else -100
        self.trim = _clip(self.trim + 0.002 * (wanted - seen.climb) * TICK, -8, 8)
        self._hold_rpm(1900, 4e-5, 0.08, 1.0, seen)
        pitch = _clip(0.004 * (wanted - seen.climb) + self.trim, -8, 8)
        return Wish(pitch, self._bank_to_course(seen), afr=12.3)

    def _approach(self, seen: Seen) -> Wish:
        if seen.agl > 25:
            self.throttle = _clip(self.throttle + 1.2e-5 * (-550 - seen.climb), 0.05, 0.7)
            return Wish(_clip(0.5 + 0.5 * (seen.ias - 68), -6, 6))
        self.throttle = 0.03
        return Wish(4.5 if seen.agl > 5.2 else 2.0)

    def _roll_out(self, seen: Seen) -> Wish:
        self._hold_rpm(1050, 3e-5, 0.02, 0.5, seen)
        brake = _clip((self.now - self.landed) / 8, 0, 1) * 0.6 if seen.ias > 3 else 1.0
        return Wish(None, brake=brake)

    def _bank_to_course(self, seen: Seen) -> float:
        error = (self.course - seen.psi + 540) % 360 - 180
        return _clip(0.9 * error, -22, 22)

    def _engine(self, seen: Seen, wish: Wish) -> None:
        """Throttle, mixture and magnetos, with what the trouble does to them."""
        plan, aloft = self.plan, self.phase in (CLIMB, CRUISE, DESCENT)
        if math.isfinite(seen.afr) and seen.rpm > 500:
            gain = 4e-5 if self.phase == CRUISE else 1e-3
            self.mixture = _clip(self.mixture + gain * (seen.afr - wish.afr), 0.35, 1.0)
        wave = math.sin(2 * math.pi * self.now / plan.period + plan.phase)
        slow = math.sin(2 * math.pi * self.now / (4 * plan.period) + plan.phase)
        servo = 1 - 0.06 + 0.08 * slow if self.trouble == "mixture" else 1.0
        hunt = 0.05 * wave if self.trouble == "governor" and aloft else 0.0
        self.magneto = wish.magneto
        if self.trouble == "magneto" and any(0 <= self.now - a < n for a, n in plan.misfires):
            self.magneto = 1 + plan.seed % 2
        aircraft = self.aircraft
        aircraft["propulsion/magneto_cmd"] = self.magneto
        aircraft["fcs/mixture-cmd-norm"] = _clip(self.mixture * servo, 0.25, 1.0)
        aircraft["fcs/throttle-cmd-norm"] = _clip(self.throttle + hunt, 0.0, 1.0)

    def _surfaces(self, seen: Seen, wish: Wish) -> None:
        aircraft, pitch = self.aircraft, wish.pitch
        elevator = -0.05 if pitch is None else -(0.045 * (pitch - seen.theta) - 0.025 * seen.q)
        aircraft["fcs/elevator-cmd-norm"] = _clip(elevator, -0.8, 0.6)
        if seen.agl < 6:
            error = (self.plan.heading - seen.psi + 540) % 360 - 180
            steer = _clip(-0.02 * error + 0.03 * seen.r, -0.6, 0.6)
            aircraft["fcs/aileron-cmd-norm"] = _clip(-0.02 * seen.phi, -0.3, 0.3)
            aircraft["fcs/rudder-cmd-norm"] = steer if self.phase == TAKEOFF else 0.0
            aircraft["fcs/steer-cmd-norm"] = 0
        else:
            roll = 0.02 * (wish.bank - seen.phi) - 0.012 * seen.p
            yaw = 0.01 * seen.r - 0.02 * aircraft["aero/beta-deg"]
            aircraft["fcs/aileron-cmd-norm"] = _clip(roll, -0.7, 0.7)
            aircraft["fcs/rudder-cmd-norm"] = _clip(yaw, -0.3, 0.3)
        aircraft["fcs/left-brake-cmd-norm"] = wish.brake
        aircraft["fcs/right-brake-cmd-norm"] = wish.brake


PHASES = {
    TAXI: Pilot._taxi,
    TAKEOFF: Pilot._take_off,
    CLIMB: Pilot._climb,
    CRUISE: Pilot._cruise,
    DESCENT: Pilot._descend,
    APPROACH: Pilot._approach,
    ROLLOUT: Pilot._roll_out,
}


def _clip(value: float, low: float, high: float) -> float:
    return low if value < low else high if value > high else value
