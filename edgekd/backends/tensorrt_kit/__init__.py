"""What travels in a bundle for TensorRT: a build script and a runner in C++ with its contract."""

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
    contract = manifest["io"]["inputs"][0]
    shape = [1, *inputs.shape[1:]]
    text = (_HERE / "build.sh").read_text(encoding="utf-8")
    for mark, value in {
        "@MAIN@": Path(manifest["artefact"]["main"]).name,
        "@SHAPES@": f"{contract['name']}:{'x'.join(map(str, shape))}",
        "@PRECISION@": manifest["artefact"]["precision"],
    }.items():
        text = text.replace(mark, value)
    network, build = ((_HERE / name).read_text("utf-8") for name in ("network.h", "CMakeLists.txt"))
    return {"model/build.sh": text.encode(), **runner(manifest, inputs, outputs, network, build)}
