"""Arm Ethos-U: int8 ``.tflite``, compiled by Arm's Vela for one accelerator.

What Vela says of cycles, memory and bandwidth are its estimates, for the system that the target
names; no board is asked, and they are called so everywhere. Until a board runs the compiled file,
task metric and parity are those of the same network in LiteRT's reference kernels, a proxy.

Vela runs in a process of its own: on some networks it crashes.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgekd.backends import litert
from edgekd.backends.base import Candidate, samples_in, tool_versions
from edgekd.errors import StageError
from edgekd.events import Emit, Event
from edgekd.extras import installed, pip_install
from edgekd.firmware.tflite import inline_buffers, read_tflite

__all__ = ["BACKEND", "EthosU", "compiled"]

MAIN, COMPILED, REPORT = "model.tflite", "model_vela.tflite", "vela.json"
SYSTEMS = "Arm/vela.ini"
"""Vela's own description of systems and memory modes."""
_PROXY: Mapping[str, Any] = {"runtime": "litert", "options": {"kernels": "reference"}}
_ROWS = (Candidate("ethos-int8", "ethos-u", "ethos-u", "int8", "static"),)
_LIMIT_S = 600
_TAIL_LINES = 8
_KIB = ("sram", "dram", "on_chip_flash", "off_chip_flash")


class EthosU:
    """The backend named ``ethos-u``."""

    name = "ethos-u"
    takes = "tflite"
    workers = litert.BACKEND.workers

    def available(self) -> str | None:
        """Return why it cannot build here; None when it can."""
        reasons = [litert.BACKEND.available()]
        if not installed("ethosu"):
            reasons.append(f"no Vela here: {pip_install('ethos')}")
        return "; ".join(reason for reason in reasons if reason) or None

    def candidates(self, precisions: Sequence[str], isa: Sequence[str]) -> list[Candidate]:
        """Return int8, where the target allows it."""
        del isa
        return [row for row in _ROWS if row.precision in precisions]

    def build(
        self,
        model: Path,
        candidate: Candidate,
        calibration: Mapping[str, NDArray[Any]],
        out: Path,
        emit: Emit,
    ) -> dict[str, Any]:
        """Quantise a float ``.tflite`` with integer ports, and let Vela compile it.

        ``candidate.options`` has the target's ``accelerator``, ``system_config``, ``memory_mode``,
        ``sram_kib`` and ``flash_kib``.

        Raises:
            StageError: The quantiser failed, or Vela did.
        """
        options = candidate.options
        emit(Event("progress", f"build:{candidate.id}", "quantising"))
        facts = litert.quantise(
            model,
            out / MAIN,
            litert.POLICIES[candidate.policy],
            calibration,
            never=candidate.never_quantize,
            float_io=False,
        )
        (out / MAIN).write_bytes(inline_buffers((out / MAIN).read_bytes()))
        emit(Event("progress", f"build:{candidate.id}", f"compiling for {options['accelerator']}"))
        report = compiled(out / MAIN, options, out / COMPILED)
        report["allowed"] = {key: options.get(key) for key in ("sram_kib", "flash_kib")}
        (out / REPORT).write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", "utf-8")
        versions = {**facts.get("tool_versions", {}), **tool_versions("ethos-u-vela")}
        return {
            "files": [MAIN, COMPILED, REPORT],
            "main": MAIN,
            "runtime": candidate.runtime,
            "options": {},
            "proxy": dict(_PROXY),
            "precision": candidate.precision,
            "calibration_samples": samples_in(calibration),
            **facts,
            "tool_versions": versions,
        }

    def check(self, model: Path, runtime: str | None, opset: int) -> dict[str, Any]:
        """Hold Vela's estimates to the target's memories.

        Args:
            model: The artefact's ``model.tflite``.
            runtime: Not used.
            opset: Not used.

        Returns:
            ``status``, ``why``, ``findings``, and ``ethos``: what `compiled` gives, and what the
            target ``allowed``.
        """
        del runtime, opset
        report: dict[str, Any] = json.loads(model.with_name(REPORT).read_text("utf-8"))
        kib, allowed, why = report["memory_kib"], report["allowed"], []
        for name, used, key in (
            ("SRAM", kib["sram"], "sram_kib"),
            ("flash", kib["on_chip_flash"] + kib["off_chip_flash"], "flash_kib"),
        ):
            if allowed[key] is not None and used > allowed[key]:
                why.append(
                    f"{used:,.1f} KiB of {name} by Vela's estimate, the target allows"
                    f" {allowed[key]:,.0f}: a narrower student or a shorter window"
                )
        status = "failed" if why else "passed"
        return {"status": status, "why": why, "findings": [], "ethos": report}


