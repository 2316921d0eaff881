"""arXiv 2603.26249: Decision Transformers for home batteries, on its environment and test month.

    python benchmarks/papers.py decision_transformer --data ausgrid.npz

The file holds Ausgrid homes (``NAME_load``, ``NAME_pv`` in kWh per half hour from 2010-07-01) and
``price``: SMARD's day-ahead prices of 2015-07 to 2018-06 divided by 100, side by side with them.
Rules, planners and the optimum are measured per home; what the paper reports is the mean over its
own 20 homes and is quoted as such. Its sizes are counted from its architecture.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.data.battery.load import load_npz
from edgekd.tasks.battery.plan import (
    Planner,
    Policy,
    clairvoyant,
    idle_cost,
    optimum,
    price_quantile,
    self_consumption,
    simulate,
)
from edgekd.tasks.battery.worlds import Place, Setup, capacities, world_of

SIZED, FIRST, STEPS = 49_824, 51_216, 1_344
"""Steps that size the batteries; the first step of the test month; its length (28 days)."""
SETUP = Setup(capacity=0, power=0, efficiency=1.0, feed_in=0.1, horizon=24)
END = 0.3
"""Value of stored energy at the planners' horizon, EUR per kWh."""
REPORTED = {
    "no battery": 220.25,
    "DDPG (source of its training data)": 202.43,
    "Decision Transformer, Medium (teacher)": 201.30,
    "distilled, Small": 200.28,
    "distilled, Tiny": 200.70,
    "optimum (MILP)": 168.08,
}
"""EUR per home in 28 days, mean over its 20 homes, read from summaries of the paper."""
SIZES = {"Tiny": (64, 1), "Small": (128, 3), "Medium": (256, 6)}
STATE, HIDDEN, EPISODE, WINDOW = 51, 2048, 1344, 96


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is asked."""
    parser.add_argument("--data", required=True, type=Path, help=".npz of Ausgrid homes and price")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")


def run(asked: argparse.Namespace) -> None:
    """Measure every home, print all beside the paper."""
    measured = measure(asked.data)
    print(text(measured))
    if asked.out is not None:
        asked.out.write_text(json.dumps({"reported": REPORTED, **measured}, indent=1) + "\n")


def measure(path: Path) -> dict[str, Any]:
    """Cost of each home in the test month under everything that is no network."""
    homes = load_npz(path)
    sizes = capacities(homes, SETUP, steps=SIZED)
    places = [Place(home, FIRST) for home in range(len(homes.names))]
    world = world_of(homes, SETUP, places, STEPS, capacity=sizes)
    end = np.full(world.homes, END)

    def cost(policy: Policy) -> NDArray[np.float64]:
        total: NDArray[np.float64] = simulate(policy, world)["cost"].sum(1)
        return total

    found = {
        "no battery": idle_cost(world).sum(1),
        "self-consumption": cost(self_consumption(world)),
        "price-aware": cost(price_quantile(world, SETUP.horizon)),
        "MPC mean7": cost(Planner(world, SETUP.horizon, end)),
        "MPC perfect 12 h": cost(Planner(clairvoyant(world), SETUP.horizon, end)),
        "optimum": np.array([row["cost"] for row in optimum(world)]),
    }
    return {
        "homes": list(homes.names),
        "capacity_kwh": sizes.tolist(),
        "cost": {name: [round(float(v), 3) for v in values] for name, values in found.items()},
        "sizes": {name: counted(*size) for name, size in SIZES.items()},
    }


def counted(width: int, depth: int) -> dict[str, float]:
    """Parameters of the paper's network, and the memory that torchinfo estimates for it.

    The estimate is the weights without those of the attention, which torchinfo passes over, and
    twice the outputs of all other layers, in float32, at one window of 96 steps, and the inputs.
    """
    attention = 2 * (4 * width * width + 4 * width)
    feed = 2 * width * HIDDEN + HIDDEN + width
    embedding = EPISODE * width + 2 * 2 * width + (STATE + 1) * width + 2 * width
    params = depth * (attention + feed + 6 * width) + embedding + width + 1
    tokens = 3 * WINDOW
    outputs = depth * tokens * (HIDDEN + 4 * width) + 4 * WINDOW * width + tokens * width + WINDOW
    inputs = 4 * WINDOW * (STATE + 2) + 8 * WINDOW
    bytes_ = 4 * (params - depth * attention) + 8 * outputs + inputs
    return {"params": params, "torchinfo_mb": bytes_ / 1e6}


def text(measured: dict[str, Any]) -> str:
    """Write the table: homes down, controllers across; then the paper's means and sizes."""
    costs = measured["cost"]
    head = ["home", "kWh", *costs]
    rows = [
        [name, f"{size:g}", *(f"{values[i]:.3f}" for values in costs.values())]
        for i, (name, size) in enumerate(
            zip(measured["homes"], measured["capacity_kwh"], strict=True)
        )
    ]
    means = {name: float(np.mean(values)) for name, values in costs.items()}
    rows.append(["mean", "", *(f"{value:.2f}" for value in means.values())])
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = ["measured here, EUR per home in 28 days (May and June 2013), 12 h horizon", ""]
    for row in [head, *rows]:
        lines.append("  ".join(f"{c:>{w}}" for c, w in zip(row, widths, strict=True)))
    possible = means["no battery"] - means["optimum"]
    shares = (
        f"{name} {(means['no battery'] - value) / possible:.3f}"
        for name, value in means.items()
        if name not in ("no battery", "optimum")
    )
    lines += ["", f"share of the possible saving: {', '.join(shares)}", ""]
    lines += ["reported by arXiv 2603.26249, mean over its own 20 homes (another home set):", ""]
    lines += [f"  {name}: {value:.2f} EUR" for name, value in REPORTED.items()]
    whole = measured["sizes"]["Medium"]
    lines += [
        "",
        "sizes counted from its architecture (reported: -96 % / -90 %, -78 % / -64 %):",
        "",
    ]
    for name, size in measured["sizes"].items():
        less = [100 * (size[k] / whole[k] - 1) for k in ("params", "torchinfo_mb")]
        lines.append(
            f"  {name}: {size['params']:,} parameters ({less[0]:+.1f} %),"
            f" {size['torchinfo_mb']:.2f} MB by torchinfo's estimate ({less[1]:+.1f} %)"
        )
    return "\n".join(lines)
