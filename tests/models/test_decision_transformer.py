from __future__ import annotations

import pytest
import torch

from edgekd.graph.count import count_macs, count_params
from edgekd.models.decision_transformer import decision_transformer, policy_mlp

FEATURES = 53


def build(**changed):
    torch.manual_seed(0)
    net = decision_transformer(**{"features": FEATURES, "window": 8, "answers": 8, **changed})
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return net.eval()


def test_sizes_of_the_facts():
    """The student has 15 k parameters, the teacher 605 k; counted, not promised."""
    assert count_params(build()) == 14_913
    teacher = build(window=16, width=128, depth=3, heads=4)
    assert 600_000 < count_params(teacher) < 610_000
    student = count_macs(build().ships(), (8, FEATURES))
    assert student / count_macs(teacher.ships(), (16, FEATURES)) < 0.05


@torch.no_grad()
@pytest.mark.parametrize("depth", [1, 2])
def test_what_ships_answers_like_the_newest_step(depth):
    net, x = build(depth=depth), torch.randn(5, 8, FEATURES)
    assert net(x).shape == (5, 8)
    assert net.ships()(x).shape == (5, 1)
    assert torch.allclose(net.ships()(x)[:, 0], net(x)[:, -1], atol=1e-6)


@torch.no_grad()
def test_no_step_sees_a_later_one():
    net, x = build(depth=2), torch.randn(3, 8, FEATURES)
    changed = x.clone()
    changed[:, 5] += 1
    same, other = net(x), net(changed)
    assert torch.equal(same[:, :5], other[:, :5])
    assert (same[:, 5:] - other[:, 5:]).abs().min() > 0


@torch.no_grad()
def test_every_kind_of_token_counts():
    net, x = build(), torch.randn(2, 8, FEATURES)
    for place in (0, 1, 2, 30):
        changed = x.clone()
        changed[:, 3, place] += 1
        assert not torch.allclose(net(x)[:, -1], net(changed)[:, -1])


@torch.no_grad()
def test_the_mlp_sees_each_step_alone():
    torch.manual_seed(0)
    net, x = policy_mlp(features=FEATURES, answers=4).eval(), torch.randn(2, 8, FEATURES)
    changed = x.clone()
    changed[:, 6] += 1
    assert net(x).shape == (2, 4)
    assert torch.equal(net(x)[:, [0, 1, 3]], net(changed)[:, [0, 1, 3]])
    assert torch.allclose(net.ships()(x)[:, 0], net(x)[:, -1])


def test_actions_stay_within_the_limit():
    net = build(limit=0.5)
    assert net(100 * torch.randn(9, 8, FEATURES)).abs().max() <= 0.5
