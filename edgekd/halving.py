"""Successive halving: which of several short trainings earns the whole budget.

All begin with a few epochs; the better half goes on to a longer training, again from the start,
and so on until one is left (arXiv 1502.07943). Every turn has an equal share of what
is left of the budget.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

SHARE = 2
"""Budget of all trials together, in trainings of the student's own length."""


def budget(count: int, epochs: int) -> int:
    """Epochs of all trials together: `SHARE` trainings, and at least one epoch of each.

    Args:
        count: How many are tried.
        epochs: Of the student's own training.
    """
    return max(SHARE * epochs, count)


def turns(count: int, epochs: int) -> list[tuple[int, int]]:
    """Plan the trials: (epochs of each, how many stay after it) for every turn.

    A trial is never longer than half of the whole training. Where the budget is too small to train
    the better ones longer than all before, the turns are one.

    Args:
        count: How many are tried; one alone has nothing to prove.
        epochs: Of the student's own training.
    """
    sizes = [count]
    while sizes[-1] > 1:
        sizes.append(math.ceil(sizes[-1] / 2))
    rest, plan = budget(count, epochs), list[tuple[int, int]]()
    for turn, (size, stay) in enumerate(itertools.pairwise(sizes), 2):
        share = rest / (len(sizes) - turn + 1)
        length = min(epochs // 2, int(share / size))
        if plan and length <= plan[-1][0]:
            plan[-1] = (plan[-1][0], stay)
        else:
            plan.append((max(1, length), stay))
            rest -= size * plan[-1][0]
    return plan


def better(scores: Mapping[str, float | None], higher_is_better: bool, stay: int) -> list[str]:
    """The best, first of all the best one; equal ones in their order.

    Args:
        scores: Of those that took part, in the order that breaks ties; None or NaN for a training
            that failed, which is out.
        higher_is_better: Direction of the score.
        stay: How many.
    """
    sign = 1 if higher_is_better else -1
    sound = {n: sign * v for n, v in scores.items() if v is not None and not math.isnan(v)}
    return sorted(sound, key=lambda name: -sound[name])[:stay]


def told(tried: Sequence[Mapping[str, object]]) -> str:
    """Every turn in words: ``1 epoch: none 0.31, kd 0.4; 3 epochs: …``."""
    turns: dict[object, list[str]] = {}
    for row in tried:
        value = row["value"]
        said = f"{value:.4g}" if isinstance(value, int | float) else str(row["failed"])
        turns.setdefault(row["epochs"], []).append(f"{row['objective']} {said}")
    return "; ".join(
        f"{epochs} epoch{'' if epochs == 1 else 's'}: {', '.join(rows)}"
        for epochs, rows in turns.items()
    )
