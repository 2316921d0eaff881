"""Start one stage in several processes under torchrun, and be told how it goes."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekd.calls import resolve
from edgekd.errors import StageError, TrainingError
from edgekd.events import Emit, Event
from edgekd.spec import Call, plain

FACTS = "facts_of_first.json"
FAILED = "failed.json"
JOB = "job.json"
MARK = "edgekd-event "
_LINES = 30


def launch(
    stage: str,
    spec: Mapping[str, Any],
    inputs: Mapping[str, Path],
    out: Path,
    processes: int,
    emit: Emit,
) -> dict[str, Any]:
    """Run a stage in ``processes`` processes of this machine; the first one writes.

    Args:
        stage: ``module:function``.
        spec: See the stage.
        inputs: See the stage.
        out: Folder of the result, the same for all.
        processes: How many.
        emit: Progress of the first one.

    Returns:
        Facts of the first one.

    Raises:
        TrainingError: The training in one of them came to no end.
        StageError: A process failed otherwise; the end of their output is in the message.
    """
    job = {
        "stage": stage,
        "spec": plain(dict(spec)),
        "inputs": {name: str(path) for name, path in inputs.items()},
        "out": str(out),
    }
    (out / JOB).write_text(json.dumps(job))
    threads = max(1, (os.cpu_count() or 1) // processes)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        "--nproc-per-node", str(processes), "-m", "edgekd.distill.launch", str(out / JOB),
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    env.setdefault("OMP_NUM_THREADS", str(threads))
    (out / FAILED).unlink(missing_ok=True)
    try:
        _follow(command, env, emit)
    except StageError as error:
        if not (out / FAILED).exists():
            raise
        raise TrainingError(**json.loads((out / FAILED).read_text())) from error
    facts: dict[str, Any] = json.loads((out / FACTS).read_text())
    for name in (FACTS, JOB):
        (out / name).unlink()
    return facts


def _follow(command: list[str], env: Mapping[str, str], emit: Emit) -> None:
    """Run a command, pass on the events that it writes."""
    last: deque[str] = deque(maxlen=_LINES)
    with subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if line.startswith(MARK):
                emit(Event(**json.loads(line.removeprefix(MARK))))
            elif line.strip():
                last.append(line.rstrip())
    if running.returncode:
        raise StageError(
            f"a training in several processes failed (exit {running.returncode}):\n"
            + "\n".join(last),
            hint="Train.processes=1 trains in this process",
        )


def _work(job: Path) -> None:
    """What every process does."""
    value = json.loads(job.read_text())
    first = os.environ["RANK"] == "0"

    def tell(event: Event) -> None:
        if first:
            sys.stdout.write(MARK + json.dumps(dataclasses.asdict(event)) + "\n")
            sys.stdout.flush()

    inputs = {name: Path(path) for name, path in value["inputs"].items()}
    out = Path(value["out"])
    try:
        facts = resolve(Call(value["stage"]), Path())(value["spec"], inputs, out, tell)
    except TrainingError as error:
        (out / FAILED).write_text(json.dumps({"what": error.what, "hint": error.hint}))
        raise
    if first:
        (out / FACTS).write_text(json.dumps(facts))


if __name__ == "__main__":
    _work(Path(sys.argv[1]))
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
