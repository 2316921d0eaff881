"""Against TensorFlow Lite Micro's own kernels, run in a process of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekd.firmware.arena import plan
from edgekd.firmware.reference import run
from edgekd.firmware.tflite import inline_buffers
from edgekd.firmware.tflm import arena_of
from tests.firmware.building import drawn, programmed
from tests.firmware.networks import RELU, RELU6, Net, inception, transformer

pytestmark = pytest.mark.needs("tflite_micro", install="pip install tflite-micro")


def compared(content, folder: Path, samples=20):
    """Return the largest difference in integers, and the bytes of TFLM's arena."""
    program = programmed(content)
    feeds = [drawn(program, seed) for seed in range(samples)]
    (folder / "m.tflite").write_bytes(content)
    np.savez(
        folder / "in.npz",
        **{f"{s}_{i}": v for s, sample in enumerate(feeds) for i, v in enumerate(sample)},
    )
    command = [sys.executable, str(Path(__file__).parent / "oracle.py")]
    files = [str(folder / name) for name in ("m.tflite", "in.npz", "out.npz")]
    done = subprocess.run([*command, *files], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    arena = int(re.search(r"total (\d+) bytes", done.stdout + done.stderr).group(1))
    with np.load(folder / "out.npz") as arrays:
        theirs = [arrays[name] for name in arrays.files]
    ours = [run(program, sample)[0] for sample in feeds]
    pairs = zip(ours, theirs, strict=True)
    return max(int(np.abs(a.astype(int) - b.astype(int)).max()) for a, b in pairs), arena, program


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_a_convolution_network_is_equal_byte_for_byte(tmp_path, dtype):
    difference, arena, program = compared(inception(dtype=dtype).bytes(), tmp_path)
    ends = [program.values[number].bytes for number in (*program.inputs, *program.outputs)]
    assert difference == 0
    assert plan(program).size + sum(ends) < arena


def test_a_decision_transformer_is_equal_and_needs_half_of_the_memory(tmp_path):
    difference, arena, program = compared(transformer().bytes(), tmp_path)
    assert difference == 0
    assert plan(program).size < arena / 2
    assert arena_of((tmp_path / "m.tflite").read_bytes()) == (arena, "")


def test_an_arena_that_cannot_be_measured_says_why():
    net = Net()
    net.output(net.unary("GELU", net.feed(1, 4)))
    size, why = arena_of(net.bytes())
    assert size is None
    assert "GELU" in why


def test_a_16_bit_transformer_is_near(tmp_path):
    difference, _, _ = compared(transformer(dtype="int16").bytes(), tmp_path)
    # Our tables of tanh have 513 entries, theirs 256; of 65536 steps.
    assert difference <= 32


def test_a_mobile_network_is_equal(tmp_path):
    net = Net(5)
    x = net.conv(net.feed(1, 12, 12, 3), 8, (3, 3), (2, 2), activation=RELU6)
    y = net.conv(net.depthwise(net.conv(x, 16, activation=RELU6), activation=RELU6), 8)
    x = net.binary("ADD", x, y)
    x = net.pool(net.resize(x, 8, 8), "AVERAGE_POOL_2D", (2, 2), (2, 2))
    x = net.pad(
        net.conv(x, 12, (3, 3), dilation=(2, 2), activation=RELU), (0, 0), (1, 0), (0, 1), (0, 0)
    )
    x = net.strided(x, (0, 0, 0, 0), (1, 5, 5, 12), (1, 2, 1, 1))
    net.output(net.softmax(net.dense(net.reshape(net.mean(x, [1, 2]), 1, 12), 10)))
    difference, _, _ = compared(net.bytes(), tmp_path)
    assert difference == 0


@pytest.mark.parametrize("kind", ["LOGISTIC", "TANH", "HARD_SWISH", "LEAKY_RELU"])
def test_functions_are_within_one_step(tmp_path, kind):
    net = Net(7)
    options = {"alpha": 0.1} if kind == "LEAKY_RELU" else {}
    net.output(net.unary(kind, net.feed(1, 256, spread=2.0), **options))
    difference, _, _ = compared(net.bytes(), tmp_path)
    assert difference <= 1


def test_constants_outside_are_garbage_there_and_right_after_inlining(tmp_path):
    """The reason why constants are always moved inside (tensorflow/tflite-micro issue 3196)."""
    outside = inception(length=64).bytes(external_from=256)
    assert compared(inline_buffers(outside), tmp_path)[0] == 0
    assert compared(outside, tmp_path)[0] > 10
