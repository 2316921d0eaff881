"""The command line: a lazy group, and the one place where errors become exit codes.

Exit codes: 0 ok · 1 bug, or a stage failed · 2 usage · 3 over budget or regressed · 4 the
environment lacks something · 5 verify failed · 130 interrupted · 141 the reader of the output
closed it. With ``--json`` the result is one JSON document on standard output, written only on
success, and events and errors are one JSON object a line on standard error.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from edgekd.cli.session import Session
from edgekd.errors import EdgekdError, StageError, did_you_mean
from edgekd.version import __version__

__all__ = ["COMMANDS", "cli", "main"]

COMMANDS = {
    "compress": "Distil, quantise, prove and bundle: from a recipe to an artefact.",
    "quantize": "Find the fastest faithful artefact of a network.",
    "export": "Write a network as ONNX; compare its outputs after every pass.",
    "sensitivity": "Quantise one layer, and one class of operators, at a time.",
    "plan": "Print what compress would run, what is cached, and why.",
    "verify": "Prove a bundle again: hashes, schema, golden outputs.",
    "enroll": "Learn classes from a few pictures; bake them into the graph.",
    "profile": "Measure a bundle's latency and memory on a device.",
    "bench": "Measure bundles in turns, in fresh processes; keep a history; draw its trend.",
    "gate": "Judge bundles against accepted ones, measured again side by side.",
    "compare": "Put two bundles, or two files of results, side by side.",
    "report": "Write a bundle's report again.",
    "recipes": "List recipes; show one; start one.",
    "methods": "List the methods of distillation; show one; list the papers.",
    "targets": "List targets; show or validate one; print the schema.",
    "data": "List data; build the embedded set; check your own.",
    "cache": "List the store; explain a miss; free space.",
    "doctor": "Say what this environment lacks, and the command that brings it.",
    "setup": "Make a toolchain's own virtual environment.",
    "completion": "Print a shell's completion script.",
}
"""Name and summary of every command: what ``--help`` shows without importing one."""


class LazyGroup(click.Group):
    """A group whose commands are modules of `edgekd.cli`, imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in reading order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"edgekd.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Offer the closest name when there is no such command."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            hint = did_you_mean(args[0], COMMANDS)
            raise click.UsageError(f"no command is called {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands from `COMMANDS`, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"edgekd {__version__}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 ok, 1 bug, 2 usage, 3 over budget or regressed, 4 environment, "
    "5 verify failed.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """From a teacher network to a proven artefact for one edge device.

    edgekd compress --recipe mobilevit --target cpu
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    if "_EDGEKD_COMPLETE" in os.environ:
        cli.main(prog_name="edgekd")
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: list[str]) -> int:
    """Run the command line; return the exit code."""
    session = Session(arguments)
    try:
        with cli.make_context("edgekd", list(arguments), obj=session) as context:
            cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        return _usage(session, error)
    except EdgekdError as error:
        return _failed(session, error)
    except (KeyboardInterrupt, click.Abort):
        session.interrupted()
        return 130
    except BrokenPipeError:
        _stop_writing()
        return 141
    except Exception as error:  # noqa: BLE001 - said to be a bug, with its traceback
        session.bug(error)
        return 1
    return 0


def _usage(session: Session, error: click.ClickException) -> int:
    if session.json:
        session.error(error.format_message(), None, None, error.exit_code)
    else:
        error.show()
    return error.exit_code


def _failed(session: Session, error: EdgekdError) -> int:
    if isinstance(error, StageError) and error.__cause__ is not None:
        session.traceback(error.__cause__)
    session.error(error.what, error.at, error.hint, error.exit_code)
    return error.exit_code


def _stop_writing() -> None:
    """Keep the interpreter from writing what is left in the buffers to a closed pipe."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
