"""What travels in a bundle for TensorRT: a build script and a runner in C++ with its contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["kit"]

SAMPLES = 8
"""Golden samples of the runner's self-test."""
_HERE = Path(__file__).parent


def kit(
    manifest: Mapping[str, Any], inputs: NDArray[Any], outputs: NDArray[Any]
) -> dict[str, bytes]:
    """Return the files beside the model, by place in the bundle.

    Args:
        manifest: The bundle's manifest.
        inputs: Golden inputs (samples, …) as the network takes them, float32 or uint8.
        outputs: What the artefact gives for them, float32.
    """
    contract = manifest["io"]["inputs"][0]
    shape = [1, *inputs.shape[1:]]
    text = (_HERE / "build.sh").read_text(encoding="utf-8")
    for mark, value in {
        "@MAIN@": Path(manifest["artefact"]["main"]).name,
        "@SHAPES@": f"{contract['name']}:{'x'.join(map(str, shape))}",
        "@PRECISION@": manifest["artefact"]["precision"],
    }.items():
        text = text.replace(mark, value)
    few = slice(0, SAMPLES)
    return {
        "model/build.sh": text.encode(),
        "model/runner/runner.cpp": (_HERE / "runner.cpp").read_bytes(),
        "model/runner/CMakeLists.txt": (_HERE / "CMakeLists.txt").read_bytes(),
        "model/runner/contract.h": _contract(manifest, inputs[few], outputs[few]).encode(),
        "model/runner/golden/input.bin": _raw(inputs[few]),
        "model/runner/golden/output.bin": _raw(outputs[few].astype(np.float32)),
    }


def _raw(values: NDArray[Any]) -> bytes:
    little = values.dtype.newbyteorder("<")
    return np.ascontiguousarray(values, dtype=little).tobytes()


def _contract(manifest: Mapping[str, Any], inputs: NDArray[Any], outputs: NDArray[Any]) -> str:
    """Write the tensor contract as a C++ header."""
    tensor, tolerance = manifest["io"]["inputs"][0], manifest["golden"]["tolerance"]
    mean, std = tensor.get("mean"), tensor.get("std")
    shape = [1, *inputs.shape[1:]]
    takes_bytes = inputs.dtype == np.uint8
    channels = shape[1] if mean and len(shape) == 4 and not takes_bytes else 0
    count = int(np.prod(shape))
    head = f"{manifest['name']}, candidate {manifest['artefact']['candidate']}"
    return f"""// Made by edgekd for {head}.
#pragma once
#include <cstddef>
#include <cstdint>

constexpr char const* kInputName = "{tensor["name"]}";
constexpr char const* kOutputName = "{manifest["io"]["outputs"][0]["name"]}";
constexpr int kInputRank = {len(shape)};
constexpr int64_t kInputShape[] = {{{", ".join(map(str, shape))}}};
constexpr size_t kInputCount = {count};
constexpr size_t kInputBytes = {count * inputs.dtype.itemsize};
constexpr bool kTakesBytes = {"true" if takes_bytes else "false"};
constexpr size_t kOutputCount = {int(np.prod(outputs.shape[1:]))};
constexpr int kGoldenSamples = {len(outputs)};

// An image is prepared as (pixel / 255 - mean) / std; no channels: the input is no image.
constexpr int kChannels = {channels};
constexpr float kMean[] = {{{_floats(mean)}}};
constexpr float kStd[] = {{{_floats(std)}}};

// What the engine may differ from the golden outputs, which a proxy on the host gave.
constexpr double kMinCosine = {tolerance.get("min_cosine") or -1.0};
constexpr double kMaxRelative = {tolerance.get("max_rel") or 1e30};
"""


def _floats(values: Sequence[float] | None) -> str:
    return ", ".join(f"{float(value)!r}f" for value in values or (0.0,))
