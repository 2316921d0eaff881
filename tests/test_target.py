"""Targets: valid ones load, all faults of a wrong one are named with their lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edgekd import target
from edgekd.errors import TargetError
from edgekd.target import Roofline, Target, accepts, loads

ROOT = Path(__file__).parents[1]
GOOD = "name: x\ntitle: X\ndevice: cpu\nbackends: [openvino]\nprecisions: [fp32]\n"
FULL = """\
name: board
title: A board
device: gpu
backends: [tensorrt]
runtime: {tensorrt: ">=10.3,<11"}
arch: [aarch64]
precisions: [fp16, int8]
never_quantize: [Softmax]
limits: {latency_p50_ms: 8, latency_p99_ms: 12.0, peak_memory_mib: 512, size_mib: 64,
         energy_mj: 120, metric_drop: 0.01}
power_mode: 25W
measure: {threads: 2, runs: 100, warmup: 5, processes: 20}
roofline: {int8_gops: 67000, fp16_gops: 33000, fp32_gops: 1280, bandwidth_gbs: 102}
opset: 20
"""


def fault(text: str) -> str:
    with pytest.raises(TargetError) as caught:
        loads(text, at="t.yaml")
    return str(caught.value)


@pytest.mark.parametrize("file", sorted((ROOT / "targets").glob("*.yaml")), ids=lambda p: p.name)
def test_every_shipped_target_is_valid_and_named_like_its_file(file):
    assert target.load(file).name == file.stem


def test_a_full_target_loads():
    board = loads(FULL)
    assert board.limits.latency_p50_ms == 8.0
    assert board.backends == ("tensorrt",)
    assert board.runtime == {"tensorrt": ">=10.3,<11"}
    assert board.measure.processes == 20
    assert loads(json.dumps(board.plain())) == board


@pytest.mark.parametrize(
    ("more", "machine", "why"),
    [
        ("", {}, ""),
        ("arch: [aarch64]\n", {}, "this machine is x86_64, the target aarch64"),
        ("arch: [x86_64, aarch64]\n", {}, ""),
        ("board: Pi 5\n", {"board": "Raspberry pi 5 Model B"}, ""),
        ("board: Pi 5\n", {"board": "Raspberry Pi 4"}, "this machine is Raspberry Pi 4"),
        ("board: Pi 5\n", {"board": None}, "a machine without a name"),
    ],
)
def test_whether_a_machine_is_the_device(more, machine, why):
    found = loads(GOOD + more).absent_from({"arch": "x86_64", "runtimes": {}, **machine})
    assert why in found and bool(found) == bool(why)


def test_an_accelerator_needs_its_runtime():
    board = loads(GOOD.replace("cpu", "gpu").replace("openvino", "tensorrt"))
    machine = {"arch": "x86_64", "board": None, "runtimes": {"onnxruntime": "1.22"}}
    assert board.absent_from(machine) == "this machine has no tensorrt runtime"
    assert not board.absent_from(machine | {"runtimes": {"tensorrt": "10.3"}})
    old = board.model_copy(update={"runtime": {"tensorrt": ">=10.3,<12"}})
    said = old.absent_from(machine | {"runtimes": {"tensorrt": "8.6.1", "onnxruntime": "1.32"}})
    assert said == "this machine has tensorrt 8.6.1, the target tensorrt >=10.3,<12"
    assert not old.absent_from(machine | {"runtimes": {"tensorrt": "10.16.2.10"}})
    assert loads(GOOD.replace("cpu", "mcu")).absent_from(machine)


def test_order_of_preference():
    assert loads(GOOD.replace("[fp32]", "[fp32, int8, fp16]")).order == ("fp32", "int8", "fp16")
    text = GOOD.replace("[fp32]", "[fp32, int8, fp16]") + "prefer: [fp16]\n"
    assert loads(text).order == ("fp16", "fp32", "int8")


def test_a_target_is_frozen():
    with pytest.raises(ValidationError):
        loads(GOOD).name = "y"


def test_all_faults_come_at_once_with_their_lines(snapshot):
    assert (
        fault(
            """\
