"""Arrays, options and the two measuring loops, on a session that only counts."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.agent import arrays, measure
from edgekd.agent.faults import SetupFault, UsageFault
from edgekd.agent.runtimes import _import, open_session
from edgekd.agent.runtimes.options import Option, read_options
from edgekd.agent.runtimes.session import Layer, Port, Session, adapt


class Doubler(Session):
    """Returns twice its input, and remembers the batches it saw."""

    version = "1"
    load_s = 0.0

    def __init__(self, batch=None):
        self.inputs = [Port("x", (batch, 2), "float32")]
        self.outputs = [Port("y", (batch, 2), "float32")]
        self.effective = {"threads": 1}
        self.batches = []

    def run(self, feeds):
        self.batches.append(len(feeds["x"]))
        return {"y": feeds["x"] * 2}


def samples(n):
    return {"x": np.arange(2 * n, dtype=np.float32).reshape(n, 2)}


@given(n=st.integers(1, 20), batch=st.integers(1, 25), fixed=st.none() | st.integers(1, 7))
def test_outputs_are_the_same_whatever_the_batch(n, batch, fixed):
    session, feeds = Doubler(fixed), samples(n)
    outputs, result = measure.run_all(session, feeds, batch)
    np.testing.assert_array_equal(outputs["y"], feeds["x"] * 2)
    assert result["n"] == n
    assert result["batch"] == (fixed or batch)
    if fixed:
        assert set(session.batches) == {fixed}


def test_nonfinite_values_are_counted_but_not_those_of_the_filling():
    feeds = samples(3)
    feeds["x"][0, 0], feeds["x"][2] = math.nan, math.inf
    assert measure.run_all(Doubler(2), feeds, 1)[1]["nonfinite"] == {"y": 3}


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"z": np.zeros((1, 2), np.float32)}, "inputs are z; the model takes x"),
        ({"x": np.zeros((1, 2))}, "'x' is float64; the model takes float32"),
        ({"x": np.zeros((1, 3), np.float32)}, "has shape [1, 3]; the model takes ['?', 2]"),
        ({"x": np.zeros(2, np.float32)}, "has shape [2]"),
        ({"x": np.zeros((0, 2), np.float32)}, "no sample"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(feeds, message):
    with pytest.raises(UsageFault) as error:
        measure.run_all(Doubler(), feeds, 1)
    assert message in str(error.value)


def test_inputs_must_agree_on_their_number():
    ports = [Port("a", (None,), "int64"), Port("b", (None,), "int64")]
    with pytest.raises(UsageFault, match="number of samples"):
        arrays.check_feeds(ports, {"a": np.zeros(2, int), "b": np.zeros(3, int)})


@pytest.mark.parametrize("result", [np.float32(1), np.zeros((7, 2), np.float32)])
def test_an_output_without_a_batch_axis_is_refused(result, monkeypatch):
    monkeypatch.setattr(Doubler, "run", lambda self, feeds: {"y": np.asarray(result)})
    with pytest.raises(UsageFault, match="first axis must count samples"):
        measure.run_all(Doubler(), samples(2), 2)


def test_an_output_that_changes_its_shape_is_refused(monkeypatch):
    widths = iter([2, 3])
    monkeypatch.setattr(Doubler, "run", lambda self, feeds: {"y": np.zeros((1, next(widths)))})
    with pytest.raises(UsageFault, match="changes its shape"):
        measure.run_all(Doubler(), samples(2), 1)


@given(runs=st.integers(1, 40), block=st.integers(1, 12), warmup=st.integers(0, 5))
def test_a_plan_is_carried_out_exactly(runs, block, warmup):
    session = Doubler()
    plan = measure.Plan(warmup, runs, 60.0, block)
    result = measure.time_session(session, samples(3), plan, fresh=True)
    assert len(result["wall_ns"]) == runs
    assert len(result["cpu_ns"]) == max(runs // block, 1)
    assert result["warmup"] == max(warmup, 1)
    assert len(session.batches) == runs + max(warmup, 1)
    assert result["first_ms"] > 0


def test_a_session_that_has_run_reports_no_first_inference():
    plan = measure.Plan(0, 2, 60.0, 1)
    assert measure.time_session(Doubler(), samples(1), plan, fresh=False)["first_ms"] is None


def test_time_is_bounded_and_at_least_one_inference_counts():
    plan = measure.Plan(0, 10**9, 1e-9, 10)
    result = measure.time_session(Doubler(), samples(1), plan, fresh=False)
    assert len(result["wall_ns"]) == len(result["cpu_ns"]) == 1


def test_samples_are_taken_in_turn():
    seen = []
    session = Doubler()
    session.bind = lambda feeds: lambda: seen.append(feeds["x"][0, 0].item())
    measure.time_session(session, samples(3), measure.Plan(1, 5, 60.0, 2), fresh=True)
    assert seen == [0, 2, 4, 0, 2, 4]


def test_timing_wants_batch_1():
    with pytest.raises(UsageFault, match="batch 1"):
        measure.time_session(Doubler(4), samples(4), measure.Plan(0, 1, 1.0, 1), fresh=True)


@pytest.mark.parametrize("wrong", [(-1, 1, 1.0, 1), (0, 0, 1.0, 1), (0, 1, 0.0, 1), (0, 1, 1.0, 0)])
def test_a_plan_that_measures_nothing_is_refused(wrong):
    with pytest.raises(UsageFault, match="timing wants"):
        measure.Plan(*wrong)


names = st.text(st.characters(codec="utf-8", exclude_characters="\0\\"), min_size=1, max_size=12)


@given(st.sets(names, min_size=1, max_size=3))
def test_npz_takes_any_name(tmp_path_factory, found):
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    wanted = {name: np.full(2, index) for index, name in enumerate(sorted(found))}
    arrays.write_npz(path, wanted)
    read = arrays.open_arrays(str(path))
    assert {name: array.tolist() for name, array in read.items()} == {
        name: array.tolist() for name, array in wanted.items()
    }


def test_equal_arrays_make_equal_files(tmp_path):
    for name in ("a.npz", "b.npz"):
        arrays.write_npz(tmp_path / name, {"file": np.arange(3)})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_npy_files_are_mapped_not_read(tmp_path):
    np.save(tmp_path / "x.npy", samples(4)["x"])
    opened = arrays.open_arrays({"x": str(tmp_path / "x.npy")})
    assert isinstance(opened["x"], np.memmap)
    outputs, _ = measure.run_all(Doubler(), opened, 3)
    np.testing.assert_array_equal(outputs["y"], samples(4)["x"] * 2)


TABLE = {"must": Option(str, choices=("a", "b")), "may": Option(int, 1), "flag": Option(bool, True)}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "'must' must be set: a | b"),
        ({"must": "c"}, "'must' is 'c'; wanted: a | b"),
        ({"must": "a", "may": True}, "'may' is True; wanted: int"),
        ({"must": "a", "flag": 1}, "'flag' is 1; wanted: bool"),
        ({"must": "a", "mai": 1}, "unknown option mai"),
    ],
)
def test_wrong_options(given, message):
    with pytest.raises(UsageFault) as error:
        read_options(given, TABLE)
    assert message in str(error.value)


def test_right_options():
    assert read_options({"must": "a", "may": None}, TABLE) == {
        "must": "a",
        "may": 1,
        "flag": True,
    }


def test_a_strangers_session_is_dressed():
    closed = []
    stranger = SimpleNamespace(
        inputs=[{"name": "x", "shape": [None, 2], "dtype": "float32"}],
        outputs=[Port("y", (None, 2), "float32")],
        effective={"threads": 3},
        run=lambda feeds: {"y": feeds["x"] + 1},
        close=lambda: closed.append(True),
    )
    session = adapt(stranger, version="9", load_s=0.5)
    assert session.inputs == [Port("x", (None, 2), "float32")]
    assert (session.version, session.load_s) == ("9", 0.5)
    assert measure.run_all(session, samples(2), 1)[0]["y"].shape == (2, 2)
    timed = measure.time_session(session, samples(1), measure.Plan(0, 2, 9.0, 1), fresh=True)
    assert timed["threads"] == 3
    session.close()
    assert closed


def test_a_third_party_runtime_comes_by_entry_point(tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text(
        "from edgekd.agent.runtimes.null import NullSession\n"
        "def open_session(model, options): return NullSession(model, {'threads': 1})\n"
    )
    meta = tmp_path / "stranger-2.5.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 2.5\n")
    (meta / "entry_points.txt").write_text("[edgekd.runtimes]\nodd = stranger\n")
    (tmp_path / "m.json").write_text('{"inputs": [], "outputs": []}')
    monkeypatch.syspath_prepend(tmp_path)
    assert open_session("odd", tmp_path / "m.json", {}).session.inputs == []


def test_a_missing_package_is_named():
    with pytest.raises(SetupFault, match="needs the package 'nosuchruntime'") as error:
        _import("odd", "nosuchruntime.api", ("nosuchruntime",))
    assert error.value.hint == "pip install nosuchruntime"


def test_a_package_that_does_not_import_says_why(tmp_path, monkeypatch):
    (tmp_path / "brokenruntime.py").write_text("raise ImportError('libodd.so.3: not found')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SetupFault, match=r"libodd\.so\.3"):
        _import("odd", "brokenruntime", ("numpy",))


def board(folder, milliamperes):
    """Sensors of a board in files: 5 V and the given current."""
    monitor = folder / "hwmon0"
    monitor.mkdir(parents=True)
    (monitor / "name").write_text("ina3221\n")
    (monitor / "in1_label").write_text("VDD_IN\n")
    (monitor / "in1_input").write_text("5000\n")
    (monitor / "curr1_input").write_text(f"{milliamperes}\n")
    return monitor / "curr1_input"


def test_the_energy_of_an_inference_is_what_it_adds_to_the_idle_board(tmp_path, monkeypatch):
    current = board(tmp_path, 400)
    monkeypatch.setattr(measure.power, "HWMON", tmp_path)

    class Working(Doubler):
        def run(self, feeds):
            if len(self.batches) == 1:  # from the second inference on the board works
                (tmp_path / "new").write_text("1000\n")
                (tmp_path / "new").replace(current)
            measure.time.sleep(0.01)
            return super().run(feeds)

    found = measure.energy_session(Working(), samples(2), seconds=0.8, idle_s=0.4)
    assert found["idle_mw"] == pytest.approx(2000, abs=1)
    assert 4500 < found["mean_mw"] <= 5000 * (1 + 1e-9)
    assert found["net_mj"] == pytest.approx(
        (found["mean_mw"] - found["idle_mw"]) * 0.8 / found["runs"], rel=0.05
    )
    assert found["runs"] >= 20 and found["lost_samples"] == 0


def test_without_a_sensor_the_energy_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setattr(measure.power, "HWMON", tmp_path)
    found = measure.energy_session(Doubler(), samples(2), seconds=0.1, idle_s=0.1)
    assert found == {"not_run": "no power sensor on this machine (INA3221, or tegrastats)"}


def test_layers_are_told_by_few_runtimes_and_largest_first():
    found = measure.layers_session(Doubler(), samples(2), runs=3)
    assert found == {"not_run": "this runtime tells no times of layers"}

    class Telling(Doubler):
        def layers(self, feeds, runs):
            assert feeds["x"].shape[0] == 1 and runs == 3
            return [Layer("small", "Add", 0.1), Layer("large", "Conv", 0.9)]

    found = measure.layers_session(Telling(), samples(2), runs=3)
    assert found == {"runs": 3, "layers": [["large", "Conv", 0.9], ["small", "Add", 0.1]]}
    with pytest.raises(UsageFault, match="batch 1"):
        measure.layers_session(Telling(2), samples(2), runs=3)


def test_energy_wants_a_batch_of_one(tmp_path, monkeypatch):
    board(tmp_path, 400)
    monkeypatch.setattr(measure.power, "HWMON", tmp_path)
    with pytest.raises(UsageFault, match="batch 1"):
        measure.energy_session(Doubler(2), samples(2), seconds=0.1, idle_s=0.1)
