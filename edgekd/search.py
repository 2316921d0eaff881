"""The search among candidates: build all, prune by proxies, measure and score what is left.

It goes on in turns: where a scored candidate is rejected, the next on the list takes its place,
and what only the rejected one had beaten comes back. It ends when enough candidates hold, or when
nothing is left that could be faster than one that holds.

The recovery candidates of a backend (tier 2: other bias correction, SmoothQuant, a smaller scope,
a student that learns on under rounding) are built only where one of its int8 candidates is
rejected although its proxy promised more speed than all that hold.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgekd import steps
from edgekd.backends.base import Candidate
from edgekd.errors import StageError
from edgekd.events import Emit, Event, silent
from edgekd.run import Walk
from edgekd.spec import Json, Recipe
from edgekd.steps import Step
from edgekd.target import Target
from edgekd.verdict import verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Place", "golden_of", "planned", "search"]

FEW = 3
"""So few candidates need no shortlist."""
FIRST = ("convert", steps.AWARE, "export", "calibrate", "build", "parity", "check")

Facts = Mapping[str, Any]
Course = Generator[Step, Facts | StageError | None, None]
"""Yields steps; is told each one's facts, how it failed, or None where that is not known yet."""


@dataclass(frozen=True)
class Place:
    """Where candidates shall run.

    Attributes:
        target: The class of device.
        absent: Why there is no device; then nothing is pruned by speed.
        there: Its identity, for keys, when it is not this machine.
    """

    target: Target
    absent: str = ""
    there: Mapping[str, Json] | None = None

    @property
    def unmeasured(self) -> str:
        """Why no time is known that could prune or choose; empty when it is."""
        return self.absent or steps.unmeasured(self.there)


def search(walk: Walk, place: Place, chosen: Sequence[Candidate], pick: str | int | None) -> None:
    """Walk the steps of a target up to its choice; a candidate that fails is rejected by name.

    Args:
        walk: The run.
        place: For which device.
        chosen: The candidates of all tiers.
        pick: What the user wants instead of the fastest.

    Raises:
        StageError: Every candidate fails.
        BudgetError: None keeps the limits.
    """
    student = walk.done["distill"].facts
    course = _Search(walk.recipe, place, pick, student, walk.emit).course(chosen)
    answer: Facts | StageError | None = None
    while True:
        try:
            step = course.send(answer)
        except StopIteration:
            return
        try:
            # What another target shares is walked once.
            answer = (walk.done[step.name] if walk.has(step) else walk.step(step)).facts
        except StageError as error:
            answer = error


def planned(
    recipe: Recipe,
    place: Place,
    chosen: Sequence[Candidate],
    pick: str | int | None,
    found: Callable[[str], Facts | None],
) -> Iterator[Step]:
    """Yield the steps that a search walks when nothing fails.

    Args:
        recipe: What is compressed.
        place: For which device.
        chosen: The candidates of all tiers.
        pick: What the user wants.
        found: Facts of a step that was yielded, by name, where its result is kept. Where they are
            missing, the plan goes on as if nothing were pruned, and without recovery.
    """
    student = found("distill")
    course = _Search(recipe, place, pick, student, silent).course(chosen)
    answer: Facts | None = None
    while True:
        try:
            step = course.send(answer)
        except StopIteration:
            return
        yield step
        answer = found(step.name)


def golden_of(walk: Walk, candidate: str) -> dict[str, NDArray[Any]]:
    """Golden inputs, and as ``output:NAME`` what a candidate gave for them in its own runtime."""
    import numpy as np

    with (
        np.load(walk.whole("export").path / "golden.npz") as source,
        np.load(walk.whole(f"parity:{candidate}").path / "outputs.npz") as own,
    ):
        inputs = {n: source[n] for n in source.files if not n.startswith("output:")}
        return {**inputs, **{n: own[n] for n in own.files}}


