"""``.tflite`` files: reading one, and moving its constants inside.

The format is the FlatBuffers schema ``tensorflow/compiler/mlir/lite/schema/schema.fbs``; slots
below are positions of fields in its tables.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import UsageError, VerifyError
from edgekd.firmware.flatbuffer import Table, root
from edgekd.firmware.graph import Graph, Operator, Quantization, Tensor

__all__ = ["OPERATORS", "external_buffers", "inline_buffers", "read_tflite", "replace_constant"]

IDENTIFIER = b"TFL3"

_TYPES = {
    0: "float32",
    1: "float16",
    2: "int32",
    3: "uint8",
    4: "int64",
    6: "bool",
    7: "int16",
    9: "int8",
    10: "float64",
}

OPERATORS: Mapping[int, str] = {
    0: "ADD",
    1: "AVERAGE_POOL_2D",
    2: "CONCATENATION",
    3: "CONV_2D",
    4: "DEPTHWISE_CONV_2D",
    6: "DEQUANTIZE",
    9: "FULLY_CONNECTED",
    14: "LOGISTIC",
    17: "MAX_POOL_2D",
    18: "MUL",
    19: "RELU",
    20: "RELU_N1_TO_1",
    21: "RELU6",
    22: "RESHAPE",
    23: "RESIZE_BILINEAR",
    25: "SOFTMAX",
    28: "TANH",
    32: "CUSTOM",
    34: "PAD",
    36: "GATHER",
    39: "TRANSPOSE",
    40: "MEAN",
    41: "SUB",
    42: "DIV",
    43: "SQUEEZE",
    45: "STRIDED_SLICE",
    47: "EXP",
    49: "SPLIT",
    55: "MAXIMUM",
    57: "MINIMUM",
    59: "NEG",
    60: "PADV2",
    65: "SLICE",
    70: "EXPAND_DIMS",
    74: "SUM",
    75: "SQRT",
    76: "RSQRT",
    78: "POW",
    82: "REDUCE_MAX",
    83: "PACK",
    88: "UNPACK",
    98: "LEAKY_RELU",
    99: "SQUARED_DIFFERENCE",
    101: "ABS",
    114: "QUANTIZE",
    117: "HARD_SWISH",
    126: "BATCH_MATMUL",
    130: "BROADCAST_TO",
    150: "GELU",
}

_WINDOW = {"padding": (0, "b", 0), "stride_w": (1, "i", 0), "stride_h": (2, "i", 0)}
_ACTIVATION = {"activation": (0, "b", 0)}
# Name of an option → (slot, format, default).
_OPTIONS: Mapping[str, Mapping[str, tuple[int, str, float]]] = {
    "CONV_2D": {
        **_WINDOW,
        "activation": (3, "b", 0),
        "dilation_w": (4, "i", 1),
        "dilation_h": (5, "i", 1),
    },
    "DEPTHWISE_CONV_2D": {
        **_WINDOW,
        "activation": (4, "b", 0),
        "dilation_w": (5, "i", 1),
        "dilation_h": (6, "i", 1),
    },
    "MAX_POOL_2D": {
        **_WINDOW,
        "kernel_w": (3, "i", 0),
        "kernel_h": (4, "i", 0),
        "activation": (5, "b", 0),
    },
    "FULLY_CONNECTED": {**_ACTIVATION, "weights_format": (1, "b", 0)},
    "SOFTMAX": {"beta": (0, "f", 0.0)},
    "CONCATENATION": {"axis": (0, "i", 0), "activation": (1, "b", 0)},
    "ADD": _ACTIVATION,
    "SUB": _ACTIVATION,
    "MUL": _ACTIVATION,
    "BATCH_MATMUL": {"adj_x": (0, "?", 0), "adj_y": (1, "?", 0)},
    "STRIDED_SLICE": {
        "begin_mask": (0, "i", 0),
        "end_mask": (1, "i", 0),
        "ellipsis_mask": (2, "i", 0),
        "new_axis_mask": (3, "i", 0),
        "shrink_axis_mask": (4, "i", 0),
        "offset": (5, "?", 0),
    },
    "RESIZE_BILINEAR": {"align_corners": (2, "?", 0), "half_pixel_centers": (3, "?", 0)},
    "GELU": {"approximate": (0, "?", 0)},
    "LEAKY_RELU": {"alpha": (0, "f", 0.0)},
    "SPLIT": {"num_splits": (0, "i", 0)},
    "PACK": {"axis": (1, "i", 0)},
}
_SAME_OPTIONS = {"AVERAGE_POOL_2D": "MAX_POOL_2D"}


def read_tflite(content: bytes) -> Graph:
    """Read the one subgraph of a ``.tflite`` file.

    Constants are found whether they lie in the FlatBuffer or, as the quantiser writes them from
    256 KiB on, behind it.

    Args:
        content: The file.

    Raises:
        VerifyError: The file is damaged.
        UsageError: It has several subgraphs.
    """
    model = root(content, IDENTIFIER)
    subgraphs = model.tables(2)
    if len(subgraphs) != 1:
        raise UsageError(
            f"the model has {len(subgraphs)} subgraphs, firmware has one",
            hint="export without control flow (while, if, calls)",
        )
    subgraph = subgraphs[0]
    buffers = model.tables(4)
    tensors = tuple(
        _tensor(index, table, buffers, content) for index, table in enumerate(subgraph.tables(0))
    )
    codes = [_code(table) for table in model.tables(1)]
    operators = tuple(
        _operator(index, table, codes) for index, table in enumerate(subgraph.tables(3))
    )
    inputs, outputs = (tuple(int(i) for i in subgraph.array(slot, "i4")) for slot in (1, 2))
    _check_indices(tensors, operators, inputs + outputs)
    return Graph(tensors, operators, inputs, outputs, _signature(model))


def _check_indices(
    tensors: tuple[Tensor, ...], operators: tuple[Operator, ...], ends: tuple[int, ...]
) -> None:
    used = [*ends, *(i for operator in operators for i in operator.inputs + operator.outputs)]
    wrong = [index for index in used if not -1 <= index < len(tensors)]
    if wrong:
        raise VerifyError(f"the file is damaged: it names tensor {wrong[0]} of {len(tensors)}")


def _code(table: Table) -> tuple[int, str, int]:
    """Return builtin code, custom name and version of an operator code."""
    code = max(table.scalar(0, "b"), table.scalar(3, "i"))
    return code, table.text(1), table.scalar(2, "i", 1)


def _operator(index: int, table: Table, codes: list[tuple[int, str, int]]) -> Operator:
    number = table.scalar(0, "I")
    if number >= len(codes):
        raise VerifyError(f"the file is damaged: operator {index} has code {number}")
    code, custom, version = codes[number]
    kind = custom or OPERATORS.get(code, f"BUILTIN_{code}")
    wanted = _OPTIONS.get(_SAME_OPTIONS.get(kind, kind), {})
    options = table.table(4)
    values = {
        name: options.scalar(slot, form, default) if options else default
        for name, (slot, form, default) in wanted.items()
    }
    inputs, outputs = (tuple(int(i) for i in table.array(slot, "i4")) for slot in (1, 2))
    return Operator(index, kind, inputs, outputs, values, version)


def _tensor(index: int, table: Table, buffers: list[Table], content: bytes) -> Tensor:
    kind = _TYPES.get(table.scalar(1, "b"), f"type {table.scalar(1, 'b')}")
    shape = tuple(int(size) for size in table.array(0, "i4"))
    number = table.scalar(2, "I")
    if number >= len(buffers):
        raise VerifyError(f"the file is damaged: tensor {index} has buffer {number}")
    raw = _constant(buffers[number], content) if number else None
    data = None
    if raw is not None and kind in _TYPES.values():
        data = _array(index, raw, kind, shape)
    return Tensor(index, table.text(3), shape, kind, _quantization(table.table(4)), data)


def _array(index: int, raw: bytes, kind: str, shape: tuple[int, ...]) -> NDArray[Any]:
    dtype = np.dtype(kind).newbyteorder("<")
    wanted = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if len(raw) != wanted:
        raise VerifyError(f"the file is damaged: tensor {index} has {len(raw)} of {wanted} bytes")
    return np.frombuffer(raw, dtype).reshape(shape).astype(kind)


def _constant(buffer: Table, content: bytes) -> bytes | None:
    offset, size = buffer.scalar(1, "Q"), buffer.scalar(2, "Q")
    if offset > 1:
        if offset + size > len(content):
            raise VerifyError(f"the file is cut off: it has no byte {offset + size}")
        return content[offset : offset + size]
    data = buffer.array(0, "u1")
    return data.tobytes() if data.size else None


def _quantization(table: Table | None) -> Quantization | None:
    if table is None:
        return None
    scales = tuple(float(scale) for scale in table.array(2, "f4"))
    if not scales:
        return None
    zeros = tuple(int(zero) for zero in table.array(3, "i8")) or (0,) * len(scales)
    return Quantization(scales, zeros, table.scalar(6, "i"))


def _signature(model: Table) -> dict[int, str]:
    signatures = model.tables(7)
    if not signatures:
        return {}
    maps = signatures[0].tables(0) + signatures[0].tables(1)
    return {entry.scalar(1, "I"): entry.text(0) for entry in maps}


# --- external buffers --------------------------------------------------------------------------


def external_buffers(content: bytes) -> int:
    """Return how many constants lie behind the FlatBuffer.

    TensorFlow Lite Micro ignores where they lie and computes garbage, without an error.
    """
    buffers = root(content, IDENTIFIER).tables(4)
    return sum(buffer.scalar(1, "Q") > 1 for buffer in buffers)


def inline_buffers(content: bytes) -> bytes:
    """Return the same model with every constant inside the FlatBuffer.

    New tables are put behind the old ones (offsets point forward) and the vector of buffers is
    made to point at them; a file without external constants comes back as it is.

    Raises:
        VerifyError: The file is damaged.
    """
    model = root(content, IDENTIFIER)
    places, buffers = model.elements(4), model.tables(4)
    outside = [i for i, buffer in enumerate(buffers) if buffer.scalar(1, "Q") > 1]
    if not outside:
        return content
    end = min(buffers[i].scalar(1, "Q") for i in outside)
    made = bytearray(content[:end])
    for index in outside:
        data = _constant(buffers[index], content)
        assert data is not None
        # vtable (6 bytes, padded to 8), table (8), length (4), data aligned to 16.
        made += bytes(-(len(made) + 20) % 16)
        vtable = len(made)
        made += struct.pack("<HHHH", 6, 8, 4, 0)
        table = len(made)
        made += struct.pack("<iII", table - vtable, 4, len(data)) + data
        struct.pack_into("<I", made, places[index], table - places[index])
    return bytes(made)


def replace_constant(content: bytes, index: int, values: NDArray[Any]) -> bytes:
    """Return the same model with other values of one constant, of the same type and size.

    Args:
        content: The file, constants inside.
        index: Of the tensor; one whose buffer no other tensor has.
        values: The new ones.

    Raises:
        VerifyError: The file is damaged.
        ValueError: The constant is shared, or of another size.
    """
    model = root(content, IDENTIFIER)
    tensors = model.tables(2)[0].tables(0)
    numbers = [tensor.scalar(2, "I") for tensor in tensors]
    buffer = model.tables(4)[numbers[index]]
    raw = values.astype(values.dtype.newbyteorder("<")).tobytes()
    if numbers.count(numbers[index]) > 1 or buffer.array(0, "u1").size != len(raw):
        raise ValueError(f"the constant of tensor {index} is shared, or not of {len(raw)} bytes")
    start = buffer.start(0)
    return content[:start] + raw + content[start + len(raw) :]
