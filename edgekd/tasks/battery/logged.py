"""Trajectories as a Minari dataset: HDF5, the format of offline reinforcement learning.

An episode is one home over a stretch of days. An observation is a step as the contract lays it
out, without the return to go, which follows from the rewards. An action is an output of the
network: deviation from the self-consumption rule in units of twice the power, −1 to 1. A reward
is what the step saved against having no battery, in units of capacity · mean price; summed up to
midnight it is the return that a Decision Transformer is asked for.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.agent.loops.battery import Contract, Plant, goal, soft
from edgekd.errors import DataError
from edgekd.extras import installed, missing
from edgekd.tasks.battery.expert import BEHAVIOURS, Acted, Ground, Rows, act, joined, returns

NAME = "battery-homes-v0"
"""Of the dataset that `write` makes."""
KEPT = "edgekd_contract"
"""Key of the dataset's metadata that says how its numbers are scaled."""
TO_GO = 1
"""Place of the return to go in a step."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Episode:
    """One home over a stretch of days.

    Attributes:
        observations: (steps + 1, features − 1) float32.
        actions: (steps, 1) float32.
        rewards: (steps,).
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: Floats


def episodes(grounds: Sequence[Ground], contract: Contract, seed: int) -> Iterator[Episode]:
    """Yield what every behaviour does in every home: the trajectories that a recipe trains on."""
    for number, one in enumerate(grounds):
        acted = act(one, contract, BEHAVIOURS, np.random.default_rng([seed, number]))
        seen = np.delete(acted.happened["seen"], TO_GO, 2)
        outputs = _outputs(acted)[:, :-1, None].astype(np.float32)
        for row, (steps, output) in enumerate(zip(seen, outputs, strict=True)):
            yield Episode(steps, output, acted.saved[row, :-1])


def _outputs(acted: Acted) -> Floats:
    """The outputs (trajectories, steps) that give what was done."""
    w, action = acted.world, acted.happened["action"]

    def each(value: Floats) -> Floats:
        return np.repeat(value, w.steps)

    plant = Plant(
        each(w.capacity), each(w.power), each(w.charge), each(w.discharge), each(w.standby),
        acted.before.ravel(),
    )  # fmt: skip
    found: Floats = goal(plant, w.net[:, : w.steps].ravel(), action.ravel())
    return found.reshape(action.shape)


