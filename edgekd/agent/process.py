"""The agent's own process: how it dies with its host, and what it has used so far."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path

PARENT_VARIABLE = "EDGEKD_AGENT_PARENT"
"""Environment variable with the process id of a host whose *main* thread started the agent."""

REMOTE_VARIABLE = "EDGEKD_AGENT_REMOTE"
"""Environment variable of an agent behind a network: the end of its input means a host gone."""

_PR_SET_PDEATHSIG = 1
_GRACE_S = 2.0


def prepare() -> None:
    """Print a Python stack on a crash, leave no core dump, and die with the host."""
    faulthandler.enable(file=sys.stderr, all_threads=False)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if os.environ.get(REMOTE_VARIABLE):
        _die_with_input()
    _die_with(os.environ.get(PARENT_VARIABLE))


def _die_with_input() -> None:
    """Start a watcher that kills this process some time after its input ended.

    A thread could not: a runtime that hangs in native code may hold Python's lock.
    """
    agent = os.getpid()
    if os.fork():
        return
    with contextlib.suppress(AttributeError, OSError):  # the watcher must not outlive the agent
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    watched = select.poll()
    watched.register(0, getattr(select, "POLLRDHUP", 0))  # and always POLLHUP, POLLERR
    while os.getppid() == agent:
        if watched.poll(1000):
            time.sleep(_GRACE_S)
            with contextlib.suppress(ProcessLookupError):
                if os.getppid() == agent:
                    os.kill(agent, signal.SIGKILL)
            break
    os._exit(0)


def _die_with(parent: str | None) -> None:
    """Ask Linux to kill this process when the host dies, even while native code is busy.

    The signal is tied to the *thread* that started us, so the host names itself only when that
    was its main thread; else the end of standard input is the only sign, see `protocol`.
    """
    if parent is None or not sys.platform.startswith("linux") or os.getppid() != int(parent):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it died before the call took effect
        os._exit(0)


def rss_mib() -> float | None:
    """Return the resident memory of this process now, where /proc tells it."""
    return _status_mib("VmRSS")


def peak_rss_mib() -> float:
    """Return the peak resident memory of this process.

    Linux's ``ru_maxrss`` survives ``exec``: a child of a 2 GiB training process would report
    2 GiB. ``VmHWM`` belongs to this program alone. Linux notes it late, so that for a moment it
    can lie below what the program holds.
    """
    peak, now = _status_mib("VmHWM"), rss_mib()
    if peak is not None and now is not None:
        return max(peak, now)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def involuntary_switches() -> int:
    """Return how often the scheduler took the processor away from this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _status_mib(field: str) -> float | None:
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    return None
