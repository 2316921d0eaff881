"""edgekd: from a teacher network to a small, quantised, proven artefact for one edge device.

Importing the package imports nothing else: a public name is looked up when it is first used, so
that a lab host without torch can profile, verify and compare.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edgekd.version import __version__

if TYPE_CHECKING:
    from edgekd import errors
    from edgekd.api import bench, compress, plan, profile
    from edgekd.bench.gate import gate
    from edgekd.bench.side_by_side import compare
    from edgekd.bundle import open_bundle
    from edgekd.direct import Source, export, quantize
    from edgekd.discover import load_recipe, load_target
    from edgekd.distill.presets import methods
    from edgekd.enroll import enroll
    from edgekd.environments import setup
    from edgekd.sensitivity import sensitivity
    from edgekd.spec import (
        Call,
        Input,
        Metric,
        Network,
        Objective,
        Quantize,
        Recipe,
        Term,
        Train,
    )
    from edgekd.verify import verify

__all__ = [
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

_HOME = {
    "bench": "edgekd.api",
    "compare": "edgekd.bench.side_by_side",
    "compress": "edgekd.api",
    "enroll": "edgekd.enroll",
    "Source": "edgekd.direct",
    "export": "edgekd.direct",
    "gate": "edgekd.bench.gate",
    "load_recipe": "edgekd.discover",
    "load_target": "edgekd.discover",
    "methods": "edgekd.distill.presets",
    "open_bundle": "edgekd.bundle",
    "plan": "edgekd.api",
    "profile": "edgekd.api",
    "quantize": "edgekd.direct",
    "sensitivity": "edgekd.sensitivity",
    "setup": "edgekd.environments",
    "verify": "edgekd.verify",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("edgekd.errors")
    if name not in __all__:
        raise AttributeError(f"module 'edgekd' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME.get(name, "edgekd.spec")), name)


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """A package whose functions are not hidden by the module that one of them lives in.

    Python binds an imported submodule to its package: after ``import edgekd.verify`` the name
    ``edgekd.verify`` would be the module, not the function.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
