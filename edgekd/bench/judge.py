"""From paired rounds to verdicts: what is decided, by which witness, and when to stop.

The family of a job is every (pair of bundles × witness); Holm corrects over it, so that a job of
many bundles raises a false alarm as rarely as a job of one. A regression is claimed when the
shift is significant after both corrections (looks, family) *and* larger than the tolerance.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from edgekd.bench.measure import Process, log_ratios
from edgekd.bench.stats import Looks, Shift, holm, pair_shift

Pair = tuple[Process, Process]
"""Baseline and candidate of one round."""

WITNESSES = ("cpu", "wall", "memory")
"""What every round shows; energy joins them on a board that has a power sensor."""
UNMEASURED = 4
"""Exit code when a board was missing or two sides cannot be compared."""
KERNEL_APART = 0.10
"""Reference kernels that differ by more mean that the two sides did not run on one machine."""

REGRESSED, IMPROVED, OK, NOISE = "regressed", "improved", "ok", "within noise"
OVER = "over budget"


LOOKS = Looks((11, 15, 20), (0.5, 0.2, 0.3))
"""Eleven signs are the fewest that can be significant for three witnesses at 1 % by half of it."""


@dataclass(frozen=True)
class Rule:
    """When a difference counts.

    Attributes:
        alpha: Largest chance that a whole job of unchanged artefacts raises any alarm.
        tolerance: Relative change below which nothing is claimed.
        looks: When rounds are tested.
    """

    alpha: float = 0.01
    tolerance: float = 0.01
    looks: Looks = LOOKS

    @property
    def rounds(self) -> int:
        """The most rounds there will be."""
        return self.looks.rounds[-1]


@dataclass(frozen=True)
class Finding:
    """What one witness says about one pair of bundles.

    Attributes:
        worse: Sequential p-value of "the candidate costs more", not yet corrected by Holm.
        better: Sequential p-value of "the candidate costs less".
        shift: Hodges–Lehmann shift with its 95 % interval.
    """

    worse: float
    better: float
    shift: Shift

    def verdict(self, rule: Rule, worse: float, better: float) -> str:
        """Return the verdict.

        Args:
            rule: The rule.
            worse: ``self.worse`` after Holm.
            better: ``self.better`` after Holm.
        """
        if worse <= rule.alpha and self.shift.value > rule.tolerance:
            return REGRESSED
        if better <= rule.alpha and self.shift.value < -rule.tolerance:
            return IMPROVED
        return OK if self.shift.high < rule.tolerance else NOISE


@dataclass(frozen=True)
class Check:
    """One line of the outcome.

    Attributes:
        bundle: Name of the candidate.
        name: What was checked: ``latency``, ``memory``, ``size``, ``budget latency_p50_ms`` ….
        verdict: ``ok``, ``improved``, ``regressed``, ``over budget``, ``within noise``,
            ``not comparable: …`` or ``not run: …``.
        decided_by: The witness that decided, in words.
        baseline: Value of the baseline.
        candidate: Value of the candidate.
        unit: Of both.
        shift: Relative change of each witness: ``value``, ``low``, ``high``, ``p`` after Holm.
        why: What else one should know.
    """

    bundle: str
    name: str
    verdict: str
    decided_by: str = ""
    baseline: float | None = None
    candidate: float | None = None
    unit: str = ""
    shift: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    why: str = ""

    @property
    def failed(self) -> bool:
        """Whether this check makes the job fail."""
        return self.verdict in (REGRESSED, OVER)

    @property
    def unmeasured(self) -> bool:
        """Whether something stood in the way of a verdict."""
        return self.verdict.startswith(("not comparable", "not run: no device"))

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def witnesses(pairs: Sequence[Pair]) -> tuple[str, ...]:
    """Return what every one of these rounds showed of both sides."""
    weighed = bool(pairs) and all(p.energy_mj is not None for pair in pairs for p in pair)
    return (*WITNESSES, "energy") if weighed else WITNESSES


def findings(pairs: Sequence[Pair], looks: Looks) -> dict[str, Finding]:
    """Return what each witness says after these rounds."""
    logs = [log_ratios(*pair) for pair in pairs]
    return {name: _finding([row[name] for row in logs], looks) for name in witnesses(pairs)}


def _finding(logs: Sequence[float], looks: Looks) -> Finding:
    return Finding(looks.p_value(logs), looks.p_value(logs, -1), pair_shift(logs))


def settled(pairs: Sequence[Pair], rule: Rule, family: int, *, processor: bool = True) -> bool:
    """Tell whether more rounds can be spared.

    Args:
        pairs: All rounds so far.
        rule: The rule.
        family: Hypotheses of the job; a verdict here holds whatever the others turn out to be.
        processor: Whether the artefact computes on the processor whose time is counted, so that
            a settled processor time settles latency.
    """
    if len(pairs) >= rule.rounds:
        return True
    if len(pairs) not in rule.looks.rounds:
        return False
    found = {
        name: one.verdict(rule, min(1.0, one.worse * family), min(1.0, one.better * family))
        for name, one in findings(pairs, rule.looks).items()
    }
    latency = REGRESSED in (found["cpu"], found["wall"]) or found["cpu" if processor else "wall"]
    return NOISE not in (latency, found["memory"], found.get("energy"))


def judge(
    measured: Mapping[str, Sequence[Pair]], rule: Rule, processor: Mapping[str, bool]
) -> list[Check]:
    """Return latency, memory and measured energy of every bundle of a job.

    Corrected over all of them together.
    """
    found = {bundle: findings(pairs, rule.looks) for bundle, pairs in measured.items()}
    worse = holm({f"{b}/{w}": f.worse for b, each in found.items() for w, f in each.items()})
    better = holm({f"{b}/{w}": f.better for b, each in found.items() for w, f in each.items()})
    checks = []
    for bundle, each in found.items():
        names = {w: (worse[f"{bundle}/{w}"], better[f"{bundle}/{w}"]) for w in each}
        verdicts = {w: f.verdict(rule, *names[w]) for w, f in each.items()}
        shifts = {
            w: {**asdict(f.shift), "p_worse": names[w][0], "p_better": names[w][1]}
            for w, f in each.items()
        }
        checks += _checks(bundle, measured[bundle], verdicts, shifts, processor[bundle])
    return checks


def _checks(
    bundle: str,
    pairs: Sequence[Pair],
    verdicts: Mapping[str, str],
    shifts: Mapping[str, Mapping[str, float]],
    processor: bool,
) -> list[Check]:
    apart = comparable(pairs)
    latency, witness = _latency(verdicts, processor)
    rows: list[tuple[str, str, str, str, str, tuple[str, ...]]] = [
        ("latency", latency, WORDS[witness], "p50", "ms", ("cpu", "wall")),
        ("memory", verdicts["memory"], WORDS["memory"], "peak_rss_mib", "MiB", ("memory",)),
    ]
    if "energy" in verdicts:
        decided = WORDS["energy"]
        rows.append(("energy", verdicts["energy"], decided, "energy_mj", "mJ", ("energy",)))
    return [
        Check(
            bundle,
            name,
            apart or verdict,
            "" if apart else decided,
            middle([a for a, _ in pairs], value),
            middle([b for _, b in pairs], value),
            unit,
            {w: shifts[w] for w in witnesses},
        )
        for name, verdict, decided, value, unit, witnesses in rows
    ]


WORDS = {
    "cpu": "processor time",
    "wall": "wall time",
    "memory": "peak resident memory",
    "energy": "energy above idle",
}
UNITS = {"cpu": "ms", "wall": "ms", "memory": "MiB", "energy": "mJ"}


def _latency(verdicts: Mapping[str, str], processor: bool) -> tuple[str, str]:
    """Return the verdict on latency and who decided it: the sturdier witness unless it is mute."""
    order = ("cpu", "wall") if processor else ("wall", "cpu")
    for wanted in (REGRESSED, IMPROVED):
        for witness in order:
            if verdicts[witness] == wanted:
                return wanted, witness
    return verdicts[order[0]], order[0]


def comparable(pairs: Sequence[Pair]) -> str:
    """Return why two sides cannot be compared; empty when they can."""
    if any(process.throttled for pair in pairs for process in pair):
        return "not comparable: the machine throttled"
    kernels = [statistics.median(pair[side].kernel_ms for pair in pairs) for side in (0, 1)]
    if max(kernels) > (1 + KERNEL_APART) * min(kernels):
        return "not comparable: clocks differ"
    return ""


def middle(processes: Sequence[Process], value: str) -> float:
    """Return the median over processes of a quantile of wall time, or of a field."""
    return statistics.median(
        p.quantiles_ms[value] if value in p.quantiles_ms else float(getattr(p, value))
        for p in processes
    )


def exit_code(checks: Sequence[Check]) -> int:
    """Return 3 when a check failed, else 4 when one could not be made, else 0."""
    if any(check.failed for check in checks):
        return 3
    return UNMEASURED if any(check.unmeasured for check in checks) else 0


def in_words(checks: Sequence[Check]) -> str:
    """Return a job's verdict: ``passed``, ``failed: …`` or ``not measured: …``."""
    failed = [f"{check.bundle} {check.name}" for check in checks if check.failed]
    if failed:
        return f"failed: {', '.join(failed)}"
    unmeasured = [f"{check.bundle} {check.name}" for check in checks if check.unmeasured]
    return f"not measured: {', '.join(unmeasured)}" if unmeasured else "passed"
