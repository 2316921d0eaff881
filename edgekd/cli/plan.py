"""``edgekd plan``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from edgekd.cli import text
from edgekd.cli.options import asked
from edgekd.cli.session import current
from edgekd.settings import parse_assignments

__all__ = ["command"]


@click.command("plan")
@asked
def command(
    recipe: str, targets: tuple[str, ...], settings: tuple[str, ...], **options: Any
) -> None:
    """Print what compress would run, what is cached, and why.

    Takes the options of compress. Nothing is trained, built or measured.
    """
    chosen = parse_assignments(settings)
    from edgekd.api import plan

    steps = plan(recipe, list(targets), settings=chosen, **options)
    if current().json:
        current().result(steps)
        return
    rows = [_row(step) for step in steps]
    click.echo(text.table(rows, header=("STEP", "STATUS", "KEY", "WHY")))
    cached = sum(step["status"] == "cached" for step in steps)
    click.echo(f"{len(steps)} steps: {cached} cached, {len(steps) - cached} to run")


def _row(step: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return step["step"], step["status"], (step.get("key") or "-")[:12], step.get("why") or ""
