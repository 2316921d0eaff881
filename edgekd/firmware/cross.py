"""The generated C on a microcontroller: cross-compiled, measured, run in an emulator."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekd.errors import SetupError, StageError, VerifyError
from edgekd.firmware.boards import Board

__all__ = [
    "INSTALL",
    "Size",
    "Verdict",
    "compile_selftest",
    "emulate",
    "figure",
    "link",
    "measure",
    "missing",
    "sections",
]

COMPILER, SIZE, EMULATOR = "arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm"
INSTALL = "apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
OPTIMISE = ("-O2", "-ffunction-sections", "-fdata-sections")
_WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Werror")
_LIMIT_S = 300
_LIBC_STACK = 64
"""Bytes granted to a call of the C library (memcpy, memset, 64-bit division)."""


def missing_of(tool: str) -> bool:
    """Tell whether a program is not on the path."""
    return shutil.which(tool) is None


def missing(emulator: bool = True) -> list[str]:
    """Return the tools that are not installed."""
    tools = [COMPILER] + ([EMULATOR] if emulator else [])
    return [tool for tool in tools if missing_of(tool)]


def require(emulator: bool = True) -> None:
    """Refuse when a tool is missing.

    Raises:
        SetupError: With the line that installs it.
    """
    lacking = missing(emulator)
    if lacking:
        raise SetupError(f"{' and '.join(lacking)} missing", hint=INSTALL)


@dataclass(frozen=True)
class Size:
    """What the library takes on the core, without the self-test.

    Attributes:
        code: Bytes of instructions.
        constants: Bytes of weights and tables.
        data: Bytes of initialised and zeroed static memory: none.
        stack: Bound of the stack of one call, from the compiler's own figures.
    """

    code: int
    constants: int
    data: int
    stack: int

    @property
    def flash(self) -> int:
        """Bytes of flash."""
        return self.code + self.constants + self.data


@dataclass(frozen=True)
class Verdict:
    """What the self-test said.

    Attributes:
        passed: Whether its exit status was 0 and it printed PASS.
        output: What it printed.
        instructions: Of one inference; None where they are not counted.
        stack: Bytes of stack used at most, the self-test's own included.
    """

    passed: bool
    output: str
    instructions: int | None
    stack: int | None


def _run(command: Sequence[str], what: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        list(command), capture_output=True, text=True, timeout=_LIMIT_S, check=False, cwd=cwd
    )
    if done.returncode:
        raise StageError(f"{what} failed:\n{(done.stderr or done.stdout)[:2000]}")
    return done.stdout


def _includes(folder: Path) -> list[str]:
    return [flag for name in ("include", "src") for flag in ("-I", str(folder / name))]


def measure(folder: Path, board: Board, prefix: str, flags: Sequence[str] = ()) -> Size:
    """Compile the library alone and return its sizes.

    Args:
        folder: Holds ``include`` and ``src``.
        board: The core.
        prefix: Of the C symbols.
        flags: Further flags of the compiler.

    Raises:
        SetupError: The cross compiler is missing.
        StageError: It refused the sources.
    """
    require(emulator=False)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        sources = sorted((folder / "src").glob("*.c"))
        command = [COMPILER, *board.flags, *_WARNINGS, *OPTIMISE, *flags, *_includes(folder)]
        for source in sources:
            out = work / f"{source.stem}.o"
            info = ["-fcallgraph-info=su", "-c", str(source), "-o", str(out)]
            _run([*command, *info], COMPILER, cwd=work)
        rows = _run([SIZE, "-A", *(str(path) for path in work.glob("*.o"))], SIZE)
        graph = "\n".join(path.read_text() for path in sorted(work.rglob("*.ci")))
    code, constants, data = (
        _sections(rows, part) for part in (r"\.text", r"\.rodata|\.weights", r"\.data|\.bss")
    )
    return Size(code, constants, data, stack_bound(graph, f"{prefix}_invoke"))


def _sections(rows: str, names: str) -> int:
    return sum(int(size) for size in re.findall(rf"^(?:{names})\S*\s+(\d+)", rows, re.MULTILINE))


def stack_bound(graph: str, start: str) -> int:
    """Return the deepest stack of a call, from GCC's call graphs with stack usage.

    Functions that the graph does not hold (the C library's) count 64 bytes.

    Args:
        graph: Texts of ``-fcallgraph-info=su``.
        start: Function that is called.

    Raises:
        StageError: A function calls itself, or its frame has no fixed size.
    """
    frames: dict[str, int] = {}
    for title, label in re.findall(r'node: \{ title: "([^"]+)" label: "([^"]*)"', graph):
        found = re.search(r"(\d+) bytes \((static|dynamic\S*)\)", label)
        if found and found.group(2) != "static":
            raise StageError(f"the frame of {title} has no fixed size")
        if found:
            frames[title] = int(found.group(1))
    calls: dict[str, set[str]] = {}
    for source, target in re.findall(r'sourcename: "([^"]+)" targetname: "([^"]+)"', graph):
        calls.setdefault(source, set()).add(target)
    return _deepest(start, frames, calls, ())


def _deepest(
    name: str, frames: Mapping[str, int], calls: Mapping[str, set[str]], above: tuple[str, ...]
) -> int:
    if name in above:
        raise StageError(f"{name} calls itself, so that its stack has no bound")
    if name not in frames:
        return _LIBC_STACK
    below = [_deepest(called, frames, calls, (*above, name)) for called in calls.get(name, ())]
    return frames[name] + max(below, default=0)


def compile_selftest(folder: Path, board: Board, out: Path, flags: Sequence[str] = ()) -> Path:
    """Cross-compile library and self-test.

    Raises:
        SetupError: The cross compiler is missing.
        StageError: It refused the sources.
    """
    sources = [folder / "selftest" / "selftest.c", *sorted((folder / "src").glob("*.c"))]
    places = [folder / name for name in ("include", "src", "golden")]
    return link(sources, places, folder / "selftest", board, out, flags)


def link(
    sources: Sequence[Path],
    includes: Sequence[Path],
    platform: Path,
    board: Board,
    out: Path,
    flags: Sequence[str] = (),
) -> Path:
    """Cross-compile an image for the emulated board.

    Args:
        sources: C files, one of which has ``selftest``.
        includes: Folders of headers.
        platform: Folder of a library's self-test: start-up, linker script.
        board: The core.
        out: The image.
        flags: Further flags of the compiler.

    Raises:
        SetupError: The cross compiler is missing.
        StageError: It refused the sources.
    """
    require(emulator=False)
    command = [COMPILER, *board.flags, *_WARNINGS, *OPTIMISE, f"-DTICK_INSTRUCTIONS={board.tick}u"]
    command += [*flags, *(flag for place in (*includes, platform) for flag in ("-I", str(place)))]
    command += [str(path) for path in (*sources, platform / "cortexm.c")]
    script = platform / "emulator.ld"
    command += ["-nostartfiles", "-Wl,--gc-sections", "-T", str(script), "-o", str(out), "-lm"]
    _run(command, COMPILER)
    return out


def sections(image: Path) -> tuple[int, int]:
    """Return what an image takes: bytes of flash, and of memory that is there from the start."""
    rows = _run([SIZE, str(image)], SIZE).splitlines()
    text, data, zeroed = (int(cell) for cell in rows[1].split()[:3])
    return text + data, data + zeroed


def emulate(image: Path, board: Board) -> Verdict:
    """Run an image in the emulator, one instruction a nanosecond.

    Raises:
        SetupError: The emulator is missing.
        VerifyError: It did not come to an end.
    """
    require()
    command = [EMULATOR, "-M", board.machine, "-nographic", "-monitor", "none", "-serial", "null"]
    command += ["-semihosting-config", "enable=on,target=native", "-icount", "shift=0"]
    try:
        done = subprocess.run(
            [*command, "-kernel", str(image)],
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise VerifyError(
            f"the self-test did not end within {_LIMIT_S} s in {EMULATOR}", at=str(image)
        ) from error
    text = done.stdout + done.stderr
    passed = done.returncode == 0 and "PASS" in text.splitlines()
    return Verdict(passed, text, figure(text, "instructions"), figure(text, "stack"))


def figure(text: str, name: str) -> int | None:
    """Return a number that a self-test printed behind its name."""
    found = re.search(rf"^{name} (\d+)$", text, re.MULTILINE)
    return int(found.group(1)) if found else None
