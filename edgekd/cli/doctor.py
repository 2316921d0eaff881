"""``edgekd doctor``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from itertools import groupby

import click

from edgekd import doctor
from edgekd.cli import text
from edgekd.cli.options import complete_target, json_output, on
from edgekd.cli.session import current
from edgekd.errors import SetupError

__all__ = ["command"]


@click.command("doctor")
@click.option(
    "--target",
    metavar="NAME|FILE",
    shell_complete=complete_target,
    help="Judge this target; exit 4 when it lacks something.",
)
@on
@json_output
def command(target: str | None, on: str) -> None:
    """Say what this environment lacks, and the command that brings it."""
    found = doctor.examine(target, on)
    if current().json:
        current().result([asdict(check) for check in found.checks])
    else:
        click.echo(_shown(found.checks))
    if target and found.lacking:
        raise _lacking(target, found)


def _lacking(target: str, found: doctor.Diagnosis) -> SetupError:
    first = found.lacking[0]
    count = "one thing" if len(found.lacking) == 1 else f"{len(found.lacking)} things"
    return SetupError(
        f"target {target!r} lacks {count}; the first: {first.name}: {first.found}",
        hint="; ".join(doctor.advice(found.lacking)) or None,
    )


def _shown(checks: Iterable[doctor.Check]) -> str:
    parts = []
    for part, group in groupby(checks, key=lambda check: check.part):
        rows = [
            (check.status, check.name, check.found + (f"; {check.fix}" if check.fix else ""))
            for check in group
        ]
        parts.append(f"{part}\n{text.indent(text.table(rows))}")
    return "\n".join(parts)
