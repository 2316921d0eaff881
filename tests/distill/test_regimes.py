"""Regression, privileged views, on-policy distillation: through the stages, on a toy."""

import dataclasses

import numpy as np
import pytest
import torch

from edgekd import steps
from edgekd.artefact import Running, open_artefact
from edgekd.discover import load_target
from edgekd.distill import rollouts, terms, trainer
from edgekd.distill.teacher import open_outputs
from edgekd.distill.views import Prepare, as_tensor
from edgekd.errors import RecipeError
from edgekd.events import silent
from edgekd.inputs import prepare
from edgekd.quant.calibrate import calibration_indices
from edgekd.run import Walk
from edgekd.spec import Call, Input, Metric, Network, Objective, Recipe, Term, Train, plain, rebuild
from edgekd.store import Store
from edgekd.tasks.base import labels_of
from tests.distill import toy

HERE = "tests.distill.toy:"
FEW = (0, 1)


def recipe(train=None, objective=(), **changes):
    own = objective or (
        Term("label", "smooth_l1", weight=0.5),
        Term("logits", "smooth_l1", weight=0.5),
    )
    values = {
        "name": "toy",
        "data": Call(HERE + "states"),
        "input": Input((2,), channels=FEW),
        "task": Metric(Call(HERE + "error"), "error"),
        "teacher": Network(
            Call(HERE + "student"), train=Train(12, batch=16, lr=3e-2), input=Input((3,))
        ),
        "student": Network(Call(HERE + "student", {"channels": 2})),
        "train": train or Train(8, batch=16, lr=3e-2),
        "objective": Objective("own", own),
        "output": "logits",
    }
    return Recipe(**{**values, **changes})


def walk(of, folder):
    run = Walk(of, Store(folder), silent, "cpu")
    for step in steps.shared(of):
        run.step(step)
    return run


def rolling(**changes):
    return Train(
        6, batch=16, lr=3e-2, rollout=Call(HERE + "rollout"), rounds=2, on_policy=0.5, **changes
    )


def test_float_labels_and_fewer_channels_reach_an_exported_graph(tmp_path):
    of = recipe()
    run = walk(of, tmp_path)
    for name in ("teacher", "control", "distill"):
        history = run.done[name].facts["history"]
        assert history[-1] < history[0]
        assert run.done[name].facts["val"]["metrics"]["error"]["value"] > -0.3
    entry = run.step(steps.exported(of, load_target("cpu-ort")))
    golden, calibration = (np.load(entry.path / f"{n}.npz") for n in ("golden", "calibration"))
    assert golden["input"].shape[1:] == calibration["input"].shape[1:] == (2,)
    raw = toy.states().test.x
    with Running(open_artefact(entry.path)) as model:
        found = model(raw)
    build = open_artefact(run.done["distill"].path)
    with Running(build, options={"base": "."}) as model:
        np.testing.assert_allclose(found, model(raw), atol=1e-5)
    assert found.shape == (64, 1)


def test_a_label_may_be_one_number(tmp_path):
    of = recipe(data=Call(HERE + "states", {"flat": True}))
    assert walk(of, tmp_path).done["distill"].facts["history"][-1] < 0.2


def test_the_control_learns_the_objectives_own_label_terms():
    of = recipe(rolling(), (Term("label", "mse", weight=0.2), Term("logits", "mse", weight=3.0)))
    control = next(s for s in steps.shared(of) if s.name == "control")
    assert control.spec["objective"]["terms"] == [plain(Term("label", "mse", weight=1.0))]
    assert control.spec["train"]["rollout"] is None
    assert not control.inputs
    alone = Objective("x", (Term("logits", "mse"),)).without_teacher()
    assert alone.terms == (Term("label", "auto"),)
    kinds = [terms.divergence_of(alone.terms[0], torch.zeros(2, dtype=t)) for t in
             (torch.int64, torch.float32)]  # fmt: skip
    assert kinds == ["ce", "smooth_l1"]


