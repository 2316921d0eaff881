"""Do the files hold what was written? Every changed, missing and added file, by name.

Two lists carry the digests: ``SHA256SUMS`` covers every file but itself, the manifest's ``files``
every file but those two. So each list tells on the other: a byte flipped in one of them leaves
the other one right, and it is that list which is named, not the files it speaks of.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgekd.bundle.contents import (
    DAMAGE,
    MANIFEST,
    SUMS,
    Contents,
    judge_archive,
    opened,
)
from edgekd.errors import VerifyError

Kind = Literal["changed", "missing", "added", "refused", "damaged"]

_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")
_FEW = 16


@dataclass(frozen=True)
class Fault:
    """One file that is not what was written.

    Attributes:
        file: Its name in the bundle, or the archive's own name.
        kind: What is wrong with it.
        detail: The same in words.
    """

    file: str
    kind: Kind
    detail: str

    def __str__(self) -> str:
        return f"{self.file}: {self.detail}"


@dataclass(frozen=True)
class Audit:
    """What hashing all files showed.

    Attributes:
        faults: All of them; empty when every file is as it was written.
        digest: sha256 of ``SHA256SUMS``, which pins every file; None when it cannot be read.
        files: How many files were hashed.
        note: What could not be checked.
    """

    faults: tuple[Fault, ...]
    digest: str | None
    files: int
    note: str = ""


def sums_text(digests: Mapping[str, str]) -> str:
    """Write digests the way ``sha256sum -c`` reads them, sorted by name."""
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))


def digest_of(sums: bytes) -> str:
    """Return a bundle's digest: the sha256 of its ``SHA256SUMS``."""
    return hashlib.sha256(sums).hexdigest()


def audit(path: Path) -> Audit:
    """Hash every file of a bundle and compare with both lists.

    Args:
        path: Folder or ``.zip``.

    Raises:
        UsageError: There is no bundle.
    """
    try:
        with opened(path) as contents:
            return _audit(contents)
    except VerifyError as error:
        return Audit((Fault(path.name, "damaged", error.what),), None, 0)


def _audit(contents: Contents) -> Audit:
    faults = [Fault(name, "refused", why) for name, why in contents.refused.items()]
    found, damaged = _hashed(contents)
    faults += damaged
    unreadable = {fault.file for fault in faults}
    raw = _lists(contents, found)
    lists, recorded = _weigh(raw, found)
    faults += [fault for fault in lists if fault.file not in unreadable]
    faults += [fault for fault in _compare(found, recorded) if fault.file not in unreadable]
    note = ""
    if not faults and contents.root.is_file():
        faults, note = _container(contents)
    digest = digest_of(raw[SUMS]) if SUMS in raw else None
    return Audit(tuple(sorted(faults, key=lambda f: f.file)), digest, len(found), note)


def _hashed(contents: Contents) -> tuple[dict[str, str], list[Fault]]:
    found, damaged = {}, []
    for name in contents.names:
        try:
            found[name] = contents.sha256(name)
        except DAMAGE as error:
            damaged.append(Fault(name, "damaged", f"cannot be read: {error}"))
    return found, damaged


def _lists(contents: Contents, found: Mapping[str, str]) -> dict[str, bytes]:
    """Read the two lists where they are; one too large to be a list counts as empty."""
    raw = {}
    for name in (MANIFEST, SUMS):
        if name in found:
            raw[name] = b""
            with suppress(*DAMAGE):
                raw[name] = contents.read(name)
    return raw


def _weigh(
    raw: Mapping[str, bytes], found: Mapping[str, str]
) -> tuple[list[Fault], Mapping[str, str]]:
    """Judge the two lists by one another.

    Args:
        raw: Content of the two, where they can be read.
        found: Digest of every file as it is.

    Returns:
        Faults of the lists themselves, and the digests that the other files are held against.
    """
    faults = [Fault(name, "missing", "missing") for name in (MANIFEST, SUMS) if name not in found]
    listed = _manifest_files(raw.get(MANIFEST, b""))
    sums = raw.get(SUMS, b"").decode("latin-1")
    by_sums = _parse(sums)
    if MANIFEST not in raw:
        return faults + _broken_lines(sums, SUMS in raw), _without(by_sums, MANIFEST)
    if SUMS not in raw:
        return faults, listed or {}
    if listed is not None:
        wanted = sums_text({**listed, MANIFEST: found[MANIFEST]})
        if wanted == sums:
            return faults, listed
        if by_sums.get(MANIFEST) == found[MANIFEST] or _alike(wanted, sums):
            return [
                *faults,
                Fault(SUMS, "changed", "changed: it differs from the manifest"),
            ], listed
    recorded = by_sums.get(MANIFEST)
    if recorded == found[MANIFEST]:
        return [*faults, Fault(MANIFEST, "damaged", "it lists no files")], _without(
            by_sums, MANIFEST
        )
    if recorded is None:
        lost = Fault(SUMS, "changed", f"changed: it does not list {MANIFEST}")
        return [*faults, lost], listed or _without(by_sums, MANIFEST)
    changed = Fault(MANIFEST, "changed", _mismatch(recorded, found[MANIFEST]))
    return [*faults, changed, *_broken_lines(sums, True)], _without(by_sums, MANIFEST)


def _compare(found: Mapping[str, str], recorded: Mapping[str, str]) -> list[Fault]:
    """Hold the files, the two lists left out, against recorded digests."""
    files = _without(_without(found, MANIFEST), SUMS)
    faults = [
        Fault(name, "changed", _mismatch(recorded[name], files[name]))
        for name in files
        if name in recorded and recorded[name] != files[name]
    ]
    faults += [Fault(name, "missing", "missing") for name in recorded if name not in files]
    return faults + [Fault(name, "added", _added(name)) for name in files if name not in recorded]


def _container(contents: Contents) -> tuple[list[Fault], str]:
    """Check the archive's own bytes, once its files are proven."""
    with tempfile.TemporaryDirectory(prefix="edgekd-") as scratch:
        judgement, where = judge_archive(contents, Path(scratch))
    if judgement == "changed":
        return [Fault(contents.root.name, "changed", f"changed: {where}")], ""
    return [], where


def _manifest_files(raw: bytes) -> dict[str, str] | None:
    try:
        value = json.loads(raw.decode())
        files = value["files"]
        return {str(name): str(digest) for name, digest in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _parse(sums: str) -> dict[str, str]:
    matches = (_LINE.fullmatch(line) for line in sums.split("\n"))
    return {match[2]: match[1] for match in matches if match}


def _broken_lines(sums: str, present: bool) -> list[Fault]:
    broken = sum(_LINE.fullmatch(line) is None for line in sums.rstrip("\n").split("\n"))
    if not present or not broken:
        return []
    return [Fault(SUMS, "changed", f"changed: {broken} of its lines are no digest and name")]


def _alike(one: str, other: str) -> bool:
    """Tell whether two texts differ in a few characters only.

    A changed manifest has a digest that differs everywhere; a flipped byte in ``SHA256SUMS``
    changes one character. So this tells which of the two was touched.
    """
    return len(one) == len(other) and sum(a != b for a, b in zip(one, other, strict=True)) <= _FEW


def _without(digests: Mapping[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in digests.items() if key != name}


def _mismatch(wanted: str, found: str) -> str:
    return f"changed: sha256 {wanted[:12]}… wanted, {found[:12]}… found"


def _added(name: str) -> str:
    if "__pycache__" in name:
        return "added: Python wrote it on import; delete it and run with python -B"
    return "added: no list has it"
