"""The host's end of the agent: one child process that loads, runs and times an artefact.

A runtime that dies takes its own process with it and nothing else: the host gets a
`RuntimeCrash` that names the runtime, the model and the signal.

    with Agent() as agent:
        agent.load("openvino", Path("model.xml"), precision="f32", threads=1)
        outputs = agent.run({"x": images}, batch=32)
        print(agent.time({"x": images[:8]}, warmup=10, runs=200).summary())
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

import edgekd.agent
from edgekd.agent import outside, power
from edgekd.agent.faults import UsageFault
from edgekd.agent.process import PARENT_VARIABLE, REMOTE_VARIABLE
from edgekd.device.child import Child, ChildLost, signal_name
from edgekd.device.reach import reach
from edgekd.device.ssh import MARK, Ssh
from edgekd.device.zipapp import build_zipapp
from edgekd.errors import EdgekdError, RuntimeCrash, SetupError, StageError, UsageError

Array = np.ndarray[Any, Any]
Feeds = Mapping[str, "Array | Path"]

RUNTIME_NAMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "litert": "LiteRT"}

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
"""Set to 1 in the child: a runtime's threads are an option of its own, and nothing else's."""

_KINDS: Mapping[str, type[EdgekdError]] = {"setup": SetupError, "usage": UsageError}
_START_TIMEOUT_S = 60.0
_BYE_TIMEOUT_S = 10.0
_MESSAGE_LIMIT = 800


@dataclass(frozen=True)
class Port:
    """An input or output of a loaded model; None in the shape is a free dimension."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class Loaded:
    """What a runtime made of a model.

    Attributes:
        runtime: Its name in edgekd.
        version: The version that runs.
        inputs: What the model takes.
        outputs: What the model gives.
        import_s: Seconds to import the runtime.
        load_s: Seconds to make the model ready.
        rss_before_mib: Resident memory before the import.
        rss_mib: Resident memory with the model loaded.
        effective: What really runs: threads, precision, providers …, as read back.
    """

    runtime: str
    version: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    import_s: float
    load_s: float
    rss_before_mib: float | None
    rss_mib: float | None
    effective: dict[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """The outputs for a set of samples, and what computing them took.

    Attributes:
        outputs: The outputs by name; axis 0 counts samples.
        n: How many samples.
        batch: The batch that was really used.
        seconds: Wall time.
        cpu_seconds: Processor time of the agent.
        nonfinite: How many NaN and infinite values each output holds.
    """

    outputs: dict[str, Array]
    n: int
    batch: int
    seconds: float
    cpu_seconds: float
    nonfinite: dict[str, int]


@dataclass(frozen=True)
class Rollout:
    """What happened in a closed loop, and what the model took of it.

    Attributes:
        arrays: What happened, as the loop returns it.
        batch: The batch that was really used.
        calls: How often the loop asked the model.
        seconds: Wall time of the model.
        cpu_seconds: Its processor time.
    """

    arrays: dict[str, Array]
    batch: int
    calls: int
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Timing:
    """The latency of single inferences in one process, with the circumstances.

    Attributes:
        wall_ns: Wall time of each inference.
        cpu_ns: Processor time per inference, one value a block; none, and no memory, where the
            runtime's own tool times it in processes of its own.
        cpu_block: Inferences in a block.
        warmup: Inferences before the count, the first one included.
        first_ms: The very first inference of the session; None if it had run before.
        threads: The threads that the runtime says it uses.
        peak_rss_mib: Peak resident memory of the agent.
        rss_mib: Resident memory at the end.
        involuntary_switches: How often the scheduler took the processor away.
        throttled: Whether a throttle counter rose; None where there are no counters.
        before: State of the machine before: load, governor, clocks, temperatures, counters.
        after: The same, after.
    """

    wall_ns: tuple[int, ...]
    cpu_ns: tuple[int, ...]
    cpu_block: int
    warmup: int
    first_ms: float | None
    threads: int | None
    peak_rss_mib: float | None
    rss_mib: float | None
    involuntary_switches: int | None
    throttled: bool | None
    before: dict[str, Any]
    after: dict[str, Any]

    def summary(self) -> dict[str, Any]:
        """Return the figures for a report: milliseconds, MiB, load averages over a minute."""
        p50, p90, p99 = np.percentile(self.wall_ns, [50, 90, 99]) / 1e6
        return {
            "n": len(self.wall_ns),
            "p50_ms": float(p50),
            "p90_ms": float(p90),
            "p99_ms": float(p99),
            "cpu_median_ms": float(np.median(self.cpu_ns)) / 1e6 if self.cpu_ns else None,
            "cpu_min_ms": min(self.cpu_ns) / 1e6 if self.cpu_ns else None,
            "first_ms": self.first_ms,
            "threads": self.threads,
            "load_before": self.before["load"][0],
            "load_after": self.after["load"][0],
            "peak_rss_mib": self.peak_rss_mib,
            "throttled": self.throttled,
        }


class RemoteError(Exception):
    """What the agent raised, as its traceback; the cause of the error that the host raises."""


def agent_command() -> list[str]:
    """Return the command of an agent in this interpreter, to be prefixed (``taskset -c 1``)."""
    return [sys.executable, "-m", "edgekd.agent"]


@contextmanager
def agent_on(
    on: str = "local", *, env: Mapping[str, str] | None = None, timeout_s: float = 600
) -> Iterator[Agent]:
    """Start an agent on a device by its name, and take everything away at the end.

    Args:
        on: ``local``, ``ssh:HOST``, ``replay:FOLDER``, or a name of the user's list; see
            `edgekd.device.reach`.
        env: Environment variables of the agent.
        timeout_s: Seconds to wait for an answer.

    Raises:
        SetupError: It cannot be reached, or has no Python.
    """
    place = reach(on)
    if place.host is None:
        played = {} if place.recording is None else outside.asked(place.recording)
        with Agent(env={**(env or {}), **played}, timeout_s=timeout_s) as agent:
            yield agent
        return
    with (
        Ssh(place.host) as board,
        Agent(python=place.python, board=board, env=env, timeout_s=timeout_s, label=on) as agent,
    ):
        yield agent


class Agent:
    """One agent in one child process. Not for use from two threads at once.

    The child dies with the host: it sees the end of its input, and on Linux the kernel kills it
    when it was started from the host's main thread.

    Args:
        command: What starts the agent; `agent_command` by default.
        python: Another interpreter (a virtual environment with conflicting pins): the agent is
            sent to it as a zipapp, so that nothing of edgekd need be installed there.
        board: Another machine; `python` is its interpreter (``python3`` by default). The agent,
            models and arrays are copied there, outputs back.
        timeout_s: Seconds to wait for an answer before the child is killed.
        env: Environment variables to set on top of the host's.
        label: Where the agent runs, for messages.

    Raises:
        SetupError: The agent cannot be started, or speaks another version of the protocol.
    """

    def __init__(
        self,
        command: Sequence[str] | None = None,
        *,
        python: Path | str | None = None,
        board: Ssh | None = None,
        timeout_s: float = 600,
        env: Mapping[str, str] | None = None,
        label: str = "local",
    ) -> None:
        if command is not None and python is not None:
            raise UsageError("an agent takes a command or an interpreter, not both")
        self.label = label
        self._board = board
        self._lost = False
        self._timeout_s = timeout_s
        self._loaded: Loaded | None = None
        self._model: Path | None = None
        with ExitStack() as undo:
            self._folder = Path(undo.enter_context(_private_folder()))
            self._child = self._start(command, python, env or {})
            undo.callback(self._child.kill)
            self._hello = self._greet()
            self._undo = weakref.finalize(self, undo.pop_all().close)

    def __enter__(self) -> Agent:
        """Return the agent, which already runs."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the child: politely after success, at once after an error."""
        if kind is not None:
            self._child.kill()
        self.close()

    def close(self) -> None:
        """End the child and remove every file that was exchanged with it."""
        try:
            if self._child.running:
                with suppress(ChildLost):
                    self._child.ask({"op": "bye"}, _BYE_TIMEOUT_S)
            self._child.close()
        finally:
            self._undo()

    def facts(self) -> dict[str, Any]:
        """Return what the machine is, and which runtimes it has."""
        return self._ask("facts", doing="describing the machine")

    def load(self, runtime: str, model: Path, **options: Any) -> Loaded:
        """Open a model, in place of the one before.

        Args:
            runtime: ``onnxruntime``, ``openvino``, ``null`` or a third party's.
            model: The model file, as the agent's machine sees it.
            **options: The runtime's own; see its module in `edgekd.agent.runtimes`.

        Raises:
            UsageError: No such file or runtime, or a wrong option.
            SetupError: The runtime is not installed there, or that machine cannot do what the
                options ask.
            RuntimeCrash: The runtime died.
            StageError: It refused the model.
        """
        self._model, self._loaded = Path(model), None
        answer = self._ask(
            "load",
            {"runtime": runtime, "model": self._place_of(self._model), "options": options},
            doing=f"loading {self._model.name}",
            runtime=(runtime, self._hello["runtimes"].get(runtime)),
        )
        answer["inputs"] = tuple(map(_port, answer["inputs"]))
        answer["outputs"] = tuple(map(_port, answer["outputs"]))
        self._loaded = Loaded(**answer)
        return self._loaded

    def run(self, feeds: Feeds, batch: int = 1) -> dict[str, Array]:
        """Return the outputs for all samples; see `evaluate`."""
        return self.evaluate(feeds, batch).outputs

    def evaluate(self, feeds: Feeds, batch: int = 1) -> Evaluation:
        """Run all samples (axis 0) through the loaded model.

        Args:
            feeds: Inputs by name: arrays, or ``.npy`` files, which are mapped and never copied.
            batch: Samples at a time; a model with a fixed batch keeps its own.
        """
        with self._sent(feeds) as inputs:
            outputs = self._folder / "outputs.npz"
            there = self._place_there(outputs)
            answer = self._ask(
                "run",
                {"inputs": inputs, "outputs": there, "batch": batch},
                doing=f"running {self._model_name}",
            )
            if self._board is not None:
                self._board.get(there, outputs)
            with np.load(outputs, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            outputs.unlink()
        return Evaluation(outputs=arrays, **answer)

    def drive(
        self,
        loop: str,
        arrays: Mapping[str, Array],
        *,
        input: str,
        channels: Sequence[int] | None = None,
        batch: int = 1,
        extra_s: float = 0.0,
    ) -> Rollout:
        """Run a closed loop around the loaded model, over there: one request a rollout.

        Args:
            loop: One of `edgekd.agent.loops`.
            arrays: What it starts from.
            input: Name of the model's input.
            channels: Which of the axis after the batch the model sees; all by default.
            batch: Samples at a time; a model with a fixed batch keeps its own.
            extra_s: Seconds to wait for it, on top of the usual.
        """
        given, outputs = self._folder / "drive-in.npz", self._folder / "drive-out.npz"
        _save_archive(given, arrays)
        try:
            there = self._place_there(outputs)
            answer = self._ask(
                "drive",
                {
                    "loop": loop,
                    "inputs": self._place_of(given),
                    "outputs": there,
                    "input": input,
                    "channels": None if channels is None else list(channels),
                    "batch": batch,
                },
                doing=f"driving {loop} with {self._model_name}",
                extra_s=extra_s,
            )
            if self._board is not None:
                self._board.get(there, outputs)
            with np.load(outputs, allow_pickle=False) as archive:
                happened = {name: archive[name] for name in archive.files}
        finally:
            given.unlink(missing_ok=True)
            outputs.unlink(missing_ok=True)
        return Rollout(arrays=happened, **answer)

    def time(
        self,
        feeds: Feeds,
        *,
        warmup: int = 10,
        runs: int = 100,
        max_seconds: float = 60.0,
        cpu_block: int = 10,
    ) -> Timing:
        """Time single inferences, taking the given samples in turn.

        Args:
            feeds: A few samples; they are held in memory.
            warmup: Inferences before the count.
            runs: Inferences to count.
            max_seconds: Stop after that long, warm-up included.
            cpu_block: Inferences over which processor time is averaged.
        """
        with self._sent(feeds) as inputs:
            plan = {"warmup": warmup, "runs": runs, "max_seconds": max_seconds}
            answer = self._ask(
                "time",
                {"inputs": inputs, **plan, "cpu_block": cpu_block},
                doing=f"timing {self._model_name}",
                extra_s=max_seconds,
            )
        answer["wall_ns"], answer["cpu_ns"] = tuple(answer["wall_ns"]), tuple(answer["cpu_ns"])
        return Timing(**answer)

    def energy(self, feeds: Feeds, *, seconds: float = 3.0, idle_s: float = 1.0) -> dict[str, Any]:
        """Measure the energy of an inference, less the idle board's.

        Args:
            feeds: A few samples, taken in turn.
            seconds: How long inferences run.
            idle_s: How long the board rests before.

        Returns:
            ``net_mj`` and ``gross_mj`` (millijoules an inference), ``mean_mw``, ``idle_mw``,
            ``runs``, ``samples``, ``largest_gap_s``; or ``not_run`` and why.
        """
        with self._sent(feeds) as inputs:
            return self._ask(
                "energy",
                {"inputs": inputs, "seconds": seconds, "idle_s": idle_s},
                doing=f"measuring the energy of {self._model_name}",
                extra_s=seconds + idle_s,
            )

    def layers(self, feeds: Feeds, *, runs: int = 50) -> dict[str, Any]:
        """Time every layer by the runtime's own profiler, which costs time itself.

        Args:
            feeds: Samples; the first is run.
            runs: Inferences, of which medians are taken.

        Returns:
            ``runs`` and ``layers`` (name, kind, milliseconds; largest first); or ``not_run`` and
            why.
        """
        with self._sent(feeds) as inputs:
            return self._ask(
                "layers",
                {"inputs": inputs, "runs": runs},
                doing=f"timing the layers of {self._model_name}",
            )

    def metered(
        self, feeds: Feeds, meter: Path, *, seconds: float = 5.0, idle_s: float = 2.0
    ) -> dict[str, Any]:
        """Measure the energy of an inference by an external meter.

        Args:
            feeds: A few samples, taken in turn.
            meter: File that the meter writes meanwhile: see `edgekd.agent.power.read_meter`; its
                seconds are those of this machine's clock, since 1970.
            seconds: How long inferences run.
            idle_s: How long the board rests before.

        Returns:
            As `energy`.
        """
        with self._sent(feeds) as inputs:
            told = self._ask(
                "busy",
                {"inputs": inputs, "seconds": seconds, "idle_s": idle_s},
                doing=f"running {self._model_name} beside a meter",
                extra_s=seconds + idle_s,
            )
        ahead = time.time() - told["now"]  # of the board's clock; a round trip at most too much
        rest, start, stop = (told[name] + ahead for name in ("rest", "start", "stop"))
        try:
            samples = power.read_meter(meter)
        except UsageFault as fault:
            raise UsageError(str(fault), at=str(meter), hint=fault.hint) from fault
        idle = power.mean_mw([sample for sample in samples if rest <= sample[0] <= start])
        found = power.energy(samples, start, stop, told["runs"], idle)
        return {**found, "runs": told["runs"], "meter": meter.name}

    def evidence(self, folder: Path) -> dict[str, Any]:
        """Bring home what the runtime told of the loaded artefact: logs, layers.

        Args:
            folder: Gets the files; made when there are some.

        Returns:
            The runtime's facts; empty for most runtimes.
        """
        name = self._model_name
        place = self._place_there(self._folder / "evidence")
        told = self._ask("evidence", {"folder": place}, doing=f"asking for evidence of {name}")
        for file in told["files"]:
            folder.mkdir(parents=True, exist_ok=True)
            if self._board is not None:
                self._board.get(f"{place}/{file}", folder / file)
            else:
                shutil.copyfile(Path(place) / file, folder / file)
        facts: dict[str, Any] = told["facts"]
        return facts

    def kernel(self, repeats: int = 7) -> dict[str, Any]:
        """Time the fixed reference kernel of `edgekd.agent.kernel`: the machine's own speed."""
        return self._ask("kernel", {"repeats": repeats}, doing="timing the reference kernel")

    def lease(self, holder: Mapping[str, Any]) -> dict[str, Any]:
        """Try to take the board for as long as this agent lives; see `edgekd.agent.lease`."""
        return self._ask("lease", {"holder": dict(holder)}, doing="taking the board")

    @property
    def _model_name(self) -> str:
        return self._model.name if self._model else "nothing"

    def _start(
        self, command: Sequence[str] | None, python: Path | str | None, env: Mapping[str, str]
    ) -> Child:
        if self._board is not None:
            return self._start_there(self._board, str(python or "python3"), env)
        if python is not None:
            archive = build_zipapp(self._folder / "edgekd-agent.pyz")
            command = [str(Path(python).expanduser()), str(archive)]
        # In an empty working directory, no file of the user's can shadow a module under ``-m``.
        cwd = self._folder if command is None else None
        command = command or agent_command()
        try:
            return Child(command, cwd=cwd, env=_environment(command, env))
        except OSError as error:
            raise SetupError(
                f"cannot start the agent: {error}", at=command[0], hint="check the interpreter"
            ) from error

    def _start_there(self, board: Ssh, python: str, env: Mapping[str, str]) -> Child:
        """Start the agent on another machine; its shell says how it ended."""
        archive = build_zipapp(self._folder / "edgekd-agent.pyz")
        board.put(archive, f"{board.folder}/{archive.name}")
        variables = {**dict.fromkeys(THREAD_VARIABLES, "1"), "PYTHONUNBUFFERED": "1"}
        variables |= {REMOTE_VARIABLE: "1", **env}
        words = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
        # Not quoted as a whole: the board's shell expands ~.
        program = python if re.fullmatch(r"~?[\w./-]+", python) else shlex.quote(python)
        words += [program, shlex.quote(f"{board.folder}/{archive.name}")]
        text = f"cd {shlex.quote(board.folder)} && {' '.join(words)}; echo {MARK} $? >&2"
        return Child([*board.command(), board.host, text], cwd=None, env=dict(os.environ))

    def _place_there(self, path: Path) -> str:
        """Return where the agent writes a file of that name."""
        return str(path) if self._board is None else f"{self._board.folder}/{path.name}"

    def _place_of(self, path: Path) -> str:
        """Return where the agent finds a file, once it is there.

        What belongs to a model lies beside it under the same stem: weights, external data.
        """
        if self._board is None:
            return str(path.absolute())
        if not path.is_file():
            raise UsageError(f"no such file: {path}")
        beside = [p for p in path.parent.glob(f"{path.stem}*") if p.is_file()]
        for each in dict.fromkeys([path, *sorted(beside)]):
            self._board.put(each, self._place_there(each))
        return self._place_there(path)

    def _greet(self) -> dict[str, Any]:
        try:
            answer = self._child.ask({"op": "hello"}, _START_TIMEOUT_S, skip_noise=True)
        except ChildLost as lost:
            self._explain(lost)
            raise SetupError(
                f"the agent{self._place} did not start: it {lost.fate}", hint=_last_words(lost)
            ) from lost
        hello: dict[str, Any] = answer["result"]
        if hello["protocol"] != edgekd.agent.PROTOCOL:
            self._child.kill()
            raise SetupError(
                f"the agent{self._place} speaks protocol {hello['protocol']}, this edgekd "
                f"{edgekd.agent.PROTOCOL}",
                hint="install the same edgekd on both sides",
            )
        return hello

    def _ask(
        self,
        op: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        doing: str,
        runtime: tuple[str, str | None] | None = None,
        extra_s: float = 0.0,
    ) -> dict[str, Any]:
        """Return the result of one operation, or raise what became of it."""
        if not self._child.running:
            if self._board is not None and not self._lost:
                raise self._cut("between two requests")
            raise StageError(f"the agent{self._place} has ended", hint="start another one")
        if runtime is None and self._loaded is not None:
            runtime = (self._loaded.runtime, self._loaded.version)
        actor = _runtime_title(*runtime) if runtime else "the agent"
        try:
            answer = self._child.ask({"op": op, **(arguments or {})}, self._timeout_s + extra_s)
        except ChildLost as lost:
            self._lost = True
            self._explain(lost)
            raise self._crash(lost, f"{actor}{self._place}", doing) from lost
        if not answer["ok"]:
            raise self._refusal(answer["error"], f"{actor}{self._place}", doing)
        result: dict[str, Any] = answer["result"]
        return result

    def _explain(self, lost: ChildLost) -> None:
        """Tell a crash on another machine from a lost connection: ssh calls both 255.

        Raises:
            SetupError: The connection was lost.
        """
        if self._board is None or lost.fate.startswith(("gave no answer", "answered")):
            return
        codes = [line.split()[1] for line in lost.tail if re.fullmatch(rf"{MARK} \d+", line)]
        lost.tail = [line for line in lost.tail if not line.startswith(MARK)]
        if not codes:
            raise self._cut((lost.tail or ["ssh gave no reason"])[-1]) from lost
        code = int(codes[-1])
        lost.signal_number = code - 128 if code > 128 else None
        lost.fate = (
            f"died with {signal_name(code - 128)}" if code > 128 else f"exited with code {code}"
        )

    def _cut(self, reason: str) -> SetupError:
        assert self._board is not None
        return SetupError(
            f"the connection to {self._board.host} was lost: {reason}",
            at=f"--on {self.label}",
            hint="finished steps are kept; run the same command again",
        )

    def _crash(self, lost: ChildLost, actor: str, doing: str) -> RuntimeCrash:
        hint = "try another runtime, precision or graph"
        if lost.signal_number == 9:
            hint = "SIGKILL often means that memory ran out; try a smaller batch"
        return RuntimeCrash(
            f"{actor} {lost.fate} while {doing}",
            at=self._at,
            hint=f"{hint}; {_last_words(lost)}",
        )

    def _refusal(self, error: Mapping[str, Any], actor: str, doing: str) -> EdgekdError:
        kind = _KINDS.get(error["kind"], StageError)
        message = " ".join(error["message"].split())
        if len(message) > _MESSAGE_LIMIT:  # native libraries put the reason last
            message = f"… {message[-_MESSAGE_LIMIT:]}"
        if kind is StageError:
            message = f"{error['type']}: {message}"
        refusal = kind(f"{actor} failed while {doing}: {message}", at=self._at, hint=error["hint"])
        refusal.__cause__ = RemoteError(f"on the agent's side\n{error['traceback']}")
        return refusal

    @property
    def _place(self) -> str:
        return "" if self.label == "local" else f" on {self.label}"

    @property
    def _at(self) -> str | None:
        return str(self._model) if self._model else None

    @contextmanager
    def _sent(self, feeds: Feeds) -> Iterator[dict[str, str]]:
        """Yield the files that hold `feeds`; those written here are removed afterwards."""
        files: dict[str, str] = {}
        written: list[Path] = []
        try:
            for index, (name, feed) in enumerate(feeds.items()):
                if isinstance(feed, Path):
                    files[name] = self._place_of(feed)
                    continue
                path = self._folder / f"input{index}.npy"
                written.append(path)
                _save(path, feed)
                files[name] = self._place_of(path)
            yield files
        finally:
            for path in written:
                path.unlink(missing_ok=True)


def _private_folder() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="edgekd-agent-")
    except OSError as error:
        raise SetupError(f"cannot make a temporary folder: {error}", hint="set TMPDIR") from error


def _environment(command: Sequence[str], env: Mapping[str, str]) -> dict[str, str]:
    """Return the child's environment.

    This interpreter must find the edgekd that the host uses, a checkout's included; another
    interpreter must not be given the host's packages.
    """
    child = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1"), "PYTHONUNBUFFERED": "1"}
    if sys.executable in command:
        root = str(Path(edgekd.agent.__file__).parents[2])
        inherited = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
        child["PYTHONPATH"] = os.pathsep.join([root, *map(os.path.abspath, inherited)])
    else:
        child.pop("PYTHONPATH", None)
    child.pop(PARENT_VARIABLE, None)
    child.pop(outside.VARIABLE, None)
    if threading.current_thread() is threading.main_thread():
        child[PARENT_VARIABLE] = str(os.getpid())
    return {**child, **env}


def _save(path: Path, array: Array) -> None:
    with _room(array.nbytes):
        np.save(path, array, allow_pickle=False)


def _save_archive(path: Path, arrays: Mapping[str, Array]) -> None:
    keywords: dict[str, Any] = dict(arrays)
    with _room(sum(array.nbytes for array in arrays.values())):
        np.savez(path, **keywords)


@contextmanager
def _room(size: int) -> Iterator[None]:
    """Say where to get space for inputs of ``size`` bytes when there is none."""
    try:
        yield
    except OSError as error:
        raise SetupError(
            f"cannot write {size} bytes of inputs: {error.strerror or error}",
            hint="set TMPDIR to a folder with more space",
        ) from error


def _port(spec: Mapping[str, Any]) -> Port:
    return Port(spec["name"], tuple(spec["shape"]), spec["dtype"])


def _runtime_title(name: str, version: str | None) -> str:
    title = RUNTIME_NAMES.get(name, name)
    return f"{title} {version}" if version else title


def _last_words(lost: ChildLost) -> str:
    if not lost.tail:
        return "it said nothing on standard error"
    return "\n    ".join(["the end of its standard error:", *lost.tail])
