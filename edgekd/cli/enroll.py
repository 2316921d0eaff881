"""``edgekd enroll``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgekd.cli import text
from edgekd.cli.options import bundle, json_output
from edgekd.cli.session import current

__all__ = ["command"]


@click.command("enroll")
@bundle
@click.argument("examples", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="New folder for head.npz, enrolled.json and, of an ONNX artefact, model.onnx.",
)
@json_output
def command(bundle: Path, examples: Path, out: Path) -> None:
    """Learn classes from a few pictures; bake them into the graph.

    EXAMPLES holds one folder of images a class. The bundle must be of a few-shot recipe; its
    artefact makes the features, in its own runtime.
    """
    from edgekd.enroll import enroll

    facts = enroll(bundle, examples, out)
    if current().json:
        current().result(facts)
    else:
        click.echo(text.table([*_lines(facts), ("written", str(out))]))


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    left, baked = facts["leave_one_out"], facts["baked"]
    pictures = sum(facts["classes"].values())
    return [
        ("enrolled", f"{len(facts['classes'])} classes from {pictures} pictures"),
        (
            "leave one out",
            f"not run: {left['not_run']}"
            if "not_run" in left
            else f"{left['accuracy']:.4f} of {left['n']} pictures right",
        ),
        (
            "graph with head",
            f"not run: {baked['not_run']}"
            if "not_run" in baked
            else f"answers as the Enroller on {baked['agreement']} of {baked['n']} pictures",
        ),
    ]
