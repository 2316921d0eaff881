"""One ONNX model in this process, for checks between passes.

What ships is measured through the agent, never through this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.agent import quiet
from edgekd.errors import StageError
from edgekd.extras import missing

__all__ = ["open_session", "run", "run_first"]


def open_session(model: bytes | Path, *, threads: int = 1, optimise: bool = True) -> Any:
    """Open a model with ONNX Runtime on the CPU, its telemetry off.

    Args:
        model: The serialised model, or its file.
        threads: Threads of one operator.
        optimise: Whether ONNX Runtime may rewrite the graph.

    Raises:
        SetupError: ONNX Runtime is not installed.
        StageError: ONNX Runtime refuses the model.
    """
    try:
        ort = quiet.import_onnxruntime()
    except ModuleNotFoundError as error:
        raise missing("onnxruntime", "running an ONNX model") from error
    settings = ort.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads = threads, 1
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.log_severity_level = 3
    if not optimise:
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = model if isinstance(model, bytes) else str(model)
    try:
        return ort.InferenceSession(source, settings, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise StageError(f"ONNX Runtime refuses the model: {' '.join(str(error).split())}") from error


def run(
    session: Any, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
) -> list[NDArray[Any]]:
    """Run one batch and return the outputs.

    Raises:
        StageError: The model fails on these inputs.
    """
    try:
        results: list[NDArray[Any]] = session.run(outputs, dict(feeds))
    except Exception as error:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in feeds.items())
        reason = " ".join(str(error).split())
        raise StageError(f"ONNX Runtime fails on {shapes}: {reason}") from error
    return results


def run_first(session: Any, feeds: Mapping[str, NDArray[Any]], batch: int) -> NDArray[Any]:
    """Run all samples, ``batch`` at a time, and return the first output (samples, …).

    A model with a fixed batch keeps its own; the last batch is filled up with its last sample.
    """
    size = fixed_batch(session) or batch
    count = min(len(array) for array in feeds.values())
    parts = []
    for start in range(0, count, size):
        left = min(size, count - start)
        full = {name: _fill(array[start : start + left], size) for name, array in feeds.items()}
        wanted = full if fixed_batch(session) else {n: a[:left] for n, a in full.items()}
        parts.append(run(session, wanted)[0][:left])
    return np.concatenate(parts)


def fixed_batch(session: Any) -> int | None:
    """Return the batch that the model's inputs are fixed to; None where it is free."""
    sizes = {port.shape[0] for port in session.get_inputs() if port.shape}
    fixed = [size for size in sizes if isinstance(size, int)]
    return fixed[0] if fixed else None


def _fill(chunk: NDArray[Any], size: int) -> NDArray[Any]:
    lacking = size - len(chunk)
    return np.concatenate([chunk, np.repeat(chunk[-1:], lacking, 0)]) if lacking else chunk
