"""Run and time a session: what comes out, how long it takes, what it costs."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from . import facts, power, process
from .arrays import check_feeds
from .faults import UsageFault
from .runtimes.session import Session, Step

if TYPE_CHECKING:
    from .arrays import Array, Arrays


@dataclass(frozen=True)
class Plan:
    """How to time a session: inferences to warm up and to count, and when to stop early."""

    warmup: int
    runs: int
    max_seconds: float
    cpu_block: int

    def __post_init__(self) -> None:
        """Refuse a plan that measures nothing."""
        if self.warmup < 0 or self.runs < 1 or self.cpu_block < 1 or self.max_seconds <= 0:
            raise UsageFault(
                "timing wants warmup >= 0, runs >= 1, cpu_block >= 1, max_seconds > 0; got "
                f"{self.warmup}, {self.runs}, {self.cpu_block}, {self.max_seconds}"
            )


def run_all(session: Session, feeds: Arrays, batch: int) -> tuple[Arrays, dict[str, Any]]:
    """Run every sample (axis 0) in batches.

    A model with a fixed batch keeps it, whatever `batch` says: its last batch is filled up with
    the last sample and the surplus outputs are dropped.

    Returns:
        The outputs by name, and facts: n, batch, seconds, cpu_seconds, nonfinite by output.
    """
    n = check_feeds(session.inputs, feeds)
    fixed = _fixed_batch(session)
    size = fixed or batch
    if size < 1:
        raise UsageFault(f"the batch must be at least 1; got {batch}")
    outputs: Arrays = {}
    wall, cpu = time.perf_counter(), time.process_time()
    for start in range(0, n, size):
        stop = min(start + size, n)
        rows = np.arange(start, start + size if fixed else stop).clip(max=n - 1)
        results = session.run({name: array[rows] for name, array in feeds.items()})
        for name, result in results.items():
            _place(outputs, name, result, n, (start, stop), len(rows))
    return outputs, {
        "n": n,
        "batch": size,
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "nonfinite": {name: _nonfinite(array) for name, array in outputs.items()},
    }


def _fixed_batch(session: Session) -> int | None:
    """Return the batch that the model's inputs insist on, or None where they are free."""
    first = [port.shape[0] for port in session.inputs if port.shape]
    sizes = {size for size in first if size is not None}
    if len(sizes) > 1:
        raise UsageFault(f"the model's inputs have different first dimensions: {sorted(sizes)}")
    return sizes.pop() if sizes else None


def _place(
    outputs: Arrays,
    name: str,
    result: Array,
    n: int,
    span: tuple[int, int],
    batch: int,
) -> None:
    """Put the rows of one batch into the whole output, made at the first batch."""
    if result.ndim == 0 or result.shape[0] != batch:
        raise UsageFault(
            f"output {name!r} has shape {list(result.shape)} for a batch of {batch}; "
            "its first axis must count samples"
        )
    whole = outputs.setdefault(name, np.empty((n, *result.shape[1:]), result.dtype))
    if whole.shape[1:] != result.shape[1:]:
        raise UsageFault(
            f"output {name!r} changes its shape from batch to batch: "
            f"{list(whole.shape[1:])}, then {list(result.shape[1:])}"
        )
    start, stop = span
    whole[start:stop] = result[: stop - start]


def _nonfinite(array: Array) -> int:
    """Count NaN and infinite values, row by row to keep memory bounded."""
    if array.dtype.kind not in "fc":
        return 0
    return sum(int(row.size - np.isfinite(row).sum()) for row in array)


def time_session(session: Session, feeds: Arrays, plan: Plan, *, fresh: bool) -> dict[str, Any]:
    """Time single inferences over the given samples, in turn.

    Args:
        session: What to time; a fixed batch must be 1.
        feeds: A few samples; each is copied and bound before the clock starts.
        plan: How often, and for how long at most.
        fresh: Whether the session has not run yet, so that its first inference is a cold one.

    Returns:
        ``wall_ns`` of each inference, ``cpu_ns`` per inference of each block, and the state of
        the machine before and after. Where the runtime's own tool times it, in processes of its
        own, there is no ``cpu_ns`` and no memory.
    """
    n = check_feeds(session.inputs, feeds)
    if _fixed_batch(session) not in (None, 1):
        raise UsageFault(f"latency is timed at batch 1; the model insists on {session.inputs}")
    state = facts.state()
    traced = session.trace(plan.runs, plan.max_seconds)
    if traced is not None:
        return _traced(session, traced, plan, state)
    steps = cycle([session.bind(_sample(feeds, row)) for row in range(n)])
    deadline = time.perf_counter_ns() + int(plan.max_seconds * 1e9)
    first: list[int] = []
    _block(steps, 1 if fresh else 0, deadline, first)
    warmup = first.copy()
    _block(steps, max(plan.warmup - len(first), 0), deadline, warmup)
    before, switches = facts.state(), process.involuntary_switches()
    wall, cpu = _blocks(steps, plan, deadline)
    switches, after = process.involuntary_switches() - switches, facts.state()
    rss = process.rss_mib()  # before the peak: reading either takes memory itself
    return {
        "first_ms": first[0] / 1e6 if first else None,
        "wall_ns": wall,
        "cpu_ns": cpu,
        "cpu_block": plan.cpu_block,
        "warmup": len(warmup),
        "threads": session.effective.get("threads"),
        "peak_rss_mib": process.peak_rss_mib(),
        "rss_mib": rss,
        "involuntary_switches": switches,
        "before": before,
        "after": after,
        "throttled": facts.throttled(before["throttle"], after["throttle"]),
    }


