"""Sums, products and functions of single elements; softmax, means, pooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from edgekd.firmware.building import Layer, limits, row_major
from edgekd.firmware.fixed import exp_table, quantize_factor
from edgekd.firmware.fixed import rescale as rescale_sums
from edgekd.firmware.graph import Tensor
from edgekd.firmware.program import (
    Binary,
    Element,
    Lookup,
    Mean,
    Move,
    Pool,
    Rescale,
    Rsqrt,
    Softmax,
)
from edgekd.firmware.rules.products import window

__all__ = ["RULES"]

Real = NDArray[np.float64]
Function = Callable[[Real], Real]
Kind = Literal["add", "sub", "mul", "sqdiff"]


# --- two operands ------------------------------------------------------------------------------


def _binary(kind: Kind) -> Callable[[Layer], None]:
    def rule(layer: Layer) -> None:
        left, right, out = layer.input(0), layer.input(1), layer.output()
        dtype = layer.same_type(left, right, out)
        bits, factors = _FACTORS[kind](left.scale, right.scale, out.scale, dtype)
        _check_binary(layer, kind, dtype, bits, factors)
        dims, first, second = _broadcast(layer, left.shape, right.shape, out.shape)
        layer.add(
            Binary(
                layer.name,
                (layer.value(0), layer.value(1)),
                layer.number(out),
                kind,
                dims,
                first,
                second,
                left.zero_point,
                right.zero_point,
                out.zero_point,
                bits,
                factors,
                *layer.clamp(out),
                dtype,
            )
        )

    return rule


Factors = tuple[tuple[int, int], ...]


def _add_factors(a: float, b: float, out: float, dtype: Element) -> tuple[int, Factors]:
    bits = 15 if dtype == "int16" else 20
    twice = 2.0 * max(a, b)
    parts = (a / twice, b / twice, twice / ((1 << bits) * out))
    return bits, tuple(quantize_factor(part) for part in parts)


def _sub_factors(a: float, b: float, out: float, dtype: Element) -> tuple[int, Factors]:
    # The reference computes these in single precision.
    bits = 15 if dtype == "int16" else 20
    first, second = np.float32(a), np.float32(b)
    twice = np.float32(2) * max(first, second)
    parts = (first / twice, second / twice, twice / (np.float32(1 << bits) * np.float32(out)))
    return bits, tuple(quantize_factor(float(part)) for part in parts)


def _sqdiff_factors(a: float, b: float, out: float, dtype: Element) -> tuple[int, Factors]:
    bits = 0 if dtype == "int16" else 7
    twice = 2.0 * max(a, b)
    # The divisor is an integer times a float: single precision, but a power of two loses nothing.
    parts = (a / twice, b / twice, twice * twice / ((1 << 2 * bits) * out))
    return bits, tuple(quantize_factor(part) for part in parts)


def _mul_factors(a: float, b: float, out: float, dtype: Element) -> tuple[int, Factors]:
    del dtype
    return 0, ((0, 0), (0, 0), quantize_factor(a * b / out))


_FACTORS: Mapping[Kind, Callable[[float, float, float, Element], tuple[int, Factors]]] = {
    "add": _add_factors,
    "sub": _sub_factors,
    "sqdiff": _sqdiff_factors,
    "mul": _mul_factors,
}


def _check_binary(layer: Layer, kind: Kind, dtype: Element, bits: int, factors: Factors) -> None:
    span = 255 if dtype == "int8" else 32768
    if kind == "mul":
        layer.check_sum(span * span, factors[2][1], "a product", bits=31)
        return
    # Of 16 bits the lowest value reaches −2³⁰ itself, which still doubles; the highest less.
    reach = (span << bits) - (dtype == "int16")
    layer.check_sum(reach, 0, "an operand")
    # Two operands, each brought to at most half of its range.
    layer.check_sum(reach, factors[2][1], "a result")
    if kind == "sqdiff":
        layer.check_sum((span << bits) ** 2, factors[2][1], "a square", bits=31)


def _broadcast(
    layer: Layer, left: Sequence[int], right: Sequence[int], out: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return extents and strides with as few axes as can be, filled up to four."""
    axes: list[list[int]] = []
    for size, a, b in zip(out, _spread(left, out), _spread(right, out), strict=True):
        if size == 1:
            continue
        if axes and axes[-1][1] == a * size and axes[-1][2] == b * size:
            axes[-1] = [axes[-1][0] * size, a, b]
        else:
            axes.append([size, a, b])
    if len(axes) > 4:
        raise layer.refuse(
            f"{list(left)} and {list(right)} broadcast along too many axes",
            "reshape the operands so that at most four groups of axes remain",
        )
    axes = [[1, 0, 0]] * (4 - len(axes)) + axes
    dims, first, second = zip(*axes, strict=True)
    return tuple(dims), tuple(first), tuple(second)


