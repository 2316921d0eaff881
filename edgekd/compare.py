"""How far two sets of outputs are apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def compare(truth: NDArray[Any], got: NDArray[Any]) -> dict[str, Any]:
    """Largest difference, smallest cosine, and signal to noise over samples.

    Outputs of one number a sample have no direction, only a sign, which a value near 0 may change:
    there the cosine is that of all samples together.

    Args:
        truth: (samples, …).
        got: Same shape.
    """
    a = truth.reshape(len(truth), -1).astype(np.float64)
    b = got.reshape(len(got), -1).astype(np.float64)
    error = np.abs(a - b).max(1)
    if a.shape[1] == 1:  # one number a sample
        a, b = a.T, b.T
    norms = np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-30)
    cosine = (a * b).sum(1) / norms
    return {
        "max_abs": float(error.max()),
        "max_rel": float(error.max() / max(float(np.abs(a).max()), 1e-30)),
        "min_cosine": float(cosine.min()),
        "sqnr_db": sqnr_db(a, b),
        "worst": int(error.argmax()),
        "n": len(truth),
    }


def sqnr_db(truth: NDArray[Any], got: NDArray[Any]) -> float:
    """Power of the signal over that of the error, in dB; at most 200."""
    a, b = truth.astype(np.float64), got.astype(np.float64)
    noise, signal = float(((a - b) ** 2).sum()), float((a**2).sum())
    if not np.isfinite(noise) or signal <= 0:
        return 0.0 if noise > 0 or not np.isfinite(noise) else 200.0
    return float(min(200.0, 10 * np.log10(signal / max(noise, signal * 1e-20))))
