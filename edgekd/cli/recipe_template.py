"""Classify pictures on a device: a start to edit. Replace data, networks and metric by yours."""

from pathlib import Path
from typing import Any

from edgekd import Call, Input, Metric, Network, Objective, Recipe, Term, Train
from edgekd.data.base import Splits
from edgekd.data.icons import icons
from edgekd.data.split import split_samples


def splits(classes: int) -> Splits:
    """Your data: train, val, test; each gives (image uint8 [H, W, C], label) by index."""
    images: Any = icons(size=32).train
    chosen = images.subset((images.labels < classes).nonzero()[0], range(classes))
    parts, note = split_samples(chosen, (0.6, 0.2, 0.2))
    return Splits(parts["train"], parts["val"], parts["test"], note)


def accuracy(outputs: Any, labels: Any) -> Any:
    """Your metric: a value for each sample."""
    return (outputs.argmax(axis=1) == labels).astype(float)


def recipe(*, epochs: int = 40, teacher: str | None = None, seed: int = 0) -> Recipe:
    """Classify 20 kinds of icons: a wide Conv-4 teaches a narrow one."""
    here, train = Path(__file__), Train(epochs)
    build, kinds = "edgekd.models.conv4:conv4", 20
    return Recipe(
        name=here.stem,
        data=Call(f"{here.name}:splits", {"classes": kinds}),
        input=Input((3, 32, 32), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        output="logits",
        task=Metric(Call(f"{here.name}:accuracy"), name="accuracy"),
        teacher=Network(Call(build, {"maps": 48, "classes": kinds}), teacher, train=train),
        student=Network(Call(build, {"maps": 16, "classes": kinds})),
        train=train,
        objective=Objective("kd", (Term("label", "ce"), Term("logits", "kl"))),
        seed=seed,
    )
