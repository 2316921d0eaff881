"""Take a network that is there as the student: where nothing is distilled, or trials chose it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekd.artefact import FILE, open_artefact
from edgekd.events import Emit, Event

STATE = "state.npz"


def keep(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, emit: Emit
) -> dict[str, Any]:
    """Copy a trained network and what ships beside it.

    Args:
        spec: ``facts`` of its training, ``step``; ``undistilled``: why it is the control;
            ``auto``: what was tried, where an objective was chosen.
        inputs: ``network``.
        out: Gets its files.
        emit: Progress.

    Returns:
        Its facts, ``undistilled`` and ``auto``.
    """
    for name in (FILE, STATE, *open_artefact(inputs["network"]).files):
        shutil.copy(inputs["network"] / name, out / name)
    told = {name: spec[name] for name in ("undistilled", "auto") if name in spec}
    if "undistilled" in told:
        emit(Event("warning", spec["step"], told["undistilled"]))
    elif "auto" in told:
        text = f"objective auto chose {told['auto']['chosen']}"
        emit(Event("note", spec["step"], text))
    return {**spec["facts"], **told}
