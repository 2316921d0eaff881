"""Which sensors does `liteinception` need: information, gradients and gates, then what is lost.

    python -m benchmarks.fusion --out benchmarks/results/liteinception-fusion.json
    python -m benchmarks.fusion --compare          # and train the student on each selection

InceptionTime 3+1 with squeeze-and-excitation gates over all 23 sensors is trained for stage 1
(from the store, where it is there). Sensors that stand or fall together (`channels.GROUPS`) are
ranked on training flights by three scores: mutual information of window statistics with the
label, mean |gradient · input| of the loss, mean gate. How far the three agree is printed
(Spearman). Their mean rank fills 15 sensors. The last word has validation: the AUC that the
trained network loses where a group is its mean; a chosen group without a loss makes room for one
with. Intervals are clustered by airframe (Student's t), differences paired by flight.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgekd import steps
from edgekd.artefact import Running, open_artefact
from edgekd.backends.torch_eager import load_network
from edgekd.calls import invoke
from edgekd.data.flight.channels import CHANNELS, GROUPS, SELECTIONS
from edgekd.discover import load_recipe
from edgekd.events import Event
from edgekd.run import Walk
from edgekd.settings import parse_assignments
from edgekd.spec import Input, Network, Recipe, finite
from edgekd.store import Store
from edgekd.tasks.base import outputs_of
from edgekd.tasks.faults import metrics
from edgekd.tasks.faults.trees import WINDOWS, window_statistics

ROOM = 15
"""Sensors that the student sees."""
FLIGHTS = 1024
"""Training flights that gradients and gates are taken of."""
BINS = 8
BATCH = 64
Scores = dict[str, float]
PLACES = {group: [CHANNELS.index(name) for name in names] for group, names in GROUPS.items()}


def gated(settings: Mapping[str, Any]) -> Recipe:
    """The recipe whose student is InceptionTime with gates over all sensors."""
    recipe = load_recipe("liteinception", {**settings, "stage": 1, "channels": "all"})
    assert recipe.student.build is not None
    sizes = {n: v for n, v in recipe.student.build.args.items() if n in ("classes", "maps")}
    args = {**sizes, "channels": len(CHANNELS), "form": "teacher", "gate": True}
    build = replace(recipe.student.build, args=args)
    return replace(recipe, student=Network(build, label="InceptionTime 3+1, gated"))


def seeing(settings: Mapping[str, Any], names: Sequence[str]) -> Recipe:
    """The recipe whose student sees some sensors."""
    recipe = load_recipe("liteinception", {**settings, "stage": 1, "channels": "all"})
    seen = tuple(CHANNELS.index(name) for name in CHANNELS if name in names)
    assert recipe.student.build is not None
    shape = (len(seen), *recipe.input.shape[1:])
    build = replace(recipe.student.build, args={**recipe.student.build.args, "channels": len(seen)})
    return replace(
        recipe,
        input=Input(shape, channels=seen, name=recipe.input.name),
        student=replace(recipe.student, build=build),
    )


def trained(recipe: Recipe) -> Path:
    """Folder of the recipe's student, trained from labels alone."""
    walk = Walk(recipe, Store(), _say)
    walk.step(next(step for step in steps.shared(recipe) if step.name == "control"))
    return walk.whole("control").path


def information(values: NDArray[Any], labels: NDArray[np.int64]) -> float:
    """Mutual information of a statistic, in equally filled bins, with a class: nats.

    Less what chance gives on average, (bins − 1)(classes − 1) / 2n (Miller, 1955).
    """
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
    place, classes = np.searchsorted(edges, values), int(labels.max()) + 1
    counts = np.bincount(place * classes + labels, minlength=(len(edges) + 1) * classes)
    both = counts.reshape(-1, classes) / len(labels)
    apart = both.sum(1, keepdims=True) * both.sum(0, keepdims=True)
    there = both > 0
    found = float((both[there] * np.log(both[there] / apart[there])).sum())
    return found - (len(edges)) * (classes - 1) / (2 * len(labels))


