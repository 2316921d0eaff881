"""Train one network: the student, its from-scratch control, a baseline, an embedded teacher."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekd.artefact import Artefact
from edgekd.backends.torch_eager import MAIN, WEIGHTS, save_network
from edgekd.calls import invoke
from edgekd.distill import terms
from edgekd.distill.student import Student, width_of
from edgekd.distill.trainer import Lesson, TeacherOutputs, fit
from edgekd.distill.views import Prepare, as_tensor, in_process, spec_input
from edgekd.errors import DataError
from edgekd.events import Emit
from edgekd.graph.count import count_macs, count_params
from edgekd.inputs import save_arrays
from edgekd.spec import Call, Input, Network, Objective, Train, rebuild
from edgekd.tasks.base import labels_of
from edgekd.tasks.open import open_task


def train(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, emit: Emit
) -> dict[str, Any]:
    """Train a network and judge it on the validation split.

    Args:
        spec: ``network``, ``input``, ``output``, ``train``, ``objective``, ``data``, ``task``,
            ``seed``, ``device``, ``base``, ``step``.
        inputs: ``teach``: cached teacher outputs; absent for a training without teacher.
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
    device = _device(spec["device"])
    teacher = open_outputs(inputs["teach"]) if "teach" in inputs else None
    torch.manual_seed(spec["seed"])
    backbone = invoke(network.build, base)
    probe = Prepare(contract)(as_tensor(_first(data.train)))
    features = width_of(backbone, spec["output"], probe)
    classes = int(labels.max()) + 1
    widths = {} if teacher is None else teacher.widths
    student = Student(backbone, spec["output"], features, classes, objective, widths)
    augment = None if budget.augment is None else invoke(budget.augment, base)
    lesson = Lesson(
        data.train, labels, contract, budget, objective, augment, teacher, spec["seed"], device
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


def _device(wanted: str) -> torch.device:
    """``auto``: an accelerator where torch sees one, else the processor."""
    if wanted != "auto":
        return torch.device(wanted)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def open_outputs(folder: Path) -> TeacherOutputs:
    """Open what the stage ``teach`` cached, memory-mapped."""
    index = json.loads((folder / "outputs.json").read_text())
    return TeacherOutputs(
        tuple(
            {tap: np.load(folder / name, mmap_mode="r") for tap, name in view.items()}
            for view in index["views"]
        )
    )


def _first(dataset: Any) -> Any:
    if len(dataset) < 2:
        raise DataError(f"the training split has {len(dataset)} samples", at="split train")
    return np.stack([np.asarray(dataset[i][0]) for i in range(2)])
