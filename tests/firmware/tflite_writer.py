"""Writes small .tflite files, so that tests need no converter. Slots as in the schema."""

from __future__ import annotations

import flatbuffers
import numpy as np

CODES = {
    "ADD": 0, "AVERAGE_POOL_2D": 1, "CONCATENATION": 2, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 4,
    "DEQUANTIZE": 6, "FULLY_CONNECTED": 9, "LOGISTIC": 14, "MAX_POOL_2D": 17, "MUL": 18,
    "RELU": 19, "RELU_N1_TO_1": 20, "RELU6": 21, "RESHAPE": 22, "RESIZE_BILINEAR": 23,
    "SOFTMAX": 25, "TANH": 28, "PAD": 34, "GATHER": 36, "TRANSPOSE": 39, "MEAN": 40, "SUB": 41,
    "STRIDED_SLICE": 45, "EXP": 47, "SPLIT": 49, "NEG": 59, "SLICE": 65, "SUM": 74, "SQRT": 75, "RSQRT": 76,
    "PACK": 83, "LEAKY_RELU": 98, "SQUARED_DIFFERENCE": 99, "ABS": 101, "QUANTIZE": 114,
    "HARD_SWISH": 117, "BATCH_MATMUL": 126, "GELU": 150,
}  # fmt: skip
TYPES = {"float32": 0, "int32": 2, "int64": 4, "int16": 7, "int8": 9}
# Union number of the options, and the slots: name → (slot, writer of Builder, default).
_WINDOW = {"padding": (0, "Int8", 0), "stride_w": (1, "Int32", 0), "stride_h": (2, "Int32", 0)}
_ACT = {"activation": (0, "Int8", 0)}
OPTIONS = {
    "CONV_2D": (1, {**_WINDOW, "activation": (3, "Int8", 0), "dilation_w": (4, "Int32", 1), "dilation_h": (5, "Int32", 1)}),
    "DEPTHWISE_CONV_2D": (2, {**_WINDOW, "depth_multiplier": (3, "Int32", 0), "activation": (4, "Int8", 0), "dilation_w": (5, "Int32", 1), "dilation_h": (6, "Int32", 1)}),
    "MAX_POOL_2D": (5, {**_WINDOW, "kernel_w": (3, "Int32", 0), "kernel_h": (4, "Int32", 0), "activation": (5, "Int8", 0)}),
    "AVERAGE_POOL_2D": (5, {**_WINDOW, "kernel_w": (3, "Int32", 0), "kernel_h": (4, "Int32", 0), "activation": (5, "Int8", 0)}),
    "FULLY_CONNECTED": (8, {**_ACT, "keep_num_dims": (2, "Bool", False)}),
    "SOFTMAX": (9, {"beta": (0, "Float32", 0.0)}),
    "CONCATENATION": (10, {"axis": (0, "Int32", 0), "activation": (1, "Int8", 0)}),
    "ADD": (11, {**_ACT, "pot_scale_int16": (1, "Bool", True)}),
    "SUB": (28, {**_ACT, "pot_scale_int16": (1, "Bool", True)}),
    "MUL": (21, _ACT),
    "BATCH_MATMUL": (101, {"adj_x": (0, "Bool", False), "adj_y": (1, "Bool", False)}),
    "MEAN": (27, {"keep_dims": (0, "Bool", False)}),
    "SUM": (27, {"keep_dims": (0, "Bool", False)}),
    "STRIDED_SLICE": (32, {"begin_mask": (0, "Int32", 0), "end_mask": (1, "Int32", 0), "ellipsis_mask": (2, "Int32", 0), "new_axis_mask": (3, "Int32", 0), "shrink_axis_mask": (4, "Int32", 0)}),
    "RESIZE_BILINEAR": (15, {"align_corners": (2, "Bool", False), "half_pixel_centers": (3, "Bool", False)}),
    "GELU": (116, {"approximate": (0, "Bool", False)}),
    "LEAKY_RELU": (75, {"alpha": (0, "Float32", 0.0)}),
    "SPLIT": (35, {"num_splits": (0, "Int32", 0)}),
    "PACK": (59, {"values_count": (0, "Int32", 0), "axis": (1, "Int32", 0)}),
}  # fmt: skip


