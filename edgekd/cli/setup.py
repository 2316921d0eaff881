"""``edgekd setup``."""

from __future__ import annotations

from typing import Any

import click

from edgekd.cli import text
from edgekd.cli.options import json_output
from edgekd.cli.progress import drawn
from edgekd.cli.session import current
from edgekd.environments import ENVIRONMENTS, setup

__all__ = ["command"]


@click.command("setup")
@click.argument("name", metavar="NAME", type=click.Choice(list(ENVIRONMENTS)))
@click.option(
    "--python",
    metavar="FILE",
    help="Interpreter to make it with.  [default: this one, or the right one on PATH]",
)
@click.option("--again", is_flag=True, help="Make it anew even when it is there.")
@json_output
def command(name: str, python: str | None, again: bool) -> None:
    """Make a toolchain's own virtual environment.

    litert: torch to .tflite and its quantiser, 2.1 GiB, Python 3.11. tflite-runtime: the old
    interpreter, 0.1 GiB, to try files as older devices do. Versions are pinned. An environment lies
    in the user's cache, or where $EDGEKD_LITERT or $EDGEKD_TFLITE_RUNTIME says; one that is there
    already is left alone.
    """
    with drawn() as emit:
        made = setup(name, python=python, again=again, emit=emit)
    if current().json:
        current().result(made)
    else:
        click.echo(_shown(made))


def _shown(made: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    verb = "made" if made["made"] else "there already:"
    return f"{verb} {made['folder']} ({text.size(made['bytes'])}; {versions})"
