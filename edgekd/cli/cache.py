"""``edgekd cache``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgekd.cli import text
from edgekd.cli.options import json_output
from edgekd.cli.session import current

if TYPE_CHECKING:
    from edgekd.store import Entry

__all__ = ["command"]

SHORT = 12
"""Digits of a key that are shown; any unique start of a key is understood."""


@click.group("cache", invoke_without_command=True)
@json_output
@click.pass_context
def command(ctx: click.Context) -> None:
    """List the store; explain a miss; free space."""
    if ctx.invoked_subcommand is None:
        _list()


@command.command("list")
@json_output
def list_(**_: Any) -> None:
    """List finished steps, the least recently used first."""
    _list()


def _list() -> None:
    from edgekd.store import Store

    store = Store()
    entries = store.list()
    if current().json:
        current().result([_plain(key, entry) for key, entry in entries])
        return
    rows = [_row(key, entry) for key, entry in entries]
    total = sum(_bytes(entry) for _, entry in entries)
    click.echo(f"{store.root}: {len(rows)} steps, {text.size(total)}")
    if rows:
        click.echo(text.table(rows, header=("KEY", "STEP", "SIZE", "TOOK")))


def _row(key: str, entry: Entry) -> tuple[str, str, str, str]:
    step = str(entry.made_of.get("step", "?"))
    return key[:SHORT], step, text.size(_bytes(entry)), text.duration(entry.seconds)


def _plain(key: str, entry: Entry) -> dict[str, Any]:
    return {
        "key": key,
        "step": entry.made_of.get("step"),
        "bytes": _bytes(entry),
        "seconds": entry.seconds,
        "path": str(entry.path),
    }


def _bytes(entry: Entry) -> int:
    return sum(file.stat().st_size for file in entry.path.rglob("*") if file.is_file())


@command.command()
@click.argument("first", metavar="KEY")
@click.argument("second", metavar="KEY")
def why(first: str, second: str) -> None:
    """Print the first field in which two steps' makings differ."""
    from edgekd import store

    kept = store.Store()
    (_, a), (_, b) = kept.find(first), kept.find(second)
    click.echo(store.why(a.made_of, b.made_of) or "the same")


@command.command()
@click.option(
    "--days",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Remove what was not used for so long.",
)
def gc(days: float) -> None:
    """Remove what was not used for a while, and leftovers of interrupted runs."""
    from edgekd.store import Store

    count, freed = Store().gc(days)
    click.echo(f"removed {count} entries, {text.size(freed)}")
