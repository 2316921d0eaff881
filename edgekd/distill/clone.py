"""Low-rank clone: the student's weights are the teacher's times trained projections.

    W_s = L · W_t · R        W_t frozen; L (out_s, out_t) and R (in_t, in_s) are trained

(arXiv 2505.12781; theory 2603.22355). Every linear and convolutional layer is cloned from the
teacher's layer of the same name; of k×k kernels all places share L and R. Biases, norms and
whatever else has weights are trained as ever. A side of equal width needs no projection; where
both are equal, L is square and begins as the identity. `fold` multiplies out what ships: an
ordinary network, no larger than one trained from scratch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgekd.errors import RecipeError, StageError

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
PARITY = 1e-5
"""Largest change of an output by `fold`, as a share of the largest output."""
_NAMED = 3


class Cloned(nn.Module):
    """A frozen weight between trained projections, registered on the student's weight.

    Args:
        theirs: Weight of the teacher's layer, (out_t, in_t, …).
        shape: Of the student's weight, (out_s, in_s, …).

    Attributes:
        left: Whether there is an L; it is the first of the trained projections then.
    """

    theirs: Tensor

    def __init__(self, theirs: Tensor, shape: torch.Size) -> None:
        super().__init__()
        # Not part of the state: an average of weights would round it.
        self.register_buffer("theirs", theirs.detach().clone(), persistent=False)
        self._right = theirs.shape[1] != shape[1]
        self.left = theirs.shape[0] != shape[0] or not self._right
        self._shape = shape

    def forward(self, *trained: Tensor) -> Tensor:
        """Multiply out; in full precision, whatever the layer is run in."""
        sides = list(trained)
        weight = self.theirs
        with torch.autocast(weight.device.type, enabled=False):
            if self.left:
                weight = torch.einsum("so,o...->s...", sides.pop(0), weight)
            if self._right:
                weight = torch.einsum("si...,ir->sr...", weight, sides.pop(0))
        return weight

    def right_inverse(self, own: Tensor) -> tuple[Tensor, ...]:
        """Begin with orthonormal projections, as large as the student's own fresh weight."""
        rows, columns = self._shape[:2]
        sides = [_orthonormal(rows, self.theirs.shape[0])] if self.left else []
        sides += [_orthonormal(self.theirs.shape[1], columns)] if self._right else []
        with torch.no_grad():
            made = self.forward(*(side.to(self.theirs) for side in sides))
            scale = own.std(correction=0) / made.std(correction=0).clamp(min=1e-12)
        sides[0] = sides[0] * (scale if self._shape != self.theirs.shape else 1)
        return tuple(side.to(own) for side in sides)


def _orthonormal(rows: int, columns: int) -> Tensor:
    if rows == columns:
        return torch.eye(rows)
    return nn.init.orthogonal_(torch.empty(rows, columns))


def clone(student: nn.Module, teacher: nn.Module) -> None:
    """Replace the weights of the student's layers by projections of the teacher's, in place.

    Args:
        student: Freshly built; sets how large the weights begin.
        teacher: Is only read.

    Raises:
        RecipeError: The two are not alike layer for layer; the layers are named.
    """
    ours, theirs = layers(student), layers(teacher)
    faults = [_fault(name, ours.get(name), theirs.get(name)) for name in {**ours, **theirs}]
    found = [fault for fault in faults if fault] or ([] if ours else ["the student has none"])
    if found:
        more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise RecipeError(
            "a low-rank clone wants teacher and student alike layer for layer:"
            f" {'; '.join(found[:_NAMED])}{more}",
            at="recipe: objective",
            hint="build both by one function, the student with smaller widths; or take another"
            " objective",
        )
    for name, layer in ours.items():
        part = Cloned(theirs[name].weight, layer.weight.shape)
        parametrize.register_parametrization(layer, "weight", part)


def side_of(network: nn.Module, path: str) -> Callable[[Tensor], Tensor]:
    """What maps the teacher's output of a cloned layer to the student's width: its L, as it is now.

    No gradient reaches L here: projections of zero would be the least of all losses.

    Raises:
        RecipeError: The layer is not cloned.
    """
    layer = layers(network).get(path)
    if layer is None or not parametrize.is_parametrized(layer, "weight"):
        raise RecipeError(
            f"project='clone' wants a cloned layer, {path!r} is none",
            at="recipe: objective",
            hint="Objective(init='lowrank_clone') and the tap feat:PATH of a linear or"
            " convolutional layer",
        )
    parts: Any = layer.parametrizations.weight

    def narrowed(theirs: Tensor) -> Tensor:
        if not parts[0].left:
            return theirs
        left: Tensor = parts.original0.detach()
        if isinstance(layer, nn.Linear):
            return theirs @ left.T
        return torch.einsum("so,bo...->bs...", left, theirs)

    return narrowed


def layers(network: nn.Module) -> dict[str, Any]:
    """Return the layers that are cloned, by path."""
    return {n: m for n, m in network.named_modules() if isinstance(m, LAYERS)}


def _fault(name: str, ours: Any, theirs: Any) -> str:
    """Why a layer cannot be cloned; empty when it can."""
    if ours is None or theirs is None:
        who, other = ("teacher", "student") if ours is None else ("student", "teacher")
        return f"the {who}'s {name} ({_shown(ours or theirs)}) is not in the {other}"
    mine, its = ours.weight.shape, theirs.weight.shape
    if _kind(ours) != _kind(theirs) or mine[2:] != its[2:]:
        return f"{name} is {_shown(ours)} in the student, {_shown(theirs)} in the teacher"
    if mine[0] > its[0] or mine[1] > its[1]:
        return (
            f"{name} is wider in the student ({_shown(ours)}) than the teacher ({_shown(theirs)})"
        )
    return ""


def _kind(layer: nn.Module) -> str:
    return next(kind.__name__ for kind in LAYERS if isinstance(layer, kind))


def _shown(layer: Any) -> str:
    """``Conv2d 6→8, 3×3``."""
    rows, columns, *kernel = layer.weight.shape
    size = f", {'×'.join(map(str, kernel))}" if kernel else ""
    return f"{_kind(layer)} {columns}→{rows}{size}"


def fold(network: nn.Module, probe: Tensor) -> dict[str, int | float]:
    """Multiply the projections out, in place: what is left is an ordinary network.

    Args:
        network: That `clone` changed.
        probe: (samples, …) prepared samples that both forms are run on.

    Returns:
        ``layers`` cloned, ``projections`` (numbers trained in them), ``parity`` (largest change of
        an output, as a share of the largest output), its ``bound``, ``samples``.

    Raises:
        StageError: The change is beyond `PARITY`: what would ship is not what was trained.
    """
    cloned = [m for m in layers(network).values() if parametrize.is_parametrized(m, "weight")]
    trained = sum(p.numel() for m in cloned for p in m.parametrizations.weight.parameters())
    mode = network.training
    network.eval()
    with torch.no_grad():
        before = network(probe)
    for layer in cloned:  # with gradients: what is folded without becomes a buffer
        parametrize.remove_parametrizations(layer, "weight")
    with torch.no_grad():
        after = network(probe)
    network.train(mode)
    largest = float(before.abs().max().clamp(min=1e-12))
    parity = float((after - before).abs().max()) / largest
    if not parity <= PARITY:
        raise StageError(
            f"folding the low-rank clone changed an output by {parity:.2g} of the largest one,"
            f" more than {PARITY:g}",
            hint="a layer of the network is used otherwise than by its weight",
        )
    return {
        "layers": len(cloned),
        "projections": trained,
        "parity": parity,
        "bound": PARITY,
        "samples": len(probe),
    }
