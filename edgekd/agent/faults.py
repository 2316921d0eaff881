"""What the agent refuses, in kinds that the host turns into its own errors."""

from __future__ import annotations

from collections.abc import Iterable


class Fault(Exception):
    """The request failed; ``kind`` tells the host who can mend it.

    Args:
        message: One sentence: what was found and what was wanted.
        hint: What to do next, as a command where there is one.
    """

    kind = "stage"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageFault(Fault):
    """The request itself is wrong: an unknown name, a wrong option, inputs that do not fit."""

    kind = "usage"


class SetupFault(Fault):
    """This machine lacks something: a package, an instruction set, disk space."""

    kind = "setup"


def listed(names: Iterable[str]) -> str:
    """Return the names for a message: sorted, comma-separated, or ``none``."""
    return ", ".join(sorted(names)) or "none"
