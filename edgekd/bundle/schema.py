"""A small schema language: a shape is a function that lists what is wrong with a value.

    person = record({"name": text, "age": maybe(number)})
    person({"name": 3}, "who")  →  ["who.name: text wanted, 3 found", "who.age: missing"]

Written by hand so that a bundle is checked in milliseconds where only the standard library is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Shape = Callable[[Any, str], list[str]]
"""(value, where it stands) → faults, empty when the value is right."""

_SHOWN = 60


def wrong(at: str, wanted: str, found: object) -> list[str]:
    """Return one fault that names the place, what was wanted and what was found."""
    shown = repr(found)
    if len(shown) > _SHOWN:
        shown = shown[:_SHOWN] + "…"
    return [f"{at}: {wanted} wanted, {shown} found"]


def anything(value: Any, at: str) -> list[str]:
    """Accept any JSON value."""
    del value, at
    return []


def text(value: Any, at: str) -> list[str]:
    """Accept a string that is not empty."""
    return [] if isinstance(value, str) and value else wrong(at, "text", value)


def string(value: Any, at: str) -> list[str]:
    """Accept any string."""
    return [] if isinstance(value, str) else wrong(at, "a string", value)


def number(value: Any, at: str) -> list[str]:
    """Accept a finite number."""
    right = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return [] if right else wrong(at, "a finite number", value)


def count(value: Any, at: str) -> list[str]:
    """Accept a whole number from 0."""
    right = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return [] if right else wrong(at, "a whole number from 0", value)


def boolean(value: Any, at: str) -> list[str]:
    """Accept true or false."""
    return [] if isinstance(value, bool) else wrong(at, "true or false", value)


def mapping(value: Any, at: str) -> list[str]:
    """Accept an object with any content."""
    return [] if isinstance(value, Mapping) else wrong(at, "an object", value)


def choice(*allowed: str) -> Shape:
    """Accept one of a few strings."""

    def check(value: Any, at: str) -> list[str]:
        return [] if value in allowed else wrong(at, " or ".join(allowed), value)

    return check


def pattern(expression: str, wanted: str) -> Shape:
    """Accept a string that matches as a whole; ``wanted`` says it in words."""
    compiled = re.compile(expression)

    def check(value: Any, at: str) -> list[str]:
        right = isinstance(value, str) and compiled.fullmatch(value) is not None
        return [] if right else wrong(at, wanted, value)

    return check


def maybe(shape: Shape) -> Shape:
    """Accept null beside what ``shape`` accepts."""

    def check(value: Any, at: str) -> list[str]:
        return [] if value is None else shape(value, at)

    return check


def listing(shape: Shape, least: int = 0) -> Shape:
    """Accept a list of at least ``least`` items of one shape."""

    def check(value: Any, at: str) -> list[str]:
        if not isinstance(value, list) or len(value) < least:
            return wrong(at, f"a list of {least} or more" if least else "a list", value)
        return _joined(shape(item, f"{at}[{index}]") for index, item in enumerate(value))

    return check


def table(shape: Shape) -> Shape:
    """Accept an object whose values all have one shape."""

    def check(value: Any, at: str) -> list[str]:
        if not isinstance(value, Mapping):
            return wrong(at, "an object", value)
        return _joined(shape(item, _below(at, key)) for key, item in value.items())

    return check


def record(needed: Mapping[str, Shape], optional: Mapping[str, Shape] | None = None) -> Shape:
    """Accept an object with certain keys; further keys are for newer readers and pass."""
    known = {**needed, **(optional or {})}

    def check(value: Any, at: str) -> list[str]:
        if not isinstance(value, Mapping):
            return wrong(at, "an object", value)
        missing = [f"{_below(at, key)}: missing" for key in needed if key not in value]
        inside = (known[key](value[key], _below(at, key)) for key in known if key in value)
        return missing + _joined(inside)

    return check


def unless_not_run(shape: Shape) -> Shape:
    """Accept ``{"not_run": why}`` in place of what ``shape`` accepts."""
    reason = record({"not_run": text})

    def check(value: Any, at: str) -> list[str]:
        skipped = isinstance(value, Mapping) and "not_run" in value
        return reason(value, at) if skipped else shape(value, at)

    return check


def _below(at: str, key: object) -> str:
    return f"{at}.{key}" if at else str(key)


def _joined(parts: Iterable[list[str]]) -> list[str]:
    return [fault for part in parts for fault in part]
