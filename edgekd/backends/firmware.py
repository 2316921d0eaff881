"""Microcontrollers: a quantised ``.tflite`` as a C library, proven in an emulator.

The task metric and parity of a candidate are those of its C, compiled on this computer; what the
core makes of it (flash, stack, instructions) comes from the cross compiler and the emulator. An
emulator counts instructions: times are estimates and are called so.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.backends import litert
from edgekd.backends.base import Candidate
from edgekd.errors import StageError, UsageError
from edgekd.events import Emit, Event
from edgekd.firmware import cross, tflm
from edgekd.firmware.boards import board
from edgekd.firmware.contract import around
from edgekd.firmware.correct import corrected
from edgekd.firmware.library import CARD, Firmware, load, templates, write
from edgekd.firmware.tflite import inline_buffers

__all__ = ["BACKEND", "FirmwareBackend"]

SAMPLES = 3
"""Real inputs among the golden vectors."""
CORRECTING = 32
"""Calibration samples that the last bias is corrected on."""

_ROWS = (
    Candidate("mcu-int8", "firmware", "firmware", "int8", "static"),
    Candidate("mcu-int16x8", "firmware", "firmware", "int16x8", "static-16x8"),
)


class FirmwareBackend:
    """The backend named ``firmware``."""

    name = "firmware"
    takes = "tflite"
    workers = litert.BACKEND.workers

    def available(self) -> str | None:
        """Return why it cannot build here; None when it can.

        The cross compiler is no part of it: without one the library is written all the same.
        """
        return litert.ENVIRONMENT.lacking()

    def candidates(self, precisions: Sequence[str], isa: Sequence[str]) -> list[Candidate]:
        """Return int8, and int8 weights with 16-bit activations, as the target allows."""
        del isa
        return [row for row in _ROWS if row.precision in precisions]

    def tools(self) -> dict[str, str]:
        """Return the versions of the programs that a check uses; part of its key."""
        found = {}
        for name in (cross.COMPILER, cross.EMULATOR):
            if not cross.missing_of(name):
                said = subprocess.run(
                    [name, "--version"], capture_output=True, text=True, timeout=60, check=False
                )
                found[name] = (said.stdout.splitlines() or ["?"])[0]
        return found

    def templates(self) -> str:
        """Return a digest of the C that libraries are made of: part of every key."""
        return templates()

    def build(
        self,
        model: Path,
        candidate: Candidate,
        calibration: Mapping[str, NDArray[Any]],
        out: Path,
        emit: Emit,
    ) -> dict[str, Any]:
        """Quantise a float ``.tflite`` and write its C library.

        ``candidate.options`` has the target's ``core``, ``clock_mhz``, ``flash_kib``,
        ``ram_kib`` and the ``prefix`` of C symbols.

        Raises:
            StageError: The quantiser failed, or the network cannot become C.
        """
        options = candidate.options
        policy = litert.POLICIES[candidate.policy]
        emit(Event("progress", f"build:{candidate.id}", "quantising"))
        with tempfile.TemporaryDirectory(prefix="edgekd-firmware-") as name:
            quantised = Path(name) / "model.tflite"
            facts = litert.quantise(
                model,
                quantised,
                policy,
                calibration,
                never=candidate.never_quantize,
                float_io=False,
                found=Path(name) / "found.npz",
                few=CORRECTING,
            )
            content = inline_buffers(quantised.read_bytes())
            with np.load(Path(name) / "found.npz", allow_pickle=False) as archive:
                truth = [archive[output] for output in archive.files]
        emit(Event("progress", f"build:{candidate.id}", "writing C"))
        try:
            firmware = load(content, identifier(str(options["prefix"])))
            samples = [_integers(firmware, calibration, i) for i in range(len(truth[0]))]
            content, correction = corrected(content, samples, truth[0])
            firmware = load(content, identifier(str(options["prefix"])))
        except UsageError as error:
            raise StageError(error.what, at=error.at, hint=error.hint) from error
        samples = samples[:SAMPLES]
        written = write(firmware, out, board(str(options["core"])), samples)
        limits = {key: options.get(key) for key in ("clock_mhz", "flash_kib", "ram_kib")}
        _add_limits(out / CARD, limits)
        return {
            **{
                key: facts[key]
                for key in ("quantised_ops", "total_ops", "tool_versions")
                if key in facts
            },
            "files": written.pop("files"),
            "main": CARD,
            "runtime": candidate.runtime,
            "options": {},
            "precision": candidate.precision,
            "calibration_samples": len(next(iter(calibration.values()))),
            "bytes": written["constant_bytes"],
            "firmware": {**written, "bias_correction": correction},
        }

    def check(self, model: Path, runtime: str | None, opset: int) -> dict[str, Any]:
        """Cross-compile, measure, run the self-test in the emulator, compare with the budget.

        Args:
            model: ``firmware.json`` of the library.
            runtime: Not used.
            opset: Not used.

        Returns:
            ``status``, ``why``, ``findings``, and ``firmware``: ``core``, ``flash_bytes``,
            ``arena_bytes``, ``io_bytes``, ``stack_bytes``, ``ram_bytes``, ``instructions``,
            ``instructions_per_mac``, ``estimated_ms`` (at one instruction a cycle),
            ``tflm_arena_bytes``; what could not be measured is ``not_run`` with the reason.
        """
        del runtime, opset
        folder, card = model.parent, json.loads(model.read_text("utf-8"))
        keys = ("core", "prefix", "inputs", "outputs", "arena_bytes", "io_bytes", "macs")
        made = {key: card[key] for key in keys}
        arena, why_not = tflm.arena_of((folder / "model.tflite").read_bytes())
        made["tflm_arena_bytes"] = arena if arena is not None else {"not_run": why_not}
        lacking = cross.missing()
        if lacking:
            reason = f"{' and '.join(lacking)} missing: {cross.INSTALL}"
            made["not_run"] = reason
        else:
            made |= _measured(folder, card)
        why = _refusals(made, card)
        status = "failed" if why else "passed"
        return {"status": status, "why": why, "findings": [], "firmware": made}

    def kit(
        self, manifest: Mapping[str, Any], golden: Mapping[str, NDArray[Any]]
    ) -> dict[str, bytes]:
        """Return the C header of the task's contract, where it is known; it lies by the library's.

        See `edgekd.backends.base.Equipping`.
        """
        del golden
        folder = Path(manifest["artefact"]["main"]).parent
        channels = manifest["io"]["inputs"][0]["channels"]
        texts = around(manifest.get("contract", {}), manifest["firmware"], channels)
        return {(folder / name).as_posix(): text.encode() for name, text in texts.items()}


BACKEND = FirmwareBackend()


def identifier(name: str) -> str:
    """Return a prefix for C symbols made of a recipe's name."""
    plain = re.sub(r"[^a-z0-9_]", "_", name.lower())
    return plain if plain[:1].isalpha() else f"n_{plain}"


