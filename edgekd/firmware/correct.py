"""Bias correction: what quantised weights shift an output by on average is taken off its bias.

Rounded weights times inputs that hardly vary give an error that hardly varies: of a controller
whose network answers near zero it was seven times what noise remained. The last layer with weights
is corrected for all before it (Nagel et al., arXiv 1906.04721, have the idea for every layer).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.firmware import program as p
from edgekd.firmware.graph import Graph, Operator
from edgekd.firmware.lower import lower
from edgekd.firmware.reference import trace
from edgekd.firmware.tflite import read_tflite, replace_constant

__all__ = ["corrected"]

Real = NDArray[np.float64]
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def corrected(
    content: bytes, samples: Sequence[Sequence[NDArray[Any]]], truth: NDArray[Any]
) -> tuple[bytes, dict[str, Any]]:
    """Return a model whose last bias makes its mean output that of the float network.

    Args:
        content: The quantised ``.tflite``, constants inside.
        samples: Integers of the inputs.
        truth: What the float network gives for them: (samples, …).

    Returns:
        The model, which is the given one where nothing is gained, and ``samples``, ``before`` and
        ``after``: the largest mean error of a channel; or ``not_run`` with the reason.
    """
    graph = read_tflite(content)
    program = lower(graph)
    found = _last(graph, program)
    if isinstance(found, str):
        return content, {"not_run": found}
    operator, last, table = found
    error, slope = _errors(program, last, table, samples, truth)
    before = float(np.abs(error.mean(0)).max())
    facts = {"samples": len(samples), "before": before, "after": before}
    # Least squares: the change before the function that takes most of the error behind it.
    change = -(slope * error).sum(0) / np.maximum((slope**2).sum(0), 1e-12)
    weights = graph.tensors[operator.inputs[1]].quantization
    assert weights is not None
    units = graph.tensors[operator.inputs[0]].scale * np.array(weights.scales)
    bias = graph.tensors[operator.inputs[2]]
    assert bias.data is not None
    info = np.iinfo(bias.data.dtype)
    wanted = bias.data.astype(np.float64) + np.round(change / units)
    made = replace_constant(
        content, bias.index, np.clip(wanted, info.min, info.max).astype(bias.data.dtype)
    )
    error, _ = _errors(lower(read_tflite(made)), last, table, samples, truth)
    after = float(np.abs(error.mean(0)).max())
    if after >= before:
        return content, facts
    return made, {**facts, "after": after}


def _last(graph: Graph, program: p.Program) -> tuple[Operator, int, p.Lookup | None] | str:
    """Return the last operator with a bias, its value, and the function behind it, if any."""
    if len(program.outputs) != 1:
        return "the network has several outputs"
    makers = {step.output: step for step in program.steps}
    step = makers.get(program.outputs[0])
    table = step if isinstance(step, p.Lookup) else None
    if table is not None:
        step = makers.get(table.inputs[0])
    if not isinstance(step, p.Weighted):
        return "no layer with weights stands before the output"
    named = [
        operator
        for operator in graph.operators
        if operator.kind in _WEIGHTED and graph.tensors[operator.outputs[0]].name == step.layer
    ]
    if len(named) != 1 or len(named[0].inputs) < 3 or named[0].inputs[2] < 0:
        return f"layer {step.layer!r} has no bias"
    bias = graph.tensors[named[0].inputs[2]]
    uses = [o for o in graph.operators if bias.index in o.inputs]
    if bias.data is None or len(uses) > 1:
        return f"the bias of layer {step.layer!r} is computed or shared"
    return named[0], step.output, table


def _errors(
    program: p.Program,
    last: int,
    table: p.Lookup | None,
    samples: Sequence[Sequence[NDArray[Any]]],
    truth: NDArray[Any],
) -> tuple[Real, Real]:
    """Return errors of the output and slopes of the function before it: (rows, channels)."""
    channels = program.values[last].shape[-1]
    out = program.values[program.outputs[0]]
    errors, slopes = [], []
    for sample, wanted in zip(samples, truth, strict=True):
        values = trace(program, sample)
        real = (values[program.outputs[0]].astype(np.float64) - out.zero) * out.scale
        errors.append((real - np.asarray(wanted, np.float64).ravel()).reshape(-1, channels))
        slopes.append(_slope(program, last, table, values[last]).reshape(-1, channels))
    return np.concatenate(errors), np.concatenate(slopes)


def _slope(program: p.Program, last: int, table: p.Lookup | None, codes: NDArray[Any]) -> Real:
    """Return how much a change of the bias changes the output: 0 where the layer saturates."""
    info = np.iinfo(program.values[last].dtype)
    free = ((codes > info.min) & (codes < info.max)).astype(np.float64)
    if table is None:
        return free
    before, after = program.values[last], program.values[table.output]
    entries = table.table.astype(np.float64)
    if table.dtype == "int8":
        ordered = np.roll(entries, 128)  # by value, from −128 on
        steps, places = np.gradient(ordered), codes.astype(np.int64) + 128
    else:
        steps, places = np.diff(entries) / 128, 256 + (codes.astype(np.int64) >> 7)
    return np.asarray(free * steps[places] * after.scale / before.scale, np.float64)