class Model:
    """Collects tensors and operators, then writes them.

    m = Model(); x = m.input((1, 8), scale=.1); y = m.fc(...); m.output(y); m.bytes()
    """

    def __init__(self):
        self.tensors, self.operators, self.inputs, self.outputs = [], [], [], []

    def tensor(self, shape, dtype="int8", scale=None, zero=0, data=None, axis=0, name=None):
        """Add a tensor; `scale` a number, or one a channel along `axis`."""
        index = len(self.tensors)
        scales = [] if scale is None else list(np.atleast_1d(scale))
        zeros = [zero] * len(scales)
        self.tensors.append((tuple(shape), dtype, scales, zeros, axis, data, name or f"t{index}"))
        return index

    def input(self, shape, dtype="int8", scale=0.1, zero=0):
        index = self.tensor(shape, dtype, scale, zero)
        self.inputs.append(index)
        return index

    def constant(self, data, scale=None, zero=0, axis=0):
        return self.tensor(
            data.shape, data.dtype.name, scale, zero, np.ascontiguousarray(data), axis
        )

    def op(self, kind, inputs, outputs, **options):
        outputs = [outputs] if isinstance(outputs, int) else list(outputs)
        self.operators.append((kind, list(inputs), outputs, options))
        return outputs[0]

    def shape(self, index):
        return self.tensors[index][0]

    def output(self, index):
        self.outputs.append(index)

    def bytes(self, external_from=None):
        """Return the file; constants of at least `external_from` bytes lie behind the FlatBuffer."""
        b = flatbuffers.Builder(1024)
        buffers, outside = [None], []
        tensors = [self._tensor(b, t, buffers) for t in self.tensors]
        kinds = list(dict.fromkeys(kind for kind, *_ in self.operators))
        operators = [self._operator(b, kinds, op) for op in self.operators]
        main = b.CreateString("main")
        parts = [
            self._offsets(b, tensors),
            self._ints(b, self.inputs),
            self._ints(b, self.outputs),
            self._offsets(b, operators),
        ]
        b.StartObject(5)
        for slot, part in enumerate([*parts, main]):
            b.PrependUOffsetTRelativeSlot(slot, part, 0)
        subgraphs = self._offsets(b, [b.EndObject()])
        codes = []
        for kind in kinds:
            b.StartObject(4)
            b.PrependInt8Slot(0, min(CODES[kind], 127), 0)
            b.PrependInt32Slot(2, 4 if kind in ("CONV_2D", "FULLY_CONNECTED") else 2, 1)
            b.PrependInt32Slot(3, CODES[kind], 0)
            codes.append(b.EndObject())
        codes = self._offsets(b, codes)
        written = []
        for data in buffers:
            raw = b"" if data is None else data.tobytes()
            external = external_from is not None and len(raw) >= external_from
            vector = 0
            if raw and not external:
                b.StartVector(1, len(raw), 16)
                b.head -= len(raw)
                b.Bytes[b.head : b.head + len(raw)] = raw
                vector = b.EndVector()
            b.StartObject(3)
            b.PrependUOffsetTRelativeSlot(0, vector, 0)
            if external:
                b.PrependUint64Slot(1, 0xFFFF0000 + len(outside), 0)
                b.PrependUint64Slot(2, len(raw), 0)
                outside.append(raw)
            written.append(b.EndObject())
        written = self._offsets(b, written)
        b.StartObject(8)
        b.PrependUint32Slot(0, 3, 0)
        b.PrependUOffsetTRelativeSlot(1, codes, 0)
        b.PrependUOffsetTRelativeSlot(2, subgraphs, 0)
        b.PrependUOffsetTRelativeSlot(4, written, 0)
        b.Finish(b.EndObject(), b"TFL3")
        content = bytes(b.Output())
        for index, raw in enumerate(outside):
            content += bytes(-len(content) % 16)
            mark = (0xFFFF0000 + index).to_bytes(8, "little")
            assert content.count(mark) == 1
            content = content.replace(mark, len(content).to_bytes(8, "little")) + raw
        return content

    def _tensor(self, b, tensor, buffers):
        shape, dtype, scales, zeros, axis, data, name = tensor
        buffer = 0
        if data is not None:
            buffers.append(data)
            buffer = len(buffers) - 1
        quantization = 0
        if scales:
            s = b.CreateNumpyVector(np.array(scales, np.float32))
            z = b.CreateNumpyVector(np.array(zeros, np.int64))
            b.StartObject(7)
            b.PrependUOffsetTRelativeSlot(2, s, 0)
            b.PrependUOffsetTRelativeSlot(3, z, 0)
            b.PrependInt32Slot(6, axis, 0)
            quantization = b.EndObject()
        dims, label = self._ints(b, shape), b.CreateString(name)
        b.StartObject(10)
        b.PrependUOffsetTRelativeSlot(0, dims, 0)
        b.PrependInt8Slot(1, TYPES[dtype], 0)
        b.PrependUint32Slot(2, buffer, 0)
        b.PrependUOffsetTRelativeSlot(3, label, 0)
        b.PrependUOffsetTRelativeSlot(4, quantization, 0)
        return b.EndObject()

    def _operator(self, b, kinds, op):
        kind, inputs, outputs, options = op
        union, written = 0, 0
        if kind in OPTIONS:
            union, slots = OPTIONS[kind]
            b.StartObject(8)
            for name, (slot, form, default) in slots.items():
                getattr(b, f"Prepend{form}Slot")(slot, options.get(name, default), default)
            written = b.EndObject()
        ins, outs = self._ints(b, inputs), self._ints(b, outputs)
        b.StartObject(6)
        b.PrependUint32Slot(0, kinds.index(kind), 0)
        b.PrependUOffsetTRelativeSlot(1, ins, 0)
        b.PrependUOffsetTRelativeSlot(2, outs, 0)
        b.PrependUint8Slot(3, union, 0)
        b.PrependUOffsetTRelativeSlot(4, written, 0)
        return b.EndObject()

    @staticmethod
    def _ints(b, values):
        return b.CreateNumpyVector(np.array(values, np.int32))

    @staticmethod
    def _offsets(b, offsets):
        b.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            b.PrependUOffsetTRelative(offset)
        return b.EndVector()
