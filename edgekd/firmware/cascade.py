"""Two generated networks in one image: the driver of the cascade as C, with its own self-test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import StageError, UsageError
from edgekd.firmware import cross
from edgekd.firmware.boards import Board
from edgekd.firmware.contract import around
from edgekd.firmware.emit import guarded, real

__all__ = ["FOLDER", "Flights", "Member", "equip", "fits_together", "measure", "write"]

FOLDER = "cascade"
"""Place of the driver in the bundle."""
_GUARDS = 128
"""Bytes of the self-test's guards around the arena, which no product has."""
_PLACES = ("selftest/selftest.c", "CMakeLists.txt", "run_emulator.sh")


@dataclass(frozen=True)
class Member:
    """One network of the image.

    Attributes:
        place: Folder of its library, from the folder that holds all.
        card: ``firmware.json`` of the library.
        document: The contract of its stage.
        channels: Of the contract's, those that the network sees; None for all.
    """

    place: str
    card: Mapping[str, Any]
    document: Mapping[str, Any]
    channels: Sequence[int] | None

    @property
    def prefix(self) -> str:
        """Begins its C symbols."""
        return str(self.card["prefix"])

    @property
    def sensors(self) -> list[str]:
        """Names of what a second gives, in order."""
        listed = [str(row["name"]) for row in self.document["channels"]]
        return listed if self.channels is None else [listed[place] for place in self.channels]


@dataclass(frozen=True, eq=False)
class Flights:
    """Flights, and what the integer reference and the driver in numpy make of them.

    Attributes:
        values: What every second of a column gives: (flights, columns, sensors), NaN for nothing.
        health: Integers of the first network: (flights, classes).
        faults: Integers of the second, whether or not it is asked.
        chance: Of a fault, a flight.
        fault: Place of the fault; −1 where the flight is not flagged.
    """

    values: NDArray[np.float32]
    health: NDArray[Any]
    faults: NDArray[Any]
    chance: NDArray[np.float64]
    fault: NDArray[np.int64]


def fits_together(one: Member, two: Member) -> str:
    """Return why two networks are no cascade that C can drive; empty when they are."""
    needed = {"seconds", "clip", "channels", "temperature", "classes"}
    if not (needed <= set(one.document) and needed <= set(two.document)):
        return "no driver in C is known for this contract"
    if "threshold" not in one.document or "threshold" in two.document:
        return "the first network must flag flights, the second name their fault"
    shapes = [member.card["inputs"][0]["shape"] for member in (one, two)]
    if one.sensors != two.sensors or shapes[0] != shapes[1]:
        return "the networks see different sensors or windows"
    return ""


def equip(root: Path, member: Member) -> None:
    """Write the header of its stage beside a library."""
    for name, text in around(member.document, member.card, member.channels).items():
        (root / member.place / name).write_text(text, "utf-8")


def write(root: Path, one: Member, two: Member, flights: Flights, board: Board) -> list[str]:
    """Write driver, golden flights, self-test and build files.

    Args:
        root: Holds the libraries at their places; gets the folder `FOLDER`.
        one: The network that flags flights.
        two: The one that names their fault.
        flights: Golden ones.
        board: For which core.

    Returns:
        The files, from ``root``.

    Raises:
        UsageError: They are no cascade.
    """
    why = fits_together(one, two)
    if why:
        raise UsageError(why)
    marks = _marks(one, two, board)
    texts = {f"include/{one.prefix}_cascade.h": _header(_text("contracts/cascade.h"), marks)}
    texts[f"golden/{one.prefix}_cascade_golden.h"] = _golden(one, two, flights)
    for name in _PLACES:
        texts[name] = _filled(_text(f"support/cascade/{Path(name).name}"), marks)
    for name, text in texts.items():
        path = root / FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    (root / FOLDER / "run_emulator.sh").chmod(0o755)
    return [f"{FOLDER}/{name}" for name in sorted(texts)]


def _text(name: str) -> str:
    return (files("edgekd.firmware") / name).read_text("utf-8")


def _filled(text: str, marks: Mapping[str, str]) -> str:
    for mark, value in marks.items():
        text = text.replace(f"@{mark}@", value)
    return text


def _header(text: str, marks: Mapping[str, str]) -> str:
    name = f"{marks['ONE_UP']}_CASCADE"
    return guarded("CASCADE", [_filled(text, marks).rstrip()]).replace("EKD_CASCADE", name)


