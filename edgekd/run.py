"""Walk a plan: take finished steps from the store, run the others."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekd.calls import resolve
from edgekd.events import Emit, Event
from edgekd.spec import Call, Recipe
from edgekd.steps import Keys, Step, base_of, teachers
from edgekd.store import Entry, Store


@dataclass
class Walk:
    """A run in progress.

    Attributes:
        recipe: What is compressed.
        store: Where results are.
        emit: Progress.
        device: What trains: ``auto``, ``cpu``, ``cuda``, ``mps``.
        on: Where steps that belong to a device run.
        done: Finished steps by name.
    """

    recipe: Recipe
    store: Store
    emit: Emit
    device: str = "cpu"
    done: dict[str, Entry] = field(default_factory=dict)
    on: str = "local"

    def __post_init__(self) -> None:
        self.keys = Keys(self.recipe, self.store.root)
        self._steps: dict[str, Step] = {}
        self._whole: set[str] = set()
        self._others: dict[str, Walk] = {}

    def step(self, step: Step) -> Entry:
        """Finish one step whose inputs are finished."""
        key = self.keys.add(step)
        self._steps[step.name] = step
        entry = self.store.get(key, whole=False)
        if entry is not None:
            self.emit(Event("cached", step.name))
        else:
            for name in step.inputs.values():
                self.whole(name)
            self.emit(Event("start", step.name))
            entry = self.store.put(key, self.keys.made_of[step.name], self._work(step), self.emit)
            self.keys.save()
            self.emit(Event("end", step.name, data={"seconds": entry.seconds}))
            self._whole.add(step.name)
        self.done[step.name] = entry
        return entry

    def adopt(self, part: str, other: Walk) -> None:
        """Make the finished steps of a part's recipe inputs here, each as ``PART/step``."""
        self._others[part] = other
        for name, entry in other.done.items():
            self.done[f"{part}/{name}"] = entry
            self.keys.of[f"{part}/{name}"] = other.keys.of[name]

    def has(self, step: Step) -> bool:
        """Tell whether this very step is finished: targets may ask otherwise by the same name."""
        before = self.keys.of.get(step.name)
        return self.keys.add(step) == before and step.name in self.done

    def whole(self, name: str) -> Entry:
        """Return a finished step whose every byte was checked; a damaged one is made again."""
        part, _, rest = name.partition("/")
        if part in self._others:
            self.done[name] = self._others[part].whole(rest)
        elif name not in self._whole:
            if self.store.get(self.keys.of[name]) is None:
                self.emit(Event("warning", name, "damaged in the store; it is made again"))
                self.step(self._steps[name])
            self._whole.add(name)
        return self.done[name]

    def _work(self, step: Step) -> Any:
        inputs = {name: self.done[other].path for name, other in step.inputs.items()}
        place = {
            "base": str(base_of(self.recipe)),
            "device": self.device,
            "step": step.name,
            "on": "local" if step.there is None else self.on,
            "threads": os.cpu_count() or 1,
        }
        spec = dict(step.spec) | place
        theirs = teachers(self.recipe).get(step.name)
        if theirs is not None and theirs.weights is not None:
            spec["network"] = dict(spec["network"]) | {"weights": theirs.weights}

        def work(out: Path) -> Mapping[str, Any]:
            function = resolve(Call(step.stage), base_of(self.recipe))
            facts: Mapping[str, Any] = function(spec, inputs, out, self.emit)
            return facts

        return work
