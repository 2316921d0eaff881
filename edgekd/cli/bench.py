"""``edgekd bench``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from edgekd.cli import text
from edgekd.cli.options import json_output, on
from edgekd.cli.progress import drawn
from edgekd.cli.session import current
from edgekd.errors import UsageError

__all__ = ["command"]

_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)
_COUNT = click.IntRange(min=1)


def _schema(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from edgekd.bench.suite import json_schema

        current().result(json_schema())
        ctx.exit()


@click.command("bench")
@click.argument("bundles", nargs=-1, type=click.Path(path_type=Path), metavar="[BUNDLE]...")
@click.option("--suite", type=_FILE, metavar="FILE.yaml", help="What to build and to measure.")
@click.option(
    "--out", type=_FILE, metavar="FILE.jsonl", help="Results, a line for each process measured."
)
@click.option("--resume", is_flag=True, help="Go on with what an interrupted run left in --out.")
@click.option(
    "--processes",
    type=click.IntRange(min=3),
    help="Fresh processes of each bundle.  [default: the suite's, or 11]",
)
@click.option("--threads", type=_COUNT, help="Threads of the runtime.  [default: the target's]")
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
    "--build-in",
    type=_FOLDER,
    metavar="DIR",
    help="Where bundles of the suite's recipes go.  [default: --out's folder]",
)
@click.option("--history", type=_FOLDER, metavar="DIR", help="Plain files to add the figures to.")
@click.option("--label", metavar="NAME", help="Name of the board in the history.")
@click.option("--page", type=_FILE, metavar="FILE.html", help="Write the history's trend page.")
@click.option("--github", type=_FILE, metavar="FILE.json", help="Costs, smaller is better.")
@click.option("--github-bigger", type=_FILE, metavar="FILE.json", help="Task metrics.")
@click.option("--openmetrics", type=_FILE, metavar="FILE.txt", help="OpenMetrics text.")
@click.option(
    "--schema",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_schema,
    help="Print the JSON Schema of a suite and exit.",
)
@json_output
def command(
    bundles: tuple[Path, ...],
    suite: Path | None,
    out: Path | None,
    page: Path | None,
    github: Path | None,
    github_bigger: Path | None,
    openmetrics: Path | None,
    **options: Any,
) -> None:
    """Measure bundles in turns, in fresh processes; keep a history; draw its trend.

    With --history and --page alone the page is drawn and nothing is measured.
    """
    if not bundles and suite is None and options["history"] is not None and page is not None:
        _draw(options["history"], page)
        return
    if out is None:
        raise UsageError("where do the results go?", at="--out", hint="--out results.jsonl")
    from edgekd.api import bench

    current().resumable = True
    with drawn() as emit:
        found = bench(bundles, suite=suite, out=out, emit=emit, **options)
    _write(found, github, github_bigger, openmetrics)
    if current().json:
        current().result(found)
    else:
        click.echo(_said(found))
    if page is not None:
        if options["history"] is None:
            raise UsageError("a trend needs a history", at="--page", hint="--history DIR")
        _draw(options["history"], page)


def _draw(folder: Path, page: Path) -> None:
    from edgekd.bench import history, outputs, trend

    outputs.write(page, trend.page(history.recall(folder), page))
    click.echo(f"wrote {page}", err=True)


def _write(
    found: Mapping[str, Any],
    github: Path | None,
    github_bigger: Path | None,
    openmetrics: Path | None,
) -> None:
    from edgekd.bench import outputs

    if github is not None:
        outputs.write(github, outputs.benchmark_json(found["rows"]))
    if github_bigger is not None:
        outputs.write(github_bigger, outputs.benchmark_json(found["rows"], bigger=True))
    if openmetrics is not None:
        outputs.write(openmetrics, outputs.openmetrics(found["rows"]))


def _said(found: Mapping[str, Any]) -> str:
    rows = []
    for row in found["rows"]:
        metrics = row["metrics"]
        cells = [_between(metrics[name]) for name in ("cpu_ms", "wall_p50_ms", "peak_rss_mib")]
        rows.append((row["name"], *cells, f"{row['load']:.1f}", row["candidate"]))
    header = ("BUNDLE", "CPU ms", "WALL p50 ms", "PEAK MiB", "LOAD", "ARTEFACT")
    return text.table(rows, header=header)


def _between(metric: Mapping[str, Any]) -> str:
    return f"{metric['value']:.4g} [{metric['low']:.4g}, {metric['high']:.4g}]"
