"""Two networks as one diagnosis: is a flight faulty, and only where it is, with what.

This file ships as ``cascade.py`` and needs numpy alone. A stage reads its own bundle: names and
order of the channels, normalisation, temperature, threshold. The bundle of stage 2 is the folder
``stage2`` in that of stage 1:

    diagnose = Cascade.open("BUNDLE", network_1, network_2)
    diagnose([flight]).named()
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Cascade", "Diagnosis", "Stage", "Stream", "arrange"]

Network = Callable[[NDArray[np.float32]], NDArray[Any]]
"""Prepared flights (flights, channels, 1, length) in, logits (flights, classes) out."""

SECONDS = 4096
"""A flight's last seconds, which are looked at."""
SHORTEST = 60
SECOND = "stage2"
"""Folder of stage 2 in the bundle of the cascade."""
CLIP = 6.0
"""Standard deviations at which a value is cut."""


@dataclass(frozen=True, eq=False)
class Stage:
    """What must be done before and after one network.

    Attributes:
        names: Channels of a raw flight, in order.
        mean: Of each, over the training flights.
        std: Likewise.
        chosen: Places of the channels that the network sees.
        length: Samples that it sees.
        temperature: By which its logits are divided.
        threshold: Chance of a fault from which on a flight is flagged; None in stage 2.
        classes: What its logits stand for.
    """

    names: tuple[str, ...]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    chosen: tuple[int, ...]
    length: int
    temperature: float
    threshold: float | None
    classes: tuple[str, ...]

    @classmethod
    def open(cls, bundle: str | Path) -> Stage:
        """Read a bundle's ``manifest.json`` and ``state.npz``."""
        folder = Path(bundle)
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        with np.load(folder / manifest["state"]["file"]) as state:
            return cls.of(manifest["io"]["inputs"][0], {n: state[n] for n in state.files})

    @classmethod
    def of(cls, contract: dict[str, Any], state: dict[str, NDArray[Any]]) -> Stage:
        """Make a stage of the input's contract and the arrays that ship beside the network."""
        names = tuple(str(name) for name in state["channels"])
        chosen = contract["channels"]
        threshold = state.get("threshold")
        return cls(
            names,
            state["mean"],
            state["std"],
            tuple(range(len(names))) if chosen is None else tuple(chosen),
            int(contract["shape"][-1]),
            float(state["temperature"][0]),
            None if threshold is None else float(threshold[0]),
            tuple(str(name) for name in state["classes"]),
        )

    def prepare(self, flights: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """Raw flights → what the network takes.

        The last 4096 s, means of equal stretches, rounded as the training data are kept, in
        standard deviations; an absent value is the channel's mean.

        Args:
            flights: One array (channels, seconds) a flight, 1 Hz, NaN where there is no value.

        Returns:
            (flights, chosen channels, 1, length).
        """
        chosen = list(self.chosen)
        raw = np.full((len(flights), len(chosen), SECONDS), np.nan, np.float32)
        for place, flight in enumerate(flights):
            cut = flight[chosen, -SECONDS:]
            raw[place, :, : cut.shape[1]] = cut
        parts = raw.reshape(len(flights), len(chosen), self.length, -1)
        there = np.isfinite(parts)
        count, total = there.sum(-1), np.where(there, parts, 0).sum(-1)
        pooled = np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
        kept = pooled.astype(np.float16).astype(np.float32)
        scaled = (kept - self.mean[chosen][:, None]) / self.std[chosen][:, None]
        ready: NDArray[np.float32] = np.nan_to_num(np.clip(scaled, -CLIP, CLIP), nan=0.0)
        return ready[:, :, None]

    def shares(self, logits: NDArray[Any]) -> NDArray[np.float64]:
        """Chance of each class: (flights, classes)."""
        scaled = np.asarray(logits, np.float64) / self.temperature
        powers = np.exp(scaled - scaled.max(1, keepdims=True))
        result: NDArray[np.float64] = powers / powers.sum(1, keepdims=True)
        return result


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What was found; a row a flight.

    Attributes:
        chance: Of a fault.
        flagged: Whether stage 2 was asked.
        fault: Place of the named fault among ``faults``; −1 where not flagged.
        shares: Chance of each fault, (flights, faults); NaN where not flagged.
        faults: Their names.
    """

    chance: NDArray[np.float64]
    flagged: NDArray[np.bool_]
    fault: NDArray[np.int64]
    shares: NDArray[np.float64]
    faults: tuple[str, ...]

    def named(self) -> list[str]:
        """In words."""
        return ["healthy" if f < 0 else self.faults[f] for f in self.fault.tolist()]


class Cascade:
    """Stage 1 on every flight, stage 2 on those that it flags.

    Args:
        find: Bundle of stage 1.
        name: Bundle of stage 2.
        finder: The network of stage 1, in whatever runtime it ships for.
        namer: That of stage 2.

    Raises:
        ValueError: The bundles are not a stage 1 and a stage 2 for the same channels.
    """

    def __init__(self, find: Stage, name: Stage, finder: Network, namer: Network) -> None:
        if find.threshold is None or name.threshold is not None:
            raise ValueError("the first bundle must be of stage 1, the second of stage 2")
        if find.names != name.names:
            raise ValueError("the stages were made for different channels")
        self.find, self.name, self._finder, self._namer = find, name, finder, namer
        self._threshold = find.threshold

    @classmethod
    def open(cls, bundle: str | Path, finder: Network, namer: Network) -> Cascade:
        """Read the bundle that holds both stages."""
        folder = Path(bundle)
        return cls(Stage.open(folder), Stage.open(folder / SECOND), finder, namer)

    def __call__(
        self, flights: Sequence[NDArray[Any]], names: Sequence[str] | None = None
    ) -> Diagnosis:
        """Diagnose flights.

        Args:
            flights: One array (channels, seconds) a flight, 1 Hz, NaN where there is no value.
            names: Of their channels, in any order; None for the bundle's own.

        Raises:
            ValueError: A channel is missing, or a flight too short or empty.
        """
        whole = [arrange(f, self.find.names, names, i) for i, f in enumerate(flights)]
        faults = self.name.classes
        fault = np.full(len(whole), -1)
        shares = np.full((len(whole), len(faults)), np.nan)
        if not whole:
            return Diagnosis(np.zeros(0), np.zeros(0, bool), fault, shares, faults)
        chance = self.find.shares(self._finder(self.find.prepare(whole)))[:, 1]
        flagged = chance >= self._threshold
        places = np.flatnonzero(flagged)
        if len(places):
            ready = self.name.prepare([whole[i] for i in places])
            shares[places] = self.name.shares(self._namer(ready))
            fault[places] = shares[places].argmax(1)
        return Diagnosis(chance, flagged, fault, shares, faults)


class Stream:
    """A flight in progress: take it second by second, diagnose its last 4096 s from time to time.

    The networks were trained on whole flights; what they say of one that has just begun is as good
    as `benchmarks/stream.py` finds, no better.

    Args:
        cascade: Both stages.
        names: Of the channels of a second, in any order; None for the bundle's own.
        every: Seconds between two diagnoses.
    """

    def __init__(
        self, cascade: Cascade, names: Sequence[str] | None = None, every: int = 60
    ) -> None:
        self._cascade, self._names, self._every = cascade, names, every
        self._kept = np.full((len(names or cascade.find.names), SECONDS), np.nan, np.float32)
        self.seconds = 0

    def __call__(self, values: NDArray[Any]) -> Diagnosis | None:
        """Take the values of one second; return a diagnosis when one is due.

        Args:
            values: (channels,), NaN where there is no value.

        Raises:
            ValueError: Not one value a channel, or a channel is missing.
        """
        now = np.asarray(values, np.float32)
        if now.shape != (len(self._kept),):
            raise ValueError(f"a second has shape {now.shape}, wanted ({len(self._kept)},)")
        self._kept[:, self.seconds % SECONDS] = now
        self.seconds += 1
        if self.seconds < SHORTEST or self.seconds % self._every:
            return None
        return self._cascade([self.flight()], self._names)

    def flight(self) -> NDArray[np.float32]:
        """What is kept: (channels, seconds so far), at most the last 4096."""
        if self.seconds < SECONDS:
            return self._kept[:, : self.seconds]
        return np.roll(self._kept, -(self.seconds % SECONDS), axis=1)


def arrange(
    flight: NDArray[Any], wanted: Sequence[str], names: Sequence[str] | None, place: int
) -> NDArray[np.float32]:
    """Bring the channels of one flight into order, and look at it.

    Raises:
        ValueError: See `Cascade.__call__`.
    """
    values, listed = np.asarray(flight, np.float32), list(wanted if names is None else names)
    if values.ndim != 2 or len(values) != len(listed):
        raise ValueError(
            f"flight {place} has shape {values.shape}, wanted ({len(listed)} channels, seconds)"
        )
    for name in wanted:
        if name not in listed:
            close = difflib.get_close_matches(name, listed, 1)
            guess = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"channel {name!r} is missing{guess} wanted: {', '.join(wanted)}")
    if values.shape[1] < SHORTEST:
        raise ValueError(f"flight {place} has {values.shape[1]} s, at least {SHORTEST} are needed")
    ordered: NDArray[np.float32] = values[[listed.index(name) for name in wanted]]
    if not np.isfinite(ordered).any():
        raise ValueError(f"no channel of flight {place} has a value")
    return ordered
