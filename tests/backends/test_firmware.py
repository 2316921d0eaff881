"""Backend firmware: C of a quantised model, in the agent and in the emulator."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from edgekd.agent.faults import SetupFault, UsageFault
from edgekd.agent.runtimes.c import open_session, quantize
from edgekd.backends import firmware as module
from edgekd.backends import litert
from edgekd.backends.base import Checking, backend
from edgekd.errors import StageError
from edgekd.events import silent
from edgekd.firmware import cross
from edgekd.firmware.reference import run
from tests.firmware.building import ARM, programmed
from tests.firmware.networks import Net, inception
from tests.project import ROOT, edgekd

pytestmark = pytest.mark.needs("gcc", install="apt-get install gcc")
MCU = {"core": "cortex-m4", "clock_mhz": 100.0, "flash_kib": 256.0, "ram_kib": 64.0}


@pytest.fixture(scope="module")
def content():
    return inception(length=48, depth=1).bytes()


@pytest.fixture
def make(tmp_path, monkeypatch, content):
    """Build a candidate; LiteRT's quantiser, which has tests of its own, gives a file made here."""

    def build(model=content, **changes):
        def quantise(source, out, policy, calibration, *, never, float_io, found, few):
            assert float_io is False
            out.write_bytes(model)
            # What the float network would give, were it a constant.
            np.savez(found, logits=np.full((min(few, 4), 1, 2), 0.25, np.float32))
            return {"quantised_ops": {}, "tool_versions": {}}

        monkeypatch.setattr(litert, "quantise", quantise)
        candidate = module.BACKEND.candidates(["int8"], ())[0]
        candidate.options.update({**MCU, "prefix": "My-Net", **changes})
        noise = np.random.default_rng(0).normal(0, 1, (4, 1, 1, 48, 15))
        calibration = {"t0": noise.astype(np.float32)}
        facts = module.BACKEND.build(tmp_path / "x", candidate, calibration, tmp_path, silent)
        return tmp_path / facts["main"], facts

    return build


def test_it_is_found_by_name_and_checks():
    assert backend("firmware") is module.BACKEND
    assert isinstance(module.BACKEND, Checking)
    names = [row.id for row in module.BACKEND.candidates(["int8", "int16x8", "fp32"], ())]
    assert names == ["mcu-int8", "mcu-int16x8"]


def test_the_agent_runs_the_c_on_real_numbers(make, content):
    card, facts = make()
    program = programmed((card.parent / "model.tflite").read_bytes())
    session = open_session(card, {})
    assert session.inputs[0].shape == (None, 1, 48, 15)
    real = np.random.default_rng(1).normal(0, 1, (3, 1, 48, 15)).astype(np.float32)
    got = session.run({session.inputs[0].name: real})[session.outputs[0].name]
    row = json.loads(card.read_text())["inputs"][0]
    out = program.values[program.outputs[0]]
    for index in range(3):
        codes = quantize(real[index : index + 1], row)
        wanted = (run(program, [codes])[0].astype(np.float32) - out.zero) * np.float32(out.scale)
        assert np.allclose(got[index], wanted[0], atol=1e-6)
    session.bind({session.inputs[0].name: real})()
    session.close()
    assert facts["bytes"] == facts["firmware"]["constant_bytes"] > 1000
    correction = facts["firmware"]["bias_correction"]
    assert correction["samples"] == 4
    assert correction["after"] < correction["before"]
    assert card.read_text().count('"prefix": "my_net"') == 1


def test_halves_go_away_from_zero_and_outliers_saturate():
    row = {"dtype": "int8", "scale": 0.5, "zero_point": 3}
    real = np.array([0.25, -0.25, 0.0, 1e9, -1e9, np.nan], np.float32)
    assert quantize(real, row).tolist() == [4, 2, 3, 127, -128, -128]


