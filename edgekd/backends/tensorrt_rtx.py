"""TensorRT for RTX as a compiler without a GPU: NVIDIA's own parser says what it refuses.

It is a proxy. It is newer than the TensorRT of a JetPack, it compiles for SM 8.6, the closest
cousin of Orin's 8.7 that it knows, and its engine runs on no Jetson; so what it takes is likely to
be taken there, and what it refuses surely is not. Optional: ``pip install 'edgekd[tensorrt-rtx]'``.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekd.extras import installed, pip_install

__all__ = ["compile_check", "coverage", "layers_of"]

TIMEOUT_S = 600
_WORKER = Path(__file__).with_name("tensorrt_rtx_worker.py")
_PRODUCT = re.compile(r"(?:Conv|ConvTranspose|MatMul|Gemm)_\d+")


def compile_check(model: Path) -> dict[str, Any]:
    """Parse and compile a model in a process of its own (native code may crash).

    Returns:
        ``not_run`` with the reason; else ``status``, ``version``, ``target`` (SM86), ``errors``
        (each ``node``, ``operator``, ``code``, ``text``), ``seconds``, ``engine_bytes`` and
        ``int8``: what of the graph's products computes in int8.
    """
    if not installed("tensorrt_rtx"):
        return {"not_run": f"tensorrt-rtx is not installed ({pip_install('tensorrt-rtx')})"}
    # Isolated: the folder of the script holds modules that are called like NVIDIA's.
    command = [sys.executable, "-I", str(_WORKER), str(model.absolute())]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return {"not_run": f"TensorRT for RTX compiled for more than {TIMEOUT_S} s"}
    try:
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        fate = f"signal {-done.returncode}" if done.returncode < 0 else f"code {done.returncode}"
        return {"not_run": f"TensorRT for RTX ended with {fate}: {_last(done.stderr)}"}
    layers = layers_of(result.pop("layers", ""))
    if result["status"] == "passed":
        result["int8"] = coverage(layers)
    return result


def _last(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else "it said nothing"


def layers_of(text: str) -> list[dict[str, Any]]:
    """Read the list of compiled layers that the builder writes into its log.

    Returns:
        ``name``, ``type``, ``inputs`` and ``constants`` (data types), ``nodes`` (of the graph).
    """
    found = []
    for line in text.splitlines():
        head = re.match(r"Name: (.*?), LayerType: (\w+), Inputs: \[", line)
        if head is None:
            continue
        inputs = _between(line, "Inputs: [", "], Outputs:").partition("], Constants:")[0]
        constants = _between(line, "Constants: [", "], Outputs:")
        found.append(
            {
                "name": head[1],
                "type": head[2],
                "inputs": re.findall(r"Datatype: (\w+)", inputs),
                "constants": re.findall(r"Datatype: (\w+)", constants),
                "nodes": re.findall(r"\[ONNX Layer: ([^\]\x1e\x1f]*)", line),
            }
        )
    return found


def _between(line: str, start: str, end: str) -> str:
    _, found, rest = line.partition(start)
    inside, closed, _ = rest.partition(end)
    return inside if found and closed else ""


def coverage(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Tell which products of the graph the compiler computes in int8.

    A product counts as int8 when the layer that computes it reads int8 on both sides; one that
    reads int8 weights and a floating-point activation only stores them so.

    Returns:
        ``products``, ``int8``, and ``layers``: every layer that computes a product, with the
        nodes and data types.
    """
    rows: dict[str, dict[str, Any]] = {}
    for layer in layers:
        if not _computes_product(layer):
            continue
        sides = [*layer["inputs"][:1], *layer["constants"][:1]] or ["unknown"]
        if not layer["constants"]:
            sides = layer["inputs"][:2]
        for node in filter(_PRODUCT.fullmatch, layer["nodes"]):
            rows[node] = {
                "node": node,
                "layer": layer["name"],
                "type": layer["type"],
                "computes": "/".join(dict.fromkeys(sides)).lower(),
            }
    listed = sorted(rows.values(), key=lambda row: _natural(row["node"]))
    return {
        "products": len(listed),
        "int8": sum(row["computes"] == "int8" for row in listed),
        "layers": listed,
    }


def _computes_product(layer: Mapping[str, Any]) -> bool:
    return layer["type"] in ("correlation", "gemm") or bool(
        re.search(r"Fc_|_gemm_|gemm_mha", layer["name"])
    )


def _natural(name: str) -> tuple[str, int]:
    kind, _, number = name.rpartition("_")
    return kind, int(number)
