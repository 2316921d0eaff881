"""Options of a runtime: read against a table, so that a typing error is an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..faults import UsageFault, listed

_REQUIRED: Any = object()


@dataclass(frozen=True)
class Option:
    """One option: the type of its value, its default, and the values allowed.

    Without a default it must be given.
    """

    type: type
    default: Any = _REQUIRED
    choices: tuple[str, ...] = ()

    def read(self, name: str, given: Mapping[str, Any]) -> Any:
        """Return the value given, or the default; null means the default."""
        value = given.get(name)
        if value is None:
            if self.default is _REQUIRED:
                raise UsageFault(f"option {name!r} must be set{self._wanted()}")
            return self.default
        if type(value) is not self.type or (self.choices and value not in self.choices):
            raise UsageFault(f"option {name!r} is {value!r}; wanted{self._wanted()}")
        return value

    def _wanted(self) -> str:
        return f": {' | '.join(self.choices)}" if self.choices else f": {self.type.__name__}"


def read_options(given: Mapping[str, Any], table: Mapping[str, Option]) -> dict[str, Any]:
    """Return a value for every option in `table`.

    Raises:
        UsageFault: An option is unknown, missing, of the wrong type or out of its choices.
    """
    unknown = set(given) - set(table)
    if unknown:
        raise UsageFault(f"unknown option {listed(unknown)}", hint=f"known: {listed(table)}")
    return {name: option.read(name, given) for name, option in table.items()}


def positive(name: str, value: int | None) -> None:
    """Refuse a count below 1."""
    if value is not None and value < 1:
        raise UsageFault(f"option {name!r} is {value}; wanted at least 1")
