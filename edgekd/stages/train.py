"""Train one network: the student, its from-scratch control, a baseline, an embedded teacher."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgekd.artefact import Artefact, open_artefact
from edgekd.backends.torch_eager import (
    MAIN,
    WEIGHTS,
    around_of,
    load_network,
    save_network,
)
from edgekd.calls import invoke
from edgekd.distill import terms
from edgekd.distill.aware import forget, make_aware
from edgekd.distill.clone import clone, fold
from edgekd.distill.launch import launch
from edgekd.distill.lesson import Lesson
from edgekd.distill.parallel import check_shares, join
from edgekd.distill.reuse import Reused, reuse
from edgekd.distill.rollouts import Practice
from edgekd.distill.student import Student, width_of
from edgekd.distill.teacher import Taps, TeacherOutputs, limited, open_all, open_teacher
from edgekd.distill.trainer import fit
from edgekd.distill.views import (
    Augment,
    Prepare,
    as_tensor,
    check_augment,
    in_process,
    spec_input,
)
from edgekd.errors import DataError, RecipeError
from edgekd.events import Emit, silent
from edgekd.graph.count import count_macs, count_params
from edgekd.inputs import save_arrays
from edgekd.spec import Call, Input, Network, Objective, Train, rebuild
from edgekd.tasks.base import Model, Task, labels_of
from edgekd.tasks.open import open_task


def train(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, emit: Emit
) -> dict[str, Any]:
    """Train a network and judge it on the validation split.

    Args:
        spec: ``network``, ``input``, ``output``, ``train``, ``objective``, ``data``, ``task``,
            ``seed``, ``device``, ``base``, ``step``; with ``start`` also ``bits``.
        inputs: ``teach``: cached teacher outputs, ``teach:NAME``: of a further teacher; absent for
            a training without.
            ``teacher``: the teacher itself, where the student's own rollouts are trained on, or
            its weights are cloned or shipped. ``start``: a trained network of this kind to go on
            from, while it is rounded to the ``bits`` of the spec.
        out: Gets the network, ``state.npz`` (what ships beside it) and, while it runs, the
            checkpoint.
        emit: Progress.

    Returns:
        ``params``, ``macs``, ``history``, ``cpu_s``, ``val`` (score); of a clone ``fold``; of a
        training under rounding ``aware``.

    Raises:
        TrainingError: The loss is not finite, or memory ran out.
    """
    network, budget = rebuild(Network, spec["network"]), rebuild(Train, spec["train"])
    if budget.processes > 1 and "RANK" not in os.environ:
        return launch("edgekd.stages.train:train", spec, inputs, out, budget.processes, emit)
    contract = network.input or rebuild(Input, spec["input"])
    objective, base = rebuild(Objective, spec["objective"]), Path(spec["base"])
    for term in objective.terms:
        terms.check(term, base)
    data, task = invoke(Call(**spec["data"]), base), open_task(spec["task"], base)
    labels = torch.from_numpy(labels_of(data.train))
    device = _device(spec["device"])
    crew = join(device)
    check_shares(budget, objective, len(labels))
    classes = _width(objective, labels, spec["output"])
    teacher = open_all(inputs)
    torch.manual_seed(spec["seed"])
    probe = Prepare(contract)(as_tensor(_first(data.train)))
    backbone, head, around = _begun(network, objective, inputs, base, teacher, data, probe)
    features = width_of(backbone, spec["output"], probe)
    shapes = {} if teacher is None else teacher.shapes

    def student_of(network: nn.Module) -> Student:
        return Student(network, spec["output"], features, classes, objective, shapes, labels, probe)

    aware = make_aware(backbone, spec["bits"]) if "start" in inputs else 0
    student = student_of(backbone)
    if head and student.head is not None:
        student.head.load_state_dict(head)
    if any(term.source.startswith("peer:") for term in objective.terms):
        student.peer = student_of(invoke(network.build, base))
    lesson = Lesson(
        data.train,
        labels,
        contract,
        budget,
        _augment(budget.augment, base, "Train.augment"),
        teacher,
        spec["seed"],
        device,
        _practice(spec, inputs, data, budget, objective, teacher),
        _augment(budget.corrupt, base, "Train.corrupt"),
        _validation(task, data, contract, device, emit),
        base,
        crew,
    )
    facts = fit(student, lesson, out, spec["step"], emit)
    if not crew.first:
        return facts
    student.to("cpu").eval()
    facts |= {"fold": fold(backbone, probe)} if objective.init == "lowrank_clone" else {}
    if aware:
        forget(backbone)
        facts["aware"] = {"bits": spec["bits"], "layers": aware}
    facts |= {} if around is None else {"reused": _reused(backbone)}
    save_network(backbone, network.build, contract, out, student.head, around)
    Artefact(out, MAIN, "torch", {}, spec_input(contract), "fp32", (MAIN, WEIGHTS)).save()
    model = in_process(backbone, contract)
    state = task.fit(model, data)
    save_arrays(out / "state.npz", state)
    score = task.score(model, data, "val", state, emit)
    return facts | {
        "params": count_params(backbone),
        "macs": count_macs(backbone, contract.shape),
        "val": score.facts(),
        "device": device.type,
        "threads": torch.get_num_threads(),
    }


def _begun(
    network: Network,
    objective: Objective,
    inputs: Mapping[str, Path],
    base: Path,
    outputs: TeacherOutputs | None,
    data: Any,
    probe: torch.Tensor,
) -> tuple[nn.Module, dict[str, torch.Tensor], Call | None]:
    """The network as its training begins.

    Returns:
        The network; weights of its classifier where it goes on from one; what stands around what
        the recipe builds, see `save_network`.
    """
    assert network.build is not None
    backbone: nn.Module = invoke(network.build, base)
    if "start" in inputs:
        return *load_network(inputs["start"], base), around_of(inputs["start"])
    if objective.init == "random":
        return backbone, {}, None
    folder = inputs["teacher"]
    teacher = load_network(folder, base)[0]
    if objective.init == "lowrank_clone":
        clone(backbone, teacher)
        return backbone, {}, None
    contract = rebuild(Input, open_artefact(folder).input)
    theirs = Prepare(contract)(as_tensor(_first(data.train)))
    scaling = None if outputs is None else outputs.scaling
    whole, around = reuse(backbone, teacher, objective, scaling, probe, theirs)
    return whole, {}, around


def _reused(backbone: nn.Module) -> dict[str, int]:
    """Parameters that ship beside the student's own: of projector and classifier."""
    assert isinstance(backbone, Reused)
    return {"projector": count_params(backbone.project), "classifier": count_params(backbone.head)}


