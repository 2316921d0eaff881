"""The contract as JSON: whoever reads nothing else builds the same window and the same action."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from edgekd.agent.loops.battery import Contract, Controller

CONTRACT = Contract(4, 6, 1.0, 0.3, 0.1, target=1.5)


def scripted(windows):
    """A network that says something else in every step, and keeps what it saw."""

    def model(window):
        windows.append(np.array(window[0]))
        return np.array([[math.sin(3.0 * len(windows)) if len(windows) % 7 else float("nan")]])

    return model


def soft(x):
    return x / (1 + abs(x))


FUNCTIONS = {"linear": lambda x: x, "soft": soft, "sin": math.sin, "cos": math.cos}


class Twin:
    """A slow controller for one home, written from ``contract.json`` alone, one number a time."""

    def __init__(self, document, model, battery):
        self.d, self.model, self.battery = document, model, battery
        self.buffer, self.past, self.before = [], [], 0.0
        self.to_go = document["return_to_go"]["at_midnight_and_at_the_start"]

    def clamp(self, action, soe):
        b = self.battery
        lowest = -min(b["power"], soe * b["discharge"])
        return max(lowest, min(action, b["power"], (b["capacity"] - soe) / b["charge"]))

    def bill(self, energy, price):
        return energy * price if energy > 0 else energy * self.battery["feed_in"]

    def forecast(self, ahead):
        day = self.d["forecast"]["steps_a_day"]
        found = [
            self.past[len(self.past) + ahead - day * back]
            for back in range(1, self.d["forecast"]["days"] + 1)
            if len(self.past) + ahead - day * back >= 0
        ]
        return sum(found) / len(found) if found else 0.0

    def step(self, net, soe, prices, time):
        s, b = self.d["settings"], self.battery
        if time == 0:
            self.to_go = self.d["return_to_go"]["at_midnight_and_at_the_start"]
        expected = [net] + [self.forecast(ahead) for ahead in range(1, s["horizon"])]
        values = {
            "before": [self.before], "to_go": [self.to_go], "soe": [soe], "net": expected,
            "price": list(prices), "time": [time],
        }  # fmt: skip
        known = {**s, **b}
        row = [0.0] * self.d["buffer"]["features"]
        for field in self.d["layout"]:
            over, minus = (known.get(field[n], field[n]) for n in ("over", "minus"))
            for i in range(field["width"]):
                x = field["scale"] * (values[field["name"]][i] - minus) / over + field["add"]
                row[field["start"] + i] = FUNCTIONS[field["function"]](x)
        self.buffer = [*(self.buffer or [row] * self.d["buffer"]["steps"])[1:], row]
        output = float(self.model(np.array([self.buffer], np.float32))[0, -1])
        low, high = self.d["output"]["limits"]
        small = not math.isfinite(output) or abs(output) < s["deadband"]
        share = 0.0 if small else max(low, min(output, high))
        action = self.clamp(self.clamp(-net, soe) + 2 * b["power"] * share, soe)
        grid = net + action + b["standby"]
        saved = self.bill(net, prices[0]) - self.bill(grid, prices[0])
        self.to_go -= saved / (b["capacity"] * s["price_mean"])
        self.past.append(net)
        self.before = action
        return action


def test_the_document_alone_is_enough():
    document = json.loads(json.dumps(CONTRACT.document()))
    seen, twins = [], []
    more = {"charge": 0.9, "discharge": 0.95, "standby": 0.05, "feed_in": 0.1}
    controller = Controller(scripted(seen), Contract.of(document), capacity=6, power=2, **more)
    twin = Twin(document, scripted(twins), {"capacity": 6.0, "power": 2.0, **more})
    rng, soe = np.random.default_rng(0), 3.0
    for i in range(10 * 24):
        net, prices, time = float(rng.normal(0, 2)), rng.uniform(-0.1, 1, 6), i % 24 / 24
        action = controller.step(net=net, soe=soe, prices=prices, time=time)
        assert twin.step(net, soe, prices.tolist(), time) == pytest.approx(action, abs=1e-9)
        soe += action * 0.9 if action > 0 else action / 0.95
        soe = min(max(soe, 0.0), 6.0)
    assert np.array(seen) == pytest.approx(np.array(twins), abs=1e-6)
    assert controller.fallbacks == 10 * 24 // 7
    places = sorted(
        field["start"] + i for field in document["layout"] for i in range(field["width"])
    )
    assert places == list(range(document["buffer"]["features"]))


def test_a_contract_comes_back_from_json_and_from_arrays():
    document = json.loads(json.dumps(CONTRACT.document()))
    assert Contract.of(document) == CONTRACT
    arrays = {name: np.asarray(value) for name, value in CONTRACT.plain().items()}
    assert Contract.of(arrays) == CONTRACT


@pytest.mark.parametrize("part", ["version", "layout"])
def test_a_contract_of_other_code_is_refused(part):
    document = CONTRACT.document()
    other = {"version": 2, "layout": [*document["layout"][:-1]]}
    with pytest.raises(ValueError, match="another version"):
        Contract.of({**document, part: other[part]})
