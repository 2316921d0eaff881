"""What a network is measured against: the optimum, a planner that looks ahead, and rules.

Numpy alone, but for the linear programme (scipy). All of them act through the same plant as a
network, with the same knowledge: the present net load, the prices ahead, the forecast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.agent.loops.battery import Plant, Record, World, bill, plant_of, rule
from edgekd.errors import SetupError

Floats = NDArray[np.float64]
Policy = Callable[[int, Plant], Floats]
"""(step, plant) → the action that each home wants, kWh; it is clamped afterwards."""

NODES = 33
"""States of energy on the planner's grid, by default."""
FINE = 257
"""The same for the optimum."""
BLOCK = 1024
"""Steps that the planner works on at once: bounds its memory."""
TIE = 1e-6
"""Money per kWh of deviation from the rule: among equal plans the one nearest the rule."""


def simulate(policy: Policy, world: World) -> dict[str, NDArray[Any]]:
    """Run a policy in closed loop; see `edgekd.agent.loops.battery.drive` for the arrays."""
    plant, kept, net = plant_of(world), Record(world.homes, world.steps), world.net
    for i in range(world.steps):
        action = plant.clamp(policy(i, plant))
        grid = plant.apply(action, net[:, i])
        cost = bill(grid, world.price[:, i], world.feed_in)
        kept.put(i, action=action, soe=plant.soe, grid=grid, cost=cost)
    return kept.arrays


def idle_cost(world: World) -> Floats:
    """Cost of each step without a battery: (homes, steps)."""
    steps = slice(0, world.steps)
    cost: Floats = bill(world.net[:, steps], world.price[:, steps], world.feed_in[:, None])
    return cost


def self_consumption(world: World) -> Policy:
    """Store the surplus, cover the load."""
    net = world.net
    return lambda i, plant: rule(plant, net[:, i])


def price_quantile(world: World, horizon: int, *, buy: float = 0.05, sell: float = 0.3) -> Policy:
    """Charge in the cheapest steps, cover the load in all but the cheap ones.

    Suits prices that differ from hour to hour; needs no forecast of load or generation.

    Args:
        world: The homes.
        horizon: Steps of known prices.
        buy: Quantile of the coming prices up to which to charge at full power.
        sell: Quantile from which to discharge.
    """
    net, price = world.net, world.price

    def act(i: int, plant: Plant) -> Floats:
        low, high = np.quantile(price[:, i : i + horizon], (buy, sell), axis=1)
        now, wanted = price[:, i], rule(plant, net[:, i])
        kept = np.where(now < high, np.maximum(wanted, 0), wanted)
        action: Floats = np.where(now <= low, plant.power, kept)
        return action

    return act


def price_top_up(world: World, horizon: int, *, ahead: int = 2) -> Policy:
    """Self-consumption, and fill up right before the price rises enough to pay for the losses.

    Suits tariffs by time of use; needs no forecast of load or generation.

    Args:
        world: The homes.
        horizon: Steps of known prices.
        ahead: How many steps before the rise; at most ``horizon`` − 1.
    """
    net, price = world.net, world.price
    worth = world.charge * world.discharge

    def act(i: int, plant: Plant) -> Floats:
        soon = price[:, i + 1 : i + 1 + min(ahead, horizon - 1)].max(1)
        pays = soon * worth > price[:, i] + 1e-9
        action: Floats = np.where(pays, plant.power, rule(plant, net[:, i]))
        return action

    return act


def deciding(
    arrays: Mapping[str, NDArray[Any]],
    *,
    rule: str,
    horizon: int = 0,
    end: float = 0.0,
    **more: Any,
) -> Callable[[], Any]:
    """Return what takes one decision for one home, ready to be timed alone.

    Args:
        arrays: `World.arrays` of the home; ``scenarios`` for a plan.
        rule: Name of a rule of this module; empty for a plan over ``horizon`` steps.
        horizon: Steps of known prices.
        end: See `Planner`.
        **more: Settings of the rule.
    """
    given = dict(arrays)
    scenarios = given.pop("scenarios", None)
    world = World.of(given)
    battery = plant_of(world)
    if not rule:

        def decide() -> Any:
            value = np.full(world.homes, end)
            planner = Planner(world, horizon, value, scenarios=scenarios, first=12, count=1)
            return planner(12, battery)

        return decide
    settings = more | ({"horizon": horizon} if horizon else {})
    policy = RULES[rule](world, **settings)
    return lambda: battery.clamp(policy(0, battery))


RULES: Mapping[str, Callable[..., Policy]] = {
    one.__name__: one for one in (self_consumption, price_quantile, price_top_up)
}


# --- planning by dynamic programming -----------------------------------------------------------


