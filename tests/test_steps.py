"""Candidates and keys: what a target says must reach what is built."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from edgekd import steps
from edgekd.discover import load_target
from edgekd.errors import DataError
from edgekd.spec import Call, Input, Network, Objective, Recipe, Term, Train

TARGET = """
name: {name}
title: for a test
device: cpu
backends: [onnxruntime, openvino]
precisions: [fp32, int8]
never_quantize: {never}
"""


def target(folder, name, never="[]"):
    path = folder / f"{name}.yaml"
    path.write_text(TARGET.format(name=name, never=never))
    return load_target(path)


def recipe():
    return Recipe(
        name="r",
        data=Call("edgekd.data.icons:icons"),
        input=Input((3, 64, 64)),
        task=Call("edgekd.tasks.fewshot:fewshot"),
        teacher=Network(Call("edgekd.models.conv4:conv4"), train=Train(1)),
        student=Network(Call("edgekd.models.conv4:conv4")),
        train=Train(1),
        objective=Objective("none", (Term("label", "ce"),)),
    )


@pytest.fixture(autouse=True)
def _toolchains():
    for name in ("onnxruntime", "onnx", "openvino", "nncf"):
        pytest.importorskip(name)


def test_operators_that_a_target_keeps_reach_the_candidates_and_their_keys(tmp_path):
    free, _ = steps.candidates(recipe(), target(tmp_path, "free"))
    kept, _ = steps.candidates(recipe(), target(tmp_path, "kept", "[Softmax, Add]"))
    assert [c.id for c in free] == [c.id for c in kept]
    assert all(c.never_quantize == () for c in free if c.precision == "fp32")
    for a, b in zip(free, kept, strict=True):
        wanted = ("Softmax", "Add") if b.precision == "int8" else ()
        assert b.never_quantize == (*a.never_quantize, *wanted)
    keys = [
        {step.name: key(step, tmp_path) for step in steps.built(recipe(), t, c)}
        for t, c in (
            (target(tmp_path, "free"), free),
            (target(tmp_path, "kept", "[Softmax, Add]"), kept),
        )
    ]
    builds = [name for name in keys[0] if name.startswith("build:")]
    changed = {name.removeprefix("build:") for name in builds if keys[0][name] != keys[1][name]}
    assert changed == {c.id for c in kept if c.precision == "int8"}


def key(step, folder):
    keys = steps.Keys(recipe(), folder / "store")
    alone = dataclasses.replace(step, inputs={}, files=())
    return keys.add(alone)


@pytest.mark.parametrize(
    ("settings", "at"), [({"data": "homes"}, "setting: data"), ({}, "recipe: files")]
)
def test_a_missing_file_is_laid_to_the_setting_that_names_it(settings, at, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keys = steps.Keys(dataclasses.replace(recipe(), settings=settings), tmp_path / "store")
    step = steps.Step("teacher", steps.stage("train"), {}, {}, (tmp_path / "homes",))
    with pytest.raises(DataError, match="no such file or folder") as raised:
        keys.add(step)
    assert raised.value.at == at


def test_the_target_names_the_operator_set(tmp_path):
    assert steps.exported(recipe(), target(tmp_path, "free")).spec["opset"] == 20


def test_what_the_agent_runs_is_part_of_a_measurement(tmp_path):
    from edgekd.agent.runtimes import BUILT_IN
    from edgekd.closure import code_digest, files_of

    read = {path.name for path in files_of(steps.AGENT, tmp_path)}
    assert {f"{runtime.module}.py" for runtime in BUILT_IN.values()} <= read
    assert {"ops.py", "measure.py", "quiet.py", "torch_eager.py"} <= read
    keys = steps.Keys(recipe(), tmp_path)
    for name, own in (("score", False), ("parity", False), ("profile", False), ("choose", True)):
        keys.add(steps.Step(name, steps.stage(name), {}))
        alone = code_digest([steps.stage(name)], Path.cwd())
        assert (keys.made_of[name]["code"] == alone) == own


def test_teacher_and_student_are_timed_in_the_same_runtimes():
    """A chain a runtime, from the teacher's own export; never for a quantised candidate."""
    from edgekd.backends.base import Candidate

    names = (("onnxruntime", "ort"), ("openvino", "ov"), ("litert", "litert"))
    chosen = [
        Candidate(f"{short}-{precision}", name, name, precision, "auto")
        for name, short in names
        for precision in ("fp32", "int8")
    ]
    asked = dataclasses.replace(recipe(), time_teacher=True)
    chains = list(steps.beside(asked, load_target("cpu"), chosen))
    named = {step.name: step for chain in chains for step in chain}
    assert list(named) == [
        "export:teacher", "convert:teacher",
        "build:teacher-ort-fp32", "profile:teacher-ort-fp32", "profile:ort-fp32",
        "build:teacher-ov-fp32", "profile:teacher-ov-fp32", "profile:ov-fp32",
        "build:teacher-litert-fp32", "profile:teacher-litert-fp32", "profile:litert-fp32",
    ]  # fmt: skip
    assert named["export:teacher"].inputs == {"network": "teacher"}
    assert named["convert:teacher"].inputs == {"network": "teacher", "export": "export:teacher"}
    assert named["build:teacher-ort-fp32"].inputs == {"export": "export:teacher"}
    assert named["build:teacher-litert-fp32"].inputs["converted"] == "convert:teacher"
    assert named["profile:teacher-ov-fp32"].inputs == {"artefact": "build:teacher-ov-fp32"}
    # The student's profile is the very step that the search walks.
    usual = {s.name: s for s in steps.built(asked, load_target("cpu"), chosen[:1])}
    assert named["profile:ort-fp32"] == usual["profile:ort-fp32"]
    assert list(steps.beside(asked, load_target("cpu"), chosen, "no device")) == []
    assert list(steps.beside(recipe(), load_target("cpu"), chosen)) == []
