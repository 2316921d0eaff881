"""Measure artefacts side by side: fresh processes, alive together, timed in alternating blocks.

A round starts one fresh process for each contestant, in an order drawn at random, warms them up,
and then lets them take turns, a block of a few inferences each: A B B A A B …. Whatever else the
machine does at that moment meets all of them alike. What differs from process to process (where
the loader put things) is met by starting anew in every round.
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgekd.bundle import Bundle, open_bundle
from edgekd.device.link import Agent, Loaded, Timing, agent_command
from edgekd.device.reach import reach
from edgekd.device.ssh import Ssh
from edgekd.errors import SetupError, UsageError

SAMPLES = 8
"""Golden inputs that are cycled over."""
_SETTLE = 2
"""Inferences at the start of each block that are not counted: the other side used the caches."""
_MOST_IN_A_BLOCK = 5000
_CPU_SAMPLE_MS = 1.0
"""Processor time is read after so long at the earliest: reading it costs about a microsecond."""


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        threads: Threads of the runtime.
        warmup: Inferences before anything counts.
        blocks: Blocks of each process in a round.
        block_ms: Length of a block, in milliseconds of the slower contestant's inferences.
        pin: Core to run on, None for any.
        on: Where the board is; see `edgekd.device.reach`.
        energy_s: Seconds of inferences whose energy is taken in every round, after the timing,
            where the board has a power sensor.
    """

    threads: int = 1
    warmup: int = 20
    blocks: int = 8
    block_ms: float = 20.0
    pin: int | None = None
    on: str = "local"
    energy_s: float = 2.0


@dataclass(frozen=True)
class Contestant:
    """An artefact to measure.

    Attributes:
        label: How it is called in the results.
        main: File to load.
        runtime: Runtime of the agent.
        options: Load options of that runtime.
        feeds: Inputs by name, as ``.npy`` files.
    """

    label: str
    main: Path
    runtime: str
    options: Mapping[str, Any]
    feeds: Mapping[str, Path]


@dataclass(frozen=True)
class Process:
    """What one fresh process showed.

    Attributes:
        label: The contestant.
        round: Number of the round, from 0.
        place: Which in the round it was started as.
        cpu_ms: Median processor time of an inference, of each block.
        cpu_least_ms: The least processor time of an inference in any block. On a shared machine
            the median jumps with what the neighbours do (a busy sibling thread costs a third);
            the least is what the artefact needs when it is left alone for a millisecond.
        wall_ms: Median wall time of each block's inferences.
        quantiles_ms: p50, p90 and p99 of the wall time of all counted inferences.
        peak_rss_mib: Peak resident memory.
        rss_mib: Resident memory before the runtime, with the model, after the first inferences,
            and at the end, where the machine tells it.
        first_ms: The first inference.
        import_s: Seconds to import the runtime.
        load_s: Seconds to make the model ready.
        kernel_ms: Processor time of the reference kernel, see `edgekd.agent.kernel`.
        kernel: Its name.
        inferences: How many were counted.
        timed_s: Wall time of the counted inferences.
        startup_s: Wall time of everything before them: start, load, warm-up.
        load: Load average over a minute.
        throttled: Whether a throttle counter rose; None where there are none.
        clock_mhz: Mean clock of the cores at the end; None where the machine does not tell.
        governor: Frequency governor.
        version: Version of the runtime.
        effective: What really ran, as read back.
        energy: Of an inference, see `edgekd.agent.power.energy`; else ``not_run`` and why.
    """

    label: str
    round: int
    place: int
    cpu_ms: tuple[float, ...]
    cpu_least_ms: float
    wall_ms: tuple[float, ...]
    quantiles_ms: Mapping[str, float]
    peak_rss_mib: float
    rss_mib: Mapping[str, float | None]
    first_ms: float | None
    import_s: float
    load_s: float
    kernel_ms: float
    kernel: str
    inferences: int
    timed_s: float
    startup_s: float
    load: float
    throttled: bool | None
    clock_mhz: float | None
    governor: str | None
    version: str
    effective: Mapping[str, Any] = field(default_factory=dict)
    energy: Mapping[str, Any] = field(default_factory=lambda: {"not_run": "energy not measured"})

    @property
    def energy_mj(self) -> float | None:
        """Millijoules of an inference, less the idle board's; None where there are none."""
        net = self.energy.get("net_mj")
        return float(net) if net is not None and net > 0 else None

    @property
    def no_energy(self) -> str:
        """Why ``energy_mj`` is None."""
        return str(self.energy.get("not_run", "the board drew no more than when idle"))

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def process_of(value: Mapping[str, Any]) -> Process:
    """Read what `Process.plain` wrote."""
    lists = {name: tuple(value[name]) for name in ("cpu_ms", "wall_ms")}
    return Process(**{**value, **lists})


