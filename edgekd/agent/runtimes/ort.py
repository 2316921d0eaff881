"""ONNX Runtime."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from .. import quiet
from ..faults import SetupFault, UsageFault
from .options import Option, positive, read_options
from .session import Layer, Port, Session, Step

if TYPE_CHECKING:
    from .session import Array

ort = quiet.import_onnxruntime()

OPTIONS = {
    "threads": Option(int, 1),
    "level": Option(str, "all", tuple(quiet.LEVELS)),
    "static_batch": Option(int, None),
    "providers": Option(list, ["CPUExecutionProvider"]),
    "fold_weights": Option(bool, False),
}
DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
}
_NO_INTEGERS = "session.disable_quant_qdq"
_SPINNING = "session.intra_op.allow_spinning"


def open_session(model: Path, options: Mapping[str, Any]) -> Session:
    """Open an ONNX or ORT-format model.

    Args:
        model: The file.
        options: ``threads`` (1), graph optimisation ``level`` (all), ``providers`` (the CPU's)
            ``static_batch``, which fixes a dynamic first dimension before optimisation, and
            ``fold_weights`` (false), which turns weights stored in 8 bits into floats on loading.
    """
    return OrtSession(model, read_options(options, OPTIONS))


class OrtSession(Session):
    """An ``InferenceSession`` with one pool of threads that does not spin."""

    version = ort.__version__

    def __init__(self, model: Path, options: Mapping[str, Any]) -> None:
        self._model, self._options = model, options
        settings = _settings(model, options)
        start = time.perf_counter()
        self._session = ort.InferenceSession(
            str(model), settings, providers=_available(options["providers"])
        )
        self.load_s = time.perf_counter() - start
        self.inputs = [_port(port) for port in self._session.get_inputs()]
        self.outputs = [_port(port) for port in self._session.get_outputs()]
        self._names = [port.name for port in self.outputs]
        self.effective = _effective(self._session, options)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs for one batch."""
        results = self._session.run(self._names, dict(feeds))
        return dict(zip(self._names, results, strict=True))

    def bind(self, feeds: Mapping[str, Array]) -> Step:
        """Return one ``InferenceSession.run`` on `feeds`."""
        return partial(self._session.run, self._names, dict(feeds))

    def layers(self, feeds: Mapping[str, Array], runs: int) -> list[Layer]:
        """Profile a second session of the same settings; only those made for it can."""
        settings = _settings(self._model, self._options)
        settings.enable_profiling = True
        with tempfile.TemporaryDirectory(prefix="edgekd-layers-") as scratch:
            settings.profile_file_prefix = str(Path(scratch) / "ort")
            session = ort.InferenceSession(
                str(self._model), settings, providers=_available(self._options["providers"])
            )
            for _ in range(1 + runs):
                session.run(self._names, dict(feeds))
            return read_profile(Path(session.end_profiling()).read_text(), runs)


def read_profile(text: str, runs: int) -> list[Layer]:
    """Read ONNX Runtime's profile of a first inference, which is left out, and `runs` more.

    Args:
        text: JSON list of events; a node's has the category ``Node`` and microseconds.
        runs: Inferences after the first.
    """
    spent: dict[tuple[str, str], list[int]] = {}
    for event in json.loads(text):
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            key = name.removesuffix("_kernel_time"), str(event["args"].get("op_name", ""))
            spent.setdefault(key, []).append(event["dur"])
    return [Layer(name, kind, median(each[-runs:]) / 1e3) for (name, kind), each in spent.items()]


def _settings(model: Path, options: Mapping[str, Any]) -> Any:
    positive("threads", options["threads"])
    positive("static_batch", options["static_batch"])
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options["threads"]
    settings.inter_op_num_threads = 1
    settings.add_session_config_entry(_SPINNING, "0")
    settings.graph_optimization_level = getattr(
        ort.GraphOptimizationLevel, quiet.LEVELS[options["level"]]
    )
    if options["fold_weights"]:
        settings.add_session_config_entry(_NO_INTEGERS, "1")
    if options["static_batch"] is not None:
        for name in _batch_symbols(model):
            settings.add_free_dimension_override_by_name(name, options["static_batch"])
    return settings


def _batch_symbols(model: Path) -> set[str]:
    """Return the names of dynamic first dimensions, read from an unoptimised session.

    Raises:
        UsageFault: A first dimension is dynamic and has no name to fix it by.
    """
    probe = quiet.open_onnx(model, level="disable")
    first = [(port.name, port.shape[0]) for port in probe.get_inputs() if port.shape]
    for name, size in first:
        if size is None:
            raise UsageFault(f"input {name!r} has a dynamic batch without a name; name it")
    return {size for _, size in first if isinstance(size, str)}


def _available(wanted: list[str]) -> list[str]:
    """Refuse providers that this build lacks: the library only warns and takes the CPU."""
    found = ort.get_available_providers()
    missing = [name for name in wanted if name not in found]
    if missing:
        raise SetupFault(f"this ONNX Runtime lacks {missing}; it has {found}")
    return wanted


def _port(port: Any) -> Port:
    shape = tuple(size if isinstance(size, int) else None for size in port.shape)
    plain = port.type.removeprefix("tensor(").removesuffix(")")
    return Port(port.name, shape, DTYPES.get(port.type, plain))


def _effective(session: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what runs; `get_available_providers` only says what was compiled in."""
    settings, running = session.get_session_options(), session.get_providers()
    silent = [name for name in options["providers"] if name not in running]
    if silent:
        raise SetupFault(f"asked for {silent}, but the session runs on {running}")
    return {
        "providers": running,
        "level": settings.graph_optimization_level.name,
        "threads": settings.intra_op_num_threads,
        "inter_op_threads": settings.inter_op_num_threads,
        "spinning": settings.get_session_config_entry(_SPINNING) != "0",
        "static_batch": options["static_batch"],
        "fold_weights": options["fold_weights"],
    }
