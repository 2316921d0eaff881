"""Which input sizes a network can take; no torch, so that a recipe can ask on loading."""

from __future__ import annotations

from edgekd.errors import RecipeError


def check_size(size: int) -> None:
    """Refuse input sizes whose feature maps would have odd sides.

    At strides 8, 16 and 32 the map must split into 2×2 patches; 84 pixels give 11 and 3, which
    other implementations paper over with Resize nodes that TensorRT refuses.

    Raises:
        RecipeError: ``size`` is not a positive multiple of 64.
    """
    if size <= 0 or size % 64:
        below, above = max(64, size // 64 * 64), (size // 64 + 1) * 64
        raise RecipeError(
            f"MobileViT cannot run at {size} px: its 2×2 patches need a multiple of 64"
            " (other sizes insert Resize nodes, slower and refused by TensorRT)",
            at="setting: size",
            hint=f"use {below if below >= size else above} (images are resized to it on loading)",
        )
