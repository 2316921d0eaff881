"""One child process that speaks JSON lines: asked, watched, killed, and what it last said."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_TAIL_LINES = 20
_LINE_LIMIT = 2000
_GRACE_S = 5.0
_JOIN_S = 1.0


class ChildLost(Exception):
    """The child died or stays silent.

    Args:
        fate: How it ended: ``died with SIGSEGV``, ``exited with code 7``, ``gave no answer …``.
        tail: The last lines of its standard error.
        signal_number: The signal that killed it, where one did.
    """

    def __init__(self, fate: str, tail: Sequence[str], signal_number: int | None = None) -> None:
        super().__init__("\n".join([fate, *tail]))
        self.fate = fate
        self.tail = list(tail)
        self.signal_number = signal_number


class Child:
    """A child process in a process group of its own. Not for use from two threads at once.

    Args:
        command: What to run.
        cwd: Its working directory; None keeps the host's.
        env: Its whole environment.

    Raises:
        OSError: The command cannot be started.
    """

    def __init__(self, command: Sequence[str], *, cwd: Path | None, env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
        )
        self._answers: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._readers = [
            _drain(self._process.stdout, self._answers.put, -1),
            _drain(self._process.stderr, self._remember, _LINE_LIMIT),
        ]
        self._last_id = 0

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the child is alive."""
        return self._process.poll() is None

    def ask(
        self, request: Mapping[str, Any], timeout_s: float, *, skip_noise: bool = False
    ) -> dict[str, Any]:
        """Send one request and wait for its answer.

        Whatever interrupts the wait, Ctrl-C included, kills the child: an answer that comes
        late must not be taken for the answer to the next request.

        Args:
            request: What to ask, without ``id``.
            timeout_s: Seconds to wait before the child is killed.
            skip_noise: Pass over lines that are no answer (a login banner before the first one).

        Raises:
            ChildLost: The child died, or gave no answer in time and was killed.
        """
        self._last_id += 1
        try:
            self._send({"id": self._last_id, **request})
            return self._receive(timeout_s, skip_noise=skip_noise)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """Kill the child and whatever it started.

        A child that was waited for is left alone: its number may be another process by now.
        """
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._reap()

    def close(self) -> None:
        """Close the child's input and let it end; kill it if it does not."""
        with contextlib.suppress(OSError):
            self._stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_S)
        self.kill()

    @property
    def _stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    def _send(self, request: Mapping[str, Any]) -> None:
        try:
            self._stdin.write(json.dumps(request).encode() + b"\n")
            self._stdin.flush()
        except (OSError, ValueError) as error:
            raise self._lost() from error

    def _receive(self, timeout_s: float, *, skip_noise: bool) -> dict[str, Any]:
        try:
            while (line := self._answers.get(timeout=timeout_s)) is not None:
                answer = _parse(line)
                if answer is not None and answer.get("id") == self._last_id:
                    return answer
                if not skip_noise:
                    raise ChildLost(f"answered with {line[:200]!r}", self._tail)
        except queue.Empty:
            raise ChildLost(
                f"gave no answer within {timeout_s:g} s and was killed", list(self._tail)
            ) from None
        raise self._lost()

    def _lost(self) -> ChildLost:
        """Return how the child ended, once it has."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_S)
        code = self._process.poll()
        self.kill()
        if code is None:
            return ChildLost("closed its output and was killed", self._tail)
        if code < 0:
            return ChildLost(f"died with {signal_name(-code)}", self._tail, -code)
        return ChildLost(f"exited with code {code}", self._tail)

    def _reap(self) -> None:
        """Wait for the child, close its pipes, and let the readers take its last words."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_S)
        with contextlib.suppress(OSError):
            self._stdin.close()
        for reader in self._readers:
            reader.join(_JOIN_S)

    def _remember(self, line: bytes | None) -> None:
        text = (line or b"").decode(errors="replace").rstrip()
        if text:
            self._tail.append(text)


def _drain(
    stream: IO[bytes] | None, take: Callable[[bytes | None], None], limit: int
) -> threading.Thread:
    """Start a thread that hands the lines of `stream` to `take`, and None at its end."""
    assert stream is not None

    def drain() -> None:
        with stream:
            while line := stream.readline(limit):
                take(line)
        take(None)

    thread = threading.Thread(target=drain, daemon=True)
    thread.start()
    return thread


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(line)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def signal_name(number: int) -> str:
    """Return ``SIGSEGV`` for 11."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
