"""How far two sets of outputs are apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def compare(truth: NDArray[Any], got: NDArray[Any]) -> dict[str, Any]:
    """Largest difference and smallest cosine over samples.

    Args:
        truth: (samples, …).
        got: Same shape.
    """
    a = truth.reshape(len(truth), -1).astype(np.float64)
    b = got.reshape(len(got), -1).astype(np.float64)
    norms = np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-30)
    cosine = (a * b).sum(1) / norms
    error = np.abs(a - b).max(1)
    return {
        "max_abs": float(error.max()),
        "max_rel": float(error.max() / max(float(np.abs(a).max()), 1e-30)),
        "min_cosine": float(cosine.min()),
        "worst": int(error.argmax()),
        "n": len(a),
    }