def informations(x: NDArray[Any], labels: NDArray[np.int64]) -> Scores:
    """Group → mean over its sensors of what their best statistic tells.

    Args:
        x: (flights, 23, 1, length).
        labels: Of the flights.
    """
    table = window_statistics(x).reshape(len(x), 4, len(CHANNELS), WINDOWS)
    best = [
        max(information(table[:, s, c, w], labels) for s in range(4) for w in range(WINDOWS))
        for c in range(len(CHANNELS))
    ]
    return _by_group(best)


def sensitivities(network: Any, x: NDArray[np.float32], labels: NDArray[np.int64]) -> Scores:
    """Group → mean over its sensors of |gradient of the loss · input|."""
    total = np.zeros(len(CHANNELS))
    for start in range(0, len(x), BATCH):
        part = torch.from_numpy(x[start : start + BATCH]).requires_grad_()
        loss = torch.nn.functional.cross_entropy(
            network(part), torch.from_numpy(labels[start : start + BATCH]), reduction="sum"
        )
        (slope,) = torch.autograd.grad(loss, part)
        total += (slope * part).detach().abs().sum((0, 2, 3)).numpy()
    return _by_group((total / len(x)).tolist())


def gates(network: Any, x: NDArray[np.float32]) -> Scores:
    """Group → mean over its sensors, and over flights, of the gate."""
    with torch.inference_mode():
        values = [
            network.gate.values(torch.from_numpy(x[start : start + BATCH]))
            for start in range(0, len(x), BATCH)
        ]
    return _by_group(torch.cat(values).mean((0, 2, 3)).tolist())


def _by_group(values: Sequence[float]) -> Scores:
    return {g: float(np.mean([values[c] for c in places])) for g, places in PLACES.items()}


def ranks(scores: Scores) -> dict[str, int]:
    """Group → its rank, 1 for the largest score."""
    order = sorted(scores, key=lambda group: -scores[group])
    return {group: order.index(group) + 1 for group in scores}


def agreement(one: Scores, two: Scores) -> float:
    """Spearman's correlation of two rankings (no ties)."""
    a, b = ranks(one), ranks(two)
    apart = sum((a[group] - b[group]) ** 2 for group in a)
    return 1 - 6 * apart / (len(a) * (len(a) ** 2 - 1))


def fill(order: Sequence[str], room: int = ROOM) -> list[str]:
    """Groups in this order while they fit."""
    chosen: list[str] = []
    for group in order:
        if sum(len(GROUPS[g]) for g in (*chosen, group)) <= room:
            chosen.append(group)
    return chosen


def last_word(chosen: Sequence[str], loss: Scores, room: int = ROOM) -> list[str]:
    """Chosen groups without a loss on validation make room for the others with the largest."""
    stay = [group for group in chosen if loss[group] > 0]
    rest = sorted((g for g in loss if g not in stay), key=lambda group: -loss[group])
    return fill(
        [*stay, *(g for g in rest if loss[g] > 0), *(g for g in chosen if loss[g] <= 0)], room
    )


def losses(network: Any, part: Any) -> dict[str, dict[str, float]]:
    """Group → AUC that is lost where its sensors are their mean, paired by flight."""
    x = part.take(range(len(part)))
    whole = metrics.auc(_chance(network, x), part.labels)
    found = {}
    for group, places in PLACES.items():
        hidden = x.copy()
        hidden[:, places] = 0
        without = metrics.auc(_chance(network, hidden), part.labels)
        found[group] = metrics.clustered(whole - without, part.groups)
    return found


def _chance(network: Any, x: NDArray[np.float32]) -> NDArray[np.float64]:
    with torch.inference_mode():
        logits = [
            network(torch.from_numpy(x[start : start + BATCH])) for start in range(0, len(x), BATCH)
        ]
    chance: NDArray[np.float64] = torch.cat(logits).double().softmax(1)[:, 1].numpy()
    return chance


