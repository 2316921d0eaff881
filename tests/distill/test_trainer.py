import copy

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.distill import trainer
from edgekd.distill.lesson import Lesson, batches
from edgekd.distill.rollouts import Rollouts
from edgekd.distill.schedule import learning_rate
from edgekd.distill.student import Student
from edgekd.distill.teacher import TeacherOutputs
from edgekd.distill.trainer import fit
from edgekd.distill.views import View, crop_and_turn
from edgekd.errors import StageError
from edgekd.events import silent
from edgekd.spec import Input, Objective, Term, Train

TERMS = Objective("t", (Term("label", "ce"), Term("features", "mse", project="linear")))


class Pictures:
    def __init__(self, count=24, classes=3):
        rng = np.random.default_rng(0)
        self.labels = np.arange(count) % classes
        self.x = rng.integers(0, 255, (count, 16, 16, 3), dtype=np.uint8)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], int(self.labels[i])


class Net(nn.Module):
    features = 6

    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, 6, 3)
        self.b = nn.BatchNorm2d(6)

    def forward(self, x):
        return torch.relu(self.b(self.c(x))).mean((2, 3))


def lesson(epochs=4, lr=1e-2, workers=0):
    data = Pictures()
    train = Train(epochs, batch=8, lr=lr, views=2, workers=workers)
    outputs = tuple({"features": np.random.default_rng(v).normal(size=(24, 5))} for v in range(2))
    return Lesson(
        data,
        torch.from_numpy(data.labels),
        Input((3, 16, 16), (0.5,) * 3, (0.5,) * 3),
        train,
        crop_and_turn(),
        TeacherOutputs(outputs),
        3,
        torch.device("cpu"),
    )


def student():
    torch.manual_seed(0)
    return Student(Net(), "features", 6, 3, TERMS, {"features": (5,)})


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


def by_hand(net, told):
    """The plain loop: what `fit` does, without any of its parts but the batches."""
    train = told.train
    net.to(memory_format=torch.channels_last)
    decay = [p for p in net.parameters() if p.ndim > 1]
    rest = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": 0.02}, {"params": rest, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=train.lr)
    history = []
    for epoch in range(train.epochs):
        torch.manual_seed(3 * 1_000_003 + epoch)
        net.train()
        losses = []
        for number, batch in enumerate(batches(told, epoch, Rollouts())):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(train, (3 * epoch + number + 1) / (3 * train.epochs))
            features = net.backbone(batch.x)
            loss = nn.functional.cross_entropy(net.head(features), batch.y)
            goal = batch.teacher["features"]
            loss = loss + nn.functional.mse_loss(net.projectors["1"](features), goal)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            losses.append(float(loss.detach()))
        history.append(sum(losses) / 3)
    return history


def test_it_is_the_plain_loop_bit_for_bit(tmp_path):
    one, two = student(), student()
    facts = fit(one, lesson(6), tmp_path, "s", silent)
    assert facts["history"] == by_hand(two, lesson(6))
    assert same(one.state_dict(), two.state_dict())


def test_checkpoints_are_seldom_and_the_last_epoch_needs_none(tmp_path, monkeypatch):
    saved, real = [], trainer._save
    monkeypatch.setattr(trainer, "_save", lambda path, course: saved.append(course.done["epoch"]))
    fit(student(), lesson(4), tmp_path, "s", silent)
    assert saved == []  # an epoch takes milliseconds
    monkeypatch.setattr(trainer, "SAVE_EVERY_S", 0)
    fit(student(), lesson(4), tmp_path, "s", silent)
    assert saved == [1, 2, 3]
    assert real is not trainer._save


def test_an_interrupted_training_ends_as_an_unbroken_one(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "SAVE_EVERY_S", 0)
    whole, broken = student(), student()
    fit(whole, lesson(), tmp_path / "a", "s", silent)
    real, calls = trainer._epoch, []

    def stop_at_third(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(trainer, "_epoch", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        fit(broken, lesson(), tmp_path / "b", "s", silent)
    monkeypatch.setattr(trainer, "_epoch", real)
    again = student()
    facts = fit(again, lesson(), tmp_path / "b", "s", silent)
    assert len(facts["history"]) == 4
    assert same(whole.state_dict(), again.state_dict())
    assert not (tmp_path / "b" / trainer.CHECKPOINT).exists()


def test_it_learns_and_the_teacher_gets_no_gradient(tmp_path):
    net = student()
    before = copy.deepcopy(net.state_dict())
    facts = fit(net, lesson(8), tmp_path, "s", silent)
    assert facts["history"][-1] < facts["history"][0]
    assert not same(before, net.state_dict())


def test_a_loss_that_is_not_finite_stops(tmp_path):
    with pytest.raises(StageError, match="not finite"):
        fit(student(), lesson(3, lr=1e30), tmp_path, "s", silent)


def test_a_view_does_not_depend_on_the_batch():
    data, augment = Pictures(), crop_and_turn(erase=0.5)
    view = View(augment, len(data), 1, 0)
    every, some = torch.arange(24), torch.tensor([5, 2])
    np.testing.assert_allclose(
        view(data.x, every)[some].numpy(), view(data.x[some], some).numpy(), atol=1e-3
    )
    other = View(augment, len(data), 1, 1)
    assert not torch.allclose(view(data.x, every), other(data.x, every))
