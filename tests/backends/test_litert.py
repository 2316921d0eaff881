"""LiteRT: what is tried, what is refused, and (with its environment) what is made."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from edgekd import steps
from edgekd.backends import litert
from edgekd.backends.base import backend, form
from edgekd.device.link import Agent
from edgekd.discover import load_recipe, load_target
from edgekd.environments import environment
from edgekd.errors import SetupError, StageError
from edgekd.events import silent

FILES = Path(__file__).parents[1] / "fixtures" / "tflite"
ROWS = {row.id: row for row in backend("litert").candidates(["fp32", "int8", "int16x8"], [])}


@pytest.fixture
def feeds():
    with np.load(FILES / "tiny.npz") as archive:
        return {"image": archive["image"]}


@pytest.fixture
def unmade(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEKD_LITERT", str(tmp_path / "nowhere"))


def test_candidates_follow_the_target():
    assert list(ROWS) == [
        "litert-fp32",
        "litert-int8-products",
        "litert-int8",
        "litert-int8-dynamic",
        "litert-int16x8",
    ]
    assert [row.id for row in backend("litert").candidates(["fp32"], [])] == ["litert-fp32"]
    assert form("litert") == "tflite" and form("onnxruntime") == "onnx"


def test_without_the_environment_nothing_is_trained_and_the_command_is_named(unmade):
    assert "edgekd setup litert" in backend("litert").available()
    with pytest.raises(SetupError, match="edgekd setup litert") as caught:
        steps.candidates(load_recipe("mobilevit", {}), load_target("pi5"), "no board")
    assert caught.value.exit_code == 4


def test_build_names_the_command_too(unmade, feeds, tmp_path):
    with pytest.raises(SetupError, match="edgekd setup litert"):
        backend("litert").build(
            FILES / "tiny_fp32.tflite", ROWS["litert-int8"], feeds, tmp_path, silent
        )


def test_all_candidates_share_one_conversion():
    recipe, target = load_recipe("mobilevit", {}), load_target("pi5")
    chosen = [ROWS["litert-fp32"], ROWS["litert-int8"]]
    planned = {step.name: step for step in steps.built(recipe, target, chosen, "no board")}
    assert list(planned).count("convert") == 1
    for row in chosen:
        step = planned[f"build:{row.id}"]
        assert step.inputs["converted"] == "convert"
        assert step.spec["toolchain"] == environment("litert").digest
        made_by = [call["to"] for call in step.spec["made_by"]]
        assert "edgekd.backends.litert_worker:main" in made_by
    assert planned["convert"].inputs == {"network": "distill", "export": "export"}
    others = backend("onnxruntime").candidates(["fp32"], [])
    assert "convert" not in {step.name for step in steps.built(recipe, target, others)}


def test_static_int8_needs_samples_and_known_words(tmp_path):
    build = backend("litert").build
    with pytest.raises(StageError, match="needs calibration samples"):
        build(FILES / "tiny_fp32.tflite", ROWS["litert-int8"], {}, tmp_path, silent)
    odd = dataclasses.replace(ROWS["litert-int8-dynamic"], never_quantize=("NoSuchOp",))
    with pytest.raises(StageError, match="NoSuchOp"):
        build(FILES / "tiny_fp32.tflite", odd, {}, tmp_path, silent)


# --- with the environment ----------------------------------------------------------------------


TOOLCHAIN = pytest.mark.needs("edgekd setup litert", install="edgekd setup litert")
INTERPRETER = pytest.mark.needs("ai_edge_litert", install="pip install 'edgekd[litert]'")


@pytest.mark.system
@TOOLCHAIN
@pytest.mark.parametrize("name", ROWS)
def test_builds(name, feeds, tmp_path):
    facts = backend("litert").build(FILES / "tiny_fp32.tflite", ROWS[name], feeds, tmp_path, silent)
    assert bool(facts["quantised_ops"]) == (ROWS[name].precision != "fp32")
    if name == "litert-int8-products":
        assert set(facts["quantised_ops"]) == {"CONV_2D", "FULLY_CONNECTED"}
    content = (tmp_path / facts["main"]).read_bytes()
    assert os.fsencode(Path.home()) not in content and b"site-packages" not in content
    if name != "litert-fp32":
        kinds = {port["dtype"] for ports in facts["io"].values() for port in ports}
        assert kinds == {"float32"}  # an application feeds it what it fed the float network


@pytest.mark.system
@TOOLCHAIN
def test_same_bytes_as_the_committed_file(feeds, tmp_path):
    """The quantiser is deterministic, and the fixtures are what this code makes."""
    policy = litert.POLICIES["static"]
    litert.quantise(FILES / "tiny_fp32.tflite", tmp_path / "m", policy, feeds, float_io=False)
    assert (tmp_path / "m").read_bytes() == (FILES / "tiny_int8.tflite").read_bytes()


@pytest.mark.system
@TOOLCHAIN
@INTERPRETER
@pytest.mark.parametrize("tokens", [1, 4])
def test_converts_and_keeps_big_constants_inside(tokens, tmp_path):
    """One token: the converter's own defect with linear layers over it is mended.

    Quantised, its 288 KiB of weights would lie behind the flatbuffer: read as garbage by
    microcontroller runtimes. What is left when the file's end is cut must not be a model.
    """
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(96, 1536), torch.nn.ReLU(), torch.nn.Linear(1536, 96))
    samples = {"tokens": np.random.default_rng(0).normal(size=(4, 2, tokens, 96)).astype("float32")}
    with torch.no_grad():
        truth = net(torch.from_numpy(samples["tokens"])).numpy()
    first = (torch.from_numpy(samples["tokens"][:1]),)
    torch.export.save(torch.export.export(net.eval(), first), str(tmp_path / "p.pt2"))
    facts = litert.convert(tmp_path / "p.pt2", samples, truth, "y", tmp_path / "m.tflite")
    assert facts["max_rel"] < 1e-5 and facts["ops"]["FULLY_CONNECTED"] == 2
    out = tmp_path / "q.tflite"
    litert.quantise(tmp_path / "m.tflite", out, litert.POLICIES["static"], samples)
    assert external_buffers(out) == 0
    assert out.stat().st_size > 2 * 96 * 1536
    with Agent() as agent:
        agent.load("litert", out)
        found = agent.run(samples)["y"]
    assert np.abs(found - truth).max() < 0.1 * np.abs(truth).max()


def external_buffers(path):
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAsModel(path.read_bytes(), 0)
    return sum(model.Buffers(i).Offset() > 1 for i in range(model.BuffersLength()))


@pytest.mark.system
@TOOLCHAIN
def test_a_program_that_cannot_be_converted_says_why(tmp_path):
    (tmp_path / "p.pt2").write_bytes(b"no program")
    samples = {"x": np.zeros((1, 2), np.float32)}
    with pytest.raises(StageError, match="failed with status 1 while converting") as caught:
        litert.convert(tmp_path / "p.pt2", samples, samples["x"], "y", tmp_path / "m.tflite")
    assert "the end of what it said" in caught.value.hint
