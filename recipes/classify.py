"""Plain image classification: your folder of class folders, your teacher, a small student."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from edgekd import Call, Input, Metric, Network, Quantize, Recipe, Train
from edgekd.distill import presets
from edgekd.models.sizes import check_size

STUDENTS = {"conv4": ("conv4:conv4", {"maps": 32}), "mobilevit": ("mobilevit:mobilevit", {})}


def recipe(
    *,
    preset: Literal["full", "smoke"] = "full",
    data: Path = Path("data"),
    classes: int = 10,
    teacher: str = "edgekd.models.resnet12:resnet12",
    weights: str | None = None,
    student: Literal["conv4", "mobilevit"] = "mobilevit",
    size: int = 64,
    epochs: int = 30,
    objective: str = "kd",
    distill: Literal["if-better", "always"] = "if-better",
    temperature: float = 0.0,
    seed: int = 0,
) -> Recipe:
    """Distil a classifier for images in class folders.

    Args:
        preset: ``smoke`` is a fast check: two epochs, two candidates.
        data: Folder with ``train``, ``val`` and ``test`` (or with class folders, then split).
        classes: How many classes there are.
        teacher: ``package.module:function`` or ``file.py:function`` called with ``classes``,
            giving a network that returns logits; or an ``.onnx`` file.
        weights: State dict (.pt) of the teacher; without it the teacher is trained here.
        student: Which small network.
        size: Side of the input in pixels.
        epochs: Passes over the training split.
        objective: How the student learns: a method that ``edgekd methods`` lists, or ``auto``:
            short trainings choose on validation among none, kd, lskd and dist.
        distill: ``if-better`` ships the control where the teacher is no better on validation.
        temperature: Of the softened logits; 0 for the method's own.
        seed: Seed of everything random.
    """
    if student == "mobilevit":
        check_size(size)
    here, smoke = Path.cwd(), preset == "smoke"
    folder = str((here / data).resolve())
    train = Train(
        2 if smoke else epochs, batch=16 if smoke else 64, views=2 if smoke else 8,
        augment=Call("edgekd.distill.views:crop_and_turn"),
    )  # fmt: skip
    build, extra = STUDENTS[student]
    return Recipe(
        name="classify",
        data=Call(
            "edgekd.data.sniff:load", {"path": folder, "size": size, "kind": "classification"}
        ),
        files=(folder,),
        input=Input((3, size, size), (0.5,) * 3, (0.5,) * 3),
        output="logits",
        task=Metric(Call("edgekd.tasks.metric:accuracy"), name="accuracy"),
        teacher=_teacher(teacher, weights, classes, here),
        student=Network(
            Call(f"edgekd.models.{build}", {**extra, "classes": classes}), label=student
        ),
        train=train,
        objective=presets.objective(
            objective,
            offers=_offers(teacher, build),
            temperature=temperature,
            usual="kd",
        ),
        quantize=Quantize(samples=32, candidates=2) if smoke else Quantize(),
        seed=seed,
        distill=distill,
    )


def _offers(teacher: str, student: str) -> tuple[str, ...]:
    """Taps of both sides; ``alike`` where one function builds both, the student narrower."""
    if teacher.endswith(".onnx"):
        return ("logits",)
    offers = (*presets.ALL, "pooled")
    return (*offers, "alike") if teacher == f"edgekd.models.{student}" else offers


def _teacher(teacher: str, weights: str | None, classes: int, here: Path) -> Network:
    if teacher.endswith(".onnx"):
        return Network(None, str((here / teacher).resolve()), label=Path(teacher).name)
    place, _, function = teacher.rpartition(":")
    build = str((here / place).resolve()) if place.endswith(".py") else place
    file = None if weights is None else str((here / weights).resolve())
    return Network(Call(f"{build}:{function}", {"classes": classes}), file, label=function)
