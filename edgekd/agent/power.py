"""Power of a board and energy of an inference: sensors in /sys, tegrastats, a meter's file.

Energy is the integral of the power over the time in which inferences ran (trapezoids, ends
interpolated), less what the idle board draws in that time, divided by the inferences. A gap in the
samples makes it unknown, not smaller.
"""

from __future__ import annotations

import csv
import itertools
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from . import outside
from .faults import UsageFault

HWMON = outside.at("/sys/class/hwmon")
INTERVAL_S = 0.05
TEGRA_INTERVAL_S = 0.1
LARGEST_GAP_S = 1.5
FEWEST = 5
WHOLE = ("VDD_IN", "VIN")
"""Rails that carry the whole module's power, carrier board excluded; else all rails are summed."""

Sample = tuple[float, float]
"""Time (monotonic seconds) and power (milliwatts)."""

_RAIL = re.compile(r"\b(V(?:DD|IN)\w*) (\d+)mW(?:/(\d+)mW)?")
_TEMPERATURE = re.compile(r"\b([A-Za-z]\w*)@(-?[\d.]+)C\b")
_GPU = re.compile(r"GR3D_FREQ (\d+)%(?:@\[?([\d,]+)\]?)?")
_MEMORY = re.compile(r"RAM (\d+)/(\d+)MB")
_CPU = re.compile(r"CPU \[([^\]]*)\]")
_NO_SENSOR_C = -250.0


@dataclass(frozen=True)
class Rail:
    """One supply of an INA3221: files with millivolts and milliamperes."""

    name: str
    volts: Path
    amperes: Path

    def milliwatts(self) -> float:
        """Read the power now.

        Raises:
            OSError: The sensor does not answer.
        """
        return int(self.volts.read_text()) * int(self.amperes.read_text()) / 1000


def rails(root: Path | None = None) -> list[Rail]:
    """Return the supplies that this machine measures; sums of shunts are no supply."""
    found = []
    for monitor in sorted((root or HWMON).glob("hwmon*")):
        if _text(monitor / "name") != "ina3221":
            continue
        for label in sorted(monitor.glob("in*_label")):
            number = re.sub(r"\D", "", label.name)
            name, current = _text(label), monitor / f"curr{number}_input"
            if name and "sum of" not in name and current.exists():
                found.append(Rail(name, monitor / f"in{number}_input", current))
    return found


def total(values: dict[str, float]) -> float | None:
    """Return the module's power: the rail that carries all, else the sum; None without rails."""
    for name in WHOLE:
        if name in values:
            return values[name]
    return sum(values.values()) if values else None


@dataclass(frozen=True)
class Tegrastats:
    """One line of ``tegrastats``; a rail that is not there is not zero."""

    rails_mw: dict[str, float]
    temperatures_c: dict[str, float]
    gpu_percent: int | None
    gpu_mhz: int | None
    ram_mb: int | None
    cpu_mhz: list[int | None]


def read_tegrastats(line: str) -> Tegrastats:
    """Read one line; the second number of a rail is its average since the start, and left out."""
    gpu, memory, cpu = _GPU.search(line), _MEMORY.search(line), _CPU.search(line)
    clocks = re.findall(r"off|\d+%@(\d+)", cpu[1]) if cpu else []
    mhz = gpu[2].split(",")[0] if gpu and gpu[2] else None
    return Tegrastats(
        rails_mw={name: float(now) for name, now, _ in _RAIL.findall(line)},
        temperatures_c={
            name: float(value)
            for name, value in _TEMPERATURE.findall(line)
            if float(value) > _NO_SENSOR_C
        },
        gpu_percent=int(gpu[1]) if gpu else None,
        gpu_mhz=int(mhz) if mhz else None,
        ram_mb=int(memory[1]) if memory else None,
        cpu_mhz=[int(clock) if clock else None for clock in clocks],
    )


class Sampler:
    """Reads the board's power in a thread for as long as the block runs."""

    def __init__(self, read: Callable[[], float | None], interval_s: float = INTERVAL_S) -> None:
        self.samples: list[Sample] = []
        self.lost = 0
        self._read, self._interval = read, interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Sampler:
        """Start."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop, after one last sample."""
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while True:
            last = self._stop.is_set()
            begin = time.monotonic()
            try:
                power = self._read()
            except (OSError, ValueError):
                power = None
            if power is None:
                self.lost += 1
            else:
                self.samples.append(((begin + time.monotonic()) / 2, power))
            if last:
                return
            self._stop.wait(self._interval)


def reader(root: Path | None = None) -> Callable[[], float | None] | None:
    """Return a function that reads the module's power now; None without sensors."""
    found = rails(root)
    if not found:
        return None
    whole = [rail for rail in found if rail.name in WHOLE][:1] or found
    return lambda: total({rail.name: rail.milliwatts() for rail in whole})


