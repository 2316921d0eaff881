"""What a network learns from: the planner's best action at states of many kinds, labelled.

Trajectories are of two sorts. *Asking for much*: whatever was done (the plan, the plan disturbed,
rules, chance), the label is the planner's best action, and the return to go is at least what the
day brought, often more. *Asking for less*: only a share of every planned action is carried out and
is the label, with the return that this really brought. So the best action answers a high return,
a modest one a low return, and the planner can label any state that a student reaches itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgekd.agent.loops.battery import Contract, Plant, World, drive, goal, roll, soft
from edgekd.data.battery.homes import Homes
from edgekd.tasks.battery.plan import (
    Planner,
    Policy,
    price_quantile,
    price_top_up,
    self_consumption,
)
from edgekd.tasks.battery.worlds import Setup, Stretch, scenarios, world_of

if TYPE_CHECKING:
    from edgekd.agent.loops.battery import Model

Floats = NDArray[np.float64]

AMBITION = 1.2
GENEROUS = 1.25
"""Highest return asked for, in units of the contract's target."""
FEW_LEVELS = 24
"""A tariff with fewer levels counts as one by time of use."""
ACTORS = ("plan", "self", "price")
MEMORY = 0.8
"""Correlation of the disturbance from one step to the next."""


@dataclass(frozen=True)
class Behaviour:
    """One way to make trajectories.

    Attributes:
        share: Part of the planned action that is carried out and is the label; 1 asks for much.
        noise: Deviation of the disturbance, in units of the power; the label is undisturbed.
        actor: Who acts: ``plan``, or the rule ``self`` or ``price``; the label is the plan's.
    """

    share: float = 1.0
    noise: float = 0.0
    actor: Literal["plan", "self", "price"] = "plan"


BEHAVIOURS = (
    Behaviour(),
    Behaviour(noise=0.1),
    Behaviour(noise=0.2),
    Behaviour(noise=0.4),
    Behaviour(actor="self", noise=0.1),
    Behaviour(actor="price", noise=0.1),
    Behaviour(actor="self", noise=0.8),
    Behaviour(share=0.0),
    Behaviour(share=0.3),
    Behaviour(share=0.6),
)


@dataclass(frozen=True, eq=False)
class Rows:
    """Steps of trajectories, one after the other.

    Attributes:
        seen: (rows, features) float32.
        goals: (rows,) float32, the output that is right there; (rows, nodes + 11) what every
            action costs there, see `edgekd.tasks.battery.regret`.
        starts: (rows,) row where the trajectory of each row begins.
    """

    seen: NDArray[np.float32]
    goals: NDArray[np.float32]
    starts: NDArray[np.int64]


def joined(parts: Sequence[Rows]) -> Rows:
    """Put trajectories one after the other."""
    offsets = np.cumsum([0, *(len(p.goals) for p in parts)])[:-1]
    return Rows(
        np.concatenate([p.seen for p in parts]),
        np.concatenate([p.goals for p in parts]),
        np.concatenate([p.starts + at for p, at in zip(parts, offsets, strict=True)]),
    )


@dataclass(frozen=True, eq=False)
class Ground:
    """One stretch of time ready to train on: the homes, and the plan at every step.

    Attributes:
        world: The homes, batteries empty.
        planner: Its plan.
    """

    world: World
    planner: Planner


def ground(homes: Homes, setup: Setup, stretch: Stretch, expert: str, end: float) -> Ground:
    """Plan a stretch.

    Args:
        homes: All homes.
        setup: Batteries and information.
        stretch: Where and when.
        expert: What the planner knows: ``scenarios`` the last seven days, each as one possible
            future; ``mean7`` their mean; ``perfect`` the future.
        end: Value of stored energy at the horizon's end, in units of the mean price.
    """
    world = world_of(homes, setup, stretch.places, stretch.steps)
    value = np.full(world.homes, end * float(world.price.mean()))
    ahead: Floats | None = None
    if expert == "scenarios":
        ahead = scenarios(homes, stretch.places, stretch.steps + setup.horizon)
    elif expert == "perfect":
        ahead = world.net[None]
    return Ground(world, Planner(world, setup.horizon, value, scenarios=ahead))


def demonstrate(
    grounds: Sequence[Ground],
    contract: Contract,
    seed: int,
    behaviours: Sequence[Behaviour] = BEHAVIOURS,
    *,
    costs: bool = False,
) -> Rows:
    """Make labelled trajectories of every behaviour, home and stretch; ``costs``: see `Rows`."""
    return joined(
        [
            _trajectories(one, contract, behaviours, np.random.default_rng([seed, number]), costs)
            for number, one in enumerate(grounds)
        ]
    )


