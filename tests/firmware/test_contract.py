"""The C header of a task's contract does what the Python that ships beside other bundles does."""

from __future__ import annotations

import ctypes
import json
import subprocess

import numpy as np
import pytest

from edgekd.agent.loops.battery import Contract, Controller
from edgekd.agent.runtimes.c import quantize
from edgekd.firmware.boards import BOARDS
from edgekd.firmware.contract import around
from edgekd.firmware.library import load, write
from edgekd.firmware.reference import run
from edgekd.tasks.enroll import Enroller
from edgekd.tasks.faults.cascade import Stage
from edgekd.tasks.faults.tasks import contract as stage_contract
from edgekd.tasks.fewshot import FewShot
from tests.firmware.building import ARM
from tests.firmware.host import WARNINGS, compiler
from tests.firmware.networks import Net

pytestmark = pytest.mark.needs("gcc", install="apt-get install gcc")
M4 = BOARDS["cortex-m4"]
CONTROLLER = """
#include "home_controller.h"
int size(void);
void begin(home_controller_t *c, const home_battery_t *b);
int step(home_controller_t *c, void *arena, float net, float soe, const float *prices, float time,
         float *action);
const void *window(const home_controller_t *c);
int size(void) { return (int)sizeof(home_controller_t); }
void begin(home_controller_t *c, const home_battery_t *b) { home_controller_init(c, b); }
int step(home_controller_t *c, void *arena, float net, float soe, const float *prices, float time,
         float *action) {
  return home_controller_step(c, arena, net, soe, prices, time, action);
}
const void *window(const home_controller_t *c) { return c->window; }
"""
STAGE = """
#include "one_stage.h"
int size(void);
void begin(one_stream_t *s);
int push(one_stream_t *s, const float *values);
const void *window(const one_stream_t *s);
void chances(const int8_t *out, float *made);
int size(void) { return (int)sizeof(one_stream_t); }
void begin(one_stream_t *s) { one_stream_init(s); }
int push(one_stream_t *s, const float *values) { return one_stream_push(s, values); }
const void *window(const one_stream_t *s) { return s->window; }
void chances(const int8_t *out, float *made) { one_chances(out, made); }
"""


ENROLLER = """
#include "icons_enroller.h"
void ready(const int8_t *out, float *made);
void add(float *sums, int32_t *counts, int32_t place, const float *made);
int32_t nearest(float *sums, int32_t *counts, const float *made, float *distance);
void drop(float *sums, int32_t *counts, int32_t place);
void ready(const int8_t *out, float *made) { icons_ready(out, made); }
void add(float *sums, int32_t *counts, int32_t place, const float *made) {
  icons_enroller_t e = {sums, counts, 5};
  icons_enroll(&e, place, made);
}
int32_t nearest(float *sums, int32_t *counts, const float *made, float *distance) {
  icons_enroller_t e = {sums, counts, 5};
  return icons_classify(&e, made, distance);
}
void drop(float *sums, int32_t *counts, int32_t place) {
  icons_enroller_t e = {sums, counts, 5};
  icons_forget(&e, place);
}
"""


def library(net, prefix, document, folder, code, channels=None):
    """Write and compile a library with the header of its contract."""
    firmware = load(net.bytes(), prefix)
    write(firmware, folder, M4)
    card = json.loads((folder / "firmware.json").read_text())
    for name, text in around(document, card, channels).items():
        (folder / name).write_text(text)
    (folder / "wrapped.c").write_text(code)
    made = folder / "wrapped.so"
    sources = [*map(str, (folder / "src").glob("*.c")), str(folder / "wrapped.c")]
    command = [compiler(), *WARNINGS, "-O1", "-fPIC", "-shared", "-I", str(folder / "include")]
    subprocess.run([*command, *sources, "-o", str(made), "-lm"], check=True)
    return firmware, card, ctypes.CDLL(str(made))


