"""From a raw sample to what the exported graph takes (numpy only: verify and profile use it)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def prepare(raw: NDArray[Any], contract: Mapping[str, Any]) -> NDArray[Any]:
    """Apply the input contract of a manifest.

    Args:
        raw: uint8 images (batch, H, W, C), or float samples (batch, …) which pass unchanged but
            for their ``channels``.
        contract: ``form``, ``mean``, ``std`` and ``channels`` as in `edgekd.spec.Input`.
    """
    if contract.get("channels") is not None:
        raw = raw.take(contract["channels"], axis=-1 if raw.dtype == np.uint8 else 1)
    if raw.dtype != np.uint8:
        return np.ascontiguousarray(raw, dtype=np.float32)
    if contract.get("form") == "uint8_nhwc":
        return np.ascontiguousarray(raw)
    images = np.ascontiguousarray(raw.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)
    if contract.get("mean") is None:
        return images * np.float32(255)
    shape = (1, -1, 1, 1)
    mean = np.asarray(contract["mean"], np.float32).reshape(shape)
    std = np.asarray(contract["std"], np.float32).reshape(shape)
    return np.ascontiguousarray((images - mean) / std)


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays as ``.npz``."""
    keywords: dict[str, Any] = dict(arrays)
    np.savez(path, **keywords)
