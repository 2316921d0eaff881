"""``edgekd compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgekd.cli import text
from edgekd.cli.options import json_output, on
from edgekd.cli.progress import drawn
from edgekd.cli.session import current

__all__ = ["command"]

_PATH = click.Path(path_type=Path)


@click.command("compare")
@click.argument("a", type=_PATH)
@click.argument("b", type=_PATH)
@click.option(
    "--rounds",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Measure two bundles now, in so many rounds of fresh processes side by side.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the runtime.")
@click.option("--pin", type=click.IntRange(min=0), metavar="CORE", help="Core to run on.")
@on
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=600,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for another job on the board; then exit code 4.",
)
@click.option(
    "--page",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.html",
    help="Write a page with pictures.",
)
@json_output
def command(a: Path, b: Path, page: Path | None, **options: Any) -> None:
    """Put two bundles, or two files of results, side by side.

    Shows effect sizes with intervals and judges nothing; 'edgekd gate' does.
    """
    from edgekd.bench import outputs, side_by_side

    with drawn() as emit:
        found = side_by_side.compare(a, b, emit=emit, **options)
    if page is not None:
        outputs.write(page, side_by_side.page(found))
    if current().json:
        current().result(found)
        return
    rows = [side_by_side.cells(row) for row in found["rows"]]
    click.echo("\n".join([text.table(rows, header=side_by_side.HEADER), *found["notes"]]))
