"""Control home batteries with a network: the physics, what the network sees, what guards it.

This file needs numpy alone. It ships in every bundle of a battery recipe and runs beside the
runtime on the device: `Controller` is one home in the field, `drive` is many homes at once. Both
build the same windows and take the same decisions.

A step is one settlement period (``hours`` long); energies are kWh per step. An action is the
energy at the battery's terminals: above 0 it charges, below 0 it discharges. At the start of a
step everybody knows the step's own net load (the inverter regulates on the meter) and the prices
of the coming ``horizon`` steps; how the net load goes on is a forecast.

    grid = load − pv + action + standby           cost = grid·price, or grid·feed_in below 0
    soe  = soe + charge·action                    or soe + action/discharge below 0
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # numpy 1.21, which JetPack 6 has, cannot subscript its arrays
    Array = np.ndarray[Any, Any]
    Model = Callable[[Array], Array]
    """(homes, window, features) float32 → (homes, …): the last number of a row is the action."""
    Choice = Callable[[int, "Plant", Array], tuple[Array, Array, Array]]
    """(step, plant, window) → actions within the limits, outputs, which homes fell back."""

DAYS = 7
"""Days that the forecast averages over."""


@dataclass(frozen=True)
class Contract:
    """What a network was trained to see; a device must build exactly this.

    Attributes:
        window: Steps that the network sees, the newest last.
        horizon: Steps whose price is known and whose net load is forecast, the present included.
        hours: Length of a step.
        price_mean: Mean import price of the training data.
        price_std: Its standard deviation.
        target: Return per day that is asked for: money saved against having no battery, in units
            of ``capacity · price_mean``.
        deadband: Outputs smaller than this count as 0, so that the rule acts undisturbed; they
            would cost more in losses than they bring, and quantisation makes many of them.
        information: Forecast of the net load: ``mean7`` averages the same step of the last seven
            days, ``perfect`` is the truth, ``none`` is zero.
    """

    window: int
    horizon: int
    hours: float
    price_mean: float
    price_std: float
    target: float
    deadband: float = 0.02
    information: str = "mean7"

    @property
    def features(self) -> int:
        """Numbers a step: previous action, return to go, state of energy, net load, price, time."""
        return 5 + 2 * self.horizon

    @property
    def day(self) -> int:
        """Steps a day."""
        return round(24 / self.hours)

    def layout(self) -> list[dict[str, Any]]:
        """Return what each number of a step is; `observe` builds the step from this and no more.

        A field's numbers are ``function(scale · (value − minus) / over + add)``; ``over`` and
        ``minus`` name a property of the battery or of this contract, or are a number.
        """
        h = self.horizon
        turn = 2 * np.pi
        return [
            _field(0, 1, "before", "action of the step before", "kWh", over="power"),
            _field(1, 1, "to_go", "return to go until midnight", "capacity · price_mean money",
                   function="soft"),
            _field(2, 1, "soe", "state of energy", "kWh", scale=2.0, over="capacity", add=-1.0),
            _field(3, h, "net", "load − generation: of this step measured, of the next forecast",
                   "kWh a step", over="power", function="soft"),
            _field(3 + h, h, "price", "import price of this step and the next", "money per kWh",
                   minus="price_mean", over="price_std", function="soft"),
            _field(3 + 2 * h, 1, "time", "share of the day at the step's start", "day",
                   scale=turn, function="sin"),
            _field(4 + 2 * h, 1, "time", "share of the day at the step's start", "day",
                   scale=turn, function="cos"),
        ]  # fmt: skip

    def plain(self) -> dict[str, Any]:
        """Return the settings as JSON."""
        return asdict(self)

    def document(self) -> dict[str, Any]:
        """Return as JSON all that a device must do, for who writes it in another language."""
        return {
            "version": VERSION,
            "settings": self.plain(),
            "knows": KNOWS[self.information],
            "buffer": {
                "steps": self.window,
                "features": self.features,
                "dtype": "float32",
                "order": "the newest step last",
                "start": "the first step fills all places",
            },
            "layout": self.layout(),
            "functions": {"linear": "x", "soft": "x / (1 + |x|)", "sin": "sin x", "cos": "cos x"},
            "battery": {
                "capacity": "kWh",
                "power": "kWh a step, charging and discharging",
                "charge": "efficiency of charging",
                "discharge": "efficiency of discharging",
                "standby": "kWh a step",
                "feed_in": "money per kWh",
            },
            "forecast": {
                "information": self.information,
                "days": DAYS,
                "steps_a_day": self.day,
                "mean7": "mean of the same step of the last days, as many as are known, else 0",
            },
            "return_to_go": {
                "unit": "capacity · price_mean money",
                "at_midnight_and_at_the_start": self.target,
                "after_each_step": "to_go − (bill(net) − bill(grid)) / (capacity · price_mean)",
                "grid": "net + action + standby",
                "bill": "energy · price above 0, energy · feed_in below 0",
            },
            "output": {
                "which": "the last number",
                "meaning": "deviation from the self-consumption rule in units of 2 · power",
                "counts_as_0": f"not finite, or smaller than {self.deadband:g} in size",
                "limits": [-1.0, 1.0],
            },
            "action": {
                "unit": "kWh a step at the battery's terminals, above 0 charges",
                "value": "clamp(clamp(−net) + 2 · power · output)",
                "lowest": "−min(power, soe · discharge)",
                "highest": "min(power, (capacity − soe) / charge)",
                "soe": "soe + action · charge above 0, soe + action / discharge below 0",
            },
        }

    @classmethod
    def of(cls, source: Mapping[str, Any]) -> Contract:
        """Read a contract: `document`'s JSON (``contract.json``), or ``state.npz``.

        Raises:
            ValueError: The document is of another version, or describes another layout than this
                code builds.
        """
        if "settings" not in source:
            names = cls.__dataclass_fields__
            return cls(**{name: np.asarray(source[name]).item() for name in names})
        found = cls(**source["settings"])
        if source["version"] != VERSION or source["layout"] != found.layout():
            raise ValueError("this contract is of another version of the controller's code")
        return found


KNOWS = {
    "mean7": "tariff, 7 days of meter data",
    "perfect": "tariff, the future load and generation",
    "none": "tariff",
}
"""What a controller must know beside its own meter, by the contract's information."""
VERSION = 1
"""Of the contract's document."""