class _Search:
    """Candidates on their way to a choice.

    Attributes:
        facts: What is known of the steps so far.
        lost: Candidate → why it could not be built or run.
        verdicts: Scored candidate → why it is rejected; empty when it holds.
        dropped: Rows that the last shortlist left out.
    """

    def __init__(
        self,
        recipe: Recipe,
        place: Place,
        pick: str | int | None,
        student: Facts | None,
        emit: Emit,
    ) -> None:
        self._recipe, self._place, self._pick = recipe, place, pick
        self._student, self._goal = student, student and student["val"]
        self._emit = emit
        self._turn = 0
        self.facts: dict[str, Facts] = {}
        self.lost: dict[str, str] = {}
        self.verdicts: dict[str, str] = {}
        self.dropped: list[Facts] = []

    def course(self, chosen: Sequence[Candidate]) -> Course:
        """Yield the steps up to the choice."""
        tried = [c for c in chosen if c.tier != 2 or c.id == self._pick]
        yield from self._prove(tried)
        more = self._recovery(chosen, tried)
        if more:
            where = f"target {self._place.target.name}"
            self._emit(Event("note", where, f"recovery: {', '.join(more)}"))
            tried = [c for c in chosen if c in tried or c.id in more]
            yield from self._prove(tried)
        place = self._place
        rest = (self._pick, place.unmeasured, self.lost, self.dropped)
        for step in steps.finished(self._recipe, place.target, tried, *rest):
            answer = yield step
            if isinstance(answer, StageError):
                raise answer

    def _prove(self, chosen: Sequence[Candidate]) -> Course:
        """Build all; prune, measure and score until enough hold."""
        place = self._place
        where = (place.absent, place.there, self._student)
        planned = steps.built(self._recipe, place.target, chosen, *where)
        for step in planned:
            if step.name.partition(":")[0] in FIRST and step.name not in self.facts:
                yield from self._try(step, chosen)
        while True:
            left = [c for c in chosen if c.id not in self.lost]
            kept = yield from self._shortlist(left)
            fresh = [name for name in kept if name not in self.verdicts]
            for name in fresh:
                yield from self._score(name, planned, chosen)
            known = all(name in {*self.verdicts, *self.lost} for name in fresh)
            if not fresh or not known or not self._narrows(left):
                break
        # Whatever the shortlist holds of it, what the user names is scored; nothing else changes.
        asked = [row for row in self.dropped if row["candidate"] == self._pick]
        if asked and asked[0]["why"].startswith("proxy: "):
            self.dropped.remove(asked[0])
            yield from self._score(str(self._pick), planned, chosen)

    def _score(self, name: str, planned: Sequence[Step], chosen: Sequence[Candidate]) -> Course:
        """Score and time one candidate."""
        for step in planned:
            if step.name in (f"val:{name}", f"profile:{name}"):
                yield from self._try(step, chosen)
        self._judge(name)

    def _narrows(self, left: Sequence[Candidate]) -> bool:
        return not self._place.unmeasured and len(left) > FEW

    def _shortlist(self, left: Sequence[Candidate]) -> Generator[Step, Any, list[str]]:
        """Yield the step that prunes; return the candidates to be scored, all when it is moot."""
        names = [c.id for c in left]
        if not self._narrows(left):
            return names
        self._turn += 1
        verdicts = {name: why for name, why in self.verdicts.items() if name in names}
        target = self._place.target
        answer = yield steps.shortlisted(target, left, verdicts, self._turn)
        if isinstance(answer, StageError):
            raise answer
        if answer is None:
            return names
        self.dropped = list(answer["dropped"])
        kept: list[str] = answer["kept"]
        return kept

    def _try(self, step: Step, chosen: Sequence[Candidate]) -> Course:
        """Yield a step, if a candidate still needs it; whoever needs it is lost when it fails."""
        needy = [name for name in _needing(step.name, chosen) if name not in self.lost]
        if not needy:
            return
        answer = yield step
        if isinstance(answer, StageError):
            if not {c.id for c in chosen} - {*self.lost, *needy}:
                raise answer
            why = f"{step.name.partition(':')[0]}: {answer.what}"
            self.lost |= dict.fromkeys(needy, why)
            rejected = f"{answer.what}; {', '.join(needy)} is rejected"
            self._emit(Event("warning", step.name, rejected))
        elif answer is not None:
            self.facts[step.name] = answer

    def _judge(self, name: str) -> None:
        """Remember whether a scored candidate holds, where that is known."""
        built, val = self.facts.get(f"build:{name}"), self.facts.get(f"val:{name}")
        if self._goal is None or built is None or val is None:
            return
        profile = self.facts.get(f"profile:{name}")
        if profile is None and not self._place.absent:
            return
        target = self._place.target
        known = None if self._place.unmeasured else profile
        limits = (steps.metric_drop(self._recipe, target), steps.budget(target))
        latency = known and known["latency"]
        self.verdicts[name] = verdict(built["bytes"], val, latency, self._goal, *limits)

    def _recovery(self, chosen: Sequence[Candidate], tried: Sequence[Candidate]) -> list[str]:
        """Return the candidates of tier 2 that a rejected one calls for."""
        if self._place.unmeasured:
            return []
        by = steps.time_by(self._place.target)
        held = [self._quick(name, by) for name, why in self.verdicts.items() if not why]
        best = min(held, default=float("inf"))
        called = {
            c.backend
            for c in tried
            if c.precision.startswith("int")
            and self.verdicts.get(c.id)
            and self._quick(c.id, by) < best
        }
        return [c.id for c in chosen if c not in tried and c.backend in called]

    def _quick(self, name: str, by: str) -> float:
        value: float = self.facts[f"parity:{name}"]["quick"][by]
        return value


def _needing(step: str, chosen: Sequence[Candidate]) -> list[str]:
    """Return the candidates that cannot do without a step."""
    part, _, identity = step.partition(":")
    if steps.AWARE in (part, identity):
        return [c.id for c in chosen if c.bits]
    if part == "calibrate":
        return [c.id for c in chosen if c.prepared and not c.bits]
    if part == "convert":
        return steps.converted(chosen)
    same = [c.id for c in chosen if part == "build" and c.same_as == identity]
    return [identity, *same]
