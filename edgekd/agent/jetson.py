"""What a Jetson tells of itself: releases, power mode, what TensorRT it has.

Nothing here asks for rights: what only root may read is null.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from . import outside, trtexec
from .facts import version_of
from .faults import Fault

RELEASE = outside.at("/etc/nv_tegra_release")
CUDA = outside.at("/usr/local/cuda/version.json")
_MODE = re.compile(r"NV Power Mode:\s*(\S+)\s*\n\s*(\d+)")


def describe() -> dict[str, Any] | None:
    """Return a Jetson's own facts; None on any other machine."""
    release = _text(RELEASE)
    if release is None:
        return None
    mode = power_mode()
    return {
        "l4t": l4t(release),
        "jetpack": _package("nvidia-jetpack"),
        "cuda": _cuda(),
        "power_mode": mode[0] if mode else None,
        "power_mode_id": mode[1] if mode else None,
    }


def tools() -> dict[str, Any]:
    """Return where ``trtexec`` is and what it is, with the room there is to build an engine."""
    tool, fault = None, None
    try:
        tool = trtexec.find()
    except (Fault, OSError, subprocess.SubprocessError) as error:
        fault = str(error)
    disk = shutil.disk_usage(os.environ.get("TMPDIR", "/tmp"))
    found = {
        "trtexec": tool.path if tool else None,
        "trtexec_version": trtexec.shown(tool.version) if tool else None,
        "trtexec_fault": fault,
        "disk_free_mib": disk.free // 2**20,
        "memory_free_mib": memory_free_mib(),
        "root": os.geteuid() == 0,
        "tensorrt_package": _package_version("tensorrt"),
    }
    return found | outside.facts(found)


def l4t(release: str) -> str | None:
    """Read ``36.4.3`` from ``# R36 (release), REVISION: 4.3, …``."""
    found = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", release)
    return f"{found[1]}.{found[2]}" if found else None


def power_mode() -> tuple[str, int] | None:
    """Return name and number of the power mode; numbers differ from board to board."""
    said = outside.said("nvpmodel", "-q")
    return read_mode(said) if said else None


def read_mode(said: str) -> tuple[str, int] | None:
    """Read what ``nvpmodel -q`` prints, whatever warnings stand before."""
    found = _MODE.search(said)
    return (found[1], int(found[2])) if found else None


def memory_free_mib() -> int | None:
    """Return the memory that programs, and on a Jetson the GPU, may still have."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", _text(outside.at("/proc/meminfo")) or "")
    return int(found[1]) // 1024 if found else None


def _cuda() -> str | None:
    text = _text(CUDA)
    try:
        return str(json.loads(text or "{}")["cuda"]["version"])
    except (ValueError, KeyError, TypeError):
        return None


def _package_version(module: str) -> str | None:
    """Return the version of a Python package without importing it; ``unknown`` where it has none.

    Debian's python3-libnvinfer brings the module, and its own kind of metadata.
    """
    if importlib.util.find_spec(module) is None:
        return None
    return version_of(module) or "unknown"


def _package(name: str) -> str | None:
    said = outside.said("dpkg-query", "-W", "-f=${Version}", name)
    return said.strip() or None if said else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None
