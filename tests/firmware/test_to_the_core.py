"""From a recipe to firmware that an emulated core has run, for two cores in one command."""

from __future__ import annotations

import json

import pytest

from tests.project import edgekd

pytest.importorskip("torch")
pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(900),
    pytest.mark.needs("edgekd setup litert", install="edgekd setup litert"),
    pytest.mark.needs("ai_edge_litert", install="pip install 'edgekd[litert]'"),
    pytest.mark.needs("arm-none-eabi-gcc", install="apt-get install gcc-arm-none-eabi"),
    pytest.mark.needs("qemu-system-arm", install="apt-get install qemu-system-arm"),
]


def test_a_battery_controller_reaches_two_cores(tmp_path):
    """Trained so long that 8 bits keep the metric: after the 12 epochs of smoke it is chance."""
    said = edgekd(
        tmp_path, "compress", "--recipe", "decision_transformer", "--target", "mcu-m4",
        "--target", "mcu-m33", "--set", "preset=smoke", "--set", "learn=cost",
        "--set", "epochs=30",
    )  # fmt: skip
    for name, core in (("mcu-m4", "cortex-m4"), ("mcu-m33", "cortex-m33")):
        bundle = tmp_path / "out" / f"decision_transformer-{name}"
        manifest = json.loads((bundle / "manifest.json").read_text())
        firmware = manifest["firmware"]
        assert firmware["core"] == core
        assert firmware["selftest"] == "passed"
        assert firmware["flash_bytes"] < 160_000
        assert firmware["arena_bytes"] + firmware["io_bytes"] < 64_000
        assert firmware["instructions"] > firmware["macs"]
        assert f"emulated {core}" in " ".join(manifest["claims"])
        rungs = {rung["rung"]: rung["status"] for rung in manifest["ladder"]}
        assert rungs["parity on device"] == "passed"
        assert rungs["profiled on device"] == "not_run"
        assert "passed" in edgekd(tmp_path, "verify", bundle)
    assert "an estimate" in said
