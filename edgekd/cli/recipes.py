"""``edgekd recipes``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekd.cli import text
from edgekd.cli.options import complete_recipe, json_output
from edgekd.cli.session import current
from edgekd.errors import UsageError

if TYPE_CHECKING:
    from edgekd.discover import Description, Setting

__all__ = ["command"]

TEMPLATE = Path(__file__).parent / "recipe_template.py"


@click.group("recipes", invoke_without_command=True)
@json_output
@click.pass_context
def command(ctx: click.Context) -> None:
    """List recipes; show one; start one."""
    if ctx.invoked_subcommand is None:
        _list()


@command.command("list")
@json_output
def list_(**_: Any) -> None:
    """List the recipes that a name reaches; executes none."""
    _list()


def _list() -> None:
    from edgekd import discover

    found = discover.recipes()
    if current().json:
        current().result([{**asdict(each), "path": str(each.path)} for each in found])
        return
    rows = [(each.name, each.origin, each.fault or each.title) for each in found]
    click.echo(text.table(rows, header=("RECIPE", "FROM", "WHAT")))


@command.command()
@click.argument("recipe", metavar="NAME|FILE", shell_complete=complete_recipe)
@json_output
def show(recipe: str) -> None:
    """Show a recipe's settings, their types and defaults, and the data it needs."""
    from edgekd import discover

    described = discover.describe_recipe(recipe)
    if current().json:
        current().result({**asdict(described), "path": str(described.path)})
    else:
        click.echo(_shown(described))


def _shown(described: Description) -> str:
    parts = [described.doc or f"{described.name} (its file says nothing about it)"]
    parts.append(f"file  {described.path}")
    if described.settings:
        rows = [_setting(setting) for setting in described.settings]
        listed = text.table(rows, header=("SETTING", "TYPE", "DEFAULT", "WHAT"))
        parts.append(f"{listed}\n\nset one with --set NAME=VALUE")
    if described.data:
        parts.append(f"data\n{text.indent(described.data)}")
    return "\n\n".join(parts)


def _setting(setting: Setting) -> tuple[str, str, str, str]:
    default = "required" if setting.default is None else setting.default
    return setting.name, _type(setting.type), default.strip("'\""), setting.doc


def _type(annotation: str) -> str:
    """Return ``a | b`` for ``Literal['a', 'b']``, other annotations as they are."""
    if not annotation.startswith("Literal["):
        return annotation
    return annotation[8:-1].replace("'", "").replace(", ", " | ")


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
def new(file: Path) -> None:
    """Write a recipe that runs as it is, to be edited; never overwrites."""
    if file.suffix != ".py":
        raise UsageError(f"a recipe is a Python file, got {str(file)!r}", hint="end it in .py")
    content = TEMPLATE.read_text(encoding="utf-8")
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(content)
    except FileExistsError as error:
        raise UsageError(f"{file} exists; it was left as it is") from error
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}") from error
    click.echo(f"wrote {file}\nrun it: edgekd compress --recipe {file} --target cpu")
