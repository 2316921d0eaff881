"""SimKD: a student that ends in the teacher's classifier, behind a projector that ships."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from edgekd import steps
from edgekd.backends.torch_eager import around_of, load_network
from edgekd.discover import load_recipe
from edgekd.distill.lesson import Lesson
from edgekd.distill.presets import objective
from edgekd.distill.reuse import Reused, reuse
from edgekd.distill.student import Student
from edgekd.distill.teacher import Scaling, TeacherOutputs
from edgekd.distill.trainer import fit
from edgekd.errors import RecipeError
from edgekd.events import silent
from edgekd.graph.count import count_macs, count_params
from edgekd.models.conv4 import conv4
from edgekd.run import Walk
from edgekd.spec import Call, Input, Network, Objective, Term, Train
from edgekd.store import Store
from tests.project import make

MAPS = Objective("simkd", (Term("map", "mse"),), "teacher_head")
FEATURES = Objective("simkd", (Term("features", "mse"),), "teacher_head")
SHAPE = (3, 32, 32)


def networks():
    torch.manual_seed(0)
    student, teacher = conv4(4, classes=3), conv4(10, classes=3).eval()
    with torch.no_grad():  # so that evaluation mode is something of its own
        for norm in (m for m in teacher.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.running_mean.uniform_(-0.2, 0.2)
    return student, teacher, torch.randn(6, *SHAPE)


def test_a_student_that_gives_the_teachers_map_gives_its_logits():
    student, teacher, x = networks()
    whole, _ = reuse(student, teacher, MAPS, None, x, x)
    whole.eval()
    whole.network, whole.project = teacher, nn.Identity()
    torch.testing.assert_close(whole(x), teacher.head(teacher.embed(x)))


def test_standardised_features_are_undone_in_the_classifier():
    student, teacher, x = networks()
    taps = teacher.embed(x).detach()
    scaling = Scaling.of(taps)
    whole, _ = reuse(student, teacher, FEATURES, scaling, x, x)
    standard = scaling({"features": taps})["features"]
    torch.testing.assert_close(whole.head(standard), teacher(x))
    assert whole.project(torch.zeros(2, 4)).shape == (2, 10)


def lesson(y, target, tap, train):
    data = SimpleNamespace(x=np.random.default_rng(0).normal(size=(24, *SHAPE)).astype(np.float32))
    data.take = lambda rows: data.x[rows]
    outputs = TeacherOutputs(({tap: target},))
    return Lesson(data, y, Input(SHAPE), train, None, outputs, 0, torch.device("cpu"))


def test_projector_and_student_learn_the_map_the_classifier_stays_and_labels_are_not_read(tmp_path):
    ends = []
    for shift in (0, 1):
        student, teacher, x = networks()
        kept = copy.deepcopy(teacher.state_dict())
        whole, _ = reuse(student, teacher, MAPS, None, x, x)
        before = copy.deepcopy(whole.state_dict())
        target = np.random.default_rng(1).normal(size=(24, 10, 2, 2)).astype(np.float32)
        labels = (torch.arange(24) + shift) % 3
        net = Student(whole, "logits", 10, 3, MAPS, {"map": (10, 2, 2)}, labels, x)
        told = lesson(labels, target, "map", Train(4, batch=8, lr=1e-2))
        facts = fit(net, told, tmp_path, "s", silent)
        assert facts["history"][-1] < facts["history"][0]
        after = whole.state_dict()
        assert all(torch.equal(after[f"head.{n}"], kept[f"head.{n}"]) for n in ("weight", "bias"))
        assert not torch.equal(after["project.0.weight"], before["project.0.weight"])
        assert not torch.equal(
            after["network.blocks.0.0.weight"], before["network.blocks.0.0.weight"]
        )
        assert all(torch.equal(v, kept[n]) for n, v in teacher.state_dict().items())
        ends.append(after)
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_what_ships_is_counted():
    student, teacher, x = networks()
    own, work = count_params(student) - count_params(student.head), count_macs(student, SHAPE)
    whole, _ = reuse(student, teacher, MAPS, None, x, x)
    projector = 4 * 5 + 5 * 5 * 9 + 5 * 10 + 2 * (5 + 5 + 10)
    assert count_params(whole.project) == projector
    assert count_params(whole) == own + projector + 10 * 3 + 3
    places = 2 * 2
    assert count_macs(whole, SHAPE) == (
        work - 4 * 3 + places * (4 * 5 + 5 * 5 * 9 + 5 * 10) + 10 * 3
    )


class Hidden(nn.Module):
    """Its classifier reads a hidden layer, not the mean of the map."""

    map = "body"

    def __init__(self):
        super().__init__()
        self.body, self.mix = nn.Conv2d(3, 6, 3), nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def maps(self, x):
        return self.body(x)

    def embed(self, x):
        return torch.relu(self.mix(self.body(x).mean((2, 3))))

    def forward(self, x):
        return self.head(self.embed(x))


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Flatten(), nn.Linear(3 * 32 * 32, 3)

    def forward(self, x):
        return self.head(self.body(x))


@pytest.mark.parametrize(
    ("student", "teacher", "asked", "said"),
    [
        (conv4(4, classes=3), Hidden(), MAPS, "classifier reads the mean of its map"),
        (Hidden(), conv4(4, classes=3), MAPS, "a student with maps(x), whose mean"),
        (Bare(), conv4(4, classes=3), MAPS, "a student with embed(x)"),
        (conv4(4, classes=3), Bare(), FEATURES, "a teacher with embed(x) and a linear layer"),
        (conv4(4, classes=3), conv4(4, classes=3),
         Objective("x", (Term("logits", "kl"),), "teacher_head"), "no term on map or features"),
    ],
)  # fmt: skip
def test_networks_that_cannot_be_joined_there_are_refused(student, teacher, asked, said):
    x = torch.randn(4, *SHAPE)
    with pytest.raises(RecipeError) as caught:
        reuse(student, teacher.eval(), asked, None, x, x)
    assert said in caught.value.what


def test_features_serve_where_the_mean_of_the_map_is_not_read():
    x = torch.randn(4, *SHAPE)
    teacher = Hidden().eval()
    whole, _ = reuse(Hidden(), teacher, FEATURES, None, x, x)
    torch.testing.assert_close(whole.head(teacher.embed(x)), teacher(x))


def test_recipes_take_it_where_both_classify_and_the_teacher_is_seen_whole():
    recipe = load_recipe("classify", {"data": "d", "objective": "simkd"})
    assert recipe.objective == objective("simkd", offers=("logits", "map", "pooled"))
    found = {step.name: step for step in steps.shared(recipe)}
    assert found["distill"].inputs == {"teach": "teach", "teacher": "teacher"}
    assert found["teach"].spec["inner"] == ["map"]
    assert found["control"].spec["objective"]["init"] == "random"
    with pytest.raises(RecipeError, match="compares map, pooled"):
        load_recipe("classify", {"data": "d", "objective": "simkd", "teacher": "t.onnx"})
    with pytest.raises(RecipeError, match="compares pooled"):
        load_recipe("mobilevit", {"objective": "simkd"})
    less = replace(recipe, teacher=replace(recipe.teacher, access="logits"))
    with pytest.raises(RecipeError, match="the teacher's classifier needs the weights"):
        steps.shared(less)


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """Teacher, control and student of a tiny project, exported."""
    folder = make(tmp_path_factory.mktemp("reuse"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        asked = {"data": "pictures", "classes": "3", "preset": "smoke", "objective": "simkd",
                 "teacher": "edgekd.models.conv4:conv4", "student": "conv4"}  # fmt: skip
        recipe = load_recipe("classify", asked)
        build, small = (
            Call("edgekd.models.conv4:conv4", {"maps": n, "classes": 3}) for n in (12, 5)
        )
        recipe = replace(
            recipe, teacher=Network(build), student=Network(small), distill="always",
        )  # fmt: skip
        done = Walk(recipe, Store(folder / "store"), silent)
        for step in steps.shared(recipe):
            done.step(step)
        done.step(steps.exported(recipe, SimpleNamespace(opset=17)))
        return done


def test_the_student_is_saved_and_exported_with_projector_and_classifier(walk):
    import onnxruntime as ort

    facts, base = walk.done["distill"].facts, steps.base_of(walk.recipe)
    ours = load_network(walk.done["distill"].path, base)[0]
    assert isinstance(ours, Reused)
    assert around_of(walk.done["control"].path) is None
    assert facts["params"] == count_params(ours) > walk.done["control"].facts["params"]
    assert facts["macs"] == count_macs(ours, (3, 64, 64)) > walk.done["control"].facts["macs"]
    assert facts["reused"]["classifier"] == 12 * 3 + 3
    teacher = load_network(walk.done["teacher"].path, base)[0]
    assert torch.equal(ours.head.weight, teacher.head.weight)
    folder = walk.done["export"].path
    golden = dict(np.load(folder / "golden.npz"))
    truth = golden.pop("output:logits")
    session = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    (made,) = session.run(None, golden)
    np.testing.assert_allclose(made, truth, atol=1e-4)
    with torch.inference_mode():
        x = torch.from_numpy(golden["input"])
        np.testing.assert_allclose(ours(x).numpy(), truth, atol=1e-4)


def test_it_learns_on_from_there(walk):
    recipe, target = walk.recipe, SimpleNamespace(opset=17)
    step, *_ = steps._rounded(recipe, target, 8, walk.done["distill"].facts)
    found = walk.step(step)
    base = steps.base_of(recipe)
    before, after = (load_network(walk.done[n].path, base)[0] for n in ("distill", "aware"))
    assert found.facts["reused"] == walk.done["distill"].facts["reused"]
    assert torch.equal(before.head.weight, after.head.weight)
    assert not torch.equal(before.project[0].weight, after.project[0].weight)


def test_the_claims_say_what_the_control_lacks(walk):
    from edgekd.manifest import _reused_claim

    (said,) = _reused_claim(SimpleNamespace(facts=lambda step: walk.done[step].facts))
    assert "39 of the classifier" in said
    control = walk.done["control"].facts
    assert f"the control has {control['params']:,}." in said
    assert _reused_claim(SimpleNamespace(facts=lambda step: control)) == []
