"""Base flights made by hand, so that no test flies the simulator."""

import numpy as np
import pytest

from edgekd.data.flight.bases import SECONDS, pack
from edgekd.data.flight.pilot import COLUMNS, TROUBLES, plan_flight


def record(seed: int, seconds: int, change: float = 0.0) -> np.ndarray:
    """A plausible record: taxi, climb, cruise, descent, with a slow wave."""
    rng, t = np.random.default_rng(seed), np.linspace(0, 1, seconds)
    power = np.interp(t, [0, 0.05, 0.06, 0.2, 0.85, 0.97, 1], [0.1, 0.1, 1, 0.95, 0.65, 0.35, 0.1])
    power = power * (1 + 0.03 * np.sin(40 * t + seed)) * (1 + change)
    alt = np.interp(t, [0, 0.06, 0.25, 0.8, 0.97, 1], [900, 900, 5000, 5200, 900, 900])
    ias = np.interp(t, [0, 0.06, 0.07, 0.97, 1], [0, 10, 80, 70, 5]) + rng.normal(0, 1, seconds)
    columns = {
        "rpm": 900 + 1500 * power,
        "map": 12 + 14 * power,
        "flow": 2 + 10 * power,
        "power": 180 * power,
        "afr": np.full(seconds, 12.8) + change,
        "ias": ias,
        "alt": alt * (1 - change / 50),
        "load": 1 + rng.normal(0, 0.02, seconds),
        "magneto": np.zeros(seconds) + (change > 0) * (t > 0.5),
    }
    return np.stack([columns[name] for name in COLUMNS], 1).astype(np.float32)


@pytest.fixture(scope="session")
def flown():
    """Twenty flights as `pack` takes them; every fold has every trouble."""
    return [
        (
            plan_flight(i),
            record(i, SECONDS + 50),
            [(TROUBLES[k % 4], record(i, SECONDS + 40, 0.1)) for k in (i // 5, i // 5 + 1)],
        )
        for i in range(20)
    ]


@pytest.fixture(scope="session")
def bases(flown):
    return pack(flown)
