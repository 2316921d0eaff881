"""Both stages as one: what they decide together, and whether that is what torch would decide.

Every cascade here runs through the driver that ships, on whole flights: each stored sample is
repeated for the seconds that it is the mean of, which the driver pools back to the same value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.artefact import Artefact, Running
from edgekd.errors import DataError
from edgekd.events import Emit, silent
from edgekd.tasks.faults.cascade import SECONDS, Cascade, Diagnosis, Stage
from edgekd.tasks.faults.metrics import clustered, macro_f1

__all__ = ["agreement", "bundled", "judge", "replay", "running", "score"]

BATCH = 96
GOLDEN = 16
"""Flights that ship beside the bundle with what the cascade makes of them."""
CHANCES = {"fp32": 1e-3, "bf16": 0.02}
"""By how much a chance may differ on another machine; 0.05 for what computes in integers."""
CALLED = {
    "shipped": "what ships",
    "fp32": "fp32 artefacts",
    "distill": "students in torch",
    "teacher": "teachers in torch",
}

State = Mapping[str, NDArray[Any]]
Ready = tuple[Artefact, State]


def judge(
    networks: Mapping[str, Sequence[Ready]],
    data: Any,
    *,
    options: Mapping[str, Any],
    on: str = "local",
    by_proxy: bool = True,
    emit: Emit = silent,
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Diagnose the test flights with every pair of networks.

    Args:
        networks: Role (row of `CALLED`) → stage 1 and stage 2, each with what ships beside it.
        data: Of stage 1; its flights know their faults.
        options: Load options of torch networks.
        on: Where what ships runs.
        by_proxy: Run it in its proxy, where it has one.
        emit: Progress.

    Returns:
        ``flights``; ``rows``: role → metrics, with intervals over airframes, and ``per fault``;
        ``share``: role → of the flights that reach stage 2; ``agreement``: role → of the
        artefacts with the students. And the golden arrays: flights, and what the cascade that
        ships makes of them.

    Raises:
        DataError: The flights do not know their faults.
    """
    test = data.test
    if test.kinds is None:
        raise DataError("the flights do not know their faults", at="split test")
    found: dict[str, Diagnosis] = {}
    for role, (first, second) in networks.items():
        torch = first[0].runtime == "torch"
        with running(
            first, second, {} if not torch else options, "local" if torch else on, by_proxy
        ) as cascade:
            found[role] = diagnosed(cascade, test)
    limit = float(networks["shipped"][0][1]["threshold"][0])
    rows = {role: score(one, test) for role, one in found.items()}
    facts = {
        "driver": "cascade",
        "flights": len(test),
        "threshold": limit,
        "called": {role: CALLED[role] for role in rows},
        "share": {role: row.pop("share") for role, row in rows.items()},
        "per fault": {role: row.pop("per fault") for role, row in rows.items()},
        "rows": rows,
        "agreement": {
            role: agreement(found[role], found["distill"], limit)
            for role in ("shipped", "fp32")
            if role in found
        },
        "tolerance": max(CHANCES.get(one[0].precision, 0.05) for one in networks["shipped"]),
    }
    return facts, _golden(found["shipped"], test)


def diagnosed(cascade: Cascade, test: Any) -> Diagnosis:
    """Run a cascade over a split."""
    parts = [
        cascade(list(_seconds(test.raw(range(at, min(at + BATCH, len(test)))))))
        for at in range(0, len(test), BATCH)
    ]

    def all_of(name: str) -> Any:
        return np.concatenate([getattr(part, name) for part in parts])

    return Diagnosis(
        all_of("chance"), all_of("flagged"), all_of("fault"), all_of("shares"), parts[0].faults
    )


