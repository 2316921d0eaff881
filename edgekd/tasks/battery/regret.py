"""What an action costs beyond the best one: a loss in money, not in distance to an expert.

An expert that knows the future does what a network without its knowledge cannot: the middle of
such answers is often far from what is cheapest on average. This loss asks the expert for the
cost of every action instead (its least cost to come at every state of energy), so that the
network learns what is cheapest over the futures that look alike to it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PLANT = ("soe", "net", "price", "feed_in", "capacity", "power", "charge", "discharge", "standby")
ASK = ("goal", "much")
WIDTH = len(PLANT) + len(ASK)
"""Numbers of a label beside the values: the home, the expert's output, whether much is asked."""
BETA = 0.02


def regret(student: Tensor, labels: Tensor, *, tie: float = 0.01, leak: float = 0.02) -> Tensor:
    """Mean money lost against the expert's action, where much is asked for.

    Where less is asked for, the goal itself is to be met (smooth absolute error).

    Args:
        student: (batch, steps) outputs.
        labels: (batch, steps, nodes + 11): the expert's least cost to come at states of energy
            from empty to full, and what `PLANT` and `ASK` name.
        tie: Money per kWh of deviation from the self-consumption rule.
        leak: Money per kWh asked for beyond what the battery can do: brings outputs back.
    """
    values, rest = (
        labels[..., :-WIDTH],
        dict(zip((*PLANT, *ASK), labels[..., -WIDTH:].unbind(-1), strict=True)),
    )
    cost, moved, beyond = _cost(student, values, rest)
    with torch.no_grad():
        least, _, _ = _cost(rest["goal"], values, rest)
    lost = cost - least + tie * moved + leak * beyond
    missed = F.smooth_l1_loss(student, rest["goal"], beta=BETA, reduction="none")
    return torch.where(rest["much"] > 0, lost, missed).mean()


def _cost(output: Tensor, values: Tensor, home: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Cost of an output now and later, its deviation from the rule, and what was out of reach.

    The same physics as `edgekd.agent.loops.battery`, with gradients.
    """
    power, soe, capacity = home["power"], home["soe"], home["capacity"]
    lowest = -torch.minimum(power, soe * home["discharge"])
    highest = torch.minimum(power, (capacity - soe) / home["charge"])
    rule = (-home["net"]).clamp(lowest, highest)
    wanted = rule + 2 * power * output
    action = wanted.clamp(lowest, highest)
    change = torch.where(action > 0, action * home["charge"], action / home["discharge"])
    grid = home["net"] + action + home["standby"]
    now = grid * torch.where(grid > 0, home["price"], home["feed_in"])
    last = values.shape[-1] - 1
    at = ((soe + change) / capacity * last).clamp(0, last)
    low = at.detach().long().clamp(0, last - 1)
    below, above = (values.gather(-1, n[..., None]).squeeze(-1) for n in (low, low + 1))
    later = below + (above - below) * (at - low)
    return now + later, (action - rule).abs(), (wanted - action).abs()
