"""Take a teacher that exists: a torch state dict, or an ONNX file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekd.artefact import Artefact
from edgekd.backends.torch_eager import HEAD, MAIN, WEIGHTS, save_network
from edgekd.calls import invoke, locate
from edgekd.distill.views import in_process, spec_input
from edgekd.errors import DataError, RecipeError
from edgekd.events import Emit
from edgekd.graph.count import count_macs, count_params
from edgekd.graph.onnx_network import OnnxNetwork
from edgekd.inputs import save_arrays
from edgekd.spec import Call, Input, Network, rebuild
from edgekd.store import sha256
from edgekd.tasks.base import Model
from edgekd.tasks.open import open_task


def teacher(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, emit: Emit
) -> dict[str, Any]:
    """Load a teacher's weights, judge it on the validation split, keep it in our own form.

    Args:
        spec: ``network``, ``input``, ``data``, ``task``, ``base``.
        inputs: None.
        out: Gets the network and ``state.npz``.
        emit: Progress.

    Raises:
        RecipeError: The weights do not fit the network, or their digest is not the pinned one.
    """
    network, base = rebuild(Network, spec["network"]), Path(spec["base"])
    contract = network.input or rebuild(Input, spec["input"])
    weights = locate(network.weights, base)
    found = _pinned(weights, network.sha256)
    if weights.suffix == ".onnx":
        model, facts = _onnx(weights, contract, out)
    else:
        model, facts = _torch(network, weights, contract, base, out)
    data, task = invoke(Call(**spec["data"]), base), open_task(spec["task"], base)
    state = task.fit(model, data)
    save_arrays(out / "state.npz", state)
    score = task.score(model, data, "val", state, emit)
    return facts | {
        "sha256": found,
        "license": network.license,
        "made_by": network.made_by,
        "val": score.facts(),
    }


def _pinned(weights: Path, wanted: str | None) -> str:
    if not weights.is_file():
        raise DataError(f"no teacher weights at {weights}", at="setting: teacher")
    found = sha256(weights)
    if wanted is not None and found != wanted:
        raise RecipeError(
            f"the teacher's weights have sha256 {found[:16]}…, the recipe pins {wanted[:16]}…",
            at=str(weights),
        )
    return found


def _torch(
    network: Network, weights: Path, contract: Input, base: Path, out: Path
) -> tuple[Model, dict[str, Any]]:
    if network.build is None:
        raise RecipeError(f"{weights.name} needs the function that builds its network")
    model: nn.Module = invoke(network.build, base)
    state = read_state(weights)
    head = {n.removeprefix(HEAD): state.pop(n) for n in list(state) if n.startswith(HEAD)}
    adapt: Callable[[Any], Any] | None = getattr(model, "adapt", None)
    if adapt is not None:
        state = adapt(state)
    fit_state(model, state, weights)
    classifier = _classifier(head)
    save_network(model, network.build, contract, out, classifier)
    Artefact(out, MAIN, "torch", {}, spec_input(contract), "fp32", (MAIN, WEIGHTS)).save()
    facts = {"params": count_params(model), "macs": count_macs(model, contract.shape)}
    return in_process(model.eval(), contract), facts


def _classifier(head: Mapping[str, torch.Tensor]) -> nn.Module | None:
    if not head:
        return None
    classes, features = head["weight"].shape
    layer = nn.Linear(features, classes)
    layer.load_state_dict({name: value.float() for name, value in head.items()})
    return layer


def read_state(weights: Path) -> dict[str, torch.Tensor]:
    """Read a state dict, bare or under ``state_dict`` or ``model``; executes no code.

    Raises:
        DataError: Not a state dict, or a pickle that wants to run code.
    """
    try:
        value = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"cannot read weights: {reason}",
            at=str(weights),
            hint="save them with torch.save(model.state_dict(), path); code in files is not run",
        ) from error
    for name in ("state_dict", "model"):
        if isinstance(value, dict) and isinstance(value.get(name), dict):
            value = value[name]
    if not isinstance(value, dict) or not all(isinstance(v, torch.Tensor) for v in value.values()):
        raise DataError("the file holds no state dict", at=str(weights))
    return {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in value.items()
    }


def fit_state(model: nn.Module, state: Mapping[str, torch.Tensor], weights: Path) -> None:
    """Load a state dict strictly.

    Raises:
        RecipeError: Keys are missing, unexpected, or have other shapes; the first few are named.
    """
    own = model.state_dict()
    faults = [f"missing {n}" for n in own if n not in state]
    faults += [f"unexpected {n}" for n in state if n not in own]
    faults += [
        f"{n} is {tuple(state[n].shape)}, the network wants {tuple(own[n].shape)}"
        for n in own
        if n in state and state[n].shape != own[n].shape
    ]
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise RecipeError(
            f"the weights do not fit the network: {'; '.join(faults[:5])}{more}", at=str(weights)
        )
    model.load_state_dict(dict(state))


def _onnx(weights: Path, contract: Input, out: Path) -> tuple[Model, dict[str, Any]]:
    shutil.copy(weights, out / "teacher.onnx")
    network = OnnxNetwork(weights)
    value = spec_input(contract) | {"name": network.input_name}
    Artefact(out, "teacher.onnx", "onnxruntime", {}, value, "fp32", ("teacher.onnx",)).save()
    model = in_process(lambda x: torch.from_numpy(network(x.contiguous().numpy())), contract)
    return model, {"params": network.params, "macs": None}
