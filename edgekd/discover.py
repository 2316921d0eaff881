"""Find recipes and targets: one door for ours and for everyone else's.

A name is looked up, first match wins, in

1. ``$EDGEKD_PATH``: folders separated by ``:``, each with ``recipes/`` and ``targets/`` in it, or
   with the files themselves;
2. ``./recipes`` and ``./targets``;
3. entry points of the groups ``edgekd.recipes`` and ``edgekd.targets``: a package whose folder
   holds the files, or a module that is one recipe;
4. the ones that edgekd ships.

An argument that ends in ``.py``, ``.yaml`` or ``.yml``, or that has a ``/``, is a path. Listing
reads files and executes none.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgekd.calls import resolve
from edgekd.errors import EdgekdError, RecipeError, TargetError, did_you_mean
from edgekd.extras import missing
from edgekd.settings import bind
from edgekd.spec import Call, Recipe

if TYPE_CHECKING:
    from edgekd.target import Target

__all__ = [
    "Description",
    "Found",
    "Setting",
    "describe_recipe",
    "find_recipe",
    "find_target",
    "load_recipe",
    "load_target",
    "recipes",
    "targets",
]

Kind = Literal["recipes", "targets"]
_SUFFIXES: Mapping[Kind, tuple[str, ...]] = {"recipes": (".py",), "targets": (".yaml", ".yml")}
_PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Found:
    """A recipe or target file.

    Attributes:
        name: What ``--recipe`` or ``--target`` takes.
        path: The file.
        origin: Which door it came through: ``$EDGEKD_PATH``, ``./recipes``, the distribution of
            an entry point, or ``edgekd``.
        title: One line about it; for a recipe the first line of its docstring.
        fault: Why it cannot be read; empty when it can.
    """

    name: str
    path: Path
    origin: str
    title: str = ""
    fault: str = ""


@dataclass(frozen=True)
class Setting:
    """A keyword-only argument of a recipe function, as written in the file.

    Attributes:
        name: What ``--set`` takes.
        type: The annotation.
        default: The default's expression; None when the setting is required.
        doc: Its entry under ``Args:``.
    """

    name: str
    type: str
    default: str | None
    doc: str


@dataclass(frozen=True)
class Description:
    """What a recipe file says about itself, read without executing it.

    Attributes:
        name: Name of the recipe.
        path: The file.
        origin: Which door it came through.
        title: First line of the docstring.
        doc: The docstring without its ``Args`` and ``Data`` sections.
        data: The ``Data:`` section: what the recipe needs and where to get it.
        settings: In the order of the signature.
    """

    name: str
    path: Path
    origin: str
    title: str
    doc: str
    data: str
    settings: tuple[Setting, ...]


# --- where files are ---------------------------------------------------------------------------


def recipes() -> list[Found]:
    """List every recipe that a name reaches, sorted by name."""
    return [_read_recipe(found) for found in _named("recipes").values()]


def targets() -> list[Found]:
    """List every target that a name reaches, sorted by name."""
    return [_read_target(found) for found in _named("targets").values()]


def find_recipe(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the file of a recipe.

    Raises:
        RecipeError: No such file or name.
    """
    return _find("recipes", os.fspath(name_or_path)).path


