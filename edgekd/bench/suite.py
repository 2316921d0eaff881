"""A suite: which bundles a benchmark job measures, and how.

    name: nightly
    bundles: [../out/mobilevit-cpu]
    build:
      - recipe: mobilevit
        targets: [cpu, cpu-ort]
        settings: [{preset: smoke}, {preset: smoke, size: 96}]
    measure: {processes: 11}

Bundles are taken as they are; each recipe × target × settings is built, or read from the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from edgekd import document
from edgekd.bench.measure import Settings
from edgekd.document import Frozen, Kind
from edgekd.errors import UsageError

__all__ = ["Build", "Measuring", "Suite", "json_schema", "load", "loads"]

Scalar = str | int | float | bool
Count = Annotated[int, Field(ge=1)]


class Build(Frozen):
    """A recipe with the targets and the settings that it is built for."""

    recipe: str
    """Name or file of the recipe."""
    targets: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names or files of targets."""
    settings: Annotated[tuple[Mapping[str, Scalar], ...], Field(min_length=1)] = ({},)
    """Sets of settings; every target is built with each."""


class Measuring(Frozen):
    """How each bundle is measured."""

    processes: Annotated[int, Field(ge=3)] = 11
    """Fresh processes of each bundle, in turns with those of the others."""
    threads: Count | None = None
    """Threads of the runtime; the target's by default."""
    warmup: Annotated[int, Field(ge=0)] = 20
    """Inferences before anything counts."""
    blocks: Count = 8
    """Blocks of inferences in each process."""
    block_ms: Annotated[float, Field(gt=0)] = 20.0
    """Length of a block in milliseconds."""
    pin: Annotated[int, Field(ge=0)] | None = None
    """Core to run on."""

    def settings(self, threads: int) -> Settings:
        """Return the same for `edgekd.bench.measure`, with the target's threads."""
        return Settings(
            threads=self.threads or threads,
            warmup=self.warmup,
            blocks=self.blocks,
            block_ms=self.block_ms,
            pin=self.pin,
        )


class Suite(Frozen):
    """A benchmark job."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]
    """Name of the suite."""
    bundles: tuple[str, ...] = ()
    """Bundles that exist, relative to the file."""
    build: tuple[Build, ...] = ()
    """Bundles to build."""
    measure: Measuring = Measuring()
    """How each is measured."""

    @model_validator(mode="after")
    def _something(self) -> Suite:
        if not self.bundles and not self.build:
            raise ValueError("nothing to measure: give bundles, or recipes to build")
        return self


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a suite file, for editors."""
    schema = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": schema, **Suite.model_json_schema()}


def load(path: Path) -> Suite:
    """Read a suite file.

    Raises:
        UsageError: It cannot be read or is not valid; all faults at once, with their lines.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the suite: {error}", at=str(path)) from error
    return loads(text, at=str(path))


def loads(text: str, *, at: str = "<text>") -> Suite:
    """Read the text of a suite; ``at`` names it in messages."""
    return document.load(text, Suite, KIND, at)


KIND = Kind(
    noun="suite",
    error=UsageError,
    hint="edgekd bench --schema prints every key",
    example="a suite has a name and bundles, see edgekd bench --help",
    patterns={"name": "should be lower case letters, digits, '.', '_' and '-'"},
)
