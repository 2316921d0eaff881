"""Trajectories out to a Minari dataset and in again, read by Minari itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgekd.agent.loops.battery import decide, roll, soft
from edgekd.errors import DataError, SetupError
from edgekd.tasks.battery import data as battery_data
from edgekd.tasks.battery import logged
from edgekd.tasks.battery.data import battery
from edgekd.tasks.battery.expert import BEHAVIOURS, act, returns


@pytest.fixture(scope="module")
def data(homes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(battery_data, "load_homes", lambda path, **more: homes)
        battery_data._battery.cache_clear()
        made = battery(capacity=4, power=2, horizon=12, window=6, supervised=3, expert="mean7")
    yield made
    battery_data._battery.cache_clear()


@pytest.fixture(scope="module")
def acted(data):
    return act(data.grounds[0], data.contract, BEHAVIOURS, np.random.default_rng([data.seed, 0]))


def test_an_action_is_the_output_that_does_what_was_done(data, acted):
    """The outputs that are written drive the simulator along the same states of energy."""
    world, outputs = acted.world, logged._outputs(acted)
    net = world.net

    def choose(i, plant, window):
        action, failed = decide(plant, net[:, i], outputs[:, i])
        return action, outputs[:, i], failed

    again = roll(choose, data.contract, world)
    assert again["soe"] == pytest.approx(acted.happened["soe"], abs=1e-9)
    assert np.abs(outputs).max() <= 1


def test_episodes_hold_all_but_the_return_to_go(data, acted):
    first = next(logged.episodes(data.grounds, data.contract, data.seed))
    seen = acted.happened["seen"][0]
    assert (first.observations == np.delete(seen, logged.TO_GO, 1)).all()
    assert len(first.observations) == len(first.actions) + 1 == len(first.rewards) + 1
    assert first.rewards == pytest.approx(acted.saved[0, :-1])


def test_the_return_to_go_is_what_the_rewards_bring_until_midnight(data, acted):
    first = next(logged.episodes(data.grounds, data.contract, data.seed))
    rows = logged._rows(first, data.contract)
    world = acted.world
    midnight = world.time[0, : len(first.rewards)] == 0
    assert 2 < midnight.sum() < 60
    assert rows.seen[:, 1] == pytest.approx(soft(returns(first.rewards[None], midnight)[0]), 1e-6)
    assert (rows.seen[:, 0] == first.observations[:-1, 0]).all()
    assert (rows.goals == first.actions[:, 0]).all()


def test_without_minari_it_says_what_to_install(data, tmp_path, monkeypatch):
    monkeypatch.setattr(logged, "installed", lambda module: False)
    with pytest.raises(SetupError, match="minari") as fault:
        data.export(tmp_path)
    assert "edgekd[minari]" in fault.value.hint


# --- with Minari -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(data, tmp_path_factory):
    pytest.importorskip("minari")
    folder = tmp_path_factory.mktemp("out")
    return folder / logged.NAME, data.export(folder)


def test_minari_loads_what_is_written(data, written, monkeypatch):
    import minari

    path, facts = written
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(path.parent))
    found = minari.load_dataset(logged.NAME)
    assert found.total_episodes == facts["episodes"] == sum(
        len(BEHAVIOURS) * ground.world.homes for ground in data.grounds
    )  # fmt: skip
    assert found.total_steps == facts["steps"]
    one = found[3]
    assert found.observation_space.contains(one.observations[0])
    assert found.action_space.contains(one.actions[0])
    assert one.truncations[-1] and not one.truncations[:-1].any() and not one.terminations.any()


def test_what_is_written_is_trained_on(data, written):
    path, facts = written
    other = replace(data, demonstrations=str(path))
    train = other.train
    assert len(train.rows.goals) == facts["steps"]
    whole = [
        logged._rows(e, data.contract) for e in logged.episodes(data.grounds, data.contract, 0)
    ]
    assert (train.rows.seen == np.concatenate([r.seen for r in whole])).all()
    assert (train.rows.goals == np.concatenate([r.goals for r in whole])).all()
    assert (np.diff(np.unique(train.rows.starts)) == len(whole[0].goals)).all()
    assert train.take([5]).shape == (1, 6, data.contract.features)


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"horizon": 11}, "horizon=12"), ({"price_mean": 9.0}, "price_mean"),
     ({"information": "none"}, "information=mean7")],
)  # fmt: skip
def test_another_contract_is_refused(data, written, changed, message):
    path, _ = written
    with pytest.raises(DataError, match=message):
        logged.read(path, replace(data.contract, **changed))


def rewritten(folder, change):
    """A small dataset of somebody else, one episode of it spoilt."""
    import minari
    from gymnasium.spaces import Box
    from minari.data_collector import EpisodeBuffer

    steps, width = 30, 28
    arrays = {
        "observations": np.zeros((steps + 1, width), np.float32),
        "actions": np.zeros((steps, 1), np.float32), "rewards": np.zeros(steps),
    }  # fmt: skip
    ends = np.arange(steps) == steps - 1
    buffers = []
    for number in range(2):
        own = {name: value.copy() for name, value in arrays.items()}
        if number:
            own |= change(own) or {}
        buffers.append(EpisodeBuffer(**own, terminations=ends & False, truncations=ends))
    with logged._below(folder):
        minari.create_dataset_from_buffers(
            "own-homes-v0", buffer=buffers, action_space=Box(-9, 9, (1,)),
            observation_space=Box(-9, 9, (buffers[0].observations.shape[1],)),
        )  # fmt: skip
    return folder / "own-homes-v0"


def spoil(name, step, value):
    def change(arrays):
        arrays[name][step] = value

    return change


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoil("observations", (4, 3), np.nan), "observation of step 4"),
        (spoil("observations", (4, 3), 7), "observation of step 4"),
        (spoil("actions", (5, 0), -1.5), r"action of step 5 is \[-1.5\]"),
        (spoil("rewards", 6, np.inf), "reward of step 6"),
    ],
)
def test_a_wrong_value_is_named(data, tmp_path, change, message):
    pytest.importorskip("minari")
    path = rewritten(tmp_path, change)
    with pytest.raises(DataError, match=message) as fault:
        logged.read(path, data.contract)
    assert fault.value.at == f"{path}: episode 1"


@pytest.mark.filterwarnings("ignore")
def test_other_observations_and_other_folders_are_refused(data, tmp_path):
    pytest.importorskip("minari")
    path = rewritten(tmp_path, lambda arrays: None)
    with pytest.raises(DataError, match=r"wanted \(31, 30\)"):
        logged.read(path, replace(data.contract, horizon=13))
    with pytest.raises(DataError, match="no Minari dataset"):
        logged.read(tmp_path, data.contract)
