"""A teacher at work: prepared samples → the taps that it offers, cached or computed now."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.artefact import open_artefact
from edgekd.backends.torch_eager import load_network
from edgekd.distill.taps import Hooks
from edgekd.errors import RecipeError
from edgekd.graph.onnx_network import OnnxNetwork

INDEX = "outputs.json"
Taps = dict[str, Tensor]


def open_teacher(
    folder: Path, base: Path, output: str, inner: Sequence[str] = ()
) -> Callable[[Tensor], Taps]:
    """Return a function from prepared samples to the taps that this teacher offers.

    Args:
        folder: Of the teacher's artefact: a torch network, or an ONNX file.
        base: Folder of the recipe.
        output: What the network returns: ``features`` or ``logits``.
        inner: Taps inside the network (``map``, ``feat:PATH``) that are wanted too.

    Raises:
        RecipeError: An ONNX teacher is asked for what is inside, or there is no such module.
    """
    artefact = open_artefact(folder)
    if artefact.runtime != "torch":
        if inner:
            raise RecipeError(
                f"a teacher in ONNX gives its {output}, not {inner[0]!r}",
                at="recipe: objective",
                hint=f"terms on {output}, or a teacher in torch",
            )
        network = OnnxNetwork(folder / artefact.main)
        return lambda x: {output: torch.from_numpy(network(x.contiguous().numpy())).float()}
    model, head = load_network(folder, base)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    hooks = Hooks(model, inner)

    def outer(x: Tensor) -> Taps:
        if output == "features":
            features = model(x).float()
            logits = {} if not head else {"logits": features @ head["weight"].T + head["bias"]}
            return {"features": features, **logits}
        if hasattr(model, "embed") and isinstance(getattr(model, "head", None), nn.Linear):
            features = model.embed(x).float()
            return {"features": features, "logits": model.head(features)}
        return {"logits": model(x).float()}

    def run(x: Tensor) -> Taps:
        with torch.inference_mode():
            taps = outer(x)
            return {**taps, **{name: value.float() for name, value in hooks.seen.items()}}

    return run


ACCESS = ("features", "logits", "top-k", "labels")
"""How much of a teacher is seen, most first."""
SURE = 1 - 1e-4
"""Probability of the class that a teacher names, where nothing but the class is known."""


def limited(taps: Taps, access: str, top: int) -> Taps:
    """What is left of a teacher's taps at an access level.

    Args:
        taps: All of them.
        access: ``features``: all; ``logits``: those alone; ``top-k``: the ``top`` largest
            probabilities, the rest spread evenly; ``labels``: the largest one's name alone.
        top: Of ``top-k``.

    Raises:
        RecipeError: The teacher has no logits.
    """
    if access == "features":
        return taps
    if "logits" not in taps:
        raise RecipeError(f"a teacher without logits has no access {access!r}", at="Network.access")
    logits = taps["logits"]
    if access == "logits":
        return {"logits": logits}
    kept = 1 if access == "labels" else min(top, logits.shape[1] - 1)
    chances, places = logits.softmax(1).topk(kept, 1)
    if access == "labels":
        chances = torch.full_like(chances, SURE)
    left = (1 - chances.sum(1, keepdim=True)).clamp(min=1e-12) / (logits.shape[1] - kept)
    return {"logits": left.expand_as(logits).scatter(1, places, chances).log()}


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
        access: How much of the teacher they hold; see `limited`.
        top: Of the access ``top-k``.
    """

    views: tuple[Mapping[str, Any], ...]
    scaling: Scaling | None = None
    access: str = "features"
    top: int = 0

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one sample of every tap."""
        return {tap: tuple(values.shape[1:]) for tap, values in self.views[0].items()}

    def take(self, view: int, indices: Tensor) -> Taps:
        """Outputs for some samples of one view."""
        rows = indices.numpy()
        return {
            tap: torch.from_numpy(np.asarray(values[rows], dtype=np.float32))
            for tap, values in self.views[view].items()
        }


def keep_outputs(
    folder: Path, views: list[Taps], scaling: Scaling | None, access: str, top: int
) -> None:
    """Write outputs as one array a view and tap (float16 where it holds them), and an index.

    Args:
        folder: Where.
        views: For every view, tap → (samples, …), features already scaled.
        scaling: What was done to them.
        access: How much of the teacher they hold.
        top: Of the access ``top-k``.
    """
    scaled = {} if scaling is None else {"mean": scaling.mean.tolist(), "std": scaling.std.tolist()}
    index = {"views": [_keep(view, number, folder) for number, view in enumerate(views)]}
    kept = {**index, "scaling": scaled, "access": access, "top": top}
    (folder / INDEX).write_text(json.dumps(kept))


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
    return TeacherOutputs(views, scaling, index["access"], index["top"])


def open_all(inputs: Mapping[str, Path]) -> TeacherOutputs | None:
    """Open the outputs of every teacher as those of one, whose taps are ``TAP`` and ``NAME:TAP``.

    Args:
        inputs: ``teach`` (the recipe's first teacher) and ``teach:NAME``; others are left alone.

    Returns:
        None without any. Scaling and access are the first teacher's.
    """
    found = {
        name.partition(":")[2]: open_outputs(folder)
        for name, folder in inputs.items()
        if name.partition(":")[0] == "teach"
    }
    if not found:
        return None
    views = tuple(
        {
            f"{who}:{tap}" if who else tap: values
            for (who, _), view in zip(found.items(), together, strict=True)
            for tap, values in view.items()
        }
        for together in zip(*(outputs.views for outputs in found.values()), strict=True)
    )
    first = found.get("", TeacherOutputs(views))
    return replace(first, views=views)
