"""Take a network that is there as the student: where distilling is not attempted."""

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
        spec: ``facts`` of its training, ``undistilled``: why there is no other, ``step``.
        inputs: ``network``.
        out: Gets its files.
        emit: Progress.

    Returns:
        Its facts and ``undistilled``.
    """
    for name in (FILE, STATE, *open_artefact(inputs["network"]).files):
        shutil.copy(inputs["network"] / name, out / name)
    emit(Event("warning", spec["step"], spec["undistilled"]))
    return {**spec["facts"], "undistilled": spec["undistilled"]}
