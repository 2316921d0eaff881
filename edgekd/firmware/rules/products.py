"""Convolutions, dense layers, products of matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekd.firmware.building import Layer, row_major
from edgekd.firmware.fixed import quantize_factor
from edgekd.firmware.graph import Tensor
from edgekd.firmware.program import Conv, Dense, Depthwise, Element, MatMul, Move, Window

__all__ = ["RULES", "window"]

_SAME = 0


def window(layer: Layer, kernel: tuple[int, int]) -> Window:
    """Return how the window of a convolution or pooling moves.

    Args:
        layer: The operator; input and output are (1, height, width, channels).
        kernel: Height and width.

    Raises:
        UsageError: The batch is not one.
    """
    options = {name: int(value) for name, value in layer.operator.options.items()}
    source, out = layer.input(0).shape, layer.output().shape
    if len(source) != 4 or source[0] != 1:
        raise layer.refuse(
            f"its input has shape {list(source)}", "export with batch size 1; images are 4-D"
        )
    steps = options["stride_h"], options["stride_w"]
    spread = options.get("dilation_h", 1), options.get("dilation_w", 1)
    pads = [0, 0]
    if options["padding"] == _SAME:
        for axis in range(2):
            reach = (kernel[axis] - 1) * spread[axis] + 1
            whole = (out[1 + axis] - 1) * steps[axis] + reach - source[1 + axis]
            pads[axis] = max(whole, 0) // 2
    _, height, width, channels = source
    return Window(
        height,
        width,
        channels,
        out[1],
        out[2],
        *kernel,
        *steps,
        *spread,
        pads[0],
        pads[1],
    )


@dataclass(frozen=True)
class _Weights:
    """What a layer with weights has besides them, per output channel."""

    bias: NDArray[np.int64]
    multiplier: NDArray[np.int32]
    shift: NDArray[np.int8]


def _weights(layer: Layer, rows: NDArray[np.int8], per_tensor_in_single: bool) -> _Weights:
    """Return folded bias and factors.

    Args:
        layer: The operator.
        rows: Weights as (channels, depth).
        per_tensor_in_single: Whether a single scale is multiplied in single precision, as the
            reference's dense layer does.

    Raises:
        UsageError: Weights are not symmetric int8, or sums could leave 32 bits.
    """
    source, weights = layer.input(0), layer.input(1)
    if weights.dtype != "int8" or weights.quantization is None:
        raise layer.refuse(f"its weights are {weights.dtype}", "quantise weights to int8")
    if any(weights.quantization.zero_points):
        raise layer.refuse("its weights have a zero point", "quantise weights symmetrically")
    dtype = layer.element(source)
    scales = weights.quantization.scales
    factors = [
        quantize_factor(_factor(layer, scale, per_tensor_in_single and len(scales) == 1))
        for scale in (scales if len(scales) > 1 else scales * len(rows))
    ]
    multiplier = np.array([factor[0] for factor in factors], np.int32)
    shift = np.array([factor[1] for factor in factors], np.int8)
    bias = _bias(layer, len(rows)) - source.zero_point * rows.sum(axis=1, dtype=np.int64)
    peak = 128 if dtype == "int8" else 32768
    reach = np.abs(bias) + peak * np.abs(rows.astype(np.int64)).sum(axis=1)
    _check_reach(layer, dtype, reach, shift)
    return _Weights(bias, multiplier, shift)


def _factor(layer: Layer, scale: float, in_single: bool) -> float:
    source, out = layer.input(0), layer.output()
    if in_single:
        return float(np.float32(source.scale) * np.float32(scale)) / out.scale
    return source.scale * scale / out.scale


def _bias(layer: Layer, channels: int) -> NDArray[np.int64]:
    if not layer.has(2):
        return np.zeros(channels, np.int64)
    return layer.constant(2, "biases").astype(np.int64).reshape(channels)


def _check_reach(
    layer: Layer, dtype: Element, reach: NDArray[np.int64], shift: NDArray[np.int8]
) -> None:
    if dtype == "int8":
        for largest, bits in zip(reach, shift, strict=True):
            layer.check_sum(int(largest), int(bits), "a sum of products")
    elif any(
        int(sums) >= 2**47 or sums * 2.0 ** int(bits) >= 2**31
        for sums, bits in zip(reach, shift, strict=True)
    ):
        raise layer.refuse(
            "a sum of products can leave 48 bits, or 32 when rescaled",
            "calibrate on data that fills the output's range",
        )


def conv(layer: Layer) -> None:
    """CONV_2D."""
    weights = layer.constant(1, "weights")
    channels, height, width, _ = weights.shape
    parts = _weights(layer, weights.reshape(channels, -1), per_tensor_in_single=False)
    source, out = layer.input(0), layer.output()
    if weights.shape[3] != source.shape[-1]:
        raise layer.refuse("it is grouped", "use groups=1, or groups=channels (depthwise)")
    layer.add(
        Conv(
            layer.name,
            (layer.value(0),),
            layer.number(out),
            weights,
            parts.bias,
            parts.multiplier,
            parts.shift,
            source.zero_point,
            out.zero_point,
            *layer.clamp(out),
            layer.same_type(source, out),
            window(layer, (height, width)),
        )
    )


def depthwise(layer: Layer) -> None:
    """DEPTHWISE_CONV_2D."""
    weights = layer.constant(1, "weights")
    _, height, width, channels = weights.shape
    parts = _weights(layer, weights.reshape(-1, channels).T, per_tensor_in_single=False)
    source, out = layer.input(0), layer.output()
    layer.add(
        Depthwise(
            layer.name,
            (layer.value(0),),
            layer.number(out),
            weights[0],
            parts.bias,
            parts.multiplier,
            parts.shift,
            source.zero_point,
            out.zero_point,
            *layer.clamp(out),
            layer.same_type(source, out),
            window(layer, (height, width)),
        )
    )


def dense(layer: Layer) -> None:
    """FULLY_CONNECTED; with computed weights it is a product of matrices."""
    if not layer.is_constant(1):
        _dense_of_computed(layer)
        return
    weights = layer.constant(1, "weights")
    if weights.ndim != 2 or layer.operator.options.get("weights_format", 0):
        raise layer.refuse("its weights are shuffled or not a matrix", "convert for int8 inference")
    parts = _weights(layer, weights, per_tensor_in_single=True)
    source, out = layer.input(0), layer.output()
    layer.add(
        Dense(
            layer.name,
            (layer.value(0),),
            layer.number(out),
            weights,
            parts.bias,
            parts.multiplier,
            parts.shift,
            source.zero_point,
            out.zero_point,
            *layer.clamp(out),
            layer.same_type(source, out),
            source.count // weights.shape[1],
        )
    )


def _dense_of_computed(layer: Layer) -> None:
    left, right = layer.input(0), layer.input(1)
    if layer.has(2) or layer.operator.options.get("activation", 0):
        raise layer.refuse(
            "its weights are computed, and it has a bias or an activation",
            "write it as a matrix product followed by an addition",
        )
    columns, depth = right.shape
    _matmul(layer, (1, left.count // depth, depth, columns), layer.value(0), True)


def batch_matmul(layer: Layer) -> None:
    """BATCH_MATMUL."""
    left, right = layer.input(0).shape, layer.input(1).shape
    adjoint, transposed = (bool(layer.operator.options[name]) for name in ("adj_x", "adj_y"))
    batch, other = math.prod(left[:-2]), math.prod(right[:-2])
    rows, depth = (left[-1], left[-2]) if adjoint else (left[-2], left[-1])
    columns = right[-2] if transposed else right[-1]
    if batch != other:
        if other != 1 or adjoint:
            raise layer.refuse(
                f"it multiplies {list(left)} by {list(right)}",
                "give both matrices the same batch axes",
            )
        batch, rows = 1, batch * rows
    first = _transpose_last(layer) if adjoint else layer.value(0)
    _matmul(layer, (batch, rows, depth, columns), first, transposed)


def _transpose_last(layer: Layer) -> int:
    source = layer.input(0)
    batch = math.prod(source.shape[:-2])
    depth, rows = source.shape[-2:]
    turned = layer.temporary(source, (batch, rows, depth))
    strides = row_major((batch, depth, rows))
    layer.add(
        Move(
            layer.name,
            (layer.value(0),),
            turned,
            (batch, rows, depth),
            (strides[0], strides[2], strides[1]),
            0,
            layer.element(source),
        )
    )
    return turned


def _matmul(layer: Layer, extents: tuple[int, int, int, int], first: int, transposed: bool) -> None:
    left, right, out = layer.input(0), layer.input(1), layer.output()
    dtype = layer.same_type(left, right, out)
    product = float(np.float32(left.scale) * np.float32(right.scale))
    multiplier, shift = quantize_factor(product / out.scale)
    _check_matmul(layer, (left, right), extents[2], dtype, shift)
    layer.add(
        MatMul(
            layer.name,
            (first, layer.value(1)),
            layer.number(out),
            *extents,
            transposed,
            left.zero_point,
            right.zero_point,
            out.zero_point,
            multiplier,
            shift,
            dtype,
        )
    )


def _check_matmul(
    layer: Layer, operands: tuple[Tensor, Tensor], depth: int, dtype: Element, shift: int
) -> None:
    if dtype == "int8":
        reach = math.prod(128 + abs(tensor.zero_point) for tensor in operands)
        layer.check_sum(depth * reach, shift, "a sum of products")
    elif depth * 2**30 >= 2**47 or depth * 2.0 ** (30 + shift) >= 2**31:
        raise layer.refuse(
            "a sum of products can leave 48 bits, or 32 when rescaled", "multiply smaller matrices"
        )


RULES: Mapping[str, Callable[[Layer], None]] = {
    "BATCH_MATMUL": batch_matmul,
    "CONV_2D": conv,
    "DEPTHWISE_CONV_2D": depthwise,
    "FULLY_CONNECTED": dense,
}
