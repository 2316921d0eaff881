"""``edgekd profile``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgekd.cli import text
from edgekd.cli.options import bundle, json_output, on
from edgekd.cli.progress import drawn
from edgekd.cli.session import current

__all__ = ["command"]

_COUNT = click.IntRange(min=1)


@click.command("profile")
@bundle
@on
@click.option("--runs", type=_COUNT, help="Timed inferences.  [default: the target's]")
@click.option("--threads", type=_COUNT, help="Threads of the runtime.  [default: the target's]")
@click.option("--pin", type=click.IntRange(min=0), metavar="CORE", help="Core to run on.")
@click.option(
    "--duration",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Stop after so long, whatever --runs says.",
)
@json_output
def command(bundle: Path, **options: Any) -> None:
    """Measure a bundle's latency and memory on a device.

    Needs the bundle's runtime, and no torch.
    """
    from edgekd.api import profile

    with drawn() as emit:
        measured = profile(bundle, emit=emit, **options)
    if current().json:
        current().result(measured)
    else:
        click.echo(text.table(text.flat(measured)))
