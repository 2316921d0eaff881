"""Doctor: what is lacking, and the command that brings it."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from edgekd import doctor
from edgekd.agent import facts
from edgekd.errors import SetupError, TargetError

FACTS = {"cpu": "A CPU", "arch": "x86_64", "runtimes": {"onnxruntime": "1.32.0"}}
TARGET = (
    "name: t\ntitle: T\ndevice: cpu\nbackends: [onnxruntime, openvino]\n"
    "runtime: {onnxruntime: '>=1.22'}\nprecisions: [fp32]\n"
)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A machine that has torch and ONNX Runtime, and an empty store."""
    has = {*doctor.NEEDS["onnxruntime"].build}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEKD_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(doctor, "installed", lambda module: module in has)
    monkeypatch.setattr(facts, "version_of", lambda name: "9.9" if name in has else None)
    return has


def examine(text: str | None = None, **device) -> doctor.Diagnosis:
    target = None
    if text is not None:
        Path("t.yaml").write_text(text)
        target = "t.yaml"
    return doctor.examine(target, ask=lambda: {**FACTS, **device})


def of(diagnosis: doctor.Diagnosis, part: str) -> dict[str, tuple[str, str, str]]:
    found = [check for check in diagnosis.checks if check.part == part]
    return {check.name: (check.status, check.found, check.fix) for check in found}


def test_a_target_works_when_one_backend_does():
    diagnosis = examine(TARGET)
    assert not diagnosis.lacking
    assert of(diagnosis, "target t") == {
        "onnxruntime": ("ok", "can be built, run and measured", ""),
        "openvino": (
            "note",
            "openvino, nncf not installed here; no openvino runtime on the device",
            "pip install 'edgekd[train,openvino]'",
        ),
    }


def test_a_target_without_a_backend_that_works_lacks_something(here):
    here.clear()
    diagnosis = examine(TARGET)
    assert [check.name for check in diagnosis.lacking] == ["onnxruntime", "openvino"]
    assert doctor.advice(diagnosis.lacking) == [
        "pip install 'edgekd[train]'",
        "pip install 'edgekd[train,openvino]'",
    ]


def test_a_runtime_outside_the_range_is_said():
    diagnosis = examine(TARGET, runtimes={"onnxruntime": "1.20.1"})
    status, found, _ = of(diagnosis, "target t")["onnxruntime"]
    assert (status, found) == ("lacks", "onnxruntime 1.20.1 on the device, wanted >=1.22")


def test_another_architecture_is_said():
    diagnosis = examine(TARGET + "arch: [aarch64]\n")
    assert of(diagnosis, "target t")["architecture"][:2] == ("lacks", "x86_64, wanted aarch64")
    assert not examine(TARGET + "arch: [x86_64]\n").lacking


def test_a_missing_tool_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    text = TARGET.replace("[onnxruntime, openvino]", "[firmware]")
    text = text.replace("onnxruntime:", "firmware:")
    text += "mcu: {core: cortex-m4, clock_mhz: 100, flash_kib: 512, ram_kib: 64}\n"
    checks = of(examine(text), "target t")["firmware"]
    assert checks[0] == "lacks"
    assert "arm-none-eabi-gcc, qemu-system-arm not on PATH" in checks[1]
    assert "gcc-arm-none-eabi" in checks[2]
    monkeypatch.setenv("EDGEKD_LITERT", str(tmp_path))
    checks = of(examine(text), "target t")["firmware"]
    assert "the litert environment is not made" in checks[1]
    assert checks[2].startswith("edgekd setup litert; ")


def test_a_backend_of_another_package_is_not_judged(monkeypatch):
    monkeypatch.setattr("edgekd.target._installed_backends", lambda: ["mine"])
    text = TARGET.replace("[onnxruntime, openvino]", "[mine]").replace("onnxruntime:", "mine:")
    assert of(examine(text), "target t")["mine"] == ("ok", "of another package; not judged", "")


def test_without_a_target_all_are_judged_and_none_lacks(here):
    here.clear()
    Path("targets").mkdir()
    Path("targets/t.yaml").write_text(TARGET)
    Path("targets/broken.yaml").write_text("[")
    diagnosis = examine()
    assert of(diagnosis, "target t")["onnxruntime"][0] == "note"
    assert not of(diagnosis, "target broken")
    assert not diagnosis.lacking


