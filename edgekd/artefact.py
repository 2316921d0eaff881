"""Something that runs: a folder with ``artefact.json`` beside the files of the network.

Torch networks, ONNX files and OpenVINO IR all look the same from here on: the agent loads the
main file in its runtime, and scoring, parity and timing know nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.device.link import Agent, agent_on
from edgekd.inputs import prepare
from edgekd.spec import plain

FILE = "artefact.json"


@dataclass(frozen=True)
class Artefact:
    """What to load and how to feed it.

    Attributes:
        folder: Where the files lie.
        main: File to load, relative to the folder.
        runtime: Runtime of the agent.
        options: Load options of that runtime (precision, threads …).
        input: Tensor contract (`edgekd.spec.Input`, plain).
        precision: What the network computes in, as the report names it.
        files: All files, relative.
        proxy: ``runtime`` and ``options`` of what stands in for a runtime that only the device
            has; empty when the artefact's own runtime runs here.
    """

    folder: Path
    main: str
    runtime: str
    options: Mapping[str, Any]
    input: Mapping[str, Any]
    precision: str
    files: tuple[str, ...] = ()
    proxy: Mapping[str, Any] = field(default_factory=dict)

    def save(self) -> None:
        """Write ``artefact.json``."""
        value = {
            "main": self.main,
            "runtime": self.runtime,
            "options": plain(self.options),
            "input": plain(self.input),
            "precision": self.precision,
            "files": list(self.files or (self.main,)),
        }
        if self.proxy:
            value["proxy"] = plain(self.proxy)
        (self.folder / FILE).write_text(json.dumps(value, indent=1, sort_keys=True))

    @property
    def runs_here(self) -> tuple[str, Mapping[str, Any]]:
        """Runtime and options to run it with on this machine."""
        if self.proxy:
            return self.proxy["runtime"], self.proxy["options"]
        return self.runtime, self.options

    @property
    def bytes(self) -> int:
        """Size of the network's files."""
        return sum((self.folder / name).stat().st_size for name in self.files)


def open_artefact(folder: Path) -> Artefact:
    """Read ``artefact.json``."""
    value = json.loads((folder / FILE).read_text())
    files = tuple(value.pop("files"))
    return Artefact(folder, files=files, **value)


@dataclass
class Running(AbstractContextManager["Running"]):
    """An artefact loaded in its own process; callable on raw samples.

    Attributes:
        on: Device that it runs on; see `edgekd.device.reach`.
        by_proxy: Run it in its proxy, where it has one.
        ran_batch: Samples at a time in the last call: the model's own number where it has one.
    """

    artefact: Artefact
    threads: int = 1
    batch: int = 64
    options: Mapping[str, Any] = field(default_factory=dict)
    on: str = "local"
    by_proxy: bool = True
    ran_batch: int = 0

    def __enter__(self) -> Running:
        with ExitStack() as undo:
            self.agent: Agent = undo.enter_context(agent_on(self.on))
            runtime, own = self.artefact.runtime, self.artefact.options
            if self.by_proxy:
                runtime, own = self.artefact.runs_here
            options = {"threads": self.threads, **own, **self.options}
            main = self.artefact.folder / self.artefact.main
            self.loaded = self.agent.load(runtime, main, **options)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *details: Any) -> None:
        self._undo.__exit__(*details)

    def __call__(self, raw: NDArray[Any]) -> NDArray[Any]:
        """Run raw samples (batch, …) and return the first output (batch, …)."""
        done = self.agent.evaluate(self.feeds(raw), self.batch)
        self.ran_batch = done.batch
        return next(iter(done.outputs.values()))

    def drive(
        self, loop: str, arrays: Mapping[str, NDArray[Any]], *, extra_s: float = 0.0
    ) -> dict[str, NDArray[Any]]:
        """Run a closed loop of `edgekd.agent.loops` around it, where it runs.

        Args:
            loop: Which.
            arrays: What the loop starts from; it makes float samples, of which the network sees
                its ``channels``.
            extra_s: Seconds to wait, on top of the usual.
        """
        done = self.agent.drive(
            loop, arrays, input=str(self.artefact.input["name"]),
            channels=self.artefact.input.get("channels"), batch=self.batch, extra_s=extra_s,
        )  # fmt: skip
        self.ran_batch = done.batch
        return done.arrays

    def feeds(self, raw: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Raw samples → what the graph takes, by name."""
        return {str(self.artefact.input["name"]): prepare(np.asarray(raw), self.artefact.input)}