def test_class_weights_come_through_the_spec():
    term = rebuild(Term, plain(Term("label", "ce", args={"weights": (1.0, 5.0)})))
    logits, labels = torch.tensor([[0.3, -0.2], [1.0, 0.5]]), torch.tensor([0, 1])
    wanted = torch.nn.functional.cross_entropy(logits, labels, torch.tensor([1.0, 5.0]))
    assert torch.equal(terms.against_label(term, {"logits": logits}, labels), wanted)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"objective": (Term("label", "ce"),)}, "needs classes"),
        ({"objective": (Term("label", "huber"),)}, "smooth_l1"),
        ({"output": "features"}, "returns features"),
        ({"student": Network(Call(HERE + "Seen"))}, "returns .2,. a sample"),
        ({"train": Train(2, rollout=Call(HERE + "rollout"), rounds=2)}, "2 rollouts divide 2"),
        ({"train": Train(2, rollout=Call(HERE + "unlabelled"), rounds=1)}, "returned ndarray"),
        ({"train": Train(2, rollout=Call(HERE + "integers"), rounds=1)}, "labels are torch.int64"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, changes, text):
    with pytest.raises(RecipeError, match=text):
        walk(recipe(**changes), tmp_path)


def test_float_labels_are_read_and_drawn_from_as_they_are():
    listed = [(np.zeros(2), np.array([0.5, 1.0])), (np.zeros(2), np.array([1.5, 2.0]))]
    np.testing.assert_array_equal(labels_of(listed), [[0.5, 1.0], [1.5, 2.0]])
    assert labels_of([(0, 3), (0, 1)]).dtype == np.int64
    rows = calibration_indices(np.random.default_rng(0).normal(size=(50, 2)), 8, 1)
    assert len(rows) == 8
    assert (rows == calibration_indices(np.zeros((50, 2)), 8, 1)).all()


def test_channels_mean_the_same_to_torch_and_to_numpy():
    chosen = Input((2, 5), channels=(3, 1))
    series = np.random.default_rng(0).normal(size=(4, 6, 5)).astype(np.float32)
    found = prepare(series, plain(chosen))
    np.testing.assert_array_equal(found, series[:, [3, 1]])
    np.testing.assert_array_equal(Prepare(chosen)(as_tensor(series)).numpy(), found)
    images = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 3), dtype=np.uint8)
    grey = Input((1, 8, 8), (0.4,), (0.2,), channels=(1,))
    np.testing.assert_allclose(
        Prepare(grey)(as_tensor(images)).numpy(), prepare(images, plain(grey)), atol=1e-6
    )
    camera = dataclasses.replace(grey, form="uint8_nhwc")
    np.testing.assert_array_equal(prepare(images, plain(camera)), images[..., 1:2])
    with pytest.raises(RecipeError, match="channels"):
        Input((3, 5), channels=(3, 1))


def test_the_student_acts_once_a_round_and_the_teacher_is_asked_there(tmp_path):
    toy.CALLS.clear()
    of = recipe(rolling())
    run = walk(of, tmp_path)
    assert [number for number, _ in toy.CALLS] == [1, 2]
    assert len({seed for _, seed in toy.CALLS}) == 2
    assert run.done["distill"].facts["rollouts"] == [64, 64]
    assert "rollouts" not in run.done["control"].facts
    assert not list(run.done["distill"].path.glob("rollouts*"))
    views = open_outputs(run.done["teach"].path).views
    assert len(views[0]["logits"]) == 64  # the cache holds the data alone


def test_the_share_of_rollouts_rises_to_its_end():
    train = rolling()
    parts = [rollouts.part_of(train, epoch) for epoch in range(6)]
    assert parts == [0, 0, 1, 1, 2, 2]
    assert [rollouts.share_of(train, part) for part in (0, 1, 2)] == [0, 4, 8]


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_an_interrupted_on_policy_training_ends_as_an_unbroken_one(tmp_path, monkeypatch, share):
    of = recipe(dataclasses.replace(rolling(), on_policy=share))
    whole = walk(of, tmp_path / "a")
    real, seen = trainer._epoch, []

    def stop_at_fifth(*arguments):
        seen.append(1)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return real(*arguments)

    broken = Walk(of, Store(tmp_path / "b"), silent, "cpu")
    for step in steps.shared(of):
        if step.name == "distill":
            break
        broken.step(step)
    monkeypatch.setattr(trainer, "_epoch", stop_at_fifth)
    with pytest.raises(KeyboardInterrupt):
        broken.step(step)
    monkeypatch.setattr(trainer, "_epoch", real)
    toy.CALLS.clear()
    ended = broken.step(step)
    assert toy.CALLS == []  # both rounds were kept
    first, second = (
        torch.load(entry.path / "weights.pt") for entry in (whole.done["distill"], ended)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