def _field(
    start: int,
    width: int,
    name: str,
    what: str,
    unit: str,
    *,
    scale: float = 1.0,
    minus: str | float = 0.0,
    over: str | float = 1.0,
    add: float = 0.0,
    function: str = "linear",
) -> dict[str, Any]:
    """Numbers of a step: places, what they are, and how they are scaled."""
    return {
        "start": start, "width": width, "name": name, "what": what, "unit": unit, "scale": scale,
        "minus": minus, "over": over, "add": add, "function": function,
    }  # fmt: skip


@dataclass(frozen=True)
class World:
    """Homes to control over the same number of steps; every array has an axis for the homes.

    Attributes:
        load: (homes, steps + horizon) kWh a step; what lies beyond ``steps`` is only looked at by
            a perfect forecast.
        pv: Same, generation.
        price: Same, money per kWh imported.
        expected: Same, forecast of load − pv.
        time: Same, share of the day at the start of a step.
        feed_in: (homes,) money per kWh exported.
        capacity: (homes,) kWh.
        power: (homes,) kWh a step, charging and discharging.
        charge: (homes,) efficiency of charging.
        discharge: (homes,) efficiency of discharging.
        standby: (homes,) kWh a step that the inverter takes.
        start: (homes,) state of energy at the beginning, kWh.
        steps: Steps to control.
    """

    load: Array
    pv: Array
    price: Array
    expected: Array
    time: Array
    feed_in: Array
    capacity: Array
    power: Array
    charge: Array
    discharge: Array
    standby: Array
    start: Array
    steps: int

    @property
    def homes(self) -> int:
        """How many."""
        return len(self.capacity)

    @property
    def net(self) -> Array:
        """(homes, steps + horizon) load − pv."""
        return self.load - self.pv

    def arrays(self) -> dict[str, Array]:
        """Return the fields as arrays, for a file."""
        return {name: np.asarray(value) for name, value in vars(self).items()}

    @classmethod
    def of(cls, arrays: Mapping[str, Array]) -> World:
        """Make a world of what `arrays` gave."""
        return cls(**{**arrays, "steps": int(arrays["steps"])})  # type: ignore[arg-type]


def forecast(net: Array, day: int, information: str) -> Array:
    """Forecast every step from what came before it.

    ``mean7`` is the mean of the same step of the last seven days, as many as there are; it is 0
    where there is none. So at step i the steps up to i + day − 1 can be forecast.

    Args:
        net: (homes, steps) net load.
        day: Steps a day.
        information: See `Contract`.
    """
    if information == "perfect":
        return net.copy()
    total, count = np.zeros_like(net), np.zeros(net.shape[1])
    if information == "mean7":
        for back in range(day, DAYS * day + 1, day):
            total[:, back:] += net[:, :-back] if back < net.shape[1] else 0
            count[back:] += 1
    expected: Array = total / np.maximum(count, 1)
    return expected


