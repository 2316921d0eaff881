"""The verbs as functions. The command line calls these and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd import plan as steps_of
from edgekd.discover import load_recipe, load_target
from edgekd.errors import BudgetError, SetupError, UsageError
from edgekd.events import Emit, Event, silent
from edgekd.plan import Step
from edgekd.spec import Recipe
from edgekd.store import Store
from edgekd.target import Target

if TYPE_CHECKING:
    from edgekd.bundle import Bundle
    from edgekd.run import Walk
