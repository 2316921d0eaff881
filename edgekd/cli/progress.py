"""Draw events: on a terminal, as plain lines, or as JSON lines; always on standard error."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import click

from edgekd.cli.session import current
from edgekd.cli.text import duration
from edgekd.events import Emit, Event

__all__ = ["JsonLines", "PlainLines", "drawn", "said"]

QUIET_S = 5.0
"""Least time between two lines of progress of one step."""


@contextmanager
def drawn() -> Iterator[Emit]:
    """Give the function that draws events in the way that fits this session."""
    if current().json:
        yield JsonLines()
    elif sys.stderr.isatty() and os.environ.get("TERM") not in (None, "dumb"):
        from edgekd.cli.render import TerminalProgress

        with TerminalProgress() as terminal:
            yield terminal
    else:
        yield PlainLines()


class JsonLines:
    """One JSON object an event."""

    def __call__(self, event: Event) -> None:
        """Write an event."""
        click.echo(json.dumps(asdict(event), ensure_ascii=False, default=str), err=True)


class PlainLines:
    """Lines for logs.

    Progress of a step is written at most once in `QUIET_S`; all other events are written.

    Args:
        write: Takes a line.
        clock: Returns seconds.
    """

    def __init__(
        self,
        write: Callable[[str], None] = lambda line: click.echo(line, err=True),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write, self._clock = write, clock
        self._began: dict[str, float] = {}
        self._last: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        """Write an event, unless it is progress that comes too soon."""
        now = self._clock()
        if event.kind == "progress":
            if now - self._last.setdefault(event.step, now) < QUIET_S:
                return
            self._last[event.step] = now
        elif event.kind == "start":
            self._began[event.step] = self._last[event.step] = now
        began = self._began.get(event.step)
        self._write(said(event, None if began is None else now - began))


def said(event: Event, elapsed: float | None = None) -> str:
    """Return an event as one line.

    Args:
        event: What happened.
        elapsed: Seconds since the step began, for its end.
    """
    return f"{event.step or event.kind}: {' '.join(_words(event, elapsed).split())}"


def _words(event: Event, elapsed: float | None) -> str:
    match event.kind:
        case "plan":
            return _planned(event)
        case "start":
            return event.text or "started"
        case "end":
            return f"done{'' if elapsed is None else f' in {duration(elapsed)}'}{_tail(event)}"
        case "cached":
            return f"cached{_tail(event)}"
        case "progress":
            return counted(event)
        case "warning":
            return f"{'warning: ' if event.step else ''}{event.text}"
        case _:
            return event.text


def _planned(event: Event) -> str:
    steps = event.data.get("steps", ())
    cached = sum(1 for step in steps if step.get("status") == "cached")
    return f"{len(steps)} steps, {cached} of them cached"


def counted(event: Event) -> str:
    """Return the progress of a step: how many of how many, and the time left."""
    unit = f" {event.unit}" if event.unit else ""
    if not event.total:
        return f"{event.done}{unit}{_tail(event)}"
    share = f"{100 * event.done / event.total:.0f} %"
    left = "" if event.left_s is None else f", about {duration(event.left_s)} left"
    return f"{share} ({event.done} of {event.total}{unit}){left}{_tail(event)}"


def counted_shortly(event: Event) -> str:
    """Return the progress of a step in the words that fit beside a bar."""
    of = f"/{event.total}" if event.total else ""
    left = "" if event.left_s is None else f", {duration(event.left_s)} left"
    return f"{event.done}{of} {event.unit}{left}{_tail(event)}"


def _tail(event: Event) -> str:
    """Return the text of an event, or else its small facts, after a semicolon."""
    facts = [
        f"{name} {_short(value)}"
        for name, value in event.data.items()
        if isinstance(value, str | int | float)
    ]
    words = event.text or ", ".join(facts[:4])
    return f"; {words}" if words else ""


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
