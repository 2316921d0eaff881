"""Progress as values: stages emit, the command line draws (or prints JSON lines)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Attributes:
        kind: ``plan`` (``data``: the steps), ``start`` and ``end`` of a step, ``cached`` for a
            step found in the store, ``progress`` inside a step, ``note`` for a sentence that the
            user should read, ``warning``.
        step: Name of the step, for instance ``distill`` or ``build:openvino-int8``.
        text: What is being done.
        done: Units finished, for ``progress``.
        total: Units in all; 0 when unknown.
        unit: What is counted: ``epochs``, ``images``, ``episodes`` …
        left_s: Estimated seconds left in this step; None when unknown.
        data: Small facts (loss, accuracy …).
    """

    kind: Literal["plan", "start", "end", "cached", "progress", "note", "warning"]
    step: str = ""
    text: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""
    left_s: float | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


Emit = Callable[[Event], None]


def silent(event: Event) -> None:
    """Drop the event."""


class Progress:
    """Counts units and estimates the time left from those done in this process.

    Args:
        emit: Where events go.
        step: Name of the step.
        total: Units in all.
        unit: What is counted.
        start: Units that an earlier, interrupted run has already done.
    """

    def __init__(self, emit: Emit, step: str, total: int, unit: str, start: int = 0) -> None:
        self._emit, self._step, self._total, self._unit = emit, step, total, unit
        self._done = self._start = start
        self._began = time.monotonic()

    def advance(self, units: int = 1, text: str = "", **data: Any) -> None:
        """Report ``units`` more as done."""
        self._done += units
        fresh = self._done - self._start
        left = (time.monotonic() - self._began) / fresh * (self._total - self._done)
        self._emit(
            Event(
                "progress",
                self._step,
                text,
                self._done,
                self._total,
                self._unit,
                left_s=max(0.0, left),
                data=data,
            )
        )
