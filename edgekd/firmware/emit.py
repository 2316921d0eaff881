"""Program → C99: kernels that are used, constants, and straight-line calls."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import UsageError
from edgekd.firmware import program as p
from edgekd.firmware.arena import Arena
from edgekd.firmware.building import limits
from edgekd.firmware.fixed import reduced_multiplier

__all__ = [
    "ABI",
    "Library",
    "Port",
    "check_prefix",
    "emit",
    "guarded",
    "ports",
    "prefixed",
    "real",
]

ABI = 1
"""Version of the C interface: raised when a caller would have to change."""

_ANY, _WIDE = "int8x", "int16w"
"""Element types of kernels for layers that the fast ones cannot compute: factors of one and more,
an upper limit, sums of 16-bit values that need more than 32 bits."""

_SUFFIX = {"int8": "s8", "int16": "s16", _ANY: "s8x", _WIDE: "s16w"}
_TYPE = {"int8": "int8_t", "int16": "int16_t", _ANY: "int8_t", _WIDE: "int16_t"}
_C_TYPES = {
    "int8": "int8_t",
    "int16": "int16_t",
    "int32": "int32_t",
    "int64": "int64_t",
}
_RANGE = {"int8": ("-128", "127"), "int16": ("-32768", "32767")}
_SUMS = {_ANY: ("int32_t", "ekd_scale"), _WIDE: ("int64_t", "ekd_scale_wide")}
# fmt: off
_KEYWORDS = frozenset((
    "auto", "break", "case", "char", "const", "continue", "default", "do",
    "double", "else", "enum", "extern", "float", "for", "goto", "if",
    "inline", "int", "long", "register", "restrict", "return", "short", "signed",
    "sizeof", "static", "struct", "switch", "typedef", "union", "unsigned", "void",
    "volatile", "while", "arena",
))
# fmt: on


@dataclass(frozen=True)
class Library:
    """The C files of one network.

    Attributes:
        texts: Content by path.
        constant_bytes: Bytes of weights and tables.
        weights_crc32: Their checksum.
    """

    texts: Mapping[str, str]
    constant_bytes: int
    weights_crc32: int


@dataclass(frozen=True)
class Port:
    """An input or output of the library.

    Attributes:
        name: C identifier.
        value: What it carries.
    """

    name: str
    value: p.Value

    @property
    def macro(self) -> str:
        """Its name in macros."""
        return self.name.upper()


def check_prefix(prefix: str) -> str:
    """Return a prefix for C symbols as it is.

    Raises:
        UsageError: It is no C identifier in lower case.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,30}", prefix):
        raise UsageError(
            f"{prefix!r} cannot begin the names of C functions",
            at="setting: prefix",
            hint="use lower case letters, digits and '_', such as battery",
        )
    return prefix


def ports(program: p.Program, names: Mapping[int, str] | None = None) -> tuple[list[Port], ...]:
    """Return inputs and outputs with names that C accepts.

    Args:
        program: The program.
        names: Preferred names by value.
    """
    taken: set[str] = set()

    def port(number: int, default: str) -> Port:
        value = program.values[number]
        wanted = (names or {}).get(number) or default
        name = re.sub(r"\W+", "_", wanted.split(":")[0]).strip("_").lower() or default
        if name[0].isdigit() or name in _KEYWORDS:
            name = f"x_{name}"
        base, count = name, 1
        while name in taken:
            count += 1
            name = f"{base}_{count}"
        taken.add(name)
        return Port(name, value)

    return (
        [port(number, f"input_{i}") for i, number in enumerate(program.inputs)],
        [port(number, f"output_{i}") for i, number in enumerate(program.outputs)],
    )


# --- text --------------------------------------------------------------------------------------


def _array(values: NDArray[Any]) -> str:
    """Return an initialiser, sixteen values a line."""
    flat = [_literal(int(value), values.dtype.name) for value in values.ravel()]
    lines = [", ".join(flat[at : at + 16]) for at in range(0, len(flat), 16)]
    return "{\n    " + ",\n    ".join(lines) + "}"


def _literal(value: int, dtype: str) -> str:
    if dtype == "int64":
        return f"INT64_C({value})" if value > -(2**63) else "INT64_MIN"
    return str(value) if value > -(2**31) else "INT32_MIN"


def _braces(values: Iterable[int]) -> str:
    return "{" + ", ".join(str(int(value)) for value in values) + "}"


def _comment(text: str) -> str:
    """Return text that is safe in a comment."""
    plain = re.sub(r"[^\x20-\x7e]", "?", text).replace("*/", "* /").replace("/*", "/ *")
    return plain if len(plain) <= 90 else plain[:40] + " ... " + plain[-45:]