@pytest.mark.needs(cross.COMPILER, cross.EMULATOR, install=ARM)
def test_a_check_measures_and_holds_to_the_budget(make):
    card, _ = make()
    facts = module.BACKEND.check(card, None, 20)
    made = facts["firmware"]
    assert (facts["status"], facts["why"], made["selftest"]) == ("passed", [], "passed")
    assert made["ram_bytes"] == made["arena_bytes"] + made["io_bytes"] + made["stack_bytes"]
    assert made["estimated_ms"] == pytest.approx(made["instructions"] / 1e5, abs=1e-3)
    card, _ = make(ram_kib=1.0, flash_kib=2.0)
    why = module.BACKEND.check(card, None, 20)["why"]
    assert len(why) == 2
    assert "bytes of RAM, the target allows 1,024" in why[1]


@pytest.mark.needs(cross.COMPILER, cross.EMULATOR, install=ARM)
def test_a_failing_self_test_rejects_the_candidate(make):
    card, _ = make()
    source = card.parent / "src" / "my_net_weights.c"
    head, mark, rest = source.read_text().partition("] = {\n    ")
    value, comma, tail = rest.partition(",")
    source.write_text(f"{head}{mark}{int(value) ^ 1}{comma}{tail}")
    facts = module.BACKEND.check(card, None, 20)
    assert facts["status"] == "failed"
    assert "FAIL weights crc32" in facts["why"][0]


def test_without_the_tools_the_check_says_so(make, monkeypatch):
    card, _ = make()
    monkeypatch.setattr(cross, "missing_of", lambda tool: True)
    facts = module.BACKEND.check(card, None, 20)
    assert facts["status"] == "passed"
    assert "arm-none-eabi-gcc and qemu-system-arm missing" in facts["firmware"]["not_run"]
    # Constants and arena are known all the same.
    card, _ = make(ram_kib=1.0, flash_kib=2.0)
    flash, ram = module.BACKEND.check(card, None, 20)["why"]
    assert "bytes of flash at least, the target allows 2,048; most of it layer" in flash
    assert "bytes of RAM at least, the target allows 1,024" in ram
    assert module.BACKEND.tools() == {}


def test_a_network_that_cannot_become_c_is_a_failed_stage(make):
    net = Net()
    x = net.feed(1, 4)
    net.output(
        net.op(
            "GATHER",
            [x, net.constant(np.array([1], np.int32))],
            net._like(x, net.real[x][:, :, :1]),
        )
    )
    with pytest.raises(StageError, match="GATHER cannot become C"):
        make(net.bytes())


def test_the_agent_names_what_is_missing(make, monkeypatch, tmp_path):
    card, _ = make()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SetupFault, match="no C compiler"):
        open_session(card, {})
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(UsageFault, match="describes no C library"):
        open_session(tmp_path / "other.json", {})


@pytest.mark.parametrize("recipe", ["decision_transformer", "liteinception"])
def test_without_litert_a_command_ends_before_any_training(recipe, tmp_path):
    said = edgekd(
        tmp_path, "compress", "--recipe", recipe, "--target", "mcu-m4", code=4,
        EDGEKD_LITERT=str(tmp_path / "none"),
    )  # fmt: skip
    assert "the litert environment is not made: edgekd setup litert" in said
    assert not list((tmp_path / "store").glob("objects/*"))
    assert not list(tmp_path.rglob("manifest.json"))


@pytest.mark.needs("edgekd setup litert", install="edgekd setup litert")
def test_both_networks_of_a_cascade_share_the_flash_before_any_training(tmp_path):
    """Each of them would fit alone."""
    target = (ROOT / "targets/mcu-m4.yaml").read_text().replace("flash_kib: 1024", "flash_kib: 16")
    (tmp_path / "small.yaml").write_text(target.replace("name: mcu-m4", "name: small"))
    said = edgekd(
        tmp_path, "compress", "--recipe", "liteinception", "--target", "small.yaml",
        "--set", "preset=smoke", code=3,
    )  # fmt: skip
    said = " ".join(said.split())
    assert "at least 18,832 bytes of flash (9,344 + 9,488), target small has 16,384" in said
    assert "teacher" not in said
