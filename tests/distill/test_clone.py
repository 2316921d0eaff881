"""Low-rank clone: what is trained, what is refused, and that folding changes nothing."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize

from edgekd import steps
from edgekd.backends.torch_eager import load_network
from edgekd.discover import load_recipe
from edgekd.distill.clone import PARITY, clone, fold, layers, side_of
from edgekd.distill.loss import Batch, objective_loss
from edgekd.distill.presets import objective
from edgekd.distill.student import Student
from edgekd.errors import RecipeError, StageError
from edgekd.events import silent
from edgekd.run import Walk
from edgekd.spec import Call, Network, Objective, Term
from edgekd.store import Store
from tests.project import make

LRC = Objective("lrc", (Term("label", "ce"),), "lowrank_clone")


class Net(nn.Module):
    """Every kind of layer that is cloned, and a norm that is not."""

    def __init__(self, width, inner, kernel=3, depthwise=False, classes=5):
        super().__init__()
        groups = inner if depthwise else 1
        self.first = nn.Conv2d(3, width, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.point = nn.Conv2d(width, inner, 1)
        self.space = nn.Conv2d(inner, inner, kernel, padding=kernel // 2, groups=groups)
        self.head = nn.Linear(inner, classes)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        return self.head(torch.relu(self.space(self.point(x))).mean((2, 3)))


def trained(student, x, y, steps=3, amp=False):
    optimiser = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], 1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            loss = nn.functional.cross_entropy(student(x), y)
        loss.backward()
        optimiser.step()
    return student


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 8), st.integers(1, 8), st.integers(0, 6), st.integers(0, 6),
    st.sampled_from((1, 3, 5)), st.booleans(), st.booleans(), st.integers(0, 99),
)  # fmt: skip
def test_folding_is_exact_for_any_widths(width, inner, more, deeper, kernel, depthwise, amp, seed):
    torch.manual_seed(seed)
    teacher = Net(width + more, inner + deeper, kernel, depthwise)
    student, plain = (Net(width, inner, kernel, depthwise) for _ in range(2))
    clone(student, teacher)
    x, y = torch.randn(6, 3, 7, 7), torch.arange(6) % 5
    trained(student, x, y, amp=amp)
    student.eval()
    with torch.no_grad():
        before = student(x)
    facts = fold(student, x)
    assert facts["parity"] <= facts["bound"] == PARITY
    assert facts["layers"] == 4
    with torch.no_grad():
        torch.testing.assert_close(student(x), before, rtol=1e-5, atol=1e-5)
    for parts in (nn.Module.named_parameters, nn.Module.named_buffers):
        shapes = [{n: v.shape for n, v in parts(net)} for net in (student, plain)]
        assert shapes[0] == shapes[1]
    assert not any(parametrize.is_parametrized(m) for m in student.modules())
    plain.load_state_dict(student.state_dict())  # an ordinary network


def test_the_weight_is_the_product_and_gradients_reach_the_projections_alone():
    torch.manual_seed(0)
    teacher, student = Net(7, 6), Net(4, 3)
    kept = {n: v.clone() for n, v in teacher.state_dict().items()}
    clone(student, teacher)
    x, y = torch.randn(6, 3, 7, 7), torch.arange(6) % 5
    trained(student, x, y)
    assert all(torch.equal(v, kept[n]) for n, v in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())
    names = {n for n, p in student.named_parameters() if p.requires_grad}
    projections = {n for n in names if ".original" in n}
    assert names - projections == {
        "norm.weight",
        "norm.bias",
        "point.bias",
        "space.bias",
        "head.bias",
    }
    assert all(p.grad is not None for p in student.parameters())
    left, right = student.space.parametrizations.weight.parameters()
    wanted = torch.einsum("so,oikl,ir->srkl", left, teacher.space.weight, right)
    torch.testing.assert_close(student.space.weight, wanted)
    assert (student.space.parametrizations.weight[0].theirs == kept["space.weight"]).all()
    # The first layer's input and the head's output are of equal width: one projection each.
    assert len(student.first.parametrizations.weight.state_dict()) == 1
    assert len(student.head.parametrizations.weight.state_dict()) == 1
    assert not any("theirs" in n for n in student.state_dict())


def test_it_begins_as_large_as_a_fresh_layer_and_as_the_teacher_where_widths_are_equal():
    torch.manual_seed(0)
    teacher, student = Net(12, 6), Net(5, 6)
    fresh = {n: m.weight.std() for n, m in layers(student).items()}
    clone(student, teacher)
    for name in ("first", "point"):
        torch.testing.assert_close(layers(student)[name].weight.std(), fresh[name])
    torch.testing.assert_close(student.space.weight, teacher.space.weight)
    assert all(p.requires_grad for p in student.space.parametrizations.weight.parameters())


class Two(nn.Module):
    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


@pytest.mark.parametrize(
    ("student", "teacher", "said"),
    [
        (Two(a=nn.Linear(3, 2), b=nn.Linear(2, 2)), Two(a=nn.Linear(3, 4)),
         "the student's b (Linear 2→2) is not in the teacher"),
        (Two(a=nn.Linear(3, 2)), Two(a=nn.Linear(3, 4), c=nn.Conv1d(4, 4, 3)),
         "the teacher's c (Conv1d 4→4, 3) is not in the student"),
        (Two(a=nn.Conv2d(3, 2, 3)), Two(a=nn.Conv2d(3, 4, 5)),
         "a is Conv2d 3→2, 3×3 in the student, Conv2d 3→4, 5×5 in the teacher"),
        (Two(a=nn.Linear(3, 2)), Two(a=nn.Conv1d(3, 2, 1)),
         "a is Linear 3→2 in the student, Conv1d 3→2, 1 in the teacher"),
        (Two(a=nn.Linear(3, 5)), Two(a=nn.Linear(3, 4)),
         "a is wider in the student (Linear 3→5) than the teacher (Linear 3→4)"),
        (Two(a=nn.ReLU()), Two(a=nn.ReLU()), "the student has none"),
    ],
)  # fmt: skip
def test_layers_that_do_not_match_are_named(student, teacher, said):
    with pytest.raises(RecipeError) as caught:
        clone(student, teacher)
    assert said in caught.value.what
    assert "alike layer for layer" in caught.value.what
    assert not any(parametrize.is_parametrized(m) for m in student.modules())


def test_only_the_first_faults_are_listed():
    many = {f"l{i}": nn.Linear(2, 2) for i in range(6)}
    with pytest.raises(RecipeError, match=r"l2 \(Linear 2→2\) is not in the teacher; and 3 more\n"):
        clone(Two(**many), Two())


def test_a_fold_that_changes_an_output_is_a_failure(monkeypatch):
    student, teacher = Net(3, 3), Net(6, 6)
    clone(student, teacher)
    real = parametrize.remove_parametrizations

    def spoiled(layer, name):
        real(layer, name)
        with torch.no_grad():
            layer.weight.add_(1e-2)

    monkeypatch.setattr(parametrize, "remove_parametrizations", spoiled)
    with pytest.raises(StageError, match="changed an output by"):
        fold(student, torch.randn(4, 3, 7, 7))


def test_the_control_is_a_plain_student_and_the_teacher_is_asked_for():
    recipe = load_recipe("classify", {"data": "d", "teacher": "edgekd.models.conv4:conv4",
                                      "student": "conv4", "objective": "lrc"})  # fmt: skip
    assert recipe.objective.init == "lowrank_clone"
    assert recipe.objective.without_teacher().init == "random"
    found = {step.name: step for step in steps.shared(recipe)}
    assert found["control"].spec["objective"]["init"] == "random"
    assert found["distill"].inputs == {"teach": "teach", "teacher": "teacher"}
    alone = replace(recipe, objective=LRC)
    assert alone.objective.needs_teacher
    (step,) = [s for s in steps.shared(alone) if s.name == "distill"]
    assert step.inputs == {"teacher": "teacher"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"build": None, "weights": "t.onnx"}, "is an ONNX file"),
     ({"access": "logits"}, "shows its logits alone")],
)  # fmt: skip
def test_a_teacher_whose_weights_are_not_seen_is_refused_before_any_work(changes, said):
    recipe = load_recipe("classify", {"data": "d", "student": "conv4"})
    recipe = replace(recipe, objective=LRC, teacher=replace(recipe.teacher, **changes))
    with pytest.raises(RecipeError, match=said):
        steps._check_whole(recipe.teacher, LRC)
    with pytest.raises(RecipeError, match=said):
        steps._student(recipe, "distill", recipe.objective)


def test_recipes_refuse_it_by_name_where_the_networks_are_not_alike():
    with pytest.raises(RecipeError, match="wants teacher and student alike layer for layer"):
        load_recipe("mobilevit", {"objective": "lrc"})
    with pytest.raises(RecipeError) as caught:
        load_recipe("classify", {"data": "d", "objective": "lrc"})
    assert "lrc" not in caught.value.hint
    assert objective("lrc", offers=("logits", "alike")).init == "lowrank_clone"


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """Teacher, control and clone of a tiny project, by the recipe's own steps."""
    folder = make(tmp_path_factory.mktemp("clone"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        asked = {"data": "pictures", "classes": "3", "preset": "smoke", "objective": "lrc",
                 "teacher": "edgekd.models.conv4:conv4", "student": "conv4"}  # fmt: skip
        recipe = load_recipe("classify", asked)
        build = Call("edgekd.models.conv4:conv4", {"maps": 12, "classes": 3})
        small = Call("edgekd.models.conv4:conv4", {"maps": 5, "classes": 3})
        recipe = replace(
            recipe, teacher=Network(build), student=Network(small), distill="always",
            train=replace(recipe.train, amp="bf16", ema=0.9),
        )  # fmt: skip
        done = Walk(recipe, Store(folder / "store"), silent)
        for step in (s for s in steps.shared(recipe)):
            done.step(step)
        return done


def test_the_stage_saves_an_ordinary_network(walk):
    facts, base = walk.done["distill"].facts, steps.base_of(walk.recipe)
    assert facts["fold"]["layers"] == 5
    assert facts["fold"]["parity"] <= PARITY
    assert "fold" not in walk.done["control"].facts
    assert facts["params"] == walk.done["control"].facts["params"]
    ours, control = (load_network(walk.done[n].path, base)[0] for n in ("distill", "control"))
    assert list(ours.state_dict()) == list(control.state_dict())
    teacher = load_network(walk.done["teacher"].path, base)[0]
    # Kernels of the first layer are mixtures of the teacher's, the control's are not.
    space = teacher.blocks[0][0].weight.detach().flatten(1).T
    for net, inside in ((ours, True), (control, False)):
        kernels = net.blocks[0][0].weight.detach().flatten(1).T
        rest = kernels - space @ torch.linalg.lstsq(space, kernels).solution
        assert (float(rest.abs().max()) < 1e-5) == inside


def test_the_export_is_a_plain_graph(walk, tmp_path):
    import onnx

    from edgekd.graph.export import export_onnx
    from edgekd.spec import Input

    base, graphs = steps.base_of(walk.recipe), []
    for name in ("distill", "control"):
        net = load_network(walk.done[name].path, base)[0]
        file = tmp_path / f"{name}.onnx"
        export_onnx(net, Input((3, 64, 64)), file, samples=torch.rand(2, 3, 64, 64))
        graph = onnx.load(file).graph
        sizes = sorted(tuple(value.dims) for value in graph.initializer)
        graphs.append(([node.op_type for node in graph.node], sizes))
    assert graphs[0] == graphs[1]


def test_the_manifest_tells_the_parity_of_the_fold(walk):
    from edgekd.manifest import _folded
    from edgekd.report import _hop

    def hops(name):
        return _folded(SimpleNamespace(facts=lambda step: walk.done[name].facts))

    assert hops("control") == []
    (hop,) = hops("distill")
    assert hop["max_rel"] <= hop["tolerance"]["max_rel"] == PARITY
    assert hop["n"] == 8
    assert _hop(hop)["tolerance"] == "max rel 1e-05"


# The clone loss


def cloned_loss(tap, teacher_value, student):
    asked = Objective("c", (Term(tap, "mse", project="clone"),), "lowrank_clone")
    x = torch.randn(4, 3, 7, 7)
    net = Student(student, "logits", 0, 5, asked, {tap: teacher_value.shape[1:]}, probe=x)
    taps = net(x)
    batch = Batch(x, torch.zeros(4, dtype=torch.int64), {tap: teacher_value})
    return taps[tap], objective_loss(net, taps, batch)


@pytest.mark.parametrize(("tap", "shape"), [("feat:space", (6, 7, 7)), ("feat:point", (6, 7, 7))])
def test_the_teachers_activations_pass_the_projection_of_the_layer(tap, shape):
    torch.manual_seed(0)
    teacher, student = Net(7, 6), Net(4, 3)
    clone(student, teacher)
    theirs = torch.randn(4, *shape)
    mine, found = cloned_loss(tap, theirs, student)
    layer = student.get_submodule(tap.removeprefix("feat:"))
    left = layer.parametrizations.weight.original0
    slow = torch.stack([torch.tensordot(left, one, dims=([1], [0])) for one in theirs])
    torch.testing.assert_close(found, ((mine - slow) ** 2).mean())
    (gradient,) = torch.autograd.grad(found, left, retain_graph=True)
    (through_output,) = torch.autograd.grad(((mine - slow.detach()) ** 2).mean(), left)
    torch.testing.assert_close(gradient, through_output)


def test_a_side_of_equal_width_is_compared_as_it_is_and_linear_layers_by_their_last_axis():
    torch.manual_seed(0)
    teacher, student = Net(7, 6), Net(4, 3)
    clone(student, teacher)
    theirs = torch.randn(4, 5)
    mine, found = cloned_loss("feat:head", theirs, student)
    torch.testing.assert_close(found, ((mine - theirs) ** 2).mean())
    wide, narrow = Two(a=nn.Linear(3, 8)), Two(a=nn.Linear(3, 5))
    clone(narrow, wide)
    tokens = torch.randn(2, 9, 8)
    left = narrow.a.parametrizations.weight.original0
    torch.testing.assert_close(side_of(narrow, "a")(tokens), tokens @ left.T)


def test_a_clone_loss_where_nothing_is_cloned_is_refused():
    with pytest.raises(RecipeError, match="'space' is none"):
        cloned_loss("feat:space", torch.randn(4, 3, 7, 7), Net(4, 3))
    term = Term("feat:blocks.0.0", "mse", project="clone")
    recipe = load_recipe("classify", {"data": "d", "student": "conv4"})
    for asked in (
        Objective("x", (term,)),
        Objective("x", (replace(term, teacher="feat:blocks.1.0"),), "lowrank_clone"),
    ):
        with pytest.raises(RecipeError, match="compares a cloned layer with the layer"):
            steps._student(recipe, "distill", asked)
    fine = steps._student(recipe, "distill", Objective("x", (term,), "lowrank_clone"))
    assert fine.inputs == {"teach": "teach", "teacher": "teacher"}
    again = steps._lesson(replace(recipe, objective=Objective("x", (term,), "lowrank_clone")), None)
    assert again.terms == (Term("label", "auto"),)