def controller(dtype="int8"):
    contract = Contract(3, 4, 1.0, 0.25, 0.1, 0.9)
    net = Net(2, dtype)
    x = net.feed(1, contract.window, contract.features, spread=0.4)
    hidden = net.dense(net.reshape(x, 1, contract.window * contract.features), 8)
    net.output(net.unary("TANH", net.dense(hidden, 1)))
    return contract, net


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_a_home_is_controlled_as_by_the_python_controller(tmp_path, dtype):
    contract, net = controller(dtype)
    document = json.loads(json.dumps(contract.document()))
    firmware, card, shared = library(net, "home", document, tmp_path, CONTROLLER)
    seen = []

    def model(windows):
        seen.append(quantize(windows, card["inputs"][0]))
        row = card["outputs"][0]
        return (run(firmware.program, [seen[-1]])[0] - row["zero_point"]) * row["scale"]

    home = {"capacity": 6.4, "power": 2.5, "charge": 0.95, "discharge": 0.9, "standby": 0.01, "feed_in": 0.05}  # fmt: skip
    python = Controller(model, contract, **home)
    state = ctypes.create_string_buffer(shared.size())
    shared.begin(state, (ctypes.c_float * 6)(*home.values()))
    arena = (ctypes.c_int32 * (firmware.arena.size // 4 + 1))()
    shared.step.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_float, ctypes.c_float, ctypes.c_void_p, ctypes.c_float, ctypes.c_void_p]  # fmt: skip
    shared.window.restype = ctypes.POINTER(np.ctypeslib.as_ctypes_type(seen_type(dtype)))
    rng, soe, made = np.random.default_rng(0), 3.0, ctypes.c_float()
    actions = []
    for i in range(200):  # more than a week: the forecast's ring turns over
        net_load = float(np.float32(rng.normal(0.2, 1.5)))
        prices = rng.uniform(0.1, 0.5, contract.horizon).astype(np.float32)
        time = (i % 24) / 24
        wanted = python.step(net=net_load, soe=soe, prices=prices, time=time)
        code = shared.step(
            state, arena, net_load, soe, prices.ctypes.data, time, ctypes.byref(made)
        )
        assert code == 0
        codes = np.ctypeslib.as_array(shared.window(state), (seen[-1].size,))
        assert np.abs(codes.astype(int) - seen[-1].ravel().astype(int)).max() <= 1
        assert made.value == pytest.approx(wanted, abs=0.03 if dtype == "int8" else 1e-3)
        actions.append(wanted)
        change = wanted * 0.95 if wanted > 0 else wanted / 0.9
        soe = float(np.float32(np.clip(soe + change, 0, 6.4)))
    assert min(actions) < -0.5 < 0.5 < max(actions)


def seen_type(dtype):
    return np.int8 if dtype == "int8" else np.int16


def test_a_contract_that_no_device_can_keep_has_no_header():
    document = Contract(3, 4, 1.0, 0.25, 0.1, 0.9, information="perfect").document()
    assert around(document, {"prefix": "x", "inputs": [], "outputs": []}) == {}
    assert around({}, {}) == {}


STATE = {
    "channels": np.array(["rpm", "oil", "egt"]),
    "mean": np.array([2000.0, 60.0, 1300.0], np.float32),
    "std": np.array([300.0, 5.0, 90.0], np.float32),
    "classes": np.array(["healthy", "faulty"]),
    "temperature": np.array([1.3]),
    "threshold": np.array([0.4]),
}


def flight(seconds, seed=0):
    rng = np.random.default_rng(seed)
    values = STATE["mean"][:, None] + STATE["std"][:, None] * rng.normal(0, 3, (3, seconds))
    values[rng.random(values.shape) < 0.3] = np.nan
    values[1, 100:300] = np.nan
    return values.astype(np.float32)


@pytest.fixture
def stage(tmp_path):
    net = Net(4)
    x = net.feed(1, 2, 1, 128, spread=2.0)
    net.output(net.dense(net.reshape(x, 1, 256), 2))
    # The network sees the third and the first channel, in that order.
    return library(net, "one", dict(stage_contract(STATE)), tmp_path, STAGE, channels=(2, 0))


@pytest.mark.parametrize("seconds", [640, 4096, 4096 + 320])
def test_a_flight_second_by_second_gives_the_window_of_the_python_driver(stage, seconds):
    _, card, shared = stage
    python = Stage.of({"channels": (2, 0), "shape": (2, 1, 128)}, STATE)
    whole = flight(seconds)
    wanted = quantize(python.prepare([whole]), card["inputs"][0])
    state = ctypes.create_string_buffer(shared.size())
    shared.begin(state)
    due = [
        shared.push(state, np.ascontiguousarray(now).ctypes.data_as(ctypes.c_void_p))
        for now in whole[[2, 0]].T
    ]
    assert next(i + 1 for i, one in enumerate(due) if one) == 64  # 60 s, rounded up to a column
    shared.window.restype = ctypes.POINTER(ctypes.c_int8)
    codes = np.ctypeslib.as_array(shared.window(state), (256,)).astype(int)
    off = np.abs(codes - wanted.ravel())
    # Sums of float32 are added in another order: a half may round to the other side.
    assert off.max() <= 1
    assert (off > 0).mean() < 0.01


def test_chances_and_the_threshold_are_those_of_the_python_driver(stage, tmp_path):
    _, card, shared = stage
    python = Stage.of({"channels": (2, 0), "shape": (2, 1, 128)}, STATE)
    row, made = card["outputs"][0], (ctypes.c_float * 2)()
    for codes in ([-128, 127], [3, 5], [90, -90]):
        shared.chances((ctypes.c_int8 * 2)(*codes), made)
        logits = (np.array([codes], np.float64) - row["zero_point"]) * row["scale"]
        assert list(made) == pytest.approx(python.shares(logits)[0].tolist(), rel=1e-5)
    text = (tmp_path / "include" / "one_stage.h").read_text()
    assert "#define ONE_THRESHOLD 0.4" in text
    assert '{"egt", 1300.0f, 90.0f},\n    {"rpm", 2000.0f, 300.0f}' in text


def test_classes_are_enrolled_as_by_the_python_enroller(tmp_path):
    rng, width = np.random.default_rng(3), 20
    task = FewShot(5, (1, 5), 10, 100, 0)
    base = rng.normal(0, 0.1, width).astype(np.float32)
    net = Net(5)
    net.output(net.dense(net.feed(1, 6), width))
    document = json.loads(json.dumps(task.contract({"base_mean": base})))
    _, card, shared = library(net, "icons", document, tmp_path, ENROLLER)
    row = card["outputs"][0]
    python, sums, counts = Enroller(base), np.zeros((5, width), np.float32), np.zeros(5, np.int32)
    made, near = np.zeros(width, np.float32), ctypes.c_float()
    at = [array.ctypes.data_as(ctypes.c_void_p) for array in (sums, counts, made)]

    def prepared(codes):
        shared.ready(codes.ctypes.data_as(ctypes.c_void_p), at[2])
        features = (codes.astype(np.float32) - row["zero_point"]) * np.float32(row["scale"])
        assert made == pytest.approx(python.prepare(features[None])[0], abs=1e-6)
        return features

    assert shared.nearest(*at, ctypes.byref(near)) == -1
    for _ in range(3):
        for place in (0, 1, 3):
            features = prepared(rng.integers(-128, 128, width).astype(np.int8))
            shared.add(at[0], at[1], place, at[2])
            python.enroll(str(place), features)
    for round_ in range(2):
        for _ in range(20):
            features = prepared(rng.integers(-128, 128, width).astype(np.int8))
            assert str(shared.nearest(*at, ctypes.byref(near))) == python.classify(features)[0]
            assert near.value == pytest.approx(python.distances(features).min(), rel=1e-4)
        if not round_:
            shared.drop(at[0], at[1], 1)
            python.forget("1")


@pytest.mark.needs("arm-none-eabi-gcc", install=ARM)
def test_both_headers_compile_for_the_core(stage, tmp_path):
    contract, net = controller()
    folder = tmp_path / "home"
    library(net, "home", contract.document(), folder, CONTROLLER)
    for place, code in ((folder, CONTROLLER), (tmp_path, STAGE)):
        (place / "wrapped.c").write_text(code)
        command = [
            "arm-none-eabi-gcc",
            *M4.flags,
            *WARNINGS[:4],
            "-O2",
            "-I",
            str(place / "include"),
        ]
        done = [*command, "-c", str(place / "wrapped.c"), "-o", str(place / "wrapped.o")]
        subprocess.run(done, check=True)
