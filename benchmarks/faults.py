"""Plant faults into small bundles of edgekd's own and see whether ``verify`` names the stage.

    python -m benchmarks.faults --out benchmarks/results/faults.json

Three bundles are made of one training (a small classifier of striped pictures): ONNX Runtime in
float32, ONNX Runtime in int8, OpenVINO in int8. Every fault is planted into a copy. But for those
of the first rows the checksums are sealed again afterwards, sizes included, as a pipeline with a
bug, or a forger, would: so it is no checksum that finds them. "golden made again" means that the
golden outputs, too, were taken from the faulty artefact.

Beside it the rule that peers apply to an artefact's outputs: the worst cosine of a sample against
the reference is at least 0.9, or 0.99. A file that does not load counts as caught by that rule.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd import api
from edgekd.bundle.contents import sha256_of
from edgekd.bundle.integrity import sums_text
from edgekd.compare import compare
from edgekd.device.link import agent_on
from edgekd.discover import load_recipe, load_target
from edgekd.errors import EdgekdError
from edgekd.inputs import save_arrays
from edgekd.spec import Quantize, digest
from edgekd.verify import FILES, GOLDEN, MANIFEST, RUNS, TASK, BundleFailed, verify

FP32, INT8, OV = "ort-fp32", "ort-int8", "ov-int8-bias"
CLASSES, SIDE = 6, 32
RULES = (0.9, 0.99)
MAY_LOSE = 0.9
"""Of the metric, by quantisation: so small a network on so few pictures may lose any amount by
chance, and what is planted here has nothing to do with that choice."""

MODEL = """
import torch
from torch import nn

def build(classes):
    return nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2),
                         nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, classes))
"""


def pictures(folder: Path, counts: Mapping[str, int]) -> None:
    """Write noisy stripes: three tints, two directions, six classes; not all can be told apart."""
    from PIL import Image

    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    for split, count in counts.items():
        for label in range(CLASSES):
            place = folder / split / f"class{label}"
            place.mkdir(parents=True)
            for index in range(count):
                along = (x, y)[label // 3]
                wave = np.sin(2 * np.pi * (along / 8 + rng.random()))
                pixels = 110 + 22 * wave[..., None] + rng.normal(0, 45, (SIDE, SIDE, 3))
                pixels[..., label % 3] += 9
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{index}.png")


def bundles(
    work: Path,
    names: Sequence[str] = (FP32, INT8, OV),
    counts: Mapping[str, int] = {"train": 40, "val": 20, "test": 50},
    epochs: int = 6,
) -> dict[str, Path]:
    """Make the bundles to plant into, and ``other``: the same network, trained with another seed.

    Args:
        work: Folder; what is there already is kept.
        names: Candidates.
        counts: Pictures of a class, by split.
        epochs: Of the student.
    """
    data = work / "pictures"
    if not data.is_dir():
        pictures(data, counts)
    (work / "mine.py").write_text(MODEL)
    made = {}
    for name, seed in [*((name, 0) for name in names), ("other", 1)]:
        made[name] = work / f"bundle-{name}"
        if made[name].is_dir():
            continue
        asked = {
            "data": data, "classes": CLASSES, "teacher": f"{work / 'mine.py'}:build",
            "student": "conv4", "size": SIDE, "epochs": epochs, "distill": "always", "seed": seed,
        }  # fmt: skip
        recipe = load_recipe("classify", asked)
        kinds = Quantize(samples=32, candidates=0 if name == OV else 2)
        kinds = replace(kinds, precisions=("fp32", "int8"))
        recipe = replace(recipe, quantize=kinds, metric_drop=MAY_LOSE)
        target = _lenient("cpu" if name == OV else "cpu-ort", work)
        pick = FP32 if name == "other" else name
        api.compress(recipe, target, out=made[name], pick=pick, store=work / "store")
    return made


def _lenient(name: str, work: Path) -> Path:
    """Write a target whose limit of the metric is ours: the stricter of it and a recipe's holds."""
    known = load_target(name).model_dump(mode="json", exclude_unset=True)
    file = work / f"{name}.yaml"
    file.write_text(json.dumps(known | {"limits": {"metric_drop": MAY_LOSE}}), encoding="utf-8")
    return file


