"""What is asked for: frozen values, canonical JSON, digests.

A recipe function returns a `Recipe`. Building one allocates no tensor and reads no file:
networks, data and metrics are named by `Call` and resolved only by the stage that needs them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from edgekd.errors import RecipeError

Json = Any  # str | int | float | bool | None | list[Json] | dict[str, Json]


@dataclass(frozen=True)
class Call:
    """A function to call later.

    Attributes:
        to: ``package.module:function`` or ``path/file.py:function``; a relative path counts from
            the folder of the recipe file.
        args: Keyword arguments, JSON values only.
    """

    to: str
    args: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """A user's own metric: ``function(outputs, labels) -> float`` or one value per sample.

    Attributes:
        call: The function; outputs is a float32 array (samples, …), labels an array (samples,).
        name: How the report calls it.
        higher_is_better: Direction of the metric.
    """

    call: Call
    name: str = "metric"
    higher_is_better: bool = True


@dataclass(frozen=True)
class Input:
    """What the network takes: one tensor, and how it is made of a raw sample.

    Attributes:
        shape: Without the batch axis; images as (channels, height, width).
        channels: Which channels of the raw sample this network takes, in this order (a teacher
            may see 23 sensors and its student 15); None for all. They are counted along axis 0
            of the sample, for uint8 images along the last one, and are as many as ``shape[0]``.
        mean: Per channel, subtracted from the raw value divided by 255; None for raw floats.
        std: Per channel.
        form: ``float32_nchw`` takes prepared values; ``uint8_nhwc`` folds layout and
            normalisation into the graph, so that camera bytes go straight in.
        name: Name of the tensor in the exported graph.
    """

    shape: tuple[int, ...]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    form: Literal["float32_nchw", "uint8_nhwc"] = "float32_nchw"
    name: str = "input"
    channels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        chosen = self.channels
        if chosen is None:
            return
        if len(chosen) != self.shape[0] or len(set(chosen)) < len(chosen) or min(chosen) < 0:
            raise RecipeError(
                f"input takes channels {tuple(chosen)} and has shape {tuple(self.shape)}",
                at="recipe: Input.channels",
                hint=f"name {self.shape[0]} different channels, counted from 0",
            )


@dataclass(frozen=True)
class Train:
    """How one network is trained. Budgets are counted in epochs and samples, never seconds.

    Attributes:
        epochs: Passes over the training split.
        batch: Samples a step, over all micro-batches and processes.
        lr: Peak learning rate of AdamW; linear warm-up over the first ``warmup`` share of the
            steps, then the ``schedule``.
        weight_decay: Decoupled weight decay.
        warmup: Share of the steps.
        smoothing: Label smoothing of the label term's cross entropy.
        augment: ``call(images: uint8 tensor (B, H, W, C), generator) -> same``; None for none.
        views: Distinct augmented views a sample has; epoch e shows view e mod views. The control
            sees the same views as the student.
        corrupt: The same kind of function, for the student and the control alone and drawn anew
            in every epoch: the teacher sees clean samples.
        amp: ``bf16`` autocast, on CPUs that have it, or ``none``.
        clip: Largest norm of the gradient; 0 for no clipping.
        accumulate: Micro-batches that a step is cut into, where memory is short. Batch norm and
            divergences that mix a batch see a micro-batch at a time.
        processes: Processes that share a step (DistributedDataParallel, started by torchrun).
            Batch norm counts per process, and those of the first one ship.
        schedule: ``cosine`` to zero, ``constant``, or ``plateau``: a tenth after ``patience``
            epochs without a better validation score.
        patience: Of ``plateau``.
        stop: End after so many epochs without a better validation score, and take the best
            weights; 0 trains to the end and takes the last.
        ema: Decay of a moving average of the weights, which is what is judged and shipped; 0 for
            none.
        workers: Data loading processes.
        rollout: On-policy distillation: ``call(model, data, round, seed)`` lets the student act
            and returns what it met. ``model`` is the student of that moment: raw samples (batch,
            …) in, outputs (batch, …) out, both numpy. ``data`` is what the recipe's data
            function returns (use ``data.train`` only), ``round`` counts from 1, ``seed`` is
            different in every round; the same arguments must give the same result. It returns a
            map-style dataset with ``take(indices)`` (samples as the recipe's data gives them) and
            ``labels`` (what the expert does there, of the kind and shape of the recipe's labels).
            The teacher's outputs there are computed on the spot, never read from the cache, and
            the samples are shown as they are, without ``augment``. Networks without teacher
            have no rollouts, unless ``expert``.
        rounds: How many rollouts there are. The epochs are divided into ``rounds`` + 1 parts; the
            first trains on the data alone, every other one begins with a rollout. All rollouts
            so far are kept (as in DAgger, arXiv 1011.0686).
        on_policy: Share of every batch that comes from rollouts in the last part; it rises
            linearly from 0 (λ of arXiv 2306.13649). The number of steps is the same as without.
        expert: Whether the labels of a rollout come from an expert that is no network. Then
            teacher, control and baselines have their own rollouts too, and what the student gains
            over the control is the teacher's doing alone.
    """

    epochs: int
    batch: int = 64
    lr: float = 2e-3
    weight_decay: float = 0.02
    warmup: float = 0.1
    smoothing: float = 0.0
    augment: Call | None = None
    views: int = 8
    amp: Literal["none", "bf16"] = "none"
    clip: float = 1.0
    workers: int = 0
    corrupt: Call | None = None
    accumulate: int = 1
    processes: int = 1
    schedule: Literal["cosine", "constant", "plateau"] = "cosine"
    patience: int = 3
    stop: int = 0
    ema: float = 0.0
    rollout: Call | None = None
    rounds: int = 0
    on_policy: float = 1.0
    expert: bool = False


@dataclass(frozen=True)
class Network:
    """A network and where its weights come from.

    Attributes:
        build: Function that returns the ``torch.nn.Module``; None when the weights are ONNX.
        weights: ``.pt`` state dict (loaded ``weights_only``), ``.onnx`` model, or None: untrained.
        sha256: Digest that the weights file must have; None accepts any.
        train: How edgekd trains it when there are no weights.
        label: How the report calls it.
        license: SPDX id of the weights' licence.
        made_by: The command that made the weights.
        input: Its own size and normalisation, when they differ from the student's; the same view
            is resized to it.
        access: How much of a teacher the student may see: ``features`` (all), ``logits``,
            ``top-k`` (the ``top`` largest probabilities) or ``labels`` (the class it names).
        top: Of ``top-k``.
    """

    build: Call | None
    weights: str | None = None
    sha256: str | None = None
    train: Train | None = None
    label: str = ""
    license: str | None = None
    made_by: str | None = None
    input: Input | None = None
    access: Literal["features", "logits", "top-k", "labels"] = "features"
    top: int = 5


@dataclass(frozen=True)
class Term:
    """weight(t) · divergence(transform(project(student)), transform(teacher)).

    Attributes:
        tap: What is compared. ``logits`` (for regression the output vector), ``features``,
            ``map`` (the module that the network names in its attribute ``map``), ``feat:PATH``
            (the output of the module at ``PATH``), or ``label``.
        divergence: Row of `edgekd.distill.divergences.DIVERGENCES` or of
            `edgekd.distill.learned.LEARNED`, or your own ``file.py:function`` of (student,
            teacher). For the tap ``label`` one of ``ce`` (integer labels), ``mse``,
            ``smooth_l1`` (float labels, of the shape of the network's output), ``contrastive``
            (features of two towers side by side; labels are not read), ``auto``: ``ce`` for
            integer labels, else ``smooth_l1``; or your own function of (output, labels), which
            may be of any width.
        transform: Row of `edgekd.distill.transforms.TRANSFORMS`, applied to both sides.
        project: Maps the student's tap to the teacher's width, in training only: ``linear``,
            ``mlp`` (two layers) for vectors, ``conv`` (1×1, batch norm) for maps. ``clone`` maps
            the teacher's tap to the student's width instead, by the trained projection of the
            cloned layer at ``feat:PATH`` (the clone loss of arXiv 2505.12781).
        weight: Factor.
        args: Further arguments of transform and divergence (``temperature``; of ``ce`` the
            ``weights`` of the classes; of ``smooth_l1`` its ``beta``).
        teacher: The teacher's tap where it is another one than ``tap``. ``NAME:TAP`` is that of
            one of the further teachers (`Recipe.teachers`). ``self:TAP`` is the
            student's own tap (fused head → modality heads), ``peer:TAP`` that of a second
            student trained beside it (deep mutual learning); both need no teacher.
        ramp: Factor over the training as (share of the steps, factor) points with lines between:
            ``((0, 0), (0.1, 1))`` is a warm-up; nothing is 1 throughout.
        gate: ``gap`` multiplies by how much smaller the teacher's loss on the labels of the batch
            is, as a share of the student's: 0 where the teacher is not better.
    """

    tap: str
    divergence: str
    transform: str = "identity"
    project: Literal["none", "linear", "mlp", "conv", "clone"] = "none"
    weight: float = 1.0
    args: Mapping[str, float | tuple[float, ...] | list[float]] = field(default_factory=dict)
    teacher: str = ""
    ramp: tuple[tuple[float, float], ...] = ()
    gate: Literal["none", "gap"] = "none"

    @property
    def source(self) -> str:
        """The tap of the other side; empty for a label term."""
        return "" if self.tap == "label" else self.teacher or self.tap

    @property
    def needs_teacher(self) -> bool:
        """Whether the other side is a teacher: not the labels, not the student, not its peer."""
        return bool(self.source) and not self.source.startswith(("self:", "peer:"))

    @property
    def told_by(self) -> tuple[str, str]:
        """Whose tap the other side is, and which: ``""`` is the recipe's first teacher."""
        who, colon, tap = self.source.partition(":")
        return (who, tap) if colon and who != "feat" else ("", self.source)


@dataclass(frozen=True)
class Objective:
    """A named sum of terms.

    Attributes:
        name: How the report calls it.
        terms: What is summed.
        init: Where the student's weights begin: ``random``, or ``lowrank_clone``: they are the
            frozen teacher's, layer by layer of the same name, between trained projections that are
            multiplied out before export (see `edgekd.distill.clone`); ``teacher_head``: a
            projector and the teacher's frozen classifier take the place of the student's own and
            ship with it (see `edgekd.distill.reuse`). The control begins at random, and ends in
            its own classifier.
        among: Objectives that short trainings choose from on validation data, by successive
            halving (see `edgekd.halving`); ``terms`` are then the recipe's own. Where one without
            teacher wins, the control ships.
    """

    name: str
    terms: tuple[Term, ...]
    init: Literal["random", "lowrank_clone", "teacher_head"] = "random"
    among: tuple[Objective, ...] = ()

    @property
    def needs_teacher(self) -> bool:
        """Whether a teacher has a part in it."""
        return self.init != "random" or any(term.needs_teacher for term in self.terms)

    def without_teacher(self) -> Objective:
        """What everything learns that has no teacher (the control, baselines).

        The objective's own label terms, scaled so that their weights sum to 1; without one,
        ``auto``.
        """
        labels = [term for term in self.terms if term.tap == "label" and term.weight > 0]
        total = sum(term.weight for term in labels)
        own = tuple(
            dataclasses.replace(term, weight=term.weight / total, ramp=(), gate="none")
            for term in labels
        )
        return Objective("none", own or (Term("label", "auto"),))


@dataclass(frozen=True)
class Quantize:
    """How the exported model is calibrated.

    Attributes:
        samples: Calibration samples, drawn evenly over the classes of the training split.
        precisions: Which candidates to build; ``auto`` builds all that the target allows.
        candidates: At most so many candidates; 0 for all.
        search: ``ladder`` tries the scopes that can pay, and recovers where one misses the
            metric's limit; ``exhaustive`` builds every row of every backend.
    """

    samples: int = 256
    precisions: tuple[str, ...] = ("auto",)
    candidates: int = 0
    search: Literal["ladder", "exhaustive"] = "ladder"


@dataclass(frozen=True)
class Recipe:
    """Everything that one compression asks for.

    Attributes:
        name: Name of the recipe.
        data: Function returning `edgekd.data.Splits`-like (train, val, test).
        files: Files and folders that ``data`` reads; their content is part of the cache key.
        input: The tensor contract of the student.
        output: What the shipped network returns.
        task: Function returning a `edgekd.tasks.Task`, or a `Metric`.
        teacher: Teacher network.
        teachers: Further teachers, by the names that terms call them by (``Term(teacher=
            "NAME:TAP")``). Distilling is attempted where any of all is better than the control.
        student: Student network.
        train: How student and control are trained.
        objective: How the student learns.
        baselines: Networks trained beside the student: the field's usual small nets.
        quantize: Calibration and candidates.
        seed: Seed of everything random.
        settings: The resolved settings, for the record.
        file: The recipe file; `Call` paths count from its folder.
        distill_data: ``base`` when no test class is seen in distillation, ``external`` when
            the data or the teacher may have seen them (flagged in the report).
        metric_drop: Largest relative loss of the task metric that an artefact may have.
        notes: Sentences for the report.
        references: Function giving rows of the table that are no networks: ``call(data, split,
            emit)`` returns `edgekd.tasks.reference.Reference`s. They take the place of the task's
            trivial model in the table.
        response: Function that asks what ships for more and for less: ``call(model, data, state,
            emit)`` returns ``asked`` (of what), ``metric`` and ``rows`` (``asked``, ``value``).
        time_teacher: Time the teacher too in every runtime that runs the student in fp32.
        distill: ``if-better`` distils where the teacher is better than the control on validation,
            and else ships the control and says so; ``always`` distils.
        parts: Folder in the bundle → the recipe of another network that ships with this one, as a
            bundle in that folder: the later stages of a cascade.
        joint: Function that judges this network and its parts as one: ``call(networks, data,
            emit)`` returns facts and golden arrays; see `edgekd.stages.score.joint`.
    """

    name: str
    data: Call
    input: Input
    task: Call | Metric
    teacher: Network
    student: Network
    train: Train
    objective: Objective
    output: Literal["features", "logits"] = "features"
    files: tuple[str, ...] = ()
    baselines: tuple[Network, ...] = ()
    quantize: Quantize = Quantize()
    seed: int = 0
    settings: Mapping[str, Json] = field(default_factory=dict)
    file: str = ""
    distill_data: Literal["base", "external"] = "base"
    metric_drop: float = 0.01
    notes: tuple[str, ...] = ()
    references: Call | None = None
    response: Call | None = None
    time_teacher: bool = False
    distill: Literal["if-better", "always"] = "if-better"
    parts: Mapping[str, Recipe] = field(default_factory=dict)
    joint: Call | None = None
    teachers: Mapping[str, Network] = field(default_factory=dict)


def rebuild(kind: Any, value: Json) -> Any:
    """Make a spec again from its plain form: the inverse of `plain`.

    Args:
        kind: A dataclass of this module, or a type of one of its fields.
        value: Plain JSON.
    """
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        return kind(**{name: rebuild(hints[name], part) for name, part in value.items()})
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _rebuild_union(inside, value)
    if origin is tuple:
        return tuple(rebuild(inside[0], part) for part in value)
    return value


def _rebuild_union(kinds: tuple[Any, ...], value: Json) -> Any:
    """Pick the dataclass of a union that has exactly the fields of ``value``."""
    if not isinstance(value, dict):
        scalar = [k for k in kinds if not dataclasses.is_dataclass(k) and k is not type(None)]
        return rebuild(scalar[0], value)
    for kind in kinds:
        if dataclasses.is_dataclass(kind) and {f.name for f in dataclasses.fields(kind)} == set(
            value
        ):
            return rebuild(kind, value)
    return value


def plain(value: object) -> Json:
    """Return a spec as plain JSON values (dataclasses become objects, tuples lists)."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def finite(value: Json) -> Json:
    """Replace NaN and infinite numbers, which JSON lacks, by null: not known."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def canonical(value: object) -> str:
    """Return canonical JSON: sorted keys, no spaces, no NaN."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: object) -> str:
    """Return the sha256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()
