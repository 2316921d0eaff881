"""Run the teacher once over every view of the training split, and keep its outputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekd.artefact import open_artefact
from edgekd.backends.torch_eager import load_network
from edgekd.calls import invoke
from edgekd.distill.views import Prepare, View, view_count
from edgekd.events import Emit, Progress
from edgekd.graph.onnx_network import OnnxNetwork
from edgekd.spec import Call, Input, Network, Train, rebuild

BATCH = 128
Taps = dict[str, Tensor]


def teach(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, emit: Emit
) -> dict[str, Any]:
    """Cache the teacher's outputs for the views that the student will see.

    Features are standardised per dimension over all views (the paper's MSE is scale-free then).

    Args:
        spec: ``network`` (the teacher), ``input``, ``output``, ``train``, ``data``, ``seed``,
            ``base``.
        inputs: ``teacher``.
        out: Gets one array a view and tap, float16, and ``outputs.json``.
        emit: Progress.

    Returns:
        ``views``, ``samples``, ``widths``.
    """
    budget, base = rebuild(Train, spec["train"]), Path(spec["base"])
    network = rebuild(Network, spec["network"])
    ready = Prepare(network.input or rebuild(Input, spec["input"]))
    run = _open(inputs["teacher"], base, spec["output"])
    train = invoke(Call(**spec["data"]), base).train
    augment = None if budget.augment is None else invoke(budget.augment, base)
    views = view_count(budget)
    progress = Progress(emit, "teach", views * len(train), "images")
    kept: list[dict[str, Tensor]] = []
    for number in range(views):
        look = View(augment, len(train), spec["seed"], number)
        parts: list[Taps] = []
        for indices in torch.split(torch.arange(len(train)), BATCH):
            parts.append(run(ready(look(_raw(train, indices), indices))))
            progress.advance(len(indices))
        kept.append({tap: torch.cat([p[tap] for p in parts]) for tap in parts[0]})
    _standardise(kept)
    index = {"views": [_keep(view, number, out) for number, view in enumerate(kept)]}
    (out / "outputs.json").write_text(json.dumps(index))
    widths = {tap: int(value.shape[1]) for tap, value in kept[0].items()}
    return {"views": views, "samples": len(train), "widths": widths}


def _open(folder: Path, base: Path, output: str) -> Callable[[Tensor], Taps]:
    """A function from prepared images to the taps that this teacher offers."""
    artefact = open_artefact(folder)
    if artefact.runtime != "torch":
        network = OnnxNetwork(folder / artefact.main)
        return lambda x: {output: torch.from_numpy(network(x.contiguous().numpy())).float()}
    model, head = load_network(folder, base)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(x: Tensor) -> Taps:
        with torch.inference_mode():
            if output == "features":
                features = model(x).float()
                logits = {} if not head else {"logits": features @ head["weight"].T + head["bias"]}
                return {"features": features, **logits}
            if hasattr(model, "embed") and isinstance(
                getattr(model, "head", None), torch.nn.Linear
            ):
                features = model.embed(x).float()
                return {"features": features, "logits": model.head(features)}
            return {"logits": model(x).float()}

    return run


def _raw(dataset: Any, indices: Tensor) -> Any:
    take = getattr(dataset, "take", None)
    if take is not None:
        return take(indices.numpy())
    return np.stack([np.asarray(dataset[int(i)][0]) for i in indices])


def _standardise(views: list[dict[str, Tensor]]) -> None:
    if "features" not in views[0]:
        return
    everything = torch.cat([v["features"] for v in views])
    mean, std = everything.mean(0), everything.std(0).clamp(min=1e-6)
    for view in views:
        view["features"] = (view["features"] - mean) / std


def _keep(view: Mapping[str, Tensor], number: int, out: Path) -> dict[str, str]:
    names = {}
    for tap, value in view.items():
        names[tap] = f"{tap}_{number}.npy"
        np.save(out / names[tap], value.numpy().astype(np.float16))
    return names
