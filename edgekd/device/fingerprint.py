"""Which machine this is: its identity for cache keys, and what it has; cheap, without numpy."""

from __future__ import annotations

from typing import Any

from edgekd.agent import facts, runtimes


def fingerprint() -> dict[str, Any]:
    """Return the identity of this machine.

    Returns:
        ``cpu`` (model), ``isa`` (instruction sets that matter, sorted), ``cores``, ``arch`` and
        ``os``; equal to the same keys of the agent's ``facts``.
    """
    return facts.identity()


def here() -> dict[str, Any]:
    """Return what the agent's ``facts`` say of this machine, without starting an agent."""
    return {**facts.machine(), "runtimes": runtimes.versions()}
