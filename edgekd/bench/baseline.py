"""Which bundle the next one is held against: a small file under version control.

    {"schema": 1, "bundle": "../bundles/mobilevit-cpu", "digest": "ab12…",
     "accepted": [{"digest": "ab12…", "reason": "new teacher", "when": "…", "previous": null}]}

The file names a bundle by path and pins it by digest. Moving it takes a reason, which stays.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgekd.bundle import Bundle, open_bundle
from edgekd.errors import SetupError, UsageError, VerifyError

SCHEMA = 1


def is_pointer(path: Path) -> bool:
    """Tell whether a path is such a file, or is to become one, rather than a bundle."""
    return path.suffix == ".json" and not path.is_dir()


def resolve(path: Path) -> Path:
    """Return the bundle that ``--baseline`` names, itself or through a file.

    Raises:
        UsageError: The file cannot be read.
        VerifyError: The bundle is not the one that was accepted.
    """
    if not is_pointer(path):
        return path
    value = _read(path)
    bundle = path.parent / str(value["bundle"])
    with open_bundle(bundle) as opened:
        if opened.digest != value["digest"]:
            raise VerifyError(
                f"the baseline was accepted with digest {value['digest']}, "
                f"this bundle has {opened.digest}",
                at=str(bundle),
                hint="bring the accepted bundle back, or accept this one with --accept REASON",
            )
    return bundle


def accept(path: Path, bundle: Bundle, place: Path, reason: str, checks: list[Any]) -> None:
    """Make a bundle the baseline, and keep why.

    Args:
        path: The baseline's file; made when missing.
        bundle: The bundle, opened.
        place: Its folder or zip.
        reason: Why; must not be blank.
        checks: The verdicts that were accepted.

    Raises:
        UsageError: There is no reason, or ``path`` is no such file.
    """
    if not reason.strip():
        raise UsageError("a baseline is not moved without a reason", at="--accept")
    if not is_pointer(path):
        raise UsageError(
            f"--accept moves a baseline file, and {path} is a bundle",
            at="--baseline",
            hint=f"--baseline {path.name}.baseline.json",
        )
    value = _read(path) if path.exists() else {"accepted": [], "digest": None}
    entry = {
        "digest": bundle.digest,
        "reason": reason.strip(),
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "previous": value["digest"],
        "checks": checks,
    }
    fresh = {
        "schema": SCHEMA,
        "bundle": os.path.relpath(place.absolute(), path.absolute().parent),
        "digest": bundle.digest,
        "accepted": [*value["accepted"], entry],
    }
    _write(path, fresh)


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        hint = "edgekd gate BUNDLE --baseline FILE.json --accept REASON makes one"
        what = f"cannot read the baseline: {error.strerror}"
        raise UsageError(what, at=str(path), hint=hint) from error
    except ValueError as error:
        raise UsageError(f"the baseline is not JSON: {error}", at=str(path)) from error
    wanted = {"schema": int, "bundle": str, "digest": str, "accepted": list}
    for key, kind in wanted.items():
        if not isinstance(value, dict) or not isinstance(value.get(key), kind):
            raise UsageError(f"a baseline needs {key!r} as {kind.__name__}", at=str(path))
    if value["schema"] > SCHEMA:
        raise UsageError(f"a newer edgekd wrote this (schema {value['schema']})", at=str(path))
    return dict(value)


def _write(path: Path, value: Mapping[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())
        partial.replace(path)
    except OSError as error:
        raise SetupError(f"cannot write the baseline: {error.strerror}", at=str(path)) from error
