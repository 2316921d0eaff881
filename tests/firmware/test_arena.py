"""The plan of memory: nothing alive is overwritten, and little is wasted."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.firmware.arena import plan
from edgekd.firmware.reference import trace
from tests.firmware.building import drawn, programmed
from tests.firmware.networks import Net, inception, transformer

NETWORKS = [
    pytest.param(lambda: transformer(steps=4, width=16), id="transformer"),
    pytest.param(lambda: transformer(steps=4, width=16, dtype="int16"), id="transformer16"),
    pytest.param(lambda: inception(length=24), id="inception"),
]


@pytest.mark.parametrize("make", NETWORKS)
def test_every_value_is_intact_when_it_is_read(make):
    program = programmed(make().bytes())
    arena = plan(program)
    known = trace(program, drawn(program, 0))
    memory = np.full(arena.size, 0xA5, np.uint8)

    def at(number):
        start = arena.values[number]
        return memory[start : start + program.values[number].bytes]

    for moment, step in enumerate(program.steps):
        read = [number for number in step.inputs if number in arena.values]
        if step.scratch:
            start = arena.scratch[moment]
            memory[start : start + step.scratch] = 0x5A
        for number in read:
            assert np.array_equal(at(number), known[number].view(np.uint8)), (moment, step.layer)
        if step.output in arena.values:
            at(step.output)[:] = known[step.output].view(np.uint8)
        if step.scratch and step.output in arena.values:
            start = arena.scratch[moment]
            memory[start : start + step.scratch] = 0x5A
            assert np.array_equal(at(step.output), known[step.output].view(np.uint8))


@pytest.mark.parametrize("make", NETWORKS)
def test_the_plan_is_at_most_a_quarter_above_the_floor(make):
    arena = plan(programmed(make().bytes()))
    assert arena.floor <= arena.size <= 1.25 * arena.floor


def test_elementwise_steps_work_in_place():
    net = Net()
    x = net.dense(net.feed(1, 64), 64)
    for _ in range(4):
        x = net.unary("TANH", x)
    net.output(net.dense(x, 4))
    arena = plan(programmed(net.bytes()))
    assert arena.size == 64


def test_the_same_program_gives_the_same_plan():
    contents = [transformer(steps=4, width=16).bytes() for _ in range(2)]
    plans = [plan(programmed(content)) for content in contents]
    assert plans[0] == plans[1]
