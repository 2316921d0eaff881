"""Small quantised networks: written operator by operator, calibrated on random samples.

Every method computes its float values for some samples, so that scales are those that a real
calibration would find.
"""

from __future__ import annotations

import math

import numpy as np

from tests.firmware.tflite_writer import Model

SAMPLES = 4
RELU, RELU6 = 1, 3


class Net(Model):
    def __init__(self, seed=0, dtype="int8"):
        super().__init__()
        self.rng = np.random.default_rng(seed)
        self.dtype = dtype
        self.real = {}

    # --- tensors ---

    def quantised(self, values, dtype=None, zero=None, scale=None):
        """Add an activation tensor whose range is that of its float values (samples, …)."""
        dtype = dtype or self.dtype
        low, high = min(float(values.min()), 0.0), max(float(values.max()), 1e-3)
        if scale is None:
            if dtype == "int8":
                scale = (high - low) / 255
                zero = int(np.clip(round(-128 - low / scale), -128, 127))
            else:
                scale, zero = max(high, -low) / 32767, 0
        index = self.tensor(values.shape[1:], dtype, float(np.float32(scale)), zero)
        self.real[index] = values
        return index

    def feed(self, *shape, spread=1.0):
        index = self.quantised(self.rng.normal(0, spread, (SAMPLES, *shape)))
        self.inputs.append(index)
        return index

    def fixed(self, values):
        """Add a constant of the activations' type."""
        values = np.asarray(values, np.float64)
        index = self.quantised(values[None])
        shape, dtype, scales, zeros, axis, _, name = self.tensors[index]
        info = np.iinfo(dtype)
        codes = np.clip(np.round(values / scales[0]) + zeros[0], info.min, info.max).astype(dtype)
        self.tensors[index] = (shape, dtype, scales, zeros, axis, codes, name)
        return index

    def scale(self, index):
        return self.tensors[index][2][0]

    def kind(self, index):
        return self.tensors[index][1]

    def weights(self, values, axis, per_channel=True):
        axes = tuple(i for i in range(values.ndim) if i != axis) if per_channel else None
        scale = np.maximum(np.abs(values).max(axis=axes), 1e-6) / 127
        shape = [1] * values.ndim
        if per_channel:
            shape[axis] = -1
        codes = np.clip(np.round(values / scale.reshape(shape)), -127, 127).astype(np.int8)
        return self.constant(codes, np.float32(scale), 0, axis), np.atleast_1d(np.float32(scale))

    def bias(self, values, source, scales):
        scale = np.float32(self.scale(source)) * scales
        wide = self.dtype == "int16"
        codes = np.round(values / scale).astype(np.int64 if wide else np.int32)
        return self.constant(codes, scale, 0, 0)

    # --- products ---

    def dense(self, x, channels, activation=0, per_channel=True, bias=True):
        depth = self.shape(x)[-1]
        w = self.rng.normal(0, 1 / math.sqrt(depth), (channels, depth))
        b = self.rng.normal(0, 0.1, channels)
        y = self.real[x] @ w.T + (b if bias else 0)
        y = np.maximum(y, 0) if activation == RELU else y
        weights, scales = self.weights(w, 0, per_channel)
        inputs = [x, weights, self.bias(b, x, scales)] if bias else [x, weights]
        return self.op(
            "FULLY_CONNECTED", inputs, self.quantised(y), activation=activation, keep_num_dims=True
        )

    def _patches(self, values, kernel, stride, dilation, same, around=0.0):
        values = values[:, 0]
        _, h, w, _ = values.shape
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        if same:
            out = [-(-n // st) for n, st in zip((h, w), stride, strict=True)]
            total = [
                max((o - 1) * st + r - n, 0)
                for o, st, r, n in zip(out, stride, reach, (h, w), strict=True)
            ]
        else:
            out = [(n - r) // st + 1 for n, r, st in zip((h, w), reach, stride, strict=True)]
            total = [0, 0]
        pads = [(t // 2, t - t // 2) for t in total]
        padded = np.pad(values, ((0, 0), *pads, (0, 0)), constant_values=around)
        rows = [np.arange(out[0])[:, None] * stride[0] + np.arange(kernel[0]) * dilation[0]]
        columns = np.arange(out[1])[:, None] * stride[1] + np.arange(kernel[1]) * dilation[1]
        return padded[:, rows[0][:, None, :, None], columns[None, :, None, :]]

    def conv(
        self, x, channels, kernel=(1, 1), stride=(1, 1), dilation=(1, 1), same=True, activation=0
    ):
        c = self.shape(x)[-1]
        w = self.rng.normal(0, 1 / math.sqrt(c * kernel[0] * kernel[1]), (channels, *kernel, c))
        b = self.rng.normal(0, 0.1, channels)
        y = (
            np.einsum(
                "shwijc,oijc->shwo", self._patches(self.real[x], kernel, stride, dilation, same), w
            )[:, None]
            + b
        )
        y = np.maximum(y, 0) if activation else y
        y = np.minimum(y, 6) if activation == RELU6 else y
        weights, scales = self.weights(w, 0)
        return self.op(
            "CONV_2D", [x, weights, self.bias(b, x, scales)], self.quantised(y), activation=activation,
            padding=0 if same else 1, stride_h=stride[0], stride_w=stride[1], dilation_h=dilation[0], dilation_w=dilation[1],
        )  # fmt: skip

    def depthwise(self, x, several=1, kernel=(3, 3), stride=(1, 1), same=True, activation=0):
        c = self.shape(x)[-1]
        w = self.rng.normal(0, 1 / math.sqrt(kernel[0] * kernel[1]), (1, *kernel, c * several))
        b = self.rng.normal(0, 0.1, c * several)
        patches = np.repeat(
            self._patches(self.real[x], kernel, stride, (1, 1), same), several, axis=-1
        )
        y = (patches * w).sum(axis=(3, 4))[:, None] + b
        y = np.maximum(y, 0) if activation else y
        weights, scales = self.weights(w, 3)
        return self.op(
            "DEPTHWISE_CONV_2D", [x, weights, self.bias(b, x, scales)], self.quantised(y), activation=activation,
            padding=0 if same else 1, stride_h=stride[0], stride_w=stride[1], depth_multiplier=several,
        )  # fmt: skip

    def matmul(self, a, b, adj_x=False, adj_y=False):
        left, right = self.real[a], self.real[b]
        left = left.swapaxes(-1, -2) if adj_x else left
        right = right.swapaxes(-1, -2) if adj_y else right
        return self.op(
            "BATCH_MATMUL", [a, b], self.quantised(left @ right), adj_x=adj_x, adj_y=adj_y
        )

    # --- elements ---

    def binary(self, kind, a, b, activation=0):
        function = {
            "ADD": np.add, "SUB": np.subtract, "MUL": np.multiply,
            "SQUARED_DIFFERENCE": lambda x, y: (x - y) ** 2,
        }[kind]  # fmt: skip
        y = function(self.real[a], self.real[b])
        y = np.broadcast_to(y, (SAMPLES, *y.shape[1:])).copy()
        y = np.maximum(y, 0) if activation else y
        options = {} if kind == "SQUARED_DIFFERENCE" else {"activation": activation}
        return self.op(kind, [a, b], self.quantised(y), **options)

    def unary(self, kind, x, **options):
        function = {
            "LOGISTIC": lambda v: 1 / (1 + np.exp(-v)), "TANH": np.tanh, "RELU": lambda v: np.maximum(v, 0),
            "RELU6": lambda v: np.clip(v, 0, 6), "RELU_N1_TO_1": lambda v: np.clip(v, -1, 1),
            "EXP": np.exp, "NEG": np.negative, "ABS": np.abs, "GELU": lambda v: v / (1 + np.exp(-1.702 * v)),
            "HARD_SWISH": lambda v: v * np.clip(v + 3, 0, 6) / 6, "LEAKY_RELU": lambda v: np.where(v > 0, v, 0.1 * v),
            "RSQRT": lambda v: 1 / np.sqrt(np.maximum(v, 0.05)), "SQRT": lambda v: np.sqrt(np.maximum(v, 0)),
        }[kind]  # fmt: skip
        y = function(self.real[x])
        if kind == "LOGISTIC":
            out = self.quantised(
                y,
                scale=1 / 256 if self.dtype == "int8" else 1 / 32768,
                zero=-128 if self.dtype == "int8" else 0,
            )
        elif kind == "TANH":
            out = self.quantised(y, scale=1 / 128 if self.dtype == "int8" else 1 / 32768, zero=0)
        else:
            out = self.quantised(y)
        return self.op(kind, [x], out, **options)

    def softmax(self, x, beta=1.0):
        e = np.exp(beta * (self.real[x] - self.real[x].max(-1, keepdims=True)))
        y = e / e.sum(-1, keepdims=True)
        scale, zero = (1 / 256, -128) if self.dtype == "int8" else (1 / 32768, 0)
        return self.op("SOFTMAX", [x], self.quantised(y, scale=scale, zero=zero), beta=beta)

    def mean(self, x, axes, keep=True, kind="MEAN"):
        function = np.mean if kind == "MEAN" else np.sum
        y = function(self.real[x], axis=tuple(a + 1 for a in axes), keepdims=keep)
        constant = self.constant(np.array(axes, np.int32))
        return self.op(kind, [x, constant], self.quantised(y), keep_dims=keep)

    def pool(self, x, kind="MAX_POOL_2D", kernel=(1, 3), stride=(1, 1), same=True, activation=0):
        patches = self._patches(self.real[x], kernel, stride, (1, 1), same, -1e9)
        y = patches.max(axis=(3, 4))[:, None]
        if kind == "AVERAGE_POOL_2D":
            inside = patches > -1e8
            y = (np.where(inside, patches, 0).sum(axis=(3, 4)) / inside.sum(axis=(3, 4)))[:, None]
        return self.op(
            kind, [x], self._like(x, y), padding=0 if same else 1, kernel_h=kernel[0], kernel_w=kernel[1],
            stride_h=stride[0], stride_w=stride[1], activation=activation,
        )  # fmt: skip

    def rescale(self, x, dtype=None):
        return self.op("QUANTIZE", [x], self.quantised(self.real[x] * 1.0 + 0.01, dtype))

    # --- layout: the scale stays ---

    def _like(self, x, values):
        return self.quantised(values, self.kind(x), self.tensors[x][3][0], self.scale(x))

    def reshape(self, x, *shape):
        y = self.real[x].reshape(len(self.real[x]), *shape)
        return self.op("RESHAPE", [x, self.constant(np.array(shape, np.int32))], self._like(x, y))

    def transpose(self, x, *order):
        y = self.real[x].transpose(0, *(a + 1 for a in order))
        return self.op("TRANSPOSE", [x, self.constant(np.array(order, np.int32))], self._like(x, y))

    def pad(self, x, *amounts):
        y = np.pad(self.real[x], ((0, 0), *amounts))
        return self.op("PAD", [x, self.constant(np.array(amounts, np.int32))], self._like(x, y))

    def slice(self, x, begin, size):
        y = self.real[x][
            (slice(None), *(slice(b, b + s) for b, s in zip(begin, size, strict=True)))
        ]
        parts = [self.constant(np.array(v, np.int32)) for v in (begin, size)]
        return self.op("SLICE", [x, *parts], self._like(x, y))

    def strided(self, x, begin, end, step):
        y = self.real[x][
            (slice(None), *(slice(b, e, s) for b, e, s in zip(begin, end, step, strict=True)))
        ]
        parts = [self.constant(np.array(v, np.int32)) for v in (begin, end, step)]
        return self.op("STRIDED_SLICE", [x, *parts], self._like(x, y))

    def split(self, x, axis, parts):
        pieces = np.split(self.real[x], parts, axis + 1)
        outs = [self._like(x, piece) for piece in pieces]
        self.op("SPLIT", [self.constant(np.array(axis, np.int32)), x], outs, num_splits=parts)
        return outs

    def concat(self, parts, axis, same_scale=True):
        y = np.concatenate([self.real[part] for part in parts], axis + 1)
        if same_scale:
            # The quantiser gives all parts one scale; here a QUANTIZE before each does.
            out = self.quantised(y)
            turned = []
            for part in parts:
                index = self._like(out, self.real[part])
                turned.append(self.op("QUANTIZE", [part], index))
            return self.op("CONCATENATION", turned, out, axis=axis)
        return self.op("CONCATENATION", list(parts), self.quantised(y), axis=axis)

    def pack(self, parts, axis):
        y = np.stack([self.real[part] for part in parts], axis + 1)
        return self.op(
            "PACK", list(parts), self._like(parts[0], y), axis=axis, values_count=len(parts)
        )

    def resize(self, x, height, width, half=True):
        def weights(count, size):
            at = (np.arange(count) + 0.5 * half) * size / count - 0.5 * half
            at = np.clip(at, 0, size - 1)[:, None]
            return np.maximum(0.0, 1.0 - np.abs(at - np.arange(size)))

        _, h, w, _ = self.shape(x)
        at = np.einsum("yh,xw,snhwc->snyxc", weights(height, h), weights(width, w), self.real[x])
        size = self.constant(np.array([height, width], np.int32))
        return self.op("RESIZE_BILINEAR", [x, size], self._like(x, at), half_pixel_centers=half)

    # --- blocks ---

    def layer_norm(self, x):
        last = len(self.shape(x)) - 1
        width = self.shape(x)[-1]
        middle = self.mean(x, [last])
        variance = self.mean(self.binary("SQUARED_DIFFERENCE", x, middle), [last])
        factor = self.unary("RSQRT", self.binary("ADD", variance, self.fixed(np.full((1,), 1e-5))))
        normal = self.binary("MUL", self.binary("SUB", x, middle), factor)
        gained = self.binary("MUL", normal, self.fixed(self.rng.normal(1, 0.1, width)))
        return self.binary("ADD", gained, self.fixed(self.rng.normal(0, 0.1, width)))

    def attention(self, x, heads):
        _, tokens, width = self.shape(x)
        size = width // heads

        def turned(y):
            return self.transpose(self.reshape(y, 1, tokens, heads, size), 0, 2, 1, 3)

        q, k, v = (turned(self.dense(x, width)) for _ in range(3))
        scores = self.binary(
            "MUL", self.matmul(q, k, adj_y=True), self.fixed(np.full((1,), size**-0.5))
        )
        mask = np.triu(np.full((tokens, tokens), -8.0), 1)[None, None]
        weights = self.softmax(self.binary("ADD", scores, self.fixed(mask)))
        mixed = self.transpose(self.matmul(weights, v), 0, 2, 1, 3)
        return self.dense(self.reshape(mixed, 1, tokens, width), width)


def transformer(seed=0, dtype="int8", width=32, heads=4, steps=8, layers=1, state=8):
    """A decision transformer: three inputs a time step, the middle token gives the action."""
    net = Net(seed, dtype)
    feeds = [net.feed(1, steps, size) for size in (1, state, 1)]
    place = net.fixed(net.rng.normal(0, 0.1, (1, steps, width)))
    tokens = [
        net.reshape(net.binary("ADD", net.dense(f, width), place), 1, steps, 1, width)
        for f in feeds
    ]
    x = net.reshape(net.concat(tokens, 2), 1, 3 * steps, width)
    x = net.layer_norm(x)
    for _ in range(layers):
        x = net.binary("ADD", x, net.attention(net.layer_norm(x), heads))
        inner = net.dense(net.layer_norm(x), 4 * width, activation=RELU)
        x = net.binary("ADD", x, net.dense(inner, width))
    x = net.reshape(net.layer_norm(x), 1, steps, 3, width)
    x = net.reshape(net.slice(x, (0, 0, 1, 0), (1, steps, 1, width)), 1, steps, width)
    net.output(net.unary("TANH", net.dense(x, 1)))
    return net


def inception(seed=0, dtype="int8", channels=15, length=128, filters=8, depth=2):
    """Branches of convolutions of several lengths along time, a shortcut, a mean, two classes."""
    net = Net(seed, dtype)
    x = first = net.feed(1, 1, length, channels)
    for _ in range(depth):
        narrow = net.conv(x, 16)
        branches = [net.conv(narrow, filters, (1, k), activation=RELU) for k in (9, 19, 39)]
        branches.append(net.conv(net.pool(x), filters, activation=RELU))
        x = net.concat(branches, 3)
    x = net.binary("ADD", x, net.conv(first, 4 * filters), activation=RELU)
    net.output(net.dense(net.reshape(net.mean(x, [1, 2]), 1, 4 * filters), 2))
    return net
