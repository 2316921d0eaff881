"""``edgekd report``."""

from __future__ import annotations

from pathlib import Path

import click

from edgekd.cli.options import bundle
from edgekd.cli.progress import drawn

__all__ = ["command"]


@click.command("report")
@bundle
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where the page goes.  [default: BUNDLE.report.html, beside the bundle]",
)
def command(bundle: Path, out: Path | None) -> None:
    """Write a bundle's report again.

    One HTML page from the manifest alone; the bundle itself stays as it is.
    """
    from edgekd.api import report

    page = out or bundle.resolve().with_name(f"{bundle.resolve().name}.report.html")
    with drawn() as emit:
        report(bundle, page, emit=emit)
    click.echo(f"wrote {page}")
