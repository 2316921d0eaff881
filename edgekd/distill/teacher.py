"""A teacher at work: prepared samples → the taps that it offers, cached or computed now."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.artefact import open_artefact
from edgekd.backends.torch_eager import load_network
from edgekd.graph.onnx_network import OnnxNetwork

INDEX = "outputs.json"
Taps = dict[str, Tensor]


def open_teacher(folder: Path, base: Path, output: str) -> Callable[[Tensor], Taps]:
    """Return a function from prepared samples to the taps that this teacher offers.

    Args:
        folder: Of the teacher's artefact: a torch network, or an ONNX file.
        base: Folder of the recipe.
        output: What the network returns: ``features`` or ``logits``.
    """
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
            if hasattr(model, "embed") and isinstance(getattr(model, "head", None), nn.Linear):
                features = model.embed(x).float()
                return {"features": features, "logits": model.head(features)}
            return {"logits": model(x).float()}

    return run


@dataclass(frozen=True)
class Scaling:
    """Features to mean 0 and deviation 1 per dimension (the paper's MSE is scale-free then).

    Attributes:
        mean: (width,).
        std: (width,), at least 1e-6.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Scaling:
        """Measure features (samples, width)."""
        return cls(features.mean(0), features.std(0).clamp(min=1e-6))

    def __call__(self, taps: Taps) -> Taps:
        """Scale the features among the taps; the others stay as they are."""
        if "features" not in taps:
            return taps
        return {**taps, "features": (taps["features"] - self.mean) / self.std}


@dataclass(frozen=True)
class TeacherOutputs:
    """Cached outputs of a teacher.

    Attributes:
        views: For every view, tap → array (samples, width).
        scaling: What was done to the features; None when nothing was.
    """

    views: tuple[Mapping[str, Any], ...]
    scaling: Scaling | None = None

    @property
    def widths(self) -> dict[str, int]:
        """Width of every tap."""
        return {tap: int(values.shape[1]) for tap, values in self.views[0].items()}

    def take(self, view: int, indices: Tensor) -> Taps:
        """Outputs for some samples of one view."""
        rows = indices.numpy()
        return {
            tap: torch.from_numpy(np.asarray(values[rows], dtype=np.float32))
            for tap, values in self.views[view].items()
        }


def keep_outputs(folder: Path, views: list[Taps], scaling: Scaling | None) -> None:
    """Write outputs as one array a view and tap (float16 where it holds them), and an index.

    Args:
        folder: Where.
        views: For every view, tap → (samples, …), features already scaled.
        scaling: What was done to them.
    """
    scaled = {} if scaling is None else {"mean": scaling.mean.tolist(), "std": scaling.std.tolist()}
    index = {"views": [_keep(view, number, folder) for number, view in enumerate(views)]}
    (folder / INDEX).write_text(json.dumps({**index, "scaling": scaled}))


def _keep(view: Mapping[str, Tensor], number: int, out: Path) -> dict[str, str]:
    names = {}
    for tap, value in view.items():
        names[tap] = f"{tap}_{number}.npy"
        small = bool(value.abs().max() < np.finfo(np.float16).max)
        np.save(out / names[tap], value.numpy().astype(np.float16 if small else np.float32))
    return names


def open_outputs(folder: Path) -> TeacherOutputs:
    """Open what `keep_outputs` wrote, memory-mapped."""
    index = json.loads((folder / INDEX).read_text())
    views = tuple(
        {tap: np.load(folder / name, mmap_mode="r") for tap, name in view.items()}
        for view in index["views"]
    )
    scaled = index["scaling"]
    scaling = Scaling(torch.tensor(scaled["mean"]), torch.tensor(scaled["std"])) if scaled else None
    return TeacherOutputs(views, scaling)