def test_an_unreachable_device_is_lacking():
    def ask():
        raise SetupError("no route", hint="plug it in")

    Path("t.yaml").write_text(TARGET)
    diagnosis = doctor.examine("t.yaml", "ssh:board", ask=ask)
    assert of(diagnosis, "device") == {"ssh:board": ("lacks", "no route", "plug it in")}


def test_a_name_that_is_no_device(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    diagnosis = doctor.examine(on="bord")
    assert "no device is called 'bord'" in of(diagnosis, "device")["bord"][1]


JETSON = """name: t
title: T
device: gpu
backends: [tensorrt]
runtime: {tensorrt: ">=10.3"}
arch: [aarch64]
precisions: [fp16]
power_mode: 25W
"""
BOARD = {
    "cpu": "Cortex-A78AE", "arch": "aarch64", "python": "3.10.12", "numpy": "1.21.5", "runtimes": {"tensorrt": "10.3.0"},
    "tools": {"trtexec": "/usr/src/tensorrt/bin/trtexec", "trtexec_version": "10.3.0",
              "trtexec_fault": None, "disk_free_mib": 20000, "memory_free_mib": 5000, "root": False,
              "tensorrt_package": "10.3.0"},
    "jetson": {"l4t": "36.4.3", "jetpack": "6.2", "cuda": "12.6", "power_mode": "25W",
               "power_mode_id": 1},
}  # fmt: skip


def board(**changes):
    Path("t.yaml").write_text(JETSON)
    device = {**BOARD, **changes}
    diagnosis = doctor.examine("t.yaml", "ssh:orin", ask=lambda: device)
    return of(diagnosis, "device"), of(diagnosis, "target t")


def test_a_jetson_that_has_all():
    device, target = board()
    assert device["trtexec"][1] == "/usr/src/tensorrt/bin/trtexec, 10.3.0"
    assert device["release"][1] == "L4T 36.4.3, JetPack 6.2"
    assert target["power mode"][:2] == ("ok", "25W; nothing here needs sudo")
    assert device["Python"][1] == "3.10.12, numpy 1.21.5"
    assert device["free disk"][1] == "20000 MiB"
    assert {status for status, _, _ in device.values()} == {"ok"}


def test_a_jetson_that_lacks_things_says_what_mends_each():
    tools = BOARD["tools"] | {"trtexec": None, "disk_free_mib": 300, "memory_free_mib": 900}
    tegra = BOARD["jetson"] | {"power_mode": "15W"}
    device, target = board(numpy=None, tools=tools, jetson=tegra)
    assert device["trtexec"] == ("lacks", "not found", "sudo apt-get install libnvinfer-bin")
    assert device["numpy"][2] == "sudo apt-get install python3-numpy"
    assert device["free disk"][:2] == ("lacks", "300 MiB")
    assert device["free memory"][0] == "note" and "multi-user" in device["free memory"][2]
    status, found, fix = target["power mode"]
    assert (status, found) == ("note", "15W, wanted 25W; edgekd changes no mode")
    assert fix.startswith("sudo nvpmodel -m N")


def test_a_jetson_without_pythons_tensorrt():
    device, _ = board(tools=BOARD["tools"] | {"tensorrt_package": None})
    status, found, fix = device["Python's TensorRT"]
    assert status == "note" and "each sample is a run of trtexec" in found
    assert fix == "sudo apt-get install python3-libnvinfer"


def test_a_full_disk_and_a_store_that_cannot_be_written_are_said(monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 2**29))
    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", _denied)
    store = of(examine(), "store")
    assert store["free disk"][:2] == ("lacks", "0.5 GiB")
    assert store["location"][0] == "lacks"
    assert "Permission denied" in store["location"][1]


def _denied(**_):
    raise PermissionError(13, "Permission denied")


def test_telemetry_is_off():
    (found,) = of(examine(), "telemetry").values()
    assert found[1].startswith("off")


def test_an_unknown_target_is_a_target_error():
    with pytest.raises(TargetError):
        doctor.examine("nowhere", ask=lambda: FACTS)


def test_every_module_that_a_backend_needs_is_of_an_extra():
    from edgekd.extras import package_of

    for needs in doctor.NEEDS.values():
        for module in needs.build:
            package = package_of(module)
            assert package is not None
            assert package.extra in needs.extras
