from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgekd.agent.loops.battery import Plant, bill
from edgekd.tasks.battery import plan
from edgekd.tasks.battery.plan import (
    Planner,
    Whole,
    clairvoyant,
    idle_cost,
    optimum,
    price_quantile,
    price_top_up,
    self_consumption,
    simulate,
)
from edgekd.tasks.battery.worlds import Place, Setup, scenarios, world_of


@pytest.fixture(scope="module")
def world(homes):
    setup = Setup(capacity=4, power=2, efficiency=0.81, feed_in=0.05)
    return world_of(homes, setup, [Place(0, 240), Place(1, 480)], 96)


def test_the_optimum_is_the_least_of_all(world):
    best = optimum(world)
    assert [found["method"] for found in best] == ["lp", "lp"]
    costs = np.array([found["cost"] for found in best])
    for policy in (
        self_consumption(world),
        price_top_up(world, 24),
        price_quantile(world, 24),
        Planner(clairvoyant(world), 24, np.full(2, 0.2)),
    ):
        assert (simulate(policy, world)["cost"].sum(1) >= costs - 1e-6).all()
    assert (idle_cost(world).sum(1) > costs).all()


def test_the_optimum_can_be_carried_out(world):
    best = optimum(world)
    actions = np.stack([found["action"] for found in best])
    got = simulate(lambda i, plant: actions[:, i], world)["cost"].sum(1)
    assert got == pytest.approx([found["cost"] for found in best], abs=1e-6)


def test_two_ways_to_the_optimum_agree(world):
    """The linear programme bounds from below, dynamic programming on a grid from above."""
    lower = np.array([found["cost"] for found in optimum(world)])
    upper = simulate(Whole(world), world)["cost"].sum(1)
    assert (upper >= lower - 1e-9).all()
    assert upper == pytest.approx(lower, rel=2e-3)


def test_when_the_solver_gives_up_dynamic_programming_steps_in(world, monkeypatch):
    monkeypatch.setattr(plan, "_linear", lambda world, home: None)
    found = optimum(replace(world, **{n: v[:1] for n, v in vars(world).items() if n != "steps"}))
    assert found[0]["method"] == "dp"
    assert found[0]["cost"] < idle_cost(world)[0].sum()


def obvious(world, home, first, soe, horizon, end, nodes):
    """Least cost over a horizon from one state, by plain recursion over grid moves."""
    capacity, power = world.capacity[home], world.power[home]
    grid = np.linspace(0, capacity, nodes)

    def move(a, b):
        up = (b - a) / world.charge[home]
        down = (b - a) * world.discharge[home]
        return up if b > a else down

    value = {s: -end * world.discharge[home] * s for s in grid}
    for h in range(horizon - 1, 0, -1):
        net, price = world.expected[home, first + h], world.price[home, first + h]
        fresh = {}
        for s in grid:
            options = [
                bill(net + move(s, t), price, world.feed_in[home]) + value[t]
                for t in grid
                if abs(move(s, t)) <= power + 1e-9
            ]
            fresh[s] = min(options)
        value = fresh
    net, price = world.net[home, first], world.price[home, first]
    known = np.array([value[s] for s in grid])
    best = np.inf
    for action in np.linspace(-power, power, 4001):
        new = soe + (action * world.charge[home] if action > 0 else action / world.discharge[home])
        if -1e-9 <= new <= capacity + 1e-9:
            cost = bill(net + action, price, world.feed_in[home]) + np.interp(new, grid, known)
            best = min(best, float(cost))
    return best


@pytest.mark.parametrize("first", [3, 17])
@pytest.mark.parametrize("soe", [0.0, 1.37, 4.0])
def test_the_planner_equals_its_obvious_twin(world, first, soe):
    nodes, horizon, end = 9, 7, 0.2
    planner = Planner(world, horizon, np.full(2, end), nodes=nodes)
    battery = Plant(
        world.capacity, world.power, world.charge, world.discharge, world.standby, np.full(2, soe)
    )
    action = planner(first, battery)
    for home in range(2):
        wanted = obvious(world, home, first, soe, horizon, end, nodes)
        net, price = world.net[home, first], world.price[home, first]
        new = soe + (
            action[home] * world.charge[home]
            if action[home] > 0
            else action[home] / world.discharge[home]
        )
        grid = np.linspace(0, world.capacity[home], nodes)
        later = np.interp(new, grid, planner._values[home, first])
        got = bill(net + action[home], price, world.feed_in[home]) + later
        assert float(got) == pytest.approx(wanted, abs=2e-4)


def test_planning_one_step_equals_planning_all(world):
    every = Planner(world, 24, np.full(2, 0.2))
    one = Planner(world, 24, np.full(2, 0.2), first=30, count=1)
    battery = plan.plant_of(world)
    assert (every(30, battery) == one(30, battery)).all()


def test_scenarios_are_the_days_before(homes):
    places = [Place(1, 240), Place(3, 400)]
    got = scenarios(homes, places, 30)
    net = homes.load - homes.pv
    assert got.shape == (7, 2, 30)
    assert (got[2, 1] == net[3, 400 - 72 : 400 - 72 + 30]).all()


def test_seven_equal_scenarios_are_one(world):
    same = np.repeat(world.expected[None], 7, 0)
    end = np.full(2, 0.2)
    seven = simulate(Planner(world, 24, end, scenarios=same), world)["cost"]
    assert seven == pytest.approx(simulate(Planner(world, 24, end), world)["cost"], abs=1e-9)


def test_the_price_rules_act_on_prices(world):
    battery = plan.plant_of(world)
    dear = int(np.flatnonzero(world.price[0] > 0.4)[0])
    fill = price_top_up(world, 24, ahead=2)
    assert (fill(dear - 1, battery) == world.power).all()
    assert (fill(dear - 3, battery) == self_consumption(world)(dear - 3, battery)).all()
    buy = price_quantile(world, 24, buy=0.05, sell=0.9)
    assert (buy(dear - 3, battery) == world.power).all()
    battery.soe = np.array([2.0, 2.0])
    evening = int(np.flatnonzero((world.price[0] > 0.4) & (world.net.min(0) > 0))[0])
    assert (buy(evening, battery) < 0).all()