def _integers(
    firmware: Firmware, calibration: Mapping[str, NDArray[Any]], index: int
) -> list[NDArray[Any]]:
    """Return one calibration sample as the integers of the library's inputs."""
    made = []
    for port, number in zip(firmware.inputs, firmware.program.inputs, strict=True):
        value, name = port.value, firmware.names[number]
        real = np.asarray(calibration[name][index], np.float32).reshape(value.shape)
        info = np.iinfo(value.dtype)
        steps = real / np.float32(value.scale)
        codes = np.sign(steps) * np.floor(np.abs(steps) + np.float32(0.5)) + value.zero
        made.append(np.clip(codes, info.min, info.max).astype(value.dtype))
    return made


def _add_limits(path: Path, limits: Mapping[str, Any]) -> None:
    card = json.loads(path.read_text("utf-8"))
    card["target"] = limits
    path.write_text(json.dumps(card, indent=1, sort_keys=True) + "\n", "utf-8")


def _measured(folder: Path, card: Mapping[str, Any]) -> dict[str, Any]:
    core, prefix = board(card["core"]), card["prefix"]
    size = cross.measure(folder, core, prefix)
    with tempfile.TemporaryDirectory(prefix="edgekd-firmware-") as name:
        image = cross.compile_selftest(folder, core, Path(name) / "selftest.elf")
        verdict = cross.emulate(image, core)
    clock = card["target"]["clock_mhz"]
    counted = verdict.instructions
    return {
        "flash_bytes": size.flash,
        "code_bytes": size.code,
        "constant_bytes": size.constants,
        "stack_bytes": size.stack,
        "ram_bytes": card["arena_bytes"] + card["io_bytes"] + size.stack,
        "selftest": "passed" if verdict.passed else verdict.output.strip()[-200:],
        "emulator": core.machine,
        "instructions": counted,
        "instructions_per_mac": counted and round(counted / max(card["macs"], 1), 2),
        "estimated_ms": counted and clock and round(counted / (1e3 * clock), 3),
        "clock_mhz": clock,
        "allowed": {key: card["target"][key] for key in ("flash_kib", "ram_kib")},
    }


def _refusals(made: Mapping[str, Any], card: Mapping[str, Any]) -> list[str]:
    """Return why the library cannot ship: over budget, or the self-test failed.

    Without a cross compiler code and stack are not known; constants and arena are.
    """
    measured = "not_run" not in made
    why = []
    if measured and made["selftest"] != "passed":
        why.append(f"self-test on emulated {card['core']}: {made['selftest']}")
    flash = made["flash_bytes"] if measured else card["constant_bytes"]
    ram = made["ram_bytes"] if measured else card["arena_bytes"] + card["io_bytes"]
    for name, used, key in (("flash", flash, "flash_kib"), ("RAM", ram, "ram_kib")):
        allowed = card["target"][key]
        if allowed is not None and used > 1024 * allowed:
            why.append(
                f"{used:,} bytes of {name}{'' if measured else ' at least'}, the target allows"
                f" {1024 * allowed:,.0f}; most of it {_largest(card, name)}: a narrower student"
                " or a shorter window"
            )
    return why


def _largest(card: Mapping[str, Any], name: str) -> str:
    layer = card["largest"]["constants" if name == "flash" else "arena"]
    return f"layer {layer['layer']!r} ({layer['bytes']:,})"
