"""How far two sets of outputs are apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def compare(truth: NDArray[Any], got: NDArray[Any]) -> dict[str, Any]:
    """Largest difference and smallest cosine over samples.

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
        "worst": int(error.argmax()),
        "n": len(truth),
    }