class Tegra:
    """Reads ``tegrastats`` for as long as the block runs; each line is stamped on receipt.

    Its own stamps have a resolution of a second.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.samples: list[Sample] = []
        self.lost = 0
        self._command = list(command)

    def __enter__(self) -> Tegra:
        """Start."""
        self._child = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        self._child.terminate()
        self._child.wait()
        self._thread.join()

    def _work(self) -> None:
        assert self._child.stdout is not None
        with self._child.stdout as lines:
            for line in lines:
                power = total(read_tegrastats(line).rails_mw)
                if power is None:
                    self.lost += 1
                else:
                    self.samples.append((time.monotonic(), power))


def sampler(root: Path | None = None) -> Callable[[], Sampler | Tegra] | None:
    """Return what makes a block in which the power is sampled; None where nothing tells it.

    The sensors' own files come first; ``tegrastats`` where they cannot be read (a container).
    """
    read = reader(root)
    if read is not None:
        return lambda: Sampler(read)
    if shutil.which("tegrastats"):
        return lambda: Tegra(["tegrastats", "--interval", str(round(1000 * TEGRA_INTERVAL_S))])
    return None


def of_logs(
    idle: Sequence[str], busy: Sequence[str], interval_s: float, runs: int, seconds: float
) -> dict[str, Any]:
    """Return the energy of an inference from two logs of ``tegrastats``: at rest, and at work.

    Args:
        idle: Lines at rest.
        busy: Lines from the first inference on.
        interval_s: Seconds between two lines.
        runs: How many inferences ran.
        seconds: How long they took.
    """
    rest, work = (_stamped(lines, interval_s) for lines in (idle, busy))
    return {**energy(work, 0.0, seconds, runs, mean_mw(rest)), "runs": runs}


def _stamped(lines: Sequence[str], interval_s: float) -> list[Sample]:
    found = [total(read_tegrastats(line).rails_mw) for line in lines]
    return [(n * interval_s, power) for n, power in enumerate(found) if power is not None]


def mean_mw(samples: Sequence[Sample]) -> float | None:
    """Return the mean power over the span of the samples; None for fewer than two."""
    if len(samples) < 2:
        return None
    span = samples[-1][0] - samples[0][0]
    return integral_mj(samples, samples[0][0], samples[-1][0]) / span if span > 0 else None


def integral_mj(samples: Sequence[Sample], start: float, stop: float) -> float:
    """Return millijoules between two moments that the samples enclose."""
    inside = [sample for sample in samples if start < sample[0] < stop]
    points = [(start, _at(samples, start)), *inside, (stop, _at(samples, stop))]
    pairs = itertools.pairwise(points)
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairs)


def _at(samples: Sequence[Sample], moment: float) -> float:
    """Return the power at a moment, by a straight line between the two samples around it."""
    for before, after in itertools.pairwise(samples):
        if before[0] <= moment <= after[0]:
            share = (moment - before[0]) / ((after[0] - before[0]) or 1.0)
            return before[1] + share * (after[1] - before[1])
    return samples[0][1] if moment < samples[0][0] else samples[-1][1]


def energy(
    samples: Sequence[Sample], start: float, stop: float, runs: int, idle_mw: float | None
) -> dict[str, Any]:
    """Return the energy of one inference, or why it is not known.

    Args:
        samples: In order of time.
        start: When the first inference began, by the samples' clock.
        stop: When the last one ended.
        runs: How many there were.
        idle_mw: Mean power of the idle board; None: only the gross energy is known.
    """
    near = [s for s in samples if start - LARGEST_GAP_S <= s[0] <= stop + LARGEST_GAP_S]
    inside = [s for s in near if start <= s[0] <= stop]
    if len(inside) < FEWEST:
        return {"not_run": f"{len(inside)} samples of the power while running, {FEWEST} wanted"}
    edges = [start, *(s[0] for s in inside), stop]
    gap = max(b - a for a, b in itertools.pairwise(edges))
    if gap > LARGEST_GAP_S:
        return {"not_run": f"a gap of {gap:.1f} s in the power samples, {LARGEST_GAP_S} s allowed"}
    gross = integral_mj(near, start, stop) / runs
    idle = None if idle_mw is None else idle_mw * (stop - start) / runs
    return {
        "gross_mj": gross,
        "net_mj": None if idle is None else gross - idle,
        "mean_mw": gross * runs / (stop - start),
        "idle_mw": idle_mw,
        "samples": len(inside),
        "largest_gap_s": gap,
    }


def read_meter(path: Path) -> list[Sample]:
    """Read an external meter's file: CSV with the columns ``seconds`` and ``milliwatts``.

    Raises:
        UsageFault: It has other columns, or values that are no numbers, or goes back in time.
    """
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    try:
        samples = [(float(row["seconds"]), float(row["milliwatts"])) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise UsageFault(
            f"{path} is no meter's file: {error}", hint="columns seconds,milliwatts"
        ) from error
    if any(b[0] < a[0] for a, b in itertools.pairwise(samples)):
        raise UsageFault(f"{path} goes back in time")
    return samples


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
