"""Export the student to ONNX, with golden outputs and calibration samples beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekd.artefact import Artefact
from edgekd.backends.torch_eager import load_network
from edgekd.calls import invoke
from edgekd.data.show import describe, examples, keep_notices, save_examples
from edgekd.distill.views import Prepare, as_tensor
from edgekd.events import Emit
from edgekd.graph.export import export_onnx
from edgekd.inputs import prepare, save_arrays
from edgekd.models.shipped import shipped
from edgekd.quant.calibrate import calibration_indices, check_calibration
from edgekd.spec import Call, Input, plain, rebuild
from edgekd.tasks.base import labels_of

GOLDEN = 32
"""Samples whose outputs travel with the bundle."""


def export(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, emit: Emit
) -> dict[str, Any]:
    """Export a trained network.

    Args:
        spec: ``input``, ``output``, ``data``, ``quantize``, ``opset``, ``seed``, ``base``.
        inputs: ``network``: a trained one.
        out: Gets ``model.onnx``, ``golden.npz`` (inputs of validation samples and what torch
            makes of them), ``calibration.npz``, and for the report ``examples.npz`` (pictures of
            test classes) and the data's licence texts under ``notices``.
        emit: Progress.

    Returns:
        The exporter's facts, and ``data``: what the loader tells about it.

    Raises:
        StageError: A pass changed what the network computes; it is named.
    """
    base, contract = Path(spec["base"]), rebuild(Input, spec["input"])
    model = shipped(load_network(inputs["network"], base)[0])
    data = invoke(Call(**spec["data"]), base)
    wanted = plain(contract)
    rows = calibration_indices(labels_of(data.val), GOLDEN, spec["seed"])
    raw = _stack(data.val, rows)
    floats = Prepare(contract)(as_tensor(raw)).contiguous()
    name = spec["output"]
    facts = export_onnx(
        model,
        contract,
        out / "model.onnx",
        samples=floats,
        output_name=name,
        opset=spec["opset"],
    )
    with torch.inference_mode():
        truth = model(floats).float().numpy()
    golden = {contract.name: prepare(raw, wanted), f"output:{name}": truth}
    save_arrays(out / "golden.npz", golden)
    chosen = calibration_indices(labels_of(data.train), spec["quantize"]["samples"], spec["seed"])
    feeds = {contract.name: prepare(_stack(data.train, chosen), wanted)}
    check_calibration(feeds, facts["io"]["inputs"])
    save_arrays(out / "calibration.npz", feeds)
    Artefact(out, "model.onnx", "onnxruntime", {}, wanted, "fp32", ("model.onnx",)).save()
    save_examples(examples(data.test), out / "examples.npz")
    return facts | {"data": describe(data) | {"notices": keep_notices(data, out / "notices")}}


def _stack(dataset: Any, rows: Any) -> Any:
    take = getattr(dataset, "take", None)
    if take is not None:
        return take(rows)
    return np.stack([np.asarray(dataset[int(i)][0]) for i in rows])
