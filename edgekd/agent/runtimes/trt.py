"""TensorRT: builds the engine, keeps it, runs it.

An ONNX file is built once for this GPU and this TensorRT and kept in the user's cache; a second
load takes the engine from there. ``trtexec`` builds it, which every Jetson has; NVIDIA's wheels
bring none, and then the Python package ``tensorrt`` does. Inference uses the package with CUDA's
runtime library; without the package each sample goes through a run of ``trtexec``, which is slow
and exact to six digits, and ``trtexec`` times the engine.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import importlib
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import jetson, outside, power, trtexec, trtpackage
from ..faults import Fault, SetupFault
from .options import Option, read_options
from .session import Layer, Port, Session, Step

if TYPE_CHECKING:
    from .session import Array

OPTIONS = {
    "threads": Option(int, 1),
    "precision": Option(str, "fp32"),
    "workspace_mib": Option(int, None),
    "io": Option(dict),
    "cache": Option(str, None),
    "trtexec": Option(str, None),
}
LEAST_WORKSPACE_MIB = 64
TRACE_S = 3.0
"""How long ``trtexec`` times, at least; it makes no fewer inferences than are asked for."""
SLOWEST, PROFILED = 10, 50
MOVES = ("Reformat", "NoOp")
"""Kinds of layers that compute nothing: they change the layout or the type."""
_PLACES = (
    "/usr/local/cuda/lib64/libcudart.so",
    "libcudart.so",
    "libcudart.so.12",
    "libcudart.so.13",
)
_TO_DEVICE, _TO_HOST = 1, 2
WITHOUT_PACKAGE = "trtexec runs in processes of its own"
PACKAGE = "sudo apt-get install python3-libnvinfer"


def open_session(model: Path, options: Mapping[str, Any]) -> Session:
    """Build or find the engine of an ONNX file, and open it.

    Args:
        model: The file.
        options: ``io``: ``inputs`` and ``outputs``, each a list of ``name``, ``shape`` (of one
            sample) and ``dtype``; ``precision``, asked by TensorRT 8.6 alone; ``workspace_mib``
            (half of the free memory); ``cache`` (a folder); ``trtexec`` (a path).
    """
    return TensorRTSession(model, read_options(options, OPTIONS))


class TensorRTSession(Session):
    """An engine for one sample at a time."""

    def __init__(self, model: Path, options: Mapping[str, Any]) -> None:
        tool, package = trtexec.find(options["trtexec"]), _package()
        if tool is None and (package is None or not trtpackage.has_gpu()):
            lacking = "no trtexec" if package is None else "no trtexec, and no GPU for the package"
            raise SetupFault(
                f"there is {lacking} on this machine", hint="sudo apt-get install libnvinfer-bin"
            )
        self.version = trtexec.shown(tool.version) if tool else str(package.__version__)
        self.inputs = [_port(port) for port in options["io"]["inputs"]]
        self.outputs = [_port(port) for port in options["io"]["outputs"]]
        begin = time.perf_counter()
        self._tool = tool
        self._undo = ExitStack()
        if outside.recording() is not None:  # a recording's engine must never be taken for one
            scratch = self._undo.enter_context(tempfile.TemporaryDirectory(prefix="edgekd-trt-"))
            options = {**options, "cache": scratch}
        builder = Builder(tool, package, self.version)
        self.engine, self.built = _engine(builder, model, options, self.inputs)
        self._runner = _runner(model, self.engine, self.inputs, self.outputs, builder)
        self.load_s = time.perf_counter() - begin
        # What a second load or a second build changes is no part of it: verify compares it.
        made = tool.path if tool else "python package"
        self.effective = {"threads": 1, "builder": made, "inference": self._runner.name}
        self._times = ""
        self._timed: trtexec.Report | None = None

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs for one sample."""
        return self._runner.run(feeds)

    def bind(self, feeds: Mapping[str, Array]) -> Step:
        """Return a call that makes one inference on `feeds`, which lie on the GPU."""
        return self._runner.bind(feeds)

    def trace(self, runs: int, max_seconds: float) -> list[float] | None:
        """Return what ``trtexec`` times, where no package makes inferences in this process."""
        if isinstance(self._runner, ByPackage) or self._tool is None:
            return None
        with tempfile.TemporaryDirectory(prefix="edgekd-trt-") as scratch:
            times, seconds = Path(scratch) / "times.json", min(max_seconds, TRACE_S)
            command = self._tool.time(self.engine, times, duration_s=seconds, iterations=runs)
            self._timed = self._tool.run(command)
            self._times = times.read_text()
        return trtexec.read_times(self._times)

    def energy(self) -> dict[str, Any] | None:
        """Return why energy is not known without the package; of a recording, what it says."""
        return None if isinstance(self._runner, ByPackage) else self._runner.energy(self._timed)

    def layers(self, feeds: Mapping[str, Array], runs: int) -> list[Layer] | None:
        """Return what ``trtexec`` profiles, on its own random inputs; None without it."""
        del feeds
        if self._tool is None:
            return None
        with tempfile.TemporaryDirectory(prefix="edgekd-trt-") as scratch:
            return self._profiled(self._tool, Path(scratch) / "profile.json", runs)

    def _profiled(self, tool: trtexec.Tool, profile: Path, runs: int) -> list[Layer]:
        tool.run(tool.profile(self.engine, profile, iterations=runs))
        _, rows = trtexec.read_profile(profile.read_text())
        kinds = _kinds(self.engine.with_suffix(".layers.json"))
        return [
            Layer(
                r.name, kinds.get(r.name, ""), r.average_ms if r.median_ms is None else r.median_ms
            )
            for r in rows
        ]

    def evidence(self, folder: Path) -> dict[str, Any]:
        """Write ``build.log``, ``layers.json``, ``profile.json``, ``times.json``, ``model.plan``.

        The engine itself comes along: what was measured is what ships. A recording has none.
        """
        if outside.recording() is None:
            shutil.copy(self.engine, folder / "model.plan")
        for kind in ("log", "layers.json"):
            source = self.engine.with_suffix(f".{kind}")
            if source.exists():
                shutil.copy(source, folder / ("build.log" if kind == "log" else kind))
        if self._timed is not None:
            (folder / "times.json").write_text(self._times)
        return {
            **self.built,
            "warnings": list(self._timed.warnings) if self._timed else [],
            "engine_bytes": self.engine.stat().st_size,
            "layers": _layers(folder / "layers.json"),
            "slowest": self._slowest(folder / "profile.json"),
        }

    def _slowest(self, profile: Path) -> Any:
        """Time every layer; return the few that take most: name, kind, milliseconds."""
        if self._tool is None:
            return {"not_run": "no profile of the layers: there is no trtexec"}
        try:
            layers = self._profiled(self._tool, profile, PROFILED)
        except (Fault, OSError, ValueError) as error:
            return {"not_run": f"no profile of the layers: {error}"}
        layers.sort(key=lambda layer: -layer.ms)
        return [[layer.name, layer.kind, layer.ms] for layer in layers[:SLOWEST]]

    def close(self) -> None:
        """Free what the GPU holds."""
        self._runner.close()
        self._undo.close()


