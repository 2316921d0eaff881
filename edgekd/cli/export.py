"""``edgekd export``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgekd.cli import text
from edgekd.cli.options import json_output
from edgekd.cli.progress import drawn
from edgekd.cli.quantize import asked, network
from edgekd.cli.session import current

__all__ = ["command"]


@click.command("export")
@network
@click.option(
    "--opset",
    type=click.IntRange(18, 26),
    default=18,
    show_default=True,
    help="Operator set, for a torch module.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE",
    help="The ONNX file to write.",
)
@json_output
def command(model: str, opset: int, out: Path, **options: Any) -> None:
    """Write a network as ONNX; compare its outputs after every pass.

    MODEL is FILE.py:FUNCTION that returns a torch module, a .pt2 of torch.export, or an .onnx
    file, which is simplified.
    """
    from edgekd.direct import export

    with drawn() as emit:
        facts = export(asked(model, options), out, opset=opset, emit=emit)
    if current().json:
        current().result(facts)
        return
    click.echo(text.table([_row(row) for row in facts["passes"]], header=("PASS", "MAX ERROR", "")))
    click.echo(f"written: {out} ({facts['nodes']} nodes, {facts['nodes_before']} before)")


def _row(row: Any) -> tuple[str, str, str]:
    if "not_run" in row:
        return row["pass"], "-", f"not run: {row['not_run']}"
    return row["pass"], f"{row['max_abs']:.2g}", f"least cosine {row['min_cosine']:.7f}"
