"""Train one network: the student, its from-scratch control, a baseline, an embedded teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekd.artefact import Artefact, open_artefact
from edgekd.backends.torch_eager import MAIN, WEIGHTS, save_network
from edgekd.calls import invoke
from edgekd.distill import terms
from edgekd.distill.rollouts import Practice
from edgekd.distill.student import Student, width_of
from edgekd.distill.teacher import Taps, TeacherOutputs, open_outputs, open_teacher
from edgekd.distill.trainer import Lesson, fit
from edgekd.distill.views import Prepare, as_tensor, in_process, spec_input
from edgekd.errors import DataError, RecipeError
from edgekd.events import Emit
from edgekd.graph.count import count_macs, count_params
from edgekd.inputs import save_arrays
from edgekd.spec import Call, Input, Network, Objective, Train, rebuild
from edgekd.tasks.base import Model, labels_of
from edgekd.tasks.open import open_task


def train(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, emit: Emit
) -> dict[str, Any]:
    """Train a network and judge it on the validation split.

    Args:
        spec: ``network``, ``input``, ``output``, ``train``, ``objective``, ``data``, ``task``,
            ``seed``, ``device``, ``base``, ``step``.
        inputs: ``teach``: cached teacher outputs; absent for a training without teacher.
            ``teacher``: the teacher itself, where the student's own rollouts are trained on.
        out: Gets the network, ``state.npz`` (what ships beside it) and, while it runs, the
            checkpoint.
        emit: Progress.

    Returns:
        ``params``, ``macs``, ``history``, ``cpu_s``, ``val`` (score).

    Raises:
        StageError: The loss is not finite, or memory ran out.
    """
    network, budget = rebuild(Network, spec["network"]), rebuild(Train, spec["train"])
    contract = network.input or rebuild(Input, spec["input"])
    objective, base = rebuild(Objective, spec["objective"]), Path(spec["base"])
    for term in objective.terms:
        terms.check(term)
    data = invoke(Call(**spec["data"]), base)
    labels = torch.from_numpy(labels_of(data.train))
    classes = _width(objective, labels, spec["output"])
    device = _device(spec["device"])
    teacher = open_outputs(inputs["teach"]) if "teach" in inputs else None
    torch.manual_seed(spec["seed"])
    backbone = invoke(network.build, base)
    probe = Prepare(contract)(as_tensor(_first(data.train)))
    features = width_of(backbone, spec["output"], probe)
    widths = {} if teacher is None else teacher.widths
    student = Student(backbone, spec["output"], features, classes, objective, widths)
    augment = None if budget.augment is None else invoke(budget.augment, base)
    lesson = Lesson(
        data.train,
        labels,
        contract,
        budget,
        objective,
        augment,
        teacher,
        spec["seed"],
        device,
        _practice(spec, inputs, data, budget, teacher),
    )
    facts = fit(student, lesson, out, spec["step"], emit)
    student.to("cpu").eval()
    save_network(backbone, network.build, contract, out, student.head)
    Artefact(out, MAIN, "torch", {}, spec_input(contract), "fp32", (MAIN, WEIGHTS)).save()
    task = open_task(spec["task"], base)
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


def _width(objective: Objective, labels: torch.Tensor, output: str) -> int:
    """Width of the logits: the classes, or the length of a label vector.

    Raises:
        RecipeError: A label term does not fit the labels or what the network returns.
    """
    own = [term for term in objective.terms if not terms.needs_teacher(term)]
    kinds = {terms.divergence_of(term, labels) for term in own}
    if output == "features" and kinds - {"ce"}:
        raise RecipeError(
            f"a network that returns features cannot learn labels by {(kinds - {'ce'}).pop()!r}",
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
    cached: TeacherOutputs | None,
) -> Practice | None:
    """How the student acts, where the recipe wants it to."""
    rollout, base = budget.rollout, Path(spec["base"])
    if rollout is None:
        return None

    def act(model: Model, number: int, seed: int) -> Any:
        return invoke(rollout, base, model=model, data=data, round=number, seed=seed)

    judge = None
    if "teacher" in inputs and cached is not None:
        judge = _judge(inputs["teacher"], base, spec["output"], cached)
    return Practice(act, judge, spec["seed"])


def _judge(folder: Path, base: Path, output: str, cached: TeacherOutputs) -> Callable[[Any], Taps]:
    """What the teacher says to raw samples, scaled like its cached outputs."""
    run, kept = open_teacher(folder, base, output), open_artefact(folder).input
    ready, scale = Prepare(rebuild(Input, kept)), cached.scaling

    def judge(raw: Any) -> Taps:
        taps = run(ready(as_tensor(raw)))
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
    if len(dataset) < 2:
        raise DataError(f"the training split has {len(dataset)} samples", at="split train")
    return np.stack([np.asarray(dataset[i][0]) for i in range(2)])
