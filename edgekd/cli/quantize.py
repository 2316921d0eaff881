"""``edgekd quantize``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from edgekd.cli import text
from edgekd.cli.options import PICK, complete_target, json_output
from edgekd.cli.progress import drawn
from edgekd.cli.session import current

__all__ = ["asked", "command", "network", "network_of"]

_F = TypeVar("_F", bound=Callable[..., Any])


def _data(required: bool) -> Callable[[Any], Any]:
    return click.option(
        "--data",
        required=required,
        type=click.Path(path_type=Path),
        metavar="DIR|FILE",
        help="Samples: a folder of .npy, .npz or pictures, or one file of arrays.",
    )


_NETWORK: tuple[Callable[[Any], Any], ...] = (
    click.argument("model"),
    click.option(
        "--weights",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="State dict of the torch module that MODEL builds.",
    ),
    click.option(
        "--size", nargs=2, type=int, metavar="H W", help="Of pictures.  [default: the network's]"
    ),
    click.option("--mean", metavar="A,B,C", help="Of pictures, per channel, from 0 to 1."),
    click.option("--std", metavar="A,B,C", help="Of pictures, per channel."),
)


def network_of(*, data_required: bool) -> Callable[[_F], _F]:
    """Return what adds the argument ``MODEL`` and the options of its samples."""

    def add(function: _F) -> _F:
        for option in (*reversed(_NETWORK[1:]), _data(data_required), _NETWORK[0]):
            function = option(function)
        return function

    return add


def network(function: _F) -> _F:
    """Add the argument ``MODEL`` and the options of its samples, which must be given."""
    return network_of(data_required=True)(function)


def numbers(text_: str | None) -> tuple[float, ...]:
    """Read numbers with commas."""
    try:
        return tuple(float(part) for part in (text_ or "").split(",") if part)
    except ValueError as error:
        raise click.BadParameter(f"{text_!r} is no list of numbers such as 0.5,0.5,0.5") from error


@click.command("quantize")
@network
@click.option(
    "--target",
    required=True,
    metavar="NAME|FILE",
    shell_complete=complete_target,
    help="For which device.",
)
@click.option(
    "--min-sqnr",
    type=float,
    default=30.0,
    show_default=True,
    metavar="DB",
    help="Least signal to noise of the outputs against the network's own.",
)
@click.option(
    "--metric",
    default="",
    metavar="FILE.py:FUNCTION",
    help="Decides instead: metric(outputs, samples) -> float, larger is better.",
)
@click.option(
    "--drop",
    type=float,
    default=0.01,
    show_default=True,
    help="Largest relative loss of --metric.",
)
@click.option(
    "--samples", type=click.IntRange(1), default=128, show_default=True, help="That calibrate."
)
@PICK
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="DIR",
    help="Gets model/, golden.npz and quantized.json.",
)
@json_output
def command(model: str, target: str, out: Path, pick: str | int | None, **options: Any) -> None:
    """Find the fastest faithful artefact of a network.

    MODEL is an .onnx file, a .pt2 of torch.export, or FILE.py:FUNCTION that returns a torch
    module. Runtimes, precisions and scopes are searched as by compress.
    """
    from edgekd.direct import quantize

    with drawn() as emit:
        facts = quantize(asked(model, options), target, out, pick=pick, emit=emit)
    if current().json:
        current().result(facts)
        return
    header = ("CANDIDATE", "OUTCOME", "CPU MS", "SQNR DB", "KIB", "WHY")
    click.echo(text.table([_row(row) for row in facts["explored"]], header=header))
    for sentence in facts["not_run"]:
        click.echo(f"not run: {sentence}")
    if facts["note"]:
        click.echo(f"note: {facts['note']}")
    click.echo(f"written: {out} ({facts['candidate']}, {facts['runtime']})")


def asked(model: str, options: Mapping[str, Any]) -> Any:
    """Make the request of the options of `network` and what else it takes."""
    from edgekd.direct import Source

    pictures = {name: numbers(options[name]) for name in ("mean", "std")}
    return Source(model, **{**options, **pictures, "size": tuple(options["size"] or ())})


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
    time, sqnr, size = row["time_ms"], row["sqnr_db"], row["bytes"]
    mark = "~" if row["timed"] == "hint" else ""
    return (
        row["candidate"],
        row["outcome"] + (" *" if row["on_frontier"] else ""),
        "-" if time is None else f"{mark}{time:.3g}",
        "-" if sqnr is None else f"{sqnr:.1f}",
        "-" if size is None else f"{size / 1024:.0f}",
        row["why"],
    )