def _kinds(file: Path) -> dict[str, str]:
    """Return the kind of every compiled layer by its name, where the list is kept."""
    try:
        return {layer.name: layer.kind for layer in trtexec.read_layers(file.read_text())}
    except (OSError, ValueError, KeyError):
        return {}


def _layers(file: Path) -> dict[str, Any]:
    """Count an engine's layers, and those that compute in int8, by their kind."""
    try:
        layers = trtexec.read_layers(file.read_text())
    except (OSError, ValueError, KeyError) as error:
        return {"not_run": f"no list of the layers: {error}"}
    moved = sum(layer.kind in MOVES for layer in layers)
    int8 = sum(layer.int8 for layer in layers if layer.kind not in MOVES)
    return {"all": len(layers), "reformats": moved, "int8": int8}


def _port(spec: Mapping[str, Any]) -> Port:
    return Port(spec["name"], (1, *spec["shape"]), str(spec["dtype"]))


def _package() -> Any:
    """Return the package ``tensorrt``; None where it does not import."""
    if outside.recording() is not None:
        return None
    try:
        return importlib.import_module("tensorrt")
    except ImportError:
        return None


@dataclass(frozen=True)
class Builder:
    """What builds engines here: ``trtexec``, else the package."""

    tool: trtexec.Tool | None
    package: Any
    version: str

    def build(self, model: Path, engine: Path, *, log: Path, layers: Path, **asked: Any) -> Any:
        """Build an engine; return the seconds that it took.

        Args:
            model: The ONNX file.
            engine: File to write.
            log: Gets what was said.
            layers: Gets the list of compiled layers.
            **asked: As `edgekd.agent.trtexec.Tool.build` takes it.
        """
        if self.tool is not None:
            command = self.tool.build(model, engine, layers=layers, **asked)
            return self.tool.run(command, log).build_s
        said, begin = trtpackage.Log(), time.perf_counter()
        try:
            plan = trtpackage.build(self.package, model, log=said, **asked)
        finally:
            seconds = time.perf_counter() - begin
            said.lines.append(f"[I] Engine built in {seconds:g} sec.")
            log.write_text("\n".join(said.lines) + "\n")
        engine.write_bytes(plan)
        runtime = self.package.Runtime(self.package.Logger(self.package.Logger.WARNING))
        layers.write_text(trtpackage.layers(self.package, runtime.deserialize_cuda_engine(plan)))
        return seconds


