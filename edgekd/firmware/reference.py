"""A program in NumPy: slow, obvious, and byte for byte what the C must give."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from edgekd.errors import UsageError
from edgekd.firmware import program as p
from edgekd.firmware.fixed import high_product, reciprocal, rescale, rescale_wide, shift_right

__all__ = ["run", "trace"]

Array = NDArray[Any]
Integers = NDArray[np.int64]
_LIMITS = {"int8": (-128, 127), "int16": (-32768, 32767)}


def run(program: p.Program, inputs: Sequence[Array]) -> list[Array]:
    """Return the outputs for one sample.

    Args:
        program: What to run.
        inputs: Integers of the inputs' types and shapes, in order.

    Raises:
        UsageError: An input has the wrong type or shape.
    """
    values = trace(program, inputs)
    return [values[number].reshape(program.values[number].shape) for number in program.outputs]


def trace(program: p.Program, inputs: Sequence[Array]) -> dict[int, Array]:
    """Return every value of the program, flat, by number."""
    known: dict[int, Array] = {
        number: value.data.ravel()
        for number, value in enumerate(program.values)
        if value.data is not None
    }
    if len(inputs) != len(program.inputs):
        raise UsageError(f"got {len(inputs)} inputs, the program has {len(program.inputs)}")
    for number, given in zip(program.inputs, inputs, strict=True):
        value = program.values[number]
        if given.dtype != np.dtype(value.dtype) or given.size != value.count:
            raise UsageError(
                f"input {value.name!r} is {given.dtype}{list(given.shape)}, "
                f"wanted {value.dtype}{list(value.shape)}"
            )
        known[number] = given.ravel()
    for step in program.steps:
        operands = [known[number] for number in step.inputs]
        result = _RUN[type(step)](step, *operands)
        known[step.output] = result.ravel().astype(program.values[step.output].dtype)
    return known


def _clip(values: Array, low: int, high: int) -> Array:
    return np.clip(values, low, high)


def _scaled(dtype: str, sums: Any, multiplier: Any, shift: Any) -> Integers:
    """Bring sums of products to the output's scale; 16-bit activations sum in 64 bits."""
    return (rescale if dtype == "int8" else rescale_wide)(sums, multiplier, shift)


# --- products ----------------------------------------------------------------------------------


def _finish(step: p.Weighted, sums: Integers) -> Array:
    values = _scaled(step.dtype, sums + step.bias, step.multiplier, step.shift)
    return _clip(values + step.out_zero, step.low, step.high)


def _windows(window: p.Window, image: Array, around: int) -> Array:
    """Return (out_h, out_w, kernel_h, kernel_w, channels); outside the image is ``around``."""
    w = window
    image = image.reshape(w.in_h, w.in_w, w.in_c).astype(np.int64)
    reach_h = (w.out_h - 1) * w.stride_h + (w.kernel_h - 1) * w.dilation_h + 1
    reach_w = (w.out_w - 1) * w.stride_w + (w.kernel_w - 1) * w.dilation_w + 1
    field = np.full((reach_h, reach_w, w.in_c), around, np.int64)
    rows = range(max(w.pad_top, 0), min(w.pad_top + w.in_h, reach_h))
    columns = range(max(w.pad_left, 0), min(w.pad_left + w.in_w, reach_w))
    field[rows.start : rows.stop, columns.start : columns.stop] = image[: len(rows), : len(columns)]
    row, column, channel = field.strides
    return as_strided(
        field,
        (w.out_h, w.out_w, w.kernel_h, w.kernel_w, w.in_c),
        (w.stride_h * row, w.stride_w * column, w.dilation_h * row, w.dilation_w * column, channel),
    )


def _conv(step: p.Conv, image: Array) -> Array:
    patches = _windows(step.window, image, step.in_zero)
    flat = patches.reshape(-1, step.weights[0].size)
    return _finish(step, flat @ step.weights.reshape(len(step.weights), -1).T.astype(np.int64))


