"""Deterministic augmented views: view v of sample i is the same whoever asks.

That is what lets a teacher's outputs be cached: the numbers behind view v are drawn once for all
samples from (seed, v), not from the order in which batches happen to be made.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekd.errors import RecipeError
from edgekd.spec import Input, Train


class Augment(Protocol):
    """An augmentation driven by uniform numbers.

    Attributes:
        dims: How many numbers in [0, 1) one sample takes.
    """

    dims: int

    def __call__(self, images: Tensor, uniform: Tensor) -> Tensor:
        """images: (batch, channels, height, width) in 0…255; uniform: (batch, dims)."""
        ...


def draw(samples: int, dims: int, seed: int, view: int) -> Tensor:
    """Uniform numbers of one view for all samples: (samples, dims) float32."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + view)
    return torch.rand(samples, dims, generator=generator)


def fresh(seed: int) -> int:
    """Seed of the numbers that only the student's corruption draws."""
    return seed * 31 + 17


def check_augment(augment: Any, at: str) -> None:
    """Refuse an augmentation that is not a function of the numbers it is given.

    Args:
        augment: What the recipe's call returned.
        at: Which field of the recipe.

    Raises:
        RecipeError: It has no ``dims``, or gives another result for the same numbers: cached
            outputs of the teacher would belong to other samples than the student sees.
    """
    dims = getattr(augment, "dims", None)
    if not isinstance(dims, int) or dims < 1 or not callable(augment):
        raise RecipeError(
            f"{type(augment).__name__} is not driven by the numbers of a view",
            at=f"recipe: {at}",
            hint="return an object with dims: int and __call__(images, uniform (batch, dims))",
        )


def check_repeats(augment: Augment, x: Tensor, at: str) -> None:
    """Refuse an augmentation that is random by itself; see `check_augment`.

    Args:
        augment: The augmentation.
        x: Some samples, floats (batch, …).
        at: Which field of the recipe.

    Raises:
        RecipeError: Two calls with the same numbers differ.
    """
    numbers = torch.linspace(0.05, 0.95, len(x) * augment.dims).reshape(len(x), augment.dims)
    first, second = augment(x, numbers), augment(x, numbers)
    if not torch.equal(first, second):
        raise RecipeError(
            f"{type(augment).__name__} is random by itself: cached outputs of the teacher would"
            " belong to other samples than the student sees",
            at=f"recipe: {at}",
            hint="draw from the numbers that are passed, nothing else",
        )


def view_count(train: Train) -> int:
    """How many distinct views a training looks at."""
    return 1 if train.augment is None else min(train.views, train.epochs)


def crop_and_turn(
    *, smallest: float = 0.5, degrees: float = 15.0, flip: bool = True, erase: float = 0.0
) -> CropAndTurn:
    """Random resized crop, rotation, horizontal flip, optional erased square.

    Args:
        smallest: Smallest area of the crop, as a share of the picture.
        degrees: Largest rotation either way.
        flip: Mirror half of the samples.
        erase: Chance of replacing a square of a quarter of the sides by the picture's mean.
    """
    return CropAndTurn(smallest, math.radians(degrees), flip, erase)


