"""The agent: a small program that loads an artefact, runs it, times it and describes the machine.

It needs the standard library and numpy, imports nothing else of edgekd (relative imports only,
enforced by a test), and runs unchanged as ``python -m edgekd.agent``, in another virtual
environment, or as a zipapp on a board. It speaks JSON lines: one request in, one answer out.
"""

from __future__ import annotations

PROTOCOL = 1
"""Version of the protocol; host and agent must agree on it."""
