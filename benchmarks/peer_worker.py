"""One quantiser with its own defaults; started by path in the environment that has it.

    python peer_worker.py TOOL MODEL SAMPLES.npz OUT

It imports the standard library, numpy and the tool, nothing of edgekd.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Rows = list[dict[str, Any]]


def onnxruntime(model: str, rows: Rows, out: str) -> None:
    """``quantize_static`` after the pre-processing that its documentation asks for."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows = iter(rows)

        def get_next(self) -> Any:
            return next(self.rows, None)

    with tempfile.TemporaryDirectory() as folder:
        prepared = str(Path(folder) / "prepared.onnx")
        quant_pre_process(model, prepared)
        quantize_static(prepared, str(Path(out) / "model.onnx"), Reader())


def nncf(model: str, rows: Rows, out: str) -> None:
    """``nncf.quantize`` with nothing but the samples."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import nncf as tool
    import openvino as ov

    network = ov.convert_model(model)
    ov.save_model(tool.quantize(network, tool.Dataset(rows)), str(Path(out) / "model.xml"))


def litert(model: str, rows: Rows, out: str) -> None:
    """Static int8 weights and activations of every operator, as the tool calibrates by itself."""
    from ai_edge_litert.interpreter import Interpreter
    from litert_quantizer import quantizer, recipe

    worker = quantizer.Quantizer(model, recipe.static_wi8_ai8())
    name = next(iter(Interpreter(model).get_signature_list()))
    ranges = worker.calibrate({name: rows}, num_threads=1)
    made = worker.quantize(ranges, enable_progress_report=False, enable_progress_bar=False)
    (Path(out) / "model.tflite").write_bytes(bytes(made.quantized_model))


TOOLS: Mapping[str, Callable[[str, Rows, str], None]] = {
    "onnxruntime": onnxruntime,
    "nncf": nncf,
    "litert": litert,
}


def main() -> None:
    """Do what the command line says."""
    tool, model, samples, out = sys.argv[1:]
    with np.load(samples, allow_pickle=False) as archive:
        feeds = {name: archive[name] for name in archive.files}
    count = min(len(values) for values in feeds.values())
    rows = [{name: values[i : i + 1] for name, values in feeds.items()} for i in range(count)]
    TOOLS[tool](model, rows, out)


if __name__ == "__main__":
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    main()
