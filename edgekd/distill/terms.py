"""A term at work: which functions it names, whether they exist, what it is worth on a batch."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.calls import resolve
from edgekd.distill import divergences, learned, transforms
from edgekd.distill.divergences import DIVERGENCES
from edgekd.distill.learned import LEARNED
from edgekd.distill.transforms import TRANSFORMS
from edgekd.errors import RecipeError, did_you_mean
from edgekd.spec import Call, Term

LABELS = ("auto", "ce", "mse", "smooth_l1", "contrastive")
"""Divergences between the network's output and a label."""


def check(term: Term, base: Path | None = None) -> None:
    """Refuse a term whose parts do not exist or take other arguments.

    Args:
        term: The term.
        base: Folder of the recipe, for a divergence of the recipe's own.

    Raises:
        RecipeError: Unknown transform, divergence or argument.
    """
    if not term.source:
        if ":" not in term.divergence:
            _known(term.divergence, LABELS)
        return
    _known(term.transform, TRANSFORMS)
    if ":" not in term.divergence:
        _known(term.divergence, {**DIVERGENCES, **LEARNED})
    taken = _arguments(TRANSFORMS[term.transform], 1) | _arguments(_row(term, base), 2)
    unknown = sorted(set(term.args) - taken)
    if unknown:
        raise RecipeError(
            f"term {term.divergence!r} takes no argument {unknown[0]!r}",
            at="recipe: objective",
            hint=did_you_mean(unknown[0], taken),
        )


def _known(name: str, names: Any) -> None:
    if name not in names:
        raise RecipeError(
            f"a term has no part {name!r}", at="recipe: objective", hint=did_you_mean(name, names)
        )


def _row(term: Term, base: Path | None = None) -> Callable[..., Any]:
    """The divergence's function or class; the user's own is loaded from the recipe's folder."""
    name = term.divergence
    if ":" in name:
        return resolve(Call(name), base or Path())
    return DIVERGENCES[name] if name in DIVERGENCES else LEARNED[name]


@cache
def _arguments(function: Callable[..., Any], tensors: int) -> frozenset[str]:
    """Names of a function's own settings: all but its first tensors and ``labels``."""
    return frozenset(list(inspect.signature(function).parameters)[tensors:]) - {"labels"}


@cache
def _reads_labels(function: Callable[..., Any]) -> bool:
    return "labels" in inspect.signature(function).parameters


def _args(term: Term, function: Callable[..., Any], tensors: int) -> dict[str, Any]:
    taken = _arguments(function, tensors)
    return {name: value for name, value in term.args.items() if name in taken}


def couples(term: Term) -> bool:
    """Whether the value of a batch is more than the mean over its samples."""
    mixing = divergences.COUPLED | learned.COUPLED
    return (
        term.divergence in mixing
        or term.divergence == "contrastive"
        or (bool(term.source) and term.transform in transforms.COUPLED)
    )


def build(
    term: Term, student: tuple[int, ...], teacher: tuple[int, ...], labels: Tensor
) -> nn.Module | None:
    """The learned part of a term, or None.

    Args:
        term: The term.
        student: Shape of one sample of the student's tap, projected and transformed.
        teacher: Of the teacher's.
        labels: Of the training split.
    """
    if term.divergence not in LEARNED:
        return None
    return LEARNED[term.divergence](student, teacher, labels, **_args(term, _row(term), 2))


def transform(term: Term, x: Tensor) -> Tensor:
    """Apply the term's transform."""
    change = TRANSFORMS[term.transform]
    return change(x, **_args(term, change, 1))


@dataclass(frozen=True)
class Bound:
    """A term whose functions are found and whose arguments are picked, once for many steps.

    Attributes:
        change: Its transform; None where that leaves everything as it is.
        divergence: Its function; None for a learned one.
        args: Of the divergence.
        labelled: Whether the divergence reads labels.
    """

    change: Callable[[Tensor], Tensor] | None
    divergence: Callable[..., Tensor] | None
    args: Mapping[str, Any]
    labelled: bool

    def seen(self, x: Tensor) -> Tensor:
        """Apply the transform."""
        return x if self.change is None else self.change(x)


def bind(term: Term, base: Path | None = None) -> Bound:
    """Find the functions of a term that has a teacher's side."""
    change = None if term.transform == "identity" else functools.partial(transform, term)
    if term.divergence in LEARNED:
        return Bound(change, None, {}, False)
    function = _row(term, base)
    return Bound(change, function, _args(term, function, 2), _reads_labels(function))


