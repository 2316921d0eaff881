"""A home battery: a distilled Decision Transformer decides when to charge, judged by the bill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from edgekd import Call, Input, Network, Objective, Quantize, Recipe, Term, Train
from edgekd.errors import RecipeError

MODELS = "edgekd.models.decision_transformer:"
REGRET = "edgekd.tasks.battery.regret:regret"
ANSWERS = 8
"""Newest steps that a training window has labels for."""
# student → (steps it sees, width, layers, heads)
STUDENTS = {"mcu": (8, 32, 1, 2), "pi": (16, 64, 2, 2)}
# preset → (student's epochs, its rollouts, teacher's epochs, teacher's sizes as above)
PRESETS = {
    "embedded": (12, 4, 3, (16, 128, 3, 4)),
    "smoke": (12, 2, 6, (8, 32, 1, 2)),
    "paper": (100, 0, 100, (96, 256, 6, 2)),
}
PAPER_STUDENTS = {"mcu": (96, 64, 1, 1), "pi": (96, 128, 3, 1)}
PAPER_HIDDEN = 2048


def recipe(
    *,
    preset: Literal["embedded", "smoke", "paper"] = "embedded",
    data: str = "embedded",
    prices: str = "",
    price_scale: float = 1.0,
    price_add: float = 0.0,
    align: Literal["time", "position"] = "time",
    homes: tuple[str, ...] = (),
    capacity: float = -1.0,
    power: float = -1.0,
    efficiency: float = 0.9,
    standby: float = 0.0,
    feed_in: float = 0.05,
    horizon: int = 24,
    forecast: Literal["mean7", "perfect", "none"] = "mean7",
    expert: Literal["perfect", "scenarios", "mean7"] = "perfect",
    target: float = 0.0,
    student: Literal["mcu", "pi"] = "mcu",
    teacher: str = "train",
    learn: Literal["auto", "cost", "action"] = "auto",
    demonstrations: str = "",
    objective: Literal["none", "kd", "kd+label"] = "kd+label",
    distill: Literal["if-better", "always"] = "if-better",
    alpha: float = 0.5,
    epochs: int = 0,
    rounds: int = -1,
    baselines: bool = True,
    split: int = 0,
    seed: int = 0,
    prefix: str = "",
) -> Recipe:
    """Distil a controller for a home battery that a meter or a microcontroller can run.

    Args:
        preset: ``embedded`` trains on the homes that ship with edgekd; ``smoke`` is a fast check;
            ``paper`` has the sizes of arXiv 2603.26249 (96 steps, feed-forward 2048; a GPU is
            wanted; where the paper says eight layers and its sizes six, six).
        data: ``embedded``; a folder of Ausgrid's yearly files; a CSV or a folder of CSVs; an .npz.
        prices: Price file of your own data: SMARD, AEMO, or columns timestamp and price.
        price_scale: Factor on those prices.
        price_add: Money per kWh added to them.
        align: ``time`` lays prices under the load by the clock, ``position`` first on first.
        homes: Which homes; all by default.
        capacity: Of the battery, kWh; −1 for 6.4 with the embedded homes, else 0: each home gets
            the surplus of its mean day.
        power: kW; −1 for 5 with the embedded homes, else 0: a quarter of the capacity.
        efficiency: Of a round trip.
        standby: kW that the inverter takes.
        feed_in: Money per kWh exported.
        horizon: Steps whose prices are known and whose net load is forecast.
        forecast: What a controller knows of the net load to come: the mean of the same step of
            the last seven days, the truth (as in the paper), or nothing.
        expert: Whose plan is taught: one that knows the future of the training homes (a network
            that does not know it learns the middle of what turned out best), the last seven days
            as seven possible futures, or their mean.
        target: Return that is asked for each day, in units of capacity times mean price; 0 for
            more than the expert brings on most days. Ask for less and the battery does less.
        student: ``mcu`` is d32, 1 layer, 8 steps; ``pi`` is d64, 2 layers, 16 steps.
        teacher: ``train``, or a state dict (.pt) of the default teacher.
        learn: What the expert teaches: the ``cost`` of every action, so that the network learns
            what is cheapest over the futures that look alike to it; or its ``action`` alone.
            ``auto`` is cost, but action with demonstrations, with objective=kd, and in the smoke
            preset (trained that briefly on costs, 8 and 16 bits lost more than 1 %).
        demonstrations: Minari dataset (HDF5) to learn from in place of the expert's trajectories,
            as ``edgekd data export`` writes one.
        objective: The student learns from labels alone, the teacher alone, or both.
        distill: ``if-better`` ships the control where the teacher is no better on validation.
        alpha: Share of the teacher in kd+label.
        epochs: Passes over the demonstrations, for student and control alike; 0 for the preset's.
        rounds: How often the student acts and is corrected while it learns; −1 for the preset's.
        baselines: Train the plain network of the same information beside it.
        split: Which homes are tested: 0 to 3 test every home once.
        seed: Seed of everything random.
        prefix: Begins every C symbol of firmware; the recipe's name by default.

    Data:
        Nothing is needed for the embedded homes. Yours: load and generation of at least 113 days
        in 15, 30 or 60 minutes, and prices.
    """
    usual = PRESETS[preset]
    smoke, embedded = preset == "smoke", data == "embedded"
    epochs, rounds = epochs or usual[0], usual[1] if rounds < 0 else rounds
    mine = PAPER_STUDENTS[student] if preset == "paper" else STUDENTS[student]
    steps, features = max(mine[0], usual[3][0]), 5 + 2 * horizon
    hidden = PAPER_HIDDEN if preset == "paper" else 0
    files = [str((Path.cwd() / name).resolve()) for name in (data, prices) if name not in OWN]
    logs = str((Path.cwd() / demonstrations).resolve()) if demonstrations else ""
    if learn == "auto":
        learn = "action" if smoke or logs or objective == "kd" else "cost"
    if logs and learn == "cost":
        raise RecipeError(
            "demonstrations hold what was done, not what every action would have cost",
            at="setting: learn",
            hint="learn=action",
        )
    train = Train(
        epochs, batch=128, lr=3e-3, weight_decay=1e-4, rounds=rounds, on_policy=0.7, expert=True,
        rollout=Call("edgekd.tasks.battery.data:rollout") if rounds else None,
    )  # fmt: skip
    return Recipe(
        name="decision_transformer",
        data=Call(
            "edgekd.tasks.battery.data:battery",
            {
                "path": "embedded" if embedded else files[0],
                "prices": files[-1] if prices else "",
                "price_scale": price_scale,
                "price_add": price_add,
                "align": align,
                "homes": list(homes),
                "capacity": capacity if capacity >= 0 else 6.4 if embedded else 0.0,
                "power": power if power >= 0 else 5.0 if embedded else 0.0,
                "efficiency": efficiency,
                "standby": standby,
                "feed_in": feed_in,
                "horizon": horizon,
                "information": forecast,
                "window": steps,
                "supervised": min(ANSWERS, mine[0]),
                "expert": expert,
                "target": target,
                "split": split,
                "seed": seed,
                "few": smoke,
                "labels": learn,
                **({"demonstrations": logs} if logs else {}),
            },
        ),
        files=(*files, *([logs] if logs else [])),
        input=_input(mine[0], steps, features),
        output="logits",
        task=Call("edgekd.tasks.battery.task:closed_loop"),
        references=Call("edgekd.tasks.battery.task:references"),
        response=Call("edgekd.tasks.battery.task:response"),
        time_teacher=True,
        teacher=_teacher(teacher, usual, train, steps, features, hidden),
        student=_network(mine, features, hidden, "student"),
        train=train,
        objective=Objective(objective, _terms(objective, alpha, learn)),
        baselines=_baselines(train, features) if baselines and not smoke else (),
        quantize=Quantize(samples=1024, candidates=2) if smoke else Quantize(samples=512),
        seed=seed,
        distill=distill,
    )


OWN = ("embedded", "")


def _input(steps: int, available: int, features: int) -> Input:
    """The newest ``steps`` of the windows that the data gives."""
    newest = None if steps == available else tuple(range(available - steps, available))
    return Input((steps, features), channels=newest, name="window")


def _network(
    size: tuple[int, int, int, int], features: int, hidden: int, kind: str, **more: Any
) -> Network:
    steps, width, depth, heads = size
    args = {
        "features": features, "window": steps, "width": width, "depth": depth, "heads": heads,
        "hidden": hidden, "answers": min(ANSWERS, steps),
    }  # fmt: skip
    label = f"Decision Transformer d{width} L{depth} K{steps}"
    return Network(Call(MODELS + "decision_transformer", args), label=label, **more)


def _teacher(
    teacher: str, usual: Any, train: Train, steps: int, features: int, hidden: int
) -> Network:
    size = usual[3]
    weights = None if teacher == "train" else str((Path.cwd() / teacher).resolve())
    own = replace(
        train, epochs=usual[2], batch=64, lr=1e-3, rounds=min(train.rounds, usual[2] - 1),
        rollout=train.rollout if usual[2] > 1 else None,
    )  # fmt: skip
    return _network(
        size, features, hidden, "teacher", weights=weights, train=own,
        input=_input(size[0], steps, features),
    )  # fmt: skip


def _terms(objective: str, alpha: float, learn: str) -> tuple[Term, ...]:
    """Mostly absolute error, the middle of the expert's answers; or the money that is lost."""
    share = {"none": 0.0, "kd": 1.0, "kd+label": alpha}[objective]
    found: list[Term] = []
    if learn == "cost" and share == 1:
        raise RecipeError(
            "learn='cost' wants a term of the labels: the control learns from nothing else",
            at="setting: objective",
            hint="objective='kd+label' or 'none', or learn='action'",
        )
    if share < 1 and learn == "cost":
        found.append(Term("label", REGRET, weight=1 - share))
    elif share < 1:
        found.append(Term("label", "smooth_l1", weight=1 - share, args={"beta": 0.02}))
    if share > 0:
        found.append(Term("logits", "smooth_l1", weight=share, args={"beta": 0.02}))
    return tuple(found)


def _baselines(train: Train, features: int) -> tuple[Network, ...]:
    args = {"features": features, "width": 64, "answers": ANSWERS}
    return (Network(Call(MODELS + "policy_mlp", args), train=train, label="MLP d64, 1 step"),)
