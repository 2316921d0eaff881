"""Turn a `Call` into the function it names."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from edgekd.errors import RecipeError, did_you_mean
from edgekd.spec import Call


def split_target(to: str) -> tuple[str, str]:
    """Split ``module:function`` or ``file.py:function``.

    Raises:
        RecipeError: There is no colon, or one side is empty.
    """
    place, _, name = to.rpartition(":")
    if not place or not name.isidentifier():
        raise RecipeError(
            f"{to!r} does not name a function",
            hint="write 'package.module:function' or 'file.py:function'",
        )
    return place, name


def resolve(call: Call, base: Path) -> Callable[..., Any]:
    """Import the function that ``call`` names.

    Args:
        call: What to import.
        base: Folder that relative files count from; importable for modules beside the recipe.

    Raises:
        RecipeError: No such file, module or function, or its import fails.
    """
    place, name = split_target(call.to)
    module = _from_file(base / place) if place.endswith(".py") else _from_name(place, base)
    function = getattr(module, name, None)
    if not callable(function):
        known = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise RecipeError(
            f"{place} has no function {name!r}", at=call.to, hint=did_you_mean(name, known)
        )
    return function  # type: ignore[no-any-return]


def invoke(call: Call, base: Path, /, **extra: Any) -> Any:
    """Call the named function with its recorded arguments and ``extra``."""
    return resolve(call, base)(**{**call.args, **extra})


def _from_name(name: str, base: Path) -> ModuleType:
    _importable(base)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise RecipeError(
                f"no module named {error.name!r}", at=name, hint=f"looked in {base} and on sys.path"
            ) from error
        raise


def _from_file(path: Path) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        raise RecipeError(f"no file {path}", hint="relative paths count from the recipe's folder")
    name = f"_edgekd_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    _importable(path.parent)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _importable(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def locate(name: str, base: Path) -> Path:
    """Where a file is: ``package:path`` inside a package, else relative to ``base``."""
    package, colon, inside = name.partition(":")
    if colon and package.isidentifier() and not (base / name).exists():
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            return Path(spec.submodule_search_locations[0]) / inside
    return (base / name).resolve()
