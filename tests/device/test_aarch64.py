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
from edgekd.calls import invoke
from edgekd.device.link import Agent

FOLDER = os.environ.get("EDGEKD_AARCH64", "")
MAKE = "bash .ci/aarch64 FOLDER, export EDGEKD_AARCH64=FOLDER"
FILES = Path(__file__).parents[1] / "fixtures" / "tflite"
NEAR = {"fp32": 1e-5, "int8": 0.03, "int8_float_io": 0.03, "int8_dynamic": 0.01}
RECIPES = [found.name for found in discover.recipes() if found.name != "classify"]
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


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_student_of_every_recipe_computes_the_same(board, recipe, tmp_path):
    from edgekd.graph.export import export_onnx
    from edgekd.models.shipped import shipped

    asked = discover.load_recipe(recipe, {"preset": "smoke"})
    torch.manual_seed(0)
    model = shipped(invoke(asked.student.build, tmp_path).eval())
    samples = torch.randn(4, *asked.input.shape)
    export_onnx(model, asked.input, tmp_path / "model.onnx", samples=samples, opset=20)
    with torch.inference_mode():
        truth = model(samples).numpy()
    board.load("onnxruntime", tmp_path / "model.onnx")
    found = next(iter(board.run({asked.input.name: samples.numpy()}, 1).values()))
    assert np.abs(found - truth).max() <= 1e-4 * np.abs(truth).max()


@pytest.mark.parametrize("variant", NEAR)
def test_litert_files_compute_the_same(board, variant):
    with np.load(FILES / "tiny.npz") as archive:
        feeds, truth = {"image": archive["image"][:4]}, archive["output:scores"][:4]
    board.load("litert", FILES / f"tiny_{variant}.tflite")
    assert np.abs(board.run(feeds)["scores"] - truth).max() < NEAR[variant]
