"""What a network takes at the very least in 8 bits: known before it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgekd.graph.count import evaluating
from edgekd.models.shipped import shipped

__all__ = ["Least", "least"]

_PRODUCTS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Least:
    """Bytes below which no 8-bit firmware of a network can be.

    Attributes:
        weights: Layer → bytes of its weights; what is shared counts once.
        working: Layer → bytes of RAM while it runs: its input and output, and the network's own
            input, which its caller holds.
    """

    weights: dict[str, int]
    working: dict[str, int]

    @property
    def flash(self) -> int:
        """Bytes of all weights."""
        return sum(self.weights.values())

    @property
    def ram(self) -> int:
        """Bytes of the layer that needs most."""
        return max(self.working.values(), default=0)


def least(model: nn.Module, shape: Sequence[int]) -> Least:
    """Return the least that the linear layers and convolutions of what ships take.

    A product cannot overwrite its input, so input and output lie side by side. Code, tables,
    biases, all other layers and everything else that is alive come on top.

    Args:
        model: The network; its mode is left as it was.
        shape: One sample, without the batch axis.
    """
    model = shipped(model)
    first = next(model.parameters(), torch.empty(0))
    sample = torch.zeros((1, *shape), dtype=first.dtype, device=first.device)
    found, seen = Least({}, {}), set[int]()

    def watch(name: str) -> object:
        def hook(module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
            del module
            own = given[0].untyped_storage().data_ptr() == sample.untyped_storage().data_ptr()
            size = made.numel() + sample.numel() + (0 if own else given[0].numel())
            found.working[name] = max(found.working.get(name, 0), size)

        return hook

    handles = []
    for name, module in model.named_modules():
        if isinstance(module, _PRODUCTS):
            if id(module.weight) not in seen:
                seen.add(id(module.weight))
                found.weights[name] = module.weight.numel()
            handles.append(module.register_forward_hook(watch(name)))  # type: ignore[arg-type]
    try:
        with torch.no_grad(), evaluating(model):
            model(sample)
    finally:
        for handle in handles:
            handle.remove()
    return found
