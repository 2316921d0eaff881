"""A network in training: the backbone that ships, and the parts that are thrown away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from edgekd.errors import RecipeError
from edgekd.spec import Objective


class Student(nn.Module):
    """Backbone, training-only classifier, training-only projectors.

    Args:
        backbone: What ships; returns features (batch, width) or logits (batch, classes).
        output: Which of the two.
        features: Width of the features.
        classes: Width of the logits; a linear classifier is added when the backbone gives
            features.
        objective: Its projecting terms get a bias-free linear map each.
        teacher: Width of every tap the teacher offers.
    """

    def __init__(
        self,
        backbone: nn.Module,
        output: Literal["features", "logits"],
        features: int,
        classes: int,
        objective: Objective,
        teacher: Mapping[str, int],
    ) -> None:
        super().__init__()
        self.backbone, self.output = backbone, output
        self.head = nn.Linear(features, classes) if output == "features" else None
        widths = {"features": features, "logits": classes}
        self.projectors = nn.ModuleDict(
            {
                str(i): nn.Linear(widths[term.tap], teacher[term.tap], bias=False)
                for i, term in enumerate(objective.terms)
                if term.project == "linear" and term.tap in teacher
            }
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return every tap: ``features`` (where the backbone has them) and ``logits``."""
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
