"""``edgekd gate``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from edgekd.cli import text
from edgekd.cli.options import json_output, on
from edgekd.cli.progress import drawn
from edgekd.cli.session import current
from edgekd.errors import BudgetError, SetupError

__all__ = ["command"]

_PATH = click.Path(path_type=Path)
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("gate")
@click.argument("bundles", nargs=-1, required=True, type=_PATH, metavar="BUNDLE...")
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    required=True,
    type=_PATH,
    metavar="BUNDLE|FILE.json",
    help="The accepted bundle, or the file that --accept keeps; once for each BUNDLE, in order.",
)
@click.option(
    "--accept",
    metavar="REASON",
    help="Make the candidate the baseline, whatever the verdict; the reason is kept in FILE.json.",
)
@click.option(
    "--allow-recorded",
    is_flag=True,
    help="Compare two files of results (.jsonl), relative to the reference kernel.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0, max=1),
    default=0.01,
    show_default=True,
    help="Relative change below which nothing is claimed.",
)
@click.option(
    "--alpha",
    type=click.FloatRange(min=0, max=0.5, min_open=True),
    default=0.01,
    show_default=True,
    help="Chance that a job of unchanged bundles raises any alarm.",
)
@on
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the runtime.")
@click.option("--pin", type=click.IntRange(min=0), metavar="CORE", help="Core to run on.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=600,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for another job on the board; then exit code 4.",
)
@click.option("--out", type=_FILE, metavar="FILE.jsonl", help="Add every process measured.")
@click.option(
    "--history",
    "history_folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Add the candidates' figures to a history, for the trend page.",
)
@click.option("--label", metavar="NAME", help="Name of the board in the history.")
@click.option("--junit", type=_FILE, metavar="FILE.xml", help="Write JUnit XML.")
@click.option(
    "--summary",
    type=_FILE,
    metavar="FILE.md",
    help="Add a Markdown summary; $GITHUB_STEP_SUMMARY gets one by itself.",
)
@json_output
def command(
    bundles: tuple[Path, ...],
    baselines: tuple[Path, ...],
    junit: Path | None,
    summary: Path | None,
    **options: Any,
) -> None:
    """Judge bundles against accepted ones, measured again side by side.

    Exit code 3 when something regressed or is over budget, 4 when the board is missing or the
    two sides cannot be compared.
    """
    from edgekd.bench.gate import gate

    with drawn() as emit:
        outcome = gate(bundles, baselines, emit=emit, **options)
    _write(outcome, junit, summary)
    if current().json:
        current().result(outcome)
    else:
        click.echo(_said(outcome))
    if outcome["exit_code"] == 3:
        raise BudgetError(str(outcome["verdict"]), hint="--accept REASON moves the baseline")
    if outcome["exit_code"] == 4:
        raise SetupError(str(outcome["verdict"]))


def _write(outcome: Mapping[str, Any], junit: Path | None, summary: Path | None) -> None:
    from edgekd.bench import outputs

    if junit is not None:
        outputs.write(junit, outputs.junit(outcome))
    for place in (summary, os.environ.get("GITHUB_STEP_SUMMARY")):
        if place:
            outputs.write(Path(place), outputs.markdown(outcome), add=True)


def _said(outcome: Mapping[str, Any]) -> str:
    from edgekd.bench.outputs import effort, figure, percent

    rows = []
    for check in outcome["checks"]:
        values = (check["baseline"], check["candidate"])
        moved = "" if None in values else " → ".join(map(figure, values)) + f" {check['unit']}"
        parts = [f"{name} {percent(shift)}" for name, shift in check["shift"].items()]
        parts += [check["decided_by"] and f"decided by {check['decided_by']}", check["why"]]
        detail = "; ".join(filter(None, [moved, *parts]))
        rows.append((check["bundle"], check["name"], check["verdict"], detail))
    lines = [text.table(rows), *effort(outcome), str(outcome["verdict"])]
    return "\n".join(line for line in lines if line)
