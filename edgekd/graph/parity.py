"""How far two sets of outputs are apart, and whether that is near enough. numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["EXACT", "Tolerance", "compare", "sqnr_db"]

CEILING_DB = 200.0
"""Ratio that stands for "the same", since JSON knows no infinity."""


@dataclass(frozen=True)
class Tolerance:
    """What still counts as the same.

    Attributes:
        max_rel: Largest absolute difference, over the largest absolute reference value.
        min_cosine: Smallest cosine between the outputs of one sample.
    """

    max_rel: float
    min_cosine: float


EXACT = Tolerance(max_rel=1e-4, min_cosine=0.99999)
"""For passes that may only reorder float32 sums; measured: below 1e-5 on every network here."""


def compare(
    hop: str, reference: NDArray[Any], outputs: NDArray[Any], tolerance: Tolerance
) -> dict[str, Any]:
    """Compare outputs (samples, …) with their reference, as a row of the manifest.

    Args:
        hop: From what to what, for instance ``torch → onnx``.
        reference: What is right.
        outputs: What is judged; another shape, NaN or infinity fail.
        tolerance: The bound.

    Returns:
        ``hop``, ``max_abs``, ``max_rel``, ``min_cosine``, ``mean_cosine``, ``sqnr_db``, ``n``,
        ``tolerance``, ``status`` (passed or failed) and, when failed, ``why``.
    """
    row: dict[str, Any] = {
        "hop": hop,
        "n": len(reference),
        "tolerance": {"max_rel": tolerance.max_rel, "min_cosine": tolerance.min_cosine},
    }
    flaw = _flaw(reference, outputs)
    if flaw:
        nothing = dict.fromkeys(("max_abs", "max_rel", "min_cosine", "mean_cosine", "sqnr_db"))
        return row | nothing | {"status": "failed", "why": flaw}
    row |= _distances(reference, outputs)
    why = _why(row, tolerance)
    return row | ({"status": "failed", "why": why} if why else {"status": "passed"})


def sqnr_db(reference: NDArray[Any], outputs: NDArray[Any]) -> float:
    """Ratio of the reference's energy to that of the error, in dB, at most 200."""
    wanted = np.asarray(reference, np.float64)
    noise = float(np.square(wanted - outputs).sum())
    signal = float(np.square(wanted).sum())
    if noise == 0:
        return CEILING_DB
    if signal == 0:
        return -CEILING_DB
    return float(np.clip(10 * np.log10(signal / noise), -CEILING_DB, CEILING_DB))


def _flaw(reference: NDArray[Any], outputs: NDArray[Any]) -> str | None:
    if reference.shape != outputs.shape:
        return f"shape {outputs.shape}, wanted {reference.shape}"
    if not len(reference):
        return "no samples"
    broken = int((~np.isfinite(outputs)).sum())
    if broken:
        return f"{broken} values of {outputs.size} are NaN or infinite"
    if not np.isfinite(reference).all():
        return "the reference itself holds NaN or infinity"
    return None


def _distances(reference: NDArray[Any], outputs: NDArray[Any]) -> dict[str, float]:
    wanted = np.asarray(reference, np.float64).reshape(len(reference), -1)
    found = np.asarray(outputs, np.float64).reshape(len(reference), -1)
    max_abs = float(np.abs(wanted - found).max(initial=0.0))
    scale = float(np.abs(wanted).max(initial=0.0))
    cosines = _cosines(wanted, found)
    return {
        "max_abs": max_abs,
        "max_rel": max_abs / scale if scale else max_abs,
        "min_cosine": float(cosines.min()),
        "mean_cosine": float(cosines.mean()),
        "sqnr_db": sqnr_db(wanted, found),
    }


def _cosines(wanted: NDArray[Any], found: NDArray[Any]) -> NDArray[np.float64]:
    """Cosine per sample; two zero vectors agree, a zero vector and another one do not."""
    lengths = np.linalg.norm(wanted, axis=1), np.linalg.norm(found, axis=1)
    product = lengths[0] * lengths[1]
    cosines = (wanted * found).sum(1) / np.where(product > 0, product, 1)
    cosines[(lengths[0] == 0) & (lengths[1] == 0)] = 1.0
    return np.asarray(np.clip(cosines, -1, 1), np.float64)


def _why(row: dict[str, Any], tolerance: Tolerance) -> str | None:
    if row["max_rel"] > tolerance.max_rel:
        return f"relative error {row['max_rel']:.2g} is above {tolerance.max_rel:.2g}"
    if row["min_cosine"] < tolerance.min_cosine:
        return f"smallest cosine {row['min_cosine']:.6f} is below {tolerance.min_cosine:.6f}"
    return None
