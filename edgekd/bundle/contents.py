"""The files of a bundle, whether it is a folder or a ``.zip``, and the deterministic ``.zip``.

Nothing here trusts what it reads: a link, a device, a name that climbs out of the bundle, an
encrypted or doubled entry is refused by name and never opened.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from edgekd.errors import UsageError, VerifyError

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"

Opener = Callable[[str], IO[bytes]]
Judgement = Literal["same", "foreign", "changed"]

DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
    OverflowError,
)
"""What reading a damaged archive may raise; zipfile raises NotImplementedError for a compression
method or a version that it does not know, which is what a flipped byte in a header looks like."""

_BLOCK = 1 << 20
_SMALL = 64 << 20
_MARK = b"edgekd"
_FIRST_HEADER = 30
"""Length of an entry's fixed header; another program's first one differs from ours."""
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Contents:
    """The files of a bundle.

    Attributes:
        root: The folder or ``.zip``.
        names: Regular files, by names relative to the bundle, sorted.
        refused: What may not stand in a bundle, with the reason.
        opener: Opens one of ``names``.
        top: Folder in the ``.zip`` that holds the bundle; empty for none.
    """

    root: Path
    names: tuple[str, ...]
    refused: Mapping[str, str]
    opener: Opener
    top: str = ""

    def read(self, name: str) -> bytes:
        """Return a small file (manifest, sums) as a whole.

        Raises:
            ValueError: It is larger than any such file.
        """
        with self.opener(name) as file:
            raw = file.read(_SMALL + 1)
        if len(raw) > _SMALL:
            raise ValueError(f"{name} is larger than {_SMALL >> 20} MiB")
        return raw

    def sha256(self, name: str) -> str:
        """Return the digest of a file, in hex."""
        with self.opener(name) as file:
            return sha256_of(file)

    def size(self, name: str) -> int:
        """Return how many bytes a file has."""
        with self.opener(name) as file:
            return file.seek(0, 2)

    def copy(self, name: str, folder: Path) -> Path:
        """Write a file under ``folder`` and return where it lies."""
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with self.opener(name) as source, path.open("wb") as target:
            shutil.copyfileobj(source, target, _BLOCK)
        return path


def sha256_of(file: IO[bytes]) -> str:
    """Return the digest of an open file, read in blocks."""
    value = hashlib.sha256()
    while block := file.read(_BLOCK):
        value.update(block)
    return value.hexdigest()


@contextmanager
def opened(path: Path) -> Iterator[Contents]:
    """Open a folder or a ``.zip``.

    Raises:
        UsageError: There is no such file or folder, or it is neither.
        VerifyError: The archive is damaged so that it has no list of files.
    """
    if path.is_dir():
        yield _folder(path)
    elif path.is_file():
        with _archive(path) as archive:
            yield _entries(path, archive)
    else:
        raise UsageError("no such bundle", at=str(path), hint="edgekd compress makes one")


def _folder(root: Path) -> Contents:
    names, refused = [], {}
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = Path(folder, name)
            mode, relative = path.lstat().st_mode, path.relative_to(root).as_posix()
            if stat.S_ISREG(mode):
                names.append(relative)
            elif not stat.S_ISDIR(mode):
                refused[relative] = "a link" if stat.S_ISLNK(mode) else "not a regular file"
    return Contents(root, tuple(sorted(names)), refused, lambda name: (root / name).open("rb"))


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGE as error:
        with path.open("rb") as file:
            zipped = path.suffix == ".zip" or file.read(2) == b"PK"
        if not zipped:
            raise UsageError("neither a folder nor a .zip", at=str(path)) from error
        raise VerifyError(f"{path.name} is damaged: {error}", at=str(path)) from error
    with archive:
        yield archive


def _entries(path: Path, archive: zipfile.ZipFile) -> Contents:
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    top = _top([entry.filename for entry in entries])
    counts = Counter(entry.filename for entry in entries)
    by_name: dict[str, zipfile.ZipInfo] = {}
    refused = {}
    for entry in entries:
        name = entry.filename.removeprefix(top)
        why = "stands twice" if counts[entry.filename] > 1 else _refusal(entry)
        if why:
            refused[name] = why
        else:
            by_name[name] = entry
    names = tuple(sorted(by_name))
    return Contents(path, names, refused, lambda name: archive.open(by_name[name]), top)


def _top(names: list[str]) -> str:
    """Return the folder in the archive that holds the bundle, with its slash; empty for none."""
    if MANIFEST in names or SUMS in names:
        return ""
    tops = Counter(name.partition("/")[0] for name in names if "/" in name)
    return f"{tops.most_common(1)[0][0]}/" if tops else ""


def _refusal(entry: zipfile.ZipInfo) -> str | None:
    mode = entry.external_attr >> 16
    if climbs(entry.filename):
        return "its name leads out of the bundle"
    if stat.S_ISLNK(mode):
        return "a link"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "not a regular file"
    if entry.flag_bits & 1:
        return "encrypted"
    return None


def climbs(name: str) -> bool:
    """Tell whether a name is absolute, or has parts that lead elsewhere on any system."""
    parts = name.replace("\\", "/").split("/")
    return "\\" in name or ":" in name or "\0" in name or bool({"", ".", ".."} & set(parts))


def write_zip(folder: Path, names: list[str], top: str, file: IO[bytes]) -> None:
    """Write a ``.zip`` whose bytes depend on nothing but names and contents.

    Entries are sorted, stored uncompressed (compressors differ between machines) and carry no
    time and no owner.

    Args:
        folder: Where the files lie.
        names: Which of them, relative.
        top: Folder in the archive, with its slash.
        file: Written to.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.comment = _MARK
        for name in sorted(names):
            _write_entry(archive, f"{top}{name}", folder / name)


