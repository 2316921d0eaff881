"""Run the task on one network or artefact, in its own runtime and its own process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.artefact import Running, open_artefact
from edgekd.calls import invoke
from edgekd.events import Emit
from edgekd.inputs import save_arrays
from edgekd.spec import Call
from edgekd.tasks.open import open_task
from edgekd.tasks.reference import Reference

RAW = "nearest class mean on raw pixels"


def score(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, emit: Emit
) -> dict[str, Any]:
    """Score on one split.

    Args:
        spec: ``task``, ``data``, ``split``, ``base``.
        inputs: ``artefact``; ``state``: the folder with ``state.npz``, what ships beside it.
        out: Gets ``units.npz``: the metric per episode or sample, for paired differences.
        emit: Progress.

    Returns:
        The score's facts, and the ``batch`` that the network ran with.
    """
    base = Path(spec["base"])
    data, task = invoke(Call(**spec["data"]), base), open_task(spec["task"], base)
    state = dict(np.load(inputs["state"] / "state.npz"))
    artefact = open_artefact(inputs["artefact"])
    options = {"base": str(base), "threads": spec["threads"]} if artefact.runtime == "torch" else {}
    by_proxy = spec.get("by_proxy", True)
    with Running(artefact, options=options, on=spec["on"], by_proxy=by_proxy) as model:
        result = task.score(model, data, spec["split"], state, emit)
    save_arrays(out / "units.npz", result.units)
    return {**result.facts(), "batch": model.ran_batch}


def response(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, emit: Emit
) -> dict[str, Any]:
    """Ask one artefact for more and for less, on the test split.

    Args:
        spec: ``response``, ``data``, ``base``.
        inputs: ``artefact``; ``state``: what ships beside it.
        out: Gets nothing.
        emit: Progress.

    Returns:
        What the recipe's function says: see `edgekd.spec.Recipe.response`.
    """
    base = Path(spec["base"])
    data, state = invoke(Call(**spec["data"]), base), dict(np.load(inputs["state"] / "state.npz"))
    artefact = open_artefact(inputs["artefact"])
    with Running(artefact, on=spec["on"], by_proxy=spec["by_proxy"]) as model:
        ask = Call(**spec["response"])
        found: dict[str, Any] = invoke(ask, base, model=model, data=data, state=state, emit=emit)
    return found


def joint(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, emit: Emit
) -> dict[str, Any]:
    """Judge the recipe's network and its parts as one, on the test split.

    Args:
        spec: ``joint``, ``data``, ``parts`` (folders), ``base``.
        inputs: For the recipe ``chosen``, ``distill`` and ``teacher``, for each part the same
            names behind ``PART/``.
        out: Gets ``joint.npz``: the golden arrays.
        emit: Progress.

    Returns:
        What the recipe's function says: see `edgekd.spec.Recipe.joint`. It gets role
        (``shipped``, ``fp32`` where every network has such an artefact, ``distill``,
        ``teacher``) → [(artefact, state), …], the recipe's own network first.
    """
    base, whole = Path(spec["base"]), ["", *(f"{part}/" for part in spec["parts"])]

    def ready(folder: Path, state: Path) -> tuple[Any, dict[str, Any]]:
        return open_artefact(folder), dict(np.load(state / "state.npz"))

    networks = {
        "shipped": [
            ready(inputs[f"{part}chosen"] / "shipped", inputs[f"{part}distill"]) for part in whole
        ]
    }
    exact = [inputs[f"{part}chosen"] / "fp32" for part in whole]
    if all(place.is_dir() for place in exact):
        networks["fp32"] = [
            ready(place, inputs[f"{part}distill"]) for place, part in zip(exact, whole, strict=True)
        ]
    for role in ("distill", "teacher"):
        places = [inputs[f"{part}{role}"] for part in whole]
        networks[role] = [ready(place, place) for place in places]
    data = invoke(Call(**spec["data"]), base)
    facts, golden = invoke(
        Call(**spec["joint"]),
        base,
        networks=networks,
        data=data,
        options={"base": str(base), "threads": spec["threads"]},
        on=spec["on"],
        by_proxy=spec["by_proxy"],
        emit=emit,
    )
    save_arrays(out / "joint.npz", golden)
    return dict(facts)


def trivial(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, emit: Emit
) -> dict[str, Any]:
    """Score what no network at all would reach: the task's own trivial model, or raw samples.

    Args:
        spec: As `score`.
        inputs: None.
        out: Gets ``units.npz``.
        emit: Progress.

    Returns:
        The score's facts and ``label``, what the report calls it.
    """
    base = Path(spec["base"])
    data, task = invoke(Call(**spec["data"]), base), open_task(spec["task"], base)
    make = getattr(task, "trivial", None)
    label, model = (RAW, _flat) if make is None else make(data)
    state = task.fit(model, data)
    result = task.score(model, data, spec["split"], state, emit)
    save_arrays(out / "units.npz", result.units)
    return result.facts() | {"label": label}


def references(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, emit: Emit
) -> dict[str, Any]:
    """Score what is no network: rules, planners, bounds; and time those that decide.

    Args:
        spec: ``references``, ``data``, ``split``, ``base``.
        inputs: None.
        out: Gets ``units.npz``: arrays ``reference:metric``.
        emit: Progress.

    Returns:
        ``rows``: name, label, metrics, primary, what it must know, size of its code, latency.
    """
    base = Path(spec["base"])
    data = invoke(Call(**spec["data"]), base)
    found: list[Reference] = list(
        invoke(Call(**spec["references"]), base, data=data, split=spec["split"], emit=emit)
    )
    units = {f"{r.name}:{m}": v for r in found for m, v in r.score.units.items()}
    save_arrays(out / "units.npz", units)
    return {"rows": [one.facts() for one in found]}


def _flat(raw: Any) -> Any:
    return np.asarray(raw, dtype=np.float32).reshape(len(raw), -1) / 255