class CropAndTurn:
    """One affine resampling a sample; see `crop_and_turn`."""

    dims = 9

    def __init__(self, smallest: float, angle: float, flip: bool, erase: float) -> None:
        self.smallest, self.angle, self.flip, self.erase = smallest, angle, flip, erase

    def __call__(self, images: Tensor, uniform: Tensor) -> Tensor:
        """See `Augment`."""
        area, ratio, dx, dy, turn, mirror, wipe, wx, wy = uniform.unbind(1)
        side = (self.smallest + (1 - self.smallest) * area).sqrt()
        stretch = torch.exp((ratio - 0.5) * math.log(16 / 9))
        width = (side * stretch.sqrt()).clamp(max=1.0)
        height = (side / stretch.sqrt()).clamp(max=1.0)
        sign = torch.where(mirror < 0.5, -1.0, 1.0) if self.flip else torch.ones_like(mirror)
        angle = (2 * turn - 1) * self.angle
        cos, sin = angle.cos(), angle.sin()
        rows = torch.stack(
            (
                torch.stack((sign * width * cos, -height * sin, (2 * dx - 1) * (1 - width)), 1),
                torch.stack((sign * width * sin, height * cos, (2 * dy - 1) * (1 - height)), 1),
            ),
            1,
        )
        grid = F.affine_grid(rows, list(images.shape), align_corners=False)
        seen = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        return self._wipe(seen, wipe, wx, wy) if self.erase else seen

    def _wipe(self, images: Tensor, wipe: Tensor, wx: Tensor, wy: Tensor) -> Tensor:
        height, width = images.shape[2:]
        y = torch.arange(height).view(1, -1, 1) / height
        x = torch.arange(width).view(1, 1, -1) / width
        middle_y, middle_x = 0.125 + 0.75 * wy.view(-1, 1, 1), 0.125 + 0.75 * wx.view(-1, 1, 1)
        inside = ((y - middle_y).abs() < 0.125) & ((x - middle_x).abs() < 0.125)
        chosen = inside & (wipe < self.erase).view(-1, 1, 1)
        return torch.where(chosen[:, None], images.mean((2, 3), keepdim=True), images)


def as_tensor(raw: Any) -> Tensor:
    """Raw samples to a float tensor: uint8 (batch, H, W, C) → (batch, C, H, W) in 0…255."""
    tensor = torch.as_tensor(raw)
    return tensor.permute(0, 3, 1, 2).float() if tensor.dtype == torch.uint8 else tensor.float()


class View:
    """One augmented view of a data set: raw samples → floats, images in 0…255.

    Args:
        augment: The augmentation, or None.
        samples: Size of the whole data set.
        seed: Seed of the recipe.
        view: Number of the view.
    """

    def __init__(self, augment: Augment | None, samples: int, seed: int, view: int) -> None:
        self._augment = augment
        self._numbers = None if augment is None else draw(samples, augment.dims, seed, view)

    def __call__(self, raw: Any, indices: Tensor) -> Tensor:
        """raw: (batch, …) as the data set gives it; indices: (batch,) places in the data set."""
        return self.change(as_tensor(raw), indices)

    def change(self, x: Tensor, indices: Tensor) -> Tensor:
        """The same for floats (batch, …)."""
        if self._augment is None or self._numbers is None:
            return x
        return self._augment(x, self._numbers[indices])


class Prepare:
    """Floats of a view → what a network takes: its channels, its size, its normalisation."""

    def __init__(self, input: Input) -> None:
        self._channels = None if input.channels is None else list(input.channels)
        self._size = input.shape[-2:] if len(input.shape) == 3 else None
        self._shift = self._scale = None
        if input.mean is not None and input.std is not None:
            self._shift = torch.tensor(input.mean).view(1, -1, 1, 1)
            self._scale = torch.tensor(input.std).view(1, -1, 1, 1)

    def __call__(self, x: Tensor) -> Tensor:
        """x: (batch, channels, …) → what the network takes.

        Its own channels, its own size (images only), (x/255 − mean)/std where there is a mean.
        """
        if self._channels is not None:
            x = x[:, self._channels]
        if x.ndim != 4:
            return x
        if self._size is not None and tuple(x.shape[-2:]) != tuple(self._size):
            x = F.interpolate(x, list(self._size), mode="bilinear", antialias=True)
        if self._shift is not None and self._scale is not None:
            x = (x / 255 - self._shift) / self._scale
        return x.contiguous(memory_format=torch.channels_last)


def spec_input(contract: Input) -> dict[str, Any]:
    """The contract of a torch network: always prepared floats."""
    return {
        "name": contract.name,
        "shape": list(contract.shape),
        "mean": contract.mean,
        "std": contract.std,
        "form": "float32_nchw",
        "channels": contract.channels,
    }


def in_process(
    backbone: Callable[[Tensor], Tensor], contract: Input, device: torch.device | None = None
) -> Any:
    """The network as a task sees it, run in this process: raw samples in, outputs out (numpy)."""
    ready = Prepare(contract)

    def model(raw: Any) -> Any:
        with torch.inference_mode():
            return backbone(ready(as_tensor(raw)).to(device)).float().cpu().numpy()

    return model