class Patient:
    """A copy of a bundle that a fault is planted into.

    Attributes:
        path: Its folder.
        manifest: Its manifest; written by `seal`.
        pristine: The bundle that it is a copy of.
        other: A bundle of the same network from another training.
    """

    def __init__(self, pristine: Path, other: Path, path: Path) -> None:
        self.path, self.pristine, self.other = path, pristine, other
        shutil.copytree(pristine, path)
        self.manifest: dict[str, Any] = json.loads((path / "manifest.json").read_text())

    @property
    def artefact(self) -> dict[str, Any]:
        """The manifest's ``artefact``."""
        found: dict[str, Any] = self.manifest["artefact"]
        return found

    @property
    def main(self) -> Path:
        """The file that the runtime loads."""
        return self.path / str(self.artefact["main"])

    @property
    def row(self) -> dict[str, Any]:
        """The row of what ships."""
        return next(row for row in self.manifest["rows"] if row["shipped"])

    def graph(self, change: Callable[[Any], None]) -> None:
        """Change the ONNX file."""
        import onnx

        proto = onnx.load(str(self.main))
        change(proto)
        onnx.save(proto, str(self.main))

    def weights(self, change: Callable[[str, NDArray[Any]], NDArray[Any] | None]) -> None:
        """Change arrays of the ONNX file; None leaves one alone.

        Raises:
            ValueError: Nothing was changed.
        """
        import onnx

        done: list[str] = []

        def each(proto: Any) -> None:
            for tensor in proto.graph.initializer:
                values = onnx.numpy_helper.to_array(tensor)
                fresh = change(str(tensor.name), values.copy())
                if fresh is not None and not np.array_equal(fresh, values):
                    made = onnx.numpy_helper.from_array(
                        np.ascontiguousarray(fresh.astype(values.dtype)), tensor.name
                    )
                    tensor.CopyFrom(made)
                    done.append(tensor.name)

        self.graph(each)
        if not done:
            raise ValueError("the fault found nothing to change")

    def golden(self, change: Callable[[dict[str, NDArray[Any]]], dict[str, NDArray[Any]]]) -> None:
        """Change golden inputs and outputs."""
        file = self.path / str(self.manifest["golden"]["file"])
        with np.load(file) as archive:
            arrays = {name: archive[name] for name in archive.files}
        save_arrays(file, change(arrays))

    def again(self) -> None:
        """Take the golden outputs from the artefact as it is now."""

        def run(arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            feeds = {n: a for n, a in arrays.items() if not n.startswith("output:")}
            found = outputs(self.path, self.artefact, feeds)
            return feeds | {f"output:{name}": array for name, array in found.items()}

        self.golden(run)

    def sizes(self) -> None:
        """Make every size in the manifest that of the files."""
        size = sum((self.path / str(name)).stat().st_size for name in self.artefact["files"])
        name = self.artefact["candidate"]
        self.artefact["bytes"] = self.row["file_bytes"] = size
        for ranked in self.manifest["choice"]["ranking"]:
            if ranked["candidate"] == name:
                ranked["bytes"] = size

    def seal(self) -> None:
        """Write manifest and checksums so that both agree with the files."""
        digests = {}
        for file in sorted(p for p in self.path.rglob("*") if p.is_file()):
            name = file.relative_to(self.path).as_posix()
            if name not in ("manifest.json", "SHA256SUMS"):
                with file.open("rb") as opened:
                    digests[name] = sha256_of(opened)
        self.manifest["files"] = digests
        self.save()
        with (self.path / "manifest.json").open("rb") as opened:
            digests["manifest.json"] = sha256_of(opened)
        (self.path / "SHA256SUMS").write_text(sums_text(digests))

    def save(self) -> None:
        """Write the manifest alone."""
        (self.path / "manifest.json").write_text(json.dumps(self.manifest), encoding="utf-8")


def outputs(
    folder: Path, artefact: Mapping[str, Any], feeds: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Run an artefact on some inputs, one at a time."""
    with agent_on("local") as agent:
        agent.load(artefact["runtime"], folder / artefact["main"], **artefact["options"])
        return agent.run(feeds, 1)


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: What is wrong, in a few words.
        base: Which bundle.
        stage: The check of ``verify`` that must name it.
        plant: Plants it; what it changed is then sealed.
        sealed: Whether checksums and sizes are made to agree again.
        again: Whether the golden outputs are taken from the faulty artefact.
    """

    name: str
    base: str
    stage: str
    plant: Callable[[Patient], None]
    sealed: bool = True
    again: bool = False


# Files


def _cut(patient: Patient) -> None:
    patient.main.write_bytes(patient.main.read_bytes()[: patient.main.stat().st_size * 2 // 3])


def _flip(patient: Patient) -> None:
    raw = bytearray(patient.main.read_bytes())
    raw[len(raw) // 2] ^= 1
    patient.main.write_bytes(raw)


def _lose_golden(patient: Patient) -> None:
    (patient.path / "golden.npz").unlink()


def _add(patient: Patient) -> None:
    (patient.path / "model" / "extra.bin").write_bytes(b"extra")


def _edit_unsealed(patient: Patient) -> None:
    patient.row["metrics"]["accuracy"]["value"] = 0.999
    patient.save()


# The network. Names of the exporter's weights are not relied on, only ranks and order.


def _nth(rank: int, place: int, change: Callable[[NDArray[Any]], Any]) -> Callable[[Patient], None]:
    """Change one of the float arrays of a rank, by its place among them."""

    def plant(patient: Patient) -> None:
        import onnx

        held = onnx.load(str(patient.main)).graph.initializer
        names = [t.name for t in held if len(t.dims) == rank and t.data_type == 1]
        name = names[place]
        patient.weights(lambda n, v: change(v) if n == name else None)

    return plant


def _every(change: Callable[[NDArray[Any]], Any]) -> Callable[[Patient], None]:
    def plant(patient: Patient) -> None:
        patient.weights(lambda n, v: change(v) if v.dtype == np.float32 and v.ndim > 1 else None)

    return plant


def _bf16(values: NDArray[Any]) -> NDArray[Any]:
    bits = values.astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32)


def _fp16(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(np.float16).astype(np.float32)


def _stale_norm(patient: Patient) -> None:
    """Weights and bias of a convolution as if its batch norm had an earlier epoch's statistics."""
    rng = np.random.default_rng(1)

    def change(values: NDArray[Any]) -> NDArray[Any]:
        scale = rng.uniform(0.9, 1.1, (values.shape[0], *[1] * (values.ndim - 1)))
        return values * scale.astype(np.float32)

    _nth(4, 1, change)(patient)


def _part_zero(values: NDArray[Any]) -> NDArray[Any]:
    values[: max(1, len(values) // 8)] = 0
    return values


def _nan(values: NDArray[Any]) -> NDArray[Any]:
    values.reshape(-1)[0] = np.nan
    return values


def _swap_rows(values: NDArray[Any]) -> NDArray[Any]:
    """Exchange two classes, whichever axis counts them."""
    axis = next(i for i, size in enumerate(values.shape) if size == CLASSES)
    order = np.arange(CLASSES)
    order[[0, 1]] = 1, 0
    return np.take(values, order, axis=axis)


def _swap_labels(patient: Patient) -> None:
    patient.weights(lambda n, v: _swap_rows(v) if CLASSES in v.shape and v.ndim < 3 else None)


def _redirect(graph: Any, name: str, fresh: str) -> None:
    """Let all that reads a value read another."""
    for node in graph.node:
        for i, one in enumerate(node.input):
            if one == name:
                node.input[i] = fresh


def _before(patient: Patient, nodes: Callable[[Any, str], list[Any]]) -> None:
    """Put nodes between the input and what reads it.

    Args:
        patient: Whose graph.
        nodes: Makes them of the graph and the input's name; what the last one gives is read.
    """

    def change(proto: Any) -> None:
        name = proto.graph.input[0].name
        made = nodes(proto.graph, name)
        _redirect(proto.graph, name, made[-1].output[0])
        for place, node in enumerate(made):
            proto.graph.node.insert(place, node)

    patient.graph(change)


def _raw_input(patient: Patient) -> None:
    """The graph expects pixels between 0 and 1 and normalises them itself, a second time."""

    def nodes(graph: Any, name: str) -> list[Any]:
        import onnx

        for label, value in (("half", 0.5), ("two", 2.0)):
            array = np.array(value, np.float32)
            graph.initializer.append(onnx.numpy_helper.from_array(array, label))
        made = onnx.helper.make_node
        return [
            made("Sub", [name, "half"], ["centred"]),
            made("Mul", ["centred", "two"], ["twice"]),
        ]

    _before(patient, nodes)


def _rename(kind: str, wanted: str) -> Callable[[Patient], None]:
    """Replace the operators of one type, or take them out where they are to be nothing."""

    def change(proto: Any) -> None:
        found = [node for node in proto.graph.node if node.op_type == kind]
        if not found:
            raise ValueError(f"the network has no {kind}")
        found[0].op_type = wanted

    return lambda patient: patient.graph(change)


def _layout(patient: Patient) -> None:
    """The graph takes width before height."""

    def nodes(graph: Any, name: str) -> list[Any]:
        import onnx

        return [onnx.helper.make_node("Transpose", [name], ["turned"], perm=[0, 1, 3, 2])]

    _before(patient, nodes)


def _opset(patient: Patient) -> None:
    def change(proto: Any) -> None:
        proto.opset_import[0].version = 99

    patient.graph(change)


def _lost_weights(patient: Patient) -> None:
    """Weights in a file beside the model that did not come along."""
    import onnx

    proto = onnx.load(str(patient.main))
    onnx.save(
        proto, str(patient.main), save_as_external_data=True, location="weights.bin",
        size_threshold=0,
    )  # fmt: skip
    (patient.main.parent / "weights.bin").unlink()


def _more_outputs(patient: Patient) -> None:
    """An inner value is exported before the output."""

    def change(proto: Any) -> None:
        import onnx

        old = onnx.helper.make_tensor_value_info(proto.graph.node[0].output[0], 1, None)
        kept = list(proto.graph.output)
        del proto.graph.output[:]
        proto.graph.output.extend([old, *kept])

    patient.graph(change)


def _other_input(patient: Patient) -> None:
    def change(proto: Any) -> None:
        _redirect(proto.graph, proto.graph.input[0].name, "image")
        proto.graph.input[0].name = "image"

    patient.graph(change)


def _other_network(patient: Patient) -> None:
    shutil.copyfile(patient.other / "model" / "model.onnx", patient.main)


# The manifest


def _contract(*, recipe: bool, **changes: Any) -> Callable[[Patient], None]:
    def plant(patient: Patient) -> None:
        patient.manifest["io"]["inputs"][0] |= changes
        if recipe:
            spec = patient.manifest["recipe"]
            spec["spec"]["input"] |= changes
            spec["digest"] = digest(spec["spec"])

    return plant


def _shipped_metric(patient: Patient) -> None:
    patient.row["metrics"]["accuracy"] |= {"value": 0.99, "low": 0.98, "high": 1.0}


def _metric_everywhere(patient: Patient) -> None:
    before = patient.row["metrics"]["accuracy"]["value"]
    _shipped_metric(patient)
    patient.manifest["gains"]["shipped − student"]["accuracy"]["value"] += 0.99 - before


def _teacher_metric(patient: Patient) -> None:
    row = next(row for row in patient.manifest["rows"] if row["kind"] == "teacher")
    row["metrics"]["accuracy"] |= {"value": 0.2, "low": 0.1, "high": 0.3}


def _faster(patient: Patient) -> None:
    patient.row["latency"]["wall_ms"]["p50"] /= 3


def _smaller(patient: Patient) -> None:
    patient.artefact["bytes"] //= 2


def _another_name(patient: Patient) -> None:
    patient.artefact["candidate"] = "ort-int8-weights"


def _another_seed(patient: Patient) -> None:
    patient.manifest["recipe"]["spec"]["seed"] = 7


def _lost_too_much(patient: Patient) -> None:
    for row in patient.manifest["choice"]["ranking"]:
        row["loss"] = 1.1 * MAY_LOSE


def _loose(patient: Patient) -> None:
    patient.manifest["golden"]["tolerance"] = {"max_rel": 10.0, "min_cosine": 0.0}
    _nth(4, 1, lambda v: v * 1.02)(patient)


# Golden outputs


def _rolled(what: str) -> Callable[[Patient], None]:
    def change(arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {
            n: np.roll(a, 1, axis=0) if n.startswith("output:") == (what == "outputs") else a
            for n, a in arrays.items()
        }

    return lambda patient: patient.golden(change)


def _no_outputs(patient: Patient) -> None:
    patient.golden(lambda a: {n: v for n, v in a.items() if not n.startswith("output:")})


# Quantisation


def _zero_point(patient: Patient) -> None:
    """The first zero point of an activation is one step off."""
    done: list[str] = []

    def change(name: str, values: NDArray[Any]) -> NDArray[Any] | None:
        if values.dtype != np.uint8 or values.size != 1 or done:
            return None
        done.append(name)
        return values + (1 if int(values.reshape(-1)[0]) < 255 else -1)

    patient.weights(change)


def _scales(patient: Patient, kind: str, rank: int) -> set[str]:
    """Names of the scales of one kind of node; the exporter's names of weights are canonical."""
    import onnx

    graph = onnx.load(str(patient.main)).graph
    ranks = {str(tensor.name): len(tensor.dims) for tensor in graph.initializer}
    found = {str(node.input[1]) for node in graph.node if node.op_type == kind}
    return {name for name in found if ranks.get(name) == rank}


def _permuted_scales(patient: Patient) -> None:
    names = _scales(patient, "DequantizeLinear", 1)
    patient.weights(lambda n, v: np.roll(v, 1) if n in names else None)


def _stale_ranges(patient: Patient) -> None:
    """Ranges of activations from samples that were never normalised: all scales half as large."""
    names = _scales(patient, "QuantizeLinear", 0)
    patient.weights(lambda n, v: v * 0.5 if n in names else None)


def _fallback(patient: Patient) -> None:
    """One convolution runs in float: its input is no longer quantised."""

    def change(proto: Any) -> None:
        makers = {name: node for node in proto.graph.node for name in node.output}
        conv = [node for node in proto.graph.node if node.op_type == "Conv"][-1]
        dequantise = makers[conv.input[0]]
        quantise = makers[dequantise.input[0]]
        conv.input[0] = quantise.input[0]

    patient.graph(change)


def _float_under_int8(patient: Patient) -> None:
    shutil.copyfile(patient.pristine.parent / f"bundle-{FP32}" / "model/model.onnx", patient.main)


def _option(**changes: Any) -> Callable[[Patient], None]:
    return lambda patient: patient.artefact["options"].update(changes)


def _cut_weights(patient: Patient) -> None:
    file = patient.main.with_suffix(".bin")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _scale_bin(patient: Patient) -> None:
    """Some bytes of OpenVINO's weights are another value's."""
    file = patient.main.with_suffix(".bin")
    raw = bytearray(file.read_bytes())
    middle = len(raw) // 2
    raw[middle : middle + 64] = bytes(reversed(raw[middle : middle + 64]))
    file.write_bytes(raw)


_TWO = {"mean": None, "std": None}
_BGR = {"channels": [2, 1, 0]}
FAULTS: tuple[Fault, ...] = (
    Fault("truncated file", FP32, FILES, _cut, sealed=False),
    Fault("flipped bit", FP32, FILES, _flip, sealed=False),
    Fault("missing file", FP32, FILES, _lose_golden, sealed=False),
    Fault("extra file", FP32, FILES, _add, sealed=False),
    Fault("edited metric, not sealed", FP32, FILES, _edit_unsealed, sealed=False),
    Fault("truncated file, sealed", FP32, RUNS, _cut),
    Fault("wrong opset", FP32, RUNS, _opset),
    Fault("missing external data", FP32, RUNS, _lost_weights),
    Fault("reordered outputs", FP32, RUNS, _more_outputs),
    Fault("renamed input", FP32, RUNS, _other_input),
    Fault("channel swap in the first layer", FP32, GOLDEN, _nth(4, 0, lambda v: v[:, ::-1])),
    Fault("input normalised twice", FP32, GOLDEN, _raw_input),
    Fault("transposed weight", FP32, GOLDEN, _nth(4, 1, lambda v: v.swapaxes(2, 3))),
    Fault("zeroed bias", FP32, GOLDEN, _nth(1, 0, np.zeros_like)),
    Fault("zeroed channels", FP32, GOLDEN, _nth(4, 1, _part_zero)),
    Fault("wrong scale of a layer (2 %)", FP32, GOLDEN, _nth(4, 1, lambda v: v * 1.02)),
    Fault("stale batch norm", FP32, GOLDEN, _stale_norm),
    Fault("silent bfloat16 weights", FP32, GOLDEN, _every(_bf16)),
    Fault("silent float16 weights", FP32, GOLDEN, _every(_fp16)),
    Fault("missing activation", FP32, GOLDEN, _rename("Relu", "Identity")),
    Fault("wrong activation", FP32, GOLDEN, _rename("Relu", "LeakyRelu")),
    Fault("wrong layout: width before height", FP32, GOLDEN, _layout),
    Fault("NaN in a weight", FP32, GOLDEN, _nth(4, 0, _nan)),
    Fault("another network's bytes", FP32, GOLDEN, _other_network),
    Fault("swapped labels (rows of the head)", FP32, GOLDEN, _swap_labels),
    Fault("another network's bytes, golden made again", FP32, TASK, _other_network, again=True),
    Fault("swapped labels, golden made again", FP32, TASK, _swap_labels, again=True),
    Fault("input normalised twice, golden made again", FP32, TASK, _raw_input, again=True),
    Fault("golden outputs of other samples", FP32, GOLDEN, _rolled("outputs")),
    Fault("golden inputs of other samples", FP32, GOLDEN, _rolled("inputs")),
    Fault("golden file without outputs", FP32, RUNS, _no_outputs),
    Fault("loosened tolerance over a wrong scale", FP32, MANIFEST, _loose),
    Fault("no normalisation in the contract", FP32, MANIFEST, _contract(recipe=False, **_TWO)),
    Fault("channel order in the contract", FP32, MANIFEST, _contract(recipe=False, **_BGR)),
    Fault("no normalisation, recipe alike", FP32, TASK, _contract(recipe=True, **_TWO)),
    Fault("channel order, recipe alike", FP32, TASK, _contract(recipe=True, **_BGR)),
    Fault("edited metric of what ships", FP32, MANIFEST, _shipped_metric),
    Fault("edited metric, differences alike", FP32, TASK, _metric_everywhere),
    Fault("edited metric of the teacher", FP32, MANIFEST, _teacher_metric),
    Fault("stale latency", FP32, MANIFEST, _faster),
    Fault("edited size", FP32, MANIFEST, _smaller),
    Fault("another candidate's name", FP32, MANIFEST, _another_name),
    Fault("another seed in the recipe", FP32, MANIFEST, _another_seed),
    Fault("a rung passed beyond its limit", FP32, MANIFEST, _lost_too_much),
    Fault("int8 zero point shifted by one", INT8, GOLDEN, _zero_point),
    Fault("int8 scales of channels permuted", INT8, GOLDEN, _permuted_scales),
    Fault("stale calibration", INT8, GOLDEN, _stale_ranges),
    Fault("operator fallback: one layer in float", INT8, GOLDEN, _fallback),
    Fault(
        "float network called int8, golden made again", INT8, RUNS, _float_under_int8, again=True
    ),
    Fault("OpenVINO: silent bfloat16", OV, RUNS, _option(precision="bf16")),
    Fault("OpenVINO: other kernels than recorded", OV, RUNS, _option(snippets=False)),
    Fault("OpenVINO: truncated weights", OV, RUNS, _cut_weights),
    Fault("OpenVINO: garbled weights", OV, GOLDEN, _scale_bin),
)


def judge(fault: Fault, made: Mapping[str, Path], scratch: Path) -> dict[str, Any]:
    """Plant a fault, verify, and ask the peers' rules.

    Returns:
        ``fault``, ``base``, ``expected``, ``named`` (the first check that failed; empty for none),
        ``caught``, ``said``, ``cosine`` (worst of a sample, against the true artefact; None where
        the faulty one does not run), ``rules`` (rule → whether it catches).
    """
    patient = Patient(made[fault.base], made["other"], scratch / "patient")
    fault.plant(patient)
    if fault.again:
        patient.again()
    if fault.sealed:
        if fault.plant is not _smaller:
            patient.sizes()
        patient.seal()
    named, said = "", ""
    try:
        verify(patient.path, task=fault.stage == TASK)
    except BundleFailed as error:
        first = next(check for check in error.report["checks"] if check["status"] == "failed")
        named, said = first["name"], first["facts"]["faults"][0]
    except EdgekdError as error:
        named, said = type(error).__name__, error.what
    cosine = _cosine(patient, made[fault.base])
    return {
        "fault": fault.name,
        "base": fault.base,
        "expected": fault.stage,
        "named": named,
        "caught": named == fault.stage,
        "said": said.replace(f"{scratch}/", "")[:200],
        "cosine": cosine,
        "rules": {str(rule): cosine is None or not cosine >= rule for rule in RULES},
    }


def _cosine(patient: Patient, pristine: Path) -> float | None:
    truth: dict[str, Any] = json.loads((pristine / "manifest.json").read_text())
    with np.load(pristine / "golden.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    feeds = {n: a for n, a in arrays.items() if not n.startswith("output:")}
    wanted = next(a for n, a in arrays.items() if n.startswith("output:"))
    try:
        found = outputs(patient.path, {**truth["artefact"], **patient.artefact}, feeds)
    except EdgekdError:
        return None
    first = next(iter(found.values()))
    if first.shape != wanted.shape or not np.isfinite(first).all():
        return None
    return float(compare(wanted, first)["min_cosine"])


def run(faults: Sequence[Fault], made: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Judge faults, one after the other."""
    rows = []
    for fault in faults:
        with tempfile.TemporaryDirectory(prefix="edgekd-fault-") as scratch:
            start = time.perf_counter()
            row = judge(fault, made, Path(scratch))
            took = time.perf_counter() - start
        mark = "caught" if row["caught"] else "MISSED"
        print(f"{mark}  {fault.name}: {row['named'] or 'nothing'} ({took:.1f} s)", flush=True)
        rows.append(row)
    return rows


def main() -> int:
    """Run the suite; exit 1 where a fault is missed or named at another stage."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, help="keep the bundles here")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgekd-faults-") as scratch:
        work = (asked.work or Path(scratch)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        made = bundles(work)
        for name, path in made.items():
            verify(path, task=True)
            print(f"passes as it was written: {name}", flush=True)
        rows = run(FAULTS, made)
        versions = json.loads((made[FP32] / "manifest.json").read_text())["measured"]["versions"]
    caught = sum(row["caught"] for row in rows)
    missed = {str(rule): sum(not row["rules"][str(rule)] for row in rows) for rule in RULES}
    result = {
        "command": "python -m benchmarks.faults --out benchmarks/results/faults.json",
        "faults": len(rows),
        "caught_at_the_right_stage": caught,
        "missed_by_cosine": missed,
        "versions": versions,
        "rows": rows,
    }
    asked.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(f"{caught} of {len(rows)} named at the right stage")
    for rule, count in missed.items():
        print(f"cosine >= {rule} misses {count}")
    return 0 if caught == len(rows) else 1


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