# --- kernels -----------------------------------------------------------------------------------


def _source(name: str) -> str:
    return (files("edgekd.firmware") / "kernels" / name).read_text(encoding="utf-8")


def _typed(text: str, dtype: str) -> str:
    """Fill a kernel's template for one element type."""
    low, high = _RANGE[dtype.rstrip("wx")]
    full = "" if dtype == "int8" else "_full"
    sums = _SUMS.get(dtype, ("", ""))
    for mark, value in (
        ("elem_t", _TYPE[dtype]),
        ("sum_t", sums[0]),
        ("ekd_scale_sum", sums[1]),
        ("ekd_scale_square", f"ekd_scale{full}"),
        ("ekd_product_square", "ekd_product" if full else "ekd_product30"),
        ("ELEM_MIN", low),
        ("ELEM_MAX", high),
    ):
        text = re.sub(rf"\b{mark}\b", value, text)
    return re.sub(r"_elem\b", f"_{_SUFFIX[dtype]}", text).replace(
        "weighted_elem_t", f"weighted_{_SUFFIX[dtype]}_t"
    )


_RESULTS = {
    "add": "x + y",
    "sub": "x - y",
    "rsub": "y - x",
    "sqdiff": "(x - y) * (x - y)",
}
_SCALED = """const int32_t first = (int32_t)((uint32_t)(*left - p->a_zero) << p->left);
          const int32_t second = (int32_t)((uint32_t)(*right - p->b_zero) << p->left);
          const int32_t x = ekd_scale(first, p->a_multiplier, p->a_shift);
          const int32_t y = ekd_scale(second, p->b_multiplier, p->b_shift);
          const int32_t value = {scale}({result}, p->multiplier, p->shift);"""
_MULTIPLIED = """const int32_t product = (*left - p->a_zero) * (*right - p->b_zero);
          const int32_t value = ekd_scale_square(product, p->multiplier, p->shift);"""
_DOWN_CONSTANTS = """const int32_t b_multiplier = p->b_multiplier, b_round = p->b_round;
  const int32_t b_nudge = p->b_nudge, b_bits = p->b_bits;"""
_DOWN_SCALED = """const int32_t x = {half};
          const int32_t high = ekd_product30(*right * {one} + b_offset, b_multiplier);
          const int32_t y = (high + b_round + ((high >> 31) & b_nudge)) >> b_bits;
          int32_t value = {product}({result}, multiplier);"""
_DOWN_MULTIPLIED = """const int32_t product = (*left + a_offset) * (*right + b_offset);
          int32_t value = ekd_product_square(product, multiplier);"""


def _operation(kind: str) -> str:
    """Return what one element of a binary kernel does."""
    if kind == "mul":
        return _MULTIPLIED
    scale = "ekd_scale_square" if kind == "sqdiff" else "ekd_scale"
    return _SCALED.format(scale=scale, result=_RESULTS[kind])


def _down(kind: str, left: int) -> tuple[str, str]:
    """Return the same where every factor is below one, and the constants it needs.

    Args:
        kind: ``mul``, or a row of `_RESULTS`.
        left: Bits that operands are shifted first.
    """
    if kind == "mul":
        return _DOWN_MULTIPLIED, ""
    half = f"*left * {1 << left >> 1} + a_offset" if left else "(*left + a_offset + 1) >> 1"
    product = "ekd_product_square" if kind == "sqdiff" else "ekd_product30"
    text = _DOWN_SCALED.format(half=half, one=1 << left, product=product, result=_RESULTS[kind])
    return text, _DOWN_CONSTANTS


