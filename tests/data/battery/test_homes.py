from __future__ import annotations

import zipfile

import numpy as np
import pytest

from edgekd.data.battery import build as builder
from edgekd.data.battery.build import build_homes
from edgekd.data.battery.embedded import FILE, embedded_homes
from edgekd.data.battery.homes import Homes, check, choose, regular
from edgekd.data.battery.load import load_homes, load_npz
from edgekd.errors import DataError


def some(load=1.0, pv=0.5, price=0.3, steps=48, hours=1.0):
    values = [np.full((2, steps), float(v)) for v in (load, pv)]
    begin = np.datetime64("2024-03-01T22:00", "s")
    return Homes(("x", "y"), *values, np.full(steps, price), hours, begin, "made up")


def test_the_embedded_homes():
    homes = load_homes()
    assert homes.names == tuple(str(i) for i in range(1, 18) if i not in (12, 15))
    assert homes.load.shape == homes.pv.shape == (15, 8760)
    assert FILE.stat().st_size < 1_000_000
    assert sorted(np.unique(homes.price.round(2)).tolist()) == [0.21, 0.22, 0.4, 0.5, 0.54]
    # Noon is bright and midnight dark, so the clock is right.
    bright = homes.pv.sum(0).reshape(365, 24).sum(0)
    by_slot = dict(zip(homes.slots[:24].tolist(), bright, strict=True))
    assert max(by_slot, key=by_slot.get) in (11, 12)
    assert by_slot[0] == by_slot[23] == 0
    assert (FILE.parent / "HOMES_LICENSE.md").read_text().count("MIT License") == 1


def test_slots_begin_where_the_clock_says():
    assert some().slots[:4].tolist() == [22, 23, 0, 1]
    assert some(hours=0.5).slots[:2].tolist() == [44, 45]


def test_homes_are_chosen_by_name():
    assert choose(some(), ["y"]).names == ("y",)
    assert choose(some(), []).names == ("x", "y")
    with pytest.raises(DataError, match="no home is called 'z'"):
        choose(some(), ["z"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("load", np.nan), "load of home y is not a number at 2024-03-02T01:00"),
        (("pv", -0.1), "generation of home y is negative at 2024-03-02T01:00: -0.1 kWh"),
        (("load", 45.0), "load of home y is 45 kWh in 60 minutes"),
        (("price", np.nan), "the price is missing at 2024-03-02T01:00"),
    ],
)
def test_values_that_cannot_be_are_named(change, message):
    homes = some()
    what, value = change
    series = homes.price if what == "price" else getattr(homes, what)[1]
    series[3] = value
    with pytest.raises(DataError, match=message) as fault:
        check(homes, "my.csv", lines=range(2, 50))
    assert fault.value.at.startswith("my.csv")


def test_kw_for_kwh_is_suspected():
    with pytest.raises(DataError, match="336 kWh a day on average") as fault:
        check(some(load=14.0), "my.csv")
    assert "load_kw" in fault.value.hint


def test_a_price_series_of_another_length():
    homes = some()
    short = Homes(homes.names, homes.load, homes.pv, homes.price[:-1], 1.0, homes.begin, "made up")
    with pytest.raises(DataError, match="47 prices for 48 steps"):
        check(short, "my.csv")


def times(*minutes):
    return np.datetime64("2024-01-01T00:00", "s") + np.array(minutes) * np.timedelta64(60, "s")


@pytest.mark.parametrize(
    ("minutes", "message", "line"),
    [
        ((0, 30, 30, 60), "there twice", 4),
        ((0, 30, 90, 120, 150), "a gap", 4),
        ((0, 30, 60, 0, 30), "comes after", 5),
        ((0, 30, 90, 60, 120, 150), "comes before", 4),
        ((0, 7, 14), "steps of 7 minutes", 0),
        ((0,), "only 1 rows", 0),
    ],
)
def test_times_that_are_not_even(minutes, message, line):
    with pytest.raises(DataError, match=message) as fault:
        regular(times(*minutes), "my.csv", lines=range(2, 2 + len(minutes)))
    assert fault.value.at == ("my.csv" if not line else f"my.csv: line {line}")
    assert regular(times(0, 15, 30), "my.csv") == 0.25


def test_npz_round_trip(tmp_path):
    path = tmp_path / "mine.npz"
    rng = np.random.default_rng(0)
    arrays = {f"{n}_{w}": rng.random(96) for n in "ab" for w in ("load", "pv")}
    np.savez(path, **arrays, price=rng.random(96), hours=0.5, begin="2024-01-01T12:00")
    homes = load_npz(path)
    assert homes.names == ("a", "b")
    assert (homes.pv[1] == arrays["b_pv"]).all()
    assert homes.hours == 0.5
    assert homes.slots[0] == 24
    np.savez(path, a_load=np.ones(4), price=np.ones(4))
    with pytest.raises(DataError, match="wanted NAME_load"):
        load_npz(path)


def test_what_does_not_exist():
    with pytest.raises(DataError, match="no such file"):
        load_homes("nowhere.csv")


def wheel(path):
    """A tiny wheel in the layout of the real one: 17 homes, two of them stuck."""
    rng = np.random.default_rng(1)
    with zipfile.ZipFile(path, "w") as archive:
        schema = {}
        for number in range(1, 18):
            load = rng.random(96)
            if number in (4, 9):
                load = np.tile(load[:24], 4)
            head = f"Month,{builder.LOAD},{builder.SOLAR}\n"
            rows = "".join(f"1,{value},{1000 * number}\n" for value in load)
            archive.writestr(f"{builder.FOLDER}/Building_{number}.csv", head + rows)
            schema[f"Building_{number}"] = {"pv": {"attributes": {"nominal_power": 2.0}}}
        price = f"{builder.PRICE}\n" + "0.25\n" * 96
        archive.writestr(f"{builder.FOLDER}/pricing.csv", price)
        archive.writestr(
            f"{builder.FOLDER}/schema.json", __import__("json").dumps({"buildings": schema})
        )
        archive.writestr(builder.LICENCE, "MIT License\n\nCopyright somebody\n")
    return path


def test_building_keeps_what_is_measured_and_drops_stuck_meters(tmp_path, monkeypatch):
    path = wheel(tmp_path / "c.whl")
    with pytest.raises(DataError, match="not the pinned wheel"):
        build_homes(path, tmp_path / "out")
    monkeypatch.setattr(builder, "WHEEL_SHA256", builder._sha256(path))
    lines = []
    facts = build_homes(path, tmp_path / "out", lines.append)
    assert facts["dropped"] == ["4", "9"]
    assert "left out" in lines[0]
    with np.load(tmp_path / "out" / "homes.npz") as stored:
        assert stored["names"].tolist() == [str(i) for i in range(1, 18) if i not in (4, 9)]
        assert (stored["pv"][2] == 6.0).all()
    notice = (tmp_path / "out" / "HOMES_LICENSE.md").read_text()
    assert "Copyright somebody" in notice
    again = build_homes(path, tmp_path / "again", lines.append)
    assert again["sha256"] == facts["sha256"]


def test_the_embedded_file_is_what_the_notice_says():
    assert embedded_homes() is embedded_homes()
    notice = (FILE.parent / "HOMES_LICENSE.md").read_text()
    assert builder.WHEEL in notice and "12 and 15" in notice
