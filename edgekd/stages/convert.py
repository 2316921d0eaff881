"""Convert the student to a float ``.tflite``, once for all candidates that start from one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekd.backends.litert import MAIN
from edgekd.backends.litert import convert as to_tflite
from edgekd.backends.torch_eager import load_network
from edgekd.events import Emit, Event
from edgekd.graph.export import BytesInput
from edgekd.models.shipped import shipped
from edgekd.spec import Input, rebuild


def convert(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, emit: Emit
) -> dict[str, Any]:
    """Convert a trained network.

    Args:
        spec: ``input``, ``base``, ``step``.
        inputs: ``network``: a trained one; ``export``: its golden inputs and outputs.
        out: Gets ``model.tflite``.
        emit: Progress.

    Returns:
        The converter's facts, and the error against torch.

    Raises:
        SetupError: LiteRT's environment is missing.
        StageError: The network cannot be converted.
    """
    model = shipped(load_network(inputs["network"], Path(spec["base"]))[0])
    contract = rebuild(Input, spec["input"])
    if contract.form == "uint8_nhwc":
        model = BytesInput(model, contract.mean, contract.std).eval()
    golden = dict(np.load(inputs["export"] / "golden.npz"))
    name = next(n for n in golden if n.startswith("output:"))
    truth = golden.pop(name)
    emit(Event("progress", spec["step"], "torch to .tflite"))
    program = out / "program.pt2"
    first = tuple(torch.from_numpy(values[:1]) for values in golden.values())
    with torch.no_grad():
        torch.export.save(torch.export.export(model, first), str(program))
    facts = to_tflite(program, golden, truth, name.removeprefix("output:"), out / MAIN)
    program.unlink()
    return facts
