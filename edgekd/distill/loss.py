"""The objective on one batch: the weighted sum of its terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from edgekd.distill import terms
from edgekd.distill.student import Student
from edgekd.distill.weights import factor, gap
from edgekd.errors import RecipeError
from edgekd.spec import Term


@dataclass(frozen=True)
class Batch:
    """One step's samples.

    Attributes:
        x: Prepared inputs.
        y: Labels.
        teacher: Taps of the teacher.
        indices: Places in the training split; −1 for a sample of a rollout.
    """

    x: Tensor
    y: Tensor
    teacher: Mapping[str, Tensor] = field(default_factory=dict)
    indices: Tensor | None = None

    def join(self, other: Batch) -> Batch:
        """Both, one after the other."""
        taps = {n: torch.cat((v, other.teacher[n])) for n, v in self.teacher.items()}
        places = None
        if self.indices is not None and other.indices is not None:
            places = torch.cat((self.indices, other.indices))
        return Batch(torch.cat((self.x, other.x)), torch.cat((self.y, other.y)), taps, places)

    def cut(self, count: int) -> list[Batch]:
        """Micro-batches of equal size."""
        if count == 1:
            return [self]
        size = -(-len(self.y) // count)
        return [self._some(slice(at, at + size)) for at in range(0, len(self.y), size)]

    def _some(self, rows: slice) -> Batch:
        taps = {name: value[rows] for name, value in self.teacher.items()}
        places = None if self.indices is None else self.indices[rows]
        return Batch(self.x[rows], self.y[rows], taps, places)

    def to(self, device: torch.device) -> Batch:
        """Move to a device."""
        taps = {name: value.to(device) for name, value in self.teacher.items()}
        places = None if self.indices is None else self.indices.to(device)
        return Batch(self.x.to(device), self.y.to(device), taps, places)


def objective_loss(
    student: Student,
    taps: Mapping[str, Tensor],
    batch: Batch,
    *,
    smoothing: float = 0.0,
    at: float = 1.0,
    base: Path | None = None,
    peer: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Value of the student's objective.

    Args:
        student: Its projectors and learned parts are used.
        taps: What the student returned.
        batch: Labels and teacher.
        smoothing: Of the label term's cross entropy.
        at: Share of the steps done.
        base: Folder of the recipe, for divergences of its own.
        peer: Taps of the student beside it.
    """
    total: Tensor | None = None
    for place, term in enumerate(student.objective.terms):
        weight = term.weight * factor(term.ramp, at)
        if weight == 0:
            continue
        if not term.source:
            value = terms.against_label(term, taps, batch.y, smoothing=smoothing, base=base)
        else:
            value = terms.compare(
                term,
                student.project(place, taps[term.tap].float()),
                student.narrow(place, _other(term.source, taps, batch, peer).float()),
                labels=batch.y,
                indices=batch.indices,
                part=student.part(place),
                base=base,
                bound=student.bound(place, base),
            )
        if term.gate == "gap":
            value = value * _gap(term, taps, batch, peer)
        value = value if weight == 1 else weight * value
        total = value if total is None else total + value
    return torch.zeros((), device=batch.x.device) if total is None else total


def _other(
    source: str, taps: Mapping[str, Tensor], batch: Batch, peer: Mapping[str, Tensor] | None
) -> Tensor:
    """The other side of a term: a teacher's tap, or the student's own or its peer's."""
    if source in batch.teacher:
        return batch.teacher[source]
    side, _, name = source.partition(":")
    return (taps if side == "self" else peer or {})[name]


def _gap(
    term: Term, taps: Mapping[str, Tensor], batch: Batch, peer: Mapping[str, Tensor] | None
) -> Tensor:
    """How far the teacher is ahead on this batch."""
    who, _ = term.told_by
    try:
        theirs = _other(f"{who}:logits" if who else "logits", taps, batch, peer)
    except KeyError as error:
        raise RecipeError(
            f"term {term.divergence!r} is gated by the gap to the teacher, which offers no logits",
            at="recipe: objective",
            hint="gate='none'",
        ) from error
    return gap(taps["logits"].float(), theirs.float(), batch.y)
