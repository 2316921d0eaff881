"""Score a shipped artefact again, from the manifest alone (``edgekd verify --task``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.artefact import Artefact, Running
from edgekd.calls import invoke
from edgekd.errors import SetupError
from edgekd.events import Emit
from edgekd.spec import Call
from edgekd.tasks.open import open_task


def score_artefact(manifest: Mapping[str, Any], folder: Path, emit: Emit) -> dict[str, Any]:
    """Run the artefact of a bundle over the test split of the recipe's data.

    Args:
        manifest: The bundle's manifest.
        folder: The bundle.
        emit: Progress.

    Returns:
        Metric name → ``value``, ``low``, ``high``, ``n``.

    Raises:
        SetupError: The recipe's data or its code is not on this machine.
    """
    spec, shipped = manifest["recipe"]["spec"], manifest["artefact"]
    base = Path(spec["file"]).parent
    try:
        data, task = invoke(Call(**spec["data"]), base), open_task(spec["task"], base)
    except Exception as error:
        raise SetupError(
            f"the task cannot be scored here: {error}",
            at="manifest.json: recipe.spec.data",
            hint="run verify --task on a machine that has the recipe's data",
        ) from error
    contract = manifest["io"]["inputs"][0]
    artefact = Artefact(
        folder,
        shipped["main"],
        shipped["runtime"],
        shipped["options"],
        contract,
        shipped["precision"],
        proxy=shipped.get("proxy", {}),
    )
    state = {}
    if manifest.get("state"):
        state = dict(np.load(folder / manifest["state"]["file"]))
    with Running(artefact) as model:
        score = task.score(model, data, "test", state, emit)
    return {name: dict(row) for name, row in score.metrics.items()}