BACKEND = EthosU()


def compiled(model: Path, options: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Let Vela compile a quantised network.

    Args:
        model: The ``.tflite`` file, all constants inside.
        options: ``accelerator``, ``system_config``, ``memory_mode``.
        out: The compiled file to write.

    Returns:
        ``vela`` (version), ``accelerator``, ``system_config``, ``memory_mode``, ``clock_mhz``,
        ``cycles`` and ``ms`` of one inference, ``memory_kib`` by memory, ``macs``, ``operators``
        of the network and ``npu_share`` of those of the compiled one that run on the accelerator.
        All of them are estimates.

    Raises:
        StageError: Vela crashed or refused the network.
    """
    with tempfile.TemporaryDirectory(prefix="edgekd-vela-") as name:
        folder = Path(name)
        command = [
            sys.executable,
            *("-m", "ethosu.vela", str(model.absolute())),
            *("--accelerator-config", str(options["accelerator"])),
            *("--config", SYSTEMS, "--system-config", str(options["system_config"])),
            *("--memory-mode", str(options["memory_mode"])),
            *("--output-dir", str(folder), "--show-cpu-operations"),
        ]
        said = _run(command, str(options["accelerator"]))
        (summary,) = folder.glob("*_summary_*.csv")
        with summary.open(newline="", encoding="utf-8") as stream:
            row = next(csv.DictReader(stream))
        (made,) = folder.glob("*_vela.tflite")
        out.write_bytes(made.read_bytes())
    operators = len(read_tflite(model.read_bytes()).operators)
    return {**_figures(row), "operators": operators, "npu_share": _share(said), **_asked(options)}


def _run(command: Sequence[str], accelerator: str) -> str:
    try:
        done = subprocess.run(
            list(command),
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as late:
        raise StageError(f"Vela took more than {_LIMIT_S} s for {accelerator}") from late
    text = done.stdout + done.stderr
    if done.returncode:
        code = done.returncode
        fate = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        lines = [line for line in text.splitlines() if line.strip()][-_TAIL_LINES:]
        raise StageError(
            f"Vela {fate} while compiling for {accelerator}",
            hint="\n    ".join(["the end of what it said:", *(lines or ["nothing"])]),
        )
    return text


def _figures(row: Mapping[str, str]) -> dict[str, Any]:
    """Return what Vela's summary says, in our units."""
    return {
        "clock_mhz": float(row["core_clock"]) / 1e6,
        "cycles": round(float(row["cycles_total"])),
        "ms": float(row["inference_time"]) * 1e3,
        "macs": round(float(row["nn_macs"])),
        "memory_kib": {name: float(row[f"{name}_memory_used"]) for name in _KIB},
    }


def _share(said: str) -> float | None:
    """Return how many of the compiled operators run on the accelerator, of 1."""
    words = [line.split(":")[0].strip() for line in said.splitlines()]
    npu, cpu = words.count("NPU"), words.count("CPU")
    return npu / (npu + cpu) if npu + cpu else None


def _asked(options: Mapping[str, Any]) -> dict[str, Any]:
    found = tool_versions("ethos-u-vela")
    return {
        "vela": found.get("ethos-u-vela", "unknown"),
        **{key: str(options[key]) for key in ("accelerator", "system_config", "memory_mode")},
    }
