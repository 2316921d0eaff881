"""NVIDIA's ``trtexec``: its command lines from TensorRT 8.6 to 11, and what it writes.

Its defaults turned between 10 and 11 (transfers, CUDA graph, spinning), so every flag that changes
a number is given; then the numbers of all versions mean the same: one inference replayed as a CUDA
graph, without copies, waited for by spinning. Its files are almost JSON: layer names are not
escaped, and 0/0 is printed as ``nan``.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import outside
from .faults import Fault, SetupFault

Version = tuple[int, int, int]

PLACES = ("/usr/src/tensorrt/bin/trtexec", "/usr/local/bin/trtexec", "/opt/tensorrt/bin/trtexec")
"""Where it is when it is not on PATH; the first is JetPack's."""

STRONGLY_TYPED_SINCE: Version = (9, 1, 0)
ALWAYS_TYPED_SINCE: Version = (11, 0, 0)
PERCENTILES = (50, 90, 95, 99)

_NUMBER = r"-?(?:\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|inf|nan)"
_STATISTIC = re.compile(rf"(min|max|mean|median|percentile\([\d.]+%\)) = ({_NUMBER}) ms")
_VERDICT = re.compile(r"^&&&& (RUNNING|PASSED|FAILED|SKIPPED|WAIVED) \S+ \[TensorRT v(\d+)\]", re.M)
_SECTIONS = ("Latency", "Enqueue Time", "H2D Latency", "GPU Compute Time", "D2H Latency")
_MEMORY = (
    "out of memory",
    "OutOfMemory",
    "Requested amount of GPU memory",
    "insufficient memory",
    "Could not find any implementation for node",
)


@dataclass(frozen=True)
class Report:
    """What one run said.

    Attributes:
        passed: Whether it ended with ``&&&& PASSED``.
        version: TensorRT that ran; None when it did not come so far as to say.
        device: GPU by name.
        build_s: Seconds to build the engine, where it was built.
        statistics: Milliseconds by section (``GPU Compute Time``) and name (``median``, ``p99``).
        throughput_qps: Inferences a second.
        queries: How many were timed.
        trace_s: Seconds that they took together.
        warnings: Lines that put a number in doubt.
        errors: Lines of severity E.
    """

    passed: bool
    version: Version | None
    device: str | None
    build_s: float | None
    statistics: dict[str, dict[str, float]]
    throughput_qps: float | None
    queries: int | None
    trace_s: float | None
    warnings: tuple[str, ...]
    errors: tuple[str, ...]

    def refusal(self) -> Fault:
        """Return why it failed, and what to do."""
        return refusal(self.errors, "trtexec")


def refusal(errors: Sequence[str], who: str) -> Fault:
    """Return why a build or a run failed, and what to do.

    Args:
        errors: What was said, the last words last.
        who: The program.
    """
    said = "; ".join(errors[-3:]) or "it said no reason"
    if any(sign.lower() in said.lower() for sign in _MEMORY):
        return SetupFault(
            f"the board's memory ran out while building: {said[-400:]}",
            hint="close other programs (sudo systemctl isolate multi-user.target frees the "
            "desktop's share), or give a smaller workspace",
        )
    return Fault(f"{who} failed: {said[-600:]}")