def practise(
    model: Model,
    grounds: Sequence[Ground],
    contract: Contract,
    seed: int,
    share: float,
    *,
    costs: bool = False,
) -> Rows:
    """Let a network act, and label every state that it reaches with the planner's action.

    Args:
        model: Windows in, outputs out.
        grounds: Stretches.
        contract: What the network sees.
        seed: Of the states of energy at the beginning and the returns asked for.
        share: Part of each stretch that is acted in, from a place drawn at random.
        costs: Label with what every action costs; see `Rows`.
    """
    parts = []
    for number, one in enumerate(grounds):
        rng = np.random.default_rng([seed, number])
        steps = max(contract.day, int(one.world.steps * share))
        first = int(rng.integers(0, one.world.steps - steps + 1))
        world = _started(_cut(one.world, first, steps), rng)
        target = contract.target * rng.uniform(0.8, GENEROUS, world.homes)
        happened = drive(model, contract, world, target=target)
        soe = np.concatenate((world.start[:, None], happened["soe"][:, :-1]), 1)
        goals = _goals(one.planner, first, world, soe)
        if costs:
            homes, much = np.arange(world.homes), np.ones(world.homes)
            goals = _costs(one.planner, homes, first, soe, goals, much)
        parts.append(rows_of(happened["seen"], goals))
    return joined(parts)


def _goals(planner: Planner, first: int, world: World, soe: Floats) -> Floats:
    """The planner's outputs (homes, steps) at given states of energy before each step."""
    homes, steps = (places.ravel() for places in np.indices(soe.shape))
    plant = Plant(
        world.capacity[homes], world.power[homes], world.charge[homes], world.discharge[homes],
        world.standby[homes], soe.ravel(),
    )  # fmt: skip
    best = planner.act(homes, first + steps, plant)
    goals: Floats = goal(plant, world.net[:, : world.steps].ravel(), best).reshape(soe.shape)
    return goals


def _costs(
    planner: Planner,
    homes: NDArray[np.int64],
    first: int,
    soe: Floats,
    goals: Floats,
    much: Floats,
) -> Floats:
    """Labels of `edgekd.tasks.battery.regret`: (trajectories, steps, nodes + 11).

    Args:
        planner: Of the stretch.
        homes: (trajectories,) home of each.
        first: Step of the stretch at which they begin.
        soe: (trajectories, steps) before each step.
        goals: Same, the planner's outputs.
        much: (trajectories,) 1 where the best is asked for.
    """
    values, w = planner.values(homes, first, soe.shape[1]), planner.world
    at = slice(first, first + soe.shape[1])
    fixed = (w.capacity, w.power, w.charge, w.discharge, w.standby)
    rest = (
        soe, w.net[homes, at], w.price[homes, at], w.feed_in[homes, None],
        *(value[homes, None] for value in fixed), goals, much[:, None],
    )  # fmt: skip
    columns = np.stack([np.broadcast_to(part, soe.shape) for part in rest], 2)
    # Only differences count; small numbers keep their digits in float32.
    labels: Floats = np.concatenate((values - values.min(2, keepdims=True), columns), 2)
    return labels


@dataclass(frozen=True, eq=False)
class Acted:
    """All behaviours of one stretch side by side, each with all homes.

    Attributes:
        world: The homes, once a behaviour.
        homes: (trajectories,) home of the stretch that each is.
        share: (trajectories,) part of the plan that was to be carried out.
        goals: (trajectories, steps) right outputs.
        happened: See `edgekd.agent.loops.battery.roll`.
        saved: (trajectories, steps) in units of capacity · price_mean.
    """

    world: World
    homes: NDArray[np.int64]
    share: Floats
    goals: Floats
    happened: Mapping[str, NDArray[Any]]
    saved: Floats

    @property
    def before(self) -> Floats:
        """(trajectories, steps) state of energy before each step."""
        return np.concatenate((self.world.start[:, None], self.happened["soe"][:, :-1]), 1)


def act(
    one: Ground, contract: Contract, behaviours: Sequence[Behaviour], rng: np.random.Generator
) -> Acted:
    """Carry out the behaviours in one stretch."""
    count = one.world.homes
    world = _started(_repeated(one.world, len(behaviours)), rng)
    homes = np.tile(np.arange(count), len(behaviours))
    share = np.repeat([b.share for b in behaviours], count)
    noise = np.repeat([b.noise for b in behaviours], count)
    acts = np.repeat([ACTORS.index(b.actor) for b in behaviours], count)
    net, goals = world.net, np.zeros((world.homes, world.steps))
    others = (self_consumption(world), _price_rule(world)(world, contract.horizon))
    disturbance = np.zeros(world.homes)

    def choose(i: int, plant: Plant, window: Any) -> tuple[Floats, Floats, Floats]:
        nonlocal disturbance
        best = share * one.planner.act(homes, np.full(len(homes), i), plant)
        goals[:, i] = goal(plant, net[:, i], best)
        kick = rng.standard_normal(world.homes) * noise * np.sqrt(1 - MEMORY**2)
        disturbance = MEMORY * disturbance + kick
        wanted = np.choose(acts, (best, *(other(i, plant) for other in others)))
        action = plant.clamp(wanted + disturbance * plant.power)
        return action, goals[:, i], np.zeros(world.homes)

    happened = roll(choose, contract, world)
    saved = happened["saved"] / (world.capacity * contract.price_mean)[:, None]
    return Acted(world, homes, share, goals, happened, saved)


