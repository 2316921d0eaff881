"""MobileViT (arXiv 2110.02178) in plain torch, written to export cleanly.

The block folds 2×2 patches with ``pixel_unshuffle``: 4-D tensors throughout, no interpolation,
batch size never baked in. That is exact only when every feature map the blocks see has even
sides, hence sizes that are multiples of 64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.errors import RecipeError
from edgekd.models.sizes import check_size


@dataclass(frozen=True)
class Widths:
    """Channel plan of one MobileViT variant (Table 4 of the paper)."""

    stem: int
    plain: int
    down: int
    maps: tuple[int, int, int]
    tokens: tuple[int, int, int]
    depth: tuple[int, int, int]
    out: int
    expand: int


VARIANTS = {
    "tiny": Widths(8, 8, 12, (16, 24, 32), (24, 32, 40), (1, 1, 1), 64, 2),
    "xxs": Widths(16, 16, 24, (48, 64, 80), (64, 80, 96), (2, 4, 3), 320, 2),
    "xs": Widths(16, 32, 48, (64, 80, 96), (96, 120, 144), (2, 4, 3), 384, 4),
    "s": Widths(16, 32, 64, (96, 128, 160), (144, 192, 240), (2, 4, 3), 640, 4),
}


def mobilevit(variant: str = "xxs", *, size: int = 64, classes: int = 0) -> MobileViT:
    """Build a MobileViT.

    Args:
        variant: ``xxs``, ``xs``, ``s`` (the paper's) or ``tiny`` (for tests).
        size: Side of the square input in pixels, a multiple of 64.
        classes: Width of the classifier; 0 gives the few-shot backbone (pooled features).

    Raises:
        RecipeError: Unknown variant, or a size that the 2×2 patches cannot tile.
    """
    if variant not in VARIANTS:
        raise RecipeError(f"MobileViT has no variant {variant!r}; known: {', '.join(VARIANTS)}")
    check_size(size)
    return MobileViT(VARIANTS[variant], classes)


class MobileViT(nn.Module):
    """Stem, five stages, a final 1×1 convolution, global mean; optional classifier."""

    map = "final"

    def __init__(self, widths: Widths, classes: int = 0) -> None:
        super().__init__()
        self.features = widths.out
        a, b, c = widths.maps
        self.stem = conv(3, widths.stem, 3, stride=2)
        self.stages = nn.Sequential(
            Inverted(widths.stem, widths.plain, 1, widths.expand),
            nn.Sequential(
                Inverted(widths.plain, widths.down, 2, widths.expand),
                Inverted(widths.down, widths.down, 1, widths.expand),
                Inverted(widths.down, widths.down, 1, widths.expand),
            ),
            *(
                nn.Sequential(
                    Inverted(before, width, 2, widths.expand), Block(width, tokens, depth)
                )
                for before, width, tokens, depth in zip(
                    (widths.down, a, b), (a, b, c), widths.tokens, widths.depth, strict=True
                )
            ),
        )
        self.final = conv(c, widths.out, 1)
        self.head = nn.Linear(widths.out, classes) if classes else nn.Identity()

    def maps(self, x: Tensor) -> Tensor:
        """Last feature map. x: (batch, 3, size, size) → (batch, features, size/32, size/32)."""
        last: Tensor = self.final(self.stages(self.stem(x)))
        return last

    def embed(self, x: Tensor) -> Tensor:
        """Pooled features. x: (batch, 3, size, size) → (batch, features)."""
        return self.maps(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, or the features when there is no classifier."""
        out: Tensor = self.head(self.embed(x))
        return out


def conv(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, act: bool = True
) -> nn.Sequential:
    """Convolution without bias, batch norm, SiLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, nn.SiLU()) if act else nn.Sequential(*layers)


class Inverted(nn.Module):
    """Inverted residual of MobileNetV2 (arXiv 1801.04381) with SiLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        self.skip = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            conv(inputs, hidden, 1),
            conv(hidden, hidden, 3, stride=stride, groups=hidden),
            conv(hidden, outputs, 1, act=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.skip else y


class Block(nn.Module):
    """Local convolution, transformer over pixels of equal place in their patch, fusion."""

    def __init__(self, channels: int, width: int, depth: int, heads: int = 4) -> None:
        super().__init__()
        self.local = conv(channels, channels, 3)
        self.enter = nn.Conv2d(channels, width, 1, bias=False)
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.leave = conv(width, channels, 1)
        self.fuse = conv(2 * channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.enter(self.local(x))
        channels, height, width = y.shape[1], y.shape[2], y.shape[3]
        tokens = F.pixel_unshuffle(y, 2).reshape(-1, channels, 4, height * width // 4)
        tokens = self.norm(self.layers(tokens.permute(0, 2, 3, 1)))
        back = tokens.permute(0, 3, 1, 2).reshape(-1, channels * 4, height // 2, width // 2)
        y = self.leave(F.pixel_shuffle(back, 2))
        fused: Tensor = self.fuse(torch.cat((x, y), 1))
        return fused


class Layer(nn.Module):
    """Pre-norm transformer layer over the last-but-one axis; mlp ratio 2."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class Attention(nn.Module):
    """Multi-head self-attention with explicit matmuls (every exporter and counter sees them)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        patches, tokens, width = x.shape[1], x.shape[2], x.shape[3]
        heads = self.qkv(x).reshape(-1, tokens, 3, self.heads, width // self.heads)
        q, k, v = heads.permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q * self.scale @ k.transpose(-2, -1)).softmax(-1)
        mixed = (weights @ v).transpose(1, 2).reshape(-1, patches, tokens, width)
        out: Tensor = self.project(mixed)
        return out
