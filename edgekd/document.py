"""A YAML file that a person wrote: read with lines, checked against a model, all faults at once.

Pure data: no aliases, no interpolation, no key given twice. The one place that reads such files.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from edgekd.errors import UsageError

__all__ = ["Document", "Fault", "Frozen", "Kind", "load"]

M = TypeVar("M", bound=BaseModel)


class Frozen(BaseModel):
    """A model that refuses unknown keys and never changes."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        line: Where.
        path: Dotted key.
        message: What.
        got: The value found, where it helps.
    """

    line: int
    path: str
    message: str
    got: str | None = None

    def show(self, at: str) -> str:
        """Return the fault as a line: file, line, key, message."""
        got = "" if self.got is None else f" (got {self.got})"
        place = f"{self.path}: " if self.path else ""
        return f"  {at}:{self.line}: {place}{self.message}{got}"


@dataclass(frozen=True)
class Document:
    """A parsed file.

    Attributes:
        value: Its top mapping.
        lines: Line of every key and item.
        faults: What YAML allows and we do not.
    """

    value: Any
    lines: Mapping[tuple[str | int, ...], int]
    faults: tuple[Fault, ...]

    def line(self, path: tuple[str | int, ...]) -> int:
        """Return the line of a key, or of the nearest enclosing one."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


@dataclass(frozen=True)
class Kind:
    """What sort of file it is, for messages.

    Attributes:
        noun: ``target``, ``suite``.
        error: What is raised.
        hint: What to do about faults.
        example: What to do when the file is no mapping at all.
        patterns: What a text should look like, by top-level key or last key.
        more: Faults that the model cannot know.
    """

    noun: str
    error: type[UsageError]
    hint: str
    example: str
    patterns: Mapping[str, str] = field(default_factory=dict)
    more: Callable[[Document], list[Fault]] = lambda document: []


def load(text: str, model: type[M], kind: Kind, at: str) -> M:
    """Return the model of a text.

    Args:
        text: YAML.
        model: What it must say.
        kind: For messages.
        at: Name of the file, for messages.

    Raises:
        UsageError: Of ``kind.error``, with every fault and its line.
    """
    document = _parse(text, kind, at)
    faults = list(document.faults)
    found: M | None = None
    try:
        # JSON mode is strict about scalars (no "yes" for 1.0) yet takes lists for tuples.
        found = model.model_validate_json(_json(document.value), strict=True)
    except ValidationError as error:
        faults += [_fault(fault, document, model, kind) for fault in error.errors()]
    faults += kind.more(document)
    if faults or found is None:
        lines = "\n".join(fault.show(at) for fault in sorted(faults, key=lambda f: f.line))
        raise kind.error(f"{at} is not a valid {kind.noun}\n{lines}", hint=kind.hint)
    return found


def _parse(text: str, kind: Kind, at: str) -> Document:
    try:
        aliases = [e for e in yaml.parse(text) if isinstance(e, yaml.AliasEvent)]
        if aliases:
            place = f"{at}:{_line(aliases[0].start_mark)}"
            raise kind.error(f"a {kind.noun} has no YAML aliases; write the value out", at=place)
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        value = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        place = f"{at}:{_line(error.problem_mark)}"
        raise kind.error(f"not YAML: {error.problem}", at=place) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise kind.error(f"not YAML: {error}", at=at) from error
    if not isinstance(value, dict):
        found = "nothing" if value is None else type(value).__name__
        raise kind.error(
            f"a {kind.noun} is a mapping of keys to values, got {found}", at=at, hint=kind.example
        )
    lines: dict[tuple[str | int, ...], int] = {}
    faults: list[Fault] = []
    _walk(node, (), lines, faults)
    return Document(value, lines, tuple(faults))


def _line(mark: Any) -> int:
    return 1 if mark is None else int(mark.line) + 1


def _walk(
    node: Any,
    path: tuple[str | int, ...],
    lines: dict[tuple[str | int, ...], int],
    faults: list[Fault],
) -> None:
    """Record the line of every key and item; a key given twice is a fault."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            below = (*path, index)
            lines[below] = _line(item.start_mark)
            _walk(item, below, lines, faults)
    elif isinstance(node, yaml.MappingNode):
        for key, item in node.value:
            place = (*path, str(key.value))
            line = _line(key.start_mark)
            if key.tag != "tag:yaml.org,2002:str":
                faults.append(Fault(line, _dotted(place), "a key is a text; put it in quotes"))
            if place in lines:
                message = f"key given twice, first in line {lines[place]}"
                faults.append(Fault(line, _dotted(place), message))
            lines[place] = line
            _walk(item, place, lines, faults)


def _json(value: object) -> str:
    """Return JSON; dates become texts, keys that are no texts are left to their own fault."""
    return json.dumps(value, default=str, skipkeys=True)


def _dotted(path: Iterable[str | int]) -> str:
    return ".".join(str(part) for part in path)


_MESSAGES = {
    "model_type": "should be a mapping of keys to values",
    "dict_type": "should be a mapping of keys to values",
    "tuple_type": "should be a list, such as [a, b]",
    "string_type": "should be a text; put it in quotes",
}


def _fault(fault: Any, document: Document, model: type[BaseModel], kind: Kind) -> Fault:
    path: tuple[str | int, ...] = fault["loc"]
    sort = fault["type"]
    if sort == "missing":
        return Fault(document.line(path), _dotted(path), "required, but absent")
    if sort == "extra_forbidden":
        return Fault(document.line(path), _dotted(path), _unknown_key(path, model), _got(fault))
    if sort == "value_error":
        return Fault(document.line(path), _dotted(path), str(fault["ctx"]["error"]))
    if sort == "string_pattern_mismatch":
        wanted = kind.patterns.get(str(path[0])) or kind.patterns[str(path[-1])]
        return Fault(document.line(path), _dotted(path), wanted, _got(fault))
    message = _MESSAGES.get(sort) or fault["msg"].removeprefix("Input ")
    return Fault(document.line(path), _dotted(path), message, _got(fault))


def _got(fault: Any) -> str:
    text = json.dumps(fault["input"], ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _unknown_key(path: tuple[str | int, ...], top: type[BaseModel]) -> str:
    model: Any = top
    for part in path[:-1]:
        if isinstance(part, str):
            known_field = getattr(model, "model_fields", {}).get(part)
            model = known_field.annotation if known_field else None
        else:  # an item of a list: tuple[Model, ...]
            model = next(iter(get_args(model)), None)
    known = list(getattr(model, "model_fields", {}))
    close = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
    return "unknown key" + (f", did you mean {close[0]!r}?" if close else "")
