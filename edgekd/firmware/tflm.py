"""The same model for TensorFlow Lite Micro: an array, the operators to register, the arena.

Nothing here is compiled by edgekd: TensorFlow Lite Micro is not to be had as a package with
sources. The model is run in its kernels, and its arena measured, where its Python package is
installed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping

from edgekd.firmware.program import Program

__all__ = ["arena_of", "flavour"]

_METHODS: Mapping[str, str] = {
    "ABS": "AddAbs",
    "ADD": "AddAdd",
    "AVERAGE_POOL_2D": "AddAveragePool2D",
    "BATCH_MATMUL": "AddBatchMatMul",
    "CONCATENATION": "AddConcatenation",
    "CONV_2D": "AddConv2D",
    "DEPTHWISE_CONV_2D": "AddDepthwiseConv2D",
    "DEQUANTIZE": "AddDequantize",
    "EXP": "AddExp",
    "EXPAND_DIMS": "AddExpandDims",
    "FULLY_CONNECTED": "AddFullyConnected",
    "HARD_SWISH": "AddHardSwish",
    "LEAKY_RELU": "AddLeakyRelu",
    "LOGISTIC": "AddLogistic",
    "MAX_POOL_2D": "AddMaxPool2D",
    "MEAN": "AddMean",
    "MUL": "AddMul",
    "NEG": "AddNeg",
    "PACK": "AddPack",
    "PAD": "AddPad",
    "PADV2": "AddPadV2",
    "QUANTIZE": "AddQuantize",
    "RELU": "AddRelu",
    "RELU6": "AddRelu6",
    "RESHAPE": "AddReshape",
    "RESIZE_BILINEAR": "AddResizeBilinear",
    "RSQRT": "AddRsqrt",
    "SLICE": "AddSlice",
    "SOFTMAX": "AddSoftmax",
    "SPLIT": "AddSplit",
    "SQRT": "AddSqrt",
    "SQUARED_DIFFERENCE": "AddSquaredDifference",
    "SQUEEZE": "AddSqueeze",
    "STRIDED_SLICE": "AddStridedSlice",
    "SUB": "AddSub",
    "SUM": "AddSum",
    "TANH": "AddTanh",
    "TRANSPOSE": "AddTranspose",
}


def flavour(model: bytes, program: Program, prefix: str) -> dict[str, str]:
    """Return the files by path.

    Args:
        model: The ``.tflite`` file, constants inside.
        program: Its program, which knows the operators.
        prefix: Begins the names.
    """
    rows = [", ".join(map(str, model[at : at + 20])) for at in range(0, len(model), 20)]
    name = f"{prefix}_model_data"
    head = "/* The .tflite model with every constant inside: TFLM ignores external ones. */"
    header = [
        head,
        f"#ifndef {prefix.upper()}_MODEL_DATA_H",
        f"#define {prefix.upper()}_MODEL_DATA_H",
        f"#define {prefix.upper()}_MODEL_BYTES {len(model)}u",
        f"extern const unsigned char {name}[{len(model)}];",
        "#endif",
    ]
    source = [
        f'#include "{name}.h"',
        f"alignas(16) const unsigned char {name}[{len(model)}] = {{",
        ",\n".join(rows) + "};",
    ]
    return {
        f"tflm/{name}.h": "\n".join(header) + "\n",
        f"tflm/{name}.cc": "\n".join(source) + "\n",
        "tflm/op_resolver.inc": _resolver(program),
    }


def _resolver(program: Program) -> str:
    kinds = sorted(program.operators)
    lines = [
        "// #include inside a function; needs tensorflow/lite/micro/micro_mutable_op_resolver.h.",
        f"static tflite::MicroMutableOpResolver<{len(kinds)}> op_resolver;",
    ]
    for kind in kinds:
        method = _METHODS.get(kind)
        lines.append(
            f"op_resolver.{method}();" if method else f"#error TFLM has no operator {kind}"
        )
    return "\n".join(lines) + "\n"


_MEASURE = """
import sys
from tflite_micro import runtime
model = sys.stdin.buffer.read()
runtime.Interpreter.from_bytes(model, arena_size=int(sys.argv[1])).print_allocations()
"""


def arena_of(model: bytes, python: str = sys.executable) -> tuple[int | None, str]:
    """Return the bytes of TFLM's arena, or None and why it is not known.

    A process of its own loads the model: on some graphs TFLM aborts.

    Args:
        model: The ``.tflite`` file.
        python: Interpreter that has ``tflite-micro``.
    """
    done = subprocess.run(
        [python, "-c", _MEASURE, str(2**24)],
        input=model,
        capture_output=True,
        timeout=120,
        check=False,
    )
    text = (done.stdout + done.stderr).decode("utf-8", "replace")
    found = re.search(r"Arena allocation total (\d+) bytes", text)
    if found:
        return int(found.group(1)), ""
    if "No module named 'tflite_micro'" in text:
        return None, "tflite-micro is not installed"
    fate = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
    lines = [line for line in text.splitlines() if line.strip() and "Traceback" not in line]
    return None, f"TFLM ended with {fate}: {lines[0] if lines else 'no message'}"
