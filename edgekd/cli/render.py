"""Progress on a terminal. The only module that imports rich."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from edgekd.cli.progress import counted_shortly, said
from edgekd.events import Event

__all__ = ["TerminalProgress"]

_STYLES = {"end": "green", "cached": "dim", "warning": "yellow"}


class TerminalProgress:
    """A list of the steps that are done, above a bar for each one that runs.

    Args:
        console: Where to draw; standard error by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[counted]}", markup=False, style="dim"),
            console=self._console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._began: dict[str, float] = {}
        self._steps = self._finished = 0

    def __enter__(self) -> TerminalProgress:
        """Start drawing."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the bars; what was said above them stays."""
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Draw an event."""
        if event.kind == "start":
            self._start(event)
        elif event.kind == "progress":
            self._advance(event)
        else:
            self._say(event)

    def _start(self, event: Event) -> None:
        self._began[event.step] = time.monotonic()
        task = self._progress.add_task(
            f"{self._place()}{event.step}", total=None, counted=event.text
        )
        self._tasks[event.step] = task

    def _advance(self, event: Event) -> None:
        if event.step not in self._tasks:
            self._start(event)
        self._progress.update(
            self._tasks[event.step],
            total=event.total or None,
            completed=event.done,
            counted=counted_shortly(event),
        )

    def _say(self, event: Event) -> None:
        elapsed = None
        if event.kind == "plan":
            self._steps = len(event.data.get("steps", ()))
        elif event.kind in ("end", "cached"):
            self._finished += 1
            elapsed = self._close(event.step)
        self._console.print(Text(said(event, elapsed), style=_STYLES.get(event.kind, "")))

    def _close(self, step: str) -> float | None:
        """Remove a step's bar; return how long it took."""
        if step in self._tasks:
            self._progress.remove_task(self._tasks.pop(step))
        began = self._began.pop(step, None)
        return None if began is None else time.monotonic() - began

    def _place(self) -> str:
        return f"[{self._finished + 1}/{self._steps}] " if self._steps else ""
