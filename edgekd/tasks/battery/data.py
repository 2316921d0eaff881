"""Data of a battery recipe: windows with the expert's actions, and worlds to be judged in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgekd.agent.loops.battery import Contract, World, roll
from edgekd.data.battery.embedded import NOTICE
from edgekd.data.battery.homes import Homes
from edgekd.data.battery.load import load_homes
from edgekd.spec import canonical
from edgekd.tasks.battery import logged
from edgekd.tasks.battery.expert import (
    Ground,
    Rows,
    ambitious,
    demonstrate,
    ground,
    practise,
    rows_of,
)
from edgekd.tasks.battery.plan import idle_cost, optimum, self_consumption
from edgekd.tasks.battery.worlds import (
    PERIOD_DAYS,
    Place,
    Setup,
    Stretch,
    judged,
    scenarios,
    trained,
    turns,
    world_of,
)

__all__ = ["Battery", "Judged", "Windows", "battery", "rollout"]

THIN = 8
"""Every so manieth step ends a window of the training data."""


FEW_DAYS = 20
"""Days of training data in a fast check."""


@dataclass(frozen=True, eq=False)
class Windows:
    """A map-style dataset of windows: what a network sees, and the right output at each step.

    Attributes:
        rows: The steps behind them.
        ends: (windows,) row of the newest step of each.
        window: Steps a window; one that reaches over the beginning repeats the first step.
        supervised: How many of the newest steps have a label.
    """

    rows: Rows
    ends: NDArray[np.int64]
    window: int
    supervised: int

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int, /) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} windows")
        return self.take([index])[0], self.labels[index]

    def take(self, indices: ArrayLike) -> NDArray[np.float32]:
        """Windows as float32 (batch, window, features)."""
        return self.rows.seen[self._places(indices, self.window)]

    @cached_property
    def labels(self) -> NDArray[np.float32]:
        """(windows, supervised, …) right outputs or what every one costs, the newest last."""
        return self.rows.goals[self._places(np.arange(len(self)), self.supervised)]

    def _places(self, indices: ArrayLike, count: int) -> NDArray[np.int64]:
        ends = self.ends[np.asarray(indices, np.int64)]
        back = ends[:, None] + np.arange(1 - count, 1)
        found: NDArray[np.int64] = np.maximum(back, self.rows.starts[ends][:, None])
        return found


@dataclass(frozen=True, eq=False)
class Judged(Windows):
    """Windows of a split that is judged in closed loop, and the world to do it in.

    Attributes:
        world: The homes and periods.
        units: Name of each.
        scenarios: (7, units, …) the last seven days as forecasts, for planners.
    """

    world: World
    units: tuple[str, ...]
    scenarios: NDArray[np.float64]

    @cached_property
    def idle(self) -> NDArray[np.float64]:
        """(units,) cost without a battery."""
        cost: NDArray[np.float64] = idle_cost(self.world).sum(1)
        return cost

    @cached_property
    def optimum(self) -> list[dict[str, Any]]:
        """Least cost and the actions of each unit; see `edgekd.tasks.battery.plan.optimum`."""
        return optimum(self.world)

    @cached_property
    def best(self) -> NDArray[np.float64]:
        """(units,) least cost, knowing everything."""
        return np.array([found["cost"] for found in self.optimum])


@dataclass(frozen=True, eq=False)
class Battery:
    """Splits of a battery recipe.

    Attributes:
        homes: All homes.
        setup: Batteries and information.
        contract: What a network sees.
        split: Which homes are tested; see `edgekd.tasks.battery.worlds.turns`.
        seed: Of the demonstrations.
        expert: See `edgekd.tasks.battery.expert.ground`.
        end: Same.
        supervised: See `Windows`.
        few: Two homes and 20 days: for a fast check.
        labels: See `battery`.
        demonstrations: Same.
    """

    homes: Homes
    setup: Setup
    contract: Contract
    grounds: tuple[Ground, ...]
    split: int
    seed: int
    end: float
    supervised: int
    few: bool
    labels: str = "action"
    demonstrations: str = ""

    @cached_property
    def train(self) -> Windows:
        """Demonstrations."""
        if self.demonstrations:
            rows = logged.read(Path(self.demonstrations), self.contract)
        else:
            rows = demonstrate(self.grounds, self.contract, self.seed, costs=self.labels == "cost")
        ends = np.arange(THIN - 1, len(rows.goals), THIN)
        return Windows(rows, ends, self.contract.window, self.supervised)

    @cached_property
    def val(self) -> Judged:
        """Selection uses this one."""
        return self._judged("val")

    @cached_property
    def test(self) -> Judged:
        """Touched once."""
        return self._judged("test")

    def export(self, folder: Path) -> dict[str, Any]:
        """Write what is demonstrated as a dataset; see `edgekd.tasks.battery.logged.write`."""
        return logged.write(self.grounds, self.contract, self.seed, folder)

    @property
    def note(self) -> str:
        """What a reader of the results must know."""
        known = turns(len(self.homes.names), self.split)[0] != "all"
        return self.homes.note + ("" if known else " No home is unseen: too few for a split.")

    @property
    def facts(self) -> dict[str, Any]:
        """Small JSON about the data."""
        return {
            "source": self.homes.source,
            "files": list(self.homes.files),
            "homes": len(self.homes.names),
            "days": self.homes.steps // self.homes.day,
            "windows": len(self.train),
            "notices": [str(NOTICE)] if self.homes.source == "embedded homes" else [],
            "units": {"val": len(self.val.units), "test": len(self.test.units)},
        }

    def _judged(self, part: str) -> Judged:
        places = judged(self.homes, self.setup, part, self.split)
        places = places[:2] if self.few else places
        steps = PERIOD_DAYS * self.homes.day
        world = world_of(self.homes, self.setup, places, steps)
        rows = _witness(world, self.contract)
        names = tuple(self._name(place) for place in places)
        length = steps + self.setup.horizon
        return Judged(
            rows, np.arange(0, len(rows.goals), THIN), self.contract.window, self.supervised,
            world, names, scenarios(self.homes, places, length),
        )  # fmt: skip

    def _name(self, place: Place) -> str:
        day = self.homes.begin.astype("datetime64[D]") + place.first // self.homes.day
        return f"home {self.homes.names[place.home]} from {day}"


def _witness(world: World, contract: Contract) -> Rows:
    """Windows that the self-consumption rule meets, for timing and comparing outputs."""
    act = self_consumption(world)

    def choose(i: int, plant: Any, window: Any) -> Any:
        zero = np.zeros(world.homes)
        return plant.clamp(act(i, plant)), zero, zero

    seen = roll(choose, contract, world)["seen"]
    return rows_of(seen, np.zeros(seen.shape[:2]))


def battery(
    *,
    path: str = "embedded",
    prices: str = "",
    price_scale: float = 1.0,
    price_add: float = 0.0,
    align: str = "time",
    homes: tuple[str, ...] | list[str] = (),
    capacity: float = 6.4,
    power: float = 5.0,
    efficiency: float = 0.9,
    standby: float = 0.0,
    feed_in: float = 0.05,
    horizon: int = 24,
    information: str = "mean7",
    window: int = 16,
    supervised: int = 8,
    expert: str = "perfect",
    end: float = 0.6,
    target: float = 0.0,
    split: int = 0,
    seed: int = 0,
    few: bool = False,
    labels: str = "action",
    demonstrations: str = "",
) -> Battery:
    """Load homes and make everything that a battery recipe trains on and is judged by.

    Args:
        path: See `edgekd.data.battery.load.load_homes`.
        prices: Same.
        price_scale: Same.
        price_add: Same.
        align: Same.
        homes: Same.
        capacity: See `edgekd.tasks.battery.worlds.Setup`.
        power: Same.
        efficiency: Same.
        standby: Same.
        feed_in: Same.
        horizon: Same.
        information: Same.
        window: Steps a window.
        supervised: How many of the newest have a label.
        expert: See `edgekd.tasks.battery.expert.ground`.
        end: Same.
        target: Return asked for a day; 0 for more than the expert brings on most days.
        split: Which homes are tested.
        seed: Of the demonstrations.
        few: A fast check on two homes.
        labels: ``action``, what the expert does; ``cost``, what it says that every action costs.
        demonstrations: Minari dataset to train on in place of the expert's trajectories.
    """
    return _battery(canonical(locals()))


@lru_cache(maxsize=2)
def _battery(arguments: str) -> Battery:
    """The same by its arguments as JSON, so that the steps of a run share it."""
    import json

    a = json.loads(arguments)
    homes = load_homes(
        a["path"], prices=a["prices"], price_scale=a["price_scale"], price_add=a["price_add"],
        align=a["align"], homes=a["homes"],
    )  # fmt: skip
    names = ("capacity", "power", "efficiency", "standby", "feed_in", "horizon", "information")
    setup = Setup(**{name: a[name] for name in names})
    stretches = trained(homes, setup, a["split"])
    if a["few"]:
        first = stretches[0]
        stretches = [Stretch(first.places[:2], min(first.steps, FEW_DAYS * homes.day))]
    grounds = tuple(ground(homes, setup, s, a["expert"], a["end"]) for s in stretches)
    known = np.concatenate([g.world.price[0] for g in grounds])
    mean, std = float(known.mean()), max(float(known.std()), 1e-6)
    contract = Contract(
        a["window"],
        setup.horizon,
        homes.hours,
        mean,
        std,
        a["target"],
        information=setup.information,
    )
    if not a["target"]:
        contract = replace(contract, target=ambitious(grounds, contract))
    return Battery(
        homes, setup, contract, grounds, a["split"], a["seed"], a["end"], a["supervised"],
        a["few"], a["labels"], a["demonstrations"],
    )  # fmt: skip


def rollout(*, model: Any, data: Battery, round: int, seed: int, share: float = 0.5) -> Windows:
    """Let the student act on training homes; see `edgekd.spec.Train.rollout`.

    Args:
        model: The student.
        data: The recipe's data.
        round: Counts from 1.
        seed: Of this round.
        share: Part of each stretch.
    """
    rows = practise(model, data.grounds, data.contract, seed, share, costs=data.labels == "cost")
    ends = np.arange(THIN - 1, len(rows.goals), THIN)
    return Windows(rows, ends, data.contract.window, data.supervised)
