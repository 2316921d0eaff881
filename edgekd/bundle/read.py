"""Open a bundle, whatever version of edgekd wrote it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.bundle.contents import DAMAGE, MANIFEST, SUMS, Contents, opened
from edgekd.bundle.integrity import digest_of
from edgekd.bundle.manifest import parse
from edgekd.errors import UsageError, VerifyError


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk.

    Attributes:
        path: Its folder.
        manifest: Its manifest, lifted to the current schema version.
        digest: sha256 of its ``SHA256SUMS``, as ``sha256sum SHA256SUMS`` prints it; since that
            file lists every other one, the digest pins the whole bundle. Empty without the file.
    """

    path: Path
    manifest: Mapping[str, Any]
    digest: str


@contextmanager
def open_bundle(path: Path | str) -> Iterator[Bundle]:
    """Open a folder, or a ``.zip``, which is unpacked for as long.

    Manifest and sums are read and not checked; `edgekd.verify.verify` does that.

    Raises:
        UsageError: There is no bundle.
        VerifyError: Its manifest cannot be read, a newer edgekd wrote it, or its archive holds
            what may not stand in a bundle.
    """
    path = Path(path)
    with opened(path) as contents:
        bundle = _bundle(contents, path)
        if path.is_dir():
            yield bundle
            return
        with tempfile.TemporaryDirectory(prefix="edgekd-bundle-") as scratch:
            _unpack(contents, Path(scratch))
            yield Bundle(Path(scratch), bundle.manifest, bundle.digest)


def read_manifest(path: Path | str) -> dict[str, Any]:
    """Read the manifest alone; a ``.zip`` is not unpacked. Raises as `open_bundle`."""
    with opened(Path(path)) as contents:
        return _manifest(contents)


def _bundle(contents: Contents, folder: Path) -> Bundle:
    sums = _read(contents, SUMS) if SUMS in contents.names else None
    digest = "" if sums is None else digest_of(sums)
    return Bundle(folder, _manifest(contents), digest)


def _manifest(contents: Contents) -> dict[str, Any]:
    if MANIFEST not in contents.names:
        raise UsageError(
            f"no bundle: it has no {MANIFEST}",
            at=str(contents.root),
            hint="give the folder or .zip that edgekd compress wrote",
        )
    return parse(_read(contents, MANIFEST), str(contents.root))


def _read(contents: Contents, name: str) -> bytes:
    try:
        return contents.read(name)
    except DAMAGE as error:
        raise VerifyError(f"{name} is damaged: {error}", at=str(contents.root)) from error


def _unpack(contents: Contents, folder: Path) -> None:
    if contents.refused:
        listed = "\n  ".join(f"{name}: {why}" for name, why in contents.refused.items())
        raise VerifyError(f"refused to unpack:\n  {listed}", at=str(contents.root))
    for name in contents.names:
        try:
            contents.copy(name, folder)
        except DAMAGE as error:
            raise VerifyError(f"{name} is damaged: {error}", at=str(contents.root)) from error
