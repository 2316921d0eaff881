"""All networks of a firmware bundle in one image, with the driver that asks one after the other."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.agent.runtimes.c import quantize
from edgekd.artefact import open_artefact
from edgekd.errors import BudgetError
from edgekd.events import Emit
from edgekd.firmware import cascade, cross
from edgekd.firmware.boards import board
from edgekd.firmware.cascade import Flights, Member
from edgekd.firmware.library import load
from edgekd.firmware.reference import run
from edgekd.tasks.faults.cascade import Stage
from edgekd.tasks.open import open_task

MODEL = "model"
"""Folder of a bundle that holds its library."""
GOLDEN = 6
"""Flights in the image at most: each brings its whole window."""
CLEAR = 1e-3
"""A golden flight's chance lies at least so far from the threshold, its fault from the next."""


def image(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, emit: Emit
) -> dict[str, Any]:
    """Write the driver of both stages in C, link both networks into one image and run it.

    Args:
        spec: ``parts`` (one folder), ``tasks`` (folder → task; the empty name for the recipe's
            own), ``mcu``, ``target`` (its name), ``base``.
        inputs: For the recipe ``chosen`` and ``distill``, for the part the same names behind
            ``PART/``; ``joint``: the golden flights.
        out: Gets the folder ``cascade``.
        emit: Progress.

    Returns:
        ``files``, and what `edgekd.firmware.cascade.measure` found; ``not_run`` with the reason
        where a tool is missing, or no driver is known.

    Raises:
        BudgetError: Both networks together take more than the target has.
        StageError: The self-test failed.
    """
    del emit
    first, second = "", f"{spec['parts'][0]}/"
    with tempfile.TemporaryDirectory(prefix="edgekd-firmware-") as name:
        root, core = Path(name), board(spec["mcu"]["core"])
        ready = {part: _placed(spec, inputs, part, root) for part in (first, second)}
        (one, find), (two, name_it) = ready[first], ready[second]
        why = cascade.fits_together(one, two)
        if why:
            return {"files": [], "not_run": why}
        with np.load(inputs["joint"] / "joint.npz", allow_pickle=False) as archive:
            golden = dict(archive)
        flights = _flights(root, one, find, two, name_it, golden)
        files = cascade.write(root, one, two, flights, core)
        shutil.copytree(root / cascade.FOLDER, out / cascade.FOLDER)
        lacking = cross.missing()
        if lacking:
            why = f"{' and '.join(lacking)} missing: {cross.INSTALL}"
            return {"files": files, "not_run": why}
        made = cascade.measure(root, one, two, flights, core)
    _hold(made, spec)
    return {"files": files, **made, "clock_mhz": spec["mcu"]["clock_mhz"]}


def _placed(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], part: str, root: Path
) -> tuple[Member, Stage]:
    """Lay a library at its place in the bundle, with the header of its stage."""
    shipped = inputs[f"{part}chosen"] / "shipped"
    shutil.copytree(shipped, root / part / MODEL)
    seen = open_artefact(shipped).input
    with np.load(inputs[f"{part}distill"] / "state.npz", allow_pickle=False) as archive:
        state = dict(archive)
    task = open_task(spec["tasks"][part.rstrip("/")], Path(spec["base"]))
    tell = getattr(task, "contract", None)
    document = dict(tell(state)) if tell is not None else {}
    card = json.loads((shipped / "firmware.json").read_text("utf-8"))
    member = Member(f"{part}{MODEL}", card, document, seen["channels"])
    cascade.equip(root, member)
    return member, Stage.of(dict(seen), state)


def _flights(
    root: Path, one: Member, find: Stage, two: Member, name: Stage, golden: Mapping[str, Any]
) -> Flights:
    """Golden flights of the bundle, spread over the chances, through the integer reference."""
    best = np.sort(np.nan_to_num(golden["shares"], nan=0.0), axis=1)[:, -2:]
    sure = np.abs(golden["chance"] - (find.threshold or 0.0)) > CLEAR
    sure &= ~golden["flagged"] | (best[:, 1] - best[:, 0] > CLEAR)
    (places,) = np.nonzero(sure)
    picked = places[np.linspace(0, len(places) - 1, min(GOLDEN, len(places))).astype(np.int64)]
    raw = golden["flights"][picked].astype(np.float32)
    stretch = int(one.document["seconds"]) // raw.shape[-1]
    seconds = list(np.repeat(raw, stretch, axis=-1))
    health = _integers(root, one, find.prepare(seconds))
    faults = _integers(root, two, name.prepare(seconds))
    chance = find.shares(_real(one, health))[:, 1]
    named = name.shares(_real(two, faults)).argmax(1)
    flagged = chance >= (find.threshold or 0.0)
    values = np.swapaxes(raw[:, list(find.chosen)], 1, 2)
    return Flights(values, health, faults, chance, np.where(flagged, named, -1))


def _integers(root: Path, member: Member, ready: Any) -> Any:
    """What the integer reference makes of prepared flights."""
    content = (root / member.place / "model.tflite").read_bytes()
    program = load(content, member.prefix).program
    codes = quantize(ready, member.card["inputs"][0])
    return np.concatenate([run(program, [codes[i : i + 1]])[0] for i in range(len(codes))])


def _real(member: Member, codes: Any) -> Any:
    row = member.card["outputs"][0]
    return row["scale"] * (codes.astype(np.float64) - row["zero_point"])


def _hold(made: Mapping[str, Any], spec: Mapping[str, Any]) -> None:
    """Refuse an image beyond the target's budget."""
    for what, used, key in (
        ("flash", made["flash_bytes"], "flash_kib"),
        ("RAM", made["ram_bytes"], "ram_kib"),
    ):
        allowed = int(1024 * spec["mcu"][key])
        if used > allowed:
            raise BudgetError(
                f"both networks and their driver take {used:,} bytes of {what}, target"
                f" {spec['target']} has {allowed:,}",
                at=f"targets/{spec['target']}.yaml: mcu.{key}",
                hint="a narrower student, a shorter window, or one of the stages (--set stage=1)",
            )
