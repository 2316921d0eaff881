from __future__ import annotations

import datetime
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgekd.data.battery.ausgrid import HEAD, load_ausgrid
from edgekd.data.battery.load import load_homes
from edgekd.data.battery.prices import at_steps, load_prices
from edgekd.data.battery.table import load_table
from edgekd.errors import DataError

FIXTURES = Path(__file__).parents[2] / "fixtures" / "battery"


# --- users' CSV --------------------------------------------------------------------------------


def csv_of(path, rows, head="timestamp,load,pv,price"):
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def hourly(count=48, load="0.5", pv="0.2", price="0.3"):
    start = datetime.datetime(2024, 1, 1)
    return [
        f"{(start + datetime.timedelta(hours=i)).isoformat()},{load},{pv},{price}"
        for i in range(count)
    ]


def test_a_table(tmp_path):
    homes = load_homes(str(csv_of(tmp_path / "mine.csv", hourly())))
    assert homes.names == ("mine",)
    assert homes.hours == 1.0
    assert homes.load.shape == (1, 48)
    assert (homes.price == 0.3).all()


def test_power_is_turned_into_energy(tmp_path):
    rows = [f"2024-01-01T{i // 2:02}:{30 * (i % 2):02},2,500" for i in range(48)]
    path = csv_of(tmp_path / "a.csv", rows, "timestamp,load_kw,pv_w")
    homes = load_table(path)
    assert (homes.load == 1.0).all()
    assert (homes.pv == 0.25).all()


def test_a_folder_is_several_homes_and_an_offset_is_brought_to_utc(tmp_path):
    rows = [row.replace(",", "+02:00,", 1) for row in hourly()]
    csv_of(tmp_path / "a.csv", rows)
    csv_of(tmp_path / "b.csv", rows)
    homes = load_homes(str(tmp_path))
    assert homes.names == ("a", "b")
    assert homes.begin == np.datetime64("2023-12-31T22:00", "s")


def test_homes_of_other_times_are_refused(tmp_path):
    csv_of(tmp_path / "a.csv", hourly(48))
    csv_of(tmp_path / "b.csv", hourly(47))
    with pytest.raises(DataError, match="home 'b' covers"):
        load_table(tmp_path)