def _augment(call: Call | None, base: Path, at: str) -> Augment | None:
    if call is None:
        return None
    augment: Augment = invoke(call, base)
    check_augment(augment, at)
    return augment


def _validation(
    task: Task, data: Any, contract: Input, device: torch.device, emit: Emit
) -> Callable[[nn.Module], float]:
    """Score of a backbone on the validation split, larger is better."""

    def validate(backbone: nn.Module) -> float:
        model = in_process(backbone, contract, device)
        score = task.score(model, data, "val", task.fit(model, data), silent)
        return score.value if score.higher_is_better else -score.value

    return validate


def _width(objective: Objective, labels: torch.Tensor, output: str) -> int:
    """Width of the logits: the classes, or the length of a label vector.

    Raises:
        RecipeError: A label term does not fit the labels or what the network returns.
    """
    own = [term for term in objective.terms if not term.source]
    wrong = {terms.divergence_of(term, labels) for term in own} - {"ce", "contrastive"}
    if output == "features" and wrong:
        raise RecipeError(
            f"a network that returns features cannot learn labels by {wrong.pop()!r}",
            at="recipe: output",
            hint="output='logits': the network returns what the labels hold",
        )
    if not labels.is_floating_point():
        return int(labels.max()) + 1
    return int(labels.shape[-1]) if labels.ndim > 1 else 1


def _practice(
    spec: Mapping[str, Any],
    inputs: Mapping[str, Path],
    data: Any,
    budget: Train,
    objective: Objective,
    cached: TeacherOutputs | None,
) -> Practice | None:
    """How the student acts, where the recipe wants it to."""
    rollout, base = budget.rollout, Path(spec["base"])
    if rollout is None:
        return None
    if any(term.divergence == "crd" for term in objective.terms):
        raise RecipeError(
            "term 'crd' remembers the samples of the data; what a rollout meets is not among them",
            at="recipe: Train.rollout",
            hint="another divergence, or no rollouts",
        )

    def act(model: Model, number: int, seed: int) -> Any:
        return invoke(rollout, base, model=model, data=data, round=number, seed=seed)

    judge = None
    if "teacher" in inputs and cached is not None:
        judge = _judge(inputs["teacher"], base, spec["output"], cached)
    return Practice(act, judge, spec["seed"])


def _judge(folder: Path, base: Path, output: str, cached: TeacherOutputs) -> Callable[[Any], Taps]:
    """What the teacher says to raw samples, scaled like its cached outputs."""
    inner = sorted(set(cached.shapes) - {"logits", "features"})
    run, kept = open_teacher(folder, base, output, inner), open_artefact(folder).input
    ready, scale = Prepare(rebuild(Input, kept)), cached.scaling

    def judge(raw: Any) -> Taps:
        taps = limited(run(ready(as_tensor(raw))), cached.access, cached.top)
        return taps if scale is None else scale(taps)

    return judge


def _device(wanted: str) -> torch.device:
    """``auto``: an accelerator where torch sees one, else the processor."""
    if wanted != "auto":
        return torch.device(wanted)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _first(dataset: Any) -> Any:
    """Up to eight samples: what shapes are learned from, and what a clone is compared on."""
    if len(dataset) < 2:
        raise DataError(f"the training split has {len(dataset)} samples", at="split train")
    return np.stack([np.asarray(dataset[i][0]) for i in range(min(8, len(dataset)))])
