"""Taps inside networks, projectors, learned divergences, peers, gates and ramps."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.distill import learned, terms
from edgekd.distill.loss import Batch, objective_loss
from edgekd.distill.student import Student
from edgekd.distill.weights import factor, gap
from edgekd.errors import RecipeError
from edgekd.spec import Objective, Term

X = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, 2])


class Net(nn.Module):
    map = "body.0"

    def __init__(self, width=4, classes=3):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, stride=2), nn.ReLU())
        self.head = nn.Linear(width, classes)

    def embed(self, x):
        return self.body(x).mean((2, 3))

    def forward(self, x):
        return self.head(self.embed(x))


def student(*own, shapes=None, width=4):
    torch.manual_seed(0)
    given = {"logits": (3,), "features": (5,), "map": (5, 3, 3), **(shapes or {})}
    return Student(Net(width), "logits", width, 3, Objective("t", own), given, Y, X[:2])


def teacher():
    rng = np.random.default_rng(1)
    shapes = {"logits": (6, 3), "features": (6, 5), "map": (6, 5, 3, 3)}
    return {n: torch.from_numpy(rng.normal(size=s)).float() for n, s in shapes.items()}


def loss(net, at=1.0, peer=None):
    batch = Batch(X, Y, teacher(), torch.arange(6))
    return objective_loss(net, net(X), batch, at=at, peer=peer)


ONE = [
    Term("map", "mse", project="conv"),
    Term("feat:body.1", "mse", "attention", teacher="map"),
    Term("feat:body", "diffusion", teacher="map"),
    Term("map", "mea", project="conv", args={"fg": 0.1, "attn": 0.1, "rela": 0.1}),
    Term("features", "mse", project="linear"),
    Term("features", "mse", project="mlp"),
    Term("features", "crd", args={"width": 8, "negatives": 4}),
    Term("features", "smooth_l1", "distances"),
    Term("logits", "kl", gate="gap"),
    Term("feat:head", "kl", teacher="self:logits", args={"temperature": 1.0}),
]


@pytest.mark.parametrize("own", ONE, ids=lambda t: f"{t.tap} {t.divergence} {t.project}")
def test_every_kind_of_term_trains_the_backbone(own):
    net = student(own)
    value = loss(net)
    assert torch.isfinite(value)
    value.backward()
    if own.source != "self:logits":
        assert net.backbone.body[0].weight.grad.abs().sum() > 0


def test_a_term_that_finds_no_tap_is_refused_not_skipped():
    with pytest.raises(RecipeError, match="teacher offers no tap 'logits'"):
        Student(Net(), "logits", 4, 3, Objective("t", (Term("logits", "kl"),)), {"features": (5,)})
    with pytest.raises(RecipeError, match=r"did you mean 'body\.1'"):
        student(Term("feat:body.9", "mse"))
    with pytest.raises(RecipeError, match="does not say where its feature map is"):
        Student(nn.Linear(3, 3), "logits", 0, 3, Objective("t", (Term("map", "mse"),)), {})
    with pytest.raises(RecipeError, match="output is one number"):
        student(Term("logits", "kl"), shapes={"logits": (1,)})
    with pytest.raises(RecipeError, match="'conv' for maps"):
        student(Term("map", "mse", project="linear"))


def test_a_ramp_is_a_broken_line():
    line = ((0.0, 0.0), (0.1, 1.0), (0.5, 1.0), (1.0, 0.2))
    found = [factor(line, at) for at in (0, 0.05, 0.1, 0.3, 0.75, 1, 2)]
    assert found == pytest.approx([0, 0.5, 1, 1, 0.6, 0.2, 0.2])
    assert factor((), 0.3) == 1
    own = Term("logits", "kl", weight=2.0, ramp=((0, 0), (1, 1)))
    ahead = [float(loss(student(own), at).detach()) for at in (0.0, 0.5, 1.0)]
    assert ahead[0] == 0
    assert ahead[1] * 2 == pytest.approx(ahead[2])


def test_the_gap_closes_where_the_teacher_is_not_better():
    good, bad = torch.eye(3)[Y] * 9, torch.zeros(6, 3)
    assert float(gap(bad, good, Y)) > 0.99
    assert float(gap(good, bad, Y)) == 0
    assert float(gap(torch.zeros(6, 1), torch.ones(6, 1), torch.ones(6))) == 1


def test_two_peers_teach_one_another():
    own = (Term("label", "ce"), Term("logits", "kl", teacher="peer:logits"))
    first, second = student(*own), student(*own)
    with torch.no_grad():
        second.backbone.head.weight.add_(0.3)
    taps = second(X)
    loss(first, peer=taps).backward()
    assert first.backbone.head.weight.grad.abs().sum() > 0
    assert second.backbone.head.weight.grad is None


def memory_by_hand(v, t, ours, theirs, chosen, norm, temperature=0.07):
    """Loops over samples and negatives; the norm of an unset side is its own mean."""
    total, n, k = 0.0, len(ours), chosen.shape[1] - 1
    for anchors, bank, side in ((v, theirs, 0), (t, ours, 1)):
        h = np.array([[np.exp(bank[j] @ a / temperature) for j in row]
                      for a, row in zip(anchors, chosen, strict=True)])  # fmt: skip
        z = h.mean() * n if norm[side] < 0 else norm[side]
        h = h / z
        for row in h:
            total -= np.log(row[0] / (row[0] + k / n + 1e-7))
            total -= sum(np.log(k / n / (other + k / n + 1e-7)) for other in row[1:])
    return total / len(v)


def test_contrast_with_a_memory_agrees_with_its_twin_and_never_with_its_own_class(monkeypatch):
    labels = torch.arange(40) % 4
    torch.manual_seed(0)
    part = learned.ContrastiveMemory((5,), (7,), labels, width=8, negatives=10).double()
    s, t = (torch.randn(6, w, dtype=torch.float64) for w in (5, 7))
    places = torch.tensor([3, 8, 21, 30, 31, 39])
    others = part._others(places)
    assert (labels[others] != labels[places][:, None]).all()
    monkeypatch.setattr(part, "_others", lambda indices: others)
    unit = nn.functional.normalize
    v, u = unit(part.student(s), dim=1), unit(part.teacher(t), dim=1)
    chosen = torch.cat((places[:, None], others), 1).numpy()
    arrays = [x.detach().numpy().copy() for x in (v, u, part.ours, part.theirs)]
    wanted = memory_by_hand(*arrays, chosen, part.norm.numpy().copy())
    before = part.ours.clone()
    assert float(part(s, t, labels[places], places).detach()) == pytest.approx(wanted, rel=1e-9)
    moved = (part.ours != before).any(1).nonzero()[:, 0]
    assert moved.tolist() == places.tolist()
    assert (part.norm > 0).all()
    again = float(part(s, t, labels[places], places).detach())
    assert again < wanted  # the memory has moved towards the samples


def test_attentive_regions_are_zero_at_the_teacher_before_the_contexts_learn():
    part = learned.AttentiveRegions((5, 3, 3), (5, 3, 3), Y)
    f = teacher()["map"]
    assert float(part(f, f, Y, Y).detach()) == pytest.approx(0, abs=1e-9)
    other = part(f.roll(1, 0), f, Y, Y)
    assert float(other.detach()) > 0


def test_denoising_learns_to_clean():
    torch.manual_seed(0)
    part = learned.Denoised((5,), (5,), Y)
    goal = torch.randn(64, 1) @ torch.randn(1, 5)
    optimiser = torch.optim.Adam(part.parameters(), 1e-2)
    history = []
    for _ in range(60):
        value = part(goal + 0.3 * torch.randn_like(goal), goal, Y, Y)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        history.append(float(value.detach()))
    assert np.mean(history[-10:]) < 0.7 * np.mean(history[:10])


def test_parts_do_not_change_what_ships():
    alone, rich = student(), student(*ONE)
    pairs = itertools.zip_longest(
        alone.backbone.state_dict().items(), rich.backbone.state_dict().items()
    )
    assert all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in pairs)


def test_a_recipe_brings_its_own_divergence(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def far(student, teacher, power=2.0):\n"
        "    return (student - teacher).abs().pow(power).mean()\n"
    )
    own = Term("logits", "mine.py:far", args={"power": 3.0})
    terms.check(own, tmp_path)
    a, b = torch.zeros(2, 3), torch.full((2, 3), 2.0)
    assert float(terms.compare(own, a, b, base=tmp_path)) == 8
    with pytest.raises(RecipeError, match="did you mean 'power'"):
        terms.check(Term("logits", "mine.py:far", args={"pover": 3.0}), tmp_path)
