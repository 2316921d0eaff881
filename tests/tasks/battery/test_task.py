from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from edgekd.agent.loops.battery import Contract, drive
from edgekd.errors import DataError
from edgekd.tasks.battery import data as battery_data
from edgekd.tasks.battery.data import battery, rollout
from edgekd.tasks.battery.expert import generous, returns
from edgekd.tasks.battery.plan import Planner, simulate
from edgekd.tasks.battery.task import closed_loop, price_rule, references, score_of


@pytest.fixture(scope="module")
def data(homes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(battery_data, "load_homes", lambda path, **more: homes)
        battery_data._battery.cache_clear()
        made = battery(capacity=4, power=2, horizon=12, window=6, supervised=3, expert="mean7")
    yield made
    battery_data._battery.cache_clear()


def silence(window):
    """A network that says nothing: the self-consumption rule acts."""
    return np.zeros((len(window), 1))


def test_windows_end_where_they_should(data):
    train = data.train
    assert train.take([0, 7]).shape == (2, 6, data.contract.features)
    assert train.labels.shape == (len(train), 3)
    end = train.ends[7]
    assert (train.take([7])[0] == train.rows.seen[end - 5 : end + 1]).all()
    assert (train.labels[7] == train.rows.goals[end - 2 : end + 1]).all()
    # The first window of a trajectory repeats its first step.
    early = battery_data.Windows(train.rows, np.array([1]), 6, 3)
    assert (early.take([0])[0, :5] == train.rows.seen[0]).all()
    assert (early.take([0])[0, 5] == train.rows.seen[1]).all()
    sample, label = train[7]
    assert (sample == train.take([7])[0]).all() and (label == train.labels[7]).all()


def test_the_label_is_the_planners_action(data):
    """A network that answers with the labels would do exactly what the planner does."""
    ground = data.grounds[0]
    plan = simulate(ground.planner, ground.world)
    rows = battery_data.demonstrate([ground], data.contract, 0, battery_data_behaviour())
    goals = rows.goals.reshape(ground.world.homes, -1)
    contract = replace(data.contract, deadband=0.0)
    calls = iter(range(ground.world.steps))
    started = battery_start(ground.world, rows, data.contract)
    got = drive(lambda window: goals[:, next(calls), None], contract, started)
    again = simulate(ground.planner, started)
    assert got["action"] == pytest.approx(again["action"], abs=1e-5)
    assert plan["cost"].sum() == pytest.approx(again["cost"].sum(), rel=0.05)


def battery_data_behaviour():
    from edgekd.tasks.battery.expert import Behaviour

    return (Behaviour(),)


def battery_start(world, rows, contract):
    from dataclasses import replace

    first = rows.seen.reshape(world.homes, -1, contract.features)[:, 0, 2]
    return replace(world, start=(first.astype(float) + 1) / 2 * world.capacity)


def test_returns_count_what_is_left_of_the_day():
    saved = np.array([[1.0, 2.0, 3.0, 4.0, 5.0]])
    midnight = np.array([False, False, True, False, False])
    assert returns(saved, midnight).tolist() == [[3, 2, 12, 9, 5]]
    asked = np.array([[9.0, 0, 1.0, 0, 0]])
    real = returns(saved, midnight)
    assert generous(real, saved, midnight, asked).tolist() == [[9, 8, 12, 9, 5]]


def test_asking_for_less_is_answered_by_less(data):
    """Among the demonstrations, a low return goes with a share of the planned action."""
    from edgekd.tasks.battery.expert import Behaviour

    few = [
        battery_data.demonstrate(data.grounds[:1], data.contract, 0, (Behaviour(share=share),))
        for share in (0.0, 0.5, 1.0)
    ]
    to_go = [float(rows.seen[:, 1].mean()) for rows in few]
    assert to_go[0] < to_go[1] < to_go[2]
    assert np.abs(few[0].goals).mean() > 0


def test_a_rollout_labels_what_the_student_met(data):
    met = rollout(model=silence, data=data, round=1, seed=3)
    again = rollout(model=silence, data=data, round=1, seed=3)
    assert (met.labels == again.labels).all()
    assert (met.take([5]) == again.take([5])).all()
    assert met.labels.shape[1] == 3
    assert not np.array_equal(met.labels, rollout(model=silence, data=data, round=2, seed=4).labels)


def test_the_state_is_the_contract(data):
    state = closed_loop().fit(silence, data)
    assert Contract.of(state) == data.contract


def test_a_network_that_says_nothing_scores_like_the_rule(data):
    task = closed_loop()
    state = task.fit(silence, data)
    score = task.score(silence, data, "val", state)
    rows = {row.name: row for row in references(data=data, split="val")}
    assert score.units["cost"] == pytest.approx(rows["rule"].score.units["cost"], abs=1e-9)
    assert score.value == score.metrics["score"]["value"]
    assert score.metrics["fallbacks"]["value"] == 0
    assert score.metrics["score"]["n"] == len(data.val.units)


def test_a_network_that_fails_is_the_rule_and_is_counted(data):
    task = closed_loop()
    state = task.fit(silence, data)
    broken = task.score(lambda window: np.full((len(window), 1), np.nan), data, "val", state)
    quiet = task.score(silence, data, "val", state)
    assert broken.units["cost"] == pytest.approx(quiet.units["cost"])
    assert broken.metrics["fallbacks"]["value"] == data.val.world.steps


def test_the_references_stand_in_their_order(data):
    """No battery scores 0, the optimum 1, and knowing more helps."""
    rows = {row.name: row for row in references(data=data, split="val")}
    value = {name: row.score.value for name, row in rows.items()}
    assert value["idle"] == 0
    assert value["optimum"] == pytest.approx(1, abs=1e-6)
    assert 0 < value["rule"] < value["mpc-perfect"] <= 1
    assert value["mpc-mean7"] <= value["mpc-perfect"]
    assert rows["mpc-mean7"].latency["cpu_ms"]["p50"] > rows["rule"].latency["cpu_ms"]["p50"]
    assert rows["mpc-mean7"].knows and not rows["rule"].knows
    assert rows["idle"].score.metrics["cycles"]["value"] == 0


def test_the_price_rule_is_chosen_on_validation_data(data):
    name, make, _ = price_rule(data)
    val = data.val.world
    best = simulate(make(val), val)["cost"].sum()
    assert name.startswith("fills up")
    from edgekd.tasks.battery import plan

    for ahead in (1, 2, 3, 4, 6):
        other = simulate(plan.price_top_up(val, 12, ahead=ahead), val)["cost"].sum()
        assert best <= other + 1e-9


def test_the_score_is_a_ratio_of_means(data):
    val = data.val
    happened = simulate(Planner(val.world, 12, np.full(val.world.homes, 0.2)), val.world)
    score = score_of(happened, val, "$")
    cost = happened["cost"].sum(1)
    wanted = (val.idle.mean() - cost.mean()) / (val.idle.mean() - val.best.mean())
    assert score.value == pytest.approx(wanted)
    assert score.units["score"].mean() == pytest.approx(wanted)


def test_where_nothing_can_be_saved(data):
    from dataclasses import replace

    worse = replace(
        data.val, world=replace(data.val.world, feed_in=data.val.world.price[:, 0] * 0 + 9)
    )
    worse.__dict__["idle"] = np.zeros(len(worse.units))
    worse.__dict__["best"] = np.zeros(len(worse.units))
    happened = simulate(lambda i, plant: np.zeros(worse.world.homes), worse.world)
    with pytest.raises(DataError, match="saves nothing"):
        score_of(happened, worse, "$")


@pytest.mark.slow
def test_a_network_that_is_asked_for_more_saves_more(data):
    """Trained for seconds, it answers a higher target return with a higher score, all the way."""
    torch = pytest.importorskip("torch")
    from edgekd.models.decision_transformer import policy_mlp
    from edgekd.tasks.battery.task import response

    torch.manual_seed(0)
    model = policy_mlp(features=data.contract.features, width=64, answers=3)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    train, rng = data.train, np.random.default_rng(0)
    labels = torch.from_numpy(train.labels)
    for _ in range(800):
        rows = rng.integers(0, len(train), 256)
        loss = torch.nn.functional.smooth_l1_loss(
            model(torch.from_numpy(train.take(rows))), labels[rows], beta=0.02
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def network(window):
        with torch.inference_mode():
            return model(torch.from_numpy(np.asarray(window))).numpy()

    state = closed_loop().fit(network, data)
    found = [row["value"] for row in response(model=network, data=data, state=state)["rows"]]
    # Near the optimum there is nothing left to gain: a thousandth is no fall.
    assert all(b > a - 1e-3 for a, b in itertools.pairwise(found))
    assert found[-1] > found[0] + 0.3
