"""A runner in C++ for a bundle: golden self-test, latency, one raw input; any runtime behind it.

A runtime gives ``network.h`` (a class ``Network``: path in, `put`, `run`, call on a sample) and
its ``CMakeLists.txt``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FOLDER", "runner"]

FOLDER = "model/runner"
"""Where it lies in a bundle."""
SAMPLES = 8
"""Golden samples of the self-test."""
_HERE = Path(__file__).parent


def runner(
    manifest: Mapping[str, Any],
    inputs: NDArray[Any],
    outputs: NDArray[Any],
    network: str,
    build: str,
    more: str = "",
) -> dict[str, bytes]:
    """Return the files of the runner, by place in the bundle.

    Args:
        manifest: The bundle's manifest.
        inputs: Golden inputs (samples, …) as the network takes them, float32 or uint8.
        outputs: What the artefact gives for them, float32.
        network: Content of ``network.h``.
        build: Content of ``CMakeLists.txt``.
        more: Further lines of ``contract.h``.
    """
    few = slice(0, SAMPLES)
    texts = {
        "runner.cpp": (_HERE / "runner.cpp").read_text("utf-8"),
        "files.h": (_HERE / "files.h").read_text("utf-8"),
        "network.h": network,
        "CMakeLists.txt": build,
        "contract.h": _contract(manifest, inputs[few], outputs[few]) + more,
    }
    return {
        **{f"{FOLDER}/{name}": text.encode() for name, text in texts.items()},
        f"{FOLDER}/golden/input.bin": _raw(inputs[few]),
        f"{FOLDER}/golden/output.bin": _raw(outputs[few].astype(np.float32)),
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

// What the outputs may differ from the golden ones, which were made on another machine.
constexpr double kMinCosine = {tolerance.get("min_cosine") or -1.0};
constexpr double kMaxRelative = {tolerance.get("max_rel") or 1e30};
"""


def _floats(values: Sequence[float] | None) -> str:
    return ", ".join(f"{float(value)!r}f" for value in values or (0.0,))
