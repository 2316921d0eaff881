"""Results are directories, addressed by what made them.

    <root>/objects/<key>/   files of a finished step, facts.json, entry.json
    <root>/partial/<key>/   a step in progress; survives a kill, so that training resumes
    <root>/locks/<key>      held while a step runs: two runs on one store do the work once

The key is the digest of everything that can change the result. An entry is written under
``partial``, synced, then renamed: it is there whole or not at all. Failures are never stored.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.errors import EdgekdError, SetupError, StageError, UsageError
from edgekd.events import Emit, Event
from edgekd.spec import Json, canonical, digest

KEPT = ("checkpoint.pt", "rollouts.pt")
"""Files of an interrupted step that its next attempt may use."""
SMALL = 1 << 20
"""Files up to this many bytes are hashed whenever their step is looked up."""


def default_root() -> Path:
    """``$EDGEKD_STORE``, else ``$XDG_CACHE_HOME/edgekd/store``, else under ``~/.cache``."""
    if "EDGEKD_STORE" in os.environ:
        return Path(os.environ["EDGEKD_STORE"]).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "edgekd" / "store"


@dataclass(frozen=True)
class Entry:
    """A finished step.

    Attributes:
        path: Its folder.
        facts: What the stage returned.
        made_of: The value whose digest is the key.
        seconds: How long it took.
    """

    path: Path
    facts: Mapping[str, Any]
    made_of: Mapping[str, Any]
    seconds: float


class Store:
    """A content-addressed folder of results.

    Args:
        root: Folder of the store; made when missing.

    Raises:
        SetupError: The folder cannot be made or written.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = (root or default_root()).expanduser().resolve()
        try:
            for part in ("objects", "partial", "locks"):
                (self.root / part).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SetupError(
                f"cannot write the store: {error.strerror}",
                at=str(self.root),
                hint="set EDGEKD_STORE to a folder that you may write",
            ) from error

    def get(self, key: str, *, whole: bool = True) -> Entry | None:
        """Return a finished step, or None when it is absent or damaged (then it is dropped).

        Args:
            key: Of the step.
            whole: Check every byte. False checks small files, and of large ones only the size:
                enough for a step whose files nobody is about to read.
        """
        path = self.root / "objects" / key
        if not path.is_dir():
            return None
        entry = _read(path, _same if whole else _alike)
        if entry is None:
            _drop(path)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return entry

    def has(self, key: str) -> bool:
        """Whether the step is finished, without checking its bytes."""
        return (self.root / "objects" / key / "entry.json").is_file()

    def put(
        self,
        key: str,
        made_of: Mapping[str, Json],
        work: Callable[[Path], Mapping[str, Any]],
        emit: Emit,
    ) -> Entry:
        """Do the work of a step and keep its result; when another run did it meanwhile, take that.

        Args:
            key: Digest of ``made_of``.
            made_of: What the key is made of, kept for `why`.
            work: Writes files under the folder it is given and returns small facts.
            emit: Told when another run holds the step.

        Raises:
            SetupError: The disk is full or not writable.
            StageError: The work failed for a foreign reason, chained.
        """
        step = str(made_of.get("step", ""))
        with self._locked(key, step, emit):
            ready = self.get(key)
            if ready is not None:
                return ready
            folder = self.root / "partial" / key
            _clear(folder)
            began = time.monotonic()
            with _explained(step, self.root):
                facts = dict(work(folder))
                _seal(folder, facts, made_of, time.monotonic() - began)
                folder.rename(self.root / "objects" / key)
        entry = self.get(key)
        assert entry is not None
        return entry

    @contextlib.contextmanager
    def _locked(self, key: str, step: str, emit: Emit) -> Iterator[None]:
        with (self.root / "locks" / key).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                text = f"another edgekd run is doing {step or key[:12]}; waiting for it"
                emit(Event("note", step, text))
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def list(self) -> list[tuple[str, Entry]]:
        """Finished steps, oldest first."""
        folders = sorted((self.root / "objects").iterdir(), key=lambda p: p.stat().st_mtime)
        entries = ((p.name, _read(p)) for p in folders if p.is_dir())
        return [(key, entry) for key, entry in entries if entry is not None]

    def find(self, prefix: str) -> tuple[str, Entry]:
        """The one finished step whose key starts with ``prefix``.

        Raises:
            UsageError: None or several do.
        """
        found = [(key, entry) for key, entry in self.list() if key.startswith(prefix)]
        if len(found) != 1:
            raise UsageError(
                f"{len(found)} store entries start with {prefix!r}",
                at=str(self.root),
                hint="edgekd cache list",
            )
        return found[0]

    def gc(self, days: float) -> tuple[int, int]:
        """Remove entries and leftovers unused for ``days``; return (entries, bytes) freed."""
        limit, count, freed = time.time() - days * 86400, 0, 0
        for part in ("objects", "partial"):
            for folder in list((self.root / part).iterdir()):
                if folder.stat().st_mtime < limit:
                    freed += sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
                    _drop(folder)
                    count += 1
        return count, freed


