"""Where every computed value lies while it is needed: one block of memory, offsets fixed here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from edgekd.firmware.program import Binary, Program, Step

__all__ = ["Arena", "plan"]

_ALIGN = 4


@dataclass(frozen=True)
class Arena:
    """The plan.

    Attributes:
        size: Bytes that the caller provides.
        values: Offset by value; inputs, outputs and constants have none.
        scratch: Offset by index of the step, for those that need working memory.
        floor: Bytes of the values that are alive together at the worst step: no plan is smaller
            without moving values.
        worst: That step.
    """

    size: int
    values: Mapping[int, int]
    scratch: Mapping[int, int]
    floor: int
    worst: int = 0


@dataclass
class _Block:
    """Bytes that are in use from the first to the last step, both included."""

    size: int
    first: int
    last: int
    values: list[int] = field(default_factory=list)
    step: int | None = None
    offset: int = -1

    def meets(self, other: _Block) -> bool:
        return self.first <= other.last and other.first <= self.last


def plan(program: Program) -> Arena:
    """Place values so that none overlaps another that is alive; elementwise steps work in place.

    Largest first, at the lowest free offset; of several orders the smallest result is taken.
    """
    blocks = _blocks(program)
    orders: list[Callable[[_Block], tuple[int, ...]]] = [
        lambda block: (-block.size, block.first),
        lambda block: (-block.size * (1 + block.last - block.first), block.first),
        lambda block: (block.first, -block.size),
        lambda block: (block.first - block.last, -block.size),
    ]
    size, key = min(((_place(blocks, key), index) for index, key in enumerate(orders)))
    _place(blocks, orders[key])
    values = {value: block.offset for block in blocks for value in block.values}
    scratch = {block.step: block.offset for block in blocks if block.step is not None}
    moments = range(len(program.steps))
    alive = [sum(b.size for b in blocks if b.first <= moment <= b.last) for moment in moments]
    floor = max(alive, default=0)
    worst = alive.index(floor) if alive else 0
    return Arena(max(size, _ALIGN), values, scratch, floor, worst)


def _place(blocks: list[_Block], key: Callable[[_Block], tuple[int, ...]]) -> int:
    done: list[_Block] = []
    for block in sorted(blocks, key=key):
        at = 0
        for other in sorted((b for b in done if b.meets(block)), key=lambda b: b.offset):
            if at + block.size <= other.offset:
                break
            at = max(at, other.offset + other.size)
        block.offset = at
        done.append(block)
    return max((block.offset + block.size for block in blocks), default=0)


def _rounded(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


def _blocks(program: Program) -> list[_Block]:
    last: dict[int, int] = {}
    for moment, step in enumerate(program.steps):
        for number in step.inputs:
            last[number] = moment
    held: dict[int, _Block] = {}
    scratch: list[_Block] = []
    for moment, step in enumerate(program.steps):
        if step.scratch:
            scratch.append(_Block(_rounded(step.scratch), moment, moment, step=moment))
        number = step.output
        if number in program.outputs:
            continue
        size, end = _rounded(program.values[number].bytes), max(last.get(number, moment), moment)
        source = _overwritten(program, step, moment, last, held)
        if source is not None:
            block = held[source]
            block.last, held[number] = end, block
        else:
            held[number] = block = _Block(size, moment, end)
        block.values.append(number)
    unique = {id(block): block for block in held.values()}
    return [*unique.values(), *scratch]


def _overwritten(
    program: Program, step: Step, moment: int, last: Mapping[int, int], held: Mapping[int, _Block]
) -> int | None:
    """Return the input that the output may overwrite: same size, and dead after this step."""
    if not step.in_place:
        return None
    candidates = step.inputs if isinstance(step, Binary) else step.inputs[:1]
    size = program.values[step.output].bytes
    for number in candidates:
        fits = number in held and program.values[number].bytes == size
        if fits and last[number] == moment and held[number].last == moment:
            return number
    return None