def _depthwise(step: p.Depthwise, image: Array) -> Array:
    patches = _windows(step.window, image, step.in_zero)
    several = step.weights.shape[-1] // step.window.in_c
    repeated = np.repeat(patches, several, axis=-1)
    return _finish(step, (repeated * step.weights.astype(np.int64)).sum(axis=(2, 3)))


def _dense(step: p.Dense, rows: Array) -> Array:
    flat = rows.reshape(step.rows, -1).astype(np.int64)
    return _finish(step, flat @ step.weights.T.astype(np.int64))


def _matmul(step: p.MatMul, left: Array, right: Array) -> Array:
    a = left.reshape(step.batch, step.rows, step.depth).astype(np.int64) - step.a_zero
    shape = (step.columns, step.depth) if step.transposed else (step.depth, step.columns)
    b = right.reshape(step.batch, *shape).astype(np.int64) - step.b_zero
    sums = a @ (b.transpose(0, 2, 1) if step.transposed else b)
    values = _scaled(step.dtype, sums, step.multiplier, step.shift)
    return _clip(values + step.out_zero, *_LIMITS[step.dtype])


# --- elements ----------------------------------------------------------------------------------


def _gather(flat: Array, dims: Sequence[int], strides: Sequence[int], offset: int = 0) -> Array:
    index: Array = np.array(offset)
    for size, stride in zip(dims, strides, strict=True):
        index = index[..., None] + np.arange(size) * stride
    return np.asarray(flat[index])


def _binary(step: p.Binary, left: Array, right: Array) -> Array:
    a = _gather(left, step.dims, step.strides_a).astype(np.int64) - step.a_zero
    b = _gather(right, step.dims, step.strides_b).astype(np.int64) - step.b_zero
    if step.kind == "mul":
        result = a * b
    else:
        a, b = (
            rescale(operand << step.left, *factor)
            for operand, factor in zip((a, b), step.factors, strict=False)
        )
        result = a + b if step.kind == "add" else a - b
        result = result * result if step.kind == "sqdiff" else result
    return _clip(rescale(result, *step.factors[2]) + step.out_zero, step.low, step.high)


def _interpolate(table: Array, values: Integers) -> Integers:
    index, rest = 256 + (values >> 7), values & 127
    here = table.astype(np.int64)[index]
    return np.asarray(here + (((table[index + 1] - here) * rest + 64) >> 7))


def _lookup(step: p.Lookup, values: Array) -> Array:
    if step.dtype == "int8":
        return np.asarray(step.table[values.astype(np.uint8)])
    return _interpolate(step.table, values.astype(np.int64))


def _rescale(step: p.Rescale, values: Array) -> Array:
    scaled = rescale(values.astype(np.int64) - step.in_zero, step.multiplier, step.shift)
    return _clip(scaled + step.out_zero, step.low, step.high)


def _rsqrt(step: p.Rsqrt, values: Array) -> Array:
    def one(x: int) -> int:
        quotient = step.factor // x if x > 0 else 2**32 - 1
        return min((math.isqrt(min(quotient, 2**32 - 1)) + 1) >> 1, 32767)

    return np.array([one(int(x)) for x in values], np.int64)


def _mean(step: p.Mean, values: Array) -> Array:
    shaped = values.reshape(step.outer, step.count, step.inner).astype(np.int64)
    sums = shaped.sum(axis=1) - step.count * step.in_zero
    scaled = rescale(sums, step.multiplier, step.shift)
    return _clip(scaled + step.out_zero, *_LIMITS[step.dtype])


def _softmax(step: p.Softmax, values: Array) -> Array:
    rows = values.reshape(step.rows, step.depth).astype(np.int64)
    one = _softmax8 if step.dtype == "int8" else _softmax16
    return np.array([one(step, row - row.max()) for row in rows])


def _softmax8(step: p.Softmax, differences: Integers) -> Integers:
    exp = step.exp[-differences].astype(np.int64)
    total = int(shift_right(exp, 12).sum())
    headroom = 32 - total.bit_length()
    scale = reciprocal((total << headroom) - 2**31)
    return _clip(shift_right(high_product(scale, exp), 35 - headroom) - 128, -128, 127)


