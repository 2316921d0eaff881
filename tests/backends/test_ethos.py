"""Backend ethos-u: Arm's Vela compiles and estimates, in a process of its own."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from edgekd.backends import ethos, litert
from edgekd.backends.base import Checking, backend
from edgekd.discover import load_target
from edgekd.errors import StageError, TargetError
from edgekd.events import silent
from edgekd.firmware.tflite import read_tflite
from edgekd.target import loads
from tests.firmware.networks import inception, transformer

vela = pytest.mark.needs("ethosu", install="pip install 'edgekd[ethos]'")
NAMES = ("ethos-u55", "ethos-u65", "ethos-u85")


@pytest.fixture(scope="module")
def content():
    return inception(length=64, depth=1).bytes()


@pytest.fixture
def make(tmp_path, monkeypatch, content):
    """Build a candidate; LiteRT's quantiser, which has tests of its own, gives a file made here."""

    def build(**changes):
        def quantise(source, out, policy, calibration, *, never, float_io):
            assert float_io is False
            out.write_bytes(content)
            return {"quantised_ops": {}, "tool_versions": {"litert-quantizer": "0"}}

        monkeypatch.setattr(litert, "quantise", quantise)
        (candidate,) = ethos.BACKEND.candidates(["fp32", "int8"], ())
        candidate.options.clear()
        candidate.options.update({**load_target("ethos-u55").npu.model_dump(), **changes})
        calibration = {"t0": np.zeros((4, 1, 1, 64, 15), np.float32)}
        return ethos.BACKEND.build(tmp_path / "x", candidate, calibration, tmp_path, silent)

    return build


def test_it_is_found_by_name_and_checks():
    assert backend("ethos-u") is ethos.BACKEND
    assert isinstance(ethos.BACKEND, Checking)
    assert ethos.BACKEND.candidates(["fp32"], ()) == []


def test_a_target_must_name_its_accelerator():
    text = "name: x\ntitle: t\ndevice: npu\nbackends: [ethos-u]\nprecisions: [int8]\n"
    with pytest.raises(TargetError, match="backend ethos-u needs npu"):
        loads(text)
    npu = "npu: {accelerator: ethos-u99, system_config: a, memory_mode: b}\n"
    with pytest.raises(TargetError, match="accelerator"):
        loads(text + npu)


@vela
@pytest.mark.parametrize("name", NAMES)
def test_every_target_of_ours_is_known_to_vela(name, content, tmp_path):
    model = tmp_path / "model.tflite"
    model.write_bytes(content)
    npu = load_target(name).npu.model_dump()
    made = ethos.compiled(model, npu, tmp_path / "out.tflite")
    assert made["accelerator"] == npu["accelerator"]
    assert made["operators"] == len(read_tflite(content).operators)
    assert made["npu_share"] == 1.0
    # It cannot be faster than all of its multipliers at once.
    assert made["cycles"] > made["macs"] / int(npu["accelerator"].rpartition("-")[2])
    assert made["ms"] == pytest.approx(made["cycles"] / made["clock_mhz"] / 1e3, rel=1e-3)
    assert (tmp_path / "out.tflite").read_bytes()[4:8] == b"TFL3"


@vela
def test_a_build_ships_both_files_and_says_what_is_estimated(make, tmp_path):
    facts = make()
    assert facts["main"] == "model.tflite"
    assert facts["proxy"] == {"runtime": "litert", "options": {"kernels": "reference"}}
    assert re.match(r"\d+\.\d+", facts["tool_versions"]["ethos-u-vela"])
    for name in facts["files"]:
        assert (tmp_path / name).stat().st_size > 0
    checked = ethos.BACKEND.check(tmp_path / facts["main"], None, 20)
    assert (checked["status"], checked["why"]) == ("passed", [])
    assert checked["ethos"] == json.loads((tmp_path / "vela.json").read_text())


@vela
def test_memories_are_held_to_the_target(make, tmp_path):
    make(sram_kib=1.0, flash_kib=1.0)
    checked = ethos.BACKEND.check(tmp_path / "model.tflite", None, 20)
    assert checked["status"] == "failed"
    assert re.match(
        r"\d+\.\d KiB of SRAM by Vela's estimate, the target allows 1", checked["why"][0]
    )
    assert "KiB of flash" in checked["why"][1]


@vela
def test_what_vela_refuses_is_told_in_its_words(make, content, tmp_path):
    with pytest.raises(StageError, match="Vela ended with status") as caught:
        make(system_config="Ethos_U99")
    assert "Ethos_U99" in caught.value.hint


@vela
def test_attention_runs_on_the_accelerator_too(tmp_path):
    model = tmp_path / "model.tflite"
    model.write_bytes(transformer(steps=4, width=16, heads=2).bytes())
    npu = load_target("ethos-u85").npu.model_dump()
    assert ethos.compiled(model, npu, tmp_path / "out.tflite")["npu_share"] == 1.0


def test_a_crash_is_a_failed_stage(tmp_path, monkeypatch):
    crashing = tmp_path / "python"
    crashing.write_text("#!/bin/sh\necho half a word\nkill -SEGV $$\n")
    crashing.chmod(0o755)
    monkeypatch.setattr(ethos.sys, "executable", str(crashing))
    npu = load_target("ethos-u55").npu.model_dump()
    with pytest.raises(
        StageError, match=r"Vela was killed by signal 11 .* for ethos-u55-128"
    ) as caught:
        ethos.compiled(tmp_path / "model.tflite", npu, tmp_path / "out.tflite")
    assert "half a word" in caught.value.hint


def test_without_vela_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(litert.BACKEND, "available", lambda: None, raising=False)
    monkeypatch.setattr(ethos, "installed", lambda name: False)
    assert "edgekd[ethos]" in ethos.BACKEND.available()
