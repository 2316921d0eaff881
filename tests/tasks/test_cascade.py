"""The driver of two stages: the pipeline's own preparation, and the composition of two models."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekd.data.flight.channels import CHANNELS
from edgekd.data.flight.series import pool, standardise
from edgekd.tasks.faults import cascade
from edgekd.tasks.faults.cascade import Cascade, Stage, Stream, arrange
from edgekd.tasks.faults.tasks import detection, identification, shares

FAULTS = ("baffle", "probe", "magneto")
CHOSEN = (0, 4, 17)


def flights(count=12, seconds=4096):
    rng = np.random.default_rng(1)
    made = rng.normal(50, 20, (count, 23, seconds)).astype(np.float32)
    made[:, 1] = np.nan
    made[0, 4, 100:900] = np.nan
    return made


def stage(threshold, classes, temperature=1.5):
    rng = np.random.default_rng(2)
    state = {
        "channels": np.array(CHANNELS),
        "mean": rng.normal(50, 2, 23).astype(np.float32),
        "std": rng.uniform(0.5, 9, 23).astype(np.float32),
        "temperature": np.array([temperature]),
        "classes": np.array(classes),
    }
    state |= {} if threshold is None else {"threshold": np.array([threshold])}
    return Stage.of({"channels": list(CHOSEN), "shape": [3, 1, 64]}, state)


class Network:
    """A linear network that counts the flights it saw."""

    def __init__(self, classes):
        self.weight = np.random.default_rng(classes).normal(size=(3 * 64, classes))
        self.seen = 0

    def __call__(self, x):
        self.seen += len(x)
        return x.reshape(len(x), -1) @ self.weight / 10


@pytest.fixture
def made():
    finder, namer = Network(2), Network(3)
    find, name = stage(0.5, ("healthy", "faulty")), stage(None, FAULTS, 0.7)
    return Cascade(find, name, finder, namer), finder, namer


def test_flights_are_prepared_as_the_networks_were_trained():
    one = stage(0.5, ("healthy", "faulty"))
    kept = pool(flights(), 64).astype(np.float16)
    wanted = standardise(kept, one.mean, one.std)[:, list(CHOSEN)]
    assert np.array_equal(one.prepare(list(flights())), wanted)


def test_decisions_are_those_of_both_models_on_every_flight(made):
    diagnose, finder, namer = made
    raw = list(flights(40))
    found = diagnose(raw)
    chance = shares(finder(diagnose.find.prepare(raw)), 1.5)[:, 1]
    every = shares(namer(diagnose.name.prepare(raw)), 0.7)
    assert np.array_equal(found.chance, chance)
    assert 0 < found.flagged.sum() < 40
    assert np.array_equal(found.flagged, chance >= 0.5)
    assert np.array_equal(found.fault, np.where(chance >= 0.5, every.argmax(1), -1))
    assert np.allclose(found.shares[found.flagged], every[found.flagged])
    assert np.isnan(found.shares[~found.flagged]).all()
    assert found.named()[0] in {"healthy", *FAULTS}


def test_stage_two_sees_flagged_flights_alone(made):
    diagnose, finder, namer = made
    found = diagnose(list(flights(40)))
    assert finder.seen == 40
    assert namer.seen == found.flagged.sum()


def test_no_flight_is_no_work(made):
    diagnose, finder, namer = made
    assert diagnose([]).named() == []
    assert finder.seen == namer.seen == 0


def test_channels_may_come_in_any_order(made):
    diagnose, _, _ = made
    order = np.random.default_rng(3).permutation(23)
    names = [CHANNELS[i] for i in order]
    raw = list(flights())
    mixed = diagnose([flight[order] for flight in raw], names)
    assert np.array_equal(mixed.chance, diagnose(raw).chance)


def test_a_short_flight_is_padded_and_a_long_one_gives_its_end():
    one, raw = stage(0.5, ("healthy", "faulty")), flights(1)[0]
    assert np.array_equal(one.prepare([np.tile(raw, 2)]), one.prepare([raw]))
    short = one.prepare([raw[:, :640]])
    assert np.array_equal(short[..., :10], one.prepare([raw])[..., :10])
    assert not short[..., 10:].any()


def test_a_flight_in_progress_is_diagnosed_as_its_last_seconds(made):
    diagnose, finder, _ = made
    raw = np.concatenate([flights(1)[0], flights(2)[1][:, :500]], axis=1)
    stream = Stream(diagnose, every=750)
    found = {}
    for second in raw.T:
        one = stream(second)
        found |= {} if one is None else {stream.seconds: one}
    assert list(found) == [750, 1500, 2250, 3000, 3750, 4500]
    assert finder.seen == 6
    for seconds, one in found.items():
        whole = diagnose([raw[:, :seconds]])
        assert one.chance == whole.chance and one.named() == whole.named()
    assert np.array_equal(stream.flight(), raw[:, -4096:], equal_nan=True)


def test_nothing_is_said_of_the_first_minute_and_a_wrong_second_is_refused(made):
    stream = Stream(made[0], every=20)
    said = [stream(np.ones(23)) is not None for _ in range(80)]
    assert np.flatnonzero(said).tolist() == [59, 79]
    with pytest.raises(ValueError, match=r"shape \(22,\), wanted \(23,\)"):
        stream(np.ones(22))


def test_bad_flights_are_refused(made):
    diagnose, _, _ = made
    with pytest.raises(ValueError, match=r"flight 1 has 59 s, at least 60"):
        diagnose([flights(1)[0], flights(1)[0][:, :59]])
    with pytest.raises(ValueError, match="no channel of flight 0 has a value"):
        diagnose([np.full((23, 100), np.nan)])
    with pytest.raises(ValueError, match=r"shape \(22, 100\), wanted \(23 channels"):
        diagnose([np.zeros((22, 100))])
    names = ["E1 CHT9" if n == "E1 CHT2" else n for n in CHANNELS]
    with pytest.raises(ValueError, match="channel 'E1 CHT2' is missing; did you mean 'E1 CHT"):
        arrange(np.zeros((23, 100)), CHANNELS, names, 0)


def test_bundles_must_be_one_of_each_stage(made):
    find, name = made[0].find, made[0].name
    for first, second in ((find, find), (name, name), (name, find)):
        with pytest.raises(ValueError, match="of stage 1, the second of stage 2"):
            Cascade(first, second, Network(2), Network(3))


@pytest.mark.parametrize("task", [detection(), identification()])
def test_both_tasks_ship_what_needs_numpy_alone(task):
    files = task.companions()
    assert sorted(files) == ["cascade.py", "explain.py"]
    assert files["cascade.py"] == Path(cascade.__file__)
    code = (
        "import sys; sys.path.insert(0, '.'); import cascade, explain;"
        "print([m for m in ('edgekd', 'torch', 'onnx') if m in sys.modules])"
    )
    folder = Path(cascade.__file__).parent
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"
