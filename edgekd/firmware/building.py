"""A program under construction, and what every rule asks of an operator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import UsageError
from edgekd.firmware.graph import Graph, Operator, Tensor
from edgekd.firmware.program import Element, Move, Program, Step, Value

__all__ = ["Building", "Layer", "limits", "row_major"]

_RANGES = {"int8": (-128, 127), "int16": (-32768, 32767)}
_NO_CLAMP, _RELU, _RELU_N1_TO_1, _RELU6 = range(4)


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a contiguous array, in elements."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def limits(dtype: str) -> tuple[int, int]:
    """Return the smallest and the largest value of an integer type."""
    return _RANGES[dtype]


@dataclass
class Building:
    """Values and steps so far.

    Attributes:
        graph: What is lowered.
        values: The program's.
        steps: The program's.
        numbers: Value of each tensor that has one.
        folded: Constants that operators on constants made.
    """

    graph: Graph
    values: list[Value] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    numbers: dict[int, int] = field(default_factory=dict)
    folded: dict[int, NDArray[Any]] = field(default_factory=dict)

    def new(self, value: Value) -> int:
        """Add a value and return its number."""
        self.values.append(value)
        return len(self.values) - 1

    def program(self) -> Program:
        """Return the finished program; each output is written by a step of its own."""
        inputs = tuple(self.numbers[index] for index in self.graph.inputs)
        outputs: list[int] = []
        for index in self.graph.outputs:
            number = self.numbers[index]
            given = number in inputs or self.values[number].data is not None
            outputs.append(self.copy(number) if given or number in outputs else number)
        counts: dict[str, int] = {}
        for operator in self.graph.operators:
            counts[operator.kind] = counts.get(operator.kind, 0) + 1
        return Program(tuple(self.values), tuple(self.steps), inputs, tuple(outputs), counts)

    def copy(self, number: int) -> int:
        """Add a step that copies a value, and return the copy."""
        value = self.values[number]
        twin = self.new(Value(value.shape, value.dtype, value.scale, value.zero, value.name))
        move = Move(value.name, (number,), twin, (value.count,), (1,), 0, value.dtype)
        self.steps.append(move)
        return twin


@dataclass(frozen=True)
class Layer:
    """One operator being lowered: its tensors, and how to refuse it."""

    building: Building
    operator: Operator

    @property
    def name(self) -> str:
        """The layer's name for a reader."""
        return self.tensor(self.operator.outputs[0]).name or f"operator {self.operator.index}"

    def tensor(self, index: int) -> Tensor:
        """Return a tensor of the graph."""
        return self.building.graph.tensors[index]

    def refuse(self, why: str, remedy: str) -> UsageError:
        """Return the error for a layer that cannot become C."""
        operator = self.operator
        return UsageError(
            f"{operator.kind} cannot become C: {why}",
            at=f"operator {operator.index}, layer {self.name!r}",
            hint=remedy,
        )

    def has(self, position: int) -> bool:
        """Tell whether the operator has that input."""
        inputs = self.operator.inputs
        return position < len(inputs) and inputs[position] >= 0

    def input(self, position: int) -> Tensor:
        """Return an input.

        Raises:
            UsageError: The operator has no such input.
        """
        if not self.has(position):
            raise self.refuse(f"it has no input {position}", "convert the model again")
        return self.tensor(self.operator.inputs[position])

    def output(self, position: int = 0) -> Tensor:
        """Return an output."""
        return self.tensor(self.operator.outputs[position])

    def constant(self, position: int, what: str) -> NDArray[Any]:
        """Return the value of an input that must be constant.

        Args:
            position: Which input.
            what: What it is, for the message.

        Raises:
            UsageError: It is computed.
        """
        tensor = self.input(position)
        data = self.building.folded.get(tensor.index, tensor.data)
        if data is None:
            raise self.refuse(f"its {what} are computed", "export with static shapes and weights")
        return data

    def is_constant(self, position: int) -> bool:
        """Tell whether an input is known now."""
        tensor = self.input(position)
        return tensor.data is not None or tensor.index in self.building.folded

    def integers(self, position: int, what: str) -> list[int]:
        """Return a constant input as plain integers."""
        return [int(value) for value in self.constant(position, what).ravel()]

    def element(self, tensor: Tensor) -> Element:
        """Return the element type of an activation.

        Raises:
            UsageError: It is no quantised integer, or it is quantised by channel.
        """
        if tensor.dtype not in _RANGES or tensor.quantization is None:
            raise self.refuse(
                f"tensor {tensor.name!r} is {tensor.dtype}, not a quantised int8 or int16",
                "quantise all of the network to int8 or int16x8, inputs and outputs included",
            )
        if len(tensor.quantization.scales) > 1:
            raise self.refuse(
                f"activation {tensor.name!r} has a scale for each channel",
                "quantise activations per tensor; weights may have a scale for each channel",
            )
        if tensor.dtype == "int16" and tensor.zero_point != 0:
            raise self.refuse(
                f"{tensor.name!r} is int16 with zero point {tensor.zero_point}",
                "16-bit activations are symmetric: quantise with the 16x8 recipe",
            )
        return cast(Element, tensor.dtype)

    def value(self, position: int) -> int:
        """Return the number of the value of an input; a constant becomes one when first used."""
        return self.number(self.input(position))

    def number(self, tensor: Tensor) -> int:
        """Return the number of a tensor's value, adding it when it has none yet."""
        building = self.building
        if tensor.index not in building.numbers:
            data = building.folded.get(tensor.index, tensor.data)
            value = self._describe(tensor, data)
            building.numbers[tensor.index] = building.new(value)
        return building.numbers[tensor.index]

    def _describe(self, tensor: Tensor, data: NDArray[Any] | None) -> Value:
        dtype = self.element(tensor)
        return Value(tensor.shape, dtype, tensor.scale, tensor.zero_point, tensor.name, data)

    def temporary(self, like: Tensor, shape: tuple[int, ...]) -> int:
        """Return a new value, quantised as a tensor is."""
        dtype = self.element(like)
        return self.building.new(Value(shape, dtype, like.scale, like.zero_point, like.name))

    def alias(self, source: int, position: int = 0) -> None:
        """Let an output be an existing value, in another shape."""
        self.building.numbers[self.operator.outputs[position]] = source

    def add(self, step: Step) -> None:
        """Add a step."""
        self.building.steps.append(step)

    def same_type(self, *tensors: Tensor) -> Element:
        """Return the element type that activations share.

        Raises:
            UsageError: They differ.
        """
        kinds = [self.element(tensor) for tensor in tensors]
        if len(set(kinds)) > 1:
            raise self.refuse(
                f"its tensors are of types {', '.join(kinds)}", "quantise all to one width"
            )
        return kinds[0]

    def clamp(self, tensor: Tensor) -> tuple[int, int]:
        """Return the limits of the output that a fused activation leaves."""
        low, high = limits(self.element(tensor))
        activation = int(self.operator.options.get("activation", _NO_CLAMP))
        if activation == _RELU:
            return max(low, self._quantized(tensor, 0.0)), high
        if activation == _RELU6:
            return max(low, self._quantized(tensor, 0.0)), min(high, self._quantized(tensor, 6.0))
        if activation == _RELU_N1_TO_1:
            ends = self._quantized(tensor, -1.0), self._quantized(tensor, 1.0)
            return max(low, ends[0]), min(high, ends[1])
        if activation != _NO_CLAMP:
            raise self.refuse(f"fused activation {activation} is unknown", "use ReLU or ReLU6")
        return low, high

    def _quantized(self, tensor: Tensor, real: float) -> int:
        ratio = float(np.float32(real) / np.float32(tensor.scale))
        return tensor.zero_point + math.floor(abs(ratio) + 0.5) * (1 if ratio >= 0 else -1)

    def check_sum(self, largest: int, shift: int, what: str, *, bits: int = 30) -> None:
        """Refuse a sum that could leave 32 bits on its way through the rescaling.

        Args:
            largest: Bound of its magnitude.
            shift: Of the factor it is multiplied by.
            what: What is summed.
            bits: Magnitudes below 2^bits are rescaled without loss: 30 where the kernel doubles.

        Raises:
            UsageError: It could; C would be undefined.
        """
        if largest >= 2**bits or largest + (1 << max(-shift, 0)) >= 2**31:
            raise self.refuse(
                f"{what} can reach {largest}, which leaves 32 bits when rescaled",
                "make the layer narrower, or calibrate on data that fills its output's range",
            )
