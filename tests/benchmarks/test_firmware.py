"""What the generated C takes, and what is committed of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import firmware
from edgekd.firmware import cross
from tests.firmware.building import ARM
from tests.firmware.networks import inception

RESULTS = Path(__file__).parents[2] / "benchmarks/results/firmware.json"
GOAL = 0.7
"""Of the instructions that the sketch takes."""


@pytest.mark.needs("gcc", cross.COMPILER, cross.EMULATOR, install=ARM)
def test_a_model_is_measured_with_and_without_dsp_instructions():
    row = firmware.measured(inception(length=48, depth=1).bytes(), ["cortex-m4"])
    core = row["cores"]["cortex-m4"]
    assert row["macs"] > 10_000
    # This network is small: half of its instructions are no products.
    assert 1 < core["dsp"]["instructions_per_mac"] < 4
    assert core["dsp"]["instructions"] < core["plain"]["instructions"]
    # Tables of parameters come on top of weights.
    assert core["dsp"]["flash_bytes"] > core["dsp"]["code_bytes"] + row["constant_bytes"]


def test_another_generator_is_compared_by_the_digest_of_the_model():
    row = {"sha256": "ab", "macs": 10, "cores": {"cortex-m4": {"dsp": {"instructions": 40}}}}
    assert firmware.beside(row, {"cd": 1}) == row
    assert firmware.beside(row, {"ab": 80})["sketch"] == {
        "instructions": 80, "instructions_per_mac": 8.0, "share": 0.5,
    }  # fmt: skip


def test_what_is_committed_keeps_the_goals():
    models = json.loads(RESULTS.read_text("utf-8"))["models"]
    shares = [row["sketch"]["share"] for row in models.values() if "sketch" in row]
    compared = {name for name, row in models.items() if "sketch" in row}
    assert {"decision_transformer-int8", "inception-int8"} <= compared
    assert {"liteinception-stage1-smoke-int8", "liteinception-stage2-smoke-int8"} <= compared
    assert max(shares) <= GOAL
    for row in models.values():
        assert row["arena_bytes"] + row["io_bytes"] < row["tflm_arena_bytes"]
        assert {"cortex-m4", "cortex-m7", "cortex-m33"} == set(row["cores"])