def _write_entry(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.create_system, entry.external_attr = 3, (stat.S_IFREG | 0o644) << 16
    entry.file_size = path.stat().st_size
    with path.open("rb") as source, archive.open(entry, "w") as target:
        shutil.copyfileobj(source, target, _BLOCK)


def judge_archive(contents: Contents, scratch: Path) -> tuple[Judgement, str]:
    """Compare a ``.zip`` with what edgekd writes for the same files.

    Checksums cover what the entries hold, not the archive's own fields; this covers the rest.

    Args:
        contents: Files of the archive, of proven digests.
        scratch: An empty folder to rebuild the archive in.

    Returns:
        ``same``, ``foreign`` (another program packed it, so its fields are free) or ``changed``,
        and where.
    """
    path, rebuilt = contents.root, scratch / "rebuilt.zip"
    for name in contents.names:
        contents.copy(name, scratch / "files")
    with rebuilt.open("wb") as file:
        write_zip(scratch / "files", list(contents.names), contents.top, file)
    with path.open("rb") as given, rebuilt.open("rb") as wanted:
        offset = _first_difference(given, wanted)
    if offset is None:
        return "same", ""
    same_size = path.stat().st_size == rebuilt.stat().st_size
    if not (same_size or _marked(path) or offset >= _FIRST_HEADER):
        return "foreign", "packed by another program"
    return "changed", f"byte {offset}, in {_part_at(path, offset)}, is not what was written"


def _marked(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return archive.comment == _MARK


def _first_difference(one: IO[bytes], other: IO[bytes]) -> int | None:
    offset = 0
    while True:
        first, second = one.read(_BLOCK), other.read(_BLOCK)
        if first != second:
            pairs = enumerate(zip(first, second, strict=False))
            near = (i for i, (a, b) in pairs if a != b)
            return offset + next(near, min(len(first), len(second)))
        if not first:
            return None
        offset += len(first)


def _part_at(path: Path, offset: int) -> str:
    """Name the part of a ``.zip`` that a byte belongs to: an entry's header, or the directory."""
    with zipfile.ZipFile(path) as archive:
        entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
        if offset >= archive.start_dir:
            return "the central directory"
    before = [entry.filename for entry in entries if entry.header_offset <= offset]
    return f"the header of {before[-1]}" if before else "the start"
