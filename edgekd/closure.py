"""Digest of the code that a stage depends on, without importing any of it.

Starting from the functions a step calls, follow names through the syntax trees: functions,
classes and constants of the module, and what it imports from files that belong to the project
(the user's files and edgekd, not the standard library, not site-packages). Comments, formatting
and docstrings do not count; a changed helper does, an unrelated function beside it does not.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

from edgekd.calls import split_target

INERT = frozenset({"edgekd.errors", "edgekd.events"})
"""Modules that never change a result: how errors read, how progress is told."""

Symbol = tuple[str, str]
"""(file, name); the name ``*`` stands for the whole module."""

Mark = tuple[int, int]


def code_digest(targets: Iterable[str], base: Path) -> str:
    """Digest of everything the named functions reach.

    Args:
        targets: ``module:function`` or ``file.py:function``.
        base: Folder that relative files count from and where modules are looked for first.
    """
    lines = sorted(
        f"{_module_of(symbol[0], base)}:{symbol[1]} {code}"
        for symbol, code in _reach(targets, base)
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def files_of(targets: Iterable[str], base: Path) -> set[Path]:
    """The files that `code_digest` read, for messages and tests."""
    return {Path(symbol[0]) for symbol, _ in _reach(targets, base)}


def _reach(targets: Iterable[str], base: Path) -> Iterator[tuple[Symbol, str]]:
    todo = [s for target in targets for s in _roots(target, base)]
    seen: set[Symbol] = set()
    marks: dict[str, Mark] = {}
    while todo:
        symbol = todo.pop()
        if symbol in seen:
            continue
        seen.add(symbol)
        mark = marks.get(symbol[0]) or marks.setdefault(symbol[0], _mark(symbol[0]))
        code, found = _symbol(symbol, base, mark)
        yield symbol, code
        todo += found


@cache
def _symbol(symbol: Symbol, base: Path, mark: Mark) -> tuple[str, tuple[Symbol, ...]]:
    """Code of one symbol and the symbols that it uses; many stages share most of them."""
    file, name = symbol
    code, names, imports = _parse(Path(file), mark).symbol(name)
    used = [(file, inner) for inner in names]
    for wanted in imports:
        used += _imported(wanted, Path(file), base)
    return hashlib.sha256(code.encode()).hexdigest(), tuple(used)


def _mark(file: str) -> Mark:
    """What tells that a file was edited while this process runs."""
    status = Path(file).stat()
    return status.st_mtime_ns, status.st_size


def _roots(target: str, base: Path) -> list[Symbol]:
    place, name = split_target(target)
    if place.endswith(".py"):
        file = (base / place).resolve()
        return [(str(file), name)] if file.is_file() else []
    found = _find(place, base)
    return [(str(found), name)] if found else []


@dataclass
class _Import:
    """``from module import name`` (name ``*``: the whole module); level counts the dots."""

    module: str
    name: str
    level: int


@dataclass
class _Module:
    """Top-level bindings of one file."""

    bound: dict[str, list[ast.stmt]] = field(default_factory=dict)
    always: list[ast.stmt] = field(default_factory=list)

    def symbol(self, name: str) -> tuple[str, list[str], list[_Import]]:
        """Code of one name with the module's side effects, the names and imports it uses."""
        nodes = [n for group in self.bound.values() for n in group] if name == "*" else []
        nodes = [*self.always, *(nodes or self.bound.get(name, []))]
        code, names, imports = [], set(), []
        for node in nodes:
            if not isinstance(node, ast.Import | ast.ImportFrom):
                code.append(ast.dump(node))
            for inner in ast.walk(node):
                if isinstance(inner, ast.Name) and inner.id in self.bound:
                    names.add(inner.id)
                elif isinstance(inner, ast.Import):
                    imports += [_Import(a.name, "*", 0) for a in inner.names]
                elif isinstance(inner, ast.ImportFrom):
                    wanted = self._wanted(inner, name)
                    imports += [_Import(inner.module or "", a, inner.level) for a in wanted]
        return "\n".join(code), sorted(names - {name}), imports

    def _wanted(self, node: ast.ImportFrom, name: str) -> list[str]:
        """Names that an import brings for ``name``: one alias of a top-level import, else all."""
        matching = [a.name for a in node.names if (a.asname or a.name) == name]
        return matching or [a.name for a in node.names]


@cache
def _parse(path: Path, mark: Mark) -> _Module:
    module = _Module()
    tree = ast.parse(path.read_bytes(), str(path))
    _strip_docstrings(tree)
    for node in tree.body:
        names = list(_binds(node))
        if names:
            for name in names:
                module.bound.setdefault(name, []).append(node)
        elif not isinstance(node, ast.Pass):
            module.always.append(node)
    return module


def _binds(node: ast.stmt) -> Iterator[str]:
    """Names that a top-level statement binds."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            yield "__future__"
            return
        yield from (a.asname or a.name.partition(".")[0] for a in node.names)
    elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            yield from (n.id for n in ast.walk(target) if isinstance(n, ast.Name))
    elif isinstance(node, ast.If | ast.Try):
        for inner in ast.iter_child_nodes(node):
            if isinstance(inner, ast.stmt):
                yield from _binds(inner)


def _strip_docstrings(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                body[:1] = [] if len(body) > 1 else [ast.Pass()]


def _imported(wanted: _Import, file: Path, base: Path) -> list[Symbol]:
    """Symbols that an import leads to; empty for foreign packages."""
    module = _absolute(wanted, file, base)
    if not module or module in INERT:
        return []
    if wanted.name != "*":
        inner = _find(f"{module}.{wanted.name}", base)
        if inner is not None and f"{module}.{wanted.name}" not in INERT:
            return [(str(inner), "*")]
    found = _find(module, base)
    return [(str(found), wanted.name)] if found else []


def _absolute(wanted: _Import, file: Path, base: Path) -> str:
    if not wanted.level:
        return wanted.module
    package = _module_of(str(file), base).split(".")
    if file.name != "__init__.py":
        package = package[:-1]
    parent = package[: len(package) - wanted.level + 1]
    return ".".join([*parent, wanted.module] if wanted.module else parent)


@cache
def _module_of(file: str, base: Path) -> str:
    """Dotted name of a file: relative to the outermost folder that is a package."""
    path = Path(file)
    parts = [] if path.name == "__init__.py" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts)


@cache
def _find(module: str, base: Path) -> Path | None:
    """Source file of a project module, found without importing anything."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return None
    places: list[str] | None = [str(base), *sys.path]
    spec = None
    for end in range(1, module.count(".") + 2):
        name = ".".join(module.split(".")[:end])
        spec = PathFinder.find_spec(name, places)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or [])
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    path = Path(spec.origin).resolve()
    foreign = {"site-packages", "dist-packages"} & set(path.parts)
    return None if foreign and top != "edgekd" else path
