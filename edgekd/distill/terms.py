"""The terms of an objective: two tables of short functions.

A term is ``weight · divergence(transform(student), transform(teacher))``. Every function takes
float tensors of shape (batch, width); a divergence returns the mean over the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekd.errors import RecipeError, did_you_mean
from edgekd.spec import Term


def identity(x: Tensor) -> Tensor:
    """Leave as it is."""
    return x


def l2norm(x: Tensor) -> Tensor:
    """Scale every row to unit length."""
    return F.normalize(x, dim=1)


def zscore(x: Tensor) -> Tensor:
    """Standardise every row, unbiased (logit standardisation, arXiv 2403.01427)."""
    return (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-7)


def gram(x: Tensor) -> Tensor:
    """Cosine of every pair in the batch: (batch, batch) (relations, as arXiv 1907.09682)."""
    rows = F.normalize(x, dim=1)
    return rows @ rows.T


def mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error over all elements (FitNets, arXiv 1412.6550)."""
    return F.mse_loss(student, teacher)


def smooth_l1(student: Tensor, teacher: Tensor, beta: float = 1.0) -> Tensor:
    """Huber-like error over all elements: quadratic below ``beta`` (actions, sequences)."""
    return F.smooth_l1_loss(student, teacher, beta=beta)


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """1 − cosine, mean over the batch."""
    return (1 - F.cosine_similarity(student, teacher, dim=1)).mean()


def kl(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """T²·KL(softmax(t/T) ‖ softmax(s/T)) (arXiv 1503.02531)."""
    log_s = F.log_softmax(student / temperature, 1)
    log_t = F.log_softmax(teacher / temperature, 1)
    return F.kl_div(log_s, log_t, reduction="batchmean", log_target=True) * temperature**2


def dist(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T²·(1 − Pearson over classes + 1 − Pearson over the batch) (DIST, arXiv 2205.10536)."""
    s, t = (student / temperature).softmax(1), (teacher / temperature).softmax(1)
    between = 1 - F.cosine_similarity(s - s.mean(1, True), t - t.mean(1, True), dim=1).mean()
    within = 1 - F.cosine_similarity(s - s.mean(0, True), t - t.mean(0, True), dim=0).mean()
    return (between + within) * temperature**2


TRANSFORMS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "identity": identity,
    "l2norm": l2norm,
    "zscore": zscore,
    "gram": gram,
}
DIVERGENCES: Mapping[str, Callable[..., Tensor]] = {
    "mse": mse,
    "smooth_l1": smooth_l1,
    "cosine": cosine,
    "kl": kl,
    "dist": dist,
}
LABELS = ("auto", "ce", "mse", "smooth_l1")
"""Divergences between the network's output and a label."""


def needs_teacher(term: Term) -> bool:
    """Whether the term compares with a teacher (all but those of the label)."""
    return term.tap != "label"


def against_label(term: Term, output: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Value of a label term (unweighted).

    Args:
        term: The term.
        output: Logits (batch, classes), or the output vector of a regression.
        labels: Classes (batch,) int64, or goals: floats of the shape of ``output``, or (batch,)
            where the network returns one number.
        smoothing: Of the cross entropy.

    Raises:
        RecipeError: The labels do not fit the divergence or the output.
    """
    kind = divergence_of(term, labels)
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


def check(term: Term) -> None:
    """Refuse a term whose parts do not exist.

    Raises:
        RecipeError: Unknown transform or divergence.
    """
    if not needs_teacher(term):
        if term.divergence not in LABELS:
            raise RecipeError(
                f"a label term has no divergence {term.divergence!r}",
                hint=did_you_mean(term.divergence, LABELS),
            )
        return
    for name, table in ((term.transform, TRANSFORMS), (term.divergence, DIVERGENCES)):
        if name not in table:
            raise RecipeError(f"unknown term part {name!r}", hint=did_you_mean(name, table))


def compare(term: Term, student: Tensor, teacher: Tensor) -> Tensor:
    """Value of one term (unweighted); no gradient reaches the teacher.

    Args:
        term: The term.
        student: (batch, width), already projected.
        teacher: (batch, width).
    """
    change = TRANSFORMS[term.transform]
    with torch.no_grad():
        goal = change(teacher.float())
    return DIVERGENCES[term.divergence](change(student.float()), goal, **term.args)
