"""What quantisation shifts an output by on average is taken off the last bias."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.firmware.correct import corrected
from edgekd.firmware.lower import lower
from edgekd.firmware.reference import run
from edgekd.firmware.tflite import read_tflite, replace_constant
from tests.firmware.building import drawn, programmed
from tests.firmware.networks import Net


def network(last="TANH", dtype="int8", bias=True):
    net = Net(6, dtype)
    x = net.dense(net.reshape(net.feed(1, 4, 5), 1, 20), 8)
    y = net.dense(x, 3, bias=bias)
    net.output(net.unary(last, y) if last else y)
    return net.bytes()


def answers(content, samples):
    program = lower(read_tflite(content))
    value = program.values[program.outputs[0]]
    made = np.array([run(program, sample)[0].ravel() for sample in samples], np.float64)
    return (made - value.zero) * value.scale


def shifted(content, steps):
    """The same network with the biases of its last layer off by some steps."""
    graph = read_tflite(content)
    last = [o for o in graph.operators if o.kind == "FULLY_CONNECTED"][-1]
    bias = graph.tensors[last.inputs[2]]
    return replace_constant(content, bias.index, bias.data + np.array(steps, bias.data.dtype))


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("last", ["TANH", "LOGISTIC", None])
def test_a_shift_is_found_and_taken_back(last, dtype):
    content = network(last, dtype)
    samples = [drawn(programmed(content), seed) for seed in range(24)]
    truth = answers(content, samples)
    size = 1500 if dtype == "int8" else 300_000
    wrong = shifted(content, [size, -size, size // 2])
    assert np.abs(answers(wrong, samples) - truth).mean(0).max() > 0.01
    made, facts = corrected(wrong, samples, truth)
    assert facts["samples"] == 24
    assert facts["after"] < 0.35 * facts["before"]
    assert np.abs((answers(made, samples) - truth).mean(0)).max() == pytest.approx(facts["after"])
    # Nothing but the biases of one layer is different.
    differ = np.flatnonzero(np.frombuffer(made, np.uint8) != np.frombuffer(wrong, np.uint8))
    assert 0 < differ.size <= 3 * (4 if dtype == "int8" else 8)


def test_what_needs_no_correction_stays_as_it_is():
    content = network()
    samples = [drawn(programmed(content), seed) for seed in range(8)]
    made, facts = corrected(content, samples, answers(content, samples))
    assert made == content
    assert facts == {"samples": 8, "before": 0.0, "after": 0.0}


def test_a_network_without_a_bias_at_its_end_says_why():
    content = network(bias=False)
    samples = [drawn(programmed(content), 0)]
    made, facts = corrected(content, samples, np.zeros((1, 3)))
    assert made == content
    assert "has no bias" in facts["not_run"]
    net = Net()
    net.output(net.pool(net.feed(1, 1, 6, 2)))
    made, facts = corrected(net.bytes(), [drawn(programmed(net.bytes()), 0)], np.zeros((1, 12)))
    assert "no layer with weights" in facts["not_run"]


def test_a_constant_of_another_size_is_refused():
    content = network()
    graph = read_tflite(content)
    index = graph.operators[-2].inputs[2]
    with pytest.raises(ValueError, match="not of"):
        replace_constant(content, index, np.zeros(7, np.int32))
