"""Processes and rounds that were never measured, for the rules that judge them."""

from __future__ import annotations

import itertools

import numpy as np

from edgekd.bench.measure import Process

BLOCKS = 6


def process(label="candidate", round=0, *, cpu=1.0, wall=None, memory=60.0, **changes) -> Process:
    """Return a process whose blocks took `cpu` and `wall` milliseconds an inference."""
    cpus = tuple(np.broadcast_to(cpu, BLOCKS).tolist())
    walls = cpus if wall is None else tuple(np.broadcast_to(wall, BLOCKS).tolist())
    values = {
        "label": label,
        "round": round,
        "place": 0,
        "cpu_ms": cpus,
        "cpu_least_ms": min(cpus),
        "wall_ms": walls,
        "quantiles_ms": {"p50": float(np.median(walls)), "p90": max(walls), "p99": max(walls)},
        "peak_rss_mib": memory,
        "rss_mib": {"start": 30.0, "loaded": 50.0, "warm": 55.0, "end": 58.0},
        "first_ms": 9.0,
        "import_s": 0.1,
        "load_s": 0.02,
        "kernel_ms": 0.8,
        "kernel": "matmul-128-v1",
        "inferences": 60,
        "timed_s": 0.06,
        "startup_s": 0.4,
        "load": 2.0,
        "throttled": None,
        "clock_mhz": 3000.0,
        "governor": None,
        "version": "1.2",
        "effective": {"threads": 1},
    }
    return Process(**{**values, **changes})


def rounds(
    factor=1.0,
    *,
    seed=0,
    noise=0.01,
    wall_noise=0.2,
    drift=0.0,
    base=1.4,
    energy=None,
    hungrier=1.0,
    **changes,
):
    """Give pairs for ever: a baseline, and a candidate that costs `factor` times as much.

    Args:
        factor: Processor time and wall time of the candidate over the baseline's.
        seed: Of the noise.
        noise: Of a process, as a share of its processor time.
        wall_noise: Of the wall time of a block, heavy-tailed.
        drift: By how much the whole machine gets slower from the first round to the twentieth.
        base: Processor time of the baseline in milliseconds.
        energy: Millijoules of a baseline's inference, on a board that has a sensor.
        hungrier: Energy of the candidate over the baseline's.
        **changes: Fields of the candidate's processes.
    """
    rng = np.random.default_rng(seed)
    for number in itertools.count():
        speed = base * (1 + drift * number / 19)
        pair = []
        for label, times in (("baseline", 1.0), ("candidate", factor)):
            mean = speed * times * (1 + noise * rng.standard_t(4) / 2**0.5)
            cpu = mean * (1 + 0.005 * rng.normal(size=BLOCKS))
            wall = cpu * (1 + wall_noise * np.abs(rng.standard_t(2, BLOCKS)))
            extra = changes if label == "candidate" else {}
            kernel = 0.8 * (1 + drift * number / 19)
            weighed = {}
            if energy is not None:
                more = hungrier if label == "candidate" else 1.0
                weighed["energy"] = {"net_mj": energy * more * (1 + noise * rng.normal())}
            values = {"cpu": cpu, "wall": wall, "kernel_ms": kernel, **weighed, **extra}
            pair.append(process(label, number, **values))
        yield pair


def pairs(count, factor=1.0, **options):
    """Return the first rounds as pairs of baseline and candidate."""
    return [tuple(pair) for pair in itertools.islice(rounds(factor, **options), count)]
