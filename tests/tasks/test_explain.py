"""Explanations of networks whose reasons are known."""

import numpy as np
import pytest

from edgekd.tasks.faults import explain

LENGTH = 64
WEIGHTS = np.random.default_rng(0).normal(size=(3, 5, LENGTH)).astype(np.float32)


def flights(count=6):
    return np.random.default_rng(1).normal(size=(count, 5, 1, LENGTH)).astype(np.float32)


def linear(x):
    return np.einsum("bct,kct->bk", x[:, :, 0], WEIGHTS)


def wanted(x, chosen):
    parts = x[:, :, 0] * WEIGHTS[chosen]
    return parts.reshape(len(x), 5, explain.WINDOWS, -1).sum(-1)


def test_occlusion_of_a_linear_network_is_each_parts_share():
    x, chosen = flights(), np.array([0, 1, 2, 0, 1, 2])
    found = explain.occlusion(linear, x, chosen)
    assert np.allclose(found, wanted(x, chosen), atol=1e-4)


def test_integrated_gradients_of_a_linear_network_are_the_same():
    torch = pytest.importorskip("torch")

    class Linear(torch.nn.Module):
        def forward(self, x):
            return torch.einsum("bct,kct->bk", x[:, :, 0], torch.from_numpy(WEIGHTS))

    x, chosen = flights(), np.array([0, 1, 2, 0, 1, 2])
    found = explain.integrated_gradients(Linear(), x, chosen, steps=3)
    assert np.allclose(found, wanted(x, chosen), atol=1e-4)


def test_integrated_gradients_sum_to_the_logits_difference():
    torch = pytest.importorskip("torch")
    from edgekd.models.inception import inception

    torch.manual_seed(0)
    network = inception(channels=5, classes=3, form="student", maps=4, depth=3).eval()
    x, chosen = flights(2), np.array([0, 2])
    found = explain.integrated_gradients(network, x, chosen, steps=200).sum((1, 2))
    with torch.no_grad():
        gap = (network(torch.from_numpy(x)) - network(torch.zeros(2, 5, 1, LENGTH))).numpy()
    assert np.allclose(found, gap[[0, 1], chosen], rtol=0.03, atol=0.01)


def test_class_activation_is_the_gradient_weighted_map():
    torch = pytest.importorskip("torch")
    from edgekd.models.inception import inception

    network = inception(channels=5, classes=3, form="student", maps=4, depth=3).eval()
    x, chosen = flights(2), np.array([1, 2])
    maps = network.maps(torch.from_numpy(x)).detach().requires_grad_()
    logits = network.head(maps.mean((2, 3)))
    logits[[0, 1], chosen].sum().backward()
    slow = torch.relu((maps * maps.grad.sum((2, 3), keepdim=True)).sum(1))[:, 0].detach()
    found = explain.class_activation(network, x, chosen)
    assert np.allclose(found, slow.reshape(2, explain.WINDOWS, -1).sum(-1).numpy(), atol=1e-5)


def test_the_naive_explanation_is_what_is_farthest():
    x = np.zeros((1, 5, 1, LENGTH), np.float32)
    x[0, 3, 0, 60] = -2
    found = explain.deviation(x)
    assert np.unravel_index(found.argmax(), found.shape) == (0, 3, 15)
    assert found.sum() == 4


def test_scores_by_hand():
    truth = np.zeros((2, 4, 16))
    truth[0, 1, 3:6], truth[0, 2, 4] = 8, 2
    truth[1, 0, :] = 1
    moved = explain.affected(truth, 2)
    assert moved.tolist() == [[False, True, True, False], [True, False, False, False]]
    when = explain.affected(truth, 1)
    assert when[0].nonzero()[0].tolist() == [3, 4, 5] and when[1].all()
    blame = np.array([[0.1, 0.2, 0.3, 0.4], [0, 1, 2, 3.0]])
    assert explain.hits(blame, moved).tolist() == [0, 0]
    assert explain.hits(blame, moved, 2).tolist() == [1, 0]
    assert explain.hits(blame, moved, 4).tolist() == [1, 1]
    right = np.arange(16.0)[None].repeat(2, 0)
    right[0, 4:6] = 99
    assert explain.overlap(right, when).tolist() == [pytest.approx(2 / 3), 1]


def test_nothing_moved_is_nothing_to_find():
    assert not explain.affected(np.zeros((1, 3, 16)), 2).any()
