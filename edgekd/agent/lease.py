"""One job per board: a lock on the board itself, held for as long as this agent lives.

The kernel lets go of the lock when the process ends, however it ends; nothing can be left behind
that a person would have to remove.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .faults import SetupFault

FILE = "edgekd-board.lock"
_held: list[int] = []


def take(holder: Mapping[str, Any]) -> dict[str, Any]:
    """Try to take the board.

    Args:
        holder: Who asks, for whoever comes next: ``command``, ``user``, ``host``, ``pid``,
            ``since``.

    Returns:
        ``held``, and ``holder``: who has it now.
    """
    if _held:
        return {"held": True, "holder": dict(holder)}
    path = Path(tempfile.gettempdir()) / FILE
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise SetupFault(f"cannot lock the board: {error}", hint=f"remove {path}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        found = _read(handle)
        os.close(handle)
        return {"held": False, "holder": found}
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(dict(holder)).encode(), 0)
    _held.append(handle)
    return {"held": True, "holder": dict(holder)}


def _read(handle: int) -> dict[str, Any]:
    """Return who holds the lock; empty in the instant before it has written its name."""
    try:
        found = json.loads(os.pread(handle, 65536, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