@dataclass
class _Kernels:
    """Texts of the kernels that are used, each once, what is called before what calls."""

    texts: dict[str, str] = field(default_factory=dict)

    def need(self, file: str, dtype: str | None = None) -> None:
        key = f"{file} {dtype or ''}"
        if key not in self.texts:
            text = _source(file)
            self.texts[key] = _typed(text, dtype) if dtype else text

    def sums(self, dtype: str) -> None:
        self.need("words.c")
        self.need(f"sum_{_SUFFIX[dtype]}.c")

    def matmul(self, dtype: str) -> None:
        self.need("words.c")
        if dtype == "int8":
            self.sums(dtype)
            self.need("dot4_s8.c")
            self.need("dot_s8.c")
        else:
            self.need("dot_wide.c")
        self.need(f"matmul_{_SUFFIX[dtype]}.c")

    def weighted(self, kind: str) -> None:
        suffix = _SUFFIX[kind]
        self.need("words.c")
        if kind in ("int16", _WIDE):
            self.need("halves_s16.c")
        if kind == _WIDE:
            self.need("dot4_s16.c")
        self.need(f"dot_{suffix.rstrip('wx')}.c")
        if kind in (_ANY, _WIDE):
            self.need(f"channels_{suffix}.c")
        else:
            self.need(f"packed_{suffix}.c")
            self.need("channels.c", kind)

    def binary(self, kind: str, dtype: str) -> None:
        key = f"binary.c {kind} {dtype}"
        if key not in self.texts:
            text = _source("binary.c").replace("OPERATION", _operation(kind)).replace("KIND", kind)
            self.texts[key] = _typed(text, dtype)

    def down(self, kind: str, dtype: str, left: int) -> None:
        key = f"binary_down.c {kind} {dtype}"
        if key not in self.texts:
            operation, constants = _down(kind, left)
            text = _source("binary_down.c").replace("OPERATION", operation)
            text = text.replace("  CONSTANTS\n", f"  {constants}\n" if constants else "")
            self.texts[key] = _typed(text.replace("KIND", kind), dtype)

    def rescale(self, before: str, after: str) -> None:
        text = _source("rescale.c")
        for mark, value in (
            ("FROM_TO", f"{_SUFFIX[before]}_{_SUFFIX[after]}"),
            ("from_t", _TYPE[before]),
            ("to_t", _TYPE[after]),
        ):
            text = text.replace(mark, value)
        self.texts[f"rescale.c {before} {after}"] = text

    def prototypes(self) -> list[str]:
        joined = "\n".join(self.texts.values())
        found = re.findall(r"^(void ekd_\w+\([^{]*\)) \{", joined, re.MULTILINE)
        return [re.sub(r"\s+", " ", text) + ";" for text in found]


# --- constants and calls -----------------------------------------------------------------------


@dataclass
class _Writer:
    """Collects what one library is made of."""

    program: p.Program
    arena: Arena
    inputs: list[Port]
    outputs: list[Port]
    kernels: _Kernels = field(default_factory=_Kernels)
    weights: list[tuple[str, NDArray[Any], str]] = field(default_factory=list)
    params: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    _known: dict[tuple[str, bytes], str] = field(default_factory=dict)

    def constant(self, values: NDArray[Any], label: str, comment: str) -> str:
        """Return the C name of an array; equal arrays are written once."""
        key = (values.dtype.name, np.ascontiguousarray(values).tobytes())
        if key not in self._known:
            name = f"ekd_{label}{len(self.weights)}"
            self._known[key] = name
            self.weights.append((name, values.ravel(), comment))
        return self._known[key]

    def param(self, kind: str, text: str) -> str:
        """Return the C name of a structure of parameters."""
        name = f"{kind.removesuffix('_t')}{len(self.params)}"
        self.params.append(f"static const ekd_{kind} {name} = {text};")
        return name

    def place(self, number: int, written: bool = False) -> str:
        """Return the C expression of a value's address."""
        value = self.program.values[number]
        if number in self.program.inputs:
            return self.inputs[self.program.inputs.index(number)].name
        if number in self.program.outputs:
            return self.outputs[self.program.outputs.index(number)].name
        if value.data is not None:
            return self.constant(value.data, "c", value.name)
        const = "" if written else "const "
        return f"({const}{_TYPE[value.dtype]} *)(void *)(a + {self.arena.values[number]})"

    def scratch(self, moment: int, ctype: str) -> str:
        return f"({ctype} *)(void *)(a + {self.arena.scratch[moment]})"

    def call(self, function: str, *arguments: str | int) -> None:
        self.calls.append(f"  ekd_{function}({', '.join(str(item) for item in arguments)});")


def _window(window: p.Window) -> str:
    return _braces(getattr(window, item.name) for item in fields(window))


def _kind(step: p.Weighted) -> str:
    """Return the element type of a layer's kernel: the fast one where it computes the same."""
    fast = step.narrow and step.high == limits(step.dtype)[1] and not isinstance(step, p.Depthwise)
    return step.dtype if fast else {"int8": _ANY, "int16": _WIDE}[step.dtype]


