"""What a target file may say: pure data about a device class, validated at the edge.

A target is YAML without interpolation, inheritance or
secrets; all faults are reported at once, each with its line.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from edgekd import document
from edgekd.document import Document, Fault, Frozen, Kind
from edgekd.errors import TargetError

__all__ = [
    "BACKENDS",
    "Limits",
    "Measure",
    "Precision",
    "Roofline",
    "Target",
    "accepts",
    "json_schema",
    "load",
    "loads",
]

Precision = Literal["fp32", "bf16", "fp16", "int8", "int16x8", "int4"]
BACKENDS = ("onnxruntime", "openvino", "litert", "tensorrt", "tensorrt-rtx", "firmware", "ethos-u")
"""Backends of edgekd; entry points of the group ``edgekd.backends`` add others."""

_RANGE = re.compile(r"(>=|<=|==|!=|>|<)\s*(\d+(?:\.\d+)*)")
_PART = r"(>=|<=|==|!=|>|<)\s*\d+(\.\d+)*"

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]
Versions = Annotated[str, Field(pattern=rf"^\s*{_PART}\s*(,\s*{_PART}\s*)*$")]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Limits(Frozen):
    """What an artefact may cost; a limit that is absent is not checked."""

    latency_p50_ms: Positive | None = None
    """Largest median latency of one inference, in milliseconds."""
    latency_p99_ms: Positive | None = None
    """Largest 99th percentile of the latency of one inference, in milliseconds."""
    peak_memory_mib: Positive | None = None
    """Largest peak resident memory of the process that runs the artefact, in MiB."""
    size_mib: Positive | None = None
    """Largest size of the artefact's files together, in MiB."""
    energy_mj: Positive | None = None
    """Largest energy of one inference, in millijoules."""
    metric_drop: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Largest relative loss of the task metric against the unquantised student (0.01 is 1 %)."""


class Measure(Frozen):
    """How latency is measured. The process, not the sample, is the unit."""

    threads: Count = 1
    """Threads that the runtime may use."""
    runs: Count = 200
    """Timed inferences of one process."""
    warmup: Annotated[int, Field(ge=0)] = 20
    """Inferences before the timed ones."""
    processes: Count = 3
    """Fresh processes; the figure is the median of their medians."""


class Core(Frozen):
    """A microcontroller: what firmware is generated for."""

    core: Literal["cortex-m4", "cortex-m7", "cortex-m33"]
    """Processor core, by Arm's name."""
    clock_mhz: Positive
    """Clock at which times are estimated."""
    flash_kib: Positive
    """Flash that code and weights may take, in KiB."""
    ram_kib: Positive
    """Memory that arena, inputs, outputs and stack may take together, in KiB."""


class Npu(Frozen):
    """An Arm Ethos-U and the system around it, in the words of Arm's compiler Vela."""

    accelerator: Literal[
        "ethos-u55-32",
        "ethos-u55-64",
        "ethos-u55-128",
        "ethos-u55-256",
        "ethos-u65-256",
        "ethos-u65-512",
        "ethos-u85-128",
        "ethos-u85-256",
        "ethos-u85-512",
        "ethos-u85-1024",
        "ethos-u85-2048",
    ]
    """Accelerator and its multiply-accumulates a cycle."""
    system_config: str
    """Clock and memories, a name of Vela's description of systems."""
    memory_mode: str
    """What lies where, a name of the same description."""
    sram_kib: Positive | None = None
    """SRAM that the network may take, in KiB; by Vela's estimate."""
    flash_kib: Positive | None = None
    """Flash that the network may take, in KiB; by Vela's estimate."""


