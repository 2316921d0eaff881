"""Eager torch as one more runtime of the agent, so that torch rows are measured like the others.

The "model" is a small JSON file beside a state dict; see `save_network`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekd.calls import invoke
from edgekd.models.shipped import shipped
from edgekd.spec import Call, Input, plain

MAIN = "network.json"
WEIGHTS = "weights.pt"
HEAD = "edgekd.head."
"""Prefix of a training-only classifier that is kept beside the backbone's weights."""


def save_network(
    model: nn.Module,
    build: Call,
    input: Input,
    out: Path,
    head: nn.Module | None = None,
    around: Call | None = None,
) -> None:
    """Write a network so that it can be built again: JSON and a state dict.

    Args:
        model: The network.
        build: The function that made it.
        input: Its tensor contract.
        out: Folder.
        head: Classifier over its features that was used in training; kept for distillation.
        around: ``call(network)`` that made the network of what ``build`` gives; None for itself.
    """
    out.mkdir(parents=True, exist_ok=True)
    state = dict(model.state_dict())
    if head is not None:
        state |= {HEAD + name: value for name, value in head.state_dict().items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    torch.save(tensors, out / WEIGHTS)
    value = {"build": plain(build), "input": plain(input), "weights": WEIGHTS}
    value |= {} if around is None else {"around": plain(around)}
    (out / MAIN).write_text(json.dumps(value, indent=1, sort_keys=True))


def load_network(folder: Path, base: Path) -> tuple[nn.Module, dict[str, Tensor]]:
    """Build a saved network in evaluation mode.

    Args:
        folder: Where `save_network` wrote.
        base: Folder that the build function's path counts from.

    Returns:
        The network, and ``weight`` and ``bias`` of the kept classifier (empty without one).
    """
    value = json.loads((folder / MAIN).read_text())
    model: nn.Module = invoke(Call(**value["build"]), base)
    around = around_of(folder)
    if around is not None:
        model = invoke(around, base, network=model)
    state = torch.load(folder / value["weights"], weights_only=True)
    head = {n.removeprefix(HEAD): state.pop(n) for n in list(state) if n.startswith(HEAD)}
    model.load_state_dict(state)
    return model.eval(), head


def around_of(folder: Path) -> Call | None:
    """What stands around the network that ``build`` gives; see `save_network`."""
    value = json.loads((folder / MAIN).read_text()).get("around")
    return None if value is None else Call(**value)


class Session:
    """A torch network behind the agent's session protocol."""

    def __init__(self, model: Path, options: Mapping[str, Any]) -> None:
        threads = int(options.get("threads", 1))
        torch.set_num_threads(threads)
        spec = json.loads(model.read_text())["input"]
        self._name = spec["name"]
        network, _ = load_network(model.parent, Path(options["base"]))
        self._network = shipped(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.inputs = [{"name": self._name, "shape": [None, *spec["shape"]], "dtype": "float32"}]
        self.outputs = [{"name": "output", "shape": [None, None], "dtype": "float32"}]
        self.effective = {"threads": threads, "torch": torch.__version__}

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run one batch."""
        with torch.inference_mode():
            x = torch.from_numpy(np.ascontiguousarray(feeds[self._name]))
            result: NDArray[Any] = self._network(x).float().numpy()
        return {"output": result}

    def close(self) -> None:
        """Nothing to free."""


def open_session(model: Path, options: Mapping[str, Any]) -> Session:
    """Entry point of the agent."""
    return Session(Path(model), options)