def _trajectories(
    one: Ground,
    contract: Contract,
    behaviours: Sequence[Behaviour],
    rng: np.random.Generator,
    costs: bool = False,
) -> Rows:
    """What the behaviours met, with what is right there."""
    acted = act(one, contract, behaviours, rng)
    world, saved, goals, share = acted.world, acted.saved, acted.goals, acted.share
    midnight = world.time[0, : world.steps] < contract.hours / 48
    real = returns(saved, midnight)
    asked = contract.target * rng.uniform(0, GENEROUS, saved.shape)
    much = generous(real, saved, midnight, asked)
    seen = acted.happened["seen"]
    seen[:, :, 1] = soft(np.where(share[:, None] == 1, much, real))
    if costs:
        much_asked = (share == 1).astype(np.float64)
        goals = _costs(one.planner, acted.homes, 0, acted.before, goals, much_asked)
    return rows_of(seen, goals)


def _price_rule(world: World) -> Callable[[World, int], Policy]:
    """The rule that suits the tariff: few levels, or many."""
    return price_top_up if len(np.unique(world.price)) < FEW_LEVELS else price_quantile


def returns(saved: Floats, midnight: NDArray[np.bool_]) -> Floats:
    """What the rest of each day brings, the step itself included: (homes, steps).

    Args:
        saved: (homes, steps).
        midnight: (steps,) whether a day begins there.
    """
    to_go = np.zeros_like(saved)
    left = np.zeros(len(saved))
    for i in range(saved.shape[1] - 1, -1, -1):
        ends = i + 1 < saved.shape[1] and midnight[i + 1]
        left = saved[:, i] + (0 if ends else left)
        to_go[:, i] = left
    return to_go


def generous(to_go: Floats, saved: Floats, midnight: NDArray[np.bool_], asked: Floats) -> Floats:
    """Return to go when each day begins by asking for at least ``asked``.

    Args:
        to_go: (homes, steps) as `returns` gives it.
        saved: (homes, steps).
        midnight: (steps,) whether a day begins there.
        asked: (homes, steps), used where a day begins.
    """
    wanted = np.zeros_like(to_go)
    left = np.maximum(to_go[:, 0], asked[:, 0])
    for i in range(to_go.shape[1]):
        left = np.maximum(to_go[:, i], asked[:, i]) if midnight[i] else left
        wanted[:, i] = left
        left = left - saved[:, i]
    return wanted


def _started(world: World, rng: np.random.Generator) -> World:
    return replace(world, start=rng.uniform(0, 1, world.homes) * world.capacity)


def _cut(world: World, first: int, steps: int) -> World:
    """A part of a world; what lies ahead of its end stays."""
    moved: dict[str, Any] = {
        n: getattr(world, n)[:, first:] for n in ("load", "pv", "price", "expected", "time")
    }
    return replace(world, **moved, steps=steps)


def rows_of(seen: Any, goals: Floats) -> Rows:
    """(homes, steps, …) → one row after the other."""
    homes, steps = goals.shape[:2]
    starts = np.repeat(np.arange(homes) * steps, steps)
    return Rows(
        np.ascontiguousarray(seen.reshape(homes * steps, -1)),
        goals.reshape(homes * steps, *goals.shape[2:]).astype(np.float32),
        starts,
    )


def ambitious(grounds: Sequence[Ground], contract: Contract) -> float:
    """Return of a day to ask for: a fifth more than the planner exceeds on one day in twenty."""
    found = []
    for one in grounds:
        world, day = one.world, contract.day

        def choose(i: int, plant: Plant, window: Any, plan: Planner = one.planner) -> Any:
            nothing = np.zeros(len(plant.soe))
            return plan(i, plant), nothing, nothing

        saved = roll(choose, contract, world)["saved"]
        whole = saved[:, : world.steps // day * day].reshape(world.homes, -1, day).sum(2)
        found.append((whole / (world.capacity * contract.price_mean)[:, None]).ravel())
    return AMBITION * float(np.quantile(np.concatenate(found), 0.95))


def _repeated(world: World, times: int) -> World:
    """The same homes several times over."""
    homes = {n: v for n, v in world.arrays().items() if n != "steps"}
    copies = {n: np.concatenate([v] * times) for n, v in homes.items()}
    return World.of({**copies, "steps": np.array(world.steps)})
