"""What cannot become C is refused with layer, operator and remedy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgekd.errors import UsageError
from edgekd.firmware import program as p
from edgekd.firmware.lower import SUPPORTED, lower, unsupported
from edgekd.firmware.tflite import read_tflite
from tests.firmware.building import programmed
from tests.firmware.networks import Net


def refused(net):
    with pytest.raises(UsageError) as caught:
        programmed(net.bytes())
    return caught.value


def test_an_unknown_operator_names_layer_and_remedy():
    net = Net()
    x = net.feed(1, 4)
    index = net.constant(np.array([1], np.int32))
    net.output(net.op("GATHER", [x, index], net._like(x, net.real[x][:, :, :1])))
    error = refused(net)
    assert error.what.startswith("GATHER cannot become C")
    assert "operator 0, layer 't" in error.at
    assert "slice" in error.hint and "CONV_2D" in error.hint
    assert unsupported(read_tflite(net.bytes())) == ["GATHER"]


def test_floating_point_is_refused():
    net = Net()
    x = net.feed(1, 4)
    net.output(net.op("DEQUANTIZE", [x], net.tensor((1, 4), "float32")))
    error = refused(net)
    assert "floating point" in error.what
    assert "static_wi8_ai8" in error.hint


def test_a_float_input_is_refused():
    net = Net()
    x = net.tensor((1, 4), "float32")
    net.inputs.append(x)
    net.output(net.op("TANH", [x], net.tensor((1, 4), "float32")))
    assert "float32, not a quantised int8 or int16" in refused(net).what


def test_16_bit_activations_must_be_symmetric():
    net = Net(dtype="int16")
    x = net.tensor((1, 4), "int16", 0.1, 3)
    net.inputs.append(x)
    net.output(net.op("TANH", [x], net.tensor((1, 4), "int16", 0.1)))
    assert "zero point 3" in refused(net).what


def test_grouped_convolution_is_refused():
    net = Net()
    x = net.feed(1, 4, 4, 8)
    weights = net.constant(np.ones((8, 1, 1, 4), np.int8), np.float32(0.01))
    net.output(net.op("CONV_2D", [x, weights], net.quantised(net.real[x]), stride_w=1, stride_h=1))
    assert "grouped" in refused(net).what


def test_a_batch_is_refused():
    net = Net()
    x = net.feed(2, 4, 4, 2)
    weights = net.constant(np.ones((2, 1, 1, 2), np.int8), np.float32(0.01))
    net.output(net.op("CONV_2D", [x, weights], net.quantised(net.real[x]), stride_w=1, stride_h=1))
    assert "batch size 1" in refused(net).hint


def test_sums_that_could_leave_32_bits_are_refused():
    net = Net()
    x = net.feed(1, 4)
    weights = net.constant(np.full((2, 4), 127, np.int8), np.float32(0.01))
    bias = net.constant(np.full(2, 2**31 - 1, np.int32), np.float32(0.001))
    net.output(net.op("FULLY_CONNECTED", [x, weights, bias], net.tensor((1, 2), "int8", 0.1)))
    assert "leaves 32 bits" in refused(net).what


def test_softmax_must_have_the_format_s_scale():
    net = Net()
    x = net.feed(1, 4)
    net.output(net.op("SOFTMAX", [x], net.tensor((1, 4), "int8", 0.1), beta=1.0))
    assert "scale 0.00390625, zero point -128" in refused(net).hint


def test_operators_out_of_order_are_refused():
    net = Net()
    x = net.feed(1, 4)
    net.output(net.unary("TANH", net.unary("NEG", x)))
    net.operators.reverse()
    assert "nothing computes its input" in refused(net).what


def test_reshapes_and_quantizations_that_change_nothing_cost_no_step():
    net = Net()
    x = net.feed(1, 4, 2)
    same = net.op("QUANTIZE", [x], net._like(x, net.real[x]))
    net.output(net.dense(net.reshape(same, 1, 8), 3))
    assert [type(step) for step in programmed(net.bytes()).steps] == [p.Dense]


def test_an_output_that_is_an_input_is_copied():
    net = Net()
    x = net.feed(1, 4)
    net.output(net.reshape(x, 4, 1))
    assert [type(step) for step in programmed(net.bytes()).steps] == [p.Move]


def test_operators_on_constants_are_folded():
    net = Net()
    x = net.feed(1, 3)
    table = net.reshape(net.fixed(np.arange(6.0).reshape(2, 3)), 3, 2)
    turned = net.transpose(table, 1, 0)
    net.output(net.binary("ADD", x, net.slice(turned, (0, 0), (1, 3))))
    kinds = [type(step) for step in programmed(net.bytes()).steps]
    assert kinds == [p.Move, p.Binary]


def test_a_broadcast_uses_as_few_axes_as_can_be():
    net = Net()
    net.output(net.binary("MUL", net.feed(1, 2, 3, 4), net.fixed(np.ones((4,)))))
    step = programmed(net.bytes()).steps[0]
    assert step.dims == (1, 1, 6, 4)
    assert step.strides_a == (0, 0, 4, 1)
    assert step.strides_b == (0, 0, 0, 1)


def test_every_step_is_a_frozen_value():
    for name in p.__all__:
        kind = getattr(p, name)
        assert dataclasses.is_dataclass(kind)
        assert kind.__dataclass_params__.frozen


def test_the_set_of_operators_is_known():
    assert len(SUPPORTED) == len(set(SUPPORTED))
    assert {"CONV_2D", "BATCH_MATMUL", "SOFTMAX", "RSQRT"} <= set(SUPPORTED)
    assert callable(lower)


def test_an_island_of_float_between_two_conversions_is_closed():
    """The quantiser's 16-bit recipe leaves SQUARED_DIFFERENCE in floating point."""
    net = Net(dtype="int16")
    x = net.feed(1, 4)
    middle = net.mean(x, [1])
    real = (net.real[x] - net.real[middle]) ** 2
    inside = [
        net.op("DEQUANTIZE", [index], net.tensor(net.shape(index), "float32"))
        for index in (x, middle)
    ]
    square = net.op("SQUARED_DIFFERENCE", inside, net.tensor((1, 4), "float32"))
    net.output(net.op("QUANTIZE", [square], net.quantised(real)))
    program = programmed(net.bytes())
    assert [type(step) for step in program.steps] == [p.Mean, p.Binary]
    assert program.operators == {"MEAN": 1, "SQUARED_DIFFERENCE": 1}


def test_a_larger_island_is_refused():
    net = Net(dtype="int16")
    x = net.feed(1, 4)
    out = net.op("DEQUANTIZE", [x], net.tensor((1, 4), "float32"))
    for _ in range(2):
        out = net.op("TANH", [out], net.tensor((1, 4), "float32"))
    net.output(net.op("QUANTIZE", [out], net.quantised(net.real[x])))
    assert "floating point" in refused(net).what