def _weighted(writer: _Writer, step: p.Weighted, kind: str) -> str:
    """Write weights, biases and factors of a layer."""
    channels = len(step.bias)
    ends = [step.weights.size // channels, channels, step.in_zero]
    multiplier, layer = step.multiplier, step.layer
    if step.dtype == "int16":
        multiplier = reduced_multiplier(multiplier)
    if kind in (_ANY, _WIDE):
        bias = step.bias.astype(np.int64 if kind == _WIDE else np.int32)
        names = [
            writer.constant(step.weights.astype(np.int8), "w", layer),
            writer.constant(bias, "b", layer),
            writer.constant(multiplier.astype(np.int32), "m", layer),
            writer.constant(step.shift.astype(np.int8), "s", layer),
        ]
        numbers = [*ends, step.out_zero, step.low, step.high]
    else:
        # A product of 8 bits has lost 31 bits already, one of 16 bits none of its 15.
        right = (-1 if kind == "int8" else 14) - step.shift.astype(np.int64)
        rows = step.weights.reshape(channels, -1).astype(np.int8)
        pairs = np.stack([step.bias, multiplier], 1).astype(np.int32)
        names = [
            writer.constant(_packed(rows, kind), "w", layer),
            writer.constant(_in_fours(pairs), "f", layer),
            writer.constant(right.astype(np.int8), "s", layer),
        ]
        numbers = [*ends, 2 * step.out_zero + 1, step.low]
    text = "{" + ", ".join([*names, *map(str, numbers)]) + "}"
    return writer.param(f"weighted_{_SUFFIX[kind]}_t", text)


def _in_fours(rows: NDArray[Any]) -> NDArray[Any]:
    """Turn every four rows (rows, columns) into columns, one after another; what is left stays."""
    whole = len(rows) // 4 * 4
    turned = rows[:whole].reshape(-1, 4, rows.shape[1]).transpose(0, 2, 1)
    return np.concatenate([turned.ravel(), rows[whole:].ravel()])


def _packed(rows: NDArray[np.int8], kind: str) -> NDArray[np.int8]:
    """Return weights (channels, depth) in the order in which the fast kernels read them."""
    order = [0, 1, 2, 3] if kind == "int8" else [0, 2, 1, 3]
    fours, depth = len(rows) // 4 * 4, rows.shape[1] // 4 * 4
    parts: list[NDArray[np.int8]] = []
    for at in range(0, fours, 4):
        group = rows[at : at + 4]
        blocks = group[:, :depth].reshape(4, -1, 4)[..., order].transpose(1, 0, 2)
        parts += [blocks.ravel(), group[:, depth:].T.ravel()]
    return np.concatenate([*parts, rows[fours:].ravel()])


def _window_call(name: str) -> Callable[[_Writer, Any, int], None]:
    def write(writer: _Writer, step: p.Conv | p.Depthwise, moment: int) -> None:
        kind = _kind(step)
        if name == "conv":
            writer.kernels.weighted(kind)
        writer.kernels.need("column.c", kind)
        writer.kernels.need(f"{name}.c", kind)
        writer.call(
            f"{name}_{_SUFFIX[kind]}",
            f"&{_weighted(writer, step, kind)}",
            f"&{writer.param('window_t', _window(step.window))}",
            writer.place(step.inputs[0]),
            writer.place(step.output, written=True),
            writer.scratch(moment, _TYPE[step.dtype]),
        )

    return write


def _dense(writer: _Writer, step: p.Dense, moment: int) -> None:
    del moment
    kind = _kind(step)
    writer.kernels.weighted(kind)
    writer.kernels.need("dense.c", kind)
    writer.call(
        f"dense_{_SUFFIX[kind]}",
        f"&{_weighted(writer, step, kind)}",
        step.rows,
        writer.place(step.inputs[0]),
        writer.place(step.output, written=True),
    )


def _matmul(writer: _Writer, step: p.MatMul, moment: int) -> None:
    suffix, wide = _SUFFIX[step.dtype], step.dtype == "int16"
    writer.kernels.matmul(step.dtype)
    multiplier = int(reduced_multiplier(step.multiplier)) if wide else step.multiplier
    numbers = [step.batch, step.rows, step.depth, step.columns, int(step.transposed)]
    numbers += [step.a_zero, step.b_zero, step.out_zero, multiplier, step.shift]
    scratch = "NULL"
    if step.scratch:
        scratch = writer.scratch(moment, "int16_t" if wide else "int32_t")
    writer.call(
        f"matmul_{suffix}",
        f"&{writer.param('matmul_t', _braces(numbers))}",
        *(writer.place(number) for number in step.inputs),
        writer.place(step.output, written=True),
        scratch,
    )


def _binary(writer: _Writer, step: p.Binary, moment: int) -> None:
    del moment
    if _goes_down(step):
        _binary_down(writer, step)
        return
    writer.kernels.binary(step.kind, step.dtype)
    parts = [_braces(part) for part in (step.dims, step.strides_a, step.strides_b)]
    numbers = [step.a_zero, step.b_zero, step.out_zero, step.left]
    numbers += [number for factor in step.factors for number in factor]
    text = "{" + ", ".join([*parts, *map(str, [*numbers, step.low, step.high])]) + "}"
    writer.call(
        f"{step.kind}_{_SUFFIX[step.dtype]}",
        f"&{writer.param('binary_t', text)}",
        *(writer.place(number) for number in step.inputs),
        writer.place(step.output, written=True),
    )


_HALF = (2**30, 0)


def _goes_down(step: p.Binary) -> bool:
    """Tell whether the kernel for factors below one computes the same, which nearly all can use."""
    if (step.low, step.high) != limits(step.dtype) or not -28 <= step.factors[2][1] < 0:
        return False
    if abs(step.out_zero) << -step.factors[2][1] >= 2**29:
        return False
    first, second, _ = step.factors
    return step.kind == "mul" or (_HALF in (first, second) and first[1] <= 0 and second[1] <= 0)


def _binary_down(writer: _Writer, step: p.Binary) -> None:
    kind, operands = str(step.kind), [0, 1]
    if kind != "mul" and step.factors[0] != _HALF:
        operands, kind = [1, 0], "rsub" if kind == "sub" else kind
    writer.kernels.down(kind, step.dtype, step.left)
    strides, zeros = (step.strides_a, step.strides_b), (step.a_zero, step.b_zero)
    ones = [1, 1] if kind == "mul" else [max(1 << step.left >> 1, 1), 1 << step.left]
    offsets = [-zeros[o] * one for o, one in zip(operands, ones, strict=True)]
    (multiplier, shift), bits = step.factors[operands[1]], -step.factors[2][1]
    second = [multiplier, 1 << -shift >> 1, -1 if shift < 0 else 0, -shift]
    result = [step.factors[2][0], (1 << bits >> 1) + (step.out_zero << bits), bits]
    parts = [_braces(part) for part in (step.dims, *(strides[o] for o in operands))]
    text = "{" + ", ".join([*parts, *map(str, [*offsets, *second, *result])]) + "}"
    writer.call(
        f"{kind}_down_{_SUFFIX[step.dtype]}",
        f"&{writer.param('down_t', text)}",
        *(writer.place(step.inputs[o]) for o in operands),
        writer.place(step.output, written=True),
    )


def _lookup(writer: _Writer, step: p.Lookup, moment: int) -> None:
    del moment
    suffix = _SUFFIX[step.dtype]
    writer.kernels.need(f"lookup_{suffix}.c")
    writer.call(
        f"lookup_{suffix}",
        writer.constant(step.table, "t", step.layer),
        writer.program.values[step.output].count,
        writer.place(step.inputs[0]),
        writer.place(step.output, written=True),
    )


def _rescale(writer: _Writer, step: p.Rescale, moment: int) -> None:
    del moment
    writer.kernels.rescale(step.from_dtype, step.to_dtype)
    count = writer.program.values[step.output].count
    numbers = [count, step.in_zero, step.out_zero, step.multiplier, step.shift, step.low, step.high]
    writer.call(
        f"rescale_{_SUFFIX[step.from_dtype]}_{_SUFFIX[step.to_dtype]}",
        f"&{writer.param('rescale_t', _braces(numbers))}",
        writer.place(step.inputs[0]),
        writer.place(step.output, written=True),
    )


def _rsqrt(writer: _Writer, step: p.Rsqrt, moment: int) -> None:
    del moment
    writer.kernels.need("rsqrt_s16.c")
    writer.call(
        "rsqrt_s16",
        f"UINT64_C({step.factor})",
        writer.program.values[step.output].count,
        writer.place(step.inputs[0]),
        writer.place(step.output, written=True),
    )


def _mean(writer: _Writer, step: p.Mean, moment: int) -> None:
    del moment
    writer.kernels.sums(step.dtype)
    writer.kernels.need("mean.c", step.dtype)
    numbers = [step.outer, step.count, step.inner, step.in_zero, step.out_zero]
    text = _braces([*numbers, step.multiplier, step.shift])
    writer.call(
        f"mean_{_SUFFIX[step.dtype]}",
        f"&{writer.param('mean_t', text)}",
        writer.place(step.inputs[0]),
        writer.place(step.output, written=True),
    )


def _softmax(writer: _Writer, step: p.Softmax, moment: int) -> None:
    del moment
    suffix = _SUFFIX[step.dtype]
    writer.kernels.need(f"softmax_{suffix}.c")
    arguments: list[str | int] = [writer.constant(step.exp, "t", step.layer)]
    if step.dtype == "int16":
        inverse = writer.constant(step.inverse, "t", step.layer)
        arguments += [inverse, step.multiplier, step.shift]
    arguments += [step.rows, step.depth, writer.place(step.inputs[0])]
    writer.call(f"softmax_{suffix}", *arguments, writer.place(step.output, written=True))


def _move(writer: _Writer, step: p.Move, moment: int) -> None:
    del moment
    writer.kernels.need("move.c", step.dtype)
    fill = 6 - len(step.dims)
    dims, strides = (1,) * fill + step.dims, (0,) * fill + step.strides
    source = writer.place(step.inputs[0])
    writer.call(
        f"move_{_SUFFIX[step.dtype]}",
        f"&{writer.param('move_t', '{' + _braces(dims) + ', ' + _braces(strides) + '}')}",
        f"{source} + {step.offset}" if step.offset else source,
        writer.place(step.output, written=True),
    )


def _pad(writer: _Writer, step: p.Pad, moment: int) -> None:
    del moment
    writer.kernels.need("pad.c", step.dtype)
    parts = [_braces(part) for part in (step.in_dims, step.out_dims, step.before)]
    writer.call(
        f"pad_{_SUFFIX[step.dtype]}",
        f"&{writer.param('pad_t', '{' + ', '.join([*parts, str(step.value)]) + '}')}",
        writer.place(step.inputs[0]),
        writer.place(step.output, written=True),
    )


def _concat(writer: _Writer, step: p.Concat, moment: int) -> None:
    del moment
    writer.kernels.need("chunks.c")
    size, at = np.dtype(step.dtype).itemsize, 0
    for number, chunk in zip(step.inputs, step.chunks, strict=True):
        target = writer.place(step.output, written=True)
        writer.call(
            "chunks",
            step.outer,
            chunk * size,
            sum(step.chunks) * size,
            writer.place(number),
            f"{target} + {at}" if at else target,
        )
        at += chunk


def _pool(writer: _Writer, step: p.Pool, moment: int) -> None:
    del moment
    writer.kernels.need(f"pool_{step.kind}.c", step.dtype)
    text = "{" + f"{_window(step.window)}, {step.low}, {step.high}" + "}"
    writer.call(
        f"pool_{step.kind}_{_SUFFIX[step.dtype]}",
        f"&{writer.param('pool_t', text)}",
        writer.place(step.inputs[0]),
        writer.place(step.output, written=True),
    )


def _resize(writer: _Writer, step: p.Resize, moment: int) -> None:
    del moment
    writer.kernels.need("resize.c", step.dtype)
    numbers = [step.in_h, step.in_w, step.channels, step.out_h, step.out_w]
    text = _braces([*numbers, step.step_y, step.step_x, int(step.half_pixel)])
    writer.call(
        f"resize_{_SUFFIX[step.dtype]}",
        f"&{writer.param('resize_t', text)}",
        writer.place(step.inputs[0]),
        writer.place(step.output, written=True),
    )


_WRITE: Mapping[type[p.Step], Callable[[_Writer, Any, int], None]] = {
    p.Binary: _binary,
    p.Concat: _concat,
    p.Conv: _window_call("conv"),
    p.Dense: _dense,
    p.Depthwise: _window_call("depthwise"),
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


# --- files -------------------------------------------------------------------------------------


def emit(program: p.Program, arena: Arena, prefix: str, names: Mapping[int, str]) -> Library:
    """Return the library's C files; the same program gives the same bytes.

    Args:
        program: What to write.
        arena: Where its values lie.
        prefix: Begins every C symbol.
        names: Preferred names of inputs and outputs, by value.
    """
    check_prefix(prefix)
    inputs, outputs = ports(program, names)
    writer = _Writer(program, arena, inputs, outputs)
    for moment, step in enumerate(program.steps):
        writer.calls.append(f"  /* {_comment(step.layer)} */")
        _WRITE[type(step)](writer, step, moment)
    texts = {
        f"include/{prefix}.h": _header(writer),
        f"src/{prefix}.c": _model(writer),
        f"src/{prefix}_kernels.h": _kernels_header(writer.kernels),
        f"src/{prefix}_kernels.c": _kernels_source(writer.kernels),
        f"src/{prefix}_weights.h": _weights_header(writer.weights),
        f"src/{prefix}_weights.c": _weights_source(writer.weights),
    }
    arrays = [values for _, values, _ in writer.weights]
    return Library(
        {path: prefixed(text, prefix) for path, text in texts.items()},
        sum(values.nbytes for values in arrays),
        weights_crc32(arrays),
    )


def prefixed(text: str, prefix: str) -> str:
    """Return a template with the names of one library."""
    text = re.sub(r"\bekd(_|\.h)", rf"{prefix}\1", text)
    return text.replace("EKD_", f"{prefix.upper()}_")


def guarded(name: str, body: Sequence[str]) -> str:
    """Return a header's text, guarded against being read twice."""
    guard = f"EKD_{name}_H"
    lines = [f"#ifndef {guard}", f"#define {guard}", "", *body, "", f"#endif /* {guard} */"]
    return "\n".join(lines) + "\n"


def _kernels_header(kernels: _Kernels) -> str:
    body = ["#include <stddef.h>", "#include <stdint.h>", "", _source("base.h")]
    return guarded("KERNELS", [*body, *kernels.prototypes()])


def _kernels_source(kernels: _Kernels) -> str:
    head = ['#include "ekd_kernels.h"', "#include <string.h>", ""]
    return "\n".join(head) + "\n" + "\n".join(kernels.texts.values())


def _weights_header(weights: Sequence[tuple[str, NDArray[Any], str]]) -> str:
    body = ["#include <stdint.h>", ""]
    body += [
        f"extern const {_C_TYPES[values.dtype.name]} {name}[{max(values.size, 1)}];"
        for name, values, _ in weights
    ]
    return guarded("WEIGHTS", body)


def weights_crc32(weights: Sequence[NDArray[Any]]) -> int:
    """Return the checksum of constants in their order, little-endian."""
    crc = 0
    for values in weights:
        crc = zlib.crc32(values.astype(values.dtype.newbyteorder("<")).tobytes(), crc)
    return crc


def _weights_source(weights: Sequence[tuple[str, NDArray[Any], str]]) -> str:
    lines = [
        '#include "ekd_weights.h"',
        "",
        '#include "ekd.h"',
        "",
        "/* -DEKD_WEIGHTS_SECTION='\".weights\"' puts them into a section of their own, which can",
        "   be updated without the code. */",
        "#if defined(EKD_WEIGHTS_SECTION)",
        "#define EKD_CONST __attribute__((section(EKD_WEIGHTS_SECTION), aligned(16)))",
        "#elif defined(__GNUC__)",
        "#define EKD_CONST __attribute__((aligned(16)))",
        "#else",
        "#define EKD_CONST",
        "#endif",
    ]
    for name, values, comment in weights:
        ctype = _C_TYPES[values.dtype.name]
        lines += [
            "",
            f"/* {_comment(comment)} */",
            f"EKD_CONST const {ctype} {name}[{max(values.size, 1)}] = {_array(values)};",
        ]
    return "\n".join([*lines, "", *_crc_function(weights)]) + "\n"


def _crc_function(weights: Sequence[tuple[str, NDArray[Any], str]]) -> list[str]:
    if not weights:
        return ["uint32_t ekd_weights_crc32(void) { return 0; }"]
    blocks = [f"    {{{name}, {values.nbytes}}}" for name, values, _ in weights]
    return [
        "uint32_t ekd_weights_crc32(void) {",
        "  static const struct {",
        "    const void *at;",
        "    uint32_t bytes;",
        f"  }} blocks[{len(blocks)}] = {{",
        ",\n".join(blocks) + "};",
        "  uint32_t crc = 0xFFFFFFFFu, block, at, bit;",
        f"  for (block = 0; block < {len(blocks)}; block++) {{",
        "    const uint8_t *bytes = (const uint8_t *)blocks[block].at;",
        "    for (at = 0; at < blocks[block].bytes; at++) {",
        "      crc ^= bytes[at];",
        "      for (bit = 0; bit < 8; bit++) {",
        "        crc = (crc >> 1) ^ (0xEDB88320u & (0u - (crc & 1u)));",
        "      }",
        "    }",
        "  }",
        "  return ~crc;",
        "}",
    ]


def _signature(inputs: Sequence[Port], outputs: Sequence[Port]) -> str:
    arguments = ["void *arena"]
    arguments += [f"const {_TYPE[port.value.dtype]} *{port.name}" for port in inputs]
    arguments += [f"{_TYPE[port.value.dtype]} *{port.name}" for port in outputs]
    return f"int ekd_invoke({', '.join(arguments)})"


def _model(writer: _Writer) -> str:
    everything = [*writer.inputs, *writer.outputs]
    empty = " || ".join(f"{name} == NULL" for name in ["arena", *(q.name for q in everything)])
    lines = [
        '#include "ekd.h"',
        "",
        '#include "ekd_kernels.h"',
        '#include "ekd_weights.h"',
        "",
        *writer.params,
        "",
        f"{_signature(writer.inputs, writer.outputs)} {{",
        "  uint8_t *const a = (uint8_t *)arena;",
        f"  if ({empty}) return EKD_ERROR_NULL;",
        "  if (((uintptr_t)arena & (EKD_ARENA_ALIGN - 1u)) != 0) return EKD_ERROR_ALIGN;",
        "  (void)a;",
        *writer.calls,
        "  return EKD_OK;",
        "}",
        "",
        *_table("inputs", writer.inputs),
        *_table("outputs", writer.outputs),
    ]
    return "\n".join(lines) + "\n"


def _table(kind: str, of: Sequence[Port]) -> list[str]:
    rows = []
    for port in of:
        value = port.value
        shape = list(value.shape)[:6] + [0] * (6 - len(value.shape))
        rows.append(
            f'    {{"{port.name}", {len(value.shape)}, {_braces(shape)}, {value.count}, '
            f"{value.bytes // value.count}, {real(value.scale)}, {value.zero}}}"
        )
    return [f"const ekd_port_t ekd_{kind}[{len(of)}] = {{", ",\n".join(rows) + "};", ""]


def real(value: float) -> str:
    """Return a float literal that C reads as the same float32."""
    text = repr(float(np.float32(value)))
    return text + ("f" if "." in text or "e" in text else ".0f")


def _header(writer: _Writer) -> str:
    inputs, outputs = writer.inputs, writer.outputs
    crc = weights_crc32([values for _, values, _ in writer.weights])
    body = [
        "/* Written by edgekd: a quantised network as plain C99. No allocation, no static state:",
        "   every call works in the arena that its caller owns. */",
        "#include <stddef.h>",
        "#include <stdint.h>",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        f"#define EKD_ABI {ABI}",
        f"#define EKD_ARENA_BYTES {writer.arena.size}u",
        "#define EKD_ARENA_ALIGN 4u",
        f"#define EKD_MACS {writer.program.macs}",
        f"#define EKD_WEIGHTS_CRC32 0x{crc:08x}u",
        f"#define EKD_INPUTS {len(inputs)}",
        f"#define EKD_OUTPUTS {len(outputs)}",
        "",
        "#define EKD_OK 0",
        "#define EKD_ERROR_NULL 1",
        "#define EKD_ERROR_ALIGN 2",
        "",
        "/* real = scale * (integer - zero point) */",
        "typedef struct {",
        "  const char *name;",
        "  int32_t rank;",
        "  int32_t shape[6];",
        "  int32_t count;",
        "  int32_t element_bytes;",
        "  float scale;",
        "  int32_t zero_point;",
        "} ekd_port_t;",
        "",
        *(line for port in [*inputs, *outputs] for line in _port_macros(port)),
        f"extern const ekd_port_t ekd_inputs[{len(inputs)}];",
        f"extern const ekd_port_t ekd_outputs[{len(outputs)}];",
        "",
        "/* Runs the network once.",
        "   arena: EKD_ARENA_BYTES, aligned to EKD_ARENA_ALIGN; its content need not be kept.",
        "   Returns EKD_OK, or which argument is wrong. Re-entrant with an arena per caller. */",
        f"{_signature(inputs, outputs)};",
        "",
        "/* Checksum of the weights as they are now; a good image gives EKD_WEIGHTS_CRC32. */",
        "uint32_t ekd_weights_crc32(void);",
        "",
        *_helpers(inputs, outputs),
        "#ifdef __cplusplus",
        "}",
        "#endif",
    ]
    return guarded("LIBRARY", body)


def _port_macros(port: Port) -> list[str]:
    value = port.value
    shape = " x ".join(map(str, value.shape))
    name = f"EKD_{port.macro}"
    return [
        f"/* {port.name}: {shape}, {value.dtype} */",
        f"#define {name}_COUNT {value.count}",
        f"#define {name}_SCALE {real(value.scale)}",
        f"#define {name}_ZERO {value.zero}",
        "",
    ]


def _helpers(inputs: Sequence[Port], outputs: Sequence[Port]) -> list[str]:
    lines = ["/* Halves are rounded away from zero; values outside the range saturate. */"]
    for port in inputs:
        low, high = _RANGE[port.value.dtype]
        kind, name = _TYPE[port.value.dtype], f"EKD_{port.macro}"
        lines += [
            f"static inline {kind} ekd_quantize_{port.name}(float real) {{",
            f"  const float steps = real / {name}_SCALE;",
            f"  if (!(steps > (float)({low} - {name}_ZERO))) return {low};",
            f"  if (!(steps < (float)({high} - {name}_ZERO))) return {high};",
            f"  return ({kind})((int32_t)(steps + (steps < 0.0f ? -0.5f : 0.5f)) + {name}_ZERO);",
            "}",
            "",
        ]
    for port in outputs:
        kind, name = _TYPE[port.value.dtype], f"EKD_{port.macro}"
        lines += [
            f"static inline float ekd_dequantize_{port.name}({kind} integer) {{",
            f"  return {name}_SCALE * (float)(integer - {name}_ZERO);",
            "}",
            "",
        ]
    return lines
