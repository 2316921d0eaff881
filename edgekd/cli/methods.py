"""``edgekd methods``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgekd.cli import text
from edgekd.cli.options import json_output
from edgekd.cli.session import current
from edgekd.errors import UsageError

if TYPE_CHECKING:
    from edgekd.distill.presets import Paper, Preset
    from edgekd.spec import Term

__all__ = ["command"]


@click.command("methods")
@click.argument("name", required=False)
@click.option("--papers", is_flag=True, help="The founding papers, and how each is stated.")
@json_output
def command(name: str | None, papers: bool) -> None:
    """List the methods of distillation; show one; list the papers."""
    from edgekd.distill import presets

    if papers and name is not None:
        raise UsageError("--papers lists all papers", hint="edgekd methods --papers")
    if current().json:
        found: Any = presets.papers() if papers else presets.methods(name)
        current().result([one.facts() for one in found])
    elif papers:
        click.echo("\n".join(_paper(one) for one in presets.papers()))
    elif name is not None:
        click.echo(_shown(presets.preset(name)))
    else:
        rows = [
            (p.name, p.fidelity, p.access, ",".join(p.needs) or "–", p.title)
            for p in presets.methods()
        ]
        click.echo(text.table(rows, header=("METHOD", "FIDELITY", "TEACHER", "NEEDS", "WHAT")))


def _paper(paper: Paper) -> str:
    named = f" [{', '.join(paper.presets)}]" if paper.presets else ""
    head = f"{paper.number}  {paper.title} (arXiv {paper.paper}): {paper.status}{named}"
    return f"{head}\n{text.table([('   ', paper.how)])}"


def _shown(preset: Preset) -> str:
    rows = [
        ("minimises", preset.formula),
        ("paper", preset.paper),
        ("fidelity", preset.fidelity),
        ("teacher", f"shows {preset.access}" if preset.access != "none" else "none is needed"),
        ("needs", ", ".join(preset.needs) or "labels"),
        ("wave", str(preset.wave)),
        *([("init", preset.init)] if preset.init != "random" else []),
        *([("note", preset.note)] if preset.note else []),
        *(("term", _term(term)) for term in preset.terms),
    ]
    return f"{preset.name}: {preset.title}\n\n{text.indent(text.table(rows))}"


def _term(term: Term) -> str:
    """Return a term as it is written in a recipe."""
    words = [f"{term.tap!r}, {term.divergence!r}"]
    defaults = {"transform": "identity", "project": "none", "teacher": "", "gate": "none"}
    words += [f"{n}={getattr(term, n)!r}" for n, d in defaults.items() if getattr(term, n) != d]
    words += [f"weight={term.weight:g}"] if term.weight != 1 else []
    words += [f"args={dict(term.args)}"] if term.args else []
    words += [f"ramp={term.ramp}"] if term.ramp else []
    return f"Term({', '.join(words)})"