@contextmanager
def opened(bundles: Mapping[str, Path]) -> Iterator[dict[str, tuple[Bundle, Contestant]]]:
    """Open bundles by label, with the golden inputs of each as files that agents map."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(TemporaryDirectory(prefix="edgekd-bench-")))
        found = {}
        for number, (label, path) in enumerate(bundles.items()):
            bundle = stack.enter_context(open_bundle(path))
            refuse_replayed(bundle)
            found[label] = bundle, _contestant(label, bundle, scratch / str(number))
        yield found


def refuse_replayed(bundle: Bundle) -> None:
    """Refuse a bundle that was made on a recording of a device.

    Raises:
        SetupError: It was.
    """
    played = bundle.manifest.get("device", {}).get("replay")
    if played:
        raise SetupError(
            f"{bundle.manifest['name']} was made on a recording of a device ({played['name']}): it"
            " is not comparable",
            at=str(bundle.path),
            hint="make it on a board: edgekd compress … --on ssh:HOST",
        )


def _contestant(label: str, bundle: Bundle, scratch: Path) -> Contestant:
    artefact = bundle.manifest["artefact"]
    scratch.mkdir()
    feeds = {}
    with np.load(bundle.path / bundle.manifest["golden"]["file"], allow_pickle=False) as golden:
        names = [name for name in golden.files if not name.startswith("output:")]
        for number, name in enumerate(names):
            feeds[name] = scratch / f"{number}.npy"
            np.save(feeds[name], golden[name][:SAMPLES])
    main = bundle.path / artefact["main"]
    return Contestant(label, main, artefact["runtime"], artefact["options"], feeds)


def rounds(
    contestants: Sequence[Contestant], settings: Settings, seed: int, start: int = 0
) -> Iterator[list[Process]]:
    """Give the processes of one round after the other, in the order of the contestants.

    Args:
        contestants: What to measure side by side.
        settings: How.
        seed: Of the order in which they start and take turns.
        start: Number of the first round; its order does not depend on the rounds before.
    """
    plan: tuple[int, int] | None = None
    with ExitStack() as whole:
        places = [_Place(settings, whole) for _ in contestants]
        for number in itertools.count(start):
            draw = random.Random(f"{seed}/{number}")
            order = draw.sample(range(len(contestants)), len(contestants))
            with ExitStack() as stack:
                runners = [
                    _Runner(contestants[index], index, rank, settings, places[index], stack)
                    for rank, index in enumerate(order)
                ]
                if plan is None:
                    plan = _plan(max(runner.estimate_ms for runner in runners), settings.block_ms)
                for turn in range(settings.blocks):
                    draw.shuffle(runners) if turn % 2 == 0 else runners.reverse()
                    for runner in runners:
                        runner.block(*plan)
                for runner in runners:  # in the order of the last turn, which was drawn
                    runner.weigh(settings.energy_s)
                yield [r.process(number) for r in sorted(runners, key=lambda r: r.index)]


class _Place:
    """Where the processes of one contestant start: here, or in a folder of its own on a board.

    The connection, and what was sent through it, outlive the processes.
    """

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        self._reach = reach(settings.on)
        self._board = None
        self._command = agent_command()
        if settings.pin is not None:
            if not self._reach.local:
                raise UsageError("only this machine's cores can be pinned", at="--pin")
            self._command = ["taskset", "-c", str(settings.pin), *self._command]
        if self._reach.host is not None:
            self._board = stack.enter_context(Ssh(self._reach.host))

    def start(self) -> Agent:
        """Start a fresh process."""
        if self._board is None:
            return Agent(self._command)
        return Agent(python=self._reach.python, board=self._board, label=self._reach.name)


def _plan(slowest_ms: float, block_ms: float) -> tuple[int, int]:
    """Return how many inferences make a sample of processor time, and how many make a block."""
    sample = max(1, min(_MOST_IN_A_BLOCK, int(_CPU_SAMPLE_MS / slowest_ms)))
    samples = max(1, round(block_ms / slowest_ms / sample))
    return sample, sample * samples


class _Runner:
    """One fresh process, started and warmed up."""

    def __init__(
        self,
        contestant: Contestant,
        index: int,
        place: int,
        settings: Settings,
        where: _Place,
        stack: ExitStack,
    ) -> None:
        began = time.perf_counter()
        self.contestant, self.index, self.place = contestant, index, place
        self.agent = stack.enter_context(where.start())
        options = {**contestant.options, "threads": settings.threads}
        self.loaded: Loaded = self.agent.load(contestant.runtime, contestant.main, **options)
        self.first: Timing = self.agent.time(contestant.feeds, warmup=settings.warmup, runs=5)
        if not self.first.cpu_ns:
            raise SetupError(
                f"{contestant.runtime} there is timed by a tool in processes of its own: that is"
                " not comparable",
                hint="sudo apt-get install python3-libnvinfer on the board",
            )
        self.estimate_ms = max(min(self.first.wall_ns) / 1e6, 1e-4)
        self.kernel = self.agent.kernel()
        self.timings: list[Timing] = []
        self.energy: Mapping[str, Any] = {}
        self.startup_s = time.perf_counter() - began

    def block(self, sample: int, count: int) -> None:
        """Make one block of inferences."""
        feeds = self.contestant.feeds
        timing = self.agent.time(feeds, warmup=_SETTLE, runs=count, cpu_block=sample)
        self.timings.append(timing)

    def weigh(self, seconds: float) -> None:
        """Take the energy of inferences that run for so long, after a rest of a quarter of it."""
        feeds = self.contestant.feeds
        self.energy = self.agent.energy(feeds, seconds=seconds, idle_s=seconds / 4)

    def process(self, number: int) -> Process:
        """Return what the process showed."""
        last, loaded = self.timings[-1], self.loaded
        wall = np.concatenate([timing.wall_ns for timing in self.timings]) / 1e6
        flags = [timing.throttled for timing in self.timings]
        clocks = last.after.get("clocks_mhz")
        return Process(
            label=self.contestant.label,
            round=number,
            place=self.place,
            cpu_ms=tuple(statistics.median(t.cpu_ns) / 1e6 for t in self.timings),
            cpu_least_ms=min(min(t.cpu_ns) for t in self.timings) / 1e6,
            wall_ms=tuple(statistics.median(t.wall_ns) / 1e6 for t in self.timings),
            quantiles_ms={f"p{q}": float(np.percentile(wall, q)) for q in (50, 90, 99)},
            peak_rss_mib=last.peak_rss_mib or 0.0,
            rss_mib={
                "start": loaded.rss_before_mib,
                "loaded": loaded.rss_mib,
                "warm": self.first.rss_mib,
                "end": last.rss_mib,
            },
            first_ms=self.first.first_ms,
            import_s=loaded.import_s,
            load_s=loaded.load_s,
            kernel_ms=self.kernel["cpu_ns"] / 1e6,
            kernel=self.kernel["name"],
            inferences=len(wall),
            timed_s=float(wall.sum()) / 1e3,
            startup_s=self.startup_s,
            load=float(last.after["load"][0]),
            throttled=None if None in flags else any(flags),
            clock_mhz=statistics.fmean(clocks) if clocks else None,
            governor=last.after.get("governor"),
            version=loaded.version,
            effective=loaded.effective,
            energy=self.energy,
        )


def log_ratios(baseline: Process, candidate: Process) -> dict[str, float]:
    """Return log(candidate / baseline) of what a round showed, by witness.

    Wall times are compared block by block with the neighbour in time; the median over the blocks
    leaves out those in which the machine turned to something else. Energy is among them where
    both sides have it.
    """
    blocks = zip(baseline.wall_ms, candidate.wall_ms, strict=True)
    before, after = baseline.energy_mj, candidate.energy_mj
    return {
        "cpu": _log(baseline.cpu_least_ms, candidate.cpu_least_ms),
        "wall": statistics.median(_log(*block) for block in blocks),
        "memory": _log(baseline.peak_rss_mib, candidate.peak_rss_mib),
        **({"energy": _log(before, after)} if before and after else {}),
    }


def _log(first: float, second: float) -> float:
    return math.log(max(second, 1e-9) / max(first, 1e-9))
