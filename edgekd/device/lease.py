"""Wait for a board, or say who has it."""

from __future__ import annotations

import getpass
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from edgekd.device.link import agent_on
from edgekd.device.reach import reach
from edgekd.errors import SetupError
from edgekd.events import Emit, Event, silent

_POLL_S = 0.5


@contextmanager
def lease(wait_s: float, emit: Emit = silent, on: str = "local") -> Iterator[None]:
    """Hold the board for as long as the block runs; measuring jobs take turns.

    Args:
        wait_s: Seconds to wait for another job to end.
        emit: Told whom this job waits for.
        on: Where the board is; see `edgekd.device.reach`.

    Raises:
        SetupError: Another job still has the board, and the message names it; or it is none.
    """
    refuse_recording(on)
    deadline = time.monotonic() + wait_s
    with agent_on(on) as agent:
        told = False
        while not (answer := agent.lease(_me()))["held"]:
            who = _named(answer["holder"])
            if time.monotonic() >= deadline:
                raise SetupError(
                    f"the board is in use by {who}",
                    hint="try again later, or wait longer with --wait SECONDS",
                )
            if not told:
                emit(Event("note", "lease", f"waiting for the board, in use by {who}"))
                told = True
            time.sleep(_POLL_S)
        yield


def refuse_recording(on: str) -> None:
    """Refuse a recorded device: it measures nothing.

    Raises:
        SetupError: ``on`` names one.
    """
    if reach(on).recording is not None:
        raise SetupError(
            "a recording of a device is not comparable: nothing is measured on it",
            at=f"--on {on}",
            hint="name a board with --on ssh:HOST",
        )


def _me() -> dict[str, Any]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return {
        "command": shlex.join(["edgekd", *sys.argv[1:]]),
        "user": user,
        "host": platform.node(),
        "pid": os.getpid(),
        "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _named(holder: Mapping[str, Any]) -> str:
    if not holder:
        return "a job that just began"
    return "{user}@{host} (process {pid}, since {since}): {command}".format(**holder)
