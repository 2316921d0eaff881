"""The agent as one file that any Python 3.10 with numpy can run."""

from __future__ import annotations

import zipfile
from pathlib import Path

import edgekd.agent

_SHEBANG = b"#!/usr/bin/env python3\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_FILE_MODE = 0o100644 << 16
_UNIX = 3
_START = "from edgekd.agent.__main__ import main\n\nraise SystemExit(main())\n"


def build_zipapp(out: Path) -> Path:
    """Write the agent as a zipapp; equal sources give equal bytes.

    The archive keeps the package's name, ``edgekd.agent``, so that a runtime of a third party
    can import `edgekd.agent.runtimes.session` on a board as it does here. Members are stored,
    not deflated: compressors differ from machine to machine.

    Args:
        out: The file to write; it appears complete or not at all.

    Returns:
        `out`.
    """
    partial = out.with_name(out.name + ".partial")
    with partial.open("wb") as stream:
        stream.write(_SHEBANG)
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            for name, text in sorted(_members().items()):
                archive.writestr(_member(name), text)
    partial.chmod(0o755)
    partial.replace(out)
    return out


def _members() -> dict[str, str]:
    root = Path(edgekd.agent.__file__).parent
    sources = {
        f"edgekd/agent/{path.relative_to(root).as_posix()}": path.read_text(encoding="utf-8")
        for path in root.rglob("*.py")
    }
    return {"__main__.py": _START, "edgekd/__init__.py": "", **sources}


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, _EPOCH)
    member.create_system = _UNIX
    member.external_attr = _FILE_MODE
    return member
