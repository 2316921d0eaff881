"""Ask what the device's toolchain would refuse, before a device is asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekd.artefact import open_artefact
from edgekd.backends.base import Checking, backend
from edgekd.events import Emit, Event


def check(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, emit: Emit
) -> dict[str, Any]:
    """Lint one artefact for its target, and compile it by proxy where that can be done.

    Args:
        spec: ``backend``, ``runtime`` (range of versions on the device), ``opset``, ``step``.
        inputs: ``artefact``.
        out: Gets nothing.
        emit: Progress.

    Returns:
        What the backend's ``check`` says: ``status``, ``why``, ``findings`` and its own facts.
    """
    artefact = open_artefact(inputs["artefact"])
    toolchain = backend(spec["backend"])
    if not isinstance(toolchain, Checking):
        return {"status": "passed", "why": [], "findings": []}
    facts = toolchain.check(artefact.folder / artefact.main, spec["runtime"], spec["opset"])
    for sentence in facts["why"]:
        emit(Event("note", spec["step"], sentence))
    return facts
