"""The reader of NGAFID's own files, on files written by hand in their documented form."""

import csv
import pickle

import numpy as np
import pytest

from edgekd.data.flight.channels import CHANNELS
from edgekd.data.flight.ngafid import CLASSES, ngafid
from edgekd.errors import DataError

COLUMNS = (
    *("Master Index", "before_after", "date_diff", "flight_length", "label", "hierarchy"),
    *("fold", "class", "target_class", "hclass", "number_flights_before"),
)


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKD_STORE", str(tmp_path / "store"))


class Files:
    """Two flights a fold and class (before, after), as the public files hold them."""

    def __init__(self, folder):
        rng = np.random.default_rng(0)
        self.folder, self.flights, self.rows = folder, {}, []
        self.folder.mkdir(parents=True)
        for event in range(10):
            for before in (1, 0):
                number = 100 + 3 * event + before
                flight = rng.normal(50, 5, (rng.integers(300, 900), 23)).astype(np.float16)
                flight[:, 1] = np.nan  # volt2 is commonly absent
                self.flights[number] = flight
                kind = 1 + event % 2
                self.rows.append(
                    {
                        "Master Index": number,
                        "before_after": before,
                        "date_diff": -1 if before else 1,
                        "flight_length": float(len(flight)),
                        "label": ("baffle", "intake")[event % 2],
                        "hierarchy": "",
                        "fold": event % 5,
                        "class": kind,
                        "target_class": kind * before,
                        "hclass": 1,
                        "number_flights_before": 0 if before else -1,
                    }
                )
        self.stats = [np.full(23, 100.0), np.zeros(23)]

    def write(self, columns=COLUMNS, names=CHANNELS):
        (self.folder / "flight_data.pkl").write_bytes(pickle.dumps(self.flights, 4))
        with (self.folder / "flight_header.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(self.rows)
        with (self.folder / "stats.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["", *names], *(["x", *row] for row in self.stats)])
        return self.folder


@pytest.fixture(params=[".", "2days", "2days/2days"])
def anywhere(request, tmp_path):
    return tmp_path / "ngafid", Files(tmp_path / "ngafid" / request.param)


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path / "ngafid")


def load(path, **settings):
    return ngafid(path=str(path), length=64, **settings)


def test_the_folder_is_found_and_split_by_its_folds(anywhere):
    path, files = anywhere
    files.write()
    splits = load(path, fold=1)
    assert [len(part) for _, part in splits] == [12, 4, 4]
    header = {row["Master Index"]: row for row in files.rows}
    order = [row["Master Index"] for row in files.rows]
    assert {header[order[r]]["fold"] for r in splits.test.rows} == {1}
    assert {header[order[r]]["fold"] for r in splits.val.rows} == {2}
    assert splits.test.labels.tolist() == [1, 0, 1, 0]
    assert splits.facts["silent_channels"] == {"volt2": 20}


def test_stage_two_has_the_classes_of_the_header(files):
    splits = load(files.write(), stage=2)
    assert splits.train.classes[:3] == ("baffle", "intake", "class 3")
    assert len(splits.train.classes) == CLASSES
    assert splits.test.labels.tolist() == [0, 1]


def test_clean_scales_by_the_training_folds_and_leaves_the_rest_at_zero(files):
    files.flights[100][:] = 1000  # tested, so that it may not move the scale
    splits = load(files.write())
    assert abs(splits.train.mean[0] - 50) < 1
    x = splits.train.take([0])[0]
    assert not x[1].any()
    assert not x[:, 0, 20:].any()  # padding, after at most 900 of 4096 s


def test_official_scales_by_stats_pads_zeros_in_raw_units_and_says_so(files):
    files.stats = [np.full(23, 100.0), np.full(23, -20.0)]
    splits = load(files.write(), protocol="official")
    x = splits.train.take([0])[0]
    assert x[0, 0, -1] == pytest.approx(20 / 120, abs=1e-3)
    assert x[1, 0, 0] == 0  # absent: 0 after scaling
    assert splits.val.rows.tolist() == splits.test.rows.tolist()
    assert len(splits.train) == 16
    assert "optimistic" in splits.note


def test_rows_of_stats_may_come_in_either_order(files):
    first = load(files.write(), protocol="official").train.mean
    files.stats.reverse()
    assert np.array_equal(load(files.write(), protocol="official").train.mean, first)


def test_a_long_flight_gives_its_last_4096_seconds(files):
    long = np.zeros((20_679, 23), np.float16)
    long[-4096:] = np.arange(1, 4097)[:, None]
    files.flights[101] = long
    splits = load(files.write())
    place = next(i for i, row in enumerate(files.rows) if row["Master Index"] == 101)
    part = next(p for _, p in splits if place in p.rows)
    raw = part.raw(np.flatnonzero(part.rows == place))[0, 0]
    assert raw[0] == pytest.approx(32.5, rel=1e-3) and raw[-1] == pytest.approx(4064.5, rel=1e-3)


def test_short_and_empty_flights_are_left_out_and_counted(files):
    files.flights[100] = files.flights[100][:30]
    files.flights[101] = np.full((400, 23), np.nan, np.float16)
    splits = load(files.write())
    assert sum(len(part) for _, part in splits) == 18
    assert splits.facts["left_out"] == {"too_short": 1, "without_values": 1}


def test_constant_channels_are_named(files):
    files.flights[104][:, 0] = 28
    assert load(files.write()).facts["silent_channels"] == {"volt1": 1, "volt2": 20}


class Bomb:
    def __reduce__(self):
        return (print, ("boom",))


def test_a_pickle_that_carries_code_is_refused(files, capsys):
    files.flights[100] = Bomb()
    with pytest.raises(DataError, match=r"asks for builtins\.print"):
        load(files.write())
    assert "boom" not in capsys.readouterr().out


def test_no_folds_no_split_unless_asked(files):
    path = files.write(columns=[c for c in COLUMNS if c != "fold"])
    with pytest.raises(DataError, match="random split is refused"):
        load(path)
    assert "at random" in load(path, random_split=True).note


def change(files, **values):
    files.rows[3] |= values


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda f: change(f, **{"class": 20}), "class 20 is unknown"),
        (lambda f: change(f, target_class=7), "target_class is 7, class 2"),
        (lambda f: change(f, label="other"), "class 2 is 'other', earlier 'intake'"),
        (lambda f: change(f, fold="x"), "'fold' is 'x', wanted a whole number"),
        (lambda f: f.rows.append(f.rows[0]), "flight 101 is listed twice"),
        (lambda f: f.flights.pop(100), "1 flights are in the header but not in the data: 100"),
        (lambda f: f.rows.pop(), "in the data but not in the header: 127"),
        (lambda f: f.flights.update({100: np.zeros((400, 22))}), "shape \\(400, 22\\)"),
        (lambda f: f.flights.update({100: np.full((400, 23), "a")}), "wanted numbers"),
    ],
)
def test_files_that_do_not_fit_are_named(files, harm, says):
    harm(files)
    with pytest.raises(DataError, match=says) as caught:
        load(files.write())
    assert str(files.folder) in caught.value.at


def test_wrong_names_have_a_suggestion(files):
    columns = ["clas" if c == "class" else c for c in COLUMNS]
    for row in files.rows:
        row["clas"] = row["class"]
    with pytest.raises(DataError, match="column 'class' is missing") as caught:
        load(files.write(columns))
    assert "clas" in caught.value.hint
    names = ["E1 CHT9" if n == "E1 CHT2" else n for n in CHANNELS]
    with pytest.raises(DataError, match="unknown channel 'E1 CHT9'") as caught:
        load(files.write(names=names), protocol="official")
    assert "did you mean 'E1 CHT2'" in caught.value.hint and "AltMSL" in caught.value.hint


def test_absent_files_and_settings_are_explained(files, tmp_path):
    with pytest.raises(DataError, match=r"no flight_header\.csv") as caught:
        load(tmp_path)
    assert "zenodo" in caught.value.hint
    (tmp_path / "all_flights" / "one_parq").mkdir(parents=True)
    with pytest.raises(DataError, match="layout all_flights, without folds") as caught:
        load(tmp_path)
    assert "layout=all_flights" in caught.value.hint
    with pytest.raises(DataError, match="no protocol 'cleen'"):
        load(files.write(), protocol="cleen")