class Planner:
    """Best action at any state of energy, planned over ``horizon`` steps (dynamic programming).

    The net load of the present step is known. For the others there are scenarios, equally likely;
    the plan minimises the mean cost over them, taking each as certain after the present step.
    What is in the battery at the end of the horizon is worth ``end`` money a kWh.

    Args:
        world: The homes.
        horizon: Steps to look ahead, the present one included.
        end: (homes,) value of stored energy at the horizon's end, money per kWh.
        scenarios: (scenarios, homes, steps + horizon) net load; the world's forecast by default.
        first: First step to plan for.
        count: How many steps; all by default.
        nodes: States of energy on the grid.
    """

    def __init__(
        self,
        world: World,
        horizon: int,
        end: Floats,
        *,
        scenarios: Floats | None = None,
        first: int = 0,
        count: int | None = None,
        nodes: int = NODES,
    ) -> None:
        self.world, self.horizon, self.first, self.nodes = world, horizon, first, nodes
        self.count = world.steps - first if count is None else count
        self._net = world.net
        forecasts = world.expected[None] if scenarios is None else scenarios
        self._values: Floats = np.mean([self._plan(end, one) for one in forecasts], 0)

    def __call__(self, i: int, plant: Plant) -> Floats:
        """Best action of every home at step ``i`` and the plant's state of energy."""
        return self.act(np.arange(len(plant.soe)), np.full(len(plant.soe), i), plant)

    def act(self, homes: NDArray[np.int64], steps: NDArray[np.int64], plant: Plant) -> Floats:
        """Best actions for rows of (home, step) with one battery of ``plant`` each.

        Cost and value are linear between the nodes, so the best action leads to a node, to a
        limit, or to no exchange with the grid: these are all that need be compared.
        """
        w = self.world
        net, price = self._net[homes, steps], w.price[homes, steps]
        feed_in, values = w.feed_in[homes], self._values[homes, steps - self.first]
        nodes = np.linspace(0, 1, self.nodes) * plant.capacity[:, None]
        move = nodes - plant.soe[:, None]
        reach = np.where(move > 0, move / plant.charge[:, None], move * plant.discharge[:, None])
        wanted = rule(plant, net)
        none = np.zeros_like(wanted)
        everything = np.column_stack(
            (wanted, -net - plant.standby, none, -plant.power, plant.power, reach)
        )
        tried = np.stack([plant.clamp(a) for a in everything.T], 1)
        soe = plant.soe[:, None] + np.where(
            tried > 0, tried * plant.charge[:, None], tried / plant.discharge[:, None]
        )
        later = _interpolate(values, soe / plant.capacity[:, None] * (self.nodes - 1))
        grid = net[:, None] + tried + plant.standby[:, None]
        now = bill(grid, price[:, None], feed_in[:, None])
        penalty = TIE * np.abs(tried - wanted[:, None])
        best = (now + later + penalty).argmin(1)
        action: Floats = np.take_along_axis(tried, best[:, None], 1)[:, 0]
        return action

    def values(self, homes: NDArray[np.int64], first: int, count: int) -> Floats:
        """Least cost to come after each of ``count`` steps: (homes, count, nodes)."""
        start = first - self.first
        found: Floats = self._values[homes, start : start + count]
        return found

    def _plan(self, end: Floats, expected: Floats) -> Floats:
        """Value (least cost to come) after each step: (homes, steps, nodes)."""
        w = self.world
        moves = _moves(w, self.nodes)
        values = np.empty((w.homes, self.count, self.nodes))
        for home in range(w.homes):
            final = (
                -end[home] * w.discharge[home] * w.capacity[home] * np.linspace(0, 1, self.nodes)
            )
            for start in range(0, self.count, BLOCK):
                steps = np.arange(start, min(start + BLOCK, self.count))
                at = self.first + steps
                values[home, steps] = self._back(home, at, moves[home], final, expected[home])
        return values

    def _back(
        self,
        home: int,
        steps: NDArray[np.int64],
        moves: Floats,
        final: Floats,
        expected: Floats,
    ) -> Floats:
        """Backward recursion of one home for many steps at once: (steps, nodes)."""
        value = np.tile(final, (len(steps), 1))
        for ahead in range(self.horizon - 1, 0, -1):
            value = self._step(home, steps + ahead, moves, value, expected)
        return value

    def _step(
        self, home: int, at: NDArray[np.int64], moves: Floats, later: Floats, expected: Floats
    ) -> Floats:
        """Value before the steps ``at`` from the value after them: (steps, nodes)."""
        w, half = self.world, len(moves) // 2
        grid = expected[at][:, None] + moves + w.standby[home]
        cost = bill(grid, w.price[home, at][:, None], w.feed_in[home])
        padded = np.pad(later, ((0, 0), (half, half)), constant_values=np.inf)
        value = np.full_like(later, np.inf)
        for move in np.flatnonzero(np.isfinite(moves)):
            reached = padded[:, move : move + self.nodes] + cost[:, move, None]
            np.minimum(value, reached, out=value)
        return value


