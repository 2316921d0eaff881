"""What travels in a bundle for OpenVINO: a runner in C++; the Python package has its headers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgekd.backends.runner import runner

__all__ = ["kit"]

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
    artefact = manifest["artefact"]
    options = artefact["options"]
    build = (_HERE / "CMakeLists.txt").read_text("utf-8")
    build = build.replace("@MAIN@", Path(artefact["main"]).name)
    fused = "true" if options.get("snippets", True) else "false"
    more = f"""
// As the artefact was measured.
constexpr char const* kPrecision = "{options.get("precision", "f32")}";
constexpr bool kSnippets = {fused};
"""
    network = (_HERE / "network.h").read_text("utf-8")
    return runner(manifest, inputs, outputs, network, build, more)
