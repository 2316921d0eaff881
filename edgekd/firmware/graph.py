"""A quantised network as the converter wrote it: tensors, operators, nothing interpreted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

__all__ = ["Graph", "Operator", "Quantization", "Tensor"]


@dataclass(frozen=True)
class Quantization:
    """real = scale · (integer − zero_point), per tensor or per slice along an axis.

    Attributes:
        scales: One, or one a slice; values of float32.
        zero_points: As many.
        axis: The axis that is sliced.
    """

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int = 0


@dataclass(frozen=True)
class Tensor:
    """A value of the graph.

    Attributes:
        index: Its number in the file.
        name: As the converter wrote it.
        shape: With the batch axis.
        dtype: ``int8``, ``int16``, ``int32``, ``int64``, ``float32`` …
        quantization: None for plain numbers.
        data: The constant; None for what is computed.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    quantization: Quantization | None = None
    data: NDArray[Any] | None = None

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def scale(self) -> float:
        """Scale of a tensor that is quantised as a whole."""
        assert self.quantization is not None
        return self.quantization.scales[0]

    @property
    def zero_point(self) -> int:
        """Zero point of a tensor that is quantised as a whole."""
        assert self.quantization is not None
        return self.quantization.zero_points[0]


@dataclass(frozen=True)
class Operator:
    """One operator; absent optional inputs are −1."""

    index: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, float] = field(default_factory=dict)
    version: int = 1


@dataclass(frozen=True)
class Graph:
    """Operators in the order in which they run.

    Attributes:
        tensors: By index.
        operators: In order.
        inputs: Indices of tensors that the caller gives.
        outputs: Indices of tensors that the caller gets.
        names: Names of the signature by tensor index, where the file has one.
    """

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    names: Mapping[int, str] = field(default_factory=dict)