def _softmax16(step: p.Softmax, differences: Integers) -> Integers:
    scaled = rescale(differences, step.multiplier, step.shift) + 32767
    exp = _interpolate(step.exp, np.clip(scaled, -32768, 32767))
    total = int(exp.sum())
    headroom = 32 - total.bit_length()
    near_one = (((total << (headroom - 1)) + 2**13) >> 14) - 2**15 - 2**16
    inverse = int(_interpolate(step.inverse, np.clip(np.array(near_one), -32768, 32767)))
    bits = 31 - headroom
    return _clip((exp * inverse + (1 << (bits - 1))) >> bits, 0, 32767)


# --- layout ------------------------------------------------------------------------------------


def _move(step: p.Move, values: Array) -> Array:
    return _gather(values, step.dims, step.strides, step.offset)


def _pad(step: p.Pad, values: Array) -> Array:
    made = np.full(step.out_dims, step.value, step.dtype)
    place = tuple(
        slice(start, start + size) for start, size in zip(step.before, step.in_dims, strict=True)
    )
    made[place] = values.reshape(step.in_dims)
    return made


def _concat(step: p.Concat, *parts: Array) -> Array:
    return np.concatenate([part.reshape(step.outer, -1) for part in parts], axis=1)


def _pool(step: p.Pool, image: Array) -> Array:
    outside = 2**40
    patches = _windows(step.window, image, outside)
    inside = patches != outside
    if step.kind == "max":
        best = np.where(inside, patches, -outside).max(axis=(2, 3))
        return _clip(best, step.low, step.high)
    count, sums = inside.sum(axis=(2, 3)), np.where(inside, patches, 0).sum(axis=(2, 3))
    magnitude = (np.abs(sums) + count // 2) // count
    return _clip(np.where(sums > 0, magnitude, -magnitude), step.low, step.high)


def _positions(count: int, step: int, half: bool, size: int) -> tuple[Integers, Integers, Integers]:
    """Return lower and upper neighbours and the position, the last in 1/1024."""
    at = np.arange(count) * step + (step // 2 - 512 if half else 0)
    lower = np.maximum(np.trunc(at / 1024).astype(np.int64), 0)
    upper = np.minimum(np.trunc((at + 1023) / 1024).astype(np.int64), size - 1)
    return np.minimum(lower, size - 1), upper, at


def _resize(step: p.Resize, image: Array) -> Array:
    pixels = image.reshape(step.in_h, step.in_w, step.channels).astype(np.int64)
    y0, y1, y = _positions(step.out_h, step.step_y, step.half_pixel, step.in_h)
    x0, x1, x = _positions(step.out_w, step.step_x, step.half_pixel, step.in_w)
    dy = (y - 1024 * y0)[:, None, None]
    dx = (x - 1024 * x0)[None, :, None]
    total = (
        pixels[np.ix_(y0, x0)] * (1024 - dy) * (1024 - dx)
        + pixels[np.ix_(y1, x0)] * dy * (1024 - dx)
        + pixels[np.ix_(y0, x1)] * (1024 - dy) * dx
        + pixels[np.ix_(y1, x1)] * dy * dx
    )
    magnitude = (np.abs(total) + 2**19) >> 20
    return _clip(np.where(total > 0, magnitude, -magnitude), *_LIMITS[step.dtype])


_RUN: Mapping[type[p.Step], Callable[..., Array]] = {
    p.Binary: _binary,
    p.Concat: _concat,
    p.Conv: _conv,
    p.Dense: _dense,
    p.Depthwise: _depthwise,
    p.Lookup: _lookup,
    p.MatMul: _matmul,
    p.Mean: _mean,
    p.Move: _move,
    p.Pad: _pad,
    p.Pool: _pool,
    p.Rescale: _rescale,
    p.Resize: _resize,
    p.Rsqrt: _rsqrt,
    p.Softmax: _softmax,
}
