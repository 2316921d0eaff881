"""Files of results: JSON lines that are whole or not there, whenever the power goes.

A record is one line. It counts once its line break is on the disk; bytes after the last line
break are a record that was never finished: readers pass over them and the next writer removes
them. So a file cut off anywhere reads as the records before the cut.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgekd.errors import SetupError, UsageError

Record = dict[str, Any]

SCHEMA = 1
_ATTRIBUTES = "*.jsonl merge=union\n"


def append(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Add records to a file, made when it is missing; several writers take turns.

    Raises:
        SetupError: The file cannot be written.
    """
    text = "".join(_line(record) for record in records)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path) as handle:
            end = os.lseek(handle, 0, os.SEEK_END)
            whole = _whole(handle, end)
            if whole < end:
                os.ftruncate(handle, whole)
            _write(handle, text.encode(), whole)
    except OSError as error:
        raise SetupError(f"cannot write results: {error.strerror}", at=str(path)) from error


def _line(record: Mapping[str, Any]) -> str:
    text = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"{text}\n"


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)


def _whole(handle: int, end: int) -> int:
    """Return how many bytes end with a line break."""
    step = 65536
    while end > 0:
        start = max(0, end - step)
        found = os.pread(handle, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _write(handle: int, data: bytes, at: int) -> None:
    """Write and sync; on failure take the unfinished part back."""
    try:
        done = 0
        while done < len(data):
            done += os.pwrite(handle, data[done:], at + done)
        os.fsync(handle)
    except OSError:
        os.ftruncate(handle, at)
        raise


def read(path: Path) -> list[Record]:
    """Return the records of a file; an unfinished last one is not among them.

    Raises:
        UsageError: There is no such file, or a line that was finished holds no record.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read results: {error.strerror}", at=str(path)) from error
    whole = data[: data.rfind(b"\n") + 1]
    records = []
    for number, line in enumerate(whole.split(b"\n")[:-1], 1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise UsageError(
                "this line is no record; something other than edgekd wrote to the file",
                at=f"{path}:{number}",
                hint="restore the file from version control, or remove the line",
            )
        records.append(record)
    return records


def place(folder: Path, record: Mapping[str, Any]) -> Path:
    """Return the file of a history folder that a record belongs in."""
    return folder / slug(str(record["device"])) / f"{slug(str(record['name']))}.jsonl"


def slug(text: str) -> str:
    """Return a plain file name."""
    return re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-.") or "unnamed"


def remember(folder: Path, record: Mapping[str, Any]) -> Path:
    """Add a run's summary of one bundle to a history folder; return the file.

    Args:
        folder: Made when missing, with a ``.gitattributes`` that lets branches merge.
        record: With ``device`` and ``name``, and ``path`` of the bundle, which is kept relative to
            the folder; see `edgekd.bench.record.summary`.
    """
    path = place(folder, record)
    row = {"schema": SCHEMA, **record}
    if "path" in row:
        row["path"] = os.path.relpath(row["path"], folder)
    append(path, [row])
    attributes = folder / ".gitattributes"
    if not attributes.exists():
        attributes.write_text(_ATTRIBUTES)
    return path


def recall(folder: Path) -> list[Record]:
    """Return every record of a history folder, by time.

    Raises:
        UsageError: There is no such folder, or a file in it is damaged.
    """
    if not folder.is_dir():
        raise UsageError(
            "there is no history here", at=str(folder), hint="edgekd bench --history DIR makes one"
        )
    records = [record for path in sorted(folder.glob("*/*.jsonl")) for record in read(path)]
    for record in records:
        if "path" in record:
            record["path"] = os.path.normpath(folder.absolute() / record["path"])
    return sorted(records, key=lambda record: str(record.get("when", "")))