def _traced(
    session: Session, milliseconds: list[float], plan: Plan, before: dict[str, Any]
) -> dict[str, Any]:
    after = facts.state()
    return {
        "first_ms": None,
        "wall_ns": [round(ms * 1e6) for ms in milliseconds],
        "cpu_ns": [],
        "cpu_block": plan.cpu_block,
        "warmup": 0,
        "threads": session.effective.get("threads"),
        "peak_rss_mib": None,
        "rss_mib": None,
        "involuntary_switches": None,
        "before": before,
        "after": after,
        "throttled": facts.throttled(before["throttle"], after["throttle"]),
    }


def energy_session(
    session: Session, feeds: Arrays, *, seconds: float, idle_s: float
) -> dict[str, Any]:
    """Measure the energy of an inference: the board at rest, then inferences without a pause.

    Apart from the timing, so that reading the sensors disturbs no latency.

    Args:
        session: What to run; a fixed batch must be 1.
        feeds: A few samples, taken in turn.
        seconds: How long inferences run.
        idle_s: How long the board rests before.

    Returns:
        As `edgekd.agent.power.energy` and ``runs``; ``not_run`` where there is no sensor.
    """
    n = check_feeds(session.inputs, feeds)
    told = session.energy()
    if told is not None:
        return told
    sampler = power.sampler()
    if sampler is None:
        return {"not_run": "no power sensor on this machine (INA3221, or tegrastats)"}
    steps = _endless(session, feeds, n)
    with sampler() as rest:
        time.sleep(idle_s)
    with sampler() as busy:
        start = time.monotonic()
        runs = _keep_busy(steps, seconds)
        stop = time.monotonic()
    idle = power.mean_mw(rest.samples)
    found = power.energy(busy.samples, start, stop, runs, idle)
    return {**found, "runs": runs, "lost_samples": busy.lost + rest.lost}


def layers_session(session: Session, feeds: Arrays, *, runs: int) -> dict[str, Any]:
    """Return the median time of each layer at batch 1, largest first; ``not_run`` and why.

    Args:
        session: What to profile.
        feeds: Samples, of which the first is run.
        runs: Inferences.
    """
    check_feeds(session.inputs, feeds)
    if _fixed_batch(session) not in (None, 1):
        raise UsageFault(f"layers are timed at batch 1; the model insists on {session.inputs}")
    found = session.layers(_sample(feeds, 0), runs)
    if found is None:
        return {"not_run": "this runtime tells no times of layers"}
    ordered = sorted(found, key=lambda layer: -layer.ms)
    return {"runs": runs, "layers": [[layer.name, layer.kind, layer.ms] for layer in ordered]}


def busy_session(
    session: Session, feeds: Arrays, *, seconds: float, idle_s: float
) -> dict[str, Any]:
    """Run inferences without a pause while somebody else's meter looks on.

    Args:
        session: What to run; a fixed batch must be 1.
        feeds: A few samples, taken in turn.
        seconds: How long inferences run.
        idle_s: How long the board rests before.

    Returns:
        ``runs``; by this machine's clock (seconds since 1970) ``rest``, ``start``, ``stop`` and
        ``now``.
    """
    n = check_feeds(session.inputs, feeds)
    steps = _endless(session, feeds, n)
    rest = time.time()
    time.sleep(idle_s)
    start = time.time()
    runs = _keep_busy(steps, seconds)
    return {"runs": runs, "rest": rest, "start": start, "stop": time.time(), "now": time.time()}


def _endless(session: Session, feeds: Arrays, n: int) -> Iterator[Step]:
    """Return inferences without end; the first one, which is slow, has been made."""
    if _fixed_batch(session) not in (None, 1):
        raise UsageFault(f"energy is measured at batch 1; the model insists on {session.inputs}")
    steps = cycle([session.bind(_sample(feeds, row)) for row in range(n)])
    next(steps)()
    return steps


def _keep_busy(steps: Iterator[Step], seconds: float) -> int:
    runs, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        next(steps)()
        runs += 1
    return runs


def _sample(feeds: Arrays, row: int) -> Arrays:
    return {name: np.array(array[row : row + 1]) for name, array in feeds.items()}


def _blocks(steps: Iterator[Step], plan: Plan, deadline: int) -> tuple[list[int], list[int]]:
    """Run the counted inferences; a block cut short counts only where there is no whole one."""
    wall: list[int] = []
    cpu: list[int] = []
    gc.collect()
    gc.disable()
    try:
        while len(wall) < plan.runs and (not wall or time.perf_counter_ns() < deadline):
            size = min(plan.cpu_block, plan.runs - len(wall))
            count, spent = _block(steps, size, deadline, wall)
            if count == plan.cpu_block or not cpu:
                cpu.append(spent // count)
    finally:
        gc.enable()
    return wall, cpu


def _block(steps: Iterator[Step], size: int, deadline: int, wall: list[int]) -> tuple[int, int]:
    """Run up to `size` inferences, adding their wall times; return their number and CPU time.

    Everything is bound before the loop: it adds two clock readings and a list append.
    """
    clock, keep = time.perf_counter_ns, wall.append
    count, start = 0, time.process_time_ns()
    for step in islice(steps, size):
        begin = clock()
        step()
        end = clock()
        keep(end - begin)
        count += 1
        if end > deadline:
            break
    return count, time.process_time_ns() - start