@pytest.mark.parametrize(
    ("line", "row", "message"),
    [
        (5, "2024-01-01T03:00:00,,0.2,0.3", "'' is not a number"),
        (5, "2024-01-01T03:00:00,nan,0.2,0.3", "'nan' is not a number"),
        (5, "2024-01-01T02:00:00,0.5,0.2,0.3", "there twice"),
        (5, "2024-01-01T04:00:00,0.5,0.2,0.3", "a gap"),
        (5, "2024-01-01T01:30:00,0.5,0.2,0.3", "comes after"),
        (5, "2024-01-01T03:00:00,0.5,inf,0.3", "'inf' is not a number"),
        (5, "2024-01-01T03:00:00,0.5,0.2,-", "'-' is not a number"),
        (5, "2024-01-01T03:00:00,-1,0.2,0.3", "load of home mine is negative"),
        (5, "2024-01-01T03:00:00,0.5,-0.2,0.3", "negative"),
        (5, "2024-01-01T03:00:00,45,0.2,0.3", "45 kWh in 60 minutes"),
        (5, "tomorrow,0.5,0.2,0.3", "'tomorrow' is not a time"),
        (5, "2024-01-01T03:00:00,0.5,0.2", "3 cells, the head has 4"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, line, row, message):
    rows = hourly()
    rows[line - 2] = row
    path = csv_of(tmp_path / "mine.csv", rows)
    with pytest.raises(DataError, match=message) as fault:
        load_homes(str(path))
    assert fault.value.at.startswith(f"{path}: line {line}")
    assert fault.value.hint


WRONG = {
    "2024-01-01T01:00:00,0.5,0.2,0.3": "there twice",
    "2024-01-01T03:00:00,0.5,0.2,0.3": "a gap",
    "2024-01-01T02:00:00,0.5,-0.2,0.3": "generation of home b is negative",
    "2024-01-01T02:00:00,31,0.2,0.3": "31 kWh in 60 minutes",
}
"""The third row of a home, and what is said of it."""


@pytest.mark.parametrize("row", WRONG)
def test_the_row_of_the_second_file_is_named(tmp_path, row):
    csv_of(tmp_path / "a.csv", hourly())
    rows = hourly()
    rows[2] = row
    path = csv_of(tmp_path / "b.csv", rows)
    with pytest.raises(DataError, match=WRONG[row]) as fault:
        load_homes(str(tmp_path))
    assert fault.value.at == f"{path}: line 4" and fault.value.hint


@pytest.mark.parametrize("row", WRONG)
def test_the_row_is_named_where_two_homes_share_a_file_with_empty_lines(tmp_path, row):
    """Line 2 and 3 hold the first step, line 5 and 6 the second, and so on."""
    rows = []
    for i, step in enumerate(hourly()):
        rows += [f"a,{step}", f"b,{row if i == 2 else step}", ""]
    path = csv_of(tmp_path / "two.csv", rows, "home,timestamp,load,pv,price")
    with pytest.raises(DataError, match=WRONG[row]) as fault:
        load_homes(str(path))
    assert fault.value.at == f"{path}: line 9" and fault.value.hint


def test_kw_for_kwh_over_a_whole_file(tmp_path):
    """Quarter-hours of 8 kW written as 8 kWh are 768 kWh a day."""
    start = datetime.datetime(2024, 1, 1)
    rows = [
        f"{(start + datetime.timedelta(minutes=15 * i)).isoformat()},7,0.2,0.3" for i in range(192)
    ]
    path = csv_of(tmp_path / "a.csv", rows)
    with pytest.raises(DataError, match="672 kWh a day") as fault:
        load_homes(str(path))
    assert "load_kw" in fault.value.hint and str(path) in fault.value.at


def test_a_file_without_times(tmp_path):
    path = csv_of(tmp_path / "a.csv", hourly(), "when,load,pv,price")
    with pytest.raises(DataError, match="no column with the time") as fault:
        load_homes(str(path))
    assert fault.value.at == f"{path}: line 1" and "timestamp" in fault.value.hint


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("2024-01-01T01:00:00,0.3", "there twice"),
        ("2024-01-01T03:00:00,0.3", "a gap"),
        ("2024-01-01T00:30:00,0.3", "comes after"),
        ("2024-01-01T02:00:00,nan", "'nan' is not a number"),
        ("2024-01-01T02:00:00,", "'' is not a number"),
    ],
)
def test_a_wrong_row_of_a_price_file_is_named(tmp_path, row, message):
    load = [line.rpartition(",")[0] for line in hourly()]
    rows = [f"{line[:19]},0.3" for line in hourly()]
    rows[2] = row
    path = csv_of(tmp_path / "p.csv", ["", *rows], "timestamp,price")
    csv_of(tmp_path / "a.csv", load, "timestamp,load,pv")
    with pytest.raises(DataError, match=message) as fault:
        load_homes(str(tmp_path / "a.csv"), prices=str(path))
    assert fault.value.at.startswith(f"{path}: line 5") and fault.value.hint


def test_a_price_file_shorter_than_the_load(tmp_path):
    load = [line.rpartition(",")[0] for line in hourly()]
    path = csv_of(tmp_path / "p.csv", [f"{r[:19]},0.3" for r in hourly(47)], "timestamp,price")
    csv_of(tmp_path / "a.csv", load, "timestamp,load,pv")
    for align in ("time", "position"):
        with pytest.raises(DataError, match=r"prices run from .* to 2024-01-02T23:00") as fault:
            load_homes(str(tmp_path / "a.csv"), prices=str(path), align=align)
        assert fault.value.at == str(path) and "whole load" in fault.value.hint


def test_missing_columns_and_prices(tmp_path):
    path = csv_of(tmp_path / "a.csv", hourly(), "timestamp,laod,pv,price")
    with pytest.raises(DataError, match="no column 'load'") as fault:
        load_homes(str(path))
    assert "laod" in fault.value.hint
    rows = [row.rpartition(",")[0] for row in hourly()]
    path = csv_of(tmp_path / "a.csv", rows, "timestamp,load,pv")
    with pytest.raises(DataError, match="no prices") as fault:
        load_homes(str(path))
    assert "prices=FILE" in fault.value.hint


