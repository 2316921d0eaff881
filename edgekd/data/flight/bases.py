"""Simulated base flights in a compact file: healthy, and what closed-loop faults change.

A base is the last 4096 s of a flight, as means over 4 s. Beside each healthy base stand the
responses to two of the four closed-loop faults: troubled minus healthy, at full severity. A
flight with severity s is the healthy one plus s times the response, so that no trajectory
belongs to a fault, and a network cannot learn the one for the other.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekd.data.flight.pilot import COLUMNS, TROUBLES, Plan
from edgekd.errors import DataError

__all__ = ["FILE", "SECONDS", "Bases", "load_bases", "pack", "save_bases"]

FILE = Path(__file__).parent / "bases.npz"
SECONDS = 4096
EVERY = 4
"""Seconds a stored value is the mean of."""
WAIT = 300
"""Seconds that a short flight may stand longer on the apron."""
STEPS = np.array([4.0, 0.05, 0.03, 0.5, 0.04, 0.3, 3.0, 0.01, 0.25])
"""Resolution of each of `COLUMNS`."""
States = dict[str, NDArray[np.float32]]
SCALARS = ("seed", "elevation", "delta_t", "left", "right", "start")


@dataclass(frozen=True, eq=False)
class Bases:
    """Base flights.

    Attributes:
        healthy: In steps of `STEPS`, int16 (bases, columns, 1024).
        response: Troubled minus healthy, int16 (bases, 2, columns, 1024).
        trouble: Index into `TROUBLES` of each response, (bases, 2).
        scalars: `SCALARS` of each base: field elevation in ft, deviation from the standard
            atmosphere in K, fuel in both tanks at the first sample in gal, first second.
    """

    healthy: NDArray[np.int16]
    response: NDArray[np.int16]
    trouble: NDArray[np.int64]
    scalars: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.healthy)

    def scalar(self, name: str) -> NDArray[np.float64]:
        """One of `SCALARS`, (bases,)."""
        return self.scalars[:, SCALARS.index(name)]

    def states(self, base: NDArray[np.int64]) -> States:
        """Engine and airframe states of healthy flights: column → (flights, 4096) at 1 Hz.

        Args:
            base: Which base each flight is, (flights,).
        """
        return _at_one_hertz(self.healthy[base])

    def changes(self, base: NDArray[np.int64], trouble: str) -> States:
        """What a closed-loop fault at full severity adds to `states`.

        Args:
            base: Which base each flight is; it must have this response.
            trouble: One of `TROUBLES`.
        """
        which = (self.trouble[base] == TROUBLES.index(trouble)).argmax(1)
        return _at_one_hertz(self.response[base, which])


def _at_one_hertz(stored: NDArray[np.int16]) -> States:
    """Steps at every fourth second → values at every second, on straight lines."""
    values = stored.astype(np.float32) * STEPS[:, None].astype(np.float32)
    place = (np.arange(SECONDS, dtype=np.float32) - (EVERY - 1) / 2) / EVERY
    place = np.clip(place, 0, values.shape[2] - 1)
    left = np.minimum(place.astype(np.int64), values.shape[2] - 2)
    share = (place - left).astype(np.float32)
    fine = values[:, :, left] * (1 - share) + values[:, :, left + 1] * share
    return {name: fine[:, i] for i, name in enumerate(COLUMNS)}


def pack(
    flights: Sequence[tuple[Plan, NDArray[np.float32], Sequence[tuple[str, NDArray[np.float32]]]]],
) -> Bases:
    """Make bases of flights as flown.

    Args:
        flights: Plan, healthy record, and two (trouble, record) of the same plan each.

    Raises:
        DataError: A flight is much shorter than 4096 s.
    """
    healthy, response, trouble, scalars = [], [], [], []
    for plan, calm, troubled in flights:
        start = len(calm) - SECONDS
        if start < -WAIT:
            raise DataError(f"flight {plan.seed} has {len(calm)} s, {SECONDS - WAIT} are needed")
        mine = _stored(calm, start)
        healthy.append(mine)
        response.append([_stored(record, start) - mine for _, record in troubled])
        trouble.append([TROUBLES.index(name) for name, _ in troubled])
        burnt = float(calm[: max(start, 0), COLUMNS.index("flow")].sum()) / 3600
        fuel = [pounds / 6.0 - burnt / 2 for pounds in plan.fuel]
        scalars.append([plan.seed, plan.elevation, plan.delta_t, *fuel, start])
    return Bases(
        np.asarray(healthy, np.int16),
        np.asarray(response, np.int16),
        np.asarray(trouble, np.int64),
        np.asarray(scalars, np.float64),
    )


def _stored(record: NDArray[np.float32], start: int) -> NDArray[np.int64]:
    """(seconds, columns) → (columns, 1024) in steps.

    A flight that is too short waits longer on the apron; a record that ends early stays there.
    """
    waited = np.pad(record, ((max(-start, 0), 0), (0, 0)), mode="edge")
    kept = waited[max(start, 0) :][:SECONDS]
    kept = np.pad(kept, ((0, SECONDS - len(kept)), (0, 0)), mode="edge").astype(np.float64)
    means = kept.reshape(-1, EVERY, len(COLUMNS)).mean(1)
    steps: NDArray[np.int64] = np.rint(means / STEPS).astype(np.int64).T
    return steps


def save_bases(bases: Bases, path: Path) -> str:
    """Write the compact file, without times; return its sha256."""
    arrays = {
        "healthy": _planes(np.diff(bases.healthy, axis=-1, prepend=np.int16(0))),
        "response": _planes(bases.response),
        "trouble": bases.trouble.astype(np.uint8),
        "scalars": bases.scalars,
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            entry.compress_type, entry.create_system = zipfile.ZIP_LZMA, 3
            archive.writestr(entry, buffer.getvalue())
    return hashlib.sha256(path.read_bytes()).hexdigest()


@lru_cache(maxsize=2)
def load_bases(path: Path = FILE) -> Bases:
    """Read the compact file.

    Raises:
        DataError: It cannot be read.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            deltas = _joined(archive["healthy"]).astype(np.int16)
            healthy = np.cumsum(deltas, axis=-1, dtype=np.int16)
            return Bases(
                healthy,
                _joined(archive["response"]).astype(np.int16),
                archive["trouble"].astype(np.int64),
                archive["scalars"],
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, lzma.LZMAError) as error:
        raise DataError(
            f"the simulated base flights cannot be read: {error}",
            at=str(path),
            hint="reinstall edgekd, or make them again: edgekd data build simflight",
        ) from error


def _planes(values: NDArray[np.int16]) -> NDArray[np.uint8]:
    """Signed → zigzag, split into low and high bytes, columns together: packs much better."""
    wide = values.astype(np.int32)
    zigzag = ((wide << 1) ^ (wide >> 31)).astype(np.uint16)
    moved = np.moveaxis(zigzag, -2, 0)
    return np.stack([(moved & 255).astype(np.uint8), (moved >> 8).astype(np.uint8)])


def _joined(planes: NDArray[np.uint8]) -> NDArray[np.int32]:
    zigzag = planes[0].astype(np.int32) | (planes[1].astype(np.int32) << 8)
    return np.moveaxis((zigzag >> 1) ^ -(zigzag & 1), 0, -2)
