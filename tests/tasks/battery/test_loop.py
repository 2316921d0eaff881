from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.agent.loops.battery import (
    Contract,
    Controller,
    Ledger,
    Plant,
    Windows,
    World,
    decide,
    drive,
    forecast,
    goal,
    observe,
    rule,
)
from edgekd.tasks.battery.worlds import Place, Setup, world_of

CONTRACT = Contract(4, 24, 1.0, 0.3, 0.1, 1.5)


def plant(soe=2.0, capacity=6.0, power=3.0, charge=0.9, discharge=0.8):
    def one(value):
        return np.array([value], float)

    return Plant(one(capacity), one(power), one(charge), one(discharge), one(0.1), one(soe))


def network(seed=0, features=CONTRACT.features):
    """A fixed function of the whole window, between −1 and 1."""
    weights = np.random.default_rng(seed).standard_normal(features)

    def run(window):
        return np.tanh((window @ weights).mean(1, keepdims=True))

    return run


def test_a_day_by_hand():
    """Two steps of one home, every number worked out on paper."""
    one = np.array([[1.0, 2.0, 0.0, 0.0]])
    world = World(
        load=one, pv=np.array([[3.0, 0.0, 0.0, 0.0]]), price=np.full((1, 4), 0.5),
        expected=np.zeros((1, 4)), time=np.zeros((1, 4)), feed_in=np.array([0.1]),
        capacity=np.array([4.0]), power=np.array([1.5]), charge=np.array([0.8]),
        discharge=np.array([0.5]), standby=np.array([0.2]), start=np.array([0.0]), steps=2,
    )  # fmt: skip
    contract = Contract(1, 2, 1.0, 0.5, 1.0, 1.0)
    got = drive(lambda window: np.zeros((1, 1)), contract, world)
    # Surplus 2, of which 1.5 fits: 0.5 − 0.2 is sold. Then 0.8·1.5 = 1.2 is stored, 0.6 comes out.
    assert got["action"][0] == pytest.approx([1.5, -0.6])
    assert got["soe"][0] == pytest.approx([1.2, 0.0])
    assert got["grid"][0] == pytest.approx([-0.3, 1.6])
    assert got["cost"][0] == pytest.approx([-0.03, 0.8])
    assert got["saved"][0] == pytest.approx([-0.2 + 0.03, 1.0 - 0.8])


def test_the_clamp_knows_power_and_energy():
    battery = plant(soe=2.0)
    assert battery.clamp(np.array([9.0]))[0] == 3.0
    assert battery.clamp(np.array([-9.0]))[0] == pytest.approx(-2.0 * 0.8)
    assert plant(soe=5.8).clamp(np.array([9.0]))[0] == pytest.approx(0.2 / 0.9)


@given(st.floats(-5, 5), st.floats(0, 6), st.floats(-1, 1))
def test_goal_undoes_decide(net, soe, share):
    battery = plant(soe=soe)
    action, failed = decide(battery, np.array([net]), np.array([share]))
    back = goal(battery, np.array([net]), action)
    again, _ = decide(battery, np.array([net]), back)
    assert not failed[0]
    assert abs(back[0]) <= 1
    assert again[0] == pytest.approx(action[0], abs=1e-9)


def test_a_small_output_leaves_it_to_the_rule():
    battery, net = plant(), np.array([1.3])
    assert decide(battery, net, np.array([0.019]), 0.02)[0][0] == rule(battery, net)[0]
    assert decide(battery, net, np.array([0.021]), 0.02)[0][0] != rule(battery, net)[0]
    assert not decide(battery, net, np.array([0.019]), 0.02)[1][0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_output_that_is_no_number_leaves_it_to_the_rule(bad):
    battery, net = plant(), np.array([1.3])
    action, failed = decide(battery, net, np.array([bad]))
    assert failed[0]
    assert action[0] == rule(battery, net)[0]


def test_forecast_is_the_mean_of_the_same_hour():
    net = np.arange(10 * 24, dtype=float)[None] ** 1.5
    got = forecast(net, 24, "mean7")[0]
    assert (got[:24] == 0).all()
    assert got[30] == net[0, 6]
    assert got[200] == pytest.approx(np.mean([net[0, 200 - 24 * d] for d in range(1, 8)]))
    assert (forecast(net, 24, "perfect") == net).all()
    assert (forecast(net, 24, "none") == 0).all()


def test_windows_are_filled_with_the_first_step_and_then_move():
    windows = Windows(3)
    rows = [np.full((2, 1), float(i)) for i in range(4)]
    got = [windows.push(row)[0, :, 0].tolist() for row in rows]
    assert got == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3]]


def test_everything_a_network_sees_lies_in_minus_one_to_one():
    battery = plant()
    row = observe(
        CONTRACT, before=np.array([-3.0]), to_go=np.array([40.0]), plant=battery,
        net=np.linspace(-90, 90, 24)[None], price=np.linspace(-2, 9, 24)[None],
        time=np.array([0.75]),
    )  # fmt: skip
    assert row.shape == (1, CONTRACT.features)
    assert np.abs(row).max() <= 1
    places = [field["start"] + np.arange(field["width"]) for field in CONTRACT.layout()]
    assert np.concatenate(places).tolist() == list(range(CONTRACT.features))