def _spread(shape: Sequence[int], out: Sequence[int]) -> list[int]:
    """Return strides of an operand along the axes of the output; 0 repeats."""
    full = [1] * (len(out) - len(shape)) + list(shape)
    return [0 if size == 1 else step for size, step in zip(full, row_major(full), strict=True)]


# --- one operand -------------------------------------------------------------------------------


def _sigmoid(x: Real) -> Real:
    return 1.0 / (1.0 + np.exp(-x))


def _gelu(x: Real) -> Real:
    erf = np.array([math.erf(value / math.sqrt(2.0)) for value in x])
    return 0.5 * x * (1.0 + erf)


def _gelu_tanh(x: Real) -> Real:
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def _rsqrt(x: Real) -> Real:
    return np.where(x > 0, 1.0 / np.sqrt(np.where(x > 0, x, 1.0)), np.inf)


def _hard_swish(x: Real) -> Real:
    return x * np.clip(x + 3.0, 0.0, 6.0) / 6.0


_FUNCTIONS: Mapping[str, Function] = {
    "ABS": np.abs,
    "EXP": np.exp,
    "HARD_SWISH": _hard_swish,
    "LOGISTIC": _sigmoid,
    "NEG": np.negative,
    "RSQRT": _rsqrt,
    "SQRT": lambda x: np.sqrt(np.maximum(x, 0.0)),
    "TANH": np.tanh,
}


def _round(values: Real) -> Real:
    return np.floor(np.abs(values) + 0.5) * np.sign(values)


def table8(function: Function, source: Tensor, out: Tensor) -> NDArray[np.int8]:
    """Return a function's value for every int8, indexed by the same bits as an unsigned byte."""
    codes = np.arange(256).astype(np.uint8).view(np.int8).astype(np.float64)
    with np.errstate(over="ignore"):
        real = function((codes - source.zero_point) * source.scale) / out.scale
    rounded = _round(np.clip(real, -1e6, 1e6)) + out.zero_point
    return np.clip(rounded, -128, 127).astype(np.int8)


def table16(function: Function, lowest: float, step: float, out_scale: float) -> NDArray[np.int16]:
    """Return 513 samples of a function, 128 steps apart, for interpolation.

    Each sample leans half of the way towards the line that best meets the middle of its piece.
    """
    at = np.float64(lowest) + np.arange(513) * np.float64(step)
    with np.errstate(over="ignore"):
        here = _round(np.clip(function(at) / out_scale, -1e9, 1e9))
        middle = _round(np.clip(function(at[:-1] + step / 2) / out_scale, -1e9, 1e9))
    lean = _round((_round((here[:-1] + here[1:]) / 2) - middle) / 2)
    here[:-1] -= lean
    return np.clip(here, -32768, 32767).astype(np.int16)


def _function(layer: Layer, function: Function) -> None:
    source, out = layer.input(0), layer.output()
    dtype = layer.same_type(source, out)
    if dtype == "int8":
        table: NDArray[Any] = table8(function, source, out)
    else:
        step = source.scale * 128
        table = table16(function, source.scale * -32768, step, out.scale)
    layer.add(Lookup(layer.name, (layer.value(0),), layer.number(out), table, dtype))


def _named(layer: Layer) -> None:
    _function(layer, _FUNCTIONS[layer.operator.kind])


def _gelu_rule(layer: Layer) -> None:
    _function(layer, _gelu_tanh if layer.operator.options["approximate"] else _gelu)


def _leaky(layer: Layer) -> None:
    alpha = float(layer.operator.options["alpha"])
    _function(layer, lambda x: np.where(x > 0, x, alpha * x))


