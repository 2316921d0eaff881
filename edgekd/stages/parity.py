"""Compare an artefact, in its own runtime, with what torch computed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.artefact import Running, open_artefact
from edgekd.compare import compare
from edgekd.events import Emit
from edgekd.inputs import save_arrays

TOLERANCE: Mapping[str, Mapping[str, float]] = {
    "fp32": {"max_rel": 1e-4, "min_cosine": 0.99999},
    "bf16": {"max_rel": 0.1, "min_cosine": 0.999},
    "fp16": {"max_rel": 0.05, "min_cosine": 0.999},
    "int8": {"max_rel": 1.0, "min_cosine": 0.8},
    "int16x8": {"max_rel": 0.5, "min_cosine": 0.95},
}
"""What a precision may do to one sample; the task metric is the gate for reduced precisions."""

TIMED = 8
QUICK: Mapping[str, Any] = {"warmup": 10, "runs": 60, "max_seconds": 6.0}


def parity(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, emit: Emit
) -> dict[str, Any]:
    """Run the golden inputs through an artefact.

    Args:
        spec: ``candidate`` (for its precision), ``on``, ``by_proxy``.
        inputs: ``artefact``, ``export`` (golden inputs and outputs).
        out: Gets ``outputs.npz``: what this runtime computed.
        emit: Progress.

    Returns:
        ``max_abs``, ``max_rel`` (of the largest output), ``min_cosine``, ``n``, ``worst``,
        ``sqnr_db``, ``batch``, ``quick`` (least ``cpu_ms`` and median ``wall_ms`` of a few
        inferences in this one process: a hint, not a measurement; None where the device is
        absent), ``tolerance``, ``status``.

    Raises:
        RuntimeCrash: The runtime died; nothing else is lost.
    """
    golden = dict(np.load(inputs["export"] / "golden.npz"))
    name = next(n for n in golden if n.startswith("output:"))
    truth = golden.pop(name)
    artefact = open_artefact(inputs["artefact"])
    with Running(artefact, on=spec["on"], by_proxy=spec["by_proxy"]) as running:
        done = running.agent.evaluate(golden, 1)
        quick = None if spec["by_proxy"] else _quick(running, golden)
        got = next(iter(done.outputs.values()))
        effective = running.loaded.effective
    save_arrays(out / "outputs.npz", {name: got})
    tolerance = TOLERANCE[spec["candidate"]["precision"]]
    facts = compare(truth, got)
    good = (
        np.isfinite(got).all()
        and facts["max_rel"] <= tolerance["max_rel"]
        and facts["min_cosine"] >= tolerance["min_cosine"]
    )
    return {
        **facts,
        "batch": done.batch,
        "quick": quick,
        "tolerance": dict(tolerance),
        "status": "passed" if good else "failed",
        "effective": effective,
    }


def _quick(running: Running, golden: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    some = {name: values[:TIMED] for name, values in golden.items()}
    timing = running.agent.time(some, **QUICK).summary()
    return {"cpu_ms": timing["cpu_min_ms"], "wall_ms": timing["p50_ms"]}
