"""The start is lean: what must not be imported is blocked, and everything still works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import edgekd

ROOT = Path(__file__).parents[1]
BLOCKER = """
import json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
from edgekd.cli import run
code = run({arguments!r})
print("\\n" + json.dumps([code, sorted(sys.modules)]))
"""
HEAVY = {"torch", "onnx", "onnxruntime", "openvino", "nncf", "matplotlib", "scipy", "rich"}
LEAN = [
    (["--help"], {"numpy", "pydantic", "yaml"}),
    (["--version"], {"numpy", "pydantic", "yaml"}),
    (["recipes"], {"numpy", "pydantic"}),
    (["methods"], {"numpy", "pydantic"}),
    (["methods", "--papers"], {"numpy", "pydantic"}),
    (["targets"], {"numpy"}),
    (["targets", "show", "cpu"], {"numpy"}),
    (["completion", "bash"], {"numpy"}),
    (["cache"], {"numpy", "pydantic"}),
    (["doctor"], set()),
    (["compress", "--help"], {"numpy", "pydantic"}),
    (["profile", "--help"], {"numpy", "pydantic"}),
    (["enroll", "--help"], {"numpy", "pydantic"}),
    (["verify", "--help"], {"numpy", "pydantic"}),
    (["bench", "--help"], {"numpy", "pydantic"}),
    (["compare", "--help"], {"numpy", "pydantic"}),
    (["gate", "--help"], {"numpy", "pydantic"}),
]


@pytest.mark.parametrize(("arguments", "blocked"), LEAN, ids=lambda value: " ".join(value))
def test_a_command_runs_where_heavy_packages_are_blocked(arguments, blocked, tmp_path):
    script = BLOCKER.format(blocked=HEAVY | blocked, arguments=arguments)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "EDGEKD_STORE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    assert not {name.partition(".")[0] for name in modules} & (HEAVY | blocked)


def test_importing_the_package_imports_nothing_else():
    script = "import sys; import edgekd; print([m for m in sys.modules if m.startswith('edgekd.')])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout == "['edgekd.version']\n"


def test_the_public_names_are_these():
    assert edgekd.__all__ == [
        "Call",
        "Input",
        "Metric",
        "Network",
        "Objective",
        "Quantize",
        "Recipe",
        "Source",
        "Term",
        "Train",
        "__version__",
        "bench",
        "compare",
        "compress",
        "enroll",
        "errors",
        "export",
        "gate",
        "load_recipe",
        "load_target",
        "methods",
        "open_bundle",
        "plan",
        "profile",
        "quantize",
        "sensitivity",
        "setup",
        "verify",
    ]
    assert dir(edgekd) == sorted(edgekd.__all__)


@pytest.mark.parametrize("name", edgekd.__all__)
def test_every_public_name_can_be_had(name):
    assert getattr(edgekd, name) is not None


def test_a_submodule_does_not_hide_the_function_of_its_name(monkeypatch):
    module = type(sys)("edgekd.verify")
    edgekd.verify = module
    assert vars(edgekd).get("verify") is not module
    edgekd.something = module
    assert edgekd.something is module
    del edgekd.something


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = edgekd.nothing
