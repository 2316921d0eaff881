"""Compile one ONNX file with TensorRT for RTX and print one JSON line; run as a script.

Alone in its process, and free of edgekd: what it loads may crash.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import tensorrt_rtx as trt

TARGET = "SM86"


class Log(trt.ILogger):  # type: ignore[misc]  # the bindings carry no types
    """Keeps what the builder says."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.layers = ""
        self.bad: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        """Take one message; the list of layers comes as one."""
        if message.lstrip().startswith("Layers:"):
            self.layers = message
        if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
            self.bad.append(message)


def main(model: Path) -> dict[str, Any]:
    """Parse and compile; return what is printed."""
    log = Log()
    facts: dict[str, Any] = {"version": trt.__version__, "target": TARGET}
    builder = trt.Builder(log)
    flag = int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(1 << flag)
    parser = trt.OnnxParser(network, log)
    start = time.perf_counter()
    if not parser.parse(model.read_bytes()):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        return facts | {"status": "failed", "errors": [_error(error) for error in errors]}
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, TARGET), 0)
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        port = network.get_input(index)
        shape = [1 if size < 0 else size for size in port.shape]
        profile.set_shape(port.name, shape, shape, shape)
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    facts["seconds"] = round(time.perf_counter() - start, 2)
    if engine is None:
        text = "; ".join(log.bad)[-600:] or "the compiler gave no engine"
        blank = {"node": "", "operator": "", "code": "BUILD"}
        return facts | {"status": "failed", "errors": [blank | {"text": text}]}
    return facts | {"status": "passed", "engine_bytes": engine.nbytes, "layers": log.layers}


def _error(error: Any) -> dict[str, str]:
    code = str(error.code()).rpartition(".")[2]
    node, operator = error.node_name(), error.node_operator()
    return {
        "node": node,
        "operator": operator,
        "code": code,
        "text": f"{node} ({operator}): {code}: {error.desc()}"[:400],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))) + "\n")
