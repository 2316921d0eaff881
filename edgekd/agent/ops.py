"""What the agent can be asked: a table of operations on one bench."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import PROTOCOL, facts, process, runtimes
from .faults import UsageFault, listed
from .runtimes.session import Session

Request = Mapping[str, Any]
Result = dict[str, Any]


@dataclass
class Bench:
    """The one session that this process holds; loading another replaces it."""

    session: Session | None = None
    fresh: bool = False
    """True until the session has made its first inference."""

    def loaded(self) -> Session:
        """Return the session, or say that none was loaded."""
        if self.session is None:
            raise UsageFault("no model is loaded", hint='send {"op": "load", …} first')
        return self.session

    def close(self) -> None:
        """Close the session, if there is one."""
        if self.session is not None:
            self.session.close()
        self.session = None


def perform(bench: Bench, request: Request) -> Result:
    """Carry out one request.

    Raises:
        UsageFault: The operation is unknown or lacks an argument.
    """
    name = request.get("op")
    operation = OPERATIONS.get(str(name))
    if operation is None:
        raise UsageFault(f"unknown op {name!r}", hint=f"known: {listed(OPERATIONS)}")
    return operation(bench, request)


def _need(request: Request, key: str) -> Any:
    if key not in request:
        raise UsageFault(f"op {request.get('op')!r} needs {key!r}")
    return request[key]


def _hello(bench: Bench, request: Request) -> Result:
    del bench, request
    return {
        "protocol": PROTOCOL,
        "pid": os.getpid(),
        "python": platform.python_version(),
        "numpy": facts.version_of("numpy"),
        "runtimes": runtimes.built_in_versions(),
    }


def _facts(bench: Bench, request: Request) -> Result:
    from . import jetson

    del bench, request
    found = {**facts.machine(), "runtimes": runtimes.versions(), "tools": jetson.tools()}
    tegra = jetson.describe()
    return found if tegra is None else {**found, "jetson": tegra}


def _modules(bench: Bench, request: Request) -> Result:
    """Name the top-level modules imported so far: how tests prove that the agent stays lean."""
    del bench, request
    return {"modules": sorted({name.partition(".")[0] for name in sys.modules})}


def _load(bench: Bench, request: Request) -> Result:
    model = Path(_need(request, "model"))
    if not model.exists():
        raise UsageFault(f"no such model: {model}")
    bench.close()
    before = process.rss_mib()
    opened = runtimes.open_session(_need(request, "runtime"), model, request.get("options") or {})
    bench.session, bench.fresh = opened.session, True
    return {
        "runtime": request["runtime"],
        "version": opened.session.version,
        "inputs": [port.as_json() for port in opened.session.inputs],
        "outputs": [port.as_json() for port in opened.session.outputs],
        "import_s": opened.import_s,
        "load_s": opened.session.load_s,
        "rss_before_mib": before,
        "rss_mib": process.rss_mib(),
        "effective": opened.session.effective,
    }


def _run(bench: Bench, request: Request) -> Result:
    from . import arrays, measure

    session = bench.loaded()
    feeds = arrays.open_arrays(_need(request, "inputs"))
    bench.fresh = False
    outputs, result = measure.run_all(session, feeds, int(request.get("batch", 1)))
    arrays.write_npz(Path(_need(request, "outputs")), outputs)
    return result


def _drive(bench: Bench, request: Request) -> Result:
    """Run a closed loop around the model: the loop asks, the model answers, no host between."""
    from . import arrays, loops, measure

    session = bench.loaded()
    port, channels = _need(request, "input"), request.get("channels")
    batch, spent = int(request.get("batch", 1)), {"calls": 0, "seconds": 0.0, "cpu_seconds": 0.0}

    def model(window: arrays.Array) -> arrays.Array:
        nonlocal batch
        fed = window if channels is None else window.take(channels, axis=1)
        outputs, made = measure.run_all(session, {port: fed}, batch)
        batch = made["batch"]
        spent["calls"] += 1
        spent["seconds"] += made["seconds"]
        spent["cpu_seconds"] += made["cpu_seconds"]
        return next(iter(outputs.values()))

    bench.fresh = False
    given = arrays.open_arrays(_need(request, "inputs"))
    happened = loops.rollout(_need(request, "loop"), model, given)
    arrays.write_npz(Path(_need(request, "outputs")), happened)
    return {"batch": batch, **spent}


def _time(bench: Bench, request: Request) -> Result:
    from . import arrays, measure

    session = bench.loaded()
    feeds = arrays.open_arrays(_need(request, "inputs"))
    plan = measure.Plan(
        warmup=int(request.get("warmup", 10)),
        runs=int(request.get("runs", 100)),
        max_seconds=float(request.get("max_seconds", 60.0)),
        cpu_block=int(request.get("cpu_block", 10)),
    )
    fresh, bench.fresh = bench.fresh, False
    return measure.time_session(session, feeds, plan, fresh=fresh)


def _energy(bench: Bench, request: Request) -> Result:
    from . import arrays, measure

    session = bench.loaded()
    feeds = arrays.open_arrays(_need(request, "inputs"))
    bench.fresh = False
    seconds, idle_s = float(request.get("seconds", 3.0)), float(request.get("idle_s", 1.0))
    return measure.energy_session(session, feeds, seconds=seconds, idle_s=idle_s)


def _layers(bench: Bench, request: Request) -> Result:
    """Have the runtime time its layers; in a session of its own, after everything that counts."""
    from . import arrays, measure

    session = bench.loaded()
    feeds = arrays.open_arrays(_need(request, "inputs"))
    bench.fresh = False
    return measure.layers_session(session, feeds, runs=int(request.get("runs", 50)))


def _busy(bench: Bench, request: Request) -> Result:
    from . import arrays, measure

    session = bench.loaded()
    feeds = arrays.open_arrays(_need(request, "inputs"))
    bench.fresh = False
    seconds, idle_s = float(request.get("seconds", 3.0)), float(request.get("idle_s", 1.0))
    return measure.busy_session(session, feeds, seconds=seconds, idle_s=idle_s)


def _evidence(bench: Bench, request: Request) -> Result:
    """Have the runtime write what it told of the artefact; most have nothing to say."""
    folder = Path(_need(request, "folder"))
    folder.mkdir(parents=True, exist_ok=True)
    told = bench.loaded().evidence(folder)
    return {"facts": told, "files": sorted(path.name for path in folder.iterdir())}


def _kernel(bench: Bench, request: Request) -> Result:
    """Time the reference kernel; needs no model."""
    from . import kernel

    del bench
    return kernel.reference(int(request.get("repeats", 7)))


def _lease(bench: Bench, request: Request) -> Result:
    """Take the board for as long as this process lives, unless another one has it."""
    from . import lease

    del bench
    return lease.take(_need(request, "holder"))


def _bye(bench: Bench, request: Request) -> Result:
    del request
    bench.close()
    return {}


OPERATIONS: dict[str, Callable[[Bench, Request], Result]] = {
    "hello": _hello,
    "facts": _facts,
    "modules": _modules,
    "load": _load,
    "run": _run,
    "drive": _drive,
    "time": _time,
    "energy": _energy,
    "layers": _layers,
    "busy": _busy,
    "evidence": _evidence,
    "kernel": _kernel,
    "lease": _lease,
    "bye": _bye,
}
