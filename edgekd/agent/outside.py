"""What this machine tells of itself, its files and its programs; or a recording of a board's.

A recording is a folder in the forms that a board writes:

    device.json    recorded (what it is, in a sentence), facts (what no file tells: arch, cores …),
                   tegrastats_ms (interval of its two logs)
    root/          files at their places: proc/device-tree/model, etc/nv_tegra_release …
    said/          what a program printed: nvpmodel.txt, dpkg-query.txt
    trtexec/       help.log; build.log, layers.json; time.log, times.json; profile.log, profile.json
    tegrastats/    idle.log, busy.log

Playing one goes through all that reads those forms, and measures nothing: `playing` is part of the
agent's facts, and whoever asks has to say so.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .faults import Fault, UsageFault

VARIABLE = "EDGEKD_REPLAY"
"""``PID:FOLDER``: the recording that the agent plays, and the host that asked for it.

Who is no child of that process ignores it, so that one set by hand makes no machine a board.
"""
KEYS = {"recorded", "facts", "tegrastats_ms"}
NO_ENGINE = b"a recording was played: this is no engine\n"
_FILES = {
    "saveEngine": None,
    "exportLayerInfo": "layers.json",
    "exportTimes": "times.json",
    "exportProfile": "profile.json",
}


@dataclass(frozen=True)
class Ran:
    """What a program did: its exit code, and all that it printed."""

    code: int
    text: str


def recording() -> Path | None:
    """Return the folder of the recording that is played; None where this machine is asked."""
    host, _, folder = os.environ.get(VARIABLE, "").partition(":")
    return Path(folder) if folder and host == str(os.getppid()) else None


def asked(folder: Path) -> dict[str, str]:
    """Return the environment in which a child of this process plays a recording."""
    return {VARIABLE: f"{os.getpid()}:{folder}"}


def playing() -> dict[str, str] | None:
    """Return what is played: ``name`` of the folder, ``recorded``, ``digest`` of all its files."""
    folder = recording()
    if folder is None:
        return None
    value = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        value.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        value.update(hashlib.sha256(path.read_bytes()).digest())
    told = _device(folder)
    return {
        "name": folder.resolve().name,
        "recorded": str(told["recorded"]),
        "digest": value.hexdigest(),
    }


def at(path: str) -> Path:
    """Return where a file of the board lies."""
    folder = recording()
    return Path(path) if folder is None else folder / "root" / path.lstrip("/")


def facts(names: Container[str]) -> dict[str, Any]:
    """Return what a recording says of some facts; nothing where this machine is asked."""
    folder = recording()
    told = {} if folder is None else _device(folder)["facts"]
    return {name: value for name, value in told.items() if name in names}


def said(*command: str) -> str | None:
    """Return what a command printed; None where it is missing or fails."""
    folder = recording()
    if folder is not None:
        told = folder / "said" / f"{command[0]}.txt"
        return told.read_text(errors="replace") if told.is_file() else None
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None


def run(command: Sequence[str], timeout_s: float) -> Ran:
    """Run ``trtexec``, or play what it wrote when it was recorded."""
    folder = recording()
    if folder is not None:
        return _play(folder / "trtexec", command)
    done = subprocess.run(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout_s,
        check=False,
    )
    return Ran(done.returncode, done.stdout.decode(errors="replace"))


def power_logs() -> tuple[list[str], list[str], float]:
    """Return the lines of tegrastats at rest and at work, and the seconds between two lines."""
    folder = recording()
    assert folder is not None
    idle, busy = ((folder / "tegrastats" / f"{n}.log").read_text() for n in ("idle", "busy"))
    return idle.splitlines(), busy.splitlines(), float(_device(folder)["tegrastats_ms"]) / 1000


def _device(folder: Path) -> dict[str, Any]:
    try:
        told = json.loads((folder / "device.json").read_text())
    except (OSError, ValueError) as error:
        raise UsageFault(f"{folder} is no recording of a device: {error}") from error
    if not isinstance(told, dict) or set(told) != KEYS:
        raise UsageFault(
            f"{folder / 'device.json'} wants {', '.join(sorted(KEYS))}, and nothing else"
        )
    return told


def _play(folder: Path, command: Sequence[str]) -> Ran:
    """Write the files that the command asks for, as they were recorded, and return the log."""
    asked = dict(word[2:].partition("=")[::2] for word in command[1:])
    kind = next(
        (
            kind
            for flag, kind in (
                ("help", "help"),
                ("onnx", "build"),
                ("exportProfile", "profile"),
                ("exportTimes", "time"),
            )
            if flag in asked
        ),
        None,
    )
    if kind is None or not (folder / f"{kind}.log").is_file():
        raise Fault(f"the recording has no answer to {' '.join(command)[:200]}")
    text = (folder / f"{kind}.log").read_text(errors="replace")
    passed = "&&&& PASSED" in text
    for flag, name in _FILES.items():
        if flag not in asked or not passed:
            continue
        content = NO_ENGINE if name is None else (folder / name).read_bytes()
        Path(asked[flag]).write_bytes(content)
    return Ran(0 if passed or kind == "help" else 1, text)
