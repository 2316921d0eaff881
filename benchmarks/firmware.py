"""What the generated C takes on emulated cores: instructions a multiply-accumulate, memory.

    python -m benchmarks.firmware NAME=MODEL.tflite … --out benchmarks/results/firmware.json

Instructions are those of one inference on the first golden vector, counted by the emulator; the
same model gives the same number again. Each core is measured with its DSP instructions and without.
``tflm_arena_bytes`` is what TensorFlow Lite Micro's own package says of the same file.

``--beside`` names a JSON object, sha256 of a model → instructions that another generator's C took
of it on the Cortex-M4 in the same emulator: here the sketch that this one was planned with, which
knows int8 alone and is no part of the repository. ``share`` is ours over theirs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekd.firmware import cross, tflm
from edgekd.firmware.boards import BOARDS, Board
from edgekd.firmware.library import Firmware, load, write

PREFIX = "model"


def measured(content: bytes, cores: Sequence[str] = tuple(BOARDS)) -> dict[str, Any]:
    """Return what a model takes.

    Args:
        content: The quantised ``.tflite`` file.
        cores: On which.

    Returns:
        ``sha256``, ``operators``, ``macs``, ``arena_bytes``, ``io_bytes``, ``constant_bytes``,
        ``tflm_arena_bytes`` (or ``not_run`` with the reason), and a row for each of ``cores``.
    """
    firmware = load(content, PREFIX)
    arena, why = tflm.arena_of(content)
    with tempfile.TemporaryDirectory() as name:
        facts = write(firmware, Path(name), BOARDS[cores[0]])
    kept = ("operators", "macs", "arena_bytes", "io_bytes", "constant_bytes")
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        **{key: facts[key] for key in kept},
        "tflm_arena_bytes": {"not_run": why} if arena is None else arena,
        "cores": {core: _on(firmware, BOARDS[core]) for core in cores},
    }


def _on(firmware: Firmware, board: Board) -> dict[str, Any]:
    """Return flash, stack and instructions on one core, with and without DSP instructions."""
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(firmware, folder, board)
        for key, flags in (("dsp", ()), ("plain", (f"-D{PREFIX.upper()}_NO_SIMD",))):
            image = cross.compile_selftest(folder, board, folder / "selftest.elf", flags)
            verdict = cross.emulate(image, board)
            if not verdict.passed or verdict.instructions is None:
                raise SystemExit(f"self-test on {board.core}: {verdict.output.strip()}")
            size = cross.measure(folder, board, PREFIX, flags)
            rows[key] = {
                "instructions": verdict.instructions,
                "instructions_per_mac": round(verdict.instructions / firmware.program.macs, 2),
                "code_bytes": size.code,
                "flash_bytes": size.flash,
                "stack_bytes": size.stack,
            }
    return rows


def beside(row: Mapping[str, Any], theirs: Mapping[str, int]) -> dict[str, Any]:
    """Return a model's row with what another generator takes, where that is known."""
    other = theirs.get(row["sha256"])
    if other is None:
        return dict(row)
    mine = row["cores"]["cortex-m4"]["dsp"]["instructions"]
    compared = {
        "instructions": other,
        "instructions_per_mac": round(other / row["macs"], 2),
        "share": round(mine / other, 3),
    }
    return {**row, "sketch": compared}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", metavar="NAME=FILE")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--beside", type=Path)
    parser.add_argument("--core", action="append", choices=list(BOARDS))
    asked = parser.parse_args()
    theirs = json.loads(asked.beside.read_text("utf-8")) if asked.beside else {}
    rows = {}
    for text in asked.models:
        name, _, path = text.partition("=")
        row = measured(Path(path).read_bytes(), tuple(asked.core or BOARDS))
        rows[name] = beside(row, theirs)
        for core, row in rows[name]["cores"].items():
            per = ", ".join(f"{key} {one['instructions_per_mac']}" for key, one in row.items())
            print(f"{name} on {core}: instructions a MAC: {per}", flush=True)
    if asked.out:
        asked.out.write_text(json.dumps({"models": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
