"""Write a bundle: whole or not at all, and never over something that edgekd did not write.

Everything is built in a hidden folder beside the target, checked, synced and renamed. An older
bundle of ours is exchanged in one step where the system can (Linux), else by two renames.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgekd.bundle import manifest as manifests
from edgekd.bundle import texts
from edgekd.bundle.contents import DAMAGE, MANIFEST, SUMS, opened, sha256_of, write_zip
from edgekd.bundle.integrity import audit, sums_text
from edgekd.bundle.read import Bundle, open_bundle, read_manifest
from edgekd.errors import EdgekdError, SetupError, StageError, UsageError, VerifyError
from edgekd.spec import finite, plain

Source = Path | bytes

NOTICES = "THIRD_PARTY_NOTICES.md"
README = "README.md"

_EXCHANGE = 2
_AT_FDCWD = -100
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LASTING = ("measured", "files")


def write_bundle(manifest: Mapping[str, Any], files: Mapping[str, Source], out: Path) -> Bundle:
    """Write a bundle as a folder, and a ``.zip`` of it beside the folder.

    Args:
        manifest: The manifest of the current version; ``files`` is filled in here.
        files: Name in the bundle → file to copy, or its content. ``README.md`` and
            ``THIRD_PARTY_NOTICES.md`` are written here unless they are among them.
        out: The folder; the archive is ``out`` with ``.zip`` appended.

    Raises:
        UsageError: ``out`` holds something that edgekd did not write.
        SetupError: The disk is full or not writable; nothing half-written is left.
        StageError: A name cannot stand in a bundle, a file is absent, or the manifest is wrong.
    """
    _check_names(files)
    whole = {**finite(plain(manifest)), "schema_version": manifests.SCHEMA_VERSION}

    def fill(folder: Path) -> None:
        digests = {name: _put(source, folder / name) for name, source in files.items()}
        _check_manifest({**whole, "files": digests}, out)
        for name, text in _own_texts(whole, files).items():
            digests[name] = _put(text.encode(), folder / name)
        raw = manifests.render({**whole, "files": digests}).encode()
        sums = sums_text({**digests, MANIFEST: _put(raw, folder / MANIFEST)})
        _put(sums.encode(), folder / SUMS)

    return _publish(out, str(whole["name"]), fill)


def place_bundle(source: Path, out: Path) -> Bundle:
    """Copy a bundle, byte for byte, with the guarantees of `write_bundle`.

    Args:
        source: Folder or ``.zip``.
        out: Folder to write.

    Raises:
        VerifyError: The source is not as it was written.
        UsageError: ``out`` holds something that edgekd did not write.
        SetupError: The disk is full or not writable.
    """
    found = audit(source)
    if found.faults:
        listed = "\n  ".join(map(str, found.faults))
        raise VerifyError(f"the bundle is not as it was written:\n  {listed}", at=str(source))

    def fill(folder: Path) -> None:
        with opened(source) as contents:
            for name in contents.names:
                contents.copy(name, folder)

    return _publish(out, str(read_manifest(source)["name"]), fill)


def check_place(out: Path) -> None:
    """Refuse, before any work, a place that cannot take a bundle.

    Raises:
        UsageError: Something that edgekd did not write lies there.
        SetupError: It cannot be written.
    """
    out = _absolute(out)
    with _explained(out):
        _refuse_foreign(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass


def unchanged(manifest: Mapping[str, Any], out: Path) -> Bundle | None:
    """Return the bundle at ``out`` when it is whole and says the same, but for times and machine.

    Args:
        manifest: What would be written.
        out: Where.
    """
    if not (out / MANIFEST).is_file() or not zip_beside(out).is_file():
        return None
    try:
        with open_bundle(out) as bundle:
            there = bundle
    except EdgekdError:
        return None
    same = _lasting(there.manifest) == _lasting(finite(plain(manifest)))
    return there if same and not audit(out).faults else None


def zip_beside(out: Path) -> Path:
    """Return where the archive of a bundle's folder stands."""
    return out.with_name(f"{out.name}.zip")


