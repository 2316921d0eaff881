"""Reading .tflite: what the converter writes, constants outside, damage."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.errors import EdgekdError, UsageError, VerifyError
from edgekd.firmware.lower import lower
from edgekd.firmware.reference import run
from edgekd.firmware.tflite import external_buffers, inline_buffers, read_tflite
from tests.firmware.building import drawn
from tests.firmware.networks import inception


@pytest.fixture(scope="module")
def net():
    return inception(length=32, depth=1)


def test_a_graph_has_tensors_operators_and_ends(net):
    graph = read_tflite(net.bytes())
    assert [graph.tensors[i].shape for i in graph.inputs] == [(1, 1, 32, 15)]
    assert [graph.tensors[i].dtype for i in graph.outputs] == ["int8"]
    first = graph.operators[0]
    assert first.kind == "CONV_2D"
    assert first.options["stride_w"] == 1
    weights = graph.tensors[first.inputs[1]]
    assert weights.data.shape == (16, 1, 1, 15)
    assert len(weights.quantization.scales) == 16


def test_constants_behind_the_flatbuffer_are_read_and_moved_inside(net):
    inside, outside = net.bytes(), net.bytes(external_from=256)
    assert external_buffers(inside) == 0
    assert external_buffers(outside) > 3
    moved = inline_buffers(outside)
    assert external_buffers(moved) == 0
    programs = [lower(read_tflite(content)) for content in (inside, outside, moved)]
    results = [run(program, drawn(program, 0))[0].tolist() for program in programs]
    assert results[0] == results[1] == results[2]


def test_moved_constants_are_aligned_to_sixteen(net):
    moved = inline_buffers(net.bytes(external_from=256))
    for tensor in read_tflite(moved).tensors:
        if tensor.data is not None and tensor.data.nbytes >= 256:
            at = moved.find(tensor.data.tobytes())
            assert at % 16 == 0


def test_a_file_without_external_constants_stays_as_it_is(net):
    assert inline_buffers(net.bytes()) == net.bytes()


def test_another_file_is_named():
    with pytest.raises(VerifyError, match="TFL3"):
        read_tflite(b"PK\x03\x04" * 8)


def test_a_cut_file_is_an_error_and_never_a_value(net):
    content = net.bytes(external_from=256)
    for size in range(0, len(content) - 1, 97):
        with pytest.raises((VerifyError, UsageError)):
            lower(read_tflite(content[:size]))


def test_flipped_bytes_of_the_tables_raise_nothing_but_our_errors(net):
    content = net.bytes()
    rng = np.random.default_rng(0)
    for at in rng.integers(8, len(content), 300):
        damaged = bytearray(content)
        damaged[at] ^= 0xFF
        try:
            read_tflite(bytes(damaged))
        except EdgekdError:
            continue
