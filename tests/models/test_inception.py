"""The series networks: sizes, shapes, and an export without what runtimes stumble over."""

import numpy as np
import pytest
import torch

from edgekd.graph.count import count_params
from edgekd.graph.export import export_onnx
from edgekd.models.inception import ensemble, inception
from edgekd.spec import Input


def test_the_student_has_69_percent_fewer_parameters_at_15_channels():
    teacher, student = inception(channels=15), inception(channels=15, form="student")
    assert count_params(student) == 144_386
    assert 1 - count_params(student) / count_params(teacher) > 0.69
    assert count_params(inception(channels=15, form="lite")) < 40_000


@pytest.mark.parametrize("form", ["teacher", "student", "lite"])
def test_one_vector_a_flight_at_any_length(form):
    model = inception(channels=5, classes=3, form=form, maps=4, depth=3).eval()
    for length in (64, 100):
        assert model(torch.randn(2, 5, 1, length)).shape == (2, 3)
    assert model.embed(torch.randn(2, 5, 1, 64)).shape == (2, model.features)


def test_norms_before_the_concatenation_are_the_same_function_as_one_after_it():
    block = inception(channels=3, form="teacher", maps=4, depth=3).eval().blocks[1]
    norms = [branch[1] for branch in (*block.branches, block.pooled)]
    with torch.no_grad():
        for norm in norms:
            norm.running_mean.uniform_(-1, 1), norm.running_var.uniform_(0.5, 2)
        joint = torch.nn.BatchNorm2d(16).eval()
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(joint, name).copy_(torch.cat([getattr(n, name) for n in norms]))
        x = torch.randn(2, 16, 1, 50)
        narrow = block.bottleneck(x)
        parts = [branch[0](narrow) for branch in block.branches]
        wanted = torch.relu(joint(torch.cat([*parts, block.pooled[0](block.pool(x))], 1)))
        assert torch.allclose(block(x), wanted, atol=1e-5)


@pytest.mark.parametrize("gate", [False, True])
def test_nothing_but_convolutions_is_left_after_export(tmp_path, gate):
    torch.manual_seed(0)
    model = inception(channels=5, form="teacher", maps=4, depth=3, gate=gate).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-1, 1), module.running_var.uniform_(0.5, 2)
    x = torch.randn(4, 5, 1, 64)
    facts = export_onnx(model, Input((5, 1, 64)), tmp_path / "m.onnx", samples=x)
    assert "BatchNormalization" not in facts["ops"]
    assert all(found["max_abs"] < 1e-4 for found in facts["passes"])
    assert facts["ops"]["Conv"] == 3 * 5 + 1 + 2 * gate


def test_the_gate_scales_channels():
    model = inception(channels=4, form="student", maps=4, depth=3, gate=True)
    x = torch.randn(2, 4, 1, 32)
    values = model.gate.values(x)
    assert values.shape == (2, 4, 1, 1)
    assert np.all((values.detach().numpy() > 0) & (values.detach().numpy() < 1))
    assert torch.equal(model.gate(x), x * values)


def test_an_ensemble_averages_in_use_and_shares_a_batch_in_training():
    torch.manual_seed(0)
    both = ensemble(members=2, channels=3, classes=3, maps=4, depth=3)
    x = torch.randn(5, 3, 1, 32)
    alone = [member.eval()(x).log_softmax(1) for member in both.members]
    assert torch.allclose(both.eval()(x), (alone[0] + alone[1]) / 2, atol=1e-6)
    both.train()
    out = both(x)
    assert out.shape == (5, 3)
    out[:3].sum().backward()
    first, second = (m.head.weight.grad for m in both.members)
    assert first.abs().sum() > 0
    assert second is None or not second.any()


def test_an_ensemble_of_more_members_than_flights_still_trains():
    model = ensemble(members=4, channels=3, maps=4, depth=3).train()
    assert model(torch.zeros(2, 3, 1, 32)).shape == (2, 2)
