"""Quantisation-aware training: the student learns on while it is rounded as its artefact will be.

Weights of linear and convolutional layers are rounded symmetrically per output channel, what they
read is rounded to 256 steps over the range seen so far; gradients pass through the rounding where
nothing is cut off (arXiv 1712.05877). A scale per output channel is also that of a batch norm
folded into the layer, so that nothing is folded here. What is kept are the float weights: the
quantiser that follows finds the same scales, and writes them as explicit Q and DQ.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
READS = "rounded_input"
"""Name of the part that is added to a layer for the time of the training."""
STEPS = 255
MOST = {8: 127, 7: 64}
"""Largest place of a weight, by bits."""
KEPT = 0.9
"""Share of the old range that stays at every step."""


def rounded(x: Tensor, scale: Tensor, zero: Tensor, low: int, high: int) -> Tensor:
    """Round to the grid (low … high − zero)·scale; the gradient passes where nothing is cut off."""
    places = (x / scale + zero).clamp(low, high)
    return (places + (places.round() - places).detach() - zero) * scale


class Weight(nn.Module):
    """Rounds a weight (out, …) per output channel, symmetrically; registered on it.

    Args:
        bits: 8, or 7 where the processor's sums of 8-bit products overflow.
    """

    def __init__(self, bits: int = 8) -> None:
        super().__init__()
        self._most = MOST[bits]

    def forward(self, weight: Tensor) -> Tensor:
        """Return what the artefact will multiply by; in full precision."""
        with torch.autocast(weight.device.type, enabled=False):
            largest = weight.detach().abs().flatten(1).amax(1).clamp(min=1e-12)
            scale = (largest / self._most).view(-1, *(1 for _ in weight.shape[1:]))
            return rounded(weight, scale, torch.zeros_like(scale), -self._most, self._most)


class Reads(nn.Module):
    """Rounds what a layer reads, over a moving average of least and greatest value and 0."""

    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(float("nan")))
        self.register_buffer("high", torch.tensor(float("nan")))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` on its grid; as it is before anything was seen."""
        if self.training:
            self._see(x.detach())
        if self.low.isnan():
            return x
        scale = ((self.high - self.low) / STEPS).clamp(min=1e-12)
        return rounded(x.float(), scale, (-self.low / scale).round(), 0, STEPS).to(x.dtype)

    def _see(self, x: Tensor) -> None:
        low, high = x.min().float().clamp(max=0), x.max().float().clamp(min=0)
        first = bool(self.low.isnan())
        self.low.copy_(low if first else KEPT * self.low + (1 - KEPT) * low)
        self.high.copy_(high if first else KEPT * self.high + (1 - KEPT) * high)


def make_aware(network: nn.Module, bits: int = 8) -> int:
    """Round the weights and inputs of a network's layers from now on, in place.

    Returns:
        How many layers.
    """
    layers: list[Any] = [m for m in network.modules() if isinstance(m, LAYERS)]
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", Weight(bits))
        layer.add_module(READS, Reads().to(layer.weight.device))
        layer.register_forward_pre_hook(_read)
    return len(layers)


def _read(layer: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    part: Any = getattr(layer, READS)
    return (part(given[0]), *given[1:])


def forget(network: nn.Module) -> None:
    """Take the rounding away, in place; the float weights stay as they were trained."""
    for layer in network.modules():
        if READS not in layer._modules:
            continue
        del layer._modules[READS]
        for key, hook in list(layer._forward_pre_hooks.items()):
            if hook is _read:
                del layer._forward_pre_hooks[key]
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
