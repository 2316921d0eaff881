"""Operators that only move elements."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgekd.firmware.building import Layer, limits, row_major
from edgekd.firmware.fixed import quantize_factor, rescale
from edgekd.firmware.graph import Tensor
from edgekd.firmware.program import Concat, Lookup, Move, Pad, Rescale, Resize

__all__ = ["RULES"]

_MOST_AXES = 6


def reshape(layer: Layer) -> None:
    """RESHAPE, SQUEEZE, EXPAND_DIMS: the same elements under another shape."""
    if layer.is_constant(0):
        data = layer.constant(0, "elements").reshape(layer.output().shape)
        layer.building.folded[layer.output().index] = data
        return
    layer.alias(layer.value(0))


def transpose(layer: Layer) -> None:
    """TRANSPOSE; when only axes of extent one move it is a reshape."""
    order = [axis % len(layer.input(0).shape) for axis in layer.integers(1, "axes")]
    if layer.is_constant(0):
        data = np.ascontiguousarray(layer.constant(0, "elements").transpose(order))
        layer.building.folded[layer.output().index] = data
        return
    shape = layer.input(0).shape
    moving = [axis for axis in order if shape[axis] > 1]
    if moving == sorted(moving):
        layer.alias(layer.value(0))
        return
    strides = row_major(shape)
    _move(layer, [shape[axis] for axis in order], [strides[axis] for axis in order], 0)


def _move(
    layer: Layer, dims: Sequence[int], strides: Sequence[int], offset: int, position: int = 0
) -> None:
    """Add a step that gathers by strides, with as few axes as can be."""
    axes: list[tuple[int, int]] = []
    for size, stride in zip(dims, strides, strict=True):
        if size == 1:
            continue
        if axes and axes[-1][1] == stride * size:
            axes[-1] = (axes[-1][0] * size, stride)
        else:
            axes.append((size, stride))
    if len(axes) > _MOST_AXES:
        raise layer.refuse(f"it moves {len(axes)} axes", "use at most six axes")
    axes = axes or [(1, 1)]
    source, out = layer.input(0), layer.output(position)
    if layer.operator.kind == "SPLIT":
        source = layer.input(1)
    layer.same_type(source, out)
    layer.add(
        Move(
            layer.name,
            (layer.number(source),),
            layer.number(out),
            tuple(size for size, _ in axes),
            tuple(stride for _, stride in axes),
            offset,
            layer.element(out),
        )
    )


def cut(layer: Layer) -> None:
    """SLICE."""
    begin = layer.integers(1, "begins")
    strides = row_major(layer.input(0).shape)
    offset = sum(start * stride for start, stride in zip(begin, strides, strict=True))
    _move(layer, layer.output().shape, strides, offset)


def strided_slice(layer: Layer) -> None:
    """STRIDED_SLICE, without new axes and ellipsis."""
    options = {name: int(value) for name, value in layer.operator.options.items()}
    if options["ellipsis_mask"] or options["new_axis_mask"] or options["offset"]:
        raise layer.refuse("it has an ellipsis or new axes", "slice with plain ranges")
    shape = layer.input(0).shape
    ranges = zip(*(layer.integers(i, "ranges") for i in (1, 2, 3)), strict=True)
    strides, dims, moved, offset = row_major(shape), list(shape), list(row_major(shape)), 0
    for axis, (begin, end, step) in enumerate(ranges):
        bit = 1 << axis
        if options["shrink_axis_mask"] & bit:
            taken = range(begin % shape[axis], begin % shape[axis] + 1)
        else:
            first = None if options["begin_mask"] & bit else begin
            last = None if options["end_mask"] & bit else end
            taken = range(*slice(first, last, step).indices(shape[axis]))
        dims[axis], moved[axis] = len(taken), strides[axis] * taken.step
        offset += strides[axis] * taken.start
    _move(layer, dims, moved, offset)


def split(layer: Layer) -> None:
    """SPLIT into equal parts."""
    source = layer.input(1)
    axis = layer.integers(0, "axis")[0] % len(source.shape)
    strides = row_major(source.shape)
    for position, index in enumerate(layer.operator.outputs):
        part = layer.tensor(index)
        _move(layer, part.shape, strides, position * part.shape[axis] * strides[axis], position)


def pad(layer: Layer) -> None:
    """PAD and PADV2 of up to four axes."""
    source, out = layer.input(0), layer.output()
    if len(source.shape) > 4:
        raise layer.refuse(f"it pads {len(source.shape)} axes", "use at most four axes")
    value = out.zero_point
    if layer.operator.kind == "PADV2":
        value = layer.integers(2, "value")[0]
    before = [int(pair[0]) for pair in layer.constant(1, "amounts").reshape(-1, 2)]
    fill = 4 - len(source.shape)
    layer.add(
        Pad(
            layer.name,
            (layer.value(0),),
            layer.number(out),
            (1,) * fill + source.shape,
            (1,) * fill + out.shape,
            (0,) * fill + tuple(before),
            value,
            layer.same_type(source, out),
        )
    )


def concatenate(layer: Layer) -> None:
    """CONCATENATION; an input of another scale is rescaled first."""
    out = layer.output()
    axis = int(layer.operator.options["axis"]) % len(out.shape)
    if layer.operator.options["activation"]:
        raise layer.refuse("it has a fused activation", "put the activation before it")
    _side_by_side(layer, axis)


def pack(layer: Layer) -> None:
    """PACK: inputs side by side along a new axis."""
    axis = int(layer.operator.options["axis"]) % len(layer.output().shape)
    _side_by_side(layer, axis)


def _side_by_side(layer: Layer, axis: int) -> None:
    out = layer.output()
    outer = math.prod(out.shape[:axis])
    tensors = [layer.input(position) for position in range(len(layer.operator.inputs))]
    layer.add(
        Concat(
            layer.name,
            tuple(_in_scale_of(layer, tensor, out) for tensor in tensors),
            layer.number(out),
            outer,
            tuple(tensor.count // outer for tensor in tensors),
            layer.same_type(*tensors, out),
        )
    )


def _in_scale_of(layer: Layer, source: Tensor, out: Tensor) -> int:
    if (source.scale, source.zero_point) == (out.scale, out.zero_point):
        return layer.number(source)
    dtype = layer.element(source)
    turned = layer.temporary(out, source.shape)
    multiplier, shift = quantize_factor(source.scale / out.scale)
    layer.check_sum(255 if dtype == "int8" else 32768, shift, "a value")
    zeros, bounds = (source.zero_point, out.zero_point), limits(dtype)
    number = layer.number(source)
    if dtype == "int8":
        codes = np.arange(256).astype(np.uint8).view(np.int8).astype(np.int64)
        values = rescale(codes - zeros[0], multiplier, shift) + zeros[1]
        table = np.clip(values, *bounds).astype(np.int8)
        layer.add(Lookup(layer.name, (number,), turned, table, dtype))
    else:
        layer.add(
            Rescale(layer.name, (number,), turned, multiplier, shift, *zeros, *bounds, dtype, dtype)
        )
    return turned


def resize(layer: Layer) -> None:
    """RESIZE_BILINEAR."""
    source, out = layer.input(0), layer.output()
    if (source.scale, source.zero_point) != (out.scale, out.zero_point) or source.shape[0] != 1:
        raise layer.refuse("it changes the scale or has a batch", "resize one image at a time")
    align = bool(layer.operator.options["align_corners"])
    steps = []
    for wide, narrow in zip(source.shape[1:3], out.shape[1:3], strict=True):
        less = 1 if align and narrow > 1 else 0
        steps.append((1024 * (wide - less) + (narrow - less) // 2) // (narrow - less))
    layer.add(
        Resize(
            layer.name,
            (layer.value(0),),
            layer.number(out),
            source.shape[1],
            source.shape[2],
            source.shape[3],
            out.shape[1],
            out.shape[2],
            steps[0],
            steps[1],
            bool(layer.operator.options["half_pixel_centers"]),
            layer.same_type(source, out),
        )
    )


RULES: Mapping[str, Callable[[Layer], None]] = {
    "CONCATENATION": concatenate,
    "EXPAND_DIMS": reshape,
    "PACK": pack,
    "PAD": pad,
    "PADV2": pad,
    "RESHAPE": reshape,
    "RESIZE_BILINEAR": resize,
    "SLICE": cut,
    "SPLIT": split,
    "SQUEEZE": reshape,
    "STRIDED_SLICE": strided_slice,
    "TRANSPOSE": transpose,
}