def _rsqrt_rule(layer: Layer) -> None:
    source, out = layer.input(0), layer.output()
    if layer.same_type(source, out) == "int8":
        _named(layer)
        return
    # A table cannot follow 1/√x near zero; the quotient under the root is exact.
    factor = min(round(4.0 / (source.scale * out.scale**2)), 2**62 - 1)
    layer.add(Rsqrt(layer.name, (layer.value(0),), layer.number(out), factor))


def _clamped(low: float | None, high: float | None) -> Callable[[Layer], None]:
    """RELU and its relatives as operators of their own."""

    def rule(layer: Layer) -> None:
        source, out = layer.input(0), layer.output()
        dtype = layer.same_type(source, out)
        bounds = list(limits(dtype))
        if low is not None:
            bounds[0] = max(bounds[0], out.zero_point + round(low / out.scale))
        if high is not None:
            bounds[1] = min(bounds[1], out.zero_point + round(high / out.scale))
        _rescale(layer, source, out, (bounds[0], bounds[1]), in_single=True)

    return rule


def quantize(layer: Layer) -> None:
    """QUANTIZE between integers; the same scale and type is nothing to do."""
    source, out = layer.input(0), layer.output()
    kinds = layer.element(source), layer.element(out)
    same = (source.scale, source.zero_point) == (out.scale, out.zero_point)
    if same and kinds[0] == kinds[1]:
        layer.alias(layer.value(0))
        return
    _rescale(layer, source, out, limits(kinds[1]), in_single=False)


def _rescale(
    layer: Layer, source: Tensor, out: Tensor, bounds: tuple[int, int], in_single: bool
) -> None:
    kinds = layer.element(source), layer.element(out)
    ratio = source.scale / out.scale
    if in_single:
        ratio = float(np.float32(source.scale) / np.float32(out.scale))
    multiplier, shift = quantize_factor(ratio)
    layer.check_sum(255 if kinds[0] == "int8" else 32768, shift, "a value")
    ends = layer.value(0), layer.number(out)
    if kinds == ("int8", "int8"):
        codes = np.arange(256).astype(np.uint8).view(np.int8).astype(np.int64)
        values = rescale_sums(codes - source.zero_point, multiplier, shift) + out.zero_point
        table = np.clip(values, *bounds).astype(np.int8)
        layer.add(Lookup(layer.name, ends[:1], ends[1], table, "int8"))
        return
    zeros = source.zero_point, out.zero_point
    layer.add(Rescale(layer.name, ends[:1], ends[1], multiplier, shift, *zeros, *bounds, *kinds))


def refuse_float(layer: Layer) -> None:
    """DEQUANTIZE: the graph has an island of floating point."""
    raise layer.refuse(
        "what follows it is floating point",
        "quantise every operator, inputs and outputs included (recipe static_wi8_ai8 or "
        "static_wi8_ai16), or use a target that runs LiteRT",
    )


# --- softmax, means, pooling -------------------------------------------------------------------


def softmax(layer: Layer) -> None:
    """SOFTMAX along the last axis; the output's scale is fixed by the format."""
    source, out = layer.input(0), layer.output()
    dtype = layer.same_type(source, out)
    wanted = (1 / 256, -128) if dtype == "int8" else (1 / 32768, 0)
    if abs(out.scale - wanted[0]) > 1e-3 * wanted[0] or out.zero_point != wanted[1]:
        raise layer.refuse(
            f"its output has scale {out.scale:g} and zero point {out.zero_point}",
            f"softmax of {dtype} gives scale {wanted[0]:g}, zero point {wanted[1]}",
        )
    depth = source.shape[-1]
    beta = float(layer.operator.options["beta"])
    if dtype == "int8":
        multiplier, shift = 0, 0
        exp: NDArray[Any] = exp_table(source.scale, beta)
        inverse = np.empty(0, np.int16)
    else:
        multiplier, shift = quantize_factor(source.scale * beta / (10.0 / 65535.0))
        layer.check_sum(65535, shift, "a difference of logits")
        exp, inverse = _softmax16_tables()
    most = 511 if dtype == "int8" else 65535
    if depth > most:
        raise layer.refuse(f"it sums {depth} terms", f"use at most {most}")
    layer.add(
        Softmax(
            layer.name,
            (layer.value(0),),
            layer.number(out),
            source.count // depth,
            depth,
            exp,
            inverse,
            multiplier,
            shift,
            dtype,
        )
    )


