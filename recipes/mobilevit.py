"""Few-shot images: a distilled MobileViT; new classes are enrolled on the device."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from edgekd import Call, Input, Network, Objective, Quantize, Recipe, Term, Train
from edgekd.models.sizes import check_size

OBJECTIVES = {
    "none": (Term("label", "ce"),),
    "mse": (Term("features", "mse", project="linear"),),
    "ce+mse": (Term("label", "ce"), Term("features", "mse", project="linear", weight=1.0)),
    "ce+gram": (Term("label", "ce"), Term("features", "mse", transform="gram", weight=10.0)),
    "kd": (Term("label", "ce", weight=0.5), Term("logits", "kl", args={"temperature": 4.0})),
}
TEACHER = "edgekd:data/teachers/icons_resnet12_32.pt"
SHA256 = "c3bb9644e019cdbca7261075c34e55271c15a42d07cd5e8b5a62f7252479b108"


def recipe(
    *,
    preset: Literal["embedded", "smoke"] = "embedded",
    data: str = "embedded",
    teacher: str = "auto",
    objective: Literal["none", "mse", "ce+mse", "ce+gram", "kd"] = "ce+mse",
    variant: Literal["tiny", "xxs", "xs", "s"] = "xxs",
    size: int = 64,
    epochs: int = 12,
    query: int = 10,
    input: Literal["float32_nchw", "uint8_nhwc"] = "float32_nchw",
    seed: int = 0,
) -> Recipe:
    """Distil a MobileViT backbone that tells new classes apart from a few examples.

    Args:
        preset: ``embedded`` trains on the icons that ship with edgekd; ``smoke`` is a fast check.
        data: ``embedded``, or a folder: MiniImageNet in any usual layout, or class folders.
        teacher: ``auto`` (ships trained on the icons), ``train``, or a state dict of a 32-map
            ResNet-12 (.pt) or any network that gives features (.onnx).
        objective: What the student learns from, besides or instead of labels.
        variant: Size of the student.
        size: Side of the input in pixels, a multiple of 64.
        epochs: Passes over the base classes, for student and control alike.
        query: Examples a class that an episode asks about.
        input: Form of the exported input; ``uint8_nhwc`` takes camera bytes.
        seed: Seed of everything random.
    """
    check_size(size)
    smoke = preset == "smoke"
    variant, epochs = ("tiny", 2) if smoke else (variant, epochs)
    augment = Call("edgekd.distill.views:crop_and_turn", {"erase": 0.25})
    train = Train(epochs, views=2 if smoke else 6, smoothing=0.1, augment=augment)
    names = {"tiny": "MobileViT-tiny", "xxs": "MobileViT-XXS", "xs": "MobileViT-XS"}
    embedded = data == "embedded"
    few = {"classes": 40} if smoke else {}
    load = {"size": size, **few} if embedded else {"path": data, "size": size}
    return Recipe(
        name="mobilevit",
        data=Call("edgekd.data.icons:icons" if embedded else "edgekd.data.sniff:load", load),
        files=() if embedded else (data,),
        input=Input((3, size, size), (0.5,) * 3, (0.5,) * 3, form=input),
        task=Call(
            "edgekd.tasks.fewshot:few_shot", {"query": query, "episodes": 200 if smoke else 2000}
        ),
        teacher=_teacher(teacher, embedded, augment),
        student=Network(
            Call("edgekd.models.mobilevit:mobilevit", {"variant": variant, "size": size}),
            label=names.get(variant, "MobileViT-S"),
        ),
        train=train,
        objective=Objective(objective, OBJECTIVES[objective]),
        baselines=() if smoke else _baselines(epochs, augment),
        quantize=Quantize(samples=32, candidates=2) if smoke else Quantize(),
        seed=seed,
    )


def _teacher(teacher: str, embedded: bool, augment: Call) -> Network:
    build = Call("edgekd.models.resnet12:resnet12", {"maps": 32})
    made = "edgekd's trainer at the settings of teacher=train, weights rounded to float16"
    budget = Train(30, views=30, smoothing=0.1, augment=augment, amp="bf16")
    if teacher == "auto" and embedded:
        return Network(build, TEACHER, SHA256, None, "ResNet-12, 32 maps", "Apache-2.0", made)
    if teacher in ("auto", "train"):
        return Network(build, train=budget, label="ResNet-12, 32 maps")
    if teacher.endswith(".onnx"):
        return Network(None, teacher, label="ONNX teacher")
    return Network(build, teacher, label="ResNet-12, 32 maps")


def _baselines(epochs: int, augment: Call) -> tuple[Network, ...]:
    """Conv-4 gets the student's CPU time: measured, an epoch of it costs 2.3 of the student's."""
    small = Train(epochs, smoothing=0.1, augment=augment)
    equal = replace(small, epochs=max(1, round(epochs / 2.3)))
    return (
        Network(Call("edgekd.models.conv4:conv4", {"maps": 64}), train=equal, label="Conv-4"),
        Network(
            Call("edgekd.models.resnet12:resnet12", {"maps": 16}),
            train=small,
            label="ResNet-12, 16 maps",
        ),
    )
