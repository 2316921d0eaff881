"""Processor cores that firmware is built for, and the emulated board that runs each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgekd.errors import UsageError, did_you_mean

__all__ = ["BOARDS", "Board", "board"]


@dataclass(frozen=True)
class Board:
    """A core and its stand-in in the emulator.

    Attributes:
        core: Arm's name.
        flags: Of the compiler.
        machine: Of ``qemu-system-arm``.
        flash: Where code begins.
        ram: Where data begins.
        tick: Instructions of one tick of the core's timer, with one instruction a nanosecond.
    """

    core: str
    flags: tuple[str, ...]
    machine: str
    flash: str
    ram: str
    tick: int


def _row(core: str, fpu: str, machine: str, flash: str, ram: str, tick: int) -> Board:
    flags = (f"-mcpu={core}", "-mthumb", "-mfloat-abi=hard", f"-mfpu={fpu}")
    return Board(core, flags, machine, flash, ram, tick)


_LOW, _HIGH = ("0x00000000", "0x20000000"), ("0x10000000", "0x38000000")
BOARDS: Mapping[str, Board] = {
    row.core: row
    for row in (
        _row("cortex-m4", "fpv4-sp-d16", "mps2-an386", *_LOW, 40),
        _row("cortex-m7", "fpv5-d16", "mps2-an500", *_LOW, 40),
        _row("cortex-m33", "fpv5-sp-d16", "mps2-an505", *_HIGH, 50),
    )
}
"""The AN386 and AN500 run their timer at 25 MHz, the AN505 at 20 MHz."""


def board(core: str) -> Board:
    """Return the board of a core.

    Raises:
        UsageError: There is none.
    """
    if core not in BOARDS:
        raise UsageError(f"firmware is not built for {core!r}", hint=did_you_mean(core, BOARDS))
    return BOARDS[core]