def _softmax16_tables() -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Return exp over [−10, 0] and 1/(1 + x) over [0, 1], in Q0.15."""
    scale = 1.0 / 32768.0
    exp = table16(np.exp, -10.0, 10.0 / 512, scale)
    inverse = table16(lambda x: 1.0 / (1.0 + x), 0.0, 1.0 / 512, scale)
    return exp, inverse


def _reduction(mean: bool) -> Callable[[Layer], None]:
    def rule(layer: Layer) -> None:
        source, out = layer.input(0), layer.output()
        dtype = layer.same_type(source, out)
        axes = _axes(layer, source.shape)
        number, shape = layer.value(0), source.shape
        if axes != list(range(axes[0], axes[-1] + 1)):
            number, shape, axes = _to_the_end(layer, source, axes)
        outer, inner = math.prod(shape[: axes[0]]), math.prod(shape[axes[-1] + 1 :])
        count = math.prod(shape[axis] for axis in axes)
        factor = quantize_factor(source.scale / out.scale)
        if mean:
            factor = _divided(*factor, count)
        span = 255 if dtype == "int8" else 32768
        layer.check_sum(count * span, factor[1], "a sum")
        zeros = source.zero_point, out.zero_point
        layer.add(
            Mean(
                layer.name,
                (number,),
                layer.number(out),
                outer,
                count,
                inner,
                *zeros,
                *factor,
                dtype,
            )
        )

    return rule


def _divided(multiplier: int, shift: int, count: int) -> tuple[int, int]:
    """Return a factor divided by a count, as the reference rounds it."""
    bits = min(count.bit_length() - 1, 32, 31 + shift)
    return (multiplier << bits) // count, shift - bits


def _axes(layer: Layer, shape: Sequence[int]) -> list[int]:
    """Return the reduced axes in order; those of extent one do not matter."""
    axes = sorted({axis % len(shape) for axis in layer.integers(1, "axes")})
    return [axis for axis in axes if shape[axis] > 1] or axes[:1] or [0]


def _to_the_end(
    layer: Layer, source: Tensor, axes: list[int]
) -> tuple[int, tuple[int, ...], list[int]]:
    """Move axes that do not touch behind the others."""
    rest = [axis for axis in range(len(source.shape)) if axis not in axes]
    order = rest + axes
    shape = tuple(source.shape[axis] for axis in order)
    strides = row_major(source.shape)
    turned = layer.temporary(source, shape)
    layer.add(
        Move(
            layer.name,
            (layer.value(0),),
            turned,
            shape,
            tuple(strides[axis] for axis in order),
            0,
            layer.element(source),
        )
    )
    return turned, shape, list(range(len(rest), len(order)))


def _pool(layer: Layer) -> None:
    source, out = layer.input(0), layer.output()
    options = layer.operator.options
    if (source.scale, source.zero_point) != (out.scale, out.zero_point):
        raise layer.refuse("input and output have different scales", "pooling keeps the scale")
    kind = "max" if layer.operator.kind == "MAX_POOL_2D" else "average"
    layer.add(
        Pool(
            layer.name,
            (layer.value(0),),
            layer.number(out),
            cast(Literal["max", "average"], kind),
            window(layer, (int(options["kernel_h"]), int(options["kernel_w"]))),
            *layer.clamp(out),
            layer.same_type(source, out),
        )
    )


RULES: Mapping[str, Callable[[Layer], None]] = {
    **dict.fromkeys(_FUNCTIONS, _named),
    "ADD": _binary("add"),
    "AVERAGE_POOL_2D": _pool,
    "DEQUANTIZE": refuse_float,
    "GELU": _gelu_rule,
    "LEAKY_RELU": _leaky,
    "MAX_POOL_2D": _pool,
    "MEAN": _reduction(mean=True),
    "MUL": _binary("mul"),
    "QUANTIZE": quantize,
    "RELU": _clamped(0.0, None),
    "RELU6": _clamped(0.0, 6.0),
    "RELU_N1_TO_1": _clamped(-1.0, 1.0),
    "RSQRT": _rsqrt_rule,
    "SOFTMAX": softmax,
    "SQUARED_DIFFERENCE": _binary("sqdiff"),
    "SUB": _binary("sub"),
    "SUM": _reduction(mean=False),
}
