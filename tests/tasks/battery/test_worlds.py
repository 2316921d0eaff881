from __future__ import annotations

import numpy as np
import pytest

from edgekd.errors import DataError, RecipeError
from edgekd.tasks.battery.worlds import (
    PERIOD_DAYS,
    Place,
    Setup,
    capacities,
    judged,
    periods,
    trained,
    turns,
    world_of,
)

SETUP = Setup()


def test_no_home_and_no_day_is_in_two_splits(homes):
    """Everything that training looks at, past and future included, is of its own split."""
    seen = set()
    for stretch in trained(homes, SETUP, 0):
        for place in stretch.places:
            end = place.first + stretch.steps + SETUP.horizon
            seen |= {(place.home, step) for step in range(place.past, end)}
    steps = PERIOD_DAYS * homes.day
    trained_steps = {step for _, step in seen}
    for part in ("val", "test"):
        places = judged(homes, SETUP, part, 0)
        assert places
        for place in places:
            assert place.home not in {home for home, _ in seen}
            assert not trained_steps & set(range(place.first, place.first + steps))
    val, test = judged(homes, SETUP, "val", 0), judged(homes, SETUP, "test", 0)
    assert not {p.home for p in val} & {p.home for p in test}
    assert not {p.first for p in val} & {p.first for p in test}


def test_four_splits_test_every_home():
    tested = [{i for i, turn in enumerate(turns(15, k)) if turn == "test"} for k in range(4)]
    assert set.union(*tested) == set(range(15))
    assert sum(map(len, tested)) == 15
    assert turns(3, 0) == ["all"] * 3


def test_periods_end_before_the_data_does(homes):
    last, turn = periods(homes, 24)[-1]
    assert last + PERIOD_DAYS * 24 + 24 <= homes.steps
    assert turn == "test"


def test_a_world_is_cut_where_it_should_be(homes):
    world = world_of(homes, SETUP, [Place(3, 1000, 900)], 48)
    assert (world.load[0] == homes.load[3, 1000:1072]).all()
    assert (world.price[0] == homes.price[1000:1072]).all()
    assert world.time[0, 0] == 1000 % 24 / 24
    net = homes.load - homes.pv
    known = [net[3, 1060 - 24 * d] for d in range(1, 8) if 1060 - 24 * d >= 900]
    assert len(known) == 6
    assert world.expected[0, 60] == pytest.approx(np.mean(known))
    assert world.power[0] == 5.0


def test_capacity_from_the_surplus(homes):
    sizes = capacities(homes, Setup(capacity=0))
    surplus = np.maximum(homes.pv - homes.load, 0).sum(1) / (homes.steps / 24)
    assert (sizes == np.ceil(surplus)).all()
    world = world_of(homes, Setup(capacity=0, power=0), [Place(2, 0)], 24)
    assert world.power[0] == sizes[2] / 4


@pytest.mark.parametrize(
    ("name", "value"), [("capacity", -1), ("efficiency", 0), ("efficiency", 1.1), ("horizon", 1)]
)
def test_a_battery_that_cannot_be_is_refused(name, value):
    with pytest.raises(RecipeError, match=name) as fault:
        Setup(**{name: value})
    assert fault.value.at == f"setting: {name}"


def test_too_little_data(homes):
    with pytest.raises(DataError, match="steps of data"):
        world_of(homes, SETUP, [Place(0, homes.steps - 30)], 24)
    with pytest.raises(RecipeError, match="horizon"):
        world_of(homes, Setup(horizon=25), [Place(0, 0)], 24)
