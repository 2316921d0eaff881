"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from edgekd.cli.session import current

__all__ = ["asked", "bundle", "complete_recipe", "complete_target", "json_output", "on"]

_F = TypeVar("_F", bound=Callable[..., Any])

PICKS = ("smallest", "fastest", "most-accurate")


def _pick(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | int | None:
    """Return a rule's name, a candidate's, or a row's number.

    A candidate's name has a hyphen (``ort-int8``), so that a misspelt rule is told from it.
    """
    if value is None or value in PICKS or "-" in value:
        return value
    if value.isdigit():
        return int(value)
    raise click.BadParameter(
        f"{value!r} is none of {', '.join(PICKS)}, no candidate's name and no row's number"
    )


def _set_json(ctx: click.Context, parameter: click.Parameter, value: bool) -> bool:
    if value:
        current().json = True
    return value


def json_output(function: _F) -> _F:
    """Add ``--json``; the value is kept by the session."""
    return click.option(
        "--json",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_set_json,
        help="Result as JSON on standard output; events and errors as JSON lines on standard "
        "error.",
    )(function)


def on(function: _F) -> _F:
    """Add ``--on``."""
    return click.option(
        "--on",
        default="local",
        show_default=True,
        envvar="EDGEKD_ON",
        show_envvar=True,
        metavar="DEVICE",
        help="Where the device is: local, ssh:HOST as in 'ssh HOST', or a name of "
        "~/.config/edgekd/devices.yaml.",
    )(function)


def bundle(function: _F) -> _F:
    """Add the argument ``BUNDLE``."""
    kind = click.Path(path_type=Path)
    return click.argument("bundle", type=kind)(function)


def complete_recipe(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the names of recipes."""
    from edgekd import discover

    return [
        CompletionItem(found.name, help=found.title)
        for found in discover.recipes()
        if found.name.startswith(incomplete)
    ]


def complete_target(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the names of targets."""
    from edgekd import discover

    return [
        CompletionItem(found.name, help=found.title)
        for found in discover.targets()
        if found.name.startswith(incomplete)
    ]


def asked(function: _F) -> _F:
    """Add what ``compress`` and ``plan`` have in common."""
    function = json_output(function)
    for option in reversed(_ASKED):
        function = option(function)
    return function


PICK = click.option(
    "--pick",
    callback=_pick,
    metavar=f"[{'|'.join(PICKS)}|NAME|INDEX]",
    help="Take this candidate instead of the fastest within the metric's limit; what is "
    "measured already is not measured again.",
)
"""The option ``--pick``."""

_ASKED: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--recipe",
        required=True,
        metavar="NAME|FILE",
        shell_complete=complete_recipe,
        help="What to compress; 'edgekd recipes' lists the names.",
    ),
    click.option(
        "--target",
        "targets",
        required=True,
        multiple=True,
        metavar="NAME|FILE",
        shell_complete=complete_target,
        help="For which device; repeat for several, which share teacher and student.",
    ),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="A setting of the recipe; 'edgekd recipes show NAME' lists them.",
    ),
    on,
    click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Where the bundle goes.  [default: out/RECIPE-TARGET]",
    ),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda", "mps"]),
        default="auto",
        show_default=True,
        help="What trains.",
    ),
    PICK,
    click.option(
        "--like",
        type=click.Path(exists=True, path_type=Path),
        metavar="BUNDLE",
        help="Repeat the recorded choices of a bundle, byte for byte.",
    ),
    click.option(
        "--allow-unbuilt",
        is_flag=True,
        help="Exit 0 when no device was there; otherwise 4, with all else done and bundled.",
    ),
)
