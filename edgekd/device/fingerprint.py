"""Which machine a measurement was made on, for cache keys: cheap, stable, without numpy."""

from __future__ import annotations

from typing import Any

from edgekd.agent import facts


def fingerprint() -> dict[str, Any]:
    """Return the identity of this machine.

    Returns:
        ``cpu`` (model), ``isa`` (instruction sets that matter, sorted), ``cores``, ``arch`` and
        ``os``; equal to the same keys of the agent's ``facts``.
    """
    return facts.identity()
