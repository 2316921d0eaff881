"""The command line in this process, with fakes for the parts that train and measure."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from edgekd.cli import run
from edgekd.events import Event


def row(kind: str, label: str, value: float, **more: Any) -> dict[str, Any]:
    """A row of a manifest, as short as the table takes it."""
    score = {"value": value, "low": value - 0.01, "high": value + 0.01, "n": 2000}
    return {
        "id": kind,
        "label": label,
        "kind": kind,
        "runtime": "torch",
        "precision": "fp32",
        "params": 951_000,
        "macs": 20_900_000,
        "file_bytes": 4_000_000,
        "primary": "accuracy",
        "metrics": {"accuracy": score},
        "latency": {"not_run": "not asked for"},
        "shipped": False,
        **more,
    }


LATENCY = {
    "wall_ms": {"p50": 1.234, "p90": 1.4, "p99": 1.5},
    "cpu_ms": {"p50": 1.2, "min": 1.1},
    "threads": 1,
    "load": 0.5,
    "rss_mib": 70.0,
}
MANIFEST = {
    "name": "mobilevit-cpu",
    "artefact": {"candidate": "ov-int8", "bytes": 1_250_000},
    "target": {"name": "cpu"},
    "rows": [
        row("teacher", "Big (teacher)", 0.81),
        row("control", "Small, from scratch (control)", 0.7),
        row("artefact", "Small, ov-int8", 0.75, id="ov-int8", shipped=True, latency=LATENCY),
    ],
    "ladder": [
        {"rung": "exported", "status": "passed"},
        {"rung": "parity on device", "status": "not_run", "why": "no board was named"},
    ],
    "claims": ["Distillation gained 5.0 points [3.9, 6.1] over the control."],
}
STEPS = [
    {"step": "teacher", "status": "cached", "key": "ab" * 32, "why": ""},
    {"step": "distill", "status": "run", "key": "cd" * 32, "why": "spec.train.epochs: 3 → 4"},
]


@dataclass
class Ran:
    """What a run wrote, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.err.splitlines()]


@pytest.fixture(autouse=True)
def terminal(monkeypatch, tmp_path):
    """An 80-column terminal, an empty folder, an empty store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("EDGEKD_STORE", str(tmp_path / "store"))
    for name in ("EDGEKD_PATH", "EDGEKD_ON", "_EDGEKD_COMPLETE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def edgekd_(capfd) -> Callable[..., Ran]:
    """Run a command line."""

    def call(*arguments: str | Path) -> Ran:
        code = run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return call


@pytest.fixture
def fake(monkeypatch) -> Callable[..., None]:
    """Put a module made of functions in the place of a module of edgekd."""

    def put(name: str, **functions: Any) -> None:
        module = ModuleType(f"edgekd.{name}")
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return put


@pytest.fixture
def api(fake) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """A pipeline that emits a few events; returns the calls that it got."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def compress(*args: Any, emit: Callable[[Event], None], **kwargs: Any) -> list[Any]:
        calls.append((args, kwargs))
        emit(Event("plan", data={"steps": STEPS}))
        emit(Event("cached", "teacher"))
        emit(Event("start", "distill", "train the student"))
        emit(Event("progress", "distill", "loss 0.5", 1, 4, "epochs", 30.0, {"loss": 0.5}))
        emit(Event("end", "distill", data={"accuracy": 0.75, "history": [1, 2]}))
        emit(Event("note", "distill", "a control is trained too"))
        emit(Event("warning", text="the data has 3 copies"))
        return [SimpleNamespace(path=Path("out/mobilevit-cpu"), manifest=MANIFEST)]

    def plan(*args: Any, **kwargs: Any) -> list[Any]:
        calls.append((args, kwargs))
        return STEPS

    def profile(*args: Any, emit: Callable[[Event], None], **kwargs: Any) -> dict[str, Any]:
        calls.append((args, kwargs))
        layers = [[f"conv{n}", "Conv", 0.4 / (1 + n)] for n in range(18)]
        told = {"layers": {"runs": 50, "layers": [["gelu", "Gelu", 0.5], *layers]}}
        return {"wall_ms": {"p50": 1.5}, "threads": 1, **(told if kwargs["layers"] else {})}

    def report(*args: Any, emit: Callable[[Event], None]) -> None:
        calls.append((args, {}))

    fake("api", compress=compress, plan=plan, profile=profile, report=report)
    return calls