def judge(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Rank the groups, choose, and ask validation."""
    recipe = gated(settings)
    base = steps.base_of(recipe)
    data = invoke(recipe.data, base)
    network = load_network(trained(recipe), base)[0]
    places = np.random.default_rng(0).permutation(len(data.train))[:FLIGHTS]
    x, labels = data.train.take(places), data.train.labels[places]
    every = data.train.take(range(len(data.train)))
    scores = {
        "information": informations(every, data.train.labels),
        "gradient": sensitivities(network, x, labels),
        "gate": gates(network, x),
    }
    mean = {g: float(np.mean([ranks(s)[g] for s in scores.values()])) for g in GROUPS}
    first = ranks(scores["information"])
    order = sorted(GROUPS, key=lambda group: (mean[group], first[group]))
    lost = losses(network, data.val)
    fused = fill(order)
    final = last_word(fused, {group: row["value"] for group, row in lost.items()})
    names = {n for group in final for n in GROUPS[group]}
    val = metrics.auc(_chance(network, data.val.take(range(len(data.val)))), data.val.labels)
    return {
        "settings": dict(settings),
        "network": {"AUC on validation": metrics.clustered(val, data.val.groups)},
        "scores": scores,
        "agreement": {
            f"{a} and {b}": agreement(scores[a], scores[b]) for a, b in combinations(scores, 2)
        },
        "order": order,
        "mean rank": mean,
        "lost without": lost,
        "fused": fused,
        "after validation": final,
        "selection": [name for name in CHANNELS if name in names],
        "shared with": {
            name: len(names & set(SELECTIONS[name])) for name in ("paper15", "trees15")
        },
    }


def compare(settings: Mapping[str, Any], chosen: Sequence[str]) -> dict[str, Any]:
    """Train the student on each selection; AUC on validation, and differences to all sensors."""
    units: dict[str, NDArray[np.float64]] = {}
    groups = None
    for name, names in {**SELECTIONS, "fused": tuple(chosen)}.items():
        recipe = seeing(settings, names)
        base, folder = steps.base_of(recipe), trained(recipe)
        val = invoke(recipe.data, base).val
        with Running(open_artefact(folder), options={"base": str(base)}) as model:
            logits = outputs_of(model, val).astype(np.float64)
        units[name] = metrics.auc(logits[:, 1] - logits[:, 0], val.labels)
        groups = val.groups
    assert groups is not None
    return {
        name: {
            "AUC": metrics.clustered(values, groups),
            "AUC − all": metrics.clustered(values - units["all"], groups),
        }
        for name, values in units.items()
    }


def text(result: Mapping[str, Any]) -> str:
    """Write the result as Markdown."""
    scores = result["scores"]
    lines = [
        f"| sensors | {' | '.join(scores)} | mean rank | AUC lost without | fused | in the end |",
        f"| :--- |{' ---: |' * (len(scores) + 2)} :---: | :---: |",
    ]
    for group in result["order"]:
        cells = [f"{values[group]:.4f} ({ranks(values)[group]})" for values in scores.values()]
        marks = ["✓" if group in result[key] else "" for key in ("fused", "after validation")]
        ends = (f"{result['mean rank'][group]:.1f}", _cell(result["lost without"][group]), *marks)
        lines.append(f"| {group} | {' | '.join((*cells, *ends))} |")
    agreed = ", ".join(f"{pair} {value:+.2f}" for pair, value in result["agreement"].items())
    lines.append(f"\nSpearman: {agreed}. Selection: {', '.join(result['selection'])}.")
    if "compared" in result:
        lines += ["\n| student sees | AUC on validation | less all |", "| :--- | ---: | ---: |"]
        lines += [
            f"| {name} | {_cell(row['AUC'])} | {_cell(row['AUC − all'])} |"
            for name, row in result["compared"].items()
        ]
    return "\n".join(lines)


def _cell(row: Mapping[str, float]) -> str:
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _say(event: Event) -> None:
    if event.kind in ("start", "end", "warning"):
        print(f"  {event.step}: {event.kind} {event.text}".rstrip(), file=sys.stderr, flush=True)


def main() -> None:
    """Rank, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    settings = parse_assignments(tuple(asked.settings))
    result = judge(settings)
    if asked.compare:
        result["compared"] = compare(settings, result["selection"])
    result["command"] = " ".join(["python -m benchmarks.fusion", *sys.argv[1:]])
    if asked.out:
        asked.out.write_text(json.dumps(finite(result), indent=1) + "\n", encoding="utf-8")
    print(text(result))


if __name__ == "__main__":
    main()