def why(first: Mapping[str, Any], second: Mapping[str, Any], at: str = "") -> str:
    """Name the first field in which two keys' makings differ; empty when they are equal."""
    for name in sorted({*first, *second}):
        place = f"{at}.{name}" if at else name
        if name not in first or name not in second:
            return f"{place}: only in the {'first' if name in first else 'second'}"
        a, b = first[name], second[name]
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            inner = why(a, b, place)
            if inner:
                return inner
        elif a != b:
            return f"{place}: {_brief(a)} → {_brief(b)}"
    return ""


def _brief(value: Any) -> str:
    """JSON, a digest by its first digits, as `plan` shows keys."""
    text = json.dumps(value)
    return f"{text[1:13]}…" if re.fullmatch(r'"[0-9a-f]{64}"', text) else text


class Digests:
    """Content digests of outside files, remembered by path, size, time and inode."""

    def __init__(self, root: Path) -> None:
        self._file = root / "digests.json"
        self._known: dict[str, list[Any]] = {}
        self._new = False
        with contextlib.suppress(OSError, ValueError):
            self._known = json.loads(self._file.read_text())

    def of(self, path: Path) -> str:
        """sha256 of a file, or of the names and contents of everything below a folder."""
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file())
            return digest([[str(p.relative_to(path)), self._of_file(p)] for p in inside])
        return self._of_file(path)

    def _of_file(self, path: Path) -> str:
        status = path.stat()
        mark = [status.st_size, status.st_mtime_ns, status.st_ino]
        known = self._known.get(str(path))
        if known is not None and known[:3] == mark:
            return str(known[3])
        value = sha256(path)
        self._known[str(path)] = [*mark, value]
        self._new = True
        return value

    def save(self) -> None:
        """Keep what was learnt; on a full disk it is learnt again next time."""
        if not self._new:
            return
        fresh = self._file.with_suffix(f".{os.getpid()}.tmp")
        try:
            fresh.write_text(json.dumps(self._known))
            fresh.replace(self._file)
        except OSError:
            fresh.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as file:
        value = hashlib.sha256()
        while block := file.read(1 << 20):
            value.update(block)
        return value.hexdigest()


def _clear(folder: Path) -> None:
    """Make an empty work folder, keeping what an interrupted attempt may resume from."""
    folder.mkdir(parents=True, exist_ok=True)
    for item in folder.iterdir():
        if item.name in KEPT:
            continue
        if item.is_dir():
            shutil.rmtree(item)
        else:
            item.unlink()


def _seal(
    folder: Path, facts: Mapping[str, Any], made_of: Mapping[str, Any], seconds: float
) -> None:
    (folder / "facts.json").write_text(json.dumps(facts, indent=1, sort_keys=True))
    files = {
        str(p.relative_to(folder)): [p.stat().st_size, sha256(p)]
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }
    entry = {"made_of": made_of, "files": files, "seconds": seconds}
    (folder / "entry.json").write_text(json.dumps(entry, indent=1, sort_keys=True))
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


Check = Callable[[Path, int, str], bool]


def _same(path: Path, size: int, digest: str) -> bool:
    return sha256(path) == digest


def _alike(path: Path, size: int, digest: str) -> bool:
    return path.stat().st_size == size and (size > SMALL or sha256(path) == digest)


def _unchecked(path: Path, size: int, digest: str) -> bool:
    return True


def _read(path: Path, check: Check = _unchecked) -> Entry | None:
    try:
        entry = json.loads((path / "entry.json").read_text())
        facts = json.loads((path / "facts.json").read_text())
        good = all(check(path / name, *mark) for name, mark in entry["files"].items())
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Entry(path, facts, entry["made_of"], entry["seconds"]) if good else None


def _drop(path: Path) -> None:
    """Remove a folder at once as seen from outside: rename first."""
    grave = path.with_name(f".{path.name}.{os.getpid()}.dropped")
    with contextlib.suppress(OSError):
        path.rename(grave)
        shutil.rmtree(grave, ignore_errors=True)


@contextlib.contextmanager
def _explained(step: str, root: Path) -> Iterator[None]:
    """Turn foreign exceptions of a step into errors that say where and what next."""
    try:
        yield
    except EdgekdError:
        raise
    except Exception as error:
        if _is_full(error):
            raise SetupError(
                f"the disk is full (step {step}); nothing half-written was kept",
                at=str(root),
                hint="edgekd cache gc --days 7, or set EDGEKD_STORE to another disk",
            ) from error
        if isinstance(error, OSError):
            text = f"step {step} failed: {error}"
            raise StageError(text, at=str(error.filename or root)) from error
        raise StageError(f"step {step} failed: {type(error).__name__}: {error}") from error


def _is_full(error: BaseException | None) -> bool:
    """Tell whether a full disk is behind an error; torch raises its own over the system's."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


def key_of(made_of: Mapping[str, Json]) -> str:
    """Key of a step."""
    return hashlib.sha256(canonical(made_of).encode()).hexdigest()
