"""Fixed-point arithmetic of TensorFlow Lite's reference kernels, on integers.

A real factor is an integer ``multiplier`` in Q0.31 and a power of two ``shift``; a product is
rounded twice (half up at bit 31, then half away from zero). Everything here is exact: the C
kernels do the same with 32 and 64 bits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["exp_table", "high_product", "quantize_factor", "reciprocal", "rescale", "rescale_wide"]

Integers = NDArray[np.int64]

_ONE = 2**31 - 1


def quantize_factor(factor: float) -> tuple[int, int]:
    """Return (multiplier, shift) with factor ≈ multiplier · 2^(shift − 31).

    Factors below 2⁻³¹ become zero, as TensorFlow Lite has them.
    """
    if factor == 0.0:
        return 0, 0
    fraction, shift = math.frexp(factor)
    multiplier = _round_away(fraction * 2**31)
    if multiplier == 2**31:
        multiplier, shift = multiplier // 2, shift + 1
    if shift < -31:
        return 0, 0
    return (_ONE, 30) if shift > 30 else (multiplier, shift)


def _round_away(value: float) -> int:
    return math.floor(abs(value) + 0.5) * (1 if value >= 0 else -1)


def high_product(a: Any, b: Any) -> Integers:
    """Return a·b / 2³¹, halves rounded up; int32 values in, as int64."""
    return (np.asarray(a, np.int64) * np.asarray(b, np.int64) + 2**30) >> 31


def shift_right(value: Any, bits: Any) -> Integers:
    """Return value / 2^bits, halves rounded away from zero."""
    value, bits = np.asarray(value, np.int64), np.asarray(bits, np.int64)
    half = np.where(bits > 0, (1 << bits) >> 1, 0)
    nudge = np.where((bits > 0) & (value < 0), -1, 0)
    return np.asarray((value + half + nudge) >> bits, np.int64)


def rescale(value: Any, multiplier: Any, shift: Any) -> Integers:
    """Multiply 32-bit sums by a factor; what a shift to the left takes out of 32 bits saturates.

    Args:
        value: Sums.
        multiplier: Q0.31, broadcast against ``value``.
        shift: Of the factor; positive is to the left.

    Raises:
        OverflowError: A value is not of 32 bits: C would be undefined.
    """
    value, shift = np.asarray(value, np.int64), np.asarray(shift, np.int64)
    if value.size and (value.max() >= 2**31 or value.min() < -(2**31)):
        raise OverflowError("a sum leaves 32 bits")
    most = np.where(shift >= 0, _ONE >> np.maximum(shift, 0), 2**31)
    left = np.clip(value, -most, most) << np.maximum(shift, 0)
    return shift_right(high_product(left, multiplier), np.maximum(-shift, 0))


def rescale_wide(value: Any, multiplier: Any, shift: Any) -> Integers:
    """Multiply 48-bit sums (16-bit activations) by a factor of which 16 bits are kept."""
    reduced = reduced_multiplier(multiplier)
    total = 15 - np.asarray(shift, np.int64)
    return np.asarray(
        (np.asarray(value, np.int64) * reduced + (np.int64(1) << (total - 1))) >> total
    )


def reduced_multiplier(multiplier: Any) -> Integers:
    """Return the 16-bit form of a multiplier."""
    multiplier = np.asarray(multiplier, np.int64)
    return np.where(multiplier < 0x7FFF0000, (multiplier + 2**15) >> 16, 0x7FFF)


# --- functions by tables: exp(x) for x ≤ 0 and 1 / (1 + x) -------------------------------------


def _mul(a: int, b: int) -> int:
    return (a * b + 2**30) >> 31


def _saturate(value: int) -> int:
    return max(-(2**31), min(_ONE, value))


def _halve(value: int, bits: int) -> int:
    return int(shift_right(value, bits))


_EXP_FACTORS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
"""exp(−2^k) in Q0.31 for k = −2 … 4."""


def _exp_near_zero(a: int) -> int:
    """Return exp(a) in Q0.31 for a in [−1/4, 0): Taylor's series about −1/8."""
    x = a + 2**28
    x2 = _mul(x, x)
    x3, x4 = _mul(x2, x), _mul(x2, x2)
    rest = _halve(_mul(_halve(x4, 2) + x3, 715827883) + x2, 1)
    return 1895147668 + _mul(1895147668, x + rest)


def exp_of_negative(value: int) -> int:
    """Return exp(value) in Q0.31 for a value ≤ 0 in Q5.26."""
    if value == 0:
        return _ONE
    quarter = 2**24
    part = (value & (quarter - 1)) - quarter
    result = _exp_near_zero(_saturate(part * 32))
    remainder = part - value
    for index, factor in enumerate(_EXP_FACTORS):
        if remainder & (1 << (24 + index)):
            result = _mul(result, factor)
    return result


def exp_table(scale: float, beta: float) -> NDArray[np.int32]:
    """Return exp(−d · scale · beta) in Q0.31 for differences d = 0 … 255 of 8-bit logits.

    Differences too large for Q5.26 count as zero, as in the reference kernel.
    """
    multiplier, shift = quantize_factor(min(beta * scale * 2**26, 2.0**31 - 1.0))
    if shift < 0:
        raise ValueError(f"the scale of the logits, {scale:g}, is too small")
    radius = math.floor(31 * 2**26 / 2**shift)
    table = [
        exp_of_negative(int(high_product(-d * 2**shift, multiplier))) if d <= radius else 0
        for d in range(256)
    ]
    return np.array(table, np.int32)


def reciprocal(a: int) -> int:
    """Return 1 / (1 + a) in Q0.31 for a in Q0.31, 0 ≤ a < 1: three steps of Newton's."""
    half = (a + _ONE + 1) // 2
    x = 1515870810 + _mul(half, -1010580540)
    for _ in range(3):
        rest = 2**29 - _mul(half, x)
        x += _saturate(_mul(x, rest) * 4)
    return _saturate(x * 2)