def write(grounds: Sequence[Ground], contract: Contract, seed: int, folder: Path) -> dict[str, Any]:
    """Write the trajectories into a new dataset below ``folder``.

    Returns:
        ``path``, ``episodes``, ``steps``, ``observation`` (numbers), ``minari`` (version).

    Raises:
        SetupError: Minari is not installed.
        DataError: There is a dataset already.
    """
    minari = _minari()
    from gymnasium.spaces import Box
    from minari.data_collector import EpisodeBuffer

    place = folder / NAME
    if place.exists():
        raise DataError("there is a dataset already", at=str(place), hint="another --out")
    buffers = [_buffer(EpisodeBuffer, one) for one in episodes(grounds, contract, seed)]
    width = contract.features - 1
    with _below(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Minari misses an author's address and a link
        made = minari.create_dataset_from_buffers(
            NAME,
            buffer=buffers,
            observation_space=Box(-1.0, 1.0, (width,), np.float32),
            action_space=Box(-1.0, 1.0, (1,), np.float32),
            algorithm_name="dynamic programming, rules, and both disturbed",
            description=(__doc__ or "").partition("\n\n")[2].strip(),
        )
    made.storage.update_metadata({KEPT: json.dumps(contract.plain())})
    return {
        "path": str(place), "episodes": len(buffers), "observation": width,
        "steps": sum(len(one.rewards) for one in buffers), "minari": minari.__version__,
    }  # fmt: skip


def _buffer(kind: Any, one: Episode) -> Any:
    """An episode that ends because the data do: truncated, never terminated."""
    ends = np.zeros(len(one.rewards), bool)
    ends[-1] = True
    return kind(
        observations=one.observations, actions=one.actions, rewards=one.rewards,
        terminations=np.zeros_like(ends), truncations=ends, infos=None,
    )  # fmt: skip


@contextmanager
def _below(folder: Path) -> Iterator[None]:
    """Let Minari write below a folder: it takes the place from the environment alone."""
    name = "MINARI_DATASETS_PATH"
    before = os.environ.get(name)
    os.environ[name] = str(folder.resolve())
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def read(path: Path, contract: Contract) -> Rows:
    """Read a dataset of observations, actions and rewards as the module describes them.

    The right output of a step is what was done there; the return to go is what it brought.

    Args:
        path: Folder of the dataset, or its folder ``data``.
        contract: How the recipe at hand lays out and scales a step.

    Raises:
        SetupError: Minari is not installed.
        DataError: No such dataset, other observations than the contract's, or values that are
            not numbers or out of bounds; the episode is named.
    """
    minari = _minari()
    place = path if (path / "metadata.json").is_file() else path / "data"
    if not (place / "metadata.json").is_file():
        raise DataError(
            "no Minari dataset", at=str(path), hint="a folder with data/metadata.json in it"
        )
    found = minari.MinariDataset(place)
    kept = found.storage.metadata.get(KEPT)
    if kept is not None:
        _same(json.loads(kept), contract, path)
    parts = [
        _rows(_checked(number, one, contract, path), contract)
        for number, one in enumerate(found.iterate_episodes())
    ]
    if not parts:
        raise DataError("a dataset without episodes", at=str(path))
    return joined(parts)


SCALES = ("horizon", "hours", "information", "price_mean", "price_std")
"""What of a contract decides what a step's numbers mean."""


def _same(kept: dict[str, Any], contract: Contract, path: Path) -> None:
    here = contract.plain()
    for name in SCALES:
        a, b = kept.get(name), here[name]
        close = isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=1e-6)
        if a != b and not close:
            raise DataError(
                f"the dataset was made with {name}={a}, this run has {b}",
                at=str(path),
                hint="the same homes, prices, horizon and forecast scale the numbers alike",
            )


def _checked(number: int, one: Any, contract: Contract, path: Path) -> Episode:
    """One episode, when it can be right."""
    seen, actions, rewards = (
        np.asarray(value) for value in (one.observations, one.actions, one.rewards)
    )
    at, steps, width = f"{path}: episode {number}", len(rewards), contract.features - 1
    if seen.shape != (steps + 1, width) or actions.reshape(steps, -1).shape != (steps, 1):
        raise DataError(
            f"observations {seen.shape} and actions {actions.shape} for {steps} steps, wanted"
            f" {(steps + 1, width)} and {(steps, 1)}",
            at=at,
            hint="edgekd data export writes a dataset of the layout that is wanted",
        )
    for name, values, limit in (
        ("observation", seen, 1.0), ("action", actions, 1.0), ("reward", rewards, np.inf)
    ):  # fmt: skip
        wrong = ~np.isfinite(values) | (np.abs(values) > limit + 1e-6)
        if wrong.any():
            step = int(np.argmax(wrong.reshape(len(values), -1).any(1)))
            raise DataError(
                f"the {name} of step {step} is {values.reshape(len(values), -1)[step].tolist()}",
                at=at,
                hint="finite numbers; observations and actions from −1 to 1",
            )
    return Episode(
        seen.astype(np.float32), actions.reshape(steps, 1).astype(np.float32),
        rewards.astype(np.float64),
    )  # fmt: skip


def _rows(one: Episode, contract: Contract) -> Rows:
    steps = len(one.rewards)
    seen = one.observations[:-1]
    turn = np.arctan2(seen[:, -2], seen[:, -1]) / (2 * np.pi) % 1
    # A step that begins at midnight has an angle of 0, or of just below a whole turn.
    midnight = np.minimum(turn, 1 - turn) < contract.hours / 48
    to_go = soft(returns(one.rewards[None], midnight)[0])
    whole = np.insert(seen, TO_GO, to_go.astype(np.float32), 1)
    return Rows(whole, one.actions[:, 0], np.zeros(steps, np.int64))


def _minari() -> Any:
    if not installed("minari"):
        raise missing("minari", "a Minari dataset")
    import minari

    return minari
