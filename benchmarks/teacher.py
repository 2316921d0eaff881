"""Make the teacher that ships for the icons again: train it, round it, write file and log.

    python benchmarks/teacher.py --out teachers

Trains what ``--set teacher=train`` trains (ResNet-12, 32 maps, 30 epochs, about 40 CPU-minutes),
from the store where it is there already, rounds the weights to float16, and writes
``icons_resnet12_32.pt`` and ``.log`` with the command, the seed, the loss of every epoch, the score
on the validation classes and the digest that `recipes/mobilevit.py` pins. Another processor, or
another version of torch, trains another network of the same worth: the digest is the file's, not
the command's.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from edgekd import steps
from edgekd.backends.torch_eager import MAIN, WEIGHTS
from edgekd.discover import load_recipe
from edgekd.events import Event
from edgekd.run import Walk
from edgekd.store import Store, sha256

NAME = "icons_resnet12_32"


def rounded(folder: Path) -> dict[str, torch.Tensor]:
    """Weights of a trained network in float16, as the shipped file holds them.

    Args:
        folder: Result of a training (`edgekd.backends.torch_eager.save_network`).
    """
    if not (folder / MAIN).is_file():
        raise SystemExit(f"{folder} holds no trained network")
    state = torch.load(folder / WEIGHTS, weights_only=True)
    return {
        name: value.half() if value.is_floating_point() else value for name, value in state.items()
    }


def main() -> None:
    """Train, round, write."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True, help="folder for the two files")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    recipe = load_recipe("mobilevit", {"teacher": "train", "seed": asked.seed})
    walk = Walk(recipe, Store(), _say)
    (step,) = [s for s in steps.shared(recipe) if s.name == "teacher"]
    walk.step(step)
    facts = walk.done["teacher"].facts
    asked.out.mkdir(parents=True, exist_ok=True)
    file = asked.out / f"{NAME}.pt"
    torch.save(rounded(walk.whole("teacher").path), file)
    lines = [
        f"python benchmarks/teacher.py --out {asked.out.name} --seed {asked.seed}",
        f"torch {torch.__version__}, {facts['cpu_s']:.0f} CPU-s",
        *(f"epoch {n + 1} loss {loss:.4f}" for n, loss in enumerate(facts["history"])),
        *(
            f"validation, float32: {name} {row['value']:.4f} [{row['low']:.4f}, {row['high']:.4f}]"
            for name, row in facts["val"]["metrics"].items()
        ),
        f"sha256 {sha256(file)}",
    ]
    (asked.out / f"{NAME}.log").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def _say(event: Event) -> None:
    if event.kind in ("start", "end", "cached", "progress") and event.text:
        print(f"{event.step}: {event.text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