class Roofline(Frozen):
    """The device's published peaks, from which a floor of the latency follows, never a prediction.

    One multiply-accumulate counts as two operations.
    """

    int8_gops: Positive | None = None
    """Peak of int8 arithmetic, in 10⁹ operations a second."""
    fp16_gops: Positive | None = None
    """Peak of 16-bit floating point (fp16, bf16), in 10⁹ operations a second."""
    fp32_gops: Positive | None = None
    """Peak of 32-bit floating point, in 10⁹ operations a second."""
    bandwidth_gbs: Positive | None = None
    """Peak of the memory, in 10⁹ bytes a second."""

    def floor_ms(self, macs: float, bytes_moved: float, precision: str = "int8") -> float | None:
        """Return the time below which no implementation can be, in milliseconds.

        Args:
            macs: Multiply-accumulates of one inference.
            bytes_moved: Bytes that must cross the memory at least once (weights, input, output).
            precision: Which peak applies.

        Returns:
            None when neither the peak of that precision nor the bandwidth is known.
        """
        peak = self._peak(precision)
        times = []
        if peak is not None:
            times.append(2 * macs / (peak * 1e9))
        if self.bandwidth_gbs is not None:
            times.append(bytes_moved / (self.bandwidth_gbs * 1e9))
        return 1e3 * max(times) if times else None

    def _peak(self, precision: str) -> float | None:
        if precision.startswith("int"):
            return self.int8_gops
        return self.fp32_gops if precision == "fp32" else self.fp16_gops


class Target(Frozen):
    """A class of devices: what it runs, what it allows, what it may cost."""

    name: Name
    """Name of the target; the file is called NAME.yaml."""
    title: str
    """One line for a reader."""
    device: Literal["cpu", "gpu", "npu", "mcu"]
    """Class of the processor that runs the network."""
    backends: Annotated[tuple[str, ...], Field(min_length=1)]
    """Runtimes to try; those not installed are reported as not built."""
    runtime: Mapping[str, Versions] = Field(default_factory=dict)
    """Range of versions a backend's runtime must have on the device, such as ">=10.3,<11"."""
    arch: tuple[str, ...] = ()
    """Machine names (as `uname -m` prints) the target stands for; empty for any."""
    board: str | None = None
    """Part of the board's own name ("Orin Nano"); a machine without it is not the device."""
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1)]
    """Precisions that a candidate may have."""
    prefer: tuple[Precision, ...] = ()
    """Order of preference where no device could be measured; empty for that of precisions."""
    never_quantize: tuple[str, ...] = ()
    """ONNX operator types that keep floating point."""
    limits: Limits = Limits()
    """What an artefact may cost."""
    power_mode: str | None = None
    """Power mode that the device must be in, by the vendor's name ("25W"); recorded, compared."""
    mcu: Core | None = None
    """The microcontroller; for backend firmware."""
    npu: Npu | None = None
    """The accelerator; for backend ethos-u."""
    measure: Measure = Measure()
    """How latency is measured."""
    roofline: Roofline = Roofline()
    """Published peaks of the device, in its power mode where it has several."""
    modes: Mapping[str, Roofline] = Field(default_factory=dict)
    """Published peaks in its other power modes, by the vendor's names."""
    opset: Annotated[int, Field(ge=13, le=26)] = 20
    """Version of the ONNX operator set that is exported."""

    @model_validator(mode="after")
    def _runtime_of_a_backend(self) -> Target:
        strangers = [name for name in self.runtime if name not in self.backends]
        if strangers:
            raise ValueError(f"runtime names {strangers[0]!r}, which is not among the backends")
        if "firmware" in self.backends and self.mcu is None:
            raise ValueError("backend firmware needs mcu: core, clock_mhz, flash_kib, ram_kib")
        if "ethos-u" in self.backends and self.npu is None:
            raise ValueError("backend ethos-u needs npu: accelerator, system_config, memory_mode")
        return self

    def absent_from(self, machine: Mapping[str, Any]) -> str:
        """Return why a machine is not this device, and cannot stand for it; empty when it is.

        Args:
            machine: Facts of the agent there: ``arch``, ``board``, ``runtimes``.
        """
        if self.device == "mcu":
            return "a microcontroller is not timed from here: an emulator counts instructions"
        if self.arch and machine["arch"] not in self.arch:
            return f"this machine is {machine['arch']}, the target {' or '.join(self.arch)}"
        board = machine.get("board") or "a machine without a name"
        if self.board and self.board.lower() not in board.lower():
            return f"this machine is {board}, the target a board called {self.board!r}"
        if self.device == "cpu":
            return ""
        found = {n: v for n, v in (machine.get("runtimes") or {}).items() if v}
        found = {name: found[name] for name in self.backends if name in found}
        if not found:
            return f"this machine has no {' or '.join(self.backends)} runtime"
        wrong = [f"{n} {v}" for n, v in found.items() if not accepts(self.runtime.get(n, ""), v)]
        if len(wrong) == len(found):
            ranges = " or ".join(f"{name} {self.runtime[name]}" for name in found)
            return f"this machine has {' and '.join(wrong)}, the target {ranges}"
        return ""

    def peaks(self, mode: str | None = None) -> Roofline:
        """Return the published peaks in a power mode; the target's own where it names no other."""
        return self.modes.get(mode or "", self.roofline)

    @property
    def order(self) -> tuple[str, ...]:
        """Precisions, the preferred first, for a choice that nothing was measured for."""
        return tuple(dict.fromkeys((*self.prefer, *self.precisions)))

    def plain(self) -> dict[str, Any]:
        """Return the target as plain JSON values."""
        return self.model_dump(mode="json")

    def floor_ms(self, macs: float, bytes_moved: float, precision: str = "int8") -> float | None:
        """Return the roofline's floor of the latency; see `Roofline.floor_ms`."""
        return self.roofline.floor_ms(macs, bytes_moved, precision)


