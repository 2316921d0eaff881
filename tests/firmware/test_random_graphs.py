"""Random small graphs of all operators: the C equals the reference byte for byte, whatever the
shapes, strides, widths and orders."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekd.firmware.reference import run
from tests.firmware.building import built, drawn, selftest
from tests.firmware.networks import RELU, Net

pytestmark = pytest.mark.needs("gcc", install="apt-get install gcc")

UNARY = ("ABS", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "NEG", "RELU", "RELU6", "TANH")
BINARY = ("ADD", "SUB", "MUL", "SQUARED_DIFFERENCE")


def _conv(draw, net, x):
    _, h, w, _ = net.shape(x)
    kernel = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    spread = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    fits = all((k - 1) * d + 1 <= n for k, d, n in zip(kernel, spread, (h, w), strict=True))
    stride = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    same = draw(st.booleans()) or not fits
    channels, activation = draw(st.integers(1, 9)), draw(st.sampled_from([0, RELU]))
    return net.conv(x, channels, kernel, stride, spread, same, activation)


def _depthwise(draw, net, x):
    return net.depthwise(x, draw(st.integers(1, 2)), (draw(st.integers(1, 3)), 3))


def _dense(draw, net, x):
    return net.dense(x, draw(st.integers(1, 9)), per_channel=draw(st.booleans()))


def _unary(draw, net, x):
    kind = draw(st.sampled_from(UNARY))
    return net.unary(kind, x, **({"alpha": 0.1} if kind == "LEAKY_RELU" else {}))


def _binary(draw, net, x):
    kind = draw(st.sampled_from(BINARY))
    if draw(st.booleans()):
        return net.binary(kind, x, x)
    shape = [n if draw(st.booleans()) else 1 for n in net.shape(x)[1:]]
    other = net.fixed(net.rng.normal(0, 1, shape[draw(st.integers(0, 2)) :]))
    return net.binary(kind, *((x, other) if draw(st.booleans()) else (other, x)))


def _mean(draw, net, x):
    axes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3, unique=True))
    return net.mean(x, axes, kind=draw(st.sampled_from(["MEAN", "SUM"])))


def _pool(draw, net, x):
    kind = draw(st.sampled_from(["MAX_POOL_2D", "AVERAGE_POOL_2D"]))
    stride = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    return net.pool(x, kind, (draw(st.integers(1, 3)), draw(st.integers(1, 3))), stride)


def _transpose(draw, net, x):
    return net.transpose(x, 0, *draw(st.permutations([1, 2, 3])))


def _pad(draw, net, x):
    amounts = [(draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(3)]
    return net.pad(x, (0, 0), *amounts)


def _slice(draw, net, x):
    begin, size = [0], [1]
    for n in net.shape(x)[1:]:
        begin.append(draw(st.integers(0, n - 1)))
        size.append(draw(st.integers(1, n - begin[-1])))
    return net.slice(x, begin, size)


def _strided(draw, net, x):
    ends, steps = list(net.shape(x)), [1, *(draw(st.integers(1, 3)) for _ in range(3))]
    return net.strided(x, [0] * 4, ends, steps)


def _concat(draw, net, x):
    return net.concat([x, net.unary("TANH", x)], draw(st.integers(1, 3)), draw(st.booleans()))


def _matmul(draw, net, x):
    _, h, w, c = net.shape(x)
    columns = draw(st.integers(1, 6))
    y = net.dense(x, columns)
    if draw(st.booleans()):
        return net.matmul(x, y, adj_x=True)
    other = net.reshape(net.dense(x, c), 1, h, w, c)
    return net.matmul(x, other, adj_y=True)


def _softmax(draw, net, x):
    return net.softmax(x, draw(st.sampled_from([0.5, 1.0])))


def _norm(draw, net, x):
    return net.layer_norm(x)


def _rescale(draw, net, x):
    return net.rescale(x)


STEPS = (
    _conv, _depthwise, _dense, _unary, _binary, _mean, _pool, _transpose, _pad, _slice, _strided,
    _concat, _matmul, _softmax, _norm, _rescale,
)  # fmt: skip


@st.composite
def graphs(draw):
    net = Net(draw(st.integers(0, 1000)), draw(st.sampled_from(["int8", "int16"])))
    shape = [draw(st.integers(1, 5)) for _ in range(3)]
    x = net.feed(1, *shape)
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=2, max_size=7)):
        x = step(draw, net, x)
        if np.prod(net.shape(x)) > 4000:
            break
    net.output(x)
    return net


@given(graphs())
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_c_equals_the_reference(net):
    with tempfile.TemporaryDirectory() as folder:
        program, library = built(net.bytes(), Path(folder), flags=("-O0",))
        for seed in range(4):
            sample = drawn(program, seed)
            assert np.array_equal(run(program, sample)[0], library(sample)[0])


@pytest.mark.slow
@given(graphs())
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_many_random_graphs_under_the_sanitizers(net):
    from edgekd.firmware.boards import BOARDS
    from edgekd.firmware.library import load, write
    from tests.firmware.building import SANITIZE

    with tempfile.TemporaryDirectory() as name:
        write(load(net.bytes(), "net"), Path(name), BOARDS["cortex-m4"])
        done = selftest(Path(name), SANITIZE)
        assert done.returncode == 0, done.stdout + done.stderr
