"""Conv-4, the smallest few-shot backbone in common use (arXiv 1703.05175)."""

from __future__ import annotations

from torch import Tensor, nn


def conv4(maps: int = 64, *, classes: int = 0) -> Conv4:
    """Build a Conv-4 with global mean pooling, so that any input size fits.

    Args:
        maps: Feature maps of every block.
        classes: Width of the classifier; 0 gives the few-shot backbone.
    """
    return Conv4(maps, classes)


class Conv4(nn.Module):
    """Four blocks of 3×3 convolution, batch norm, ReLU, 2×2 max pooling."""

    map = "blocks"

    def __init__(self, maps: int, classes: int = 0) -> None:
        super().__init__()
        self.features = maps
        self.blocks = nn.Sequential(*(_block(3 if i == 0 else maps, maps) for i in range(4)))
        self.head = nn.Linear(maps, classes) if classes else nn.Identity()

    def maps(self, x: Tensor) -> Tensor:
        """Last feature map. x: (batch, 3, height, width) → (batch, maps, height/16, width/16)."""
        last: Tensor = self.blocks(x)
        return last

    def embed(self, x: Tensor) -> Tensor:
        """Pooled features. x: (batch, 3, height, width) → (batch, maps)."""
        return self.maps(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, or the features when there is no classifier."""
        out: Tensor = self.head(self.embed(x))
        return out


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