name: Bad Name
title: 3
device: cpuu
backends: [onnxruntme, openvino]
precisions: [int9, fp32]
precisions: [int8]
limits: {latency_p9_ms: 12.0, peak_memory_mib: lots, size_mib: yes, energy_mj: -2,
         metric_drop: .nan}
measure:
  threads: 1.5
  rnus: 4
never_quantize: Softmax
runtime: {openvino: newest}
roofline: 12
1: x
opset: 99
"""
        )
        == snapshot
    )


def test_missing_keys_are_named(snapshot):
    assert fault("name: x\n") == snapshot


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "got nothing"),
        ("- a\n", "got list"),
        ("name: [\n", "t.yaml:2"),
        ("name: &a x\ntitle: *a\n", "no YAML aliases"),
        ("a: &a [*a]\n", "no YAML aliases"),
        ("when: 2024-13-45\n", "not YAML"),
        ("x: !!python/object/apply:os.getcwd []\n", "not YAML"),
        ("[a]: b\n", "not YAML"),
        ("[" * 3000, "not YAML"),
        ("? 2024-01-01\n: x\n", "a key is a text"),
        (GOOD + "runtime: {litert: '>=2'}\n", "runtime names 'litert'"),
        (GOOD + "limits:\n", "limits: should be a mapping"),
        (GOOD + "title: Y\n", "t.yaml:6: title: key given twice, first in line 2"),
    ],
)
def test_what_is_no_target_is_refused(text, part):
    assert part in fault(text)


def test_a_file_that_is_not_there_is_a_target_error(tmp_path):
    with pytest.raises(TargetError, match="cannot read"):
        target.load(tmp_path / "no.yaml")
    (tmp_path / "bin.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TargetError, match="cannot read"):
        target.load(tmp_path / "bin.yaml")


def test_a_backend_of_an_entry_point_is_known(monkeypatch):
    monkeypatch.setattr(target, "_installed_backends", lambda: ["mine"])
    assert loads(GOOD.replace("openvino", "mine")).backends == ("mine",)


def test_the_schema_describes_every_key():
    schema = target.json_schema()
    assert schema["additionalProperties"] is False
    models = [schema, *schema["$defs"].values()]
    for model in models:
        for name, key in model["properties"].items():
            assert key.get("description"), name


@pytest.mark.parametrize(
    ("versions", "found", "result"),
    [
        (">=10.3,<11", "10.3", True),
        (">=10.3,<11", "10.3.0.post1", True),
        (">=10.3,<11", "11.0", False),
        (">=10.3, <11", "10.10", True),
        ("==2.0", "2", True),
        ("!=2.0", "2.0.0", False),
        (">1", "1.0.1", True),
        ("<=1.9", "1.10", False),
    ],
)
def test_version_ranges(versions, found, result):
    assert accepts(versions, found) is result


NUMBERS = st.tuples(*[st.integers(0, 30)] * 3)


@given(NUMBERS, NUMBERS)
def test_version_ranges_order_like_tuples(a, b):
    low, found = ".".join(map(str, a)), ".".join(map(str, b))
    assert accepts(f">={low}", found) == (b >= a)
    assert accepts(f"<{low}", found) == (b < a)


def test_the_floor_is_the_slower_of_arithmetic_and_memory():
    roofline = Roofline(int8_gops=100, fp16_gops=50, fp32_gops=10, bandwidth_gbs=1)
    assert roofline.floor_ms(5e7, 0) == pytest.approx(1.0)
    assert roofline.floor_ms(5e7, 0, "fp16") == roofline.floor_ms(5e7, 0, "bf16")
    assert roofline.floor_ms(5e7, 0, "fp32") == pytest.approx(10.0)
    assert roofline.floor_ms(5e7, 5e6) == pytest.approx(5.0)
    assert Roofline().floor_ms(1, 1) is None
    assert loads(FULL).floor_ms(1e9, 0, "fp32") == pytest.approx(2e12 / 1280e9)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_any_yaml_is_a_target_or_a_target_error(value):
    text = GOOD + yaml.safe_dump({"limits": value})
    try:
        assert isinstance(loads(text), Target)
    except TargetError as error:
        assert ":6" in str(error)
