from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


class Talk:
    """An agent spoken to line by line, without the host's link."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edgekd.agent"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def line(self, text: bytes) -> dict[str, Any]:
        self.process.stdin.write(text + b"\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def __call__(self, op: str, **arguments: Any) -> dict[str, Any]:
        return self.line(json.dumps({"id": op, "op": op, **arguments}).encode())

    def end(self) -> None:
        self.process.kill()
        self.process.wait(30)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError):
                stream.close()


@pytest.fixture
def talk(tmp_path):
    talk = Talk(tmp_path)
    yield talk
    talk.end()


@pytest.fixture
def null_model(tmp_path):
    def write(**extra: Any) -> Path:
        spec = {
            "inputs": [{"name": "x", "shape": [None, 3], "dtype": "float32"}],
            "outputs": [{"name": "y", "shape": [None, 2], "dtype": "float32"}],
        }
        path = tmp_path / "null.json"
        path.write_text(json.dumps({**spec, **extra}))
        return path

    return write
