"""A user's project for tests of the command line: pictures, a network of a foreign design."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]

MODEL = """
import torch
from torch import nn

def build(classes):
    return nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
                         nn.Flatten(), nn.Linear(32, classes))
"""

ASK = (
    "compress", "--recipe", "classify", "--target", "cpu-ort", "--set", "preset=smoke",
    "--set", "data=pictures", "--set", "classes=3", "--set", "student=conv4",
)  # fmt: skip
OWN = ("--set", "teacher=mine.py:build", "--set", "weights=teacher.pt")


def make(folder: Path) -> Path:
    """Write three colours to tell apart, and a teacher of a foreign design with weights."""
    import torch
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 12), ("test", 12)):
        for label, name in enumerate(("red", "green", "blue")):
            place = folder / "pictures" / split / name
            place.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 120, (64, 64, 3), dtype=np.uint8)
                pixels[..., label] += 100
                Image.fromarray(pixels).save(place / f"{i}.png")
    (folder / "mine.py").write_text(MODEL)
    scope: dict[str, object] = {}
    exec(MODEL, scope)
    torch.manual_seed(0)
    model = scope["build"](3)  # type: ignore[operator]
    torch.save(model.state_dict(), folder / "teacher.pt")
    return folder


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """The environment of a command: a store of its own, this checkout."""
    variables.setdefault("EDGEKD_STORE", str(folder / "store"))
    path = os.pathsep.join([*variables.pop("PATHS", "").split(), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, **variables}


def start(folder: Path, *arguments: object, **variables: str) -> subprocess.Popen[str]:
    """Start ``edgekd`` in the project."""
    command = [sys.executable, "-m", "edgekd", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment(folder, **variables),
        stdout=pipe,
        stderr=pipe,
        text=True,
    )


def edgekd(folder: Path, *arguments: object, code: int = 0, **variables: str) -> str:
    """Run ``edgekd`` in the project; return all that it printed."""
    process = start(folder, *arguments, **variables)
    out, err = process.communicate(timeout=800)
    assert process.returncode == code, out + err
    return out + err
