"""The simulated set: the compact file, the plan, the sensors, the splits."""

import csv

import numpy as np
import pytest

from edgekd.data.flight import sensors
from edgekd.data.flight.bases import FILE, SECONDS, STEPS, load_bases, pack, save_bases
from edgekd.data.flight.channels import CHANNELS
from edgekd.data.flight.fleet import DIFFICULTIES, FAULTS, plan_fleet
from edgekd.data.flight.ngafid import ngafid
from edgekd.data.flight.pilot import COLUMNS, TROUBLES
from edgekd.data.flight.series import pool
from edgekd.data.flight.simflight import make, simflight, truth_of
from edgekd.data.unpickle import unpickle
from edgekd.errors import DataError

PLACE = {name: i for i, name in enumerate(CHANNELS)}


@pytest.fixture(scope="module")
def fleet(bases):
    return plan_fleet(bases, "clear", airframes=5, events=11)


def of_fault(fleet, name, limit=6):
    kind = list(FAULTS).index(name) + 1
    return np.flatnonzero((fleet.fault == kind) & (fleet.severity > 0))[:limit]


def changed(bases, fleet, name):
    """Largest change of every channel by a fault, in units of noise."""
    return sensors.simulate(bases, fleet, of_fault(fleet, name), 1)[1].max((0, 2))


def test_the_compact_file_keeps_every_step(bases, tmp_path):
    first, second = save_bases(bases, tmp_path / "a.npz"), save_bases(bases, tmp_path / "b.npz")
    kept = load_bases(tmp_path / "a.npz")
    assert first == second
    for name in ("healthy", "response", "trouble", "scalars"):
        assert np.array_equal(getattr(kept, name), getattr(bases, name))


def test_states_come_back_within_half_a_step(flown, bases):
    record = flown[3][1][50:]
    found = bases.states(np.array([3]))
    for column, name in enumerate(COLUMNS):
        wanted = record[:, column].reshape(-1, 4).mean(1)
        middle = found[name][0].reshape(-1, 4)[:, 1:3].mean(1)
        error = np.abs(middle - wanted)[1:-1]  # straight lines cut corners, so not the largest
        assert np.quantile(error, 0.95) <= STEPS[column]


def test_a_damaged_file_says_what_to_do(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"PK nonsense")
    with pytest.raises(DataError, match="cannot be read") as caught:
        load_bases(tmp_path / "x.npz")
    assert "edgekd data build simflight" in str(caught.value)


def test_a_short_flight_is_no_base(flown):
    plan, calm, troubled = flown[0]
    with pytest.raises(DataError, match="3796 are needed"):
        pack([(plan, calm[:3700], troubled)])


def test_a_flight_that_is_a_little_short_waits_on_the_apron(flown):
    plan, calm, troubled = flown[0]
    made = pack([(plan, calm[100:], troubled)])
    assert (made.healthy[0, :, :12] == made.healthy[0, :, :1]).all()
    assert made.scalar("start")[0] == -50