@dataclass(frozen=True)
class Tool:
    """One ``trtexec`` on this machine."""

    path: str
    version: Version

    def build(
        self,
        onnx: Path,
        engine: Path,
        *,
        workspace_mib: int,
        cache: Path | None = None,
        layers: Path | None = None,
        shapes: Mapping[str, Sequence[int]] | None = None,
        precision: str = "fp32",
    ) -> list[str]:
        """Return the command that builds an engine.

        Args:
            onnx: Explicitly typed model.
            engine: File to write.
            workspace_mib: Limit of the memory that a layer may use while it runs.
            cache: Timing cache, read and written: a second build takes seconds.
            layers: Where the list of compiled layers goes.
            shapes: Shape of every input with a free dimension.
            precision: Of the candidate; only TensorRT 8.6, which has no strong typing, asks.
        """
        command = [self.path, f"--onnx={onnx}", f"--saveEngine={engine}", "--skipInference"]
        command += ["--profilingVerbosity=detailed", f"--memPoolSize=workspace:{workspace_mib}"]
        command += self._typing(precision)
        command += [f"--timingCacheFile={cache}"] if cache else []
        command += [f"--exportLayerInfo={layers}"] if layers else []
        if shapes:
            text = ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())
            command += [f"--minShapes={text}", f"--optShapes={text}", f"--maxShapes={text}"]
        return command

    def _typing(self, precision: str) -> list[str]:
        if self.version >= ALWAYS_TYPED_SINCE:
            return []
        if self.version >= STRONGLY_TYPED_SINCE:
            return ["--stronglyTyped"]
        return {"fp32": [], "fp16": ["--fp16"]}.get(precision, ["--fp16", "--int8"])

    def time(
        self,
        engine: Path,
        times: Path,
        *,
        warmup_ms: int = 500,
        duration_s: float = 10,
        iterations: int = 200,
    ) -> list[str]:
        """Return the command that measures latency; each inference goes to `times`."""
        return [
            *(self.path, f"--loadEngine={engine}", f"--exportTimes={times}"),
            *(f"--warmUp={warmup_ms}", f"--duration={duration_s:g}", f"--iterations={iterations}"),
            "--percentile=" + ",".join(map(str, PERCENTILES)),
            *self._same_meaning(),
        ]

    def profile(self, engine: Path, profile: Path, *, iterations: int = 50) -> list[str]:
        """Return the command that times every layer; profiling slows the whole down."""
        return [
            *(self.path, f"--loadEngine={engine}", f"--iterations={iterations}", "--dumpProfile"),
            *(f"--exportProfile={profile}", *self._same_meaning()),
        ]

    def infer(self, engine: Path, feeds: Mapping[str, Path], outputs: Path) -> list[str]:
        """Return the command that runs raw little-endian tensors once."""
        pairs = ",".join(f"{name}:{path}" for name, path in feeds.items())
        return [
            *(self.path, f"--loadEngine={engine}", f"--loadInputs={pairs}"),
            *("--iterations=1", "--warmUp=0", "--duration=0", f"--exportOutput={outputs}"),
        ]

    def _same_meaning(self) -> list[str]:
        """Return flags that make 10 measure as 11 does; 11 has them as its defaults."""
        if self.version >= ALWAYS_TYPED_SINCE:
            return []
        return ["--noDataTransfers", "--useCudaGraph", "--useSpinWait", "--separateProfileRun"]

    def run(
        self, command: Sequence[str], log: Path | None = None, timeout_s: float = 1800
    ) -> Report:
        """Run a command, keep its log, and return what it said.

        Raises:
            Fault: It failed; out of memory is a `SetupFault` with the remedy.
        """
        done = outside.run(command, timeout_s)
        if log is not None:
            log.write_text(done.text)
        report = read_log(done.text)
        if done.code != 0 or not report.passed:
            raise report.refusal()
        return report


def find(place: str | None = None) -> Tool | None:
    """Find ``trtexec`` on this machine, and ask its version; None where it is not."""
    if outside.recording() is not None:
        return Tool(PLACES[0], _version(PLACES[0]))
    for path in filter(None, (place, shutil.which("trtexec"), *PLACES)):
        if Path(path).is_file():
            return Tool(path, _version(path))
    return None


def _version(path: str) -> Version:
    said = outside.run([path, "--help"], 60).text
    found = _VERDICT.search(said)
    if found is None:
        raise SetupFault(f"{path} does not say its version: {said[-200:]}")
    return version_of(found[2])


def version_of(token: str) -> Version:
    """Read ``100300`` (10.3.0) or, before 10, ``8601`` (8.6.1)."""
    number = int(token)
    if number >= 10000:
        return number // 10000, number // 100 % 100, number % 100
    return number // 1000, number // 100 % 10, number % 100


def shown(version: Version) -> str:
    """Write a version: ``10.3.0``."""
    return ".".join(map(str, version))


def read_log(text: str) -> Report:
    """Read what ``trtexec`` printed, standard error included."""
    verdicts = _VERDICT.findall(text)
    device = re.search(r"Selected Device: (.+?)(?:\s*\||$)", text, re.M)
    build = re.search(rf"Engine built in ({_NUMBER}) sec", text)
    trace = re.search(rf"Timing trace has (\d+) queries over ({_NUMBER}) s", text)
    rate = re.search(rf"Throughput: ({_NUMBER}) qps", text)
    return Report(
        passed=bool(verdicts) and verdicts[-1][0] == "PASSED",
        version=version_of(verdicts[0][1]) if verdicts else None,
        device=device[1].strip() if device else None,
        build_s=float(build[1]) if build else None,
        statistics={name: found for name in _SECTIONS if (found := _statistics(text, name))},
        throughput_qps=float(rate[1]) if rate else None,
        queries=int(trace[1]) if trace else None,
        trace_s=float(trace[2]) if trace else None,
        warnings=tuple(dict.fromkeys(re.findall(r"\[[WI]\] (?:\[TRT\] )?\* (.+)", text))),
        errors=tuple(dict.fromkeys(re.findall(r"\[E\] (.+)", text))),
    )


