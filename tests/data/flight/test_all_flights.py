"""The reader of NGAFID's parquet layout, on files written by hand in their documented form."""

import csv
import itertools

import numpy as np
import pytest

from edgekd.data.flight import all_flights
from edgekd.data.flight.channels import CHANNELS
from edgekd.data.flight.ngafid import ngafid
from edgekd.errors import DataError, SetupError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

LABELS = ("rocker cover leak", "baffle crack")
COLUMNS = (
    *("Master Index", "before_after", "date_diff", "flight_length", "label"),
    *("hierarchy", "number_flights_before"),
)


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKD_STORE", str(tmp_path / "store"))


class Files:
    """Forty flights in parts of which each ends within a flight, rows in no order of time."""

    def __init__(self, folder):
        rng = np.random.default_rng(0)
        self.folder, self.flights, self.rows = folder, {}, []
        for number in range(1, 41):
            flight = rng.normal(50, 5, (120 + number, 23))
            flight[:, 1] = np.nan
            flight[:, 0] = np.arange(len(flight)) + 1000 * number
            self.flights[number] = flight
            when = ("before", "after", "before", "same")[number % 4]
            self.rows.append(
                {
                    "Master Index": number,
                    "before_after": when,
                    "date_diff": {"before": -1, "after": 1, "same": 0}[when],
                    "flight_length": float(len(flight)),
                    "label": LABELS[number // 4 % 2],
                    "hierarchy": "",
                    "number_flights_before": 0 if when == "before" else -1,
                }
            )
        self.names = {name: name for name in CHANNELS}

    def write(self, parts=11):
        rng = np.random.default_rng(1)
        tables = []
        for number, flight in self.flights.items():
            order = rng.permutation(len(flight))
            columns = {self.names[name]: flight[order, i] for i, name in enumerate(CHANNELS)}
            columns |= {"timestep": order, "cluster": ["c_28"] * len(flight)}
            columns |= {"Master Index": np.full(len(flight), number)}
            tables.append(pyarrow.table(columns))
        whole = pyarrow.concat_tables(tables)
        folder = self.folder / "one_parq"
        folder.mkdir(parents=True)
        ends = np.linspace(0, len(whole), parts + 1).astype(int)
        for part, (start, end) in enumerate(itertools.pairwise(ends)):
            parquet.write_table(whole.slice(start, end - start), folder / f"part.{part}.parquet")
        with (self.folder / "flight_header.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)
        return self.folder


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path / "ngafid")


def load(path, **settings):
    asked = {"layout": "all_flights", "random_split": True, **settings}
    return ngafid(path=str(path), length=4096, **asked)


@pytest.mark.parametrize("nested", ["", "all_flights", "all_flights/all_flights"])
def test_flights_are_put_together_in_the_order_of_time(tmp_path, nested):
    Files(tmp_path / nested).write()
    splits = load(tmp_path)
    parts = [part for _, part in splits]
    assert sum(map(len, parts)) == 30  # forty less ten of the day of the repair
    assert splits.facts["left_out"]["in_no_class"] == 10
    seen = set()
    for part in parts:
        for flight in part.raw(range(len(part))):
            volts = flight[0][np.isfinite(flight[0])]
            number = round(volts[0] / 1000)
            seen.add(number)
            assert len(volts) == 120 + number
            wanted = (np.arange(len(volts)) + 1000 * number).astype(np.float16)
            assert np.array_equal(volts, wanted.astype(np.float32))
    assert seen == {n for n in range(1, 41) if n % 4 != 3}


def test_labels_are_numbered_by_the_alphabet_and_only_flights_before_have_one(files):
    splits = load(files.write(), stage=2)
    assert splits.train.classes[:3] == ("baffle crack", "rocker cover leak", "class 3")
    assert len(splits.train.classes) == all_flights.CLASSES
    assert sum(len(part) for _, part in splits) == 20
    assert "at random" in splits.note


def test_a_random_split_is_refused_unless_asked_for_and_official_always(files):
    path = files.write()
    with pytest.raises(DataError, match="random split is refused"):
        load(path, random_split=False)
    with pytest.raises(DataError, match="neither folds nor stats"):
        load(path, protocol="official")


def test_a_flight_that_the_header_does_not_list_is_counted(files):
    del files.rows[4]
    assert load(files.write()).facts["left_out"]["in_no_class"] == 11


def test_what_does_not_fit_is_named(files, tmp_path):
    with pytest.raises(DataError, match=r"no flight_header\.csv and one_parq"):
        load(tmp_path)
    files.rows.append({**files.rows[0], "Master Index": 99})
    with pytest.raises(DataError, match="1 flights are in the header but not in the data: 99"):
        load(files.write())


def test_a_header_of_the_other_layout_is_told(files):
    files.rows[2]["before_after"] = "1"
    with pytest.raises(DataError, match="before_after is '1'") as caught:
        load(files.write())
    assert caught.value.at.endswith("line 4") and "layout=2days" in caught.value.hint


def test_a_wrong_channel_has_a_suggestion(files):
    files.names["E1 CHT2"] = "E1 CHT9"
    with pytest.raises(DataError, match="unknown channel 'E1 CHT9'") as caught:
        load(files.write())
    assert "did you mean 'E1 CHT2'" in caught.value.hint


def test_a_damaged_part_is_named(files):
    path = files.write()
    (path / "one_parq" / "part.3.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="cannot be read") as caught:
        load(path)
    assert caught.value.at.endswith("part.3.parquet")


def test_a_flight_that_is_torn_apart_is_refused(files):
    path = files.write()
    (path / "one_parq" / "part.3.parquet").rename(path / "one_parq" / "part.30.parquet")
    with pytest.raises(DataError, match="lies in parts that are not neighbours"):
        load(path)


def test_without_pyarrow_the_extra_is_named(files, monkeypatch):
    monkeypatch.setattr(all_flights, "installed", lambda module: False)
    with pytest.raises(SetupError) as caught:
        load(files.write())
    assert "edgekd[ngafid]" in caught.value.hint