# --- prices ------------------------------------------------------------------------------------


def test_aemo_is_labelled_by_the_end(tmp_path):
    path = tmp_path / "p.csv"
    rows = [
        f"NSW1,2010/07/01 {h:02}:{m:02}:00,7000,{20 + h},TRADE" for h in range(12) for m in (0, 30)
    ]
    path.write_text("REGION,SETTLEMENTDATE,TOTALDEMAND,RRP,PERIODTYPE\n" + "\n".join(rows[1:]))
    prices = load_prices(path)
    assert prices.begin == np.datetime64("2010-07-01T00:00", "s")
    assert prices.hours == 0.5
    assert prices.values[:3] == pytest.approx([0.02, 0.021, 0.021])


def smard(path, start, hours, value=lambda i: f"{i},50", skip=None):
    """Hours of Berlin's wall time from a UTC start."""
    from zoneinfo import ZoneInfo

    zone = ZoneInfo("Europe/Berlin")
    lines = ["\ufeffDatum von;Datum bis;Belgien [€/MWh] Original;DE/AT/LU [€/MWh] Original"]
    for i in range(hours):
        if i == skip:
            continue
        local = (start + datetime.timedelta(hours=i)).astimezone(zone)
        lines.append(f"{local:%d.%m.%Y %H:%M};x;-;{value(i)}")
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(("month", "day"), [(6, 1), (3, 29), (10, 25)])
def test_smard_over_both_changes_of_the_clock(tmp_path, month, day):
    start = datetime.datetime(2020, month, day, tzinfo=datetime.timezone.utc)
    prices = load_prices(smard(tmp_path / "s.csv", start, 30), scale=10, add=0.01)
    assert prices.begin == np.datetime64(start.replace(tzinfo=None), "s")
    assert prices.hours == 1.0
    assert prices.values == pytest.approx([(i + 0.5) / 100 + 0.01 for i in range(30)])


def test_smard_thousands_and_missing_values(tmp_path):
    start = datetime.datetime(2020, 6, 1, tzinfo=datetime.timezone.utc)
    prices = load_prices(smard(tmp_path / "s.csv", start, 5, lambda i: "1.234,5"))
    assert prices.values[0] == pytest.approx(1.2345)
    with pytest.raises(DataError, match="no price at") as fault:
        load_prices(smard(tmp_path / "s.csv", start, 5, lambda i: "-" if i == 2 else "1,0"))
    assert fault.value.at.endswith("line 4")
    with pytest.raises(DataError, match="a gap"):
        load_prices(smard(tmp_path / "s.csv", start, 9, skip=4))


def test_prices_are_laid_under_the_load(tmp_path):
    path = csv_of(
        tmp_path / "p.csv", [f"2024-01-01T{h:02}:00,{h}" for h in range(24)], "timestamp,price"
    )
    prices = load_prices(path)
    begin = np.datetime64("2024-01-01T02:00", "s")
    assert at_steps(prices, begin, 0.5, 4).tolist() == [2, 2, 3, 3]
    fine = csv_of(
        tmp_path / "f.csv",
        [f"2024-01-01T{h:02}:{m:02},{m}" for h in range(9) for m in (0, 15, 30, 45)],
        "timestamp,price",
    )
    assert at_steps(load_prices(fine), begin, 1.0, 2).tolist() == [22.5, 22.5]
    with pytest.raises(
        DataError, match="prices run from 2024-01-01T00:00 to 2024-01-02T00:00"
    ) as fault:
        at_steps(prices, begin, 1.0, 23)
    assert "align=position" in fault.value.hint


def test_prices_from_another_year_go_in_by_position(tmp_path):
    load = csv_of(
        tmp_path / "mine.csv", [r.rpartition(",")[0] for r in hourly(12)], "timestamp,load,pv"
    )
    path = csv_of(
        tmp_path / "p.csv", [f"2017-01-01T{h:02}:00,{h}" for h in range(24)], "timestamp,price"
    )
    with pytest.raises(DataError, match="prices run from"):
        load_homes(str(load), prices=str(path))
    homes = load_homes(str(load), prices=str(path), align="position", price_scale=2)
    assert homes.price.tolist() == [2.0 * h for h in range(12)]


