"""Everything edgekd raises on purpose.

    EdgekdError
    ├── UsageError       exit 2   wrong argument, unknown name, wrong setting
    │   ├── RecipeError           a recipe file or one of its settings
    │   ├── TargetError           a target file
    │   └── DataError             the user's data
    ├── BudgetError      exit 3   over a limit, or regressed
    ├── SetupError       exit 4   missing extra, unreachable board, full disk
    │   └── UnbuiltError          everything but the device's part was done, and is kept
    ├── VerifyError      exit 5   an artefact is not what it claims to be
    └── StageError       exit 1   a stage failed (the cause is chained)
        ├── TrainingError         a training's loss is not finite, or its memory ran out
        └── RuntimeCrash          the process that ran an artefact died

An error says what went wrong, where (``at``: file and key) and what to do next (``hint``).
Only the command line turns errors into exit codes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any


class EdgekdError(Exception):
    """Base of all errors raised on purpose.

    Args:
        what: One sentence: what went wrong, with the value found and the value wanted.
        at: Where: a file, a key (``targets/x.yaml: limits.latency_ms``), a node, a split.
        hint: What to do next, as a command where there is one.
    """

    exit_code = 1

    def __init__(self, what: str, *, at: str | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.at = at
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.what]
        if self.at:
            lines.append(f"  at   {self.at}")
        if self.hint:
            lines.append(f"  hint {self.hint}")
        return "\n".join(lines)


class UsageError(EdgekdError):
    """The caller asked for something that does not exist or does not fit."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe file, or one of its settings, is wrong."""


class TargetError(UsageError):
    """A target file is wrong."""


class DataError(UsageError):
    """The user's data is wrong; names file and split."""


class BudgetError(EdgekdError):
    """A measured value is over its limit, or worse than the baseline."""

    exit_code = 3


class SetupError(EdgekdError):
    """The environment lacks something: an extra, a tool, a board, disk space."""

    exit_code = 4


class UnbuiltError(SetupError):
    """No device was there: what could be done without one is done and kept.

    Args:
        what: One sentence.
        bundles: The bundles (`edgekd.bundle.Bundle`) that were written.
        hint: What to do next.
    """

    def __init__(self, what: str, bundles: Sequence[Any], *, hint: str | None = None) -> None:
        super().__init__(what, hint=hint)
        self.bundles = tuple(bundles)


class VerifyError(EdgekdError):
    """An artefact or bundle is not what it claims to be."""

    exit_code = 5


class StageError(EdgekdError):
    """A stage failed; the foreign exception is chained as ``__cause__``."""


class TrainingError(StageError):
    """A training came to no end: its loss is not finite, or its memory ran out."""


class RuntimeCrash(StageError):
    """The child process that ran an artefact died (a signal, or no answer)."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint that offers the closest known name and lists them all."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    listed = ", ".join(names) if names else "none"
    return (f"did you mean {close[0]!r}? " if close else "") + f"known: {listed}"
