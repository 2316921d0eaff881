"""``edgekd profile``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
@click.option("--layers", is_flag=True, help="Time every layer too, where the runtime tells.")
@click.option(
    "--meter",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="CSV that an external power meter writes meanwhile: seconds (since 1970, by this machine's"
    " clock), milliwatts.",
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
        return
    layers = measured.pop("layers", {})
    click.echo(text.table(text.flat(measured)))
    if "not_run" in layers:
        click.echo(f"\nlayers: not run: {layers['not_run']}")
    elif layers:
        click.echo(f"\n{_layers(layers)}")


def _layers(found: Mapping[str, Any]) -> str:
    """Write what takes most of the time, by kind and by layer."""
    layers = found["layers"]
    kinds: dict[str, list[float]] = {}
    for _, kind, ms in layers:
        kinds.setdefault(kind, []).append(ms)
    summed = sorted(((sum(each), f"{len(each)} × {kind}") for kind, each in kinds.items()))[::-1]
    told = (
        f"{len(layers)} layers, medians of {found['runs']} inferences under the runtime's "
        "profiler, which costs time itself: read shares"
    )
    single = [(ms, f"{name} ({kind})") for name, kind, ms in layers]
    return "\n\n".join((_most(summed, "kind", 10), _most(single, "layer", 15), told))


def _most(rows: Sequence[tuple[float, str]], what: str, count: int) -> str:
    """Write the largest rows, and what the others take together."""
    whole = sum(ms for ms, _ in rows) or 1.0
    rest = rows[count:]
    shown = [*rows[:count]]
    if rest:
        shown.append((sum(ms for ms, _ in rest), f"{len(rest)} others"))
    cells = [(f"{ms:.4f}", f"{100 * ms / whole:.1f} %", name) for ms, name in shown]
    return text.table(cells, header=("ms", "share", what))
