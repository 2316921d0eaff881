from __future__ import annotations

import numpy as np
import pytest

from edgekd.data.battery.homes import Homes


@pytest.fixture(scope="session")
def homes():
    """Five synthetic homes over 140 days, hourly, on a tariff by time of use."""
    rng = np.random.default_rng(0)
    steps, count = 140 * 24, 5
    hour = np.arange(steps) % 24
    sun = np.clip(np.sin((hour - 6) / 12 * np.pi), 0, None) * rng.uniform(0.3, 1.0, steps)
    pv = np.outer(rng.uniform(2, 4, count), sun)
    evening = 1 + 2 * np.exp(-(((hour - 19) / 2.0) ** 2))
    load = np.outer(rng.uniform(0.4, 0.9, count), evening) * rng.uniform(0.5, 1.5, (count, steps))
    price = np.where((hour >= 16) & (hour < 21), 0.5, 0.2)
    return Homes(
        tuple("abcde"), load, pv, price, 1.0, np.datetime64("2021-01-01T00:00", "s"), "synthetic"
    )
