"""Convert the student to a float ``.tflite``, once for all candidates that start from one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

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
    place = out / "program.pt2"
    first = tuple(torch.from_numpy(values[:1]) for values in golden.values())
    torch.export.save(program(model, first), str(place))
    facts = to_tflite(place, golden, truth, name.removeprefix("output:"), out / MAIN)
    place.unlink()
    return facts


def program(model: nn.Module, first: tuple[Tensor, ...]) -> torch.export.ExportedProgram:
    """Return a network as the program that LiteRT's converter is given.

    Args:
        model: In evaluation mode.
        first: A batch of one for every input.
    """
    with torch.no_grad():
        traced = torch.export.export(model, first)
    spare_lone_softmax(traced)
    return traced


def spare_lone_softmax(traced: torch.export.ExportedProgram) -> None:
    """Take out attention over one token, in place: softmax of one value is 1.

    LiteRT's converter writes such a softmax as maximum, exponential and division in floating
    point, which no quantiser and no firmware can take; what weighs by 1 is what it weighs.
    """
    graph = traced.graph_module.graph
    for node in list(graph.nodes):
        if node.target is not torch.ops.aten.softmax.int:
            continue
        axis, shape = int(node.args[1]), node.meta["val"].shape
        if axis % len(shape) != len(shape) - 1 or shape[-1] != 1:
            continue
        for user in list(node.users):
            if user.target is not torch.ops.aten.matmul.default or user.args[0] is not node:
                continue
            weighed = user.args[1]
            if weighed.meta["val"].shape == user.meta["val"].shape:
                user.replace_all_uses_with(weighed)
                graph.erase_node(user)
    graph.eliminate_dead_code()
    traced.graph_module.recompile()
