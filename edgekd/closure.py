"""Digest of the code that a stage depends on, without importing any of it.

Starting from the functions a step calls, follow names through the syntax trees: functions,
classes and constants of the module, and what it imports from files that belong to the project
(the user's files and edgekd, not the standard library, not site-packages). Comments, formatting
and docstrings do not count; a changed helper does, an unrelated function beside it does not.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, NamedTuple

from edgekd.calls import split_target

INERT = frozenset({"edgekd.errors", "edgekd.events"})
"""Modules that never change a result: how errors read, how progress is told."""

Symbol = tuple[str, str]
"""(file, name); the name ``*`` stands for the whole module."""

RACE = 2_000_000_000
"""Nanoseconds that a file must have rested: two edits within one tick of a clock look the same."""


class Wanted(NamedTuple):
    """``from module import name`` (name ``*``: the whole module); level counts the dots."""

    module: str
    name: str
    level: int


class Code(NamedTuple):
    """One symbol of a file: digest of its code, what it uses of its file and of others."""

    digest: str
    names: tuple[str, ...]
    imports: tuple[Wanted, ...]


class Parses:
    """What source files say, remembered by path, size, time and inode.

    Args:
        file: Where it is kept between runs; None remembers within this process only.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file, self._new = file, False
        self._kept: dict[str, list[Any]] = {}
        self._read: dict[str, tuple[list[int], dict[str, Any]]] = {}
        self._checked: set[str] = set()
        if file is not None:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                kept = json.loads(file.read_text())
                self._kept = dict(kept["files"]) if kept["python"] == sys.version else {}

    def fresh(self) -> None:
        """Look at every file's time again: it may have been edited since the last digest."""
        self._checked.clear()

    def symbol(self, symbol: Symbol) -> Code:
        """One symbol; of a name that the file does not bind only the file's side effects count."""
        file, name = symbol
        if file not in self._checked:
            self._look(Path(file))
            self._checked.add(file)
        module = self._read[file][1]
        name = name if name in module else ""
        if not isinstance(module[name], Code):
            digest, names, imports = module[name]
            module[name] = Code(digest, tuple(names), tuple(Wanted(*one) for one in imports))
        code: Code = module[name]
        return code

    def _look(self, path: Path) -> None:
        """Take what is known of a file, else parse it."""
        status, file = path.stat(), str(path)
        mark = [status.st_size, status.st_mtime_ns, status.st_ino]
        if file in self._read and self._read[file][0] == mark:
            return
        kept = self._kept.get(file)
        if kept is not None and kept[0] == mark:
            self._read[file] = (mark, kept[1])
            return
        self._read[file] = (mark, _parse(path))
        if time.time_ns() - status.st_mtime_ns > RACE:
            self._kept[file] = [*self._read[file]]
            self._new = True

    def save(self) -> None:
        """Keep what was learnt; on a full disk it is learnt again next time."""
        if self._file is None or not self._new:
            return
        fresh = self._file.with_suffix(f".{os.getpid()}.tmp")
        try:
            fresh.write_text(json.dumps({"python": sys.version, "files": self._kept}))
            fresh.replace(self._file)
            self._new = False
        except OSError:
            fresh.unlink(missing_ok=True)


def code_digest(targets: Iterable[str], base: Path, parses: Parses | None = None) -> str:
    """Digest of everything the named functions reach.

    Args:
        targets: ``module:function`` or ``file.py:function``.
        base: Folder that relative files count from and where modules are looked for first.
        parses: What is known of source files; many stages reach the same ones.
    """
    lines = sorted(
        f"{_module_of(symbol[0], base)}:{symbol[1]} {code}"
        for symbol, code in _reach(targets, base, parses or Parses())
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def files_of(targets: Iterable[str], base: Path) -> set[Path]:
    """The files that `code_digest` read, for messages and tests."""
    return {Path(symbol[0]) for symbol, _ in _reach(targets, base, Parses())}


def _reach(targets: Iterable[str], base: Path, parses: Parses) -> Iterator[tuple[Symbol, str]]:
    parses.fresh()
    todo = [s for target in targets for s in _roots(target, base)]
    seen: set[Symbol] = set()
    while todo:
        symbol = todo.pop()
        if symbol in seen:
            continue
        seen.add(symbol)
        code = parses.symbol(symbol)
        yield symbol, code.digest
        todo += [(symbol[0], name) for name in code.names if name != symbol[1]]
        for wanted in code.imports:
            todo += _imported(wanted, symbol[0], base)


def _roots(target: str, base: Path) -> list[Symbol]:
    place, name = split_target(target)
    if place.endswith(".py"):
        file = (base / place).resolve()
        return [(str(file), name)] if file.is_file() else []
    found = _find(place, base)
    return [(str(found), name)] if found else []


@dataclass
class _Module:
    """Top-level bindings of one file."""

    bound: dict[str, list[ast.stmt]] = field(default_factory=dict)
    always: list[ast.stmt] = field(default_factory=list)

    def symbol(self, name: str) -> Code:
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
                    imports += [Wanted(a.name, "*", 0) for a in inner.names]
                elif isinstance(inner, ast.ImportFrom):
                    wanted = self._wanted(inner, name)
                    imports += [Wanted(inner.module or "", a, inner.level) for a in wanted]
        text = hashlib.sha256("\n".join(code).encode()).hexdigest()
        return Code(text, tuple(sorted(names)), tuple(imports))

    def _wanted(self, node: ast.ImportFrom, name: str) -> list[str]:
        """Names that an import brings for ``name``: one alias of a top-level import, else all."""
        matching = [a.name for a in node.names if (a.asname or a.name) == name]
        return matching or [a.name for a in node.names]


def _parse(path: Path) -> dict[str, Any]:
    """Every symbol of a file; ``*`` is the whole, the empty name what happens on import alone."""
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
    return {name: module.symbol(name) for name in ("", "*", *module.bound)}


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


@cache
def _imported(wanted: Wanted, file: str, base: Path) -> list[Symbol]:
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


def _absolute(wanted: Wanted, file: str, base: Path) -> str:
    if not wanted.level:
        return wanted.module
    package = _module_of(file, base).split(".")
    if Path(file).name != "__init__.py":
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
