"""``edgekd compress``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from edgekd import table
from edgekd.cli import summary, text
from edgekd.cli.options import asked
from edgekd.cli.progress import drawn
from edgekd.cli.session import current
from edgekd.errors import UnbuiltError
from edgekd.settings import parse_assignments

__all__ = ["command"]


@click.command("compress")
@asked
def command(
    recipe: str, targets: tuple[str, ...], settings: tuple[str, ...], **options: Any
) -> None:
    """Distil, quantise, prove and bundle: from a recipe to an artefact.

    Every finished step is kept: an interrupted run goes on where it stopped, and a repeated one
    is read from the store.
    """
    chosen = parse_assignments(settings)
    from edgekd.api import compress

    current().resumable = True
    try:
        with drawn() as emit:
            bundles = compress(recipe, list(targets), settings=chosen, emit=emit, **options)
    except UnbuiltError as error:
        _show(error.bundles)
        raise
    _show(bundles)


def _show(bundles: Sequence[Any]) -> None:
    if current().json:
        current().result([{"path": str(b.path), "manifest": b.manifest} for b in bundles])
    else:
        click.echo(table.plain_text([b.manifest for b in bundles], text.width()))
        for bundle in bundles:
            for name, part in bundle.manifest.get("parts", {}).items():
                click.echo(f"{bundle.manifest['name']}, {name}:")
                click.echo(table.plain_text(part, text.width()))
        click.echo("\n\n".join(_shown(Path(b.path), b.manifest) for b in bundles))


def _shown(path: Path, manifest: Mapping[str, Any]) -> str:
    return f"{summary.of(manifest)}\n  bundle: {path}\n  prove it again: edgekd verify {path}"
