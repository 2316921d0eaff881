"""Closed loops that travel with the agent: one request a rollout, not one round trip a step.

A loop is a module beside this one that needs numpy alone and has ``rollout(model, arrays)``: it
asks the network as often as it likes and returns what happened as arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..faults import UsageFault, listed
from . import battery

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .battery import Array, Model

LOOPS = {"battery": battery.rollout}


def rollout(name: str, model: Model, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Run a loop around a network.

    Args:
        name: Which loop.
        model: Batches in, outputs out.
        arrays: What the loop starts from.

    Raises:
        UsageFault: There is no such loop, or it lacks an array.
    """
    if name not in LOOPS:
        raise UsageFault(f"unknown loop {name!r}", hint=f"known: {listed(LOOPS)}")
    try:
        return LOOPS[name](model, arrays)
    except KeyError as error:
        raise UsageFault(f"loop {name!r} needs the array {error}") from error
