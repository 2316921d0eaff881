"""How much a term counts: over the training, and by how much the teacher is ahead."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def factor(ramp: Sequence[tuple[float, float]], at: float) -> float:
    """Value of a broken line.

    Args:
        ramp: (share of the steps, factor), shares ascending; constant before and after; empty: 1.
        at: Share of the steps done.
    """
    if not ramp:
        return 1.0
    if at <= ramp[0][0]:
        return ramp[0][1]
    for (start, low), (end, high) in itertools.pairwise(ramp):
        if at <= end:
            return low + (high - low) * (at - start) / (end - start)
    return ramp[-1][1]


def gap(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """By how much the teacher's loss is smaller: 1 − theirs/ours, 0 to 1, no gradient.

    Args:
        student: Outputs (batch, …).
        teacher: The same.
        labels: Classes (batch,) int64, or goals of a regression.
    """
    ours, theirs = (_loss(x.detach(), labels) for x in (student, teacher))
    return (1 - theirs / ours.clamp(min=1e-12)).clamp(0, 1)


def _loss(output: Tensor, labels: Tensor) -> Tensor:
    if not labels.is_floating_point():
        return F.cross_entropy(output, labels)
    return F.mse_loss(output, labels.to(output.dtype).reshape(output.shape))
