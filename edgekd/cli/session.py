"""One run of the command line: what was asked, and how its outcome is written."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from typing import Any

import click

from edgekd.version import __version__

__all__ = ["Session", "current"]


@dataclass
class Session:
    """State of one run.

    Attributes:
        arguments: As typed.
        json: Whether the command was asked for JSON.
        resumable: Whether the same command goes on where an interrupted one stopped.
    """

    arguments: list[str]
    json: bool = False
    resumable: bool = False

    def result(self, value: Any) -> None:
        """Write the result as one JSON document on standard output."""
        click.echo(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))

    def error(self, what: str, at: str | None, hint: str | None, exit_code: int) -> None:
        """Write what went wrong on standard error."""
        if self.json:
            line = {"kind": "error", "what": what, "at": at, "hint": hint, "exit_code": exit_code}
            click.echo(json.dumps(line, ensure_ascii=False), err=True)
            return
        click.echo(f"error: {what}", err=True)
        if at:
            click.echo(f"  at   {at}", err=True)
        if hint:
            click.echo(f"  hint {hint}", err=True)

    def traceback(self, error: BaseException) -> None:
        """Write an exception's traceback on standard error."""
        import traceback

        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)

    def bug(self, error: BaseException) -> None:
        """Write a traceback, and that it is our fault."""
        self.traceback(error)
        hint = "please report it with the lines above and the output of 'edgekd doctor'"
        what = f"this is a bug in edgekd {__version__}: {type(error).__name__}: {error}"
        self.error(what, None, hint, 1)

    def interrupted(self) -> None:
        """Write that the run was stopped, and how to go on."""
        if not self.resumable:
            self.error("interrupted", None, None, 130)
            return
        command = shlex.join(["edgekd", *self.arguments])
        what = "interrupted; finished steps and the last checkpoint are kept"
        self.error(what, None, f"to resume: {command}", 130)


def current() -> Session:
    """Return the session of the command that runs."""
    session = click.get_current_context().find_object(Session)
    return session if session is not None else Session(sys.argv[1:])