def find_target(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the file of a target.

    Raises:
        TargetError: No such file or name.
    """
    return _find("targets", os.fspath(name_or_path)).path


def _find(kind: Kind, wanted: str) -> Found:
    error = RecipeError if kind == "recipes" else TargetError
    if wanted.endswith(_SUFFIXES[kind]) or "/" in wanted or os.sep in wanted:
        path = Path(wanted).expanduser().resolve()
        if not path.is_file():
            raise error(f"no such file: {wanted}", hint=f"edgekd {kind} lists the names")
        return Found(path.stem, path, "path")
    named = _named(kind)
    if wanted not in named:
        raise error(f"no {kind[:-1]} is called {wanted!r}", hint=did_you_mean(wanted, named))
    return named[wanted]


def _named(kind: Kind) -> dict[str, Found]:
    found: dict[str, Found] = {}
    for origin, place in _places(kind):
        for path in _files(kind, place):
            found.setdefault(path.stem, Found(path.stem, path.resolve(), origin))
    return dict(sorted(found.items()))


def _files(kind: Kind, place: Path) -> list[Path]:
    """Return a place's recipes (files that define ``recipe``) or targets."""
    if place.is_file():
        return [place]
    if not place.is_dir():
        return []
    files = [
        path
        for path in sorted(place.iterdir())
        if path.suffix in _SUFFIXES[kind] and path.is_file() and path.name[0] not in "._"
    ]
    return [path for path in files if kind == "targets" or _is_recipe(path)]


def _is_recipe(path: Path) -> bool:
    """Tell a recipe from a module that stands beside one; a broken file counts, to be shown."""
    try:
        return _function(path) is not None
    except (OSError, SyntaxError, ValueError):
        return True


def _places(kind: Kind) -> Iterator[tuple[str, Path]]:
    for folder in filter(None, os.environ.get("EDGEKD_PATH", "").split(os.pathsep)):
        yield "$EDGEKD_PATH", Path(folder).expanduser() / kind
        yield "$EDGEKD_PATH", Path(folder).expanduser()
    yield f"./{kind}", Path(kind)
    yield from _entry_points(kind)
    yield "edgekd", _bundled(kind)


def _bundled(kind: Kind) -> Path:
    """Return the folder inside an installed package, or beside it in a checkout."""
    inside = _PACKAGE / "_bundled" / kind
    return inside if inside.is_dir() else _PACKAGE.parent / kind


def _entry_points(kind: Kind) -> Iterator[tuple[str, Path]]:
    from importlib.metadata import entry_points

    for point in sorted(entry_points(group=f"edgekd.{kind}"), key=lambda p: p.name):
        place = _locate(point.module)
        if place is not None:
            yield (point.dist.name if point.dist else point.name), place


def _locate(module: str) -> Path | None:
    """Return a package's folder or a module's file; imports nothing, not even a parent."""
    head, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(head)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    folders = [Path(place) for place in spec.submodule_search_locations or ()]
    if not folders:
        return Path(spec.origin) if spec.origin and not rest else None
    for folder in folders:
        place = folder.joinpath(*rest)
        if place.is_dir():
            return place
        if place.with_suffix(".py").is_file():
            return place.with_suffix(".py")
    return None


# --- reading without executing -----------------------------------------------------------------


def describe_recipe(name_or_path: str | os.PathLike[str]) -> Description:
    """Return a recipe's settings, with types, defaults and docs, without executing the file.

    Raises:
        RecipeError: No such recipe, a syntax error, or no function ``recipe``.
    """
    found = _find("recipes", os.fspath(name_or_path))
    try:
        function = _function(found.path)
    except SyntaxError as error:
        raise _syntax_error(found.path, error) from error
    except (OSError, ValueError) as error:
        raise RecipeError(f"cannot read the recipe: {error}", at=_shown(found.path)) from error
    if function is None:
        raise _no_function(found.path)
    sections = _sections(_docstring(found.path, function))
    arguments = _arguments(sections.get("Args", ""))
    doc = sections[""]
    return Description(
        found.name,
        found.path,
        found.origin,
        doc.partition("\n")[0],
        doc,
        sections.get("Data", ""),
        tuple(_settings(function, arguments)),
    )


def _function(path: Path) -> ast.FunctionDef | None:
    for node in _tree(path).body:
        if isinstance(node, ast.FunctionDef) and node.name == "recipe":
            return node
    return None


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes(), str(path))


def _docstring(path: Path, function: ast.FunctionDef) -> str:
    return ast.get_docstring(function) or ast.get_docstring(_tree(path)) or ""


def _settings(function: ast.FunctionDef, docs: Mapping[str, str]) -> Iterator[Setting]:
    arguments = function.args
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield Setting(
            argument.arg,
            ast.unparse(argument.annotation) if argument.annotation else "str",
            None if default is None else ast.unparse(default),
            docs.get(argument.arg, ""),
        )


def _sections(doc: str) -> dict[str, str]:
    """Split a docstring at its unindented ``Name:`` lines; the text before them is ``""``."""
    sections: dict[str, list[str]] = {"": []}
    current = ""
    for line in doc.splitlines():
        if line.rstrip() in ("Args:", "Data:", "Returns:", "Raises:", "Example:", "Note:"):
            current = line.strip()[:-1]
            sections[current] = []
        elif current and line and not line[0].isspace():
            current = ""
            sections[""].append(line)
        else:
            sections[current].append(line[4:] if current else line)
    return {name: "\n".join(lines).strip("\n") for name, lines in sections.items()}


def _arguments(section: str) -> dict[str, str]:
    """Read the entries ``name: text`` of an ``Args`` section; indented lines go on."""
    entries: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if line and not line[0].isspace():
            name, _, text = line.partition(":")
            name = name.partition(" ")[0]
            entries[name] = text.strip()
        elif name and line.strip():
            entries[name] = f"{entries[name]} {line.strip()}".strip()
    return entries


