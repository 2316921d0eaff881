"""Every operator, in both widths: the C equals the reference byte for byte, and both are near
the real numbers."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from edgekd.firmware.lower import SUPPORTED
from edgekd.firmware.reference import run
from tests.firmware.building import built, drawn
from tests.firmware.networks import RELU, RELU6, SAMPLES, Net

pytestmark = pytest.mark.needs("gcc", install="apt-get install gcc")

UNARY = ("ABS", "EXP", "GELU", "HARD_SWISH", "LOGISTIC", "NEG", "RELU", "RELU6", "RELU_N1_TO_1", "SQRT", "TANH")  # fmt: skip


def image(net, h=5, w=6, c=4):
    return net.feed(1, h, w, c)


def all_of_them(dtype):
    """One network whose outputs are every operator's."""
    net = Net(3, dtype)
    x = image(net)
    made = [
        net.conv(x, 6, (3, 3), activation=RELU),
        net.conv(x, 5, (1, 3), stride=(1, 2), activation=RELU6),
        net.conv(x, 3, (2, 3), dilation=(2, 2), same=False),
        net.depthwise(x, activation=RELU),
        net.depthwise(x, several=2, stride=(2, 2), same=False),
        net.dense(x, 7),
        net.dense(x, 4, per_channel=False, bias=False),
        net.pool(x),
        net.pool(x, "AVERAGE_POOL_2D", (2, 2), (2, 2)),
        net.softmax(x),
        net.mean(x, [1, 2]),
        net.mean(x, [1, 3], keep=False),
        net.mean(x, [3], kind="SUM"),
        net.pad(x, (0, 0), (1, 2), (0, 1), (1, 0)),
        net.transpose(x, 0, 3, 1, 2),
        net.slice(x, (0, 1, 2, 0), (1, 3, 2, 4)),
        net.strided(x, (0, 4, 0, 0), (1, 0, 6, 4), (1, -2, 2, 1)),
        net.resize(x, 7, 8),
        net.resize(x, 3, 4, half=False),
        net.rescale(x),
        net.layer_norm(x),
        net.unary("LEAKY_RELU", x, alpha=0.1),
        net.concat([x, net.conv(x, 3)], 3),
        net.concat([x, net.conv(x, 4)], 1, same_scale=False),
        net.pack([x, net.op("NEG", [x], net._like(x, -net.real[x]))], 2),
        net.reshape(net.unary("TANH", x), 1, 120),
        *net.split(x, 3, 2),
        *(net.unary(kind, x) for kind in UNARY),
    ]
    row = net.reshape(x, 1, 30, 4)
    made.append(net.matmul(row, net.reshape(net.conv(x, 4), 1, 30, 4), adj_y=True))
    made.append(net.matmul(row, net.reshape(net.conv(x, 4), 1, 30, 4), adj_x=True))
    other = net.conv(x, 4)
    for kind in ("ADD", "SUB", "MUL", "SQUARED_DIFFERENCE"):
        made.append(net.binary(kind, x, other))
        made.append(net.binary(kind, x, net.fixed(net.rng.normal(0, 1, (5, 1, 4)))))
    made.append(net.binary("ADD", x, other, activation=RELU))
    for index in made:
        net.output(index)
    return net


@pytest.fixture(scope="module", params=["int8", "int16"])
def everything(request, tmp_path_factory):
    net = all_of_them(request.param)
    return net, *built(net.bytes(), tmp_path_factory.mktemp(request.param))


def test_every_supported_operator_is_here(everything):
    _, program, _ = everything
    missing = set(SUPPORTED) - set(program.operators)
    assert missing <= {"SQUEEZE", "EXPAND_DIMS", "PADV2"}


def test_c_equals_the_reference(everything):
    _, program, library = everything
    for seed in range(12):
        sample = drawn(program, seed)
        for number, wanted, got in zip(
            program.outputs, run(program, sample), library(sample), strict=True
        ):
            assert np.array_equal(wanted, got), program.values[number].name


def test_both_are_near_the_real_numbers(everything):
    net, program, _ = everything
    ends = [program.values[number] for number in program.inputs]
    for s in range(SAMPLES):
        sample = []
        for index, value in zip(net.inputs, ends, strict=True):
            info = np.iinfo(value.dtype)
            codes = np.round(net.real[index][s] / value.scale) + value.zero
            sample.append(np.clip(codes, info.min, info.max).astype(value.dtype))
        for index, number, out in zip(
            net.outputs, program.outputs, run(program, sample), strict=True
        ):
            value = program.values[number]
            real = net.real[index][min(s, len(net.real[index]) - 1)]
            error = np.abs((out.astype(float) - value.zero) * value.scale - real.reshape(out.shape))
            span = max(float(real.max() - real.min()), value.scale)
            kinds = [kind for kind, _, outputs, _ in net.operators if index in outputs]
            allowed = 0.12 if net.dtype == "int8" else 0.02
            assert error.max() <= allowed * span, (kinds, error.max(), span)


def test_the_library_checks_its_arguments(everything):
    _, program, library = everything
    sample = drawn(program, 0)
    nothing = [None] * (1 + len(library.inputs) + len(library.outputs))
    assert library._invoke(*nothing) == 1
    pointers = [library._arena.ctypes.data + 2]
    made = [np.zeros(port.value.shape, port.value.dtype) for port in library.outputs]
    pointers += [array.ctypes.data for array in (*sample, *made)]
    assert library._invoke(*(ctypes.c_void_p(p) for p in pointers)) == 2
