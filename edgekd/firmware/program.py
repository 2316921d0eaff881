"""What the C does, as data: integer instructions on numbered values.

`edgekd.firmware.lower` makes a program of a graph; `edgekd.firmware.reference` runs it in NumPy
and `edgekd.firmware.emit` writes it as C. Both see the same integers and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Binary",
    "Concat",
    "Conv",
    "Dense",
    "Depthwise",
    "Lookup",
    "MatMul",
    "Mean",
    "Move",
    "Pad",
    "Pool",
    "Program",
    "Rescale",
    "Resize",
    "Rsqrt",
    "Softmax",
    "Step",
    "Value",
    "Window",
]

Element = Literal["int8", "int16"]
Array = NDArray[Any]


@dataclass(frozen=True)
class Value:
    """A tensor of the program, contiguous, row-major.

    Attributes:
        shape: With the batch axis.
        dtype: ``int8`` or ``int16``.
        scale: real = scale · (integer − zero).
        zero: See ``scale``.
        name: For readers.
        data: The constant; None for what is computed or given.
    """

    shape: tuple[int, ...]
    dtype: Element
    scale: float
    zero: int
    name: str
    data: Array | None = None

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size."""
        return self.count * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Window:
    """How a window moves over an image in (height, width, channels) order; batch is one."""

    in_h: int
    in_w: int
    in_c: int
    out_h: int
    out_w: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    pad_top: int
    pad_left: int


@dataclass(frozen=True)
class Step:
    """One instruction.

    Attributes:
        layer: Name of the layer it came from.
        inputs: Values read.
        output: Value written.
    """

    layer: str
    inputs: tuple[int, ...]
    output: int
    in_place: ClassVar[bool] = False
    """Whether the output may overwrite the first input."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of products of matrices and windows."""
        return 0

    @property
    def scratch(self) -> int:
        """Bytes of working memory."""
        return 0


@dataclass(frozen=True)
class Weighted(Step):
    """Weights, and per output channel a bias and a factor.

    ``bias`` contains −zero · Σ weights, so that sums of products need no zero point; a padded
    pixel has the value ``in_zero``.
    """

    weights: Array
    bias: Array
    multiplier: Array
    shift: Array
    in_zero: int
    out_zero: int
    low: int
    high: int
    dtype: Element

    @property
    def narrow(self) -> bool:
        """Whether factors are below one half, and sums and twice the results within 32 bits."""
        if self.dtype == "int8":
            return bool((self.shift < 0).all())
        reach = np.abs(self.bias) + 32768 * np.abs(self._rows().astype(np.int64)).sum(axis=1)
        scaled = reach * np.exp2(np.asarray(self.shift, np.float64))
        return bool((reach < 2**31).all() and (scaled < 2**30).all() and (self.shift <= 14).all())

    def _rows(self) -> Array:
        """Weights as (channels, depth)."""
        return self.weights.reshape(len(self.weights), -1)


@dataclass(frozen=True)
class Conv(Weighted):
    """Convolution; weights (channels, height, width, in)."""

    window: Window

    @property
    def macs(self) -> int:
        return self.window.out_h * self.window.out_w * int(self.weights.size)

    @property
    def scratch(self) -> int:
        return int(self.weights[0].size) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Depthwise(Weighted):
    """One filter a channel; weights (height, width, channels), multiplier ``channels / in_c``."""

    window: Window

    def _rows(self) -> Array:
        return self.weights.reshape(-1, self.weights.shape[-1]).T

    @property
    def macs(self) -> int:
        return self.window.out_h * self.window.out_w * int(self.weights.size)

    @property
    def scratch(self) -> int:
        taps = self.window.kernel_h * self.window.kernel_w * self.window.in_c
        return taps * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Dense(Weighted):
    """Rows times weights (channels, depth)."""

    rows: int

    @property
    def macs(self) -> int:
        return self.rows * int(self.weights.size)


