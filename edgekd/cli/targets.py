"""``edgekd targets``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from edgekd.cli import text
from edgekd.cli.options import complete_target, json_output
from edgekd.cli.session import current
from edgekd.errors import TargetError

if TYPE_CHECKING:
    from edgekd.discover import Found

__all__ = ["command"]


@click.group("targets", invoke_without_command=True)
@json_output
@click.pass_context
def command(ctx: click.Context) -> None:
    """List targets; show or validate one; print the schema."""
    if ctx.invoked_subcommand is None:
        _list()


@command.command("list")
@json_output
def list_(**_: Any) -> None:
    """List the targets that a name reaches."""
    _list()


def _list() -> None:
    from edgekd import discover

    found = discover.targets()
    if current().json:
        current().result([{**asdict(each), "path": str(each.path)} for each in found])
        return
    rows = [(each.name, each.origin, _what(each)) for each in found]
    click.echo(text.table(rows, header=("TARGET", "FROM", "WHAT")))


def _what(found: Found) -> str:
    from edgekd import target

    try:
        return target.load(found.path).title
    except TargetError:
        return f"not valid: edgekd targets validate {found.name}"


@command.command()
@click.argument("name", metavar="NAME|FILE", shell_complete=complete_target)
@json_output
def show(name: str) -> None:
    """Print a target's file; as JSON, with every default filled in."""
    from edgekd import discover

    path = discover.find_target(name)
    if current().json:
        current().result(discover.load_target(path).plain())
    else:
        click.echo(f"# {path}\n{path.read_text(encoding='utf-8')}", nl=False)


@command.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
def validate(files: tuple[str, ...]) -> None:
    """Check target files; every fault of every file is printed."""
    from edgekd import discover

    faulty: list[TargetError] = []
    for file in files:
        try:
            target = discover.load_target(file)
        except TargetError as error:
            faulty.append(error)
        else:
            click.echo(f"{file}: valid ({target.name})")
    if faulty:
        what = "\n".join(error.what for error in faulty)
        raise TargetError(what, at=faulty[0].at, hint=faulty[0].hint) from faulty[0]


@command.command()
def schema() -> None:
    """Print the JSON Schema of a target file, for editors."""
    from edgekd import target

    current().result(target.json_schema())