def test_an_unknown_price_file(tmp_path):
    path = csv_of(tmp_path / "p.csv", ["1,2"], "a,b")
    with pytest.raises(DataError, match="not a price file"):
        load_prices(path)


# --- Ausgrid -----------------------------------------------------------------------------------


@pytest.mark.parametrize("year", ["2010-2011", "2012-2013"])
def test_the_two_variants_of_the_files(tmp_path, year):
    source = next(FIXTURES.glob(f"{year}*"))
    shutil.copy(source, tmp_path)
    homes = load_ausgrid(tmp_path)
    assert homes.names == ("1", "2")
    assert homes.load.shape == (2, 3 * 48)
    assert homes.begin == np.datetime64(f"{year[:4]}-07-01T00:00", "s")
    assert np.isnan(homes.price).all()
    # Home 2 heats water at night on the controlled circuit: 1.25 kWh on top of its 0.182.
    if year == "2010-2011":
        assert homes.load[1, 0] == pytest.approx(0.182 + 1.25)
    assert homes.pv[:, 0].max() == 0


def ausgrid(path, days, value="0.1", title=True, drop=(), extra=()):
    lines = ['"Solar home data ""x""",,,'] if title else []
    slots = [f"{(i + 1) // 2 % 24}:{30 * ((i + 1) % 2):02}" for i in range(48)]
    lines.append(",".join([*HEAD, *slots]))
    for customer in (7, 8):
        for day in days:
            for category in ("GC", "GG"):
                if (customer, day, category) in drop:
                    continue
                cells = [value(day, i) if callable(value) else value for i in range(48)]
                lines.append(
                    ",".join([f"{customer}", "1.0", "2000", category, f"{day:%d/%m/%Y}", *cells])
                )
    (path / "2011-2012 Solar home.csv").write_text("\r\n".join([*lines, *extra]) + "\r\n")
    return path


def days_of(first, count):
    return [first + datetime.timedelta(days=i) for i in range(count)]


def test_the_day_that_loses_an_hour_and_the_day_that_repeats_one(tmp_path):
    spring, autumn = datetime.date(2011, 10, 2), datetime.date(2012, 4, 1)
    lost = ausgrid(
        tmp_path, days_of(spring, 1),
        lambda day, i: "0" if i in (4, 5) else "0.2" if i < 4 else "0.8",
    )  # fmt: skip
    filled = load_ausgrid(lost)
    assert filled.load[0, 3:7] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert (load_ausgrid(lost, strict_clock=True).load[0, 4:6] == 0).all()
    twice = ausgrid(tmp_path, days_of(autumn, 1), lambda day, i: "0.4" if i in (4, 5) else "0.2")
    assert load_ausgrid(twice).load[0] == pytest.approx(np.full(48, 0.2))


def test_an_incomplete_home_is_left_out_and_named(tmp_path):
    days = days_of(datetime.date(2011, 7, 1), 3)
    homes = load_ausgrid(ausgrid(tmp_path, days, drop={(8, days[1], "GG")}, title=False))
    assert homes.names == ("7",)
    assert "8" in homes.note


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["7,1,2000,GC,01/07/2011," + ",".join(["1"] * 48)], "GC twice"),
        (["7,1,2000,XX,04/07/2011," + ",".join(["1"] * 48)], "unknown category"),
        (["7,1,2000,GC,2011.07.04," + ",".join(["1"] * 48)], "not a date"),
        (["7,1,2000,GC,04/07/2011," + ",".join(["?"] * 48)], "not a number"),
        (["7,1,2000,GC,09/07/2011," + ",".join(["1"] * 48)], "a gap"),
        (["7,1,2000,GC,04/07/2011,1,1"], "7 cells"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, extra, message):
    days = days_of(datetime.date(2011, 7, 1), 3)
    with pytest.raises(DataError, match=message) as fault:
        load_ausgrid(ausgrid(tmp_path, days, extra=extra))
    assert "2011-2012 Solar home.csv" in fault.value.at


def test_a_folder_without_such_files(tmp_path):
    with pytest.raises(DataError, match="no file of Ausgrid"):
        load_ausgrid(tmp_path)