def _publish(out: Path, top: str, fill: Callable[[Path], None]) -> Bundle:
    """Build a folder and its archive out of sight, then put both in place."""
    place = _absolute(out)
    check_place(place)
    with _explained(place), _workshop(place) as workshop:
        folder, archive = workshop / "bundle", workshop / "bundle.zip"
        folder.mkdir()
        fill(folder)
        with archive.open("wb") as file:
            write_zip(folder, _names(folder), f"{top}/", file)
        _sync(workshop)
        _swap(folder, place)
        archive.replace(zip_beside(place))
        _sync_one(place.parent)
    with open_bundle(out) as bundle:
        return bundle


@contextmanager
def _workshop(out: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _refuse_foreign(out: Path) -> None:
    """Stop when ``out`` or its archive is not a bundle, or holds files that no bundle lists."""
    if out.is_dir() and not out.is_symlink():
        strange = _strangers(out)
    else:
        strange = [out.name] if os.path.lexists(out) else []
    archive = zip_beside(out)
    if os.path.lexists(archive) and (archive.is_dir() or _listed(archive) is None):
        strange.append(archive.name)
    if strange:
        shown = ", ".join(strange[:5]) + (" …" if len(strange) > 5 else "")
        raise UsageError(
            f"edgekd did not write what is there: {shown}",
            at=str(out),
            hint="give another --out, or move that away yourself",
        )


def _strangers(out: Path) -> list[str]:
    """Name what stands in a folder without being listed by a manifest of ours."""
    there = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if not _is_folder(p))
    listed = _listed(out)
    if listed is None:
        return there
    known = {*listed, MANIFEST, SUMS}
    return [name for name in there if name not in known and "__pycache__" not in name]


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _listed(path: Path) -> set[str] | None:
    """Return the files that a bundle of ours lists, of whatever version; None for all else."""
    try:
        return set(read_manifest(path)["files"])
    except (EdgekdError, KeyError, TypeError, *DAMAGE):
        return None


def _own_texts(manifest: Mapping[str, Any], files: Mapping[str, Source]) -> dict[str, str]:
    """Return the texts that edgekd writes itself, as far as they are not given."""
    names = {*files, README, NOTICES}
    own = {README: texts.readme(manifest, names), NOTICES: texts.notices(manifest)}
    return {name: text for name, text in own.items() if name not in files}


def _check_names(files: Mapping[str, Source]) -> None:
    reserved = {MANIFEST, SUMS}
    bad = sorted(n for n in files if n in reserved or not manifests.safe_name(n))
    if bad:
        raise StageError(f"no names for a bundle's files: {', '.join(map(repr, bad))}")
    absent = sorted(str(p) for p in files.values() if isinstance(p, Path) and not p.is_file())
    if absent:
        raise StageError(f"files for the bundle are absent: {', '.join(absent)}")


def _check_manifest(manifest: Mapping[str, Any], out: Path) -> None:
    wrong = manifests.faults(manifest)
    if wrong:
        raise StageError("the manifest is wrong:\n  " + "\n  ".join(wrong), at=str(out))


def _lasting(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in manifest.items() if key not in _LASTING}


def _put(source: Source, target: Path) -> str:
    """Write one file and return its digest."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, bytes):
        target.write_bytes(source)
        return hashlib.sha256(source).hexdigest()
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        return sha256_of(file)


def _names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def _absolute(out: Path) -> Path:
    """Return an absolute path without following a link in its last part."""
    return out.parent.resolve() / out.name if out.name else out.resolve()


def _sync(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        _sync_one(path)


def _sync_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _swap(fresh: Path, out: Path) -> None:
    """Put a folder in place of ``out``; what stood there takes the fresh one's place."""
    if not out.exists():
        fresh.rename(out)
    elif not _exchange(fresh, out):
        old = fresh.with_name("old")
        out.rename(old)
        try:
            fresh.rename(out)
        except OSError:
            old.rename(out)
            raise


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step; False where the system cannot."""
    with contextlib.suppress(AttributeError, OSError):
        rename = ctypes.CDLL(None, use_errno=True).renameat2
        arguments = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE)
        return bool(rename(*arguments) == 0)
    return False


@contextmanager
def _explained(out: Path) -> Iterator[None]:
    """Turn what the file system refuses into an error that says what to do next."""
    try:
        yield
    except OSError as error:
        full = error.errno in _FULL
        reason = "the disk is full" if full else f"cannot write: {error.strerror or error}"
        raise SetupError(
            f"{reason}; no bundle was written, nothing half-written was left",
            at=str(error.filename or out),
            hint="free some space" if full else "give an --out that you may write",
        ) from error
