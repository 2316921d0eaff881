"""Enrol classes from a few pictures with a bundle's own artefact, and bake them into its graph."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.bundle import Bundle, open_bundle
from edgekd.errors import DataError, UsageError, VerifyError
from edgekd.extras import installed, pip_install

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgekd.data.base import Images
    from edgekd.tasks.enroll import Enroller

__all__ = ["enroll"]

HEAD, MODEL, FACTS = "head.npz", "model.onnx", "enrolled.json"
TIE = 1e-4
"""Difference of squared distances (0 to 4) below which two classes are equally near."""


def enroll(bundle: Path | str, examples: Path | str, out: Path | str) -> dict[str, Any]:
    """Learn classes from pictures and write what a device needs to tell them apart.

    The features come from the artefact that ships, run one picture at a time in its own runtime.
    ``head.npz`` holds base mean, weight (classes, features), bias (classes,) and names; where the
    artefact is an ONNX file, ``model.onnx`` is the artefact with the head in its graph, and is
    run on the same pictures: its answers must be those of the `Enroller`.

    Args:
        bundle: A bundle of a few-shot recipe, folder or ``.zip``.
        examples: Folder with a folder of images for each class.
        out: Folder to write; must not exist, or be empty.

    Returns:
        ``classes`` (name → examples), ``leave_one_out`` (accuracy of each picture against the
        other ones; ``not_run`` where no class has two), ``baked`` (``agreement`` of the graph
        with the Enroller, or ``not_run`` and why), ``files``.

    Raises:
        UsageError: No few-shot bundle, or the place to write is taken.
        DataError: The folder has no classes or an image cannot be read.
        VerifyError: The baked graph answers otherwise than the Enroller.
    """
    out, examples = Path(out), Path(examples)
    _check_place(out)
    with open_bundle(bundle) as opened:
        images = _images(opened, Path(bundle), examples)
        features = _run(opened, images, opened.path / opened.manifest["artefact"]["main"])
        enroller = _enrolled(opened, images, features)
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
            facts = _written(opened, images, features, enroller, Path(scratch) / "new")
            if out.exists():
                out.rmdir()
            (Path(scratch) / "new").rename(out)
    return facts


def _check_place(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is taken", at="option: --out", hint="name a new folder")


def _images(bundle: Bundle, path: Path, examples: Path) -> Images:
    from edgekd.data.folder import SUFFIXES, class_folders, images_of

    manifest = bundle.manifest
    if "base_mean" not in _state(bundle):
        raise UsageError(
            f"the bundle of recipe {manifest['recipe']['name']!r} enrols no classes",
            at=str(path),
            hint="classes are enrolled with bundles of few-shot recipes, such as mobilevit",
        )
    if not examples.is_dir():
        raise DataError("there is no such folder", at=str(examples))
    classes = class_folders(examples)
    empty = [name for name, files in classes.items() if not files]
    if not classes or empty:
        found = f"class {empty[0]!r} has no images" if empty else "no class folders found"
        wanted = f"wanted <class>/* with image files ({', '.join(sorted(SUFFIXES))})"
        raise DataError(found, at=str(examples), hint=wanted)
    channels, size = _shape(manifest)
    return images_of(classes, size, channels)


def _state(bundle: Bundle) -> dict[str, NDArray[Any]]:
    import numpy as np

    if not bundle.manifest.get("state"):
        return {}
    with np.load(bundle.path / bundle.manifest["state"]["file"], allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _shape(manifest: Any) -> tuple[int, int]:
    contract = manifest["io"]["inputs"][0]
    shape = [side for side in contract["shape"] if side is not None][-3:]
    if contract["form"] == "uint8_nhwc" and shape[-1] in (1, 3):
        return shape[2], shape[0]
    return shape[0], shape[1]


def _run(bundle: Bundle, images: Images, model: Path) -> NDArray[Any]:
    """Run every picture through a model, one at a time as on the device: (n, outputs)."""
    import numpy as np

    from edgekd.device.link import agent_on
    from edgekd.inputs import prepare

    artefact, contract = bundle.manifest["artefact"], bundle.manifest["io"]["inputs"][0]
    with agent_on("local") as agent:
        agent.load(artefact["runtime"], model, **artefact["options"])
        feeds = {contract["name"]: prepare(images.take(np.arange(len(images))), contract)}
        return next(iter(agent.run(feeds, 1).values()))


def _enrolled(bundle: Bundle, images: Images, features: NDArray[Any]) -> Enroller:
    from edgekd.tasks.enroll import Enroller

    enroller = Enroller(_state(bundle)["base_mean"])
    for number, name in enumerate(images.classes):
        enroller.enroll(name, features[images.labels == number])
    return enroller


def _written(
    bundle: Bundle, images: Images, features: NDArray[Any], enroller: Enroller, folder: Path
) -> dict[str, Any]:
    import numpy as np

    folder.mkdir()
    weight, bias = enroller.linear_head()
    np.savez(
        folder / HEAD,
        base_mean=enroller.base_mean,
        weight=weight,
        bias=bias,
        classes=np.array(enroller.names),
    )
    counts = np.bincount(images.labels, minlength=len(images.classes)).tolist()
    facts = {
        "bundle": {"name": bundle.manifest["name"], "digest": bundle.digest},
        "classes": dict(zip(images.classes, counts, strict=True)),
        "leave_one_out": _leave_one_out(enroller.prepare(features), images.labels),
        "baked": _baked(bundle, images, features, enroller, folder / MODEL),
        "files": [HEAD, *([MODEL] if (folder / MODEL).exists() else []), FACTS],
    }
    (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts


def _leave_one_out(ready: NDArray[Any], labels: NDArray[np.int64]) -> dict[str, Any]:
    """Score each prepared picture against class means that do not hold it."""
    import numpy as np

    counts = np.bincount(labels)
    sums = np.stack([ready[labels == c].sum(0) for c in range(len(counts))])
    right = []
    for row, own in zip(ready, labels, strict=True):
        if counts[own] < 2:
            continue
        means = sums / counts[:, None]
        means[own] = (sums[own] - row) / (counts[own] - 1)
        right.append(int(((means - row) ** 2).sum(1).argmin()) == own)
    if not right or len(counts) < 2:
        return {"not_run": "needs two classes and two pictures of one"}
    return {"accuracy": float(np.mean(right)), "n": len(right)}


def _baked(
    bundle: Bundle, images: Images, features: NDArray[Any], enroller: Enroller, model: Path
) -> dict[str, Any]:
    """Write the artefact with the head in its graph, and prove that it answers alike."""
    artefact = bundle.manifest["artefact"]
    if not artefact["main"].endswith(".onnx"):
        return {"not_run": f"the artefact is {artefact['main']}, not ONNX; use {HEAD}"}
    if not installed("onnx"):
        return {"not_run": f"onnx is not installed ({pip_install('train')}); use {HEAD}"}
    from edgekd.graph.head import bake_prototypes

    weight, bias = enroller.linear_head()
    source = bundle.path / artefact["main"]
    bake_prototypes(source, enroller.base_mean, weight, bias, model)
    answers = _run(bundle, images, model).argmax(1)
    distances = enroller.distances(features)
    nearest = distances.argmin(1)
    rows = range(len(nearest))
    further = distances[rows, answers] - distances[rows, nearest]
    if (further > TIE).any():
        first = int((further > TIE).argmax())
        raise VerifyError(
            f"the graph with its head answers {enroller.names[answers[first]]!r}, the Enroller "
            f"{enroller.names[nearest[first]]!r}, for picture {first}",
            at=str(source),
        )
    return {"agreement": int((answers == nearest).sum()), "n": len(nearest)}
