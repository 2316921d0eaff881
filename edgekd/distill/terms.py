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
    "cosine": cosine,
    "kl": kl,
    "dist": dist,
}
LABEL = "ce"


def needs_teacher(term: Term) -> bool:
    """Whether the term compares with a teacher (all but the label's cross entropy)."""
    return term.tap != "label"


def check(term: Term) -> None:
    """Refuse a term whose parts do not exist.

    Raises:
        RecipeError: Unknown transform or divergence.
    """
    if not needs_teacher(term):
        if term.divergence != LABEL:
            raise RecipeError(f"a label term has divergence 'ce', got {term.divergence!r}")
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
