"""``edgekd data``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import click

from edgekd.cli import text
from edgekd.cli.options import complete_recipe, json_output
from edgekd.cli.session import current
from edgekd.errors import DataError, UsageError
from edgekd.settings import parse_assignments

__all__ = ["command"]

SIZE = 64
"""Size to which a checked image is resized; any size reads the same files."""
SHOWN = 20
"""Most unreadable images that are named."""
EMBEDDED = {
    "icons": "few-shot and plain classification; shipped with edgekd",
    "homes": "a year of load and solar generation of 15 homes; shipped with edgekd",
    "simflight": "simulated flights with faults; base flights shipped, the rest computed",
}


@click.group("data", invoke_without_command=True)
@json_output
@click.pass_context
def command(ctx: click.Context) -> None:
    """List data; build the embedded set; check your own."""
    if ctx.invoked_subcommand is None:
        _list()


@command.command("list")
@json_output
def list_(**_: Any) -> None:
    """List the embedded data, and what each recipe takes."""
    _list()


def _list() -> None:
    recipes = dict(_needed())
    if current().json:
        current().result({"embedded": EMBEDDED, "recipes": recipes})
        return
    rows = [("embedded", name, what) for name, what in EMBEDDED.items()]
    rows += [("recipe", name, " ".join(what.split())) for name, what in recipes.items()]
    click.echo(text.table(rows, header=("", "NAME", "WHAT")))


def _needed() -> Iterator[tuple[str, str]]:
    """Give the ``Data`` section of every recipe that can be read."""
    from edgekd import discover

    for found in discover.recipes():
        if not found.fault:
            yield found.name, discover.describe_recipe(found.path).data or "does not say"


@command.command()
@click.argument("name", type=click.Choice(list(EMBEDDED)))
@click.option(
    "--package",
    type=click.Path(exists=True, path_type=Path),
    help="icons: the npm package @iconify/json; homes: the wheel of citylearn; else fetched.",
)
@click.option("--bases", type=int, default=65, show_default=True, help="simflight: base flights.")
@click.option("--jobs", type=int, default=1, show_default=True, help="simflight: processes.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the files; the name of the set by default.",
)
@json_output
def build(name: str, package: Path | None, bases: int, jobs: int, out: Path | None) -> None:
    """Build an embedded set again, from its pinned source or simulator."""
    from edgekd.data.battery.build import build_homes
    from edgekd.data.build_icons import build_icons
    from edgekd.data.flight.build import build_bases

    folder = out or Path(name)

    def tell(line: str) -> None:
        click.echo(line, err=True)

    if name == "icons":
        facts = build_icons(package, folder, tell)
    elif name == "homes":
        facts = build_homes(package, folder, tell)
    else:
        facts = build_bases(folder, bases=bases, jobs=jobs, emit=tell)
    if current().json:
        current().result(facts)
    else:
        click.echo(text.table(text.flat(facts)))


@command.command()
@click.option(
    "--recipe",
    required=True,
    metavar="RECIPE",
    shell_complete=complete_recipe,
    help="Name of a recipe, or its file.",
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Setting.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder that gets the dataset as a folder of its own.",
)
@json_output
def export(recipe: str, settings: tuple[str, ...], out: Path) -> None:
    """Write what a recipe trains on in the form of its field.

    Of recipes that act: observations, actions and rewards, as a Minari dataset (HDF5, 'pip install
    edgekd[minari]'). Of simulated flights: NGAFID's layout at 1 Hz, with the faults' truth.
    """
    chosen = parse_assignments(settings)
    from edgekd import steps
    from edgekd.calls import invoke
    from edgekd.discover import load_recipe

    asked = load_recipe(recipe, chosen)
    data = invoke(asked.data, steps.base_of(asked))
    if not hasattr(data, "export"):
        raise UsageError(
            f"recipe {asked.name!r} trains on samples that are files already",
            hint="decision_transformer and liteinception make their own, if not given yours",
        )
    facts = data.export(out)
    if current().json:
        current().result(facts)
    else:
        click.echo(text.table(text.flat(facts)))


@command.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--kind",
    type=click.Choice(["few-shot", "classification"]),
    default="few-shot",
    show_default=True,
    help="What the data is for: decides how it is split.",
)
@json_output
def check(path: Path, kind: Literal["few-shot", "classification"]) -> None:
    """Read all of your data once: layout, splits, classes, every image."""
    from edgekd.data import base, sniff

    splits = sniff.load(path, size=SIZE, kind=kind)
    problems = base.problems(splits)
    facts = {**splits.facts, "note": splits.note, "unreadable": len(problems)}
    if current().json:
        current().result({**facts, "problems": problems})
    else:
        click.echo(text.table(text.flat({k: v for k, v in facts.items() if v not in ("", [])})))
    if problems:
        listed = "\n".join(f"  {' '.join(problem.split())}" for problem in problems[:SHOWN])
        raise DataError(f"{len(problems)} images cannot be read\n{listed}", at=str(path))