def test_the_embedded_file_is_small_and_complete():
    kept = load_bases()
    assert FILE.stat().st_size < 1_000_000
    assert kept.healthy.shape[1:] == (len(COLUMNS), SECONDS // 4)
    for fold in range(5):
        assert set(kept.trouble[fold::5].ravel()) == set(range(len(TROUBLES)))


def test_folds_share_neither_airframe_nor_base(fleet):
    for column in (fleet.airframe, fleet.base, fleet.event):
        for value in np.unique(column):
            assert len(np.unique(fleet.fold[column == value])) == 1


def test_an_event_has_four_flights_before_and_four_after(fleet):
    for event in np.unique(fleet.event):
        mine = fleet.event == event
        assert fleet.before[mine].tolist() == [1] * 4 + [0] * 4
        assert fleet.left[mine].tolist() == [3, 2, 1, 0, -1, -1, -1, -1]
        assert (fleet.severity[mine & (fleet.before == 0)] == 0).all()
    assert np.array_equal(fleet.target, fleet.fault * fleet.before)


def test_every_fault_occurs_in_every_fold(fleet):
    for fold in range(5):
        assert set(fleet.target[fleet.fold == fold]) == set(range(12))


def test_label_noise_leaves_faults_without_a_trace(bases):
    fleet = plan_fleet(bases, "fleet", airframes=20, events=11)
    share = (fleet.severity[fleet.before == 1] == 0).mean()
    assert share == pytest.approx(DIFFICULTIES["fleet"].label_noise, abs=0.04)


def test_a_flight_does_not_depend_on_its_batch(bases, fleet):
    places = np.concatenate([of_fault(fleet, n, 1) for n in ("magneto", "probe", "baffle")])
    together = sensors.simulate(bases, fleet, places, 1)[0]
    for row, place in enumerate(places):
        alone = sensors.simulate(bases, fleet, np.array([place]), 1)[0][0]
        assert np.allclose(alone, together[row], rtol=1e-4, atol=1e-3, equal_nan=True)


def test_the_twin_of_a_healthy_flight_is_itself(bases, fleet):
    places = np.flatnonzero(fleet.severity == 0)[:3]
    flown, effect = sensors.simulate(bases, fleet, places, 1)
    assert np.array_equal(flown, sensors.twins(bases, fleet, places, 1), equal_nan=True)
    assert not effect.any()


@pytest.mark.parametrize(
    ("fault", "moves", "stays"),
    [
        ("intake_leak", ["E1 EGT1", "E1 EGT2", "E1 EGT3", "E1 EGT4"], ["E1 OilP", "IAS", "volt1"]),
        ("oil_leak", ["E1 OilT", "E1 OilP"], ["E1 EGT1", "E1 CHT1", "volt1"]),
        ("baffle", ["E1 CHT1", "E1 CHT2", "E1 CHT3", "E1 CHT4"], ["E1 EGT1", "E1 OilT"]),
        ("alternator", ["volt1", "amp1"], ["E1 CHT1", "FQtyL"]),
        ("fuel_quantity", ["FQtyL", "FQtyR"], ["E1 FFlow", "volt1", "IAS"]),
        ("pitot_static", ["IAS", "AltMSL", "VSpd"], ["E1 RPM", "E1 EGT1"]),
        ("magneto", ["E1 EGT1", "E1 EGT4", "E1 RPM"], []),
        ("mixture", ["E1 EGT1", "E1 FFlow"], []),
        ("compression", ["E1 CHT1", "E1 RPM"], []),
        ("governor", ["E1 RPM", "E1 FFlow"], []),
    ],
)
def test_a_fault_moves_its_own_channels(bases, fleet, fault, moves, stays):
    found = changed(bases, fleet, fault)
    assert max(found[PLACE[name]] for name in moves) > 2
    assert all(found[PLACE[name]] < 0.2 for name in stays)


def test_nothing_changes_before_the_onset(bases, fleet):
    ill = np.flatnonzero((fleet.severity > 0) & (fleet.onset > 600))
    places = ill[~np.isin(fleet.fault[ill], [9])][:8]
    effect = sensors.simulate(bases, fleet, places, 1)[1]
    for row, place in enumerate(places):
        early = int(fleet.onset[place] // 256)
        assert effect[row, :, :early].max() < 1e-3 < effect[row].max()


def test_pooling_leaves_absent_values_out():
    flight = np.full((1, 2, 8), np.nan, np.float32)
    flight[0, 0] = np.arange(8)
    flight[0, 1, 1] = 5
    assert pool(flight, 2)[0, 0].tolist() == [1.5, 5.5]
    assert pool(flight, 2)[0, 1, 0] == 5 and np.isnan(pool(flight, 2)[0, 1, 1])
    with pytest.raises(DataError, match="cannot be pooled") as caught:
        pool(flight, 3)
    assert caught.value.at == "setting: length"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKD_STORE", str(tmp_path_factory.mktemp("store")))
        yield patch


SMALL = {"length": 64, "airframes": 5, "events": 11}


def test_the_loader_splits_by_fold_and_standardises(store):
    splits = simflight(**SMALL)
    x = splits.train.take(np.arange(64))
    assert x.shape == (64, 23, 1, 64) and x.dtype == np.float32
    assert np.isfinite(x).all() and np.abs(x).max() <= 6
    assert [len(part) for _, part in splits] == [264, 88, 88]
    assert splits.train.classes == ("healthy", "faulty")
    assert splits.facts["flights"]["test"] == [44, 44]
    assert "NGAFID" in splits.note


def test_stage_two_has_the_faulty_flights_alone(store):
    splits = simflight(stage=2, **SMALL)
    assert splits.test.classes == tuple(FAULTS)
    assert np.bincount(splits.test.labels).tolist() == [4] * 11


def test_a_second_load_computes_nothing(store, monkeypatch):
    first = simflight(**SMALL).val.take([0, 1])
    monkeypatch.setattr(sensors, "simulate", None)
    assert np.array_equal(simflight(**SMALL).val.take([0, 1]), first)


def test_truth_is_in_the_units_that_a_network_sees(store):
    made, splits = make("clear", 64, 5, 11), simflight(stage=2, **SMALL)
    truth = truth_of(splits.test, made)
    assert truth.shape == (44, 23, 16)
    ill = splits.test.labels == list(FAULTS).index("baffle")
    top = truth[ill].max(2).argmax(1)
    assert all(CHANNELS[c].startswith("E1 CHT") for c in top)


def test_what_is_written_is_read_back_by_the_reader_of_ngafid(store, tmp_path):
    size = {"length": 64, "airframes": 5, "events": 1}
    splits = simflight(**size)
    facts = splits.export(tmp_path)
    assert facts["flights"] == 40 and facts["faulty"] == 20
    again, made = ngafid(path=facts["path"], length=64), make("clear", 64, 5, 1)
    for (name, ours), (_, theirs) in zip(splits, again, strict=True):
        assert ours.rows.tolist() == theirs.rows.tolist(), name
        assert ours.labels.tolist() == theirs.labels.tolist()
        a, b = ours.raw(range(len(ours))), theirs.raw(range(len(theirs)))
        assert np.array_equal(np.isnan(a), np.isnan(b))
        np.testing.assert_allclose(a, b, rtol=4e-3, atol=0.05)
    folder = tmp_path / "simflight-clear" / "2days"
    with (folder / "truth.csv").open() as file:
        rows = list(csv.DictReader(file))
    ill = made.flights.severity > 0
    assert [bool(row["fault"]) for row in rows] == ill.tolist()
    assert all((float(row["severity"]) > 0) == bool(row["onset_s"]) for row in rows)
    assert not any(row["moved"] for row in rows if not row["fault"])
    most = make("clear", SECONDS, 5, 1).effect.max(2)
    for row, change in zip(rows, most, strict=True):
        wanted = {name for name, value in zip(CHANNELS, change, strict=True) if value >= 1}
        assert {name for name in row["moved"].split(";") if name} == wanted
    with (folder / "flight_header.csv").open() as file:
        header = list(csv.DictReader(file))
    assert [row["date_diff"] for row in header[:8]] == [
        *("-2", "-2"),
        *("-1", "-1"),
        *("1", "1"),
        *("2", "2"),
    ]
    twins, flights = unpickle(folder / "twins.pkl"), unpickle(folder / "flight_data.pkl")
    assert sorted(twins) == (np.flatnonzero(ill) + 1).tolist()
    number = next(n for n in twins if float(rows[n - 1]["onset_s"]) > 100)
    onset = int(rows[number - 1]["onset_s"])
    one, twin = flights[number], twins[number]
    assert np.array_equal(one[: onset - 1], twin[: onset - 1], equal_nan=True)
    assert not np.array_equal(one, twin, equal_nan=True)
    with pytest.raises(DataError, match="is there already"):
        splits.export(tmp_path)


def test_bad_settings_are_named(store):
    with pytest.raises(DataError, match="no difficulty 'claer'") as caught:
        simflight(difficulty="claer", length=64)
    assert "did you mean 'clear'" in caught.value.hint
    with pytest.raises(DataError, match="stage is 1 or 2"):
        simflight(**SMALL, stage=3)
    with pytest.raises(DataError, match="no fold 9"):
        simflight(**SMALL, fold=9)
