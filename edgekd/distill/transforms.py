"""What is compared: views of a tap, the same function on both sides.

Vectors are (batch, width), maps (batch, channels, height, width) or (batch, channels, length).
Every function is differentiable, also at zeros and at equal rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-12


def identity(x: Tensor) -> Tensor:
    """Leave as it is."""
    return x


def flat(x: Tensor) -> Tensor:
    """Everything but the batch as one vector."""
    return x.flatten(1)


def pool(x: Tensor) -> Tensor:
    """Mean over space: a map becomes (batch, channels)."""
    return x.flatten(2).mean(2) if x.ndim > 2 else x


def l2norm(x: Tensor) -> Tensor:
    """Scale every row to unit length."""
    return F.normalize(x, dim=1)


def l2towers(x: Tensor) -> Tensor:
    """Unit length for each half of the row: two towers' embeddings side by side."""
    return torch.cat([F.normalize(half, dim=1) for half in x.chunk(2, 1)], 1)


def zscore(x: Tensor) -> Tensor:
    """Standardise every row, unbiased (logit standardisation, arXiv 2403.01427)."""
    return (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-7)


def attention(x: Tensor, power: float = 2.0) -> Tensor:
    """Where a map is strong: unit-length mean over channels of |x|^power (arXiv 1612.03928)."""
    return F.normalize(x.abs().pow(power).mean(1).flatten(1), dim=1)


def gram(x: Tensor) -> Tensor:
    """Cosine of every pair in the batch: (batch, batch) (relations, as arXiv 1907.09682)."""
    rows = F.normalize(x, dim=1)
    return rows @ rows.T


def similarity(x: Tensor) -> Tensor:
    """Products of every pair in the batch, rows of unit length (SP, arXiv 1907.09682)."""
    rows = x.flatten(1)
    return F.normalize(rows @ rows.T, dim=1)


def affinity(x: Tensor) -> Tensor:
    """Cosines of the batch as probabilities by row (PKT, arXiv 1803.10837)."""
    rows = F.normalize(x.flatten(1), dim=1)
    chances = (rows @ rows.T + 1) / 2
    return chances / chances.sum(1, keepdim=True)


def distances(x: Tensor) -> Tensor:
    """Distance of every pair, divided by the mean of the positive ones (RKD, 1904.05068)."""
    rows = x.flatten(1)
    squared = (rows[:, None] - rows[None]).pow(2).sum(2)
    found = _root(squared)
    positive = found > 0
    count = positive.sum()
    mean = (found * positive).sum() / count.clamp(min=1)
    return found / torch.where(count > 0, mean, torch.ones_like(mean))


def angles(x: Tensor) -> Tensor:
    """Cosine of the angle at every corner of every triplet (RKD, arXiv 1904.05068)."""
    rows = x.flatten(1)
    sides = F.normalize(rows[None] - rows[:, None], dim=2)
    return torch.bmm(sides, sides.transpose(1, 2)).flatten()


def crosssim(x: Tensor, scale: float = 1 / 0.07) -> Tensor:
    """Scaled cosines between two towers, both ways: (2·batch, batch) (CLIP-KD, 2307.12732)."""
    one, two = (F.normalize(half, dim=1) for half in x.chunk(2, 1))
    table = scale * one @ two.T
    return torch.cat((table, table.T))


def rows(x: Tensor) -> Tensor:
    """Every channel of a map as a row over space: (batch·channels, positions)."""
    return x.flatten(2).flatten(0, 1)


def channel_rows(x: Tensor) -> Tensor:
    """Channels of unit length: (batch, channels, positions) (NST, arXiv 1707.01219)."""
    return F.normalize(x.flatten(2), dim=2)


def standardise(x: Tensor) -> Tensor:
    """Every channel to mean 0, deviation 1 over batch and space (PKD, arXiv 2207.02039)."""
    dims = [d for d in range(x.ndim) if d != 1]
    return (x - x.mean(dims, keepdim=True)) / (x.std(dims, keepdim=True) + 1e-6)


def dwt_detail(x: Tensor) -> Tensor:
    """Haar detail over the classes, one level; an odd width is padded by its last value."""
    even, odd = _pairs(x)
    return (even - odd) / math.sqrt(2)


def dwt_approx(x: Tensor) -> Tensor:
    """Haar approximation over the classes, one level; see `dwt_detail`."""
    even, odd = _pairs(x)
    return (even + odd) / math.sqrt(2)


def class_gram(x: Tensor, temperature: float = 4.0) -> Tensor:
    """Products of classes over the batch, of probabilities (MLKD, CVPR 2023)."""
    chances = (x / temperature).softmax(1)
    return chances.T @ chances


def batch_gram(x: Tensor, temperature: float = 4.0) -> Tensor:
    """Products of samples over the classes, of probabilities (MLKD, CVPR 2023)."""
    chances = (x / temperature).softmax(1)
    return chances @ chances.T


def _pairs(x: Tensor) -> tuple[Tensor, Tensor]:
    if x.shape[1] % 2:
        x = torch.cat((x, x[:, -1:]), 1)
    return x[:, 0::2], x[:, 1::2]


def _root(squared: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0, not infinite."""
    positive = squared > EPS
    safe = torch.where(positive, squared, torch.ones_like(squared))
    return torch.where(positive, safe.sqrt(), torch.zeros_like(squared))


TRANSFORMS: Mapping[str, Callable[..., Tensor]] = {
    f.__name__: f
    for f in (
        identity,
        flat,
        pool,
        l2norm,
        l2towers,
        zscore,
        attention,
        gram,
        similarity,
        affinity,
        distances,
        angles,
        crosssim,
        rows,
        channel_rows,
        standardise,
        dwt_detail,
        dwt_approx,
        class_gram,
        batch_gram,
    )
}
COUPLED = frozenset(
    {
        "gram",
        "similarity",
        "affinity",
        "distances",
        "angles",
        "crosssim",
        "standardise",
        "class_gram",
        "batch_gram",
    }
)
"""Transforms that mix the samples of a batch."""
