"""Build one candidate: a runtime, a precision, a policy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.artefact import Artefact, open_artefact
from edgekd.backends.base import Candidate, backend
from edgekd.events import Emit


def build(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, emit: Emit
) -> dict[str, Any]:
    """Quantise and convert the exported model for one runtime.

    Args:
        spec: ``candidate``.
        inputs: ``export``; and ``converted`` for a backend that starts from a ``.tflite``.
        out: Gets the artefact.
        emit: Progress.

    Returns:
        The backend's facts.
    """
    candidate = Candidate(**spec["candidate"])
    source = inputs["export"]
    calibration = dict(np.load(source / "calibration.npz"))
    model = source / "model.onnx"
    if "converted" in inputs:
        model = inputs["converted"] / "model.tflite"
    facts = backend(candidate.backend).build(model, candidate, calibration, out, emit)
    contract = open_artefact(source).input
    artefact = Artefact(
        out,
        facts["main"],
        facts["runtime"],
        facts["options"],
        contract,
        candidate.precision,
        tuple(facts["files"]),
        facts.get("proxy", {}),
    )
    artefact.save()
    return {"bytes": artefact.bytes, **facts}