def test_the_ledger_pays_the_target_down_and_begins_anew_at_midnight():
    ledger = Ledger(CONTRACT, np.array([2.0]), np.array([0.1]), np.array([1.5]))
    assert ledger.begin(np.array([0.5]))[0] == 1.5
    saved = ledger.end(np.array([1.0]), np.array([0.0]), np.array([0.4]))
    assert saved[0] == pytest.approx(0.4)
    assert ledger.begin(np.array([0.6]))[0] == pytest.approx(1.5 - 0.2)
    assert ledger.begin(np.array([0.0]))[0] == 1.5


def test_the_controller_in_the_field_does_what_the_simulator_does(homes):
    """Streaming one home step by step equals the batch, the past included."""
    setup = Setup(capacity=6, power=3, efficiency=0.8, standby=0.05, feed_in=0.08)
    world = world_of(homes, setup, [Place(0, 0), Place(2, 0)], 12 * 24)
    model = network()
    batch = drive(model, CONTRACT, world)
    root = 0.8**0.5
    controller = Controller(
        model, CONTRACT, capacity=6, power=3, charge=root, discharge=root, standby=0.05,
        feed_in=0.08,
    )  # fmt: skip
    soe, actions = 0.0, []
    for i in range(world.steps):
        actions.append(
            controller.step(
                net=world.net[1, i], soe=soe, prices=world.price[1, i : i + 24],
                time=world.time[1, i],
            )
        )  # fmt: skip
        soe = batch["soe"][1, i]
    assert np.array(actions) == pytest.approx(batch["action"][1], abs=1e-6)
    assert controller.fallbacks == 0
    with pytest.raises(ValueError, match="perfect"):
        Controller(model, replace(CONTRACT, information="perfect"), capacity=6, power=3)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from([0.5, 0.81, 1.0]),
    st.sampled_from([0.0, 0.1]),
    st.floats(1, 20),
    st.floats(0.2, 15),
)
def test_energy_balances_whatever_the_network_says(seed, efficiency, standby, capacity, power):
    """Any output, not-a-numbers among them: limits hold and no energy appears or is lost."""
    rng = np.random.default_rng(seed)
    steps, root = 72, efficiency**0.5
    load, pv = rng.exponential(1.0, (3, steps + 24)), rng.exponential(1.0, (3, steps + 24))

    def each(value):
        return np.full(3, value)

    world = World(
        load, pv, rng.uniform(-0.5, 1, (3, steps + 24)), load - pv,
        np.tile(np.arange(steps + 24) / 24 % 1, (3, 1)), each(0.1), each(capacity), each(power),
        each(root), each(root), each(standby), each(capacity / 2), steps,
    )  # fmt: skip

    def model(window):
        output = rng.standard_normal((3, 1)) * 10 ** rng.uniform(-3, 300)
        output[rng.random((3, 1)) < 0.2] = rng.choice([np.nan, np.inf, -np.inf])
        return output

    got = drive(model, CONTRACT, world)
    for name in ("action", "soe", "grid", "cost"):
        assert np.isfinite(got[name]).all()
    assert (got["soe"] >= 0).all() and (got["soe"] <= capacity).all()
    assert (np.abs(got["action"]) <= power + 1e-12).all()
    grid = world.net[:, :steps] + got["action"] + standby
    assert np.abs(got["grid"] - grid).max() < 1e-9
    before = np.concatenate((world.start[:, None], got["soe"][:, :-1]), 1)
    change = np.maximum(got["action"], 0) * root - np.maximum(-got["action"], 0) / root
    assert np.abs(got["soe"] - before - change).max() < 1e-9
    assert got["failed"].any()


def test_a_year_in_one_process_does_not_drift(homes):
    """A controller that runs on gives in its second year what a fresh one gives."""
    year = np.tile(np.arange(365 * 24) % (7 * 24), 1)
    net, prices = (homes.load - homes.pv)[0, year], homes.price[np.arange(365 * 24 + 24) % 24]
    model = network(3)
    controller = Controller(model, CONTRACT, capacity=6, power=3, feed_in=0.05)
    battery = plant(soe=0.0, charge=1.0, discharge=1.0)
    battery.standby = np.array([0.0])
    actions = []
    for i in range(len(year)):
        action = controller.step(
            net=net[i], soe=float(battery.soe[0]), prices=prices[i : i + 24], time=i % 24 / 24
        )
        assert battery.clamp(np.array([action]))[0] == pytest.approx(action, abs=1e-12)
        battery.apply(np.array([action]), net[i : i + 1])
        actions.append(action)
    weeks = np.array(actions[: 52 * 168]).reshape(52, 168)
    # The world repeats every week: once the past is full and the start forgotten, so do actions.
    assert np.isfinite(weeks).all()
    assert np.abs(weeks[10] - weeks[51]).max() < 1e-6
