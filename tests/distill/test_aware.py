"""Training under rounding: the rounding is the artefact's, and leaves an ordinary network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgekd import steps
from edgekd.backends.base import Candidate
from edgekd.backends.onnxruntime import BACKEND
from edgekd.discover import load_recipe, load_target
from edgekd.distill import aware
from edgekd.distill.aware import READS, Reads, Weight, forget, make_aware, rounded
from edgekd.distill.presets import auto, objective
from edgekd.events import silent
from edgekd.run import Walk
from edgekd.spec import Call, Network, Objective, Term
from edgekd.store import Store
from tests.project import make


class Net(nn.Module):
    def __init__(self, width=6, classes=3):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


def by_hand(weight, most):
    """The slow twin, in numpy, a channel at a time."""
    out = np.empty_like(weight)
    for i, row in enumerate(weight):
        scale = max(np.abs(row).max() / most, 1e-12 / most)
        out[i] = np.clip(np.round(row / scale), -most, most) * scale
    return out


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.sampled_from((8, 7)), st.integers(0, 99))
def test_weights_are_rounded_by_channel(rows, columns, bits, seed):
    weight = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    found = Weight(bits)(torch.from_numpy(weight)).numpy()
    np.testing.assert_allclose(found, by_hand(weight, {8: 127, 7: 64}[bits]), rtol=1e-5, atol=1e-7)
    again = Weight(bits)(torch.from_numpy(found)).numpy()
    np.testing.assert_allclose(again, found, rtol=1e-5, atol=1e-7)


def test_gradients_pass_where_nothing_is_cut_off():
    x = torch.tensor([-3.0, -0.26, 0.1, 0.9, 5.0], requires_grad=True)
    y = rounded(x, torch.tensor(0.5), torch.tensor(2.0), 0, 5)
    assert y.tolist() == [-1.0, -0.5, 0.0, 1.0, 1.5]
    y.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


def test_what_is_read_is_rounded_over_the_range_seen_so_far():
    part = Reads().eval()
    x = torch.randn(50)
    assert torch.equal(part(x), x)
    part.train()(x)
    assert (part.low, part.high) == (x.min(), x.max())
    part(2 * x)
    torch.testing.assert_close(part.high, 1.1 * x.max())
    part.eval()
    kept, step = part.high.clone(), (part.high - part.low) / 255
    assert (part(100 * x) <= kept + step).all()
    assert torch.equal(part.high, kept)
    assert float((part(x) - x).abs().max()) <= float(step) * 0.501
    assert part(torch.zeros(1)) == 0
    part = Reads()
    part(torch.full((3,), 2.0))
    assert part.low == 0


def test_all_that_is_left_are_the_float_weights():
    torch.manual_seed(0)
    net, x, y = Net(), torch.randn(8, 3, 6, 6), torch.arange(8) % 3
    names = list(net.state_dict())
    assert make_aware(net) == 2
    optimiser = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(3):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimiser.step()
    floats = net.conv.parametrizations.weight.original.detach().clone()
    assert not torch.equal(net.conv.weight, floats)
    assert net.conv.weight.unique().numel() < floats.unique().numel() or floats.numel() < 200
    forget(net)
    assert sorted(net.state_dict()) == sorted(names)
    assert torch.equal(net.conv.weight, floats)
    assert isinstance(net.conv.weight, nn.Parameter)
    assert not net.conv._forward_pre_hooks and not hasattr(net.conv, READS)
    Net().load_state_dict(net.state_dict())


def test_learning_on_brings_back_what_coarse_rounding_loses(monkeypatch):
    """With seven places for a weight; at 255 there is nothing to bring back."""
    monkeypatch.setattr(aware, "MOST", {8: 3})
    torch.manual_seed(0)
    means = torch.randn(6, 10)
    y = torch.arange(240) % 6
    x = means[y] + 0.7 * torch.randn(240, 10)
    net = nn.Sequential(nn.Linear(10, 12), nn.ReLU(), nn.Linear(12, 6))

    def train(steps, rate):
        optimiser = torch.optim.Adam(net.parameters(), rate)
        for _ in range(steps):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimiser.step()

    def loss():
        with torch.no_grad():
            return float(nn.functional.cross_entropy(net.eval()(x), y))

    train(300, 1e-2)
    before = loss()
    make_aware(net)
    net.train()(x)
    rough = loss()
    net.train()
    train(200, 3e-3)
    recovered = loss()
    assert rough > 1.5 * before
    assert recovered - before < 0.5 * (rough - before)


@pytest.mark.parametrize(("policy", "bits"), [("linear", 8), ("linear-s7", 7)])
def test_the_quantiser_rounds_weights_as_the_training_did(tmp_path, policy, bits):
    import onnx

    from edgekd.graph.export import export_onnx
    from edgekd.spec import Input

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(24, 20), nn.ReLU(), nn.Linear(20, 20)).eval()
    samples = torch.randn(32, 24)
    export_onnx(net, Input((24,)), tmp_path / "net.onnx", samples=samples)
    row = Candidate("ort-int8-aware", "onnxruntime", "onnxruntime", "int8", policy)
    BACKEND.build(tmp_path / "net.onnx", row, {"input": samples.numpy()}, tmp_path / "q", silent)
    graph = onnx.load(tmp_path / "q" / "model.onnx").graph
    held = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    stored = []
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in held:
            values, scale = held[node.input[0]], held[node.input[1]]
            if values.dtype == np.int8 and values.ndim == 2:
                axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
                value = values * (scale if axis == 1 else scale[:, None])
                stored.append(value if axis == 0 else value.T)
    assert len(stored) == 2
    for layer, value in zip((net[0], net[2]), stored, strict=True):
        ours = Weight(bits)(layer.weight.detach()).numpy()
        np.testing.assert_allclose(value, ours, rtol=1e-4, atol=1e-6)


@pytest.mark.needs("nncf", install="pip install 'edgekd[openvino]'")
def test_openvinos_quantiser_rounds_weights_as_the_training_did(tmp_path):
    import openvino

    from edgekd.backends.openvino import BACKEND as OPENVINO
    from edgekd.graph.export import export_onnx
    from edgekd.spec import Input

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(24, 20), nn.ReLU(), nn.Linear(20, 20)).eval()
    samples = torch.randn(32, 24)
    export_onnx(net, Input((24,)), tmp_path / "net.onnx", samples=samples)
    (row,) = (c for c in OPENVINO.candidates(["int8"], []) if c.bits)
    feeds = {"input": samples.numpy()}
    OPENVINO.build(tmp_path / "net.onnx", row, feeds, tmp_path / "q", silent)
    stored = []
    for node in openvino.Core().read_model(tmp_path / "q" / "model.xml").get_ordered_ops():
        if node.get_type_name() != "Multiply":
            continue
        first, scale = (node.input_value(i).get_node() for i in (0, 1))
        inside = first.input_value(0).get_node() if first.get_type_name() == "Convert" else None
        if inside is not None and inside.get_element_type() == openvino.Type.i8:
            value = inside.get_data().astype(np.float32) * scale.get_data()
            stored.append(value)
    assert len(stored) == 2
    for layer, value in zip((net[0], net[2]), stored, strict=True):
        ours = Weight(row.bits)(layer.weight.detach()).numpy()
        value = value if value.shape == ours.shape and np.allclose(value, ours, 1, 1) else value.T
        np.testing.assert_allclose(value, ours, rtol=1e-4, atol=1e-6)


def test_it_goes_on_with_the_lesson_that_made_the_student():
    recipe = load_recipe("mobilevit", {"objective": "dkd"})
    assert [t.ramp for t in steps._lesson(recipe, None).terms] == [(), ()]
    late = Objective("g", (Term("logits", "kl", ramp=((0, 1), (1, 0.25)), weight=2.0),
                           Term("logits", "kl", teacher="peer:logits")))  # fmt: skip
    (term,) = steps._lesson(replace(recipe, objective=late), {}).terms
    assert term.weight == 0.5
    assert steps._lesson(recipe, {"undistilled": "why"}).name == "none"
    chosen = replace(recipe, objective=auto(objective("kd"), objective("dist")))
    assert steps._lesson(chosen, {"auto": {"chosen": "dist"}}).name == "dist"


def test_it_is_a_recovery_that_shares_nothing_with_the_usual_candidates():
    rows = {c.id: c for c in BACKEND.candidates(["fp32", "int8"], ["avx2", "avx512_vnni"])}
    row = rows["ort-int8-aware"]
    assert (row.tier, row.bits, row.policy) == (2, 8, "linear")
    assert [c.bits for c in rows.values()].count(0) == len(rows) - 1
    old = {c.id: c for c in BACKEND.candidates(["int8"], ["avx2"])}["ort-int8-aware"]
    assert (old.bits, old.policy) == (7, "linear-s7")
    recipe, target = load_recipe("mobilevit", {}), load_target("cpu-ort")
    usual = steps.built(recipe, target, [rows["ort-fp32"], rows["ort-int8"]])
    both = steps.built(recipe, target, [rows["ort-fp32"], rows["ort-int8"], row])
    assert [s for s in both if s in usual] == usual
    more = {s.name: s for s in both if s not in usual}
    assert list(more)[:3] == ["aware", "export:aware", "calibrate:aware"]
    assert more["aware"].inputs == {"teach": "teach", "start": "distill"}
    assert more["aware"].spec["train"]["epochs"] == 3
    assert more["export:aware"].inputs == {"network": "aware"}
    assert more["build:ort-int8-aware"].inputs == {
        "export": "export:aware", "calibrate": "calibrate:aware",
    }  # fmt: skip
    assert more["parity:ort-int8-aware"].inputs["export"] == "export:aware"


def test_openvino_has_its_own_of_the_same_student():
    from edgekd.backends.openvino import BACKEND as OPENVINO

    rows = {c.id: c for c in OPENVINO.candidates(["fp32", "int8"], ["avx512_vnni"])}
    row = rows["ov-int8-aware"]
    assert (row.tier, row.bits, row.policy) == (2, 8, rows["ov-int8"].policy)
    ours = {c.id: c for c in BACKEND.candidates(["int8"], ["avx512_vnni"])}["ort-int8-aware"]
    recipe, target = load_recipe("mobilevit", {}), load_target("cpu")
    names = [s.name for s in steps.built(recipe, target, [ours, row])]
    assert names.count("aware") == names.count("export:aware") == 1
    found = {s.name: s for s in steps.built(recipe, target, [row])}
    assert found["build:ov-int8-aware"].inputs["export"] == "export:aware"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make(tmp_path_factory.mktemp("aware"))


def test_a_student_learns_on_and_is_built(project, monkeypatch):
    monkeypatch.chdir(project)
    asked = {"data": "pictures", "classes": "3", "preset": "smoke", "student": "conv4",
             "teacher": "edgekd.models.conv4:conv4", "distill": "always"}  # fmt: skip
    recipe = load_recipe("classify", asked)
    small = Network(Call("edgekd.models.conv4:conv4", {"maps": 16, "classes": 3}))
    recipe = replace(recipe, teacher=small, student=small)
    target, walk = load_target("cpu-ort"), Walk(recipe, Store(project / "store"), silent)
    for step in steps.shared(recipe):
        walk.step(step)
    chosen = [c for c in BACKEND.candidates(["int8"], ["avx512_vnni"]) if c.bits]
    for step in steps.built(recipe, target, chosen, student=walk.done["distill"].facts):
        if not step.name.startswith("profile"):
            walk.step(step)
    made = walk.done["aware"].facts
    assert made["aware"] == {"bits": 8, "layers": 5}
    assert made["epochs"] == 1
    before, after = (
        torch.load(walk.done[n].path / "weights.pt", weights_only=True)
        for n in ("distill", "aware")
    )
    assert sorted(before) == sorted(after)
    moved = [n for n in before if not torch.equal(before[n], after[n])]
    assert "blocks.0.0.weight" in moved
    assert walk.done["build:ort-int8-aware"].facts["quantised_ops"]["Conv"] == 4
    assert walk.done["parity:ort-int8-aware"].facts["status"] == "passed"
    assert 0 <= walk.done["val:ort-int8-aware"].facts["metrics"]["accuracy"]["value"] <= 1
