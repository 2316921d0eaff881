"""A user's network, as the ONNX graph that everything else starts from.

Takes an ONNX file, a ``.pt2`` of ``torch.export``, or a function that builds a torch module.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.agent.quiet import open_onnx
from edgekd.errors import DataError, StageError

__all__ = ["check_onnx", "prepare_onnx", "read_onnx"]

_DTYPES = {1: "float32", 2: "uint8"}


def read_onnx(path: Path) -> Any:
    """Read an ONNX file, with its external data.

    Raises:
        DataError: It is not readable, or a file of external data is missing.
    """
    import onnx

    try:
        proto = onnx.load(str(path), load_external_data=False)
    except FileNotFoundError as error:
        raise DataError("there is no such file", at=str(path)) from error
    except Exception as error:
        raise DataError(
            f"this is no readable ONNX file: {_one_line(error)}", at=str(path)
        ) from error
    for tensor in proto.graph.initializer:
        place = next((e.value for e in tensor.external_data if e.key == "location"), None)
        if place is not None and not (path.parent / place).is_file():
            raise DataError(
                f"the weights of {tensor.name!r} are in {place!r}, which is not there",
                at=str(path),
                hint=f"put {place} beside {path.name}: an ONNX file of external data moves with it",
            )
    onnx.load_external_data_for_model(proto, str(path.parent))
    return proto


def check_onnx(proto: Any, path: Path) -> dict[str, Any]:
    """Check that a graph can be quantised here, and return its contract.

    Returns:
        ``input``, ``output``, ``shape`` (of one sample), ``dtype``, ``batch`` (None when free).

    Raises:
        DataError: Several inputs or outputs, an axis without bound, an operator that ONNX
            Runtime does not have; the node is named.
    """
    import onnx

    held = {tensor.name for tensor in proto.graph.initializer}
    given = [port for port in proto.graph.input if port.name not in held]
    _only_one(given, "inputs", path)
    _only_one(list(proto.graph.output), "outputs", path)
    port = given[0]
    kind = port.type.tensor_type
    sizes = [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim]
    names = [d.dim_param or "?" for d in kind.shape.dim]
    if not sizes:
        raise DataError(f"input {port.name!r} has no shape", at=str(path))
    free = [f"axis {i} ({names[i]})" for i, size in enumerate(sizes) if i and size is None]
    if free:
        raise DataError(
            f"input {port.name!r} has no bound on {', '.join(free)}; only the batch may be free",
            at=str(path),
            hint="export with that size fixed, or: python -m"
            " onnxruntime.tools.make_dynamic_shape_fixed --dim_param NAME --dim_value SIZE",
        )
    if kind.elem_type not in _DTYPES:
        found = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        raise DataError(f"input {port.name!r} is {found}, wanted float32 or uint8", at=str(path))
    _check_operators(proto, path)
    return {
        "input": port.name,
        "output": proto.graph.output[0].name,
        "shape": sizes[1:],
        "dtype": _DTYPES[kind.elem_type],
        "batch": sizes[0],
    }


def _only_one(ports: Sequence[Any], what: str, path: Path) -> None:
    if len(ports) != 1:
        names = ", ".join(repr(port.name) for port in ports) or "none"
        raise DataError(f"the network has {len(ports)} {what} ({names}), wanted one", at=str(path))


def _check_operators(proto: Any, path: Path) -> None:
    """Name the first operator that neither ONNX nor ONNX Runtime's own set has."""
    import onnx

    opsets = {entry.domain or "": entry.version for entry in proto.opset_import}
    for node in proto.graph.node:
        domain = "" if node.domain == "ai.onnx" else node.domain
        if domain == "com.microsoft":
            continue
        try:
            onnx.defs.get_schema(node.op_type, opsets.get(domain, 1), domain)
        except Exception as error:
            own = f" of domain {domain!r}" if domain else ""
            raise DataError(
                f"operator {node.op_type!r}{own} of node {node.name or node.output[0]!r} is not in"
                f" ONNX's operator set {opsets.get(domain, 1)}",
                at=str(path),
                hint="write that part with standard operators, or leave it outside the graph",
            ) from error


def prepare_onnx(
    proto: Any, path: Path, samples: NDArray[Any], out: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Simplify a graph, comparing its outputs after every pass, and write it.

    A pass that fails or changes the network is left out and named; a graph of fixed batch is
    taken as it is.

    Args:
        proto: The graph.
        path: Where it came from, for errors.
        samples: At least one.
        out: The file to write.
        say: Told what is being done.

    Returns:
        ``nodes_before``, ``nodes``, ``ops``, ``passes``, ``io``.
    """
    from edgekd.graph.canonical import canonicalise, save
    from edgekd.graph.export import _Gate, _simplified, _without_batch_norm

    contract = check_onnx(proto, path)
    before = len(proto.graph.node)
    passes: list[dict[str, Any]] = []
    reference = run_onnx(proto, contract, samples, path)
    if contract["batch"] is None:
        gate = _Gate(contract["input"], samples, reference)
        for title, run in (("simplifier", _simplified), ("batch norm", _without_batch_norm)):
            say(title)
            try:
                proto = gate.apply(title, partial(run, proto))
            except StageError as error:
                passes.append({"pass": title, "not_run": f"left out: {error.what}"})
        passes = [*gate.passes, *passes]
    else:
        passes = [{"pass": "all", "not_run": f"the graph's batch is fixed at {contract['batch']}"}]
    canonicalise(proto)
    save(proto, out)
    shape = ["batch" if contract["batch"] is None else contract["batch"], *contract["shape"]]
    port = {"name": contract["input"], "shape": shape, "dtype": contract["dtype"]}
    return {
        "nodes_before": before,
        "nodes": len(proto.graph.node),
        "ops": dict(sorted(Counter(node.op_type for node in proto.graph.node).items())),
        "passes": passes,
        "io": {"inputs": [port], "outputs": [{"name": contract["output"]}]},
        "contract": contract,
    }


def run_onnx(
    proto: Any, contract: dict[str, Any], samples: NDArray[Any], path: Path
) -> NDArray[Any]:
    """Run a graph in ONNX Runtime, unoptimised: what it means, before anything is done to it.

    Raises:
        DataError: ONNX Runtime cannot load or run it.
    """
    size = contract["batch"] or 8
    try:
        with tempfile.TemporaryDirectory(prefix="edgekd-source-") as folder:
            import onnx

            file = Path(folder) / "model.onnx"
            onnx.save(proto, str(file))
            session = open_onnx(file, threads=0, level="disable")
        parts = []
        for start in range(0, len(samples), size):
            stop = start + size if contract["batch"] else min(start + size, len(samples))
            rows = np.arange(start, stop) % len(samples)
            feed = {contract["input"]: np.ascontiguousarray(samples[rows])}
            parts.append(np.asarray(session.run([contract["output"]], feed)[0]))
    except Exception as error:
        raise DataError(
            f"ONNX Runtime cannot run the network: {_one_line(error)}", at=str(path)
        ) from error
    found = np.concatenate(parts)[: len(samples)]
    if len(found) != len(samples):
        raise StageError("the network's output does not count the samples along axis 0")
    return found


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
