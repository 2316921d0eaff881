"""JSON lines in, JSON lines out: one answer a request, on a channel that nothing can pollute."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import queue
import sys
import threading
import time
import traceback
from typing import Any, BinaryIO

from . import ops, process
from .faults import Fault, UsageFault

_TRACEBACK_LIMIT = 6000
_IDLE_S = 1800.0
"""An agent behind a network leaves when its host has been silent for that long."""


def take_streams() -> tuple[BinaryIO, BinaryIO]:
    """Take standard input and output for the protocol alone.

    Chatty native libraries write to descriptor 1, whatever ``sys.stdout`` is: the original is
    duplicated for the answers and descriptor 1 is pointed at standard error.
    """
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.stdout.flush()
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return requests, answers


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until ``bye``, the end of `requests`, or nobody listens any more."""
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    threading.Thread(target=_read_lines, args=(requests, lines), daemon=True).start()
    bench = ops.Bench()
    idle = _IDLE_S if os.environ.get(process.REMOTE_VARIABLE) else None
    with contextlib.suppress(BrokenPipeError, queue.Empty):
        while (line := lines.get(timeout=idle)) is not None:
            request, answer = _answer(bench, line)
            answers.write(json.dumps(answer, allow_nan=False).encode() + b"\n")
            answers.flush()
            if request.get("op") == "bye":
                break
    bench.close()


def _read_lines(requests: BinaryIO, lines: queue.SimpleQueue[bytes | None]) -> None:
    """Hand lines to the main thread; at the end of input, do not outlive the parent process.

    A closed input with a living parent (``echo … | python -m edgekd.agent``) lets the work in
    hand finish; a dead parent ends this process at once, even amid a long inference.
    """
    parent = os.getppid()
    for line in requests:
        if line.strip():
            lines.put(line)
    lines.put(None)
    while os.getppid() == parent:
        time.sleep(0.1)
    os._exit(0)


def _answer(bench: ops.Bench, line: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the request in `line` and its answer; whatever it raises becomes an answer too."""
    request: dict[str, Any] = {}
    try:
        request = _parse(line)
        result = ops.perform(bench, request)
        json.dumps(result, allow_nan=False)
    except Exception as error:  # noqa: BLE001 - the host decides what it means
        return request, {"id": request.get("id"), "ok": False, "error": describe(error)}
    return request, {"id": request.get("id"), "ok": True, "result": result}


def _parse(line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except ValueError as error:
        raise UsageFault(f"a request is one JSON object a line; got {line[:80]!r}") from error
    if not isinstance(request, dict):
        raise UsageFault(f"a request is a JSON object; got {line[:80]!r}")
    return request


def describe(error: Exception) -> dict[str, Any]:
    """Return an exception as plain data: kind, type, message, hint, traceback."""
    return {
        "kind": _kind(error),
        "type": type(error).__name__,
        "message": str(error),
        "hint": getattr(error, "hint", None) if isinstance(error, Fault) else None,
        "traceback": traceback.format_exc()[-_TRACEBACK_LIMIT:],
    }


def _kind(error: Exception) -> str:
    if isinstance(error, Fault):
        return error.kind
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "setup"
    return "stage"
