"""Before anything is trained: can the student fit the microcontroller at all?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from edgekd.calls import invoke
from edgekd.errors import BudgetError
from edgekd.events import Emit
from edgekd.graph.least import least
from edgekd.spec import Input, Network, rebuild

_REMEDIES = {
    "flash": "a narrower or shallower student, or a target with more flash",
    "RAM": "a shorter window, a smaller picture or fewer channels, or a target with more RAM",
}


def fits(
    spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, emit: Emit
) -> dict[str, Any]:
    """Hold the least that the untrained student takes in 8 bits to the budget of the target.

    Args:
        spec: ``network``, ``input``, ``seed``, ``base``; ``target`` (its name), ``flash_kib`` and
            ``ram_kib``.
        inputs: Nothing.
        out: Gets nothing.
        emit: Progress.

    Returns:
        ``flash_bytes`` and ``ram_bytes``, lower bounds both, and for each the ``layer`` that needs
        most.

    Raises:
        BudgetError: More than the target has; names layer, size and remedy.
    """
    del inputs, out, emit
    network = rebuild(Network, spec["network"])
    torch.manual_seed(spec["seed"])
    model = invoke(network.build, Path(spec["base"]))
    contract = network.input or rebuild(Input, spec["input"])
    found = least(model, contract.shape)
    facts: dict[str, Any] = {}
    for name, key, used, rows in (
        ("flash", "flash", found.flash, found.weights),
        ("RAM", "ram", found.ram, found.working),
    ):
        layer, most = max(rows.items(), key=lambda row: row[1], default=("", 0))
        facts[f"{key}_bytes"], facts[f"{key}_layer"] = used, layer
        allowed = int(1024 * spec[f"{key}_kib"])
        if used > allowed:
            takes = f"at least {used:,} bytes of {name}, target {spec['target']} has {allowed:,}"
            raise BudgetError(
                f"in 8 bits all weights of the student take {takes}; most of it layer {layer!r}:"
                f" {most:,}"
                if name == "flash"
                else f"in 8 bits layer {layer!r}, its input and its output take {takes}",
                at=f"targets/{spec['target']}.yaml: mcu.{key}_kib",
                hint=_REMEDIES[name],
            )
    return facts
