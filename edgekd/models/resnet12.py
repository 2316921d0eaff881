"""ResNet-12, the field's few-shot backbone (as in EASY, arXiv 2201.09699)."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def resnet12(maps: int = 64, *, classes: int = 0) -> ResNet12:
    """Build a ResNet-12.

    Args:
        maps: Feature maps of the first block; the blocks have ×(1, 2.5, 5, 10) of it.
            64 gives the usual 12.42 M parameters, 32 the "tiny" 3.109 M.
        classes: Width of the classifier; 0 gives the few-shot backbone.
    """
    return ResNet12(maps, classes)


class ResNet12(nn.Module):
    """Four residual blocks of three 3×3 convolutions, each followed by 2×2 max pooling."""

    map = "blocks"

    def __init__(self, maps: int, classes: int = 0) -> None:
        super().__init__()
        widths = (3, maps, int(2.5 * maps), 5 * maps, 10 * maps)
        self.features = widths[-1]
        self.blocks = nn.Sequential(*(Block(a, b) for a, b in itertools.pairwise(widths)))
        self.head = nn.Linear(self.features, classes) if classes else nn.Identity()

    def maps(self, x: Tensor) -> Tensor:
        """Last feature map. x: (batch, 3, height, width) → (batch, features, …)."""
        last: Tensor = self.blocks(x)
        return last

    def embed(self, x: Tensor) -> Tensor:
        """Pooled features. x: (batch, 3, height, width) → (batch, features)."""
        return self.maps(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, or the features when there is no classifier."""
        out: Tensor = self.head(self.embed(x))
        return out


class Block(nn.Module):
    """conv-bn-act ×3 with a 1×1 shortcut, then pooling; LeakyReLU 0.1."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv(inputs, outputs, 3),
            nn.LeakyReLU(0.1),
            *_conv(outputs, outputs, 3),
            nn.LeakyReLU(0.1),
            *_conv(outputs, outputs, 3),
        )
        self.shortcut = nn.Sequential(*_conv(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.body(x) + self.shortcut(x), 0.1)
        return torch.max_pool2d(y, 2)


def _conv(inputs: int, outputs: int, kernel: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(outputs)
