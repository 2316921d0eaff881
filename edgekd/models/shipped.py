"""What of a network ships: some answer more in training than a device asks."""

from __future__ import annotations

from torch import nn


def shipped(model: nn.Module) -> nn.Module:
    """Return ``model.ships()`` where a network has it, else the network itself.

    The two share their weights. It is what is exported, counted and timed; training and teaching
    use the whole.
    """
    ships = getattr(model, "ships", None)
    if ships is None:
        return model
    part: nn.Module = ships()
    return part.train(model.training)