@dataclass(frozen=True)
class MatMul(Step):
    """Product of two computed matrices, batched; (batch, rows, depth) × (batch, depth, columns).

    Attributes:
        transposed: The second is (batch, columns, depth).
    """

    batch: int
    rows: int
    depth: int
    columns: int
    transposed: bool
    a_zero: int
    b_zero: int
    out_zero: int
    multiplier: int
    shift: int
    dtype: Element

    @property
    def macs(self) -> int:
        return self.batch * self.rows * self.depth * self.columns

    @property
    def scratch(self) -> int:
        packed = 0 if self.transposed else self.columns * self.depth
        sums = 4 * self.columns if self.dtype == "int8" else 0
        return sums + packed * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Binary(Step):
    """Element by element, with broadcasting; strides 0 repeat.

    Attributes:
        kind: ``add``, ``sub``, ``mul`` or ``sqdiff`` (squared difference).
        dims: Four extents, outermost first.
        strides_a: Of the first operand, in elements.
        strides_b: Of the second.
        left: Bits that operands are shifted before they are brought to one scale.
        factors: (multiplier, shift) of a, b and the result; of ``mul`` the last alone counts.
    """

    kind: Literal["add", "sub", "mul", "sqdiff"]
    dims: tuple[int, ...]
    strides_a: tuple[int, ...]
    strides_b: tuple[int, ...]
    a_zero: int
    b_zero: int
    out_zero: int
    left: int
    factors: tuple[tuple[int, int], ...]
    low: int
    high: int
    dtype: Element
    in_place = True


@dataclass(frozen=True)
class Lookup(Step):
    """A function of one variable by table: 256 entries by unsigned byte, or 513 interpolated."""

    table: Array
    dtype: Element
    in_place = True


@dataclass(frozen=True)
class Rescale(Step):
    """Another scale and zero point, perhaps another width."""

    multiplier: int
    shift: int
    in_zero: int
    out_zero: int
    low: int
    high: int
    from_dtype: Element
    to_dtype: Element


@dataclass(frozen=True)
class Rsqrt(Step):
    """1 / √x of 16-bit values: round(√(factor / x)); ``factor`` is an integer below 2⁶²."""

    factor: int
    in_place = True


@dataclass(frozen=True)
class Mean(Step):
    """Sum along the middle axis of (outer, count, inner), times a factor: a mean or a sum."""

    outer: int
    count: int
    inner: int
    in_zero: int
    out_zero: int
    multiplier: int
    shift: int
    dtype: Element


@dataclass(frozen=True)
class Softmax(Step):
    """Along the last axis of (rows, depth).

    Attributes:
        exp: 8-bit: exp by difference, Q0.31. 16-bit: 513 entries over [−10, 0].
        inverse: 16-bit: 513 entries of 1 / (1 + x).
        multiplier: 16-bit: brings a difference to the table's scale.
        shift: See ``multiplier``.
    """

    rows: int
    depth: int
    exp: Array
    inverse: Array
    multiplier: int
    shift: int
    dtype: Element
    in_place = True


@dataclass(frozen=True)
class Move(Step):
    """Gather by strides: transposition, slice, strided slice.

    Attributes:
        dims: Up to six extents of the output, outermost first.
        strides: Of the input, in elements; may be negative or 0.
        offset: Of the first element.
    """

    dims: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    dtype: Element


@dataclass(frozen=True)
class Pad(Step):
    """Four axes: extents of input and output, elements before, the value around."""

    in_dims: tuple[int, ...]
    out_dims: tuple[int, ...]
    before: tuple[int, ...]
    value: int
    dtype: Element


@dataclass(frozen=True)
class Concat(Step):
    """Inputs side by side; each has ``outer`` chunks.

    Attributes:
        outer: Number of chunks of every input.
        chunks: Elements of one chunk, per input.
    """

    outer: int
    chunks: tuple[int, ...]
    dtype: Element


@dataclass(frozen=True)
class Pool(Step):
    """Largest or mean value of a window, per channel."""

    kind: Literal["max", "average"]
    window: Window
    low: int
    high: int
    dtype: Element


@dataclass(frozen=True)
class Resize(Step):
    """Bilinear resizing of (height, width, channels); positions in units of 1/1024."""

    in_h: int
    in_w: int
    channels: int
    out_h: int
    out_w: int
    step_y: int
    step_x: int
    half_pixel: bool
    dtype: Element


@dataclass(frozen=True)
class Program:
    """A network ready to run.

    Attributes:
        values: By number.
        steps: In order.
        inputs: Values that the caller gives.
        outputs: Values that the caller gets.
        operators: How many operators of each type the file had.
    """

    values: tuple[Value, ...]
    steps: tuple[Step, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: Mapping[str, int] = field(default_factory=dict)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return sum(step.macs for step in self.steps)