def _engine(
    builder: Builder, model: Path, options: Mapping[str, Any], inputs: list[Port]
) -> tuple[Path, dict[str, Any]]:
    """Return the engine of a model, built when it is not kept, and facts about it."""
    folder = Path(options["cache"] or "~/.cache/edgekd/engines").expanduser()
    digest = hashlib.sha256(model.read_bytes()).hexdigest()[:24]
    stem = f"{digest}-{builder.version}-{options['precision']}"
    engine, log = folder / f"{stem}.plan", folder / f"{stem}.log"
    if engine.exists():
        report = trtexec.read_log(log.read_text(errors="replace")) if log.exists() else None
        return engine, {"build_s": report.build_s if report else None, "kept": True}
    folder.mkdir(parents=True, exist_ok=True)
    workspace = options["workspace_mib"] or _workspace()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        fresh = Path(scratch) / "model.plan"
        build_s = builder.build(
            model,
            fresh,
            log=log,
            layers=folder / f"{stem}.layers.json",
            workspace_mib=workspace,
            cache=folder / f"timing-{builder.version}.cache",
            shapes={port.name: [size or 1 for size in port.shape] for port in inputs},
            precision=options["precision"],
        )
        if not fresh.is_file():
            raise Fault("trtexec says that it passed, and wrote no engine")
        shutil.move(str(fresh), engine)
    return engine, {"build_s": build_s, "kept": False, "workspace_mib": workspace}


