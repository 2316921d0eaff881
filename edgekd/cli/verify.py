"""``edgekd verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgekd.cli import text
from edgekd.cli.options import bundle, json_output, on
from edgekd.cli.progress import drawn
from edgekd.cli.session import current

__all__ = ["command"]


@click.command("verify")
@bundle
@click.option("--hashes-only", is_flag=True, help="Check files and schema; load no runtime.")
@click.option("--task", is_flag=True, help="Measure the task metric again.")
@on
@click.option("--expect", metavar="SHA256", help="Digest that the bundle must have.")
@json_output
def command(bundle: Path, **options: Any) -> None:
    """Prove a bundle again: hashes, schema, golden outputs.

    The outputs are made again in the runtime that ships. Exit code 5 when the bundle is not what
    it claims to be.
    """
    from edgekd.verify import verify

    with drawn() as emit:
        proof = verify(bundle, emit=emit, **options)
    if current().json:
        current().result(proof)
    else:
        from edgekd.verify import lines

        click.echo(text.table(lines(proof)))
