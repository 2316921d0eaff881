"""From the plain spec of a task to the task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekd.calls import invoke, resolve
from edgekd.spec import Call
from edgekd.tasks.base import Task
from edgekd.tasks.metric import MetricTask


def open_task(spec: Mapping[str, Any], base: Path) -> Task:
    """Make a task from a plain `Call` (a function returning a task) or a plain `Metric`."""
    if "to" in spec:
        task: Task = invoke(Call(**spec), base)
        return task
    function = resolve(Call(**spec["call"]), base)
    return MetricTask(function, spec["name"], spec["higher_is_better"])
