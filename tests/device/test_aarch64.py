"""Artefacts run on the instruction set of the boards, emulated; speed is another matter.

`.ci/aarch64 FOLDER` makes the emulated interpreter; ``EDGEKD_AARCH64`` says where it is.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edgekd import discover
from edgekd.backends import litert
from edgekd.backends.base import backend
from edgekd.calls import invoke
from edgekd.compare import compare
from edgekd.device.link import Agent
from edgekd.events import silent

FOLDER = os.environ.get("EDGEKD_AARCH64", "")
MAKE = "bash .ci/aarch64 FOLDER, export EDGEKD_AARCH64=FOLDER"
FILES = Path(__file__).parents[1] / "fixtures" / "tflite"
NEAR = {"fp32": 1e-5, "int8": 0.03, "int8_float_io": 0.03, "int8_dynamic": 0.01}
CALIBRATED, FEW = 16, 2
SETTINGS = {"classify": {"data": "nowhere", "classes": 3, "student": "conv4"}}
"""What a recipe cannot do without."""
RECIPES = [found.name for found in discover.recipes()]
pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(600),
    pytest.mark.needs("qemu-aarch64", install="apt-get install qemu-user"),
    pytest.mark.needs(f"{FOLDER or 'no-emulated-aarch64'}/python3", install=MAKE),
]


@pytest.fixture(scope="module")
def board():
    """The agent, as the zipapp that boards get, in an aarch64 interpreter."""
    with Agent(python=f"{FOLDER}/python3", timeout_s=300) as agent:
        yield agent


def test_it_is_another_machine(board):
    facts = board.facts()
    assert facts["arch"] == "aarch64" != os.uname().machine
    assert facts["runtimes"]["onnxruntime"] and facts["runtimes"]["litert"]


@pytest.fixture(scope="module", params=RECIPES)
def artefacts(request, tmp_path_factory):
    """The student of a recipe, untrained: samples, torch's outputs, and its artefacts by name.

    Each is (runtime of the agent, file, options); ``.tflite`` ones where their toolchain is.
    """
    from edgekd.graph.export import export_onnx
    from edgekd.models.shipped import shipped
    from edgekd.quant.ranges import measure_ranges, save_ranges

    out = tmp_path_factory.mktemp(request.param)
    settings = {"preset": "smoke", **SETTINGS.get(request.param, {})}
    asked = discover.load_recipe(request.param, settings)
    torch.manual_seed(0)
    model = shipped(invoke(asked.student.build, out).eval())
    samples = torch.randn(CALIBRATED, *asked.input.shape)
    export_onnx(model, asked.input, out / "model.onnx", samples=samples[:4], opset=20)
    feeds = {asked.input.name: samples.numpy()}
    save_ranges(measure_ranges(out / "model.onnx", feeds), out / "ranges.json")
    with torch.inference_mode():
        truth = model(samples[:FEW]).numpy()
    made = {"fp32": ("onnxruntime", out / "model.onnx", {})}
    for name in ("onnxruntime", "tensorrt"):
        row = next(
            r for r in backend(name).candidates(["fp16", "int8"], ()) if r.precision == "int8"
        )
        facts = backend(name).build(out / "model.onnx", row, feeds, out / row.id, silent)
        runs = facts.get("proxy") or facts
        made[row.id] = (runs["runtime"], out / row.id / facts["main"], runs["options"])
    if backend("litert").available() is None:
        made |= _tflite(model, feeds, truth, out)
    return {name: values[:FEW] for name, values in feeds.items()}, truth, made


def _tflite(model, feeds, truth, out):
    """The same student for LiteRT: float, and int8 as it is tried first."""
    program, (values,) = out / "program.pt2", feeds.values()
    with torch.no_grad():
        torch.export.save(torch.export.export(model, (torch.from_numpy(values[:1]),)), str(program))
    some = {name: array[:FEW] for name, array in feeds.items()}
    litert.convert(program, some, truth, "output", out / "model.tflite")
    made = {}
    for row in backend("litert").candidates(["fp32", "int8"], ())[:2]:
        facts = backend("litert").build(out / "model.tflite", row, feeds, out / row.id, silent)
        made[row.id] = ("litert", out / row.id / facts["main"], {})
    return made


def test_the_artefacts_of_every_recipe_compute_the_same(board, artefacts):
    """On both instruction sets, and near what torch computes."""
    feeds, truth, made = artefacts
    least = {"fp32", "ort-int8", "trt-int8"}
    if os.environ.get("CI"):
        least |= {"litert-fp32", "litert-int8-products"}
    assert least <= set(made)
    with Agent() as host:
        for name, (runtime, file, options) in made.items():
            outputs = []
            for agent in (host, board):
                agent.load(runtime, file, **options)
                outputs.append(next(iter(agent.run(feeds, 1).values())))
            here, there = outputs
            exact = "fp32" in name
            assert np.isfinite(there).all(), name
            assert compare(here, there)["max_rel"] <= (1e-5 if exact else 0.05), name
            assert compare(truth, there)["min_cosine"] >= (0.999999 if exact else 0.995), name


@pytest.mark.parametrize("variant", NEAR)
def test_litert_files_compute_the_same(board, variant):
    with np.load(FILES / "tiny.npz") as archive:
        feeds, truth = {"image": archive["image"][:4]}, archive["output:scores"][:4]
    board.load("litert", FILES / f"tiny_{variant}.tflite")
    assert np.abs(board.run(feeds)["scores"] - truth).max() < NEAR[variant]
