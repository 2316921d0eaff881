"""NVIDIA's Python package ``tensorrt``, where it builds the engine itself: wheels have no trtexec.

Written for 8.6 to 11: what a version does not have is not asked for.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .faults import Fault
from .trtexec import refusal

_DRIVERS = ("libcuda.so.1", "libcuda.so")
_ERRORS = 5


def has_gpu() -> bool:
    """Tell whether CUDA's driver finds a device: the package without one ends its process."""
    for name in _DRIVERS:
        try:
            cuda = ctypes.CDLL(name)
        except OSError:
            continue
        count = ctypes.c_int(0)
        return not cuda.cuInit(0) and not cuda.cuDeviceGetCount(ctypes.byref(count)) and bool(count)
    return False


@dataclass
class Log:
    """What the builder said: all of it, and its errors."""

    lines: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def take(self, severity: str, message: str) -> None:
        """Keep a message, in the form of trtexec's lines."""
        letter = {"INTERNAL_ERROR": "E"}.get(severity, severity[:1])
        self.lines.append(f"[{letter}] [TRT] {message}")
        if letter == "E":
            self.errors.append(message)


def build(
    trt: Any,
    onnx: Path,
    *,
    workspace_mib: int,
    cache: Path,
    shapes: Mapping[str, Sequence[int]],
    precision: str,
    log: Log,
) -> bytes:
    """Build an engine; see `edgekd.agent.trtexec.Tool.build` for the arguments.

    Args:
        trt: The package.
        onnx: Explicitly typed model.
        workspace_mib: Limit of the memory that a layer may use while it runs.
        cache: Timing cache, read and written.
        shapes: Shape of every input.
        precision: Of the candidate; asked by 8.6 alone.
        log: Gets what the builder says.

    Raises:
        Fault: The model is refused, or no engine was built; out of memory is a `SetupFault`.
    """
    logger = _logger(trt, log)
    builder = trt.Builder(logger)
    network = builder.create_network(_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx.read_bytes()):
        found = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise Fault(f"TensorRT does not take the model: {'; '.join(found[:_ERRORS])}")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if hasattr(config, "set_memory_pool_limit"):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mib * 2**20)
    _allow(trt, config, precision)
    profile = builder.create_optimization_profile()
    for name, shape in shapes.items():
        profile.set_shape(name, tuple(shape), tuple(shape), tuple(shape))
    config.add_optimization_profile(profile)
    with _timing(config, cache):
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise refusal(log.errors, "TensorRT's builder")
    return bytes(plan)


def layers(trt: Any, engine: Any) -> str:
    """Return the list of an engine's layers, as ``--exportLayerInfo`` writes it."""
    inspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _logger(trt: Any, log: Log) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]  # the bindings carry no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            log.take(str(severity).rpartition(".")[2], message)

    return Logger()


def _flags(trt: Any) -> int:
    """Return the bits of a network that is typed by its model; 8.6 has no such bit."""
    kinds = trt.NetworkDefinitionCreationFlag
    names = ("EXPLICIT_BATCH", "STRONGLY_TYPED")
    return sum({1 << int(getattr(kinds, name)) for name in names if hasattr(kinds, name)})


def _allow(trt: Any, config: Any, precision: str) -> None:
    """Allow reduced precisions where the network is not typed by its model."""
    if hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        return
    wanted = {"fp32": (), "fp16": ("FP16",)}.get(precision, ("FP16", "INT8"))
    for name in wanted:
        config.set_flag(getattr(trt.BuilderFlag, name))


@contextmanager
def _timing(config: Any, file: Path) -> Iterator[None]:
    """Read the timing cache before a build, and write it after."""
    if not hasattr(config, "create_timing_cache"):
        yield
        return
    kept = file.read_bytes() if file.exists() else b""
    config.set_timing_cache(config.create_timing_cache(kept), False)
    yield
    file.write_bytes(bytes(config.get_timing_cache().serialize()))
