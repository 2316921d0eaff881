"""What ``--on`` names: this machine, a board behind ssh, or a device of the user's list.

``local`` is this machine, ``ssh:HOST`` anything that ``ssh HOST`` reaches, ``replay:FOLDER`` the
recording of a board (see `edgekd.agent.outside`), which measures nothing and says so, and any other
name an entry of ``~/.config/edgekd/devices.yaml``::

    orin: {target: jetson, reach: ssh:orin.lab}
    pi:   {target: pi5, reach: ssh:pi, python: ~/edge/bin/python}
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.errors import UsageError, did_you_mean

__all__ = ["Reach", "devices_file", "reach"]

_KEYS = {"target", "reach", "python"}


@dataclass(frozen=True)
class Reach:
    """Where a device is.

    Attributes:
        name: As it was asked for.
        host: What ssh is given; None for this machine.
        python: Interpreter on the device.
        target: Target that the user's list names for it.
        recording: Folder of a recorded device that is played on this machine.
    """

    name: str
    host: str | None = None
    python: str = "python3"
    target: str | None = None
    recording: Path | None = None

    @property
    def local(self) -> bool:
        """Whether it is this machine."""
        return self.host is None and self.recording is None


def devices_file() -> Path:
    """Return where the user's list of devices is."""
    config = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(config).expanduser() / "edgekd" / "devices.yaml"


def reach(on: str) -> Reach:
    """Find a device.

    Raises:
        UsageError: It is neither ``local`` nor ``ssh:HOST`` nor ``replay:FOLDER`` nor in the user's
            list, or that list is wrong.
    """
    if on == "local":
        return Reach(on)
    if on.startswith("replay:"):
        return Reach(on, recording=_recording(Path(on.removeprefix("replay:"))))
    if on.startswith("ssh:"):
        return Reach(on, host=_host(on.removeprefix("ssh:"), "--on"))
    listed = _devices()
    if on not in listed:
        known = ("local", "ssh:HOST", *listed)
        raise UsageError(
            f"no device is called {on!r}",
            at="--on",
            hint=f"{did_you_mean(on, known)}; names come from {devices_file()}",
        )
    entry, at = listed[on], f"{devices_file()}: {on}"
    where = str(entry.get("reach", f"ssh:{on}"))
    if where == "local":
        return Reach(on, target=entry.get("target"))
    if not where.startswith("ssh:"):
        raise UsageError(f"reach is local or ssh:HOST, got {where!r}", at=at)
    python = str(entry.get("python", "python3"))
    return Reach(on, _host(where.removeprefix("ssh:"), at), python, entry.get("target"))


def _recording(folder: Path) -> Path:
    if not (folder / "device.json").is_file():
        raise UsageError(
            f"{str(folder)!r} is no recording of a device: it has no device.json",
            at="--on",
            hint="--on replay:FOLDER",
        )
    return folder.resolve()


def _host(text: str, at: str) -> str:
    """Refuse what ssh would take for an option."""
    if not re.fullmatch(r"[\w@.:%\[\]-]+", text) or text.startswith("-"):
        raise UsageError(f"{text!r} is no host", at=at, hint="--on ssh:NAME, as in ssh NAME")
    return text


def _devices() -> dict[str, Mapping[str, Any]]:
    import yaml

    path = devices_file()
    if not path.is_file():
        return {}
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read the list of devices: {error}", at=str(path)) from error
    if not isinstance(value, dict) or not all(isinstance(v, dict) for v in value.values()):
        raise UsageError("a list of devices maps names to mappings", at=str(path))
    for name, entry in value.items():
        strange = sorted(set(entry) - _KEYS)
        if strange:
            raise UsageError(
                f"unknown key {strange[0]!r}",
                at=f"{path}: {name}",
                hint=did_you_mean(strange[0], _KEYS),
            )
    return {str(name): entry for name, entry in value.items()}
