"""Which sensor, and when: explanations of a decision, and how good they are against the truth.

`occlusion` needs forward passes alone, so it runs on the artefact that ships; the others need
gradients, so torch. All return maps (flights, channels, windows): larger is more to blame.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "affected",
    "class_activation",
    "deviation",
    "hits",
    "integrated_gradients",
    "occlusion",
    "overlap",
]

Floats = NDArray[np.float64]
Network = Callable[[NDArray[np.float32]], NDArray[Any]]
"""Prepared flights (batch, channels, 1, length) in, logits (batch, classes) out."""
WINDOWS = 16
MOVED = 0.25
"""A channel (or window) is affected when the fault moves it by this share of the most moved."""


def occlusion(network: Network, x: NDArray[np.float32], chosen: NDArray[np.int64]) -> Floats:
    """How far the chosen class's logit falls when a stretch of a channel is its mean.

    Costs channels · windows + 1 inferences a flight.

    Args:
        network: The artefact, or any network.
        x: (flights, channels, 1, length), standardised, so that 0 is the mean.
        chosen: The class of each flight to explain.
    """
    flights, channels, _, length = x.shape
    step = length // WINDOWS
    rows = np.arange(flights)
    whole = np.asarray(network(x))[rows, chosen]
    found = np.empty((flights, channels, WINDOWS))
    for channel in range(channels):
        for window in range(WINDOWS):
            hidden = x.copy()
            hidden[:, channel, :, window * step : (window + 1) * step] = 0
            found[:, channel, window] = whole - np.asarray(network(hidden))[rows, chosen]
    return found


def integrated_gradients(
    network: nn.Module, x: NDArray[np.float32], chosen: NDArray[np.int64], steps: int = 16
) -> Floats:
    """Gradients along the line from the mean flight, times the flight (arXiv 1703.01365).

    The parts of a flight's map sum to its logit less the mean flight's, up to the steps.
    """
    import torch

    flight, labels = torch.from_numpy(x), torch.from_numpy(chosen)
    total = torch.zeros_like(flight)
    for step in range(steps):
        at = (flight * ((step + 0.5) / steps)).requires_grad_()
        network(at).gather(1, labels[:, None]).sum().backward()
        total += torch.zeros_like(flight) if at.grad is None else at.grad
    return _windows((total * flight / steps).numpy())


def class_activation(
    network: Any, x: NDArray[np.float32], chosen: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Grad-CAM over time (arXiv 1610.02391): (flights, windows).

    Behind a global mean and one linear layer the gradients are the layer's own weights.

    Args:
        network: Has ``maps`` and ``head``.
        x: See `occlusion`.
        chosen: Likewise.
    """
    import torch

    with torch.inference_mode():
        maps = network.maps(torch.from_numpy(x))[:, :, 0]
        weights = network.head.weight[torch.from_numpy(chosen)]
        found = torch.relu((maps * weights[:, :, None]).sum(1))
    return _windows(found[:, None, None].numpy())[:, 0]


def deviation(x: NDArray[np.float32]) -> Floats:
    """The naive explanation: whatever is farthest from its mean (mean square a window)."""
    return _windows(np.square(x))


def _windows(values: NDArray[Any]) -> Floats:
    """(flights, channels, 1, length) → sums over windows."""
    flights, channels, _, length = values.shape
    parts = np.asarray(values, np.float64).reshape(flights, channels, WINDOWS, length // WINDOWS)
    return np.asarray(parts.sum(-1), np.float64)


def affected(truth: NDArray[np.floating], axis: int) -> NDArray[np.bool_]:
    """What the fault really moved: channels (axis 2 is reduced) or windows (axis 1).

    Args:
        truth: (flights, channels, windows), see `edgekd.data.flight.simflight.truth_of`.
        axis: Reduced by its maximum.
    """
    moved = truth.max(axis)
    most = moved.max(1, keepdims=True)
    found: NDArray[np.bool_] = (moved >= MOVED * most) & (most > 0)
    return found


def hits(blame: Floats, moved: NDArray[np.bool_], top: int = 1) -> Floats:
    """Whether one of the most blamed channels was moved: one value a flight.

    Args:
        blame: (flights, channels).
        moved: (flights, channels).
        top: How many channels are named.
    """
    named = np.argsort(-blame, axis=1, kind="stable")[:, :top]
    return np.asarray(np.take_along_axis(moved, named, 1).any(1), np.float64)


def overlap(blame: Floats, moved: NDArray[np.bool_]) -> Floats:
    """Share of the moved windows among as many most blamed ones: one value a flight."""
    order = np.argsort(np.argsort(-blame, axis=1, kind="stable"), axis=1)
    count = moved.sum(1, keepdims=True)
    both = ((order < count) & moved).sum(1)
    return np.asarray(both / np.maximum(count[:, 0], 1), np.float64)
