"""Run the teacher once over every view of the training split, and keep its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekd.calls import invoke
from edgekd.distill.teacher import Scaling, Taps, keep_outputs, limited, open_teacher
from edgekd.distill.views import Prepare, View, as_tensor, check_augment, check_repeats, view_count
from edgekd.events import Emit, Progress
from edgekd.spec import Call, Input, Network, Train, rebuild

BATCH = 128


def teach(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, emit: Emit
) -> dict[str, Any]:
    """Cache the teacher's outputs for the views that the student will see.

    Features are standardised per dimension over all views (the paper's MSE is scale-free then).

    Args:
        spec: ``network`` (the teacher), ``input``, ``output``, ``inner`` (taps inside it that the
            objective reads), ``train``, ``data``, ``seed``, ``base``.
        inputs: ``teacher``.
        out: Gets one array a view and tap, float16, and ``outputs.json``.
        emit: Progress.

    Returns:
        ``views``, ``samples``, ``widths``.
    """
    budget, base = rebuild(Train, spec["train"]), Path(spec["base"])
    network = rebuild(Network, spec["network"])
    ready = Prepare(network.input or rebuild(Input, spec["input"]))
    run = open_teacher(inputs["teacher"], base, spec["output"], spec["inner"])
    train = invoke(Call(**spec["data"]), base).train
    augment = None if budget.augment is None else invoke(budget.augment, base)
    if augment is not None:
        check_augment(augment, "Train.augment")
        some = torch.arange(min(4, len(train)))
        check_repeats(augment, as_tensor(_raw(train, some)), "Train.augment")
    views = view_count(budget)
    progress = Progress(emit, "teach", views * len(train), "images")
    kept: list[Taps] = []
    for number in range(views):
        look = View(augment, len(train), spec["seed"], number)
        parts: list[Taps] = []
        for indices in torch.split(torch.arange(len(train)), BATCH):
            taps = run(ready(look(_raw(train, indices), indices)))
            parts.append(limited(taps, network.access, network.top))
            progress.advance(len(indices))
        kept.append({tap: torch.cat([p[tap] for p in parts]) for tap in parts[0]})
    scaling = None
    if "features" in kept[0]:
        scaling = Scaling.of(torch.cat([view["features"] for view in kept]))
        kept = [scaling(view) for view in kept]
    keep_outputs(out, kept, scaling, network.access, network.top)
    shapes = {tap: list(value.shape[1:]) for tap, value in kept[0].items()}
    return {"views": views, "samples": len(train), "shapes": shapes}


def _raw(dataset: Any, indices: Tensor) -> Any:
    take = getattr(dataset, "take", None)
    if take is not None:
        return take(indices.numpy())
    return np.stack([np.asarray(dataset[int(i)][0]) for i in indices])
