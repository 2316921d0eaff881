"""Tiny pictures whose colour says which class and which image they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CLASSES = {
    "train": ("n00000001", "n00000002", "n00000003", "n00000004"),
    "val": ("n00000005", "n00000006", "n00000007"),
    "test": ("n00000008", "n00000009", "n00000010"),
}
PER_CLASS = 5


class World:
    """What is on disk in every layout: classes of the three splits, a colour for each image."""

    classes = CLASSES
    per_class = PER_CLASS

    @staticmethod
    def colour(name: str, index: int) -> tuple[int, int, int]:
        return 20 * int(name[1:]), 40 * index + 10, 120

    def pixels(self, name: str, index: int, height: int = 84, width: int = 84) -> np.ndarray:
        return np.full((height, width, 3), self.colour(name, index), np.uint8)

    def save(self, path: Path, name: str, index: int, height: int = 24, width: int = 30) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(self.pixels(name, index, height, width))
        image.save(path, "JPEG", quality=95)
        return path

    def check(self, images, split: str, named: bool = True) -> None:
        """Check that labels, names and pixels of one split belong together."""
        names = self.classes[split]
        assert len(images) == len(names) * self.per_class
        assert len(images.classes) == len(names)
        if named:
            assert set(images.classes) == set(names)
        seen = set()
        for index in range(len(images)):
            pixel, label = images[index]
            assert pixel.dtype == np.uint8
            red, green, blue = (int(v) for v in pixel[pixel.shape[0] // 2, pixel.shape[1] // 2])
            name = f"n{round(red / 20):08d}"
            assert abs(red - 20 * int(name[1:])) <= 5 and abs(blue - 120) <= 5
            assert name in names
            if named:
                assert images.classes[label] == name
            seen.add((label, name, round((green - 10) / 40)))
        assert len(seen) == len(images)
        assert len({(label, name) for label, name, _ in seen}) == len(names)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Make any decoding of an image file fail, until undone."""

    def refuse(path):
        raise AssertionError(f"{path} was decoded")

    monkeypatch.setattr("edgekd.data.base._decode", refuse)
    return monkeypatch
