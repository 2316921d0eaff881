"""The pilot flies JSBSim; skipped where the extra `flight` is not installed."""

from dataclasses import replace

import numpy as np
import pytest

from edgekd.data.flight.build import build_bases, troubles_of
from edgekd.data.flight.pilot import COLUMNS, TROUBLES, fly, plan_flight
from edgekd.errors import DataError, SetupError


@pytest.fixture(scope="module")
def short():
    """A hop of about a quarter of an hour, with one misfire in its middle."""
    pytest.importorskip("jsbsim")
    plan = replace(plan_flight(3), duration=900.0, taxi=100.0, misfires=((300.0, 60.0),), work=())
    return replace(plan, cruise=plan.elevation + 1500)


@pytest.fixture(scope="module")
def healthy(short):
    return fly(short)


def column(record, name):
    return record[:, COLUMNS.index(name)]


def test_the_flight_takes_off_and_lands(short, healthy):
    above = column(healthy, "alt") - short.elevation
    assert above[:100].max() < 10 and above[-1] < 10
    assert 1300 < above.max() < 2500
    assert column(healthy, "ias").max() > 80 and column(healthy, "ias")[-1] < 10
    assert 2200 < np.median(column(healthy, "rpm")[200:600]) < 2600
    assert (column(healthy, "magneto") > 0).sum() >= 8


def test_a_flight_is_the_same_again(short, healthy):
    assert np.array_equal(fly(short), healthy)


def test_a_misfire_acts_only_from_its_start(short, healthy):
    ill = fly(short, "magneto")
    assert np.array_equal(ill[:300], healthy[:300])
    drop = column(healthy, "power")[310:350] - column(ill, "power")[310:350]
    assert drop.mean() > 5


def test_every_fold_is_flown_with_every_trouble():
    for fold in range(5):
        assert {t for base in range(fold, 20, 5) for t in troubles_of(base)} == set(TROUBLES)


def test_too_few_bases_are_refused(tmp_path):
    with pytest.raises(DataError, match="at least 20"):
        build_bases(tmp_path, bases=5)


def test_without_jsbsim_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("edgekd.data.flight.build.installed", lambda name: False)
    with pytest.raises(SetupError) as caught:
        build_bases(tmp_path)
    assert "edgekd[flight]" in str(caught.value)