def compare(
    term: Term,
    student: Tensor,
    teacher: Tensor,
    *,
    labels: Tensor | None = None,
    indices: Tensor | None = None,
    part: nn.Module | None = None,
    base: Path | None = None,
    bound: Bound | None = None,
) -> Tensor:
    """Value of one term (unweighted); no gradient reaches the teacher.

    Args:
        term: The term.
        student: (batch, …), already projected.
        teacher: (batch, …).
        labels: (batch, …), for divergences that read them.
        indices: Places in the data, for those with a memory.
        part: What `build` made.
        base: Folder of the recipe.
        bound: What `bind` made of the term, where many steps compare by it.
    """
    bound = bind(term, base) if bound is None else bound
    student, teacher = same_places(student, teacher.detach())
    goal, mine = bound.seen(teacher), bound.seen(student)
    if part is not None:
        value: Tensor = part(mine, goal, labels, indices)
        return value
    assert bound.divergence is not None
    extra = {**bound.args, "labels": labels} if bound.labelled else bound.args
    return bound.divergence(mine, goal, **extra)


def same_places(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Average the larger of two maps down to the places of the smaller one."""
    if a.ndim != 4 or b.ndim != 4 or a.shape[2:] == b.shape[2:]:
        return a, b
    size = (min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3]))
    return F.adaptive_avg_pool2d(a, size), F.adaptive_avg_pool2d(b, size)


def against_label(
    term: Term,
    taps: Mapping[str, Tensor],
    labels: Tensor,
    *,
    smoothing: float = 0.0,
    base: Path | None = None,
) -> Tensor:
    """Value of a label term (unweighted).

    Args:
        term: The term.
        taps: Of the student: ``logits`` (batch, classes), the output vector of a regression, or
            for ``contrastive`` the ``features`` of two towers.
        labels: Classes (batch,) int64, or goals: floats of the shape of the output, or (batch,)
            where the network returns one number.
        smoothing: Of the cross entropy.
        base: Folder of the recipe, for a divergence of its own of (output, labels).

    Raises:
        RecipeError: The labels do not fit the divergence or the output.
    """
    kind = divergence_of(term, labels)
    if kind == "contrastive":
        return contrastive(taps["features"].float(), **_args(term, contrastive, 1))
    output = taps["logits"].float()
    if ":" in kind:
        function = _row(term, base)
        value: Tensor = function(output, labels, **_args(term, function, 2))
        return value
    if kind == "ce":
        given, weights = term.args.get("weights"), None
        if given is not None:
            weights = torch.as_tensor(given, dtype=output.dtype, device=output.device)
        return F.cross_entropy(output, labels, weights, label_smoothing=smoothing)
    goal = labels.to(output.dtype)
    goal = goal[:, None] if goal.ndim == 1 and output.ndim == 2 else goal
    if goal.shape != output.shape:
        raise RecipeError(
            f"the network returns {tuple(output.shape[1:])} a sample, its labels are"
            f" {tuple(labels.shape[1:])}",
            at="recipe: student",
            hint="a regression wants one output for every number of the label",
        )
    if kind == "mse":
        return F.mse_loss(output, goal)
    beta = term.args.get("beta", 1.0)
    assert isinstance(beta, int | float)
    return F.smooth_l1_loss(output, goal, beta=beta)


def contrastive(x: Tensor, scale: float = 1 / 0.07) -> Tensor:
    """Each tower finds the other one of the same sample (CLIP, arXiv 2103.00020)."""
    table = transforms.crosssim(x, scale)
    own = torch.arange(len(x), device=x.device).repeat(2)
    return F.cross_entropy(table, own)


def divergence_of(term: Term, labels: Tensor) -> str:
    """Divergence of a label term, ``auto`` settled.

    Raises:
        RecipeError: Cross entropy against goals of a regression.
    """
    goals = labels.is_floating_point()
    if term.divergence == "auto":
        return "smooth_l1" if goals else "ce"
    if term.divergence == "ce" and goals:
        raise RecipeError(
            "the labels are floats, a label term with 'ce' needs classes",
            at="recipe: objective",
            hint="Term('label', 'smooth_l1') or 'mse', or integer labels",
        )
    return term.divergence
