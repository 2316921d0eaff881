"""The closed-loop task: money, and what became of the possible saving."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.agent.loops import battery as loop
from edgekd.agent.loops.battery import Contract, World, drive
from edgekd.errors import DataError
from edgekd.events import Emit, Progress, silent
from edgekd.tasks.base import Model, Score, State, interval
from edgekd.tasks.battery import plan
from edgekd.tasks.battery.data import Battery, Judged
from edgekd.tasks.battery.plan import Planner, Policy, simulate
from edgekd.tasks.reference import Reference, timed_alone

Floats = NDArray[np.float64]

PRIMARY = "score"
DECIDING = "edgekd.tasks.battery.plan:deciding"
TOP_UPS = (1, 2, 3, 4, 6)
QUANTILES = ((0.05, 0.3), (0.05, 0.5), (0.2, 0.5))
"""What the price-aware rules may be set to; validation data decides."""
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)
"""Of the usual return, that what ships is asked for in the report."""
SLOW_S = 0.1
"""Seconds a decision may take on a device before it counts as hanging."""


def closed_loop(*, target: float = 0.0) -> ClosedLoop:
    """Build the task.

    Args:
        target: Return asked for a day; 0 for the contract's.
    """
    return ClosedLoop(target)


@dataclass(frozen=True)
class ClosedLoop:
    """A network controls every home of a split for 28 days, one call a step.

    ``score`` is (cost without battery − cost) / (cost without battery − least possible cost), of
    the means over homes and periods: 0 is no battery, 1 knows everything in advance.

    Attributes:
        target: See `closed_loop`.
    """

    target: float

    def companions(self) -> dict[str, Path]:
        """Code that ships beside the contract."""
        return {"controller.py": Path(loop.__file__)}

    def trivial(self, data: Battery) -> tuple[str, Model]:
        """What no network at all would reach: the self-consumption rule."""
        return "self-consumption rule", lambda window: np.zeros((len(window), 1))

    def fit(self, model: Model, data: Battery) -> State:
        """The contract, as arrays: what the controller on a device must know."""
        return {name: np.asarray(value) for name, value in data.contract.plain().items()}

    def contract(self, state: State) -> dict[str, Any]:
        """All that a device must do around the network, as JSON."""
        return Contract.of(state).document()

    def score(
        self, model: Model, data: Battery, split: str, state: State, emit: Emit = silent
    ) -> Score:
        """Run the closed loop.

        Raises:
            DataError: Nothing can be saved in this split.
        """
        judged: Judged = getattr(data, split)
        contract, world = Contract.of(state), judged.world
        target = np.full(world.homes, self.target) if self.target else None
        happened = _happened(model, contract, world, target, split, emit)
        return score_of(happened, judged, data.homes.money, network=True)


def _happened(
    model: Model, contract: Contract, world: World, target: Floats | None, split: str, emit: Emit
) -> Mapping[str, NDArray[Any]]:
    """Close the loop where the network runs, if it runs in an agent; else here."""
    there = getattr(model, "drive", None)
    if there is None:
        return drive(_counted(model, world, split, emit), contract, world, target=target)
    extra_s = SLOW_S * world.homes * world.steps
    arrays = loop.asked(contract, world, target=target)
    found: Mapping[str, NDArray[Any]] = there("battery", arrays, extra_s=extra_s)
    return found


def response(*, model: Model, data: Battery, state: State, emit: Emit = silent) -> dict[str, Any]:
    """Ask a network for shares of the usual return on the test split; see `edgekd.spec.Recipe`."""
    contract, rows = Contract.of(state), []
    for share in SHARES:
        score = ClosedLoop(share * contract.target).score(model, data, "test", state, emit)
        rows.append({"asked": share, **score.metrics[PRIMARY]})
    return {"asked": "the return that it asks for by default", "metric": PRIMARY, "rows": rows}


def references(*, data: Battery, split: str, emit: Emit = silent) -> Iterator[Reference]:
    """Give the field's rules, planners and bounds; see `edgekd.spec.Recipe.references`."""
    judged: Judged = getattr(data, split)
    money, world, horizon = data.homes.money, judged.world, data.setup.horizon

    def row(name: str, label: str, policy: Policy, **more: Any) -> Reference:
        return Reference(name, label, score_of(simulate(policy, world), judged, money), **more)

    def rule(name: str, label: str, make: Callable[[World], Policy], **more: Any) -> Reference:
        latency = timed_alone(DECIDING, _one(world).arrays(), _said(make))
        return row(name, label, make(world), latency=latency, **more)

    yield row("idle", "no battery", lambda i, plant: np.zeros(world.homes))
    code = _source(plan.self_consumption)
    yield rule("rule", "self-consumption rule", plan.self_consumption, code_bytes=code)
    name, make, code = price_rule(data)
    yield rule("price", f"price-aware rule ({name})", make, knows="tariff", code_bytes=code)
    end = np.full(world.homes, data.end * data.contract.price_mean)
    for kind, label, knows in PLANNERS:
        policy = Planner(world, horizon, end, scenarios=_scenarios(kind, judged))
        yield row(
            f"mpc-{kind}", label, policy, knows=knows, bound=kind == "perfect",
            code_bytes=_source(Planner), latency=_plan_latency(judged, kind, horizon, end),
        )  # fmt: skip
    actions = np.stack([found["action"] for found in judged.optimum])
    yield row(
        "optimum", "optimum (linear programme)", lambda i, plant: actions[:, i],
        knows="the whole future", bound=True,
    )  # fmt: skip