# --- physics -----------------------------------------------------------------------------------


@dataclass
class Plant:
    """The batteries of some homes, and the only code that changes their state of energy."""

    capacity: Array
    power: Array
    charge: Array
    discharge: Array
    standby: Array
    soe: Array

    def clamp(self, action: Array) -> Array:
        """Limit actions to what power and state of energy allow; they must be finite."""
        lowest = -np.minimum(self.power, self.soe * self.discharge)
        highest = np.minimum(self.power, (self.capacity - self.soe) / self.charge)
        limited: Array = np.minimum(np.maximum(action, lowest), highest)
        return limited

    def apply(self, action: Array, net: Array) -> Array:
        """Carry out clamped actions and return what each home takes from the grid."""
        change = np.where(action > 0, action * self.charge, action / self.discharge)
        # The clamp divides and this multiplies: the last bit may overshoot.
        self.soe = np.clip(self.soe + change, 0, self.capacity)
        grid: Array = net + action + self.standby
        return grid


def plant_of(world: World) -> Plant:
    """Return the batteries of a world at its beginning."""
    return Plant(
        world.capacity, world.power, world.charge, world.discharge, world.standby,
        world.start.astype(np.float64).copy(),
    )  # fmt: skip


def bill(grid: Array, price: Array, feed_in: Array) -> Array:
    """Money for energy from (above 0) or to the grid."""
    cost: Array = np.where(grid > 0, grid * price, grid * feed_in)
    return cost


# --- what the network sees ---------------------------------------------------------------------


def soft(x: Array) -> Array:
    """Return x / (1 + |x|): any size into −1…1, fine near 0, no clipping; so 8 bits do."""
    squashed: Array = x / (1 + np.abs(x))
    return squashed


def observe(
    contract: Contract,
    *,
    before: Array,
    to_go: Array,
    plant: Plant,
    net: Array,
    price: Array,
    time: Array,
) -> Array:
    """Return the numbers of one step, each in −1…1, as `Contract.layout` says.

    Args:
        contract: Layout and scaling.
        before: (homes,) action of the step before, kWh.
        to_go: (homes,) return to go, in units of capacity · price_mean.
        plant: State of energy and limits.
        net: (homes, horizon) net load, the first one measured and the others forecast, kWh.
        price: (homes, horizon) import price.
        time: (homes,) share of the day.
    """
    values = {
        "before": before, "to_go": to_go, "soe": plant.soe, "net": net, "price": price,
        "time": time,
    }  # fmt: skip
    known = {
        "power": plant.power, "capacity": plant.capacity, "price_mean": contract.price_mean,
        "price_std": contract.price_std,
    }  # fmt: skip
    parts = []
    for field in contract.layout():
        minus, over = (_column(known.get(field[n], field[n])) for n in ("minus", "over"))
        x = field["scale"] * (_column(values[field["name"]]) - minus) / over + field["add"]
        parts.append(FUNCTIONS[field["function"]](x))
    return np.concatenate(parts, 1).astype(np.float32)


def _column(value: Any) -> Any:
    """(homes,) → (homes, 1); anything else unchanged."""
    return value[:, None] if np.ndim(value) == 1 else value


FUNCTIONS: Mapping[str, Callable[[Any], Any]] = {
    "linear": lambda x: x,
    "soft": soft,
    "sin": np.sin,
    "cos": np.cos,
}


class Windows:
    """The last steps of every home, newest last; at the start the first step fills them."""

    def __init__(self, window: int) -> None:
        self._window = window
        self.rows: Array | None = None

    def push(self, row: Array) -> Array:
        """Add (homes, features) and return (homes, window, features) float32."""
        if self.rows is None:
            self.rows = np.repeat(row[:, None], self._window, 1)
        else:
            self.rows = np.concatenate((self.rows[:, 1:], row[:, None]), 1)
        return self.rows


def rule(plant: Plant, net: Array) -> Array:
    """Self-consumption, within all limits: store the surplus, cover the load."""
    return plant.clamp(-net)