def _statistics(text: str, section: str) -> dict[str, float]:
    line = re.search(rf"\] {re.escape(section)}: (.+)$", text, re.M)
    if line is None:
        return {}
    found = {}
    for name, value in _STATISTIC.findall(line[1]):
        short = re.sub(r"percentile\(([\d.]+)%\)", r"p\1", name)
        found[short] = float(value)
    return found


def almost_json(text: str) -> Any:
    """Read the JSON that ``trtexec`` writes by hand: names not escaped, nan and inf bare.

    Raises:
        ValueError: It is cut off (the run failed), or is something else.
    """
    try:
        return json.loads(text)
    except ValueError:
        mended = re.sub(r"([:\[,]\s*)-?(?:nan|inf)\b", r"\1null", text)
        return json.loads(_escaped(mended))


_END = re.compile(r'"\s*(?:[:\]}]|,\s*["{\[\d-]|$)')


def _escaped(text: str) -> str:
    """Escape quotes, backslashes and control characters inside the strings of `text`.

    A quote ends a string when what follows it can follow one: a colon, a comma, a bracket.
    """
    out: list[str] = []
    inside, place = False, 0
    while place < len(text):
        letter = text[place]
        if letter == '"':
            ends = inside and _END.match(text, place) is not None
            out.append('"' if ends or not inside else '\\"')
            inside = not inside or not ends
        elif inside and letter == "\\":
            out.append("\\\\")
        elif inside and ord(letter) < 32:
            out.append(f"\\u{ord(letter):04x}")
        else:
            out.append(letter)
        place += 1
    return "".join(out)


def read_times(text: str) -> list[float]:
    """Return the latency of each inference, in milliseconds; warm-up is not in the file.

    With transfers off, latency is the compute time of the GPU.
    """
    rows = almost_json(text)
    return [float(row["latencyMs"]) for row in rows]


@dataclass(frozen=True)
class LayerTime:
    """Time of one compiled layer: milliseconds a run, and its share of all."""

    name: str
    average_ms: float
    median_ms: float | None
    share: float | None


def read_profile(text: str) -> tuple[int, list[LayerTime]]:
    """Return how many runs were profiled, and the time of every layer."""
    runs, layers = 0, []
    for row in almost_json(text):
        if "count" in row and "name" not in row:
            runs = int(row["count"])
            continue
        share = row.get("percentage")
        layers.append(
            LayerTime(
                row["name"],
                float(row["averageMs"]),
                None if row.get("medianMs") is None else float(row["medianMs"]),
                None if share is None or not math.isfinite(share) else float(share),
            )
        )
    return runs, layers


@dataclass(frozen=True)
class Layer:
    """One compiled layer: its kind, and the types that it reads and gives."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tactic: str = ""
    weights: str = ""
    nodes: tuple[str, ...] = field(default=())

    @property
    def int8(self) -> bool:
        """Whether it computes in int8: reads it, and its weights are int8."""
        return bool(self.inputs) and self.inputs[0] == "int8" and self.weights in ("", "int8")


def read_layers(text: str) -> list[Layer]:
    """Return the compiled layers of an engine that was built with detailed profiling.

    Raises:
        ValueError: The file holds names only: the engine was built without
            ``--profilingVerbosity=detailed``.
    """
    rows = almost_json(text)["Layers"]
    if any(isinstance(row, str) for row in rows):
        raise ValueError("layers without details: build with --profilingVerbosity=detailed")
    return [
        Layer(
            name=row["Name"],
            kind=row.get("LayerType", ""),
            inputs=tuple(_type(port) for port in row.get("Inputs", ())),
            outputs=tuple(_type(port) for port in row.get("Outputs", ())),
            tactic=row.get("TacticName", ""),
            weights=str((row.get("Weights") or {}).get("Type", "")).lower(),
            nodes=tuple(re.findall(r"\[ONNX Layer: ([^\]]*)\]", row.get("Metadata", ""))),
        )
        for row in rows
    ]


def _type(port: Mapping[str, Any]) -> str:
    """Name the type of a tensor: 10.x hides it in the words of its format."""
    words = str(port.get("Datatype") or port.get("Format/Datatype") or "").lower()
    for name, signs in _TYPES.items():
        if any(sign in words for sign in signs):
            return name
    return words or "unknown"


_TYPES: Mapping[str, tuple[str, ...]] = {
    "int8": ("int8",),
    "fp16": ("fp16", "half"),
    "bf16": ("bf16", "bfloat16"),
    "fp32": ("fp32", "float"),
    "int32": ("int32",),
    "int64": ("int64",),
    "bool": ("bool",),
}


def read_output(text: str) -> dict[str, tuple[list[int], list[float]]]:
    """Return shape and values of every output that ``--exportOutput`` wrote (6 digits)."""
    return {
        row["name"]: ([int(size) for size in row["dimensions"].split("x")], row["values"])
        for row in almost_json(text)
    }
