"""Aviation faults: is a flight faulty, and with what; a light InceptionTime beside its teacher."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from edgekd import Call, Input, Network, Quantize, Recipe, Term, Train
from edgekd.data.flight.channels import SELECTIONS, select
from edgekd.distill import presets
from edgekd.tasks.faults.cascade import SECOND

BUILD = "edgekd.models.inception"
MEMBERS = 4
FAULTS = {"simflight": 11, "2days": 19, "all_flights": 36}
CHANNELS = 23
# preset → (epochs, samples, airframes, events, maps)
PRESETS = {"embedded": (10, 128, 50, 13, 32), "smoke": (2, 128, 5, 11, 8)}


def recipe(
    *,
    preset: Literal["embedded", "smoke"] = "embedded",
    data: str = "embedded",
    stage: Literal["both", 1, 2] = "both",
    difficulty: Literal["clear", "fleet"] = "clear",
    channels: Literal["trees15", "paper15", "all"] = "trees15",
    student: Literal["student", "lite"] = "student",
    teacher: Literal["ensemble", "inception"] = "ensemble",
    teacher_channels: Literal["student", "all"] = "student",
    mode: Literal["balanced", "kd", "recall-first"] = "kd",
    objective: str = "mode",
    recall: float = 0.9,
    temperature: float = 2.0,
    alpha: float = 0.5,
    distill: Literal["if-better", "always"] = "if-better",
    epochs: int = 0,
    length: int = 0,
    fold: int = 0,
    layout: Literal["2days", "all_flights"] = "2days",
    protocol: Literal["clean", "official"] = "clean",
    random_split: bool = False,
    seed: int = 0,
    prefix: str = "",
) -> Recipe:
    """Distil a network that finds faulty flights and one that names the fault of those it flags.

    Both ship in one bundle: stage 1 at its top, stage 2 in its folder ``stage2``, the driver of
    both as ``cascade.py``.

    Published sizes are not known beyond the abstract of arXiv 2604.01725; kernel, width, depth
    and budget are our choice, set so that the student has 70 % fewer parameters.

    Args:
        preset: ``embedded`` computes 5,200 simulated flights; ``smoke`` is a fast check.
        data: ``embedded``, or the folder of NGAFID's maintenance set.
        stage: 1 tells faulty from healthy, 2 names the fault of a faulty flight; ``both`` is the
            cascade, 1 or 2 that network alone.
        difficulty: Of the embedded flights: ``clear``, or ``fleet``, where airframes differ more,
            faults are fainter, and a tenth of the labels say faulty where nothing shows.
        channels: Sensors that the student sees: ``trees15`` (whose loss costs the trivial model
            most on validation), ``paper15`` (as third parties report it), or all 23.
        student: One kernel and the pooling branch, or the same with separable convolutions.
        teacher: Four students of other beginnings whose answers are averaged, each of which learns
            as long as the student (InceptionTime is published as an ensemble); or one
            InceptionTime of three kernels, which else is trained beside the student.
        teacher_channels: The teacher sees the student's sensors, or all 23. On the validation
            flights of ``fleet`` (128 samples, one training each) the student had an AUC of 0.72
            with ``trees15`` and of 0.69 with all.
        mode: ``balanced`` learns from labels alone, ``kd`` from labels and teacher,
            ``recall-first`` also weighs faulty flights double.
        objective: Instead of the mode's: a method that ``edgekd methods`` lists, or ``auto``: short
            trainings choose on validation among none, lskd, dist, kd and the mode's.
        recall: Share of the faulty flights that stage 1 must find; chooses its threshold.
        temperature: Of the softened logits.
        alpha: Share of the teacher in the loss.
        distill: ``if-better`` ships the control where the teacher is no better on validation.
        epochs: Passes over the training flights, for student and control alike; 0 for the
            preset's.
        length: Samples a flight; 0 for the preset's. 4096 s are mean-pooled to it.
        fold: Which fifth of the airframes is tested; the next one validates.
        layout: Of NGAFID: ``2days`` has the official folds and 19 faults, ``all_flights`` (needs
            pyarrow, and ``random_split``) none and up to 36.
        protocol: Of NGAFID: ``clean`` touches the tested fold once, ``official`` scales and selects
            on it, as the public code does.
        random_split: Draw folds where NGAFID's header has none; flatters every score.
        seed: Seed of everything random.
        prefix: Begins every C symbol of firmware, with ``_stage2`` behind it in stage 2; the
            recipe's name by default.

    Data:
        Nothing is needed: simflight is computed from the base flights that ship with edgekd.
        Yours: 2days.tar.gz of doi 10.5281/zenodo.6624956, unpacked; run folds 0 to 4.
    """
    asked: dict[str, Any] = dict(locals())
    if stage == "both":
        first, second = (recipe(**{**asked, "stage": number}) for number in (1, 2))
        return _cascade(first, second, prefix)
    usual, smoke, embedded = PRESETS[preset], preset == "smoke", data == "embedded"
    long, seen = length or usual[1], select(channels)
    mine = Input((len(seen), 1, long), channels=seen, name="flight")
    theirs = mine if teacher_channels == "student" else Input((CHANNELS, 1, long), name="flight")
    classes = 2 if stage == 1 else FAULTS["simflight" if embedded else layout]
    folder = "" if embedded else str((Path.cwd() / data).resolve())
    common = {"stage": stage, "length": long, "fold": fold}
    train = Train(epochs or usual[0], batch=32, lr=2e-3, weight_decay=1e-2, amp="bf16")
    sizes = {"classes": classes, "maps": usual[4]}
    names = {"student": "LiteInception 1+1", "lite": "LiteInception separable"}
    return Recipe(
        name="liteinception",
        data=Call(
            "edgekd.data.flight.simflight:simflight",
            {**common, "difficulty": difficulty, "airframes": usual[2], "events": usual[3]},
        )
        if embedded
        else Call(
            "edgekd.data.flight.ngafid:ngafid",
            {
                **common,
                "path": folder,
                "layout": layout,
                "protocol": protocol,
                "random_split": random_split,
            },
        ),
        files=() if embedded else (folder,),
        input=mine,
        output="logits",
        task=_task(stage, recall),
        teacher=_teacher(teacher, train, sizes, student, theirs),
        student=Network(
            Call(f"{BUILD}:inception", {**sizes, "channels": len(seen), "form": student}),
            label=f"{names[student]}, {len(seen)} sensors",
        ),
        train=train,
        baselines=() if smoke or teacher == "inception" else (_inception(train, sizes, mine),),
        objective=presets.objective(
            mode if objective == "mode" else objective,
            own={mode: _terms(mode, stage, alpha, temperature)},
            offers=("logits",),
            usual=mode,
        ),
        quantize=Quantize(samples=32, candidates=2) if smoke else Quantize(samples=256),
        seed=seed,
        distill=distill,
        time_teacher=not smoke,
        notes=_notes(channels),
    )


def _cascade(first: Recipe, second: Recipe, prefix: str) -> Recipe:
    """Stage 1, with stage 2 as its part."""
    name = f"{first.name}_{SECOND}"
    own = {"stage": 2, "prefix": f"{prefix}_{SECOND}" if prefix else ""}
    part = replace(second, name=name, settings=own)
    return replace(first, parts={SECOND: part}, joint=Call("edgekd.tasks.faults.joint:judge"))


def _teacher(name: str, train: Train, sizes: dict[str, int], student: str, seen: Input) -> Network:
    """The ensemble: every member sees its part of a batch, so batch and epochs grow together."""
    if name == "inception":
        return replace(_inception(train, sizes, seen), input=seen)
    build = {**sizes, "members": MEMBERS, "channels": seen.shape[0], "form": student}
    return Network(
        Call(f"{BUILD}:ensemble", build),
        train=replace(train, epochs=MEMBERS * train.epochs, batch=MEMBERS * train.batch),
        label=f"{MEMBERS} students averaged, {seen.shape[0]} sensors",
        input=seen,
    )


def _inception(train: Train, sizes: dict[str, int], seen: Input) -> Network:
    return Network(
        Call(f"{BUILD}:inception", {**sizes, "channels": seen.shape[0], "form": "teacher"}),
        train=train,
        label=f"InceptionTime 3+1, {seen.shape[0]} sensors",
    )


def _task(stage: int, recall: float) -> Call:
    if stage == 1:
        return Call("edgekd.tasks.faults.tasks:detection", {"recall": recall})
    return Call("edgekd.tasks.faults.tasks:identification")


def _terms(mode: str, stage: int, alpha: float, temperature: float) -> tuple[Term, ...]:
    """Labels, and in two modes the teacher's softened logits."""
    weights = {"weights": (1.0, 2.0)} if mode == "recall-first" and stage == 1 else {}
    if mode == "balanced":
        return (Term("label", "ce"),)
    return (
        Term("label", "ce", weight=1 - alpha, args=weights),
        Term("logits", "kl", weight=alpha, args={"temperature": temperature}),
    )


def _notes(channels: str) -> tuple[str, ...]:
    dropped = [name for name in SELECTIONS["all"] if name not in SELECTIONS[channels]]
    if not dropped:
        return ()
    return (
        f"The student does not see {', '.join(dropped)}: a fault that shows there alone must"
        " be missed.",
    )
