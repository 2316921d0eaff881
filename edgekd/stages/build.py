"""Build one candidate: a runtime, a precision, a policy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.artefact import Artefact, open_artefact
from edgekd.backends.base import Candidate, backend
from edgekd.errors import StageError
from edgekd.events import Emit


def build(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, emit: Emit
) -> dict[str, Any]:
    """Quantise and convert the exported model for one runtime.

    Args:
        spec: ``candidate``.
        inputs: ``export``; ``calibrate`` where the candidate wants the prepared model;
            ``converted`` for a backend that starts from a ``.tflite``.
        out: Gets the artefact.
        emit: Progress.

    Returns:
        The backend's facts.

    Raises:
        StageError: The backend fails, or the policy finds nothing to quantise: the float artefact
            by another name must not stand in a table of quantised ones.
    """
    candidate = Candidate(**spec["candidate"])
    source = inputs["export"]
    calibration = dict(np.load(source / "calibration.npz"))
    model = inputs.get("calibrate", source) / "model.onnx"
    if "converted" in inputs:
        model = inputs["converted"] / "model.tflite"
    facts = backend(candidate.backend).build(model, candidate, calibration, out, emit)
    if candidate.precision.startswith("int") and not facts.get("quantised_ops", True):
        raise StageError(f"{candidate.id} quantises no operator of this network")
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


def again(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, emit: Emit
) -> dict[str, Any]:
    """Take the files of another candidate, to be run with other options.

    Args:
        spec: ``candidate``.
        inputs: ``artefact``: the build of the other.
        out: Gets the artefact.
        emit: Progress.

    Returns:
        The other's facts with this one's options and precision.
    """
    candidate = Candidate(**spec["candidate"])
    source = inputs["artefact"]
    other = open_artefact(source)
    for name in other.files:
        shutil.copyfile(source / name, out / name)
    artefact = replace(other, folder=out, options=candidate.options, precision=candidate.precision)
    artefact.save()
    facts: dict[str, Any] = json.loads((source / "facts.json").read_text())
    return facts | {
        "options": dict(candidate.options),
        "precision": candidate.precision,
        "same_as": candidate.same_as,
    }