PLANNERS = (
    ("mean7", "MPC, mean of 7 days", "tariff, 7 days of meter data"),
    ("scenarios", "MPC, 7 days as scenarios", "tariff, 7 days of meter data"),
    ("perfect", "MPC, perfect forecast", "tariff, the future load and generation"),
)


def price_rule(data: Battery) -> tuple[str, Callable[[World], Policy], int]:
    """The price-aware rule that does best on validation data: name, maker, size of its code."""
    horizon, val = data.setup.horizon, data.val
    options: dict[str, Callable[[World], Policy]] = {}
    for ahead in TOP_UPS:
        name = f"fills up {ahead} steps before a rise"
        options[name] = partial(plan.price_top_up, horizon=horizon, ahead=ahead)
    for buy, sell in QUANTILES:
        name = f"buys below quantile {buy:g}, sells above {sell:g}"
        options[name] = partial(plan.price_quantile, horizon=horizon, buy=buy, sell=sell)
    costs = {
        name: float(simulate(make(val.world), val.world)["cost"].sum())
        for name, make in options.items()
    }
    best = min(costs, key=lambda name: (costs[name], name))
    rule = plan.price_top_up if best.startswith("fills") else plan.price_quantile
    return best, options[best], _source(rule)


def score_of(
    happened: Mapping[str, NDArray[Any]], judged: Judged, money: str, *, network: bool = False
) -> Score:
    """Turn what happened into metrics, a value for each home and period.

    Args:
        happened: See `edgekd.agent.loops.battery.roll`.
        judged: The split.
        money: Unit of the cost.
        network: Whether to count the steps in which the rule stepped in for a network.

    Raises:
        DataError: Nothing can be saved.
    """
    world = judged.world
    possible = float((judged.idle - judged.best).mean())
    if possible <= 0:
        raise DataError(
            "a battery saves nothing in these homes and periods",
            hint="check prices, feed-in tariff and efficiency",
        )
    cost, grid, action = happened["cost"].sum(1), happened["grid"], happened["action"]
    steps = slice(0, world.steps)
    pv, load = world.pv[:, steps].sum(1), world.load[:, steps].sum(1)
    exported, imported = np.maximum(-grid, 0).sum(1), np.maximum(grid, 0).sum(1)
    units = {
        PRIMARY: (judged.idle - cost) / possible,
        "cost": cost,
        "self-consumption": 1 - exported / np.maximum(pv, 1e-9),
        "autarky": 1 - imported / np.maximum(load, 1e-9),
        "cycles": np.maximum(-action, 0).sum(1) / world.discharge / world.capacity,
    }
    if network:
        units["fallbacks"] = happened["failed"].sum(1).astype(np.float64)
    metrics: dict[str, dict[str, Any]] = {n: dict(interval(v)) for n, v in units.items()}
    metrics["cost"]["unit"] = money
    for name in ("self-consumption", "autarky"):
        metrics[name]["unit"] = "%"
    return Score(metrics, PRIMARY, units=units)


def _counted(model: Model, world: World, split: str, emit: Emit) -> Model:
    """Report progress once a day or so."""
    progress, every = Progress(emit, f"closed loop ({split})", world.steps, "steps"), 24
    calls = 0

    def run(window: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls % every == 0:
            progress.advance(every)
        return model(window)

    return run


def _scenarios(kind: str, judged: Judged) -> Floats:
    if kind == "mean7":
        mean: Floats = judged.scenarios.mean(0)[None]
        return mean
    ahead: Floats = judged.scenarios if kind == "scenarios" else judged.world.net[None]
    return ahead


def _one(world: World) -> World:
    """The first home alone."""
    return replace(world, **{n: v[:1] for n, v in vars(world).items() if n != "steps"})


def _plan_latency(judged: Judged, kind: str, horizon: int, end: Floats) -> dict[str, Any]:
    """Time planning and deciding one step of one home."""
    arrays = {**_one(judged.world).arrays(), "scenarios": _scenarios(kind, judged)[:, :1]}
    return timed_alone(DECIDING, arrays, {"rule": "", "horizon": horizon, "end": float(end[0])})


def _said(make: Callable[[World], Policy]) -> dict[str, Any]:
    """Name and settings of a rule, so that another process makes the same."""
    if isinstance(make, partial):
        return {"rule": make.func.__name__, **make.keywords}
    return {"rule": getattr(make, "__name__", "")}


def _source(thing: Any) -> int:
    return len(inspect.getsource(thing).encode())
