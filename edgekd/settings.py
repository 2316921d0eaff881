"""Bind ``--set key=value`` to the keyword-only arguments of a recipe function.

The function's own annotations are the schema: ``str``, ``int``, ``float``, ``bool``, ``Path``,
``Literal[...]``, ``X | None``, ``tuple[X, ...]`` and ``tuple[X, Y]``. All faults are reported at
once, before the function is called.
"""

from __future__ import annotations

import difflib
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from edgekd.errors import RecipeError, UsageError

__all__ = ["bind", "parse_assignments"]

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})
_NONE = frozenset({"none", "null"})


def parse_assignments(assignments: Iterable[str]) -> dict[str, str]:
    """Split ``key=value`` strings.

    Raises:
        UsageError: One has no ``=`` or no key, or a key is given twice.
    """
    settings: dict[str, str] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UsageError(f"--set takes key=value, got {text!r}")
        if key in settings:
            raise UsageError(f"--set gives {key!r} twice: {settings[key]!r} and {value!r}")
        settings[key] = value
    return settings


def bind(
    function: Callable[..., object], settings: Mapping[str, object], *, at: str
) -> dict[str, Any]:
    """Return the value of every keyword-only argument: as set, or its default.

    Args:
        function: The recipe function.
        settings: Strings from the command line, or values of the annotated types.
        at: The recipe file, for the message.

    Raises:
        RecipeError: A setting is unknown, has a wrong value, or is required and missing.
    """
    parameters = _parameters(function)
    hints = _hints(function, at)
    bound: dict[str, Any] = {}
    faults = [_unknown(key, parameters) for key in settings if key not in parameters]
    for name, parameter in parameters.items():
        if name not in settings:
            if parameter.default is parameter.empty:
                faults.append(f"{name}: required, no value given")
            bound[name] = parameter.default
            continue
        try:
            bound[name] = convert(settings[name], hints.get(name, str))
        except ValueError as fault:
            faults.append(f"{name}: {fault} (got {settings[name]!r})")
    if faults:
        raise _error(faults, parameters, at)
    return bound


def convert(value: object, wanted: Any) -> Any:
    """Return ``value`` as the annotated type ``wanted``; strings are parsed.

    Raises:
        ValueError: It does not fit; the message says what is wanted.
    """
    origin = get_origin(wanted)
    if origin is Literal:
        return _choice(value, get_args(wanted))
    if origin in (Union, types.UnionType):
        return _union(value, get_args(wanted))
    if origin is tuple:
        return _tuple(value, get_args(wanted))
    converter = _SCALARS.get(wanted)
    if converter is None:
        if isinstance(value, str) or not isinstance(wanted, type) or not isinstance(value, wanted):
            raise ValueError(f"wanted {_show(wanted)}, which --set cannot give")
        return value
    return converter(value)


def _parameters(function: Callable[..., object]) -> dict[str, inspect.Parameter]:
    return {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def _hints(function: Callable[..., object], at: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except NameError as error:
        raise RecipeError(
            f"an annotation of {function.__name__}() cannot be read: {error}",
            at=at,
            hint="import the name at the top of the file, outside `if TYPE_CHECKING`",
        ) from error


def _unknown(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f"{key}: no such setting" + (f", did you mean {close[0]!r}?" if close else "")


def _error(faults: list[str], known: Iterable[str], at: str) -> RecipeError:
    listed = ", ".join(known) or "none"
    if len(faults) == 1:
        return RecipeError(f"setting {faults[0]}", at=at, hint=f"settings: {listed}")
    lines = "\n".join(f"  {fault}" for fault in faults)
    return RecipeError(
        f"{len(faults)} settings are wrong\n{lines}", at=at, hint=f"settings: {listed}"
    )


def _str(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("wanted a text")
    return value


def _int(value: object) -> int:
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            raise ValueError("wanted a whole number") from None
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("wanted a whole number")
    return value


def _float(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("wanted a number")
    try:
        number = float(value)
    except ValueError:
        raise ValueError("wanted a number") from None
    if not math.isfinite(number):
        raise ValueError("wanted a finite number")
    return number


def _bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    text = value.lower() if isinstance(value, str) else ""
    if text not in _TRUE | _FALSE:
        raise ValueError("wanted true or false")
    return text in _TRUE


def _path(value: object) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError("wanted a path")
    return Path(value)


_SCALARS: Mapping[object, Callable[[object], Any]] = {
    str: _str,
    int: _int,
    float: _float,
    bool: _bool,
    Path: _path,
    Any: lambda value: value,
}


def _choice(value: object, choices: tuple[object, ...]) -> object:
    for choice in choices:
        same = type(choice) is type(value) and choice == value
        if same or (isinstance(value, str) and value == str(choice)):
            return choice
    raise ValueError(f"wanted {_or([repr(choice) for choice in choices])}")


def _union(value: object, members: tuple[Any, ...]) -> object:
    optional = type(None) in members
    if optional and (value is None or (isinstance(value, str) and value.lower() in _NONE)):
        return None
    wanted: list[str] = []
    for member in members:
        if member is type(None):
            continue
        try:
            return convert(value, member)
        except ValueError as fault:
            wanted.append(str(fault).removeprefix("wanted "))
    raise ValueError(f"wanted {_or([*wanted, *(['none'] if optional else [])])}")


def _tuple(value: object, members: tuple[Any, ...]) -> tuple[Any, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")] if value.strip() else []
    if not isinstance(value, list | tuple):
        raise ValueError("wanted values separated by commas")
    if len(members) == 2 and members[1] is Ellipsis:
        members = (members[0],) * len(value)
    if len(members) != len(value):
        raise ValueError(f"wanted {len(members)} values separated by commas")
    return tuple(convert(part, member) for part, member in zip(value, members, strict=True))


def _or(names: list[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _show(wanted: Any) -> str:
    return getattr(wanted, "__name__", None) or str(wanted)