def accepts(versions: str, found: str) -> bool:
    """Tell whether a version lies in a range such as ``>=10.3,<11``.

    Only the numbers before the first letter count: ``10.3.0.post1`` is 10.3.0.
    """
    version = _numbers(found)
    return all(_holds(sign, version, _numbers(bound)) for sign, bound in _RANGE.findall(versions))


def _numbers(version: str) -> tuple[int, ...]:
    leading = re.match(r"\d+(?:\.\d+)*", version.strip())
    parts = [int(part) for part in leading.group().split(".")] if leading else [0]
    while len(parts) > 1 and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def _holds(sign: str, version: tuple[int, ...], bound: tuple[int, ...]) -> bool:
    return {
        ">=": version >= bound,
        "<=": version <= bound,
        "==": version == bound,
        "!=": version != bound,
        ">": version > bound,
        "<": version < bound,
    }[sign]


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a target file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Target.model_json_schema(),
    }


def load(path: Path) -> Target:
    """Read and validate a target file.

    Raises:
        TargetError: The file cannot be read or is not a valid target; all faults at once.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TargetError(f"cannot read the target: {error}", at=str(path)) from error
    return loads(text, at=str(path))


def loads(text: str, *, at: str = "<text>") -> Target:
    """Validate the text of a target file; ``at`` names it in messages."""
    return document.load(text, Target, KIND, at)


def _unknown_backends(file: Document) -> list[Fault]:
    backends = file.value.get("backends")
    if not isinstance(backends, list):
        return []
    return [
        Fault(file.line(("backends", index)), f"backends.{index}", _unknown_backend(name))
        for index, name in enumerate(backends)
        if isinstance(name, str) and name not in BACKENDS and name not in _installed_backends()
    ]


def _unknown_backend(name: str) -> str:
    known = [*BACKENDS, *_installed_backends()]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"no backend is called {name!r}; {hint}known: {', '.join(known)}"


def _installed_backends() -> list[str]:
    from importlib.metadata import entry_points

    return sorted(point.name for point in entry_points(group="edgekd.backends"))


KIND = Kind(
    noun="target",
    error=TargetError,
    hint="edgekd targets schema prints every key",
    example="edgekd targets show cpu prints one",
    patterns={
        "name": "should be lower case letters, digits, '.', '_' and '-'",
        "runtime": "should be a range of versions, such as '>=10.3,<11'",
    },
    more=_unknown_backends,
)
