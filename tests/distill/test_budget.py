"""The trainer's ways to spend a budget: micro-batches, processes, averages, schedules, stops."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from edgekd import steps
from edgekd.distill import parallel, trainer
from edgekd.distill.lesson import Lesson
from edgekd.distill.schedule import Average, Watch, learning_rate
from edgekd.distill.student import Student
from edgekd.distill.teacher import TeacherOutputs
from edgekd.distill.trainer import fit
from edgekd.distill.views import check_augment, check_repeats
from edgekd.errors import RecipeError, StageError
from edgekd.events import silent
from edgekd.run import Walk
from edgekd.spec import Call, Input, Objective, Term, Train
from edgekd.store import Store
from tests.distill import toy
from tests.distill.test_regimes import recipe

OWN = Objective("t", (Term("label", "mse"), Term("logits", "smooth_l1")))


def student(objective=OWN):
    torch.manual_seed(0)
    return Student(toy.student(), "logits", 0, 1, objective, {"logits": (1,)})


def lesson(train, **changes):
    data = toy.states().train
    said = np.random.default_rng(1).normal(size=(64, 1)).astype(np.float32)
    values = {
        "dataset": data,
        "labels": torch.from_numpy(data.labels),
        "input": Input((3,)),
        "train": train,
        "augment": None,
        "teacher": TeacherOutputs(({"logits": said},)),
        "seed": 3,
        "device": torch.device("cpu"),
    }
    return Lesson(**{**values, **changes})


def trained(folder, train, **changes):
    net = student()
    facts = fit(net, lesson(train, **changes), folder, "s", silent)
    return net.backbone.state_dict(), facts


def distance(a, b):
    return max(float((a[n] - b[n]).abs().max()) for n in a)


def test_micro_batches_give_the_same_step(tmp_path):
    train = Train(4, batch=16, lr=1e-2)
    whole, _ = trained(tmp_path / "a", train)
    cut, _ = trained(tmp_path / "b", dataclasses.replace(train, accumulate=4))
    assert distance(whole, cut) < 1e-5
    assert distance(whole, student().backbone.state_dict()) > 1e-2


@pytest.mark.timeout(120)
def test_two_processes_are_one_that_accumulates(tmp_path):
    """Twenty steps, no batch norm, terms by sample: parameters agree to 1e-5."""
    weights = []
    for name, changes in (("one", {"accumulate": 2}), ("two", {"processes": 2})):
        of = recipe(Train(5, batch=16, lr=3e-2, **changes))
        run = Walk(of, Store(tmp_path / name), silent, "cpu")
        for step in steps.shared(of):
            if step.name in ("teacher", "teach", "distill"):
                run.step(step)
        facts = run.done["distill"].facts
        assert facts["steps"] == 20
        assert len(facts["history"]) == 5
        weights.append(torch.load(run.done["distill"].path / "weights.pt"))
    assert distance(*weights) < 1e-5
    assert sorted(p.name for p in run.done["distill"].path.iterdir()) == sorted(
        ["artefact.json", "entry.json", "facts.json", "network.json", "state.npz", "weights.pt"]
    )


@pytest.mark.parametrize(
    ("objective", "train", "text"),
    [
        (OWN, Train(1, batch=10, accumulate=4), "batch of 10 cannot be cut"),
        (Objective("d", (Term("logits", "dist"),)), Train(1, processes=2), "'dist' compares the"),
        (
            Objective("r", (Term("features", "smooth_l1", "distances"),)),
            Train(1, processes=2),
            "'smooth_l1' compares the samples",
        ),
        (OWN, Train(2, processes=2, rounds=1, rollout=Call("a:b")), "rollouts are trained on"),
        (OWN, Train(1, batch=128, processes=2), "do not fill a batch"),
    ],
)
def test_what_cannot_be_shared_is_refused_by_name(objective, train, text):
    with pytest.raises(RecipeError, match=text):
        parallel.check_shares(train, objective, 64)
    parallel.check_shares(dataclasses.replace(train, batch=16, processes=1), objective, 64)


def test_an_average_of_the_weights_ships(tmp_path):
    plain, _ = trained(tmp_path / "a", Train(4, batch=16, lr=1e-1))
    average, _ = trained(tmp_path / "b", Train(4, batch=16, lr=1e-1, ema=0.9))
    assert distance(plain, average) > 1e-3
    net = nn.Linear(1, 1, bias=False)
    kept = Average(net, 0.5)
    start = float(net.weight.detach())
    with torch.no_grad():
        net.weight += 1
    kept.update(net)
    assert float(kept.values["weight"]) == pytest.approx(start + 0.9)  # the start is forgotten


def test_schedules():
    base = Train(1, lr=1.0, warmup=0.1)
    assert learning_rate(base, 0.05) == pytest.approx(0.5)
    assert learning_rate(base, 1.0) == pytest.approx(0, abs=1e-12)
    flat = dataclasses.replace(base, schedule="constant")
    assert learning_rate(flat, 0.9) == 1.0
    plateau = dataclasses.replace(base, schedule="plateau")
    assert learning_rate(plateau, 0.9, drops=2) == pytest.approx(0.01)


def test_a_watch_counts_what_did_not_help():
    train, watch, net = Train(9, schedule="plateau", patience=2, stop=4), Watch(), nn.Linear(1, 1)
    said = [watch.see(train, i + 1, v, net) for i, v in enumerate([1, 2, 1, 1, 2, 1])]
    assert said == [False] * 5 + [True]
    assert (watch.drops, watch.epoch, watch.best) == (2, 2, 2)


@pytest.mark.parametrize("extra", [{}, {"ema": 0.8}])
def test_the_best_epoch_ships_and_an_interrupted_run_ends_the_same(tmp_path, monkeypatch, extra):
    monkeypatch.setattr(trainer, "SAVE_EVERY_S", 0)
    train = Train(8, batch=16, lr=3e-2, stop=3, schedule="plateau", patience=1, **extra)
    scores = [0.1, 0.5, 0.9, 0.2, 0.3, 0.1, 2.0, 3.0]
    seen = []

    def validate(backbone):
        seen.append({n: v.clone() for n, v in backbone.state_dict().items()})
        return scores[len(seen) - 1]

    whole, facts = trained(tmp_path / "a", train, validate=validate)
    assert (facts["epochs"], facts["best_epoch"], facts["best"]) == (6, 3, 0.9)
    assert distance(whole, seen[2]) == 0
    seen.clear()
    real, calls = trainer._epoch, []

    def stop_at_fifth(*arguments):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(trainer, "_epoch", stop_at_fifth)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "b", train, validate=validate)
    monkeypatch.setattr(trainer, "_epoch", real)
    again, facts = trained(tmp_path / "b", train, validate=validate)
    assert facts["epochs"] == 6
    assert distance(whole, again) == 0


def test_memory_that_runs_out_names_the_remedies(tmp_path, monkeypatch):
    def full(*arguments):
        raise torch.OutOfMemoryError("no more")

    monkeypatch.setattr(trainer, "_gradients", full)
    with pytest.raises(StageError, match=r"batches of 16[\s\S]*accumulate"):
        trained(tmp_path, Train(1, batch=16))


class Noise:
    dims = 1

    def __call__(self, x, uniform):
        return x + torch.randn_like(x)


class Shift:
    dims = 1

    def __call__(self, x, uniform):
        return x + uniform.view(-1, *[1] * (x.ndim - 1))


def test_a_cached_target_with_a_random_augmentation_is_refused():
    x = torch.zeros(4, 3)
    check_augment(Shift(), "Train.augment")
    check_repeats(Shift(), x, "Train.augment")
    with pytest.raises(RecipeError, match="random by itself"):
        check_repeats(Noise(), x, "Train.augment")
    with pytest.raises(RecipeError, match="not driven by the numbers"):
        check_augment(lambda x: x, "Train.augment")


def test_the_pipeline_refuses_it_too(tmp_path):
    of = recipe(Train(2, augment=Call("tests.distill.test_budget:Noise")))
    run = Walk(of, Store(tmp_path), silent, "cpu")
    with pytest.raises(RecipeError, match="random by itself"):
        for step in steps.shared(of):
            run.step(step)


def test_corruption_is_the_students_alone_and_new_in_every_epoch():
    train = Train(2, batch=64, corrupt=Call("tests.distill.test_budget:Shift"))
    of = lesson(train, corrupt=Shift())
    from edgekd.distill.lesson import batches
    from edgekd.distill.rollouts import Rollouts

    first, second = (next(batches(of, epoch, Rollouts())) for epoch in (0, 1))
    moved = [b.x - torch.from_numpy(of.dataset.take(b.indices.numpy())) for b in (first, second)]
    for shift in moved:
        torch.testing.assert_close(shift[:, 0], shift[:, 2])
        assert float(shift.min()) > 0
    lined = [m[b.indices.argsort(), 0] for m, b in zip(moved, (first, second), strict=True)]
    assert not torch.allclose(*lined)


ACCESS = {"logits": {"logits"}, "top-k": {"logits"}, "labels": {"logits"}}


@pytest.mark.parametrize("access", ACCESS)
def test_a_teacher_shows_no_more_than_its_access(access):
    from edgekd.distill.teacher import limited

    taps = {"logits": torch.tensor([[3.0, 1.0, 0.0, -1.0]]), "features": torch.zeros(1, 2)}
    left = limited(taps, access, 2)
    assert set(left) == {"logits"}
    chances, true = left["logits"].softmax(1)[0], taps["logits"].softmax(1)[0]
    assert float(chances.sum()) == pytest.approx(1)
    kept = {"logits": 4, "top-k": 2, "labels": 0}[access]
    torch.testing.assert_close(chances[:kept], true[:kept])
    if access == "top-k":
        assert float(chances[2]) == pytest.approx(float(chances[3]))
    if access == "labels":
        assert float(chances[0]) > 0.999
    with pytest.raises(RecipeError, match="without logits"):
        limited({"features": torch.zeros(1, 2)}, access, 2)


def test_bf16_is_for_processors_that_have_it(monkeypatch):
    from edgekd.distill import trainer

    assert "architecture" in torch.cpu.get_capabilities()  # not a promise of torch: pinned here
    for able, found in (
        ({"avx2": True, "avx512_bf16": False}, False),
        ({"avx2": True, "avx512_bf16": True}, True),
        ({"bf16": True}, True),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able)
        assert trainer.has_bf16("cpu") is found
    assert trainer.has_bf16("cuda")
