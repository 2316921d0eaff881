"""``edgekd sensitivity``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from edgekd.cli import text
from edgekd.cli.options import json_output
from edgekd.cli.progress import drawn
from edgekd.cli.quantize import asked, network_of
from edgekd.cli.session import current

__all__ = ["command"]

_KINDS = ("weights", "activations", "both")


@click.command("sensitivity")
@network_of(data_required=False)
@click.option(
    "--metric",
    default="",
    metavar="FILE.py:FUNCTION",
    help="Also judges: metric(outputs, samples) -> float, larger is better.",
)
@click.option(
    "--estimator",
    type=click.Choice(["minmax", "percentile", "mse", "entropy"]),
    default="minmax",
    show_default=True,
    help="How the ranges of activations are found.",
)
@click.option(
    "--samples", type=click.IntRange(1), default=128, show_default=True, help="That calibrate."
)
@click.option(
    "--top", type=click.IntRange(1), default=12, show_default=True, help="Layers to print."
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.html",
    help="Page to write: every layer, with a picture over the graph's order.",
)
@json_output
def command(model: str, out: Path | None, top: int, estimator: str, **options: Any) -> None:
    """Quantise one layer, and one class of operators, at a time.

    MODEL is an .onnx file, a .pt2 of torch.export, FILE.py:FUNCTION that returns a torch module,
    or a bundle that ships an ONNX file in float32: its golden inputs judge when --data is left
    out.
    """
    from edgekd.errors import UsageError
    from edgekd.sensitivity import sensitivity, worst

    if options["data"] is None:
        if not Path(model).is_dir() and Path(model).suffix != ".zip":
            raise UsageError("a network needs samples", at="--data", hint="--data DIR|FILE")
        options["data"] = Path(model)
    with drawn() as emit:
        facts = sensitivity(asked(model, options), out, estimator=estimator, emit=emit)
    if current().json:
        current().result(facts)
        return
    header = ("SQNR, DB", *(kind.upper() for kind in _KINDS))
    whole = [facts["all"], *sorted(facts["classes"], key=worst)]
    click.echo(text.table([_row(row) for row in whole], header=header))
    click.echo("")
    first = sorted(facts["layers"], key=worst)[:top]
    click.echo(text.table([_row(row) for row in first], header=header))
    click.echo(f"{len(facts['layers'])} layers, {facts['judged']} samples")
    if out is not None:
        click.echo(f"written: {out}")


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
    count = f" × {row['layers']}" if "layers" in row else ""
    return (f"{row['name']}{count}", *(_cell(row.get(kind)) for kind in _KINDS))


def _cell(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "-"
    lost = f" ({100 * found['loss']:.2f} % lost)" if "loss" in found else ""
    return f"{found['sqnr_db']:.1f}{lost}"
