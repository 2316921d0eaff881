"""A network that exists only as an ONNX file, callable like a function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.agent.quiet import open_onnx
from edgekd.errors import DataError


class OnnxNetwork:
    """An ONNX model with one input, run on the host: a teacher, for instance.

    Attributes:
        path: The file.
        input_name: Name of the input.
        input_shape: Shape of one sample; None for a free dimension.
        batch: The batch that the graph demands; None when it is free.
        params: Values in all initialisers.

    Args:
        path: The file.
        threads: Threads of the runtime; 0 for all cores.

    Raises:
        DataError: No such file, it is not a readable ONNX model, or it has several inputs.
    """

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        self.path = Path(path)
        self.params = _count_params(self.path)
        self._session = _open(self.path, threads)
        ports = self._session.get_inputs()
        if len(ports) != 1:
            raise DataError(
                f"the model takes {len(ports)} inputs, wanted one: {[port.name for port in ports]}",
                at=str(self.path),
            )
        sizes = [size if isinstance(size, int) else None for size in ports[0].shape]
        self.input_name: str = ports[0].name
        self.input_shape: tuple[int | None, ...] = tuple(sizes[1:])
        self.batch: int | None = sizes[0] if sizes else None
        self._dtype = np.dtype(_DTYPES.get(ports[0].type, "float32"))

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return the first output for samples (batch, …), whatever batch the graph demands.

        Raises:
            DataError: The samples have another shape than the graph takes.
        """
        self._check(x)
        x = np.ascontiguousarray(x, dtype=self._dtype)
        if self.batch is None or len(x) == self.batch:
            return self._run(x)
        parts = [
            self._padded(x[start : start + self.batch]) for start in range(0, len(x), self.batch)
        ]
        return np.concatenate(parts) if parts else self._padded(x)

    def _check(self, x: NDArray[Any]) -> None:
        fits = x.ndim == len(self.input_shape) + 1 and all(
            wanted in (None, found)
            for wanted, found in zip(self.input_shape, x.shape[1:], strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if size is None else str(size) for size in self.input_shape)
            raise DataError(
                f"input {self.input_name!r} takes samples of shape ({wanted}), found "
                f"{tuple(x.shape[1:])}",
                at=str(self.path),
            )

    def _padded(self, part: NDArray[Any]) -> NDArray[Any]:
        """Run fewer samples than the graph demands."""
        assert self.batch is not None
        full = np.zeros((self.batch, *part.shape[1:]), part.dtype)
        full[: len(part)] = part
        return self._run(full)[: len(part)]

    def _run(self, x: NDArray[Any]) -> NDArray[Any]:
        result: NDArray[Any] = self._session.run(None, {self.input_name: x})[0]
        return result


_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
}


def _count_params(path: Path) -> int:
    import onnx

    if not path.is_file():
        raise DataError("there is no such ONNX model", at=str(path))
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as error:
        raise _unreadable(path, error) from error
    return sum(int(np.prod(tensor.dims)) for tensor in graph.initializer)


def _open(path: Path, threads: int) -> Any:
    try:
        return open_onnx(path, threads=threads)
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:300]
    return DataError(
        f"the file is not a readable ONNX model: {reason}",
        at=str(path),
        hint="copy it again, or check it with onnx.checker.check_model",
    )