def _workspace() -> int:
    """Return half of the memory that is free: the GPU shares it with all that runs."""
    return max(LEAST_WORKSPACE_MIB, (jetson.memory_free_mib() or 4096) // 2)


def _runner(
    model: Path, engine: Path, inputs: list[Port], outputs: list[Port], builder: Builder
) -> ByTrtexec | ByPackage | Played:
    if outside.recording() is not None:
        return Played(model)
    if builder.package is not None:
        return ByPackage(builder.package, engine, inputs, outputs)
    assert builder.tool is not None
    return ByTrtexec(engine, inputs, outputs, builder.tool)


class ByTrtexec:
    """Each sample in a run of ``trtexec``."""

    name = "trtexec, one process a sample"

    def __init__(
        self, engine: Path, inputs: list[Port], outputs: list[Port], tool: trtexec.Tool
    ) -> None:
        self._engine, self._inputs, self._outputs, self._tool = engine, inputs, outputs, tool

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs for one sample."""
        with tempfile.TemporaryDirectory(prefix="edgekd-trt-") as scratch:
            files = {}
            for index, port in enumerate(self._inputs):
                files[port.name] = Path(scratch) / f"in{index}.bin"
                files[port.name].write_bytes(np.ascontiguousarray(feeds[port.name]).tobytes())
            out = Path(scratch) / "out.json"
            self._tool.run(self._tool.infer(self._engine, files, out))
            given = trtexec.read_output(out.read_text())
        return {
            port.name: np.array(given[port.name][1], port.dtype).reshape(given[port.name][0])
            for port in self._outputs
        }

    def bind(self, feeds: Mapping[str, Array]) -> Step:
        """Refuse: the time of a process is not the time of an inference."""
        del feeds
        raise SetupFault(f"{WITHOUT_PACKAGE}: no inference can be timed here", hint=PACKAGE)

    def energy(self, timed: trtexec.Report | None) -> dict[str, Any]:
        """Say why it is not known: where in a process of ``trtexec`` inferences run is not told."""
        del timed
        return {"not_run": f"{WITHOUT_PACKAGE}: {PACKAGE}"}

    def close(self) -> None:
        """Nothing is held."""


class Played:
    """A recording of a board: its engine is none, so ONNX Runtime computes here, and is named."""

    name = "onnxruntime on the host: a recording is played, no board was asked"

    def __init__(self, model: Path) -> None:
        from . import ort

        self._session = ort.open_session(model, {"threads": 1, "level": "basic"})

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return what ONNX Runtime computes."""
        return self._session.run(feeds)

    def bind(self, feeds: Mapping[str, Array]) -> Step:
        """Refuse: the host's time is not the board's."""
        raise SetupFault("a recording is played: nothing is timed")

    def energy(self, timed: trtexec.Report | None) -> dict[str, Any]:
        """Return what the recording's logs say, over the time that its trace took."""
        if timed is None or timed.queries is None or timed.trace_s is None:
            return {"not_run": "the recording's time.log has no line 'Timing trace has …'"}
        idle, busy, interval_s = outside.power_logs()
        return power.of_logs(idle, busy, interval_s, timed.queries, timed.trace_s)

    def close(self) -> None:
        """End the session."""
        self._session.close()


class ByPackage:
    """The package ``tensorrt``, with memory from CUDA's runtime library."""

    name = "python package"

    def __init__(self, trt: Any, engine: Path, inputs: list[Port], outputs: list[Port]) -> None:
        self._cuda = _cuda()
        self._inputs, self._outputs = inputs, outputs
        runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
        self._engine = runtime.deserialize_cuda_engine(engine.read_bytes())
        if self._engine is None:
            raise Fault(
                "TensorRT does not take the engine: it is of another version or GPU",
                hint=f"rm {engine}",
            )
        self._context = self._engine.create_execution_context()
        self._places: dict[str, ctypes.c_void_p] = {}
        self._stream = ctypes.c_void_p()
        self._check(self._cuda.cudaStreamCreate(ctypes.byref(self._stream)), "cudaStreamCreate")
        for port in (*inputs, *outputs):
            place = ctypes.c_void_p()
            self._check(self._cuda.cudaMalloc(ctypes.byref(place), _bytes(port)), "cudaMalloc")
            self._places[port.name] = place
            self._context.set_tensor_address(port.name, place.value)
        for port in inputs:
            self._context.set_input_shape(port.name, tuple(size or 1 for size in port.shape))

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs for one sample."""
        self._put(feeds)
        self._infer()
        results = {}
        for port in self._outputs:
            array = np.empty([size or 1 for size in port.shape], port.dtype)
            self._copy(array.ctypes.data, self._places[port.name].value, array.nbytes, _TO_HOST)
            results[port.name] = array
        return results

    def bind(self, feeds: Mapping[str, Array]) -> Step:
        """Return one inference; its input is copied before, outside of what is timed."""
        kept = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        self._put(kept)
        return self._infer

    def close(self) -> None:
        """Free the GPU's memory."""
        for place in self._places.values():
            self._cuda.cudaFree(place)
        self._places = {}

    def _put(self, feeds: Mapping[str, Array]) -> None:
        for port in self._inputs:
            array = np.ascontiguousarray(feeds[port.name])
            self._copy(self._places[port.name].value, array.ctypes.data, array.nbytes, _TO_DEVICE)

    def _infer(self) -> None:
        if not self._context.execute_async_v3(self._stream.value):
            raise Fault("the inference failed; TensorRT's own words are on standard error")
        self._check(self._cuda.cudaStreamSynchronize(self._stream), "inference")

    def _copy(self, to: Any, source: Any, size: int, kind: int) -> None:
        code = self._cuda.cudaMemcpy(
            ctypes.c_void_p(to), ctypes.c_void_p(source), ctypes.c_size_t(size), kind
        )
        self._check(code, "cudaMemcpy")

    def _check(self, code: int, doing: str) -> None:
        if code:
            raise Fault(f"{doing} failed with CUDA error {code}")


def _cuda() -> Any:
    """Load CUDA's runtime library: JetPack keeps it outside the linker's paths."""
    for place in filter(None, (ctypes.util.find_library("cudart"), *_PLACES)):
        if os.sep in place and not Path(place).exists():
            continue
        try:
            return ctypes.CDLL(place)
        except OSError:
            continue
    raise SetupFault("CUDA's runtime library is not found", hint="is CUDA installed there?")


def _bytes(port: Port) -> ctypes.c_size_t:
    count = int(np.prod([size or 1 for size in port.shape]))
    return ctypes.c_size_t(count * np.dtype(port.dtype).itemsize)