def decide(plant: Plant, net: Array, output: Array, deadband: float = 0.0) -> tuple[Array, Array]:
    """Turn outputs into actions that the battery can take.

    An output is the deviation from the self-consumption rule in units of twice the power. One
    that is not finite or smaller than ``deadband`` counts as 0: the rule acts.

    Returns:
        Actions in kWh, and which homes fell back to the rule.
    """
    failed = ~np.isfinite(output)
    share = np.clip(np.where(failed | (np.abs(output) < deadband), 0.0, output), -1.0, 1.0)
    return plant.clamp(rule(plant, net) + 2 * plant.power * share), failed


def goal(plant: Plant, net: Array, action: Array) -> Array:
    """Output that gives an action: the inverse of `decide`."""
    share: Array = (plant.clamp(action) - rule(plant, net)) / (2 * plant.power)
    return share


@dataclass
class Ledger:
    """Return to go: the target at midnight, less what was saved since."""

    contract: Contract
    unit: Array
    feed_in: Array
    target: Array
    to_go: Array | None = None

    def begin(self, time: Array) -> Array:
        """Return to go at the start of a step."""
        midnight = time < self.contract.hours / 24 * 0.5
        if self.to_go is None:
            self.to_go = self.target.copy()
        self.to_go = np.where(midnight, self.target, self.to_go)
        return self.to_go

    def end(self, net: Array, grid: Array, price: Array) -> Array:
        """Book a step and return what it saved against no battery, in money."""
        saved: Array = bill(net, price, self.feed_in) - bill(grid, price, self.feed_in)
        assert self.to_go is not None
        self.to_go = self.to_go - saved / self.unit
        return saved


# --- closed loop -------------------------------------------------------------------------------


def drive(
    model: Model, contract: Contract, world: World, *, target: Array | None = None
) -> dict[str, Array]:
    """Run every home of a world in closed loop, one call of the network a step.

    Args:
        model: The network.
        contract: What it must see.
        world: The homes.
        target: (homes,) return asked for per day; the contract's by default.

    Returns:
        See `roll`.
    """
    net = world.net

    def choose(i: int, plant: Plant, window: Array) -> tuple[Array, Array, Array]:
        output = last(model(window), world.homes)
        action, failed = decide(plant, net[:, i], output, contract.deadband)
        return action, output, failed

    return roll(choose, contract, world, target=target)


def roll(
    choose: Choice, contract: Contract, world: World, *, target: Array | None = None
) -> dict[str, Array]:
    """Run every home of a world with any way to choose actions.

    Returns:
        Arrays (homes, steps): ``action``, ``soe`` (after the step), ``grid``, ``cost``, ``saved``
        (money, against no battery), ``output`` (raw, of the network), ``failed``; and ``seen``
        (homes, steps, features), what the network saw.
    """
    plant, windows = plant_of(world), Windows(contract.window)
    wanted = np.full(world.homes, contract.target) if target is None else target
    unit = world.capacity * contract.price_mean
    ledger = Ledger(contract, unit, world.feed_in, wanted)
    net, kept = world.net, Record(world.homes, world.steps, contract.features)
    before = np.zeros(world.homes)
    for i in range(world.steps):
        ahead = slice(i, i + contract.horizon)
        known = np.concatenate((net[:, i : i + 1], world.expected[:, ahead][:, 1:]), 1)
        row = observe(
            contract, before=before, to_go=ledger.begin(world.time[:, i]), plant=plant,
            net=known, price=world.price[:, ahead], time=world.time[:, i],
        )  # fmt: skip
        action, output, failed = choose(i, plant, windows.push(row))
        grid = plant.apply(action, net[:, i])
        saved = ledger.end(net[:, i], grid, world.price[:, i])
        cost = bill(grid, world.price[:, i], world.feed_in)
        kept.put(i, action=action, soe=plant.soe, grid=grid, cost=cost, saved=saved)
        kept.put(i, output=output, failed=failed, seen=row)
        before = action
    return kept.arrays


