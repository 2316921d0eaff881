"""A network in training: the backbone that ships, and the parts that are thrown away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from edgekd.distill import terms
from edgekd.distill.clone import side_of
from edgekd.distill.divergences import LOGITS
from edgekd.distill.projectors import projector
from edgekd.distill.taps import Hooks, inside, path_of
from edgekd.errors import RecipeError, did_you_mean
from edgekd.spec import Objective, Term

Shape = tuple[int, ...]


class Student(nn.Module):
    """Backbone, training-only classifier, training-only projectors and learned divergences.

    Args:
        backbone: What ships; returns features (batch, width) or logits (batch, classes).
        output: Which of the two.
        features: Width of the features.
        classes: Width of the logits; a linear classifier is added when the backbone gives
            features.
        objective: Its terms.
        teacher: Shape of one sample of every tap that the teacher offers.
        labels: Of the training split, for terms that remember samples.
        probe: (2, …) prepared samples, to learn the shapes of taps inside the network.

    Attributes:
        peer: A second student trained beside this one (deep mutual learning), or None.
    """

    peer: Student | None

    def __init__(
        self,
        backbone: nn.Module,
        output: Literal["features", "logits"],
        features: int,
        classes: int,
        objective: Objective,
        teacher: Mapping[str, Shape],
        labels: Tensor | None = None,
        probe: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.output, self.objective = backbone, output, objective
        self.head = nn.Linear(features, classes) if output == "features" else None
        self.peer = None
        wanted = [name for term in objective.terms for name in _student_taps(term)]
        self._hooks = Hooks(backbone, wanted)
        own: dict[str, Shape] = {"features": (features,), "logits": (classes,)}
        if any(inside(name) for name in wanted):
            own |= self._shapes(probe)
        others = {**teacher, **{f"{side}:{n}": s for n, s in own.items() for side in SIDES}}
        projectors, parts = nn.ModuleDict(), nn.ModuleDict()
        self._narrowed: dict[int, Callable[[Tensor], Tensor]] = {}
        for place, term in enumerate(objective.terms):
            if not term.source:
                continue
            mine, theirs = _shape(own, term.tap, "student"), _shape(others, term.source, "teacher")
            if term.divergence in LOGITS and theirs == (1,):
                raise RecipeError(
                    f"{term.divergence!r} compares classes, the output is one number",
                    at="recipe: objective",
                    hint="smooth_l1 or mse on logits",
                )
            if term.divergence in LOGITS and term.project == "none" and mine != theirs:
                raise RecipeError(
                    f"the teacher tells {theirs[0]} classes apart, the student {mine[0]}",
                    at="recipe: objective",
                    hint="a term on features, or a teacher of the same classes",
                )
            if term.project == "clone":
                self._narrowed[place] = side_of(backbone, path_of(backbone, term.tap))
            elif term.project != "none":
                projectors[str(place)] = projector(term.project, mine, theirs)
                mine = (theirs[0], *mine[1:])
            part = terms.build(term, mine, theirs, torch.zeros(0) if labels is None else labels)
            if part is not None:
                parts[str(place)] = part
        self.projectors, self.parts = projectors, parts
        self._bound: dict[tuple[int, Path | None], terms.Bound] = {}

    def _shapes(self, probe: Tensor | None) -> dict[str, Shape]:
        """Shapes of the taps inside, from one pass that leaves the network as it was."""
        if probe is None:
            raise RecipeError("taps inside a network need samples to learn their shapes")
        mode = self.backbone.training
        with torch.no_grad():
            self.backbone.eval()(probe)
        self.backbone.train(mode)
        return {name: tuple(value.shape[1:]) for name, value in self._hooks.seen.items()}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return every tap: ``features`` (where the backbone has them), ``logits``, inner ones."""
        return {**self._outer(x), **self._hooks.seen}

    def _outer(self, x: Tensor) -> dict[str, Tensor]:
        if self.head is not None:
            features = self.backbone(x)
            return {"features": features, "logits": self.head(features)}
        embed, head = getattr(self.backbone, "embed", None), getattr(self.backbone, "head", None)
        if embed is None or head is None:
            return {"logits": self.backbone(x)}
        features = embed(x)
        return {"features": features, "logits": head(features)}

    def project(self, place: int, value: Tensor) -> Tensor:
        """Map a tap to the teacher's width where the term at ``place`` asks for it."""
        key = str(place)
        projected: Tensor = self.projectors[key](value) if key in self.projectors else value
        return projected

    def narrow(self, place: int, theirs: Tensor) -> Tensor:
        """Map the teacher's tap to the student's width where the term at ``place`` asks for it."""
        return self._narrowed[place](theirs) if place in self._narrowed else theirs

    def part(self, place: int) -> nn.Module | None:
        """The learned divergence of the term at ``place``."""
        key = str(place)
        if key not in self.parts:
            return None
        part: nn.Module = self.parts[key]
        return part

    def bound(self, place: int, base: Path | None) -> terms.Bound:
        """The functions of the term at ``place``, found once."""
        key = (place, base)
        if key not in self._bound:
            self._bound[key] = terms.bind(self.objective.terms[place], base)
        return self._bound[key]


SIDES = ("self", "peer")


def _student_taps(term: Term) -> list[str]:
    """Taps of the student that a term reads, on either side."""
    side, _, name = term.source.partition(":")
    return [term.tap, name] if side in SIDES else [term.tap]


def _shape(shapes: Mapping[str, Shape], tap: str, who: str) -> Shape:
    if tap not in shapes:
        raise RecipeError(
            f"the {who} offers no tap {tap!r}",
            at="recipe: objective",
            hint=did_you_mean(tap, shapes),
        )
    return shapes[tap]


def width_of(backbone: nn.Module, output: Literal["features", "logits"], probe: Tensor) -> int:
    """Width of the features of a backbone.

    Args:
        backbone: Has ``features: int``, or is run once on ``probe``.
        output: What the backbone returns.
        probe: (2, …) prepared samples.

    Raises:
        RecipeError: The backbone does not return one vector a sample.
    """
    known = getattr(backbone, "features", None)
    if isinstance(known, int):
        return known
    if output == "logits":
        return 0
    backbone.eval()
    result = backbone(probe)
    if not isinstance(result, Tensor) or result.ndim != 2:
        shape = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise RecipeError(
            f"the network must return (batch, width), got {shape}",
            hint="pool over height and width, or return one tensor",
        )
    return int(result.shape[1])
