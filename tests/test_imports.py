"""Every module can be imported where only the packages of its extra are installed.

The environments are not made: in a process of its own, each import of a package outside the
closure of what `pyproject.toml` declares for the extra fails as if it were not installed.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_packaging import PROJECT

ROOT = Path(__file__).parents[1]
SCRIPT = """
import importlib, json, sys

allowed = set({allowed!r})

class Missing:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        known = top in allowed or top in sys.stdlib_module_names
        if not known and not top.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
failed = {{}}
for name in {modules!r}:
    try:
        importlib.import_module(name)
    except ImportError as error:
        failed[name] = error.name or str(error)
print("\\n" + json.dumps(failed))
"""
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "edgekd").rglob("*.py")
    if path.name not in ("__main__.py", "recipe_template.py")
)
LEAN = (
    "edgekd.agent", "edgekd.api", "edgekd.bench", "edgekd.bundle", "edgekd.cli", "edgekd.device",
    "edgekd.doctor", "edgekd.enroll", "edgekd.verify",
)  # fmt: skip
"""What a lab host without torch needs."""


def closure(*extras: str) -> set[str]:
    """Top-level modules of the packages that an installation with these extras brings."""
    wanted = [*PROJECT["dependencies"]]
    for extra in extras:
        wanted += PROJECT["optional-dependencies"][extra]
    found: set[str] = set()
    while wanted:
        line = wanted.pop()
        if "extra ==" in line:
            continue
        name = re.split(r"[\[><=!~; ]", line)[0].lower().replace("_", "-")
        if name in found:
            continue
        try:
            wanted += importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(name)
    return {
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if found & {owner.lower().replace("_", "-") for owner in owners}
    } | {"edgekd"}


def failures(*extras: str) -> dict[str, str]:
    """Module → the package that it could not import."""
    script = SCRIPT.format(allowed=sorted(closure(*extras)), modules=MODULES)
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


BINDINGS = {
    "edgekd.agent.runtimes.lite": "litert",
    "edgekd.agent.runtimes.ort": "train",
    "edgekd.agent.runtimes.ov": "openvino",
    "edgekd.backends.tensorrt_rtx_worker": "tensorrt-rtx",
}
"""Modules that are nothing but the use of one package, and the extra that declares it."""


def test_a_lean_host_imports_what_it_needs():
    lost = failures()
    assert any(name.startswith("edgekd.distill") for name in lost)  # the blocking blocks
    assert {m: why for m, why in lost.items() if m.startswith(LEAN) and m not in BINDINGS} == {}


def test_every_other_module_imports_with_the_training_extra():
    pytest.importorskip("torch")
    lost = failures("train")
    assert set(lost) <= set(BINDINGS)
    assert "edgekd.agent.runtimes.ort" not in lost


@pytest.mark.parametrize(("module", "extra"), BINDINGS.items())
def test_a_binding_imports_with_its_extra(module, extra):
    package = re.split(r"[\[><=!]", PROJECT["optional-dependencies"][extra][0])[0]
    if extra != "train":
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{package} is not installed: pip install 'edgekd[{extra}]'")
    assert module not in failures(extra, *(["train"] if "worker" in module else []))