def rollout(model: Model, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Run `drive` from arrays to arrays: what the agent is asked for.

    Args:
        model: The network.
        arrays: ``world:NAME`` as `World.arrays` gives them, ``contract:NAME`` of `Contract.plain`,
            ``target`` (homes,) where others than the contract's are asked for.

    Returns:
        As `roll`, without what the network saw.
    """

    def named(prefix: str) -> dict[str, Array]:
        found = (n for n in arrays if n.startswith(prefix))
        return {n[len(prefix) :]: arrays[n] for n in found}

    contract, world = Contract.of(named("contract:")), World.of(named("world:"))
    happened = drive(model, contract, world, target=arrays.get("target"))
    del happened["seen"]
    return happened


def asked(contract: Contract, world: World, *, target: Array | None = None) -> dict[str, Array]:
    """Return the arrays that `rollout` starts from."""
    found = {f"contract:{name}": np.asarray(value) for name, value in contract.plain().items()}
    found.update({f"world:{name}": value for name, value in world.arrays().items()})
    if target is not None:
        found["target"] = target
    return found


def last(outputs: Array, homes: int) -> Array:
    """Return the last number of each row as float64: (homes,)."""
    return np.asarray(outputs, np.float64).reshape(homes, -1)[:, -1]


class Record:
    """What happened, step by step."""

    NAMES = ("action", "soe", "grid", "cost", "saved", "output", "failed")

    def __init__(self, homes: int, steps: int, features: int = 0) -> None:
        self.arrays: dict[str, Array] = {n: np.zeros((homes, steps)) for n in self.NAMES}
        self.arrays["seen"] = np.zeros((homes, steps, features), np.float32)

    def put(self, step: int, **values: Array) -> None:
        """Write one step."""
        for name, value in values.items():
            self.arrays[name][:, step] = value


class Controller:
    """One home in the field: remembers, forecasts, asks the network, guards.

        contract = Contract.of(json.load(open("contract.json")))
        controller = Controller(run, contract, capacity=6.4, power=5.0, …)
        kwh = controller.step(net=0.8, soe=3.1, prices=[…], time=0.5)

    Args:
        model: (1, window, features) float32 → the network's output.
        contract: What it must see.
        capacity: kWh.
        power: kW.
        charge: Efficiency of charging.
        discharge: Efficiency of discharging.
        standby: kW that the inverter takes.
        feed_in: Money per kWh exported.
        target: Return asked for per day; the contract's by default.
    """

    def __init__(
        self,
        model: Model,
        contract: Contract,
        *,
        capacity: float,
        power: float,
        charge: float = 1.0,
        discharge: float = 1.0,
        standby: float = 0.0,
        feed_in: float = 0.0,
        target: float | None = None,
    ) -> None:
        def one(value: float) -> Array:
            return np.array([value], np.float64)

        if contract.information == "perfect":
            raise ValueError("a controller in the field has no perfect forecast")
        self.model, self.contract, self.fallbacks = model, contract, 0
        self._plant = Plant(
            one(capacity), one(power * contract.hours), one(charge), one(discharge),
            one(standby * contract.hours), one(0.0),
        )  # fmt: skip
        self._windows = Windows(contract.window)
        wanted = contract.target if target is None else target
        unit = one(capacity * contract.price_mean)
        self._ledger = Ledger(contract, unit, one(feed_in), one(wanted))
        self._past = np.full(DAYS * contract.day, np.nan)
        self._before = one(0.0)

    def step(self, *, net: float, soe: float, prices: Array | list[float], time: float) -> float:
        """Decide one step.

        Args:
            net: Measured load − generation of this step, kWh.
            soe: Measured state of energy, kWh; brought into 0…capacity.
            prices: Import prices of this step and the next ``horizon`` − 1.
            time: Share of the day at the start of the step.

        Returns:
            Energy to charge (above 0) or discharge in this step, kWh, within all limits.
        """
        contract, plant = self.contract, self._plant
        here, clock = np.array([net], np.float64), np.array([time], np.float64)
        plant.soe = np.clip(np.array([soe], np.float64), 0, plant.capacity)
        ahead = np.asarray(prices, np.float64)[None, : contract.horizon]
        row = observe(
            contract, before=self._before, to_go=self._ledger.begin(clock), plant=plant,
            net=np.concatenate(([net], self._expected()))[None], price=ahead, time=clock,
        )  # fmt: skip
        output = last(self.model(self._windows.push(row)), 1)
        action, failed = decide(plant, here, output, contract.deadband)
        self.fallbacks += int(failed[0])
        self._ledger.end(here, here + action + plant.standby, ahead[:, 0])
        self._past = np.append(self._past[1:], net)
        self._before = action
        return float(action[0])

    def _expected(self) -> Array:
        """Mean of the same step of the last days, for the next ``horizon`` − 1 steps."""
        contract = self.contract
        if contract.information != "mean7":
            return np.zeros(contract.horizon - 1)
        days = self._past.reshape(DAYS, contract.day)[:, 1 : contract.horizon]
        known = ~np.isnan(days)
        total = np.where(known, days, 0.0).sum(0)
        expected: Array = total / np.maximum(known.sum(0), 1)
        return expected
