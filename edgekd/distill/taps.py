"""Where to look into a network: its output, its features, the output of a module inside."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from edgekd.errors import RecipeError, did_you_mean


def inside(tap: str) -> bool:
    """Whether a tap is the output of a module inside the network."""
    return tap == "map" or tap.startswith("feat:")


def path_of(model: nn.Module, tap: str) -> str:
    """Path of the module behind a tap.

    Raises:
        RecipeError: The network has no such module, or names no ``map``.
    """
    path = tap.removeprefix("feat:")
    if tap == "map":
        path = getattr(model, "map", "")
        if not isinstance(path, str) or not path:
            raise RecipeError(
                f"{type(model).__name__} does not say where its feature map is",
                at="recipe: objective",
                hint="give it map = 'path.of.module', or use the tap feat:PATH",
            )
    known = dict(model.named_modules())
    if path not in known:
        raise RecipeError(
            f"{type(model).__name__} has no module {path!r}",
            at="recipe: objective",
            hint=did_you_mean(path, [name for name in known if name]),
        )
    return path


class Hooks:
    """Keeps what modules inside a network returned last.

    Args:
        model: The network.
        taps: ``map`` and ``feat:PATH``; others are ignored.

    Attributes:
        seen: Tap → output of the last forward pass.
    """

    def __init__(self, model: nn.Module, taps: Iterable[str]) -> None:
        self.seen: dict[str, Tensor] = {}
        modules = dict(model.named_modules())
        for tap in dict.fromkeys(t for t in taps if inside(t)):
            modules[path_of(model, tap)].register_forward_hook(self._keeper(tap))

    def _keeper(self, tap: str) -> Any:
        def keep(module: nn.Module, given: Any, result: Any) -> None:
            if not isinstance(result, Tensor):
                raise RecipeError(
                    f"{tap} is a {type(result).__name__}, wanted a tensor", at="recipe: objective"
                )
            self.seen[tap] = result

        return keep
