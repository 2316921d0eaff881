"""Toolchains that live in virtual environments of their own: made once, found again, described.

A toolchain whose pins quarrel with everybody else's is no extra. Its environment is made by
``edgekd setup NAME`` and used by running a file of ours in its interpreter.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.errors import SetupError, UsageError, did_you_mean
from edgekd.events import Emit, Event, silent

__all__ = ["ENVIRONMENTS", "Environment", "Found", "environment", "setup"]

MARKER = "edgekd.json"
"""Written last: an environment without it is unfinished."""
_TAIL_LINES = 12
_SPARE_GIB = 1.0


@dataclass(frozen=True)
class Environment:
    """A toolchain and how its environment is made.

    Attributes:
        name: What ``edgekd setup`` calls it.
        purpose: What it is for, for the reader.
        wanted: Distributions that are asked for; the lock file beside this module has their
            versions and those of all that they bring.
        probe: Modules whose import proves that it works.
        gib: Size on disk that was measured, in GiB.
        pythons: First and last minor version of Python 3 that the lock was made for.
        variable: Environment variable that moves it to another folder.
    """

    name: str
    purpose: str
    wanted: tuple[str, ...]
    probe: tuple[str, ...]
    gib: float
    pythons: tuple[int, int]
    variable: str

    @property
    def folder(self) -> Path:
        """Where it is, or would be."""
        if os.environ.get(self.variable):
            return Path(os.environ[self.variable]).expanduser().absolute()
        cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        return Path(cache).expanduser() / "edgekd" / "environments" / self.name

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def lock(self) -> Path:
        """The file of pinned versions."""
        return Path(__file__).parent / f"{self.name}.txt"

    @property
    def pins(self) -> dict[str, str]:
        """Pinned version of every distribution."""
        rows = [line.split("==") for line in self.lock.read_text("utf-8").splitlines()]
        return {row[0]: row[1] for row in rows if len(row) == 2}

    @property
    def digest(self) -> str:
        """sha256 of the pins: what a result of this toolchain depends on."""
        text = json.dumps(self.pins, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def command(self) -> str:
        """The command that makes it."""
        return f"edgekd setup {self.name}"

    def find(self) -> Found | None:
        """Return it when it is finished and as pinned; None otherwise."""
        try:
            value = json.loads((self.folder / MARKER).read_text("utf-8"))
            found = Found(self.folder, value["versions"], value["python"], value["digest"])
        except (OSError, ValueError, KeyError):
            return None
        return found if found.digest == self.digest and self.python.exists() else None

    def lacking(self) -> str | None:
        """Return why it cannot be used; None when it can."""
        if self.find() is not None:
            return None
        state = "out of date" if (self.folder / MARKER).exists() else "not made"
        return f"the {self.name} environment is {state}: {self.command}"

    def require(self, needed_by: str) -> Path:
        """Return the interpreter.

        Raises:
            SetupError: The environment is not there; names the command.
        """
        if self.find() is None:
            raise SetupError(
                f"{needed_by} needs an environment of its own; {self.lacking()}",
                at=str(self.folder),
                hint=self.command,
            )
        return self.python


@dataclass(frozen=True)
class Found:
    """A finished environment.

    Attributes:
        folder: Where it is.
        versions: Installed versions of the wanted distributions.
        python: Version of its Python.
        digest: Digest of the pins that it was made from.
    """

    folder: Path
    versions: Mapping[str, str]
    python: str
    digest: str


ENVIRONMENTS: Mapping[str, Environment] = {
    "litert": Environment(
        name="litert",
        purpose="torch → .tflite (litert-torch) and its quantiser, for the targets with LiteRT",
        wanted=("torch", "litert-torch", "litert-quantizer"),
        probe=("torch", "litert_torch", "litert_quantizer", "ai_edge_litert.interpreter"),
        gib=2.1,
        pythons=(11, 11),
        variable="EDGEKD_LITERT",
    ),
    "tflite-runtime": Environment(
        name="tflite-runtime",
        purpose="the old interpreter with numpy 1: proves that a .tflite loads on older devices",
        wanted=("tflite-runtime", "numpy"),
        probe=("tflite_runtime.interpreter",),
        gib=0.1,
        pythons=(9, 11),
        variable="EDGEKD_TFLITE_RUNTIME",
    ),
}


def environment(name: str) -> Environment:
    """Return an environment by name.

    Raises:
        UsageError: There is none of that name.
    """
    if name not in ENVIRONMENTS:
        raise UsageError(
            f"there is no environment {name!r} to set up", hint=did_you_mean(name, ENVIRONMENTS)
        )
    return ENVIRONMENTS[name]


def setup(
    name: str, *, python: str | Path | None = None, again: bool = False, emit: Emit = silent
) -> dict[str, Any]:
    """Make an environment, or find that it is there.

    Args:
        name: ``litert`` or ``tflite-runtime``.
        python: Interpreter to make it with; this one, or one of the right version on PATH.
        again: Make it anew even when it is there.
        emit: Progress.

    Returns:
        ``name``, ``folder``, ``python``, ``versions``, ``bytes``, ``made`` (whether it was made
        now).

    Raises:
        SetupError: No fitting Python, no room, or the installation failed.
    """
    wanted = environment(name)
    with _locked(wanted.folder):
        found = None if again else wanted.find()
        made = found is None
        if found is None:
            _make(wanted, _interpreter(wanted, python), emit)
            found = wanted.find()
            assert found is not None
    return {
        "name": name,
        "folder": str(found.folder),
        "python": found.python,
        "versions": dict(found.versions),
        "bytes": _size(found.folder),
        "made": made,
    }


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time make the environment."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = (folder.parent / f".{folder.name}.lock").open("w")
    except OSError as error:
        raise SetupError(f"cannot write {folder.parent}: {error.strerror}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _interpreter(wanted: Environment, asked: str | Path | None) -> str:
    """Return an interpreter whose version the lock was made for."""
    low, high = wanted.pythons
    names = [f"python3.{minor}" for minor in range(high, low - 1, -1)]
    for candidate in [str(asked)] if asked else [sys.executable, *names]:
        place = shutil.which(str(Path(candidate).expanduser()))
        if place and low <= _minor(place) <= high:
            return place
    versions = f"3.{low}" if low == high else f"3.{low} to 3.{high}"
    found = asked or f"none on PATH; this is Python 3.{sys.version_info.minor}"
    raise SetupError(
        f"the {wanted.name} environment needs Python {versions}: {found}",
        hint=f"{wanted.command} --python /path/to/python3.{high}",
    )


def _minor(python: str) -> int:
    ask = "import sys; print(sys.version_info.minor if sys.version_info.major == 3 else -1)"
    done = subprocess.run([python, "-I", "-c", ask], capture_output=True, text=True, check=False)
    text = done.stdout.strip()
    return int(text) if done.returncode == 0 and text.lstrip("-").isdigit() else -1


def _make(wanted: Environment, python: str, emit: Emit) -> None:
    folder = wanted.folder
    free = shutil.disk_usage(folder.parent).free / 2**30
    if free < wanted.gib + _SPARE_GIB:
        raise SetupError(
            f"the {wanted.name} environment takes {wanted.gib:.1f} GiB; {free:.1f} GiB are free",
            at=str(folder.parent),
            hint=f"set {wanted.variable} to a folder on another disk",
        )
    pins = wanted.pins
    packages = [f"{name}=={pins[name]}" for name in wanted.wanted]
    step = f"setup:{wanted.name}"
    emit(Event("note", step, f"installing {', '.join(packages)} and what they need"))
    build = " with a CPU build of torch" if "torch" in pins else ""
    emit(Event("note", step, f"into {folder}: about {wanted.gib:.1f} GiB{build}"))
    if folder.exists():
        _check_ours(folder)
        shutil.rmtree(folder)
    log = folder.parent / f"{wanted.name}.log"
    log.write_bytes(b"")
    pip = [str(wanted.python), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    commands: Sequence[tuple[str, Sequence[str]]] = (
        ("making the virtual environment", [python, "-m", "venv", str(folder)]),
        ("installing", [*pip, "install", "-c", str(wanted.lock), *packages]),
        ("checking that the versions fit", [*pip, "check"]),
        ("importing what it is for", [str(wanted.python), "-I", "-c", _proof(wanted)]),
    )
    for text, command in commands:
        emit(Event("note", step, text))
        _run(command, log, f"setting up {wanted.name} failed while {text}")
    versions = json.loads(log.read_text("utf-8", "replace").splitlines()[-1])
    value = {"digest": wanted.digest, **versions}
    partial = folder / f"{MARKER}.partial"
    partial.write_text(json.dumps(value, indent=1, sort_keys=True), "utf-8")
    partial.replace(folder / MARKER)


def _check_ours(folder: Path) -> None:
    """Refuse to remove a folder that is no virtual environment."""
    if not (folder / "pyvenv.cfg").is_file() and any(folder.iterdir()):
        raise SetupError(
            "there is something that is no virtual environment", at=str(folder), hint="remove it"
        )


def _proof(wanted: Environment) -> str:
    """Return a program that imports the toolchain and prints the versions found."""
    return (
        f"import importlib, json, platform\nfrom importlib.metadata import version\n"
        f"for name in {wanted.probe!r}: importlib.import_module(name)\n"
        f"found = {{name: version(name) for name in {wanted.wanted!r}}}\n"
        f"print(json.dumps({{'versions': found, 'python': platform.python_version()}}))\n"
    )


def _run(command: Sequence[str], log: Path, failure: str) -> None:
    environ = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    with log.open("ab") as stream:
        try:
            done = subprocess.run(
                list(command),
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                check=False,
            )
        except OSError as error:
            raise SetupError(f"{failure}: {error}", at=command[0]) from error
    if done.returncode:
        lines = log.read_text("utf-8", "replace").splitlines()[-_TAIL_LINES:]
        raise SetupError(
            f"{failure} (status {done.returncode})",
            at=str(log),
            hint="\n    ".join(["the end of what it said:", *lines]),
        )


def _size(folder: Path) -> int:
    return sum(p.lstat().st_size for p in folder.rglob("*") if not p.is_dir())
