"""SimKD: the student ends in the teacher's own classifier, behind a projector that ships.

    logits = classifier_t(mean over space of project(maps_s(x)))      from maps
    logits = classifier_t(project(features_s(x)))                     from features

(arXiv 2203.14001). The classifier is frozen; the projector is trained so that what it gives is
what the teacher's classifier reads. Both are part of the deployed network: they are exported, and
counted in its parameters and multiply-accumulates. The student's own classifier is dropped.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from edgekd.distill.taps import Hooks
from edgekd.distill.teacher import Scaling
from edgekd.errors import RecipeError
from edgekd.spec import Call, Objective

FACTOR = 2
"""The middle of the projector has the teacher's width divided by it, as in the paper."""
CLOSE = 1e-3
"""Largest difference, as a share of the largest value, of two ways to the same numbers."""


def reused(
    network: nn.Module,
    *,
    tap: Literal["map", "features"],
    width: int,
    wanted: int,
    classes: int,
    bias: bool,
    kernel: tuple[int, int] = (1, 1),
) -> Reused:
    """Put a projector and a frozen classifier behind a network.

    Args:
        network: Has ``embed``, ``head`` and, for the tap ``map``, ``maps``; it is changed.
        tap: What is projected.
        width: Of the student's tap.
        wanted: Of the teacher's.
        classes: Width of the teacher's classifier.
        bias: Whether that has one.
        kernel: Of the projector's middle layer, for maps.
    """
    if tap == "map":
        return FromMaps(network, width, wanted, classes, bias, kernel)
    return Reused(network, vectors(width, wanted), wanted, classes, bias)


class Reused(nn.Module):
    """A student behind whose features a projector and the teacher's classifier stand."""

    def __init__(
        self, network: nn.Module, project: nn.Module, wanted: int, classes: int, bias: bool
    ) -> None:
        super().__init__()
        network.head = nn.Identity()
        self.network: Any = network
        self.project, self.features = project, wanted
        self.head = nn.Linear(wanted, classes, bias=bias)
        self.head.requires_grad_(False)

    def embed(self, x: Tensor) -> Tensor:
        """What the teacher's classifier reads: (batch, wanted)."""
        found: Tensor = self.project(self.network.embed(x))
        return found

    def forward(self, x: Tensor) -> Tensor:
        """(batch, classes)."""
        logits: Tensor = self.head(self.embed(x))
        return logits


class FromMaps(Reused):
    """The same behind its last feature map; the tap ``map`` is what the projector gives."""

    map = "project"

    def __init__(
        self,
        network: nn.Module,
        width: int,
        wanted: int,
        classes: int,
        bias: bool,
        kernel: tuple[int, int],
    ) -> None:
        super().__init__(network, convolutions(width, wanted, kernel), wanted, classes, bias)

    def embed(self, x: Tensor) -> Tensor:
        """What the teacher's classifier reads: (batch, wanted)."""
        pooled: Tensor = self.project(self.network.maps(x)).mean((2, 3))
        return pooled


