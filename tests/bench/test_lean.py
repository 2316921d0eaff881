"""A lab host has no torch, no scipy, no matplotlib: the whole package imports without them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = """
import importlib, pkgutil, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "scipy", "onnx", "onnxruntime", "openvino",
                                      "matplotlib", "jinja2", "rich", "PIL"}:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
package = importlib.import_module("edgekd.bench")
for module in pkgutil.iter_modules(package.__path__):
    importlib.import_module(f"edgekd.bench.{module.name}")
    print(module.name)
"""


def test_every_module_imports_on_a_lean_host():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {"gate", "stats", "measure"} <= set(done.stdout.split())