def _read_recipe(found: Found) -> Found:
    try:
        tree = _tree(found.path)
        function = _function(found.path)
    except SyntaxError as error:
        return dataclasses.replace(found, fault=f"line {error.lineno}: {error.msg}")
    except (OSError, ValueError) as error:
        return dataclasses.replace(found, fault=str(error))
    doc = (function and ast.get_docstring(function)) or ast.get_docstring(tree) or ""
    return dataclasses.replace(found, title=doc.partition("\n")[0])


def _read_target(found: Found) -> Found:
    import yaml

    try:
        value = yaml.safe_load(found.path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        return dataclasses.replace(found, fault=" ".join(str(error).split()))
    if not isinstance(value, dict):
        return dataclasses.replace(found, fault="not a mapping of keys to values")
    return dataclasses.replace(found, title=str(value.get("title", "")))


# --- loading -----------------------------------------------------------------------------------


def load_target(name_or_path: str | os.PathLike[str]) -> Target:
    """Find, read and validate a target.

    Raises:
        TargetError: No such target, or the file is wrong; all faults at once.
    """
    from edgekd import target

    return target.load(Path(_shown(find_target(name_or_path))))


def load_recipe(
    name_or_path: str | os.PathLike[str], settings: Mapping[str, object] | None = None
) -> Recipe:
    """Execute a recipe file and call its function with the given settings.

    Args:
        name_or_path: A name that ``edgekd recipes`` lists, or a path.
        settings: Strings as from ``--set``, or values of the annotated types.

    Returns:
        The recipe, with ``file`` and the resolved ``settings`` filled in.

    Raises:
        RecipeError: No such recipe, a wrong setting, or an error inside the file.
        SetupError: The file imports a package that is not installed.
    """
    found = _find("recipes", os.fspath(name_or_path))
    place = _shown(found.path)
    _forget(found.path)
    with _blame(found.path):
        if _function(found.path) is None:
            raise _no_function(found.path)
        function = resolve(Call(f"{found.path.name}:recipe"), found.path.parent)
    bound = bind(function, settings or {}, at=place)
    with _blame(found.path):
        recipe = function(**bound)
    if not isinstance(recipe, Recipe):
        raise RecipeError(
            f"recipe() returned {type(recipe).__name__}, wanted edgekd.Recipe", at=place
        )
    plain = {name: _plain(value) for name, value in bound.items()}
    parts = {
        name: dataclasses.replace(part, file=str(found.path), settings={**plain, **part.settings})
        for name, part in recipe.parts.items()
    }
    return dataclasses.replace(recipe, file=str(found.path), settings=plain, parts=parts)


def _plain(value: Any) -> Any:
    """Return a setting as a JSON value."""
    if isinstance(value, Path):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _forget(path: Path) -> None:
    """Drop the module of an earlier load: the file may have been edited since."""
    for name, module in list(sys.modules.items()):
        if name.startswith("_edgekd_") and getattr(module, "__file__", None) == str(path):
            del sys.modules[name]


@contextmanager
def _blame(path: Path) -> Iterator[None]:
    """Turn an exception out of a recipe file into an error that names the file's own line."""
    try:
        yield
    except EdgekdError as error:
        error.at = error.at or _shown(path)
        raise
    except SyntaxError as error:
        raise _syntax_error(path, error) from error
    except ModuleNotFoundError as error:
        needed_by = f"recipe {path.stem!r}"
        raise missing(error.name or str(error), needed_by, at=_line(path, error)) from error
    except Exception as error:
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise RecipeError(f"the recipe failed: {text}", at=_line(path, error)) from error


def _line(path: Path, error: BaseException) -> str:
    """Return ``file:line: source`` of the innermost frame in the recipe file."""
    import traceback

    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path]
    if not frames:
        return _shown(path)
    return f"{_shown(path)}:{frames[-1].lineno}: {frames[-1].line}"


def _syntax_error(path: Path, error: SyntaxError) -> RecipeError:
    at = _shown(Path(error.filename) if error.filename else path)
    if error.lineno:
        at += f":{error.lineno}"
    source = (error.text or "").strip()
    return RecipeError(f"not Python: {error.msg}", at=f"{at}: {source}" if source else at)


def _no_function(path: Path) -> RecipeError:
    return RecipeError(
        "no function recipe()", at=_shown(path), hint="edgekd recipes new FILE writes an example"
    )


def _shown(path: Path) -> str:
    """Return the path as a reader would type it: relative where that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