def convolutions(width: int, wanted: int, kernel: tuple[int, int]) -> nn.Sequential:
    """The paper's projector: 1×1 to half the teacher's width, 3×3, 1×1, batch norm and ReLU."""
    middle = max(1, wanted // FACTOR)
    layers: list[nn.Module] = []
    for before, after, size in (
        (width, middle, (1, 1)),
        (middle, middle, kernel),
        (middle, wanted, (1, 1)),
    ):
        around = (size[0] // 2, size[1] // 2)
        layers += [nn.Conv2d(before, after, size, padding=around, bias=False)]
        layers += [nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)


def vectors(width: int, wanted: int) -> nn.Sequential:
    """Two layers; the end is linear, since features may be of either sign."""
    middle = max(width, wanted // FACTOR)
    return nn.Sequential(nn.Linear(width, middle), nn.ReLU(), nn.Linear(middle, wanted))


def reuse(
    network: nn.Module,
    teacher: nn.Module,
    objective: Objective,
    scaling: Scaling | None,
    probe: Tensor,
    theirs: Tensor,
) -> tuple[Reused, Call]:
    """End a student in the classifier of its teacher.

    Args:
        network: The student, freshly built; its own classifier is dropped.
        teacher: Is only read.
        objective: Its first term that reads the teacher says what is projected: ``map`` or
            ``features``.
        scaling: What was done to the teacher's features before the student learns them; undone in
            the classifier.
        probe: (samples, …) prepared for the student.
        theirs: The same samples, prepared for the teacher.

    Returns:
        The network, and the call that makes it of the student's.

    Raises:
        RecipeError: The teacher's classifier is no linear layer over that tap, or the student
            cannot be taken apart there.
    """
    tap = next((t.source for t in objective.terms if t.needs_teacher), "")
    if tap not in ("map", "features"):
        raise _refused(f"has no term on map or features, but on {tap or 'labels alone'}")
    head = _classifier(teacher, tap, theirs)
    found, goal = _student_tap(network, tap, probe), head.in_features
    args: dict[str, Any] = {
        "tap": tap, "width": found.shape[1], "wanted": goal, "classes": head.out_features,
        "bias": head.bias is not None,
    }  # fmt: skip
    if tap == "map":
        args["kernel"] = [3 if size > 1 else 1 for size in found.shape[2:]]
    elif scaling is not None:
        args["bias"] = True
    whole = reused(network, **args)
    with torch.no_grad():
        weight: Tensor = head.weight
        bias: Tensor | None = head.bias
        if tap == "features" and scaling is not None:
            shift = weight @ scaling.mean.to(weight)
            bias = shift if bias is None else bias + shift
            weight = weight * scaling.std.to(weight)
        whole.head.weight.copy_(weight)
        if bias is not None:
            whole.head.bias.copy_(bias)
    return whole, Call("edgekd.distill.reuse:reused", args)


def _classifier(teacher: nn.Module, tap: str, probe: Tensor) -> nn.Linear:
    """The teacher's last layer, where it reads the tap and nothing else."""
    head, embed = getattr(teacher, "head", None), getattr(teacher, "embed", None)
    if not isinstance(head, nn.Linear) or embed is None:
        raise _refused("needs a teacher with embed(x) and a linear layer 'head'")
    hooks = Hooks(teacher, ["map"] if tap == "map" else [])
    with torch.no_grad():
        logits = teacher.eval()(probe)
        read = hooks.seen["map"].mean((2, 3)) if tap == "map" else embed(probe)
    if read.shape[1] != head.in_features or not _close(head(read), logits):
        raise _refused("needs a teacher whose classifier reads the mean of its map", features=True)
    return head


def _student_tap(network: nn.Module, tap: str, probe: Tensor) -> Tensor:
    """The student's side of it, in the mode of evaluation; its features are the mean of a map."""
    embed, maps = getattr(network, "embed", None), getattr(network, "maps", None)
    if embed is None or not hasattr(network, "head"):
        raise _refused("needs a student with embed(x) and 'head'")
    mode = network.training
    network.eval()
    with torch.no_grad():
        features: Tensor = embed(probe)
        found = features if tap == "features" or maps is None else maps(probe)
    network.train(mode)
    if tap == "map" and (found.ndim != 4 or not _close(found.mean((2, 3)), features)):
        raise _refused("needs a student with maps(x), whose mean its features are", features=True)
    return found


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    return bool((a - b).abs().max() <= CLOSE * b.abs().max().clamp(min=1e-12))


def _refused(why: str, features: bool = False) -> RecipeError:
    return RecipeError(
        f"a student that ends in the teacher's classifier {why}",
        at="recipe: objective",
        hint="Term('features', 'mse') compares after the pooling"
        if features
        else "another objective",
    )