def _marks(one: Member, two: Member, board: Board) -> dict[str, str]:
    marks = {
        "ARENA": str(max(member.card["arena_bytes"] for member in (one, two))),
        "CORE": board.core,
        "MACHINE": board.machine,
        "FLAGS": " ".join(board.flags),
        "TICK": str(board.tick),
    }
    for name, member in (("ONE", one), ("TWO", two)):
        marks |= {
            name: member.prefix,
            f"{name}_UP": member.prefix.upper(),
            f"{name}_OUT": f"{member.card['outputs'][0]['dtype']}_t",
            f"PLACE_{name}": member.place,
        }
    return marks


def _golden(one: Member, two: Member, flights: Flights) -> str:
    """Return the header of golden flights: a row of sensors a column, as seconds give them."""
    count, columns, sensors = flights.values.shape
    values = [
        "{" + ",\n   ".join(_row(map(_number, column)) for column in flight) + "}"
        for flight in flights.values
    ]
    lines = [
        "/* Flights, and what the NumPy integer reference and the driver in numpy make of them. */",
        "#include <math.h>",
        "#include <stdint.h>",
        "",
        f"#define GOLDEN_FLIGHTS {count}",
        "",
        f"static const float golden_flights[{count}][{columns}][{sensors}] = {{",
        "  " + ",\n  ".join(values) + "};",
    ]
    for name, member, codes in (("health", one, flights.health), ("faults", two, flights.faults)):
        kind = f"{member.card['outputs'][0]['dtype']}_t"
        rows = ",\n  ".join(_row(str(int(code)) for code in row) for row in codes)
        lines += ["", f"static const {kind} golden_{name}[{count}][{codes.shape[1]}] = {{"]
        lines.append(f"  {rows}}};")
    for kind, name, cells in (
        ("float", "chance", map(real, flights.chance)),
        ("int32_t", "fault", map(str, flights.fault.tolist())),
    ):
        lines += ["", f"static const {kind} golden_{name}[{count}] = {_row(cells)};"]
    text = guarded("CASCADE_GOLDEN", lines)
    return text.replace("EKD_CASCADE", f"{one.prefix.upper()}_CASCADE")


def _row(cells: Any) -> str:
    return "{" + ", ".join(cells) + "}"


def _number(value: float) -> str:
    return real(value) if np.isfinite(value) else "NAN"


def measure(root: Path, one: Member, two: Member, flights: Flights, board: Board) -> dict[str, Any]:
    """Cross-compile networks, driver and self-test into one image and run it in the emulator.

    Args:
        root: Holds the libraries with the headers of their stages, and what `write` wrote.
        one: The first network.
        two: The second.
        flights: The golden ones.
        board: The core.

    Returns:
        ``flash_bytes`` (start-up, self-test and C library included, golden flights not),
        ``ram_bytes`` (with ``stack_bytes``, as measured), ``instructions`` of a ``second`` that is
        pushed, of diagnosing a ``healthy`` and a ``flagged`` flight; ``flights`` and ``flagged``.

    Raises:
        SetupError: Compiler or emulator is missing.
        StageError: The self-test failed.
    """
    image = root / "cascade.elf"
    cross.link(*_parts(root, one, two), root / one.place / "selftest", board, image)
    verdict = cross.emulate(image, board)
    if not verdict.passed:
        raise StageError(
            f"self-test of the cascade on emulated {board.core}: {verdict.output.strip()[-200:]}"
        )
    flash, static = cross.sections(image)
    stack = verdict.stack or 0
    golden = (flights.values.astype(np.float32), flights.health, flights.faults)
    spared = sum(array.nbytes for array in golden) + 8 * len(flights.fault)
    names = ("second", "healthy", "flagged")
    return {
        "core": board.core,
        "emulator": board.machine,
        "selftest": "passed",
        "flights": len(flights.fault),
        "flagged": int((flights.fault >= 0).sum()),
        "flash_bytes": flash - spared,
        "ram_bytes": static - _GUARDS + stack,
        "stack_bytes": stack,
        "instructions": {name: cross.figure(verdict.output, name) for name in names},
    }


def _parts(root: Path, one: Member, two: Member) -> tuple[list[Path], list[Path]]:
    """Sources and folders of headers."""
    sources, includes = [root / FOLDER / "selftest" / "selftest.c"], []
    for member in (one, two):
        sources += sorted((root / member.place / "src").glob("*.c"))
        includes += [root / member.place / name for name in ("include", "src")]
    return sources, [*includes, root / FOLDER / "include", root / FOLDER / "golden"]
