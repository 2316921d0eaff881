"""The firmware folder: C library, golden vectors, self-test, build files, TFLM flavour."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.firmware.arena import Arena, plan
from edgekd.firmware.boards import Board
from edgekd.firmware.emit import ABI, Library, Port, check_prefix, emit, ports
from edgekd.firmware.lower import lower
from edgekd.firmware.program import Program
from edgekd.firmware.reference import run
from edgekd.firmware.tflite import inline_buffers, read_tflite
from edgekd.firmware.tflm import flavour

__all__ = ["CARD", "Firmware", "extremes", "load", "templates", "write"]

CARD = "firmware.json"
"""What a program needs to know of the library: ports, memory, core."""

Sample = Sequence[NDArray[Any]]

_VECTORS = 8
_GOLDEN_LIMIT = 256 * 1024
"""Golden vectors take at most this much flash of the self-test, extremes first."""


@dataclass(frozen=True)
class Firmware:
    """A network ready to be written as C.

    Attributes:
        model: The ``.tflite`` file, constants inside.
        program: Its integer program.
        arena: Where values lie.
        prefix: Begins every C symbol.
        inputs: In order.
        outputs: In order.
        names: Preferred names by value.
    """

    model: bytes
    program: Program
    arena: Arena
    prefix: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    names: Mapping[int, str]

    @property
    def io_bytes(self) -> int:
        """Bytes of inputs and outputs, which the caller owns beside the arena."""
        return sum(port.value.bytes for port in (*self.inputs, *self.outputs))


def load(content: bytes, prefix: str) -> Firmware:
    """Read a quantised ``.tflite`` model and plan its C.

    Args:
        content: The file.
        prefix: Begins every C symbol.

    Raises:
        UsageError: It cannot become C; with layer, operator and remedy.
        VerifyError: The file is damaged.
    """
    check_prefix(prefix)
    model = inline_buffers(content)
    graph = read_tflite(model)
    program = lower(graph)
    names = {
        number: graph.names.get(index) or graph.tensors[index].name
        for ends, numbers in ((graph.inputs, program.inputs), (graph.outputs, program.outputs))
        for index, number in zip(ends, numbers, strict=True)
    }
    inputs, outputs = ports(program, names)
    arena = plan(program)
    return Firmware(model, program, arena, prefix, tuple(inputs), tuple(outputs), names)


def extremes(program: Program) -> list[Sample]:
    """Return the vectors that reach every corner: lowest, highest, zero points, noise."""

    def filled(pick: str) -> Sample:
        made = []
        for number in program.inputs:
            value = program.values[number]
            info = np.iinfo(value.dtype)
            level = {"low": info.min, "high": info.max, "zero": value.zero}[pick]
            made.append(np.full(value.shape, level, value.dtype))
        return made

    rng = np.random.default_rng(0)
    noise: list[Sample] = [
        [
            _noise(rng, program.values[number].shape, program.values[number].dtype)
            for number in program.inputs
        ]
        for _ in range(_VECTORS - 3)
    ]
    return [filled("zero"), filled("low"), filled("high"), *noise]


def _noise(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, endpoint=True).astype(dtype)


def write(
    firmware: Firmware, out: Path, board: Board, samples: Sequence[Sample] = ()
) -> dict[str, Any]:
    """Write the folder of one library.

    Args:
        firmware: What to write.
        out: An empty or new folder.
        board: Whose build files are written.
        samples: Real inputs, which come first among the golden vectors.

    Returns:
        Facts: ``files``, ``arena_bytes``, ``io_bytes``, ``constant_bytes``, ``macs``,
        ``operators``, ``vectors``, ``weights_crc32``.
    """
    vectors = _golden(firmware, [*samples, *extremes(firmware.program)])
    library = emit(firmware.program, firmware.arena, firmware.prefix, firmware.names)
    texts = dict(library.texts)
    texts[f"golden/{firmware.prefix}_golden.h"] = _golden_header(firmware, vectors)
    texts.update(_support(firmware.prefix, board))
    texts.update(flavour(firmware.model, firmware.program, firmware.prefix))
    facts = _facts(firmware, len(vectors), library)
    texts[CARD] = _json(_card(firmware, board, facts))
    texts["README.md"] = _readme(firmware, board)
    texts["LICENSE"] = (files("edgekd.data") / "licences" / "Apache-2.0.txt").read_text("utf-8")
    for name, text in texts.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (out / "selftest" / "run_emulator.sh").chmod(0o755)
    (out / "model.tflite").write_bytes(firmware.model)
    (out / "SHA256SUMS").write_text(checksums(out, [*texts, "model.tflite"]), encoding="utf-8")
    return {**facts, "files": [*sorted(texts), "SHA256SUMS", "model.tflite"]}


def templates() -> str:
    """Return a digest of kernels, contracts and build files: what no Python code shows."""
    found = hashlib.sha256()
    root = Path(str(files("edgekd.firmware")))
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            found.update(f"{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    return found.hexdigest()


def checksums(folder: Path, names: Sequence[str]) -> str:
    """Return the text of SHA256SUMS for files of a folder, as ``sha256sum -c`` reads it."""
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(names))


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def _facts(firmware: Firmware, vectors: int, library: Library) -> dict[str, Any]:
    return {
        "arena_bytes": firmware.arena.size,
        "io_bytes": firmware.io_bytes,
        "macs": firmware.program.macs,
        "operators": dict(firmware.program.operators),
        "vectors": vectors,
        "constant_bytes": library.constant_bytes,
        "weights_crc32": f"0x{library.weights_crc32:08x}",
        "prefix": firmware.prefix,
    }


def _card(firmware: Firmware, board: Board, facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **facts,
        "abi": ABI,
        "core": board.core,
        "largest": _largest(firmware),
        "inputs": [_described(port, firmware) for port in firmware.inputs],
        "outputs": [_described(port, firmware) for port in firmware.outputs],
    }


def _largest(firmware: Firmware) -> dict[str, Any]:
    """Return the layers that a budget is lost to: most weights, most memory alive at once."""
    steps = firmware.program.steps
    sizes: dict[str, int] = {}
    for step in steps:
        values = [getattr(step, name, None) for name in ("weights", "table", "exp")]
        values += [firmware.program.values[number].data for number in step.inputs]
        size = sum(value.nbytes for value in values if value is not None)
        sizes[step.layer] = sizes.get(step.layer, 0) + size
    layer = max(sizes, key=lambda name: sizes[name], default="")
    worst = steps[firmware.arena.worst].layer if steps else ""
    return {
        "constants": {"layer": layer, "bytes": sizes.get(layer, 0)},
        "arena": {"layer": worst, "bytes": firmware.arena.floor},
    }


def _described(port: Port, firmware: Firmware) -> dict[str, Any]:
    value = port.value
    number = next(n for n in firmware.names if firmware.program.values[n] is value)
    return {
        "name": firmware.names[number],
        "symbol": port.name,
        "shape": list(value.shape),
        "dtype": value.dtype,
        "scale": value.scale,
        "zero_point": value.zero,
    }


def _readme(firmware: Firmware, board: Board) -> str:
    p = firmware.prefix
    buffers = [(port, "q_" + port.name) for port in (*firmware.inputs, *firmware.outputs)]
    declared = "\n".join(
        f"static {port.value.dtype}_t {name}[{p.upper()}_{port.macro}_COUNT];"
        for port, name in buffers
    )
    source, target = firmware.inputs[0], firmware.outputs[0]
    text = (files("edgekd.firmware") / "support" / "README.md").read_text("utf-8")
    for mark, value in (
        ("@PREFIX@", p),
        ("@UPPER@", p.upper()),
        ("@CORE@", board.core),
        ("@BUFFERS@", declared),
        ("@CALL@", ", ".join(["arena", *(name for _, name in buffers)])),
        ("@IN@", source.name),
        ("@IN_COUNT@", f"{p.upper()}_{source.macro}_COUNT"),
        ("@OUT@", target.name),
        ("@TABLE@", _port_table(firmware)),
        ("@ARENA@", f"{firmware.arena.size:,}"),
        ("@IO@", f"{firmware.io_bytes:,}"),
    ):
        text = text.replace(mark, value)
    return text


def _port_table(firmware: Firmware) -> str:
    rows = ["| port | direction | shape | type | scale | zero point |", "|---|---|---|---|---|---|"]
    for direction, ports_ in (("in", firmware.inputs), ("out", firmware.outputs)):
        for port in ports_:
            value = port.value
            shape = " × ".join(map(str, value.shape))
            numbers = f"{value.dtype} | {value.scale:.9g} | {value.zero}"
            rows.append(f"| `{port.name}` | {direction} | {shape} | {numbers} |")
    return "\n".join(rows)


# --- golden vectors ----------------------------------------------------------------------------


def _golden(firmware: Firmware, samples: Sequence[Sample]) -> list[tuple[Sample, Sample]]:
    """Return inputs with the reference's outputs, as many as fit the flash of an emulator."""
    program, made = firmware.program, list[tuple[Sample, Sample]]()
    room = max(3, _GOLDEN_LIMIT // max(firmware.io_bytes, 1))
    for sample in samples[:room]:
        made.append((sample, run(program, sample)))
    return made


def _golden_header(firmware: Firmware, vectors: Sequence[tuple[Sample, Sample]]) -> str:
    p = firmware.prefix
    upper = p.upper()
    lines = [
        "/* Inputs, and what the NumPy integer reference makes of them. */",
        f"#ifndef {upper}_GOLDEN_H",
        f"#define {upper}_GOLDEN_H",
        "",
        "#include <stdint.h>",
        "#include <string.h>",
        "",
        f"#define GOLDEN_VECTORS {len(vectors)}",
    ]
    for side, group in ((0, firmware.inputs), (1, firmware.outputs)):
        for position, port in enumerate(group):
            rows = [_row(vector[side][position]) for vector in vectors]
            kind = f"{port.value.dtype}_t"
            lines += [
                "",
                f"static const {kind} golden_{port.name}[{len(rows)}][{port.value.count}] = {{",
                ",\n".join(rows) + "};",
            ]
    lines.append("")
    for port in firmware.outputs:
        lines.append(f"static {port.value.dtype}_t result_{port.name}[{port.value.count}];")
    arguments = [f"golden_{port.name}[v]" for port in firmware.inputs]
    arguments += [f"result_{port.name}" for port in firmware.outputs]
    matches = " && ".join(
        f"memcmp(result_{port.name}, golden_{port.name}[v], sizeof result_{port.name}) == 0"
        for port in firmware.outputs
    )
    lines += [
        f"#define GOLDEN_ARGUMENTS(v) {', '.join(arguments)}",
        f"#define GOLDEN_MATCHES(v) ({matches})",
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _row(values: NDArray[Any]) -> str:
    flat = [str(int(value)) for value in values.ravel()]
    return "  {" + ",\n   ".join(", ".join(flat[i : i + 20]) for i in range(0, len(flat), 20)) + "}"


# --- build files -------------------------------------------------------------------------------

_PLACES = {
    "selftest.c": "selftest/selftest.c",
    "platform.h": "selftest/platform.h",
    "host.c": "selftest/host.c",
    "cortexm.c": "selftest/cortexm.c",
    "emulator.ld": "selftest/emulator.ld",
    "run_emulator.sh": "selftest/run_emulator.sh",
    "toolchain.cmake": "cmake/toolchain.cmake",
    "CMakeLists.txt": "CMakeLists.txt",
}


def _support(prefix: str, board: Board) -> dict[str, str]:
    marks = {
        "@FLASH@": board.flash,
        "@RAM@": board.ram,
        "@TICK@": str(board.tick),
        "@FLAGS@": " ".join(board.flags),
        "@MACHINE@": board.machine,
        "@CORE@": board.core,
    }
    made = {}
    for name, place in _PLACES.items():
        text = (files("edgekd.firmware") / "support" / name).read_text(encoding="utf-8")
        for mark, value in marks.items():
            text = text.replace(mark, value)
        text = re.sub(r"\bekd(_|\b)", rf"{prefix}\1", text)
        made[place] = text.replace("EKD_", f"{prefix.upper()}_")
    return made