def _moves(world: World, nodes: int) -> Floats:
    """Energy at the terminals to move by −n … n nodes, NaN where the power does not allow it.

    Returns:
        (homes, 2n + 1), n the most nodes that any home can move in a step.
    """
    spacing = world.capacity / (nodes - 1)
    most = np.maximum(world.power * world.charge, world.power / world.discharge) / spacing
    n = int(min(nodes - 1, np.ceil(most.max())))
    by = np.arange(-n, n + 1) * spacing[:, None]
    energy = np.where(by > 0, by / world.charge[:, None], by * world.discharge[:, None])
    moves: Floats = np.where(np.abs(energy) <= world.power[:, None] + 1e-9, energy, np.nan)
    return moves


def _interpolate(values: Floats, at: Floats) -> Floats:
    """Linear interpolation of rows (n, nodes) at places (n, m) counted in nodes."""
    low = np.clip(at.astype(np.int64), 0, values.shape[1] - 2)
    part = at - low
    below = np.take_along_axis(values, low, 1)
    above = np.take_along_axis(values, low + 1, 1)
    found: Floats = below * (1 - part) + above * part
    return found


def clairvoyant(world: World) -> World:
    """The same homes with a forecast that is the truth."""
    return replace(world, expected=world.net)


# --- the optimum -------------------------------------------------------------------------------


def optimum(world: World) -> list[dict[str, Any]]:
    """Least cost of every home over all its steps, knowing everything (linear programme).

    Where the price is below the feed-in tariff a linear programme could buy and sell at once; the
    grid's flows are bounded by what the battery can add to them, which leaves a lower bound.

    Returns:
        A dict a home: ``cost``, ``action`` (steps,), ``method`` (``lp``, or ``dp`` where the
        solver gave up).

    Raises:
        SetupError: scipy is not installed.
    """
    return [_best(world, home) for home in range(world.homes)]


def _best(world: World, home: int) -> dict[str, Any]:
    found = _linear(world, home)
    return found if found is not None else _dynamic(world, home)


def _linear(world: World, home: int) -> dict[str, Any] | None:
    """Solve for charge, discharge, import, export and state of energy; None when HiGHS fails."""
    try:
        from scipy.optimize import linprog
        from scipy.sparse import bmat, diags, identity
    except ImportError as error:
        raise SetupError("the optimum needs scipy", hint="pip install 'edgekd[train]'") from error
    t = world.steps
    net = world.net[home, :t] + world.standby[home]
    price, feed_in = world.price[home, :t], np.full(t, world.feed_in[home])
    power, capacity = world.power[home], world.capacity[home]
    one, none = identity(t), None
    balance = [one, -one, -one, one, none]
    step = diags([1.0, -1.0], [0, -1], shape=(t, t))
    store = [-world.charge[home] * one, one / world.discharge[home], none, none, step]
    first = np.zeros(t)
    first[0] = world.start[home]
    bounds = np.concatenate(
        [
            np.full(t, power), np.full(t, power), np.maximum(net, 0) + power,
            np.maximum(-net, 0) + power, np.full(t, capacity),
        ]
    )  # fmt: skip
    cost = np.concatenate([np.zeros(2 * t), price, -feed_in, np.zeros(t)])
    result = linprog(
        cost, A_eq=bmat([balance, store], format="csr"), b_eq=np.concatenate([-net, first]),
        bounds=np.column_stack([np.zeros(5 * t), bounds]), method="highs",
    )  # fmt: skip
    if result.status != 0:
        return None
    x = result.x
    return {"cost": float(result.fun), "action": x[:t] - x[t : 2 * t], "method": "lp"}


def _dynamic(world: World, home: int) -> dict[str, Any]:
    """The same by dynamic programming over the whole time: an upper bound close to it."""
    fields: dict[str, Any] = dict(vars(world))
    one = World(**{n: v[home : home + 1] if n != "steps" else v for n, v in fields.items()})
    result = simulate(Whole(one), one)
    return {"cost": float(result["cost"].sum()), "action": result["action"][0], "method": "dp"}


class Whole(Planner):
    """Dynamic programming to a world's last step, knowing everything; what is left is worth 0."""

    def __init__(self, world: World) -> None:
        nothing = np.zeros(world.homes)
        super().__init__(clairvoyant(world), world.steps, nothing, nodes=FINE)

    def _plan(self, end: Floats, expected: Floats) -> Floats:
        values = np.zeros((self.world.homes, self.world.steps, self.nodes))
        for home, moves in enumerate(_moves(self.world, self.nodes)):
            for i in range(self.world.steps - 1, 0, -1):
                at, later = np.array([i]), values[home, i][None]
                values[home, i - 1] = self._step(home, at, moves, later, expected[home])[0]
        return values
