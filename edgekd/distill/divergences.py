"""How far the student is from the teacher: short functions of two tensors, each one number.

Everything is a mean over the batch; a divergence of softened logits is multiplied by T², so that
its gradient does not depend on T to first order. ``labels`` are classes (batch,) int64, passed to
the functions that name them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

MASKED = -1e9
"""Logit of a class that is left out."""


def mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error over all elements (FitNets, arXiv 1412.6550)."""
    return F.mse_loss(student, teacher)


def sse(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared error, summed over a sample's elements."""
    return (student - teacher).pow(2).flatten(1).sum(1).mean()


def l1(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute error over all elements."""
    return F.l1_loss(student, teacher)


def smooth_l1(student: Tensor, teacher: Tensor, beta: float = 1.0) -> Tensor:
    """Quadratic below ``beta``, linear above: mean over all elements (actions, RKD)."""
    return F.smooth_l1_loss(student, teacher, beta=beta)


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """1 − cosine, mean over the batch."""
    return (1 - F.cosine_similarity(student, teacher, dim=1)).mean()


def kl(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """T²·KL(softmax(t/T) ‖ softmax(s/T)) (arXiv 1503.02531)."""
    log_s = F.log_softmax(student / temperature, 1)
    log_t = F.log_softmax(teacher / temperature, 1)
    return F.kl_div(log_s, log_t, reduction="batchmean", log_target=True) * temperature**2


def reverse_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T²·KL(softmax(s/T) ‖ softmax(t/T)): seeks modes (MiniLLM, arXiv 2306.08543)."""
    log_s = F.log_softmax(student / temperature, 1)
    log_t = F.log_softmax(teacher / temperature, 1)
    return F.kl_div(log_t, log_s, reduction="batchmean", log_target=True) * temperature**2


def jsd(student: Tensor, teacher: Tensor, beta: float = 0.5, temperature: float = 1.0) -> Tensor:
    """T²·(β·KL(p_t ‖ m) + (1 − β)·KL(p_s ‖ m)), m = (1 − β)·p_s + β·p_t (GKD, 2306.13649).

    At β = 0 it is `kl`, at β = 1 `reverse_kl`, by definition: the formula itself is 0 there.
    """
    if beta in (0, 1):
        return (reverse_kl if beta else kl)(student, teacher, temperature)
    log_s = F.log_softmax(student / temperature, 1)
    log_t = F.log_softmax(teacher / temperature, 1)
    shares = torch.tensor([1 - beta, beta], dtype=log_s.dtype, device=log_s.device).log()
    middle = torch.logsumexp(torch.stack((log_s + shares[0], log_t + shares[1])), 0)
    both = beta * (log_t.exp() * (log_t - middle)) + (1 - beta) * (log_s.exp() * (log_s - middle))
    return both.sum(1).mean() * temperature**2


def dkd(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> Tensor:
    """T²·(α·KL of (target, rest) + β·KL among the others) (DKD, arXiv 2203.08679)."""
    target = F.one_hot(labels, student.shape[1]).bool()
    binary = [_target_and_rest(x / temperature, target) for x in (student, teacher)]
    others = [(x / temperature).masked_fill(target, MASKED) for x in (student, teacher)]
    about_target = F.kl_div(binary[0], binary[1], reduction="batchmean", log_target=True)
    log_s, log_t = (F.log_softmax(x, 1) for x in others)
    among_others = F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)
    return (alpha * about_target + beta * among_others) * temperature**2


def _target_and_rest(logits: Tensor, target: Tensor) -> Tensor:
    """Logarithms of the chance of the target and of all others: (batch, 2)."""
    log_p = F.log_softmax(logits, 1)
    own = log_p[target][:, None]
    rest = torch.logsumexp(log_p.masked_fill(target, -torch.inf), 1, keepdim=True)
    return torch.cat((own, rest), 1)


def dist(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 1.0,
    between: float = 1.0,
    within: float = 1.0,
) -> Tensor:
    """T²·(1 − Pearson over classes + 1 − Pearson over the batch) (DIST, arXiv 2205.10536)."""
    s, t = (student / temperature).softmax(1), (teacher / temperature).softmax(1)
    inter = 1 - F.cosine_similarity(s - s.mean(1, True), t - t.mean(1, True), dim=1).mean()
    intra = 1 - F.cosine_similarity(s - s.mean(0, True), t - t.mean(0, True), dim=0).mean()
    return (between * inter + within * intra) * temperature**2


def hard(student: Tensor, teacher: Tensor) -> Tensor:
    """Cross entropy with the teacher's own choice (DeiT, arXiv 2012.12877; pseudo-labels)."""
    return F.cross_entropy(student, teacher.argmax(1))


def wsld(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float = 2.0) -> Tensor:
    """T²·(1 − exp(−CE_s/CE_t))·H(p_t, p_s) by sample (WSLD, arXiv 2102.00650)."""
    mine = F.cross_entropy(student, labels, reduction="none").detach()
    theirs = F.cross_entropy(teacher, labels, reduction="none")
    weight = 1 - torch.exp(-mine / theirs.clamp(min=1e-12))
    soft = F.softmax(teacher / temperature, 1) * F.log_softmax(student / temperature, 1)
    return -(weight * soft.sum(1)).mean() * temperature**2


def relative_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over all entries of t·log(t/s), both probabilities by row (PKT, arXiv 1803.10837)."""
    return (teacher * ((teacher + 1e-7) / (student + 1e-7)).log()).mean()


def gram_sum(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared error summed over all entries, over the number of rows (MLKD, CVPR 2023)."""
    return (student - teacher).pow(2).sum() / len(student)


def mmd(student: Tensor, teacher: Tensor) -> Tensor:
    """Discrepancy of two sets of channels, kernel (aᵀb)² (NST, arXiv 1707.01219).

    Args:
        student: (batch, channels, positions), rows of unit length.
        teacher: The same positions; another number of channels is fine.
    """

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.transpose(1, 2)).pow(2).mean()

    return kernel(teacher, teacher) + kernel(student, student) - 2 * kernel(student, teacher)


def icl(student: Tensor, teacher: Tensor, scale: float = 1 / 0.07) -> Tensor:
    """Each student tower must find its teacher's other tower (ICL of CLIP-KD, 2307.12732).

    Args:
        student: Two towers side by side, (batch, 2·width).
        teacher: The same.
        scale: Of the cosines; the paper's code uses ln(1/0.07) where 1/0.07 is meant.
    """
    (v, u), (tv, tu) = ([F.normalize(h, dim=1) for h in x.chunk(2, 1)] for x in (student, teacher))
    own = torch.arange(len(student), device=student.device)
    pairs = (scale * v @ tu.T, scale * u @ tv.T)
    first, second = (F.cross_entropy(table, own) for table in pairs)
    return (first + second) / 2


def vrd(student: Tensor, teacher: Tensor, scale: float = 10.0) -> Tensor:
    """symKL(S(v_s, v_t), S(u_s, u_t)): alike in both towers (CLIP-RD, 2603.25383, rebuilt)."""
    (v, u), (tv, tu) = ([F.normalize(h, dim=1) for h in x.chunk(2, 1)] for x in (student, teacher))
    return _symmetric(scale * v @ tv.T, scale * u @ tu.T)


def xrd(student: Tensor, teacher: Tensor, scale: float = 10.0) -> Tensor:
    """symKL(S(v_s, u_t), S(u_s, v_t)): alike across towers (CLIP-RD, 2603.25383, rebuilt)."""
    (v, u), (tv, tu) = ([F.normalize(h, dim=1) for h in x.chunk(2, 1)] for x in (student, teacher))
    return _symmetric(scale * v @ tu.T, scale * u @ tv.T)


def _symmetric(a: Tensor, b: Tensor) -> Tensor:
    return (kl(a, b, 1.0) + kl(b, a, 1.0)) / 2


DIVERGENCES: Mapping[str, Callable[..., Tensor]] = {
    f.__name__: f
    for f in (
        mse,
        sse,
        l1,
        smooth_l1,
        cosine,
        kl,
        reverse_kl,
        jsd,
        dkd,
        dist,
        hard,
        wsld,
        relative_entropy,
        gram_sum,
        mmd,
        icl,
        vrd,
        xrd,
    )
}
LOGITS = frozenset({"kl", "reverse_kl", "jsd", "dkd", "dist", "hard", "wsld"})
"""Divergences of classes: undefined for an output of one number."""
COUPLED = frozenset({"dist", "gram_sum", "icl", "vrd", "xrd"})
"""Divergences that mix the samples of a batch."""