def _seconds(raw: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pooled flights at 1 Hz again: (flights, channels, seconds)."""
    return np.repeat(raw, SECONDS // raw.shape[-1], axis=-1)


@contextmanager
def running(
    first: Ready,
    second: Ready,
    options: Mapping[str, Any],
    on: str = "local",
    by_proxy: bool = True,
) -> Iterator[Cascade]:
    """Load both networks, each in its own process, behind the driver."""
    find, name = (Stage.of(dict(one.input), dict(state)) for one, state in (first, second))
    finding, naming = (
        Running(one, options=options, on=on, by_proxy=by_proxy) for one, _ in (first, second)
    )
    with finding as finder, naming as namer:

        def run(network: Running) -> Any:
            fed = str(network.artefact.input["name"])
            return lambda x: next(iter(network.agent.evaluate({fed: x}, 64).outputs.values()))

        yield Cascade(find, name, run(finder), run(namer))


def score(found: Diagnosis, test: Any) -> dict[str, Any]:
    """What a cascade makes of the flights, with intervals over airframes where they are known."""
    truth, classes = test.kinds, len(test.faults) + 1
    groups = np.arange(len(test)) if test.groups is None else test.groups
    named, ill = found.fault + 1, truth > 0
    return {
        "share": clustered(found.flagged.astype(np.float64), groups),
        f"accuracy, {classes} classes": clustered((named == truth).astype(np.float64), groups),
        f"macro F1, {classes} classes": clustered(macro_f1(named, truth, classes), groups),
        "recall": clustered(found.flagged[ill].astype(np.float64), groups[ill]),
        "false alarm share": clustered(found.flagged[~ill].astype(np.float64), groups[~ill]),
        "per fault": {
            name: {
                "flights": int((truth == kind).sum()),
                "flagged": float(found.flagged[truth == kind].mean()),
                "named": float((named == truth)[truth == kind].mean()),
            }
            for kind, name in enumerate(test.faults, 1)
            if (truth == kind).any()
        },
    }


def agreement(one: Diagnosis, two: Diagnosis, limit: float) -> dict[str, float]:
    """How often two cascades decide alike, and how near the line those flights are that differ.

    Args:
        one: What ships.
        two: The same networks in torch.
        limit: The threshold of both.
    """
    apart, both = one.flagged != two.flagged, one.flagged & two.flagged
    near = np.abs(two.chance - limit)[apart]
    same = one.fault == two.fault
    return {
        "same decision": float(same.mean()),
        "same flag": float((~apart).mean()),
        "same name where both flag": float(same[both].mean()) if both.any() else 1.0,
        "largest difference of the chance": float(np.abs(one.chance - two.chance).max()),
        "farthest from the threshold where flags differ": float(near.max(initial=0.0)),
    }


def _golden(found: Diagnosis, test: Any) -> dict[str, NDArray[Any]]:
    """Flights spread over the chances of a fault, and what the cascade makes of them."""
    order = np.argsort(found.chance, kind="stable")
    picked = np.unique(order[np.linspace(0, len(order) - 1, GOLDEN).astype(np.int64)])
    return {
        "flights": test.raw(picked).astype(np.float16),
        "chance": found.chance[picked],
        "flagged": found.flagged[picked],
        "fault": found.fault[picked],
        "shares": found.shares[picked],
    }


def bundled(folder: Path, manifest: Mapping[str, Any]) -> Ready:
    """A bundle's artefact, and what ships beside it."""
    made = manifest["artefact"]
    artefact = Artefact(
        folder,
        made["main"],
        made["runtime"],
        made["options"],
        manifest["io"]["inputs"][0],
        made["precision"],
        tuple(made["files"]),
        made.get("proxy", {}),
    )
    with np.load(folder / manifest["state"]["file"]) as state:
        return artefact, {name: state[name] for name in state.files}


def replay(
    first: Ready, second: Ready, golden: State, tolerance: float, on: str = "local"
) -> tuple[dict[str, Any], list[str]]:
    """Diagnose the golden flights again.

    Args:
        first: Stage 1.
        second: Stage 2.
        golden: See `judge`.
        tolerance: By which a chance may differ; within it of the threshold, or of the second
            likeliest fault, a decision may.
        on: Where they run.

    Returns:
        What was measured, and what is wrong.
    """
    with running(first, second, {}, on) as cascade:
        limit = float(first[1]["threshold"][0])
        found = cascade(list(_seconds(golden["flights"].astype(np.float32))))
    apart = np.abs(found.chance - golden["chance"])
    flips = found.flagged != golden["flagged"]
    named = found.flagged & golden["flagged"] & (found.fault != golden["fault"])
    clear = np.abs(golden["chance"] - limit) > tolerance
    wrong = [
        f"flight {i}: chance {found.chance[i]:.4f}, {golden['chance'][i]:.4f} recorded"
        for i in np.flatnonzero(~(apart <= tolerance))
    ]
    wrong += [
        f"flight {i}: {'not ' * (not found.flagged[i])}flagged, recorded otherwise"
        for i in np.flatnonzero(flips & clear)
    ]
    for i in np.flatnonzero(named):
        best = np.sort(golden["shares"][i])[-2:]
        if best[1] - best[0] > 2 * tolerance:
            here, there = (found.faults[int(f[i])] for f in (found.fault, golden["fault"]))
            wrong.append(f"flight {i}: {here}, recorded {there}")
    facts = {
        "n": len(apart),
        "flagged": int(found.flagged.sum()),
        "max_abs": float(apart.max()),
        "same": int((found.fault == golden["fault"]).sum()),
    }
    return facts, wrong
