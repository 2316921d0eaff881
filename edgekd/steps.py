"""(recipe, target) → the steps, each with the key of its result. Runs nothing, imports no torch."""

from __future__ import annotations

import platform
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType

from edgekd import extras, halving
from edgekd.agent.runtimes import BUILT_IN
from edgekd.backends.base import Candidate, Checking, backend, form, place_of, workers
from edgekd.calls import locate
from edgekd.closure import Parses, code_digest
from edgekd.device.fingerprint import fingerprint
from edgekd.environments import ENVIRONMENTS
from edgekd.errors import DataError, EdgekdError, RecipeError, SetupError, did_you_mean
from edgekd.spec import Call, Json, Network, Objective, Recipe, Train, finite, plain
from edgekd.store import Digests, key_of
from edgekd.target import Target

TRAINING = ("torch", "numpy")
LITERT = ENVIRONMENTS["litert"]
EXPORT = (*TRAINING, "onnx", "onnxscript", "onnxsim", "onnxruntime")


AGENT = (
    "edgekd.agent.__main__:main",
    "edgekd.backends.torch_eager:open_session",
    *(f"edgekd.agent.runtimes.{runtime.module}:open_session" for runtime in BUILT_IN.values()),
)
"""The agent runs in a process of its own, where no import leads to it."""

OUTER = {"logits", "features"}
"""Taps that every teacher is asked for."""


@dataclass(frozen=True)
class Step:
    """One step of a plan.

    Attributes:
        name: For people, and for other steps' ``inputs``.
        stage: ``module:function`` of the stage.
        spec: What it is asked to do; part of the key.
        inputs: Input name → name of the step whose folder it is.
        files: Outside files whose content is part of the key.
        packages: Packages whose version is part of the key.
        measured: Whether the result belongs to a machine (then the machine is in the key).
        there: That machine, when it is not this one: the device that ``--on`` names.
    """

    name: str
    stage: str
    spec: Mapping[str, Json]
    inputs: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    packages: tuple[str, ...] = ()
    measured: bool = False
    there: Mapping[str, Json] | None = None


def stage(name: str) -> str:
    """Full name of a stage function: ``train`` → ``edgekd.stages.train:train``."""
    module, _, function = name.partition(".")
    return f"edgekd.stages.{module}:{function or module}"


_RUN = {
    *(stage(name) for name in ("score", "score.response", "score.joint", "parity", "profile")),
}
"""Stages that run an artefact by the agent."""


def base_of(recipe: Recipe) -> Path:
    """Folder that the recipe's relative paths count from."""
    return Path(recipe.file).resolve().parent if recipe.file else Path.cwd()


def shared(
    recipe: Recipe, kept: Mapping[str, Json] | None = None, network: str = "control"
) -> list[Step]:
    """Steps that do not depend on a target: teacher, control, student, baselines.

    Args:
        recipe: What is asked for.
        kept: What the stage ``keep`` is told, where a network that is there becomes the student;
            see `undistilled` and `_chosen`.
        network: The step that made it.
    """
    judged, files = _judged(recipe)
    steps = [_teacher(recipe, name, judged, files) for name in teachers(recipe)]
    alone = _alone(recipe, recipe.student, recipe.train)
    steps.append(Step("control", stage("train"), judged | alone, {}, files, TRAINING))
    if kept is not None:
        steps.append(Step("distill", stage("keep"), finite(kept), {"network": network}))
    else:
        steps += [*_taught(recipe), _student(recipe, "distill", recipe.objective)]
    for baseline in recipe.baselines:
        spec = judged | _alone(recipe, baseline, baseline.train or recipe.train)
        name = f"baseline:{baseline.label}"
        steps.append(Step(name, stage("train"), spec, {}, files, TRAINING))
    return steps


def fitting(recipe: Recipe, target: Target) -> Iterator[Step]:
    """What is known of a microcontroller's budget before anything is trained."""
    if target.mcu is None:
        return
    limits = {"flash_kib": target.mcu.flash_kib, "ram_kib": target.mcu.ram_kib}
    spec = {
        "network": plain(recipe.student),
        "input": plain(recipe.input),
        "seed": recipe.seed,
        "target": target.name,
        **limits,
    }
    yield Step(f"fits:{target.name}", stage("fits"), spec, packages=TRAINING)


Found = Callable[[str], Mapping[str, Json] | None]
"""Gives the facts of a step already yielded; None where it was not run."""


def learned(recipe: Recipe, found: Found) -> Iterator[Step]:
    """The steps of `shared`, teacher and control first: they decide what the student is.

    Args:
        recipe: What is asked for.
        found: Where it gives None, a teacher that is better is foreseen, and of the objectives
            among which trials choose, the last. A step that failed has ``failed``, a sentence.
    """
    _check_trials(recipe)
    names = (*teachers(recipe), "control")
    judges = [step for step in shared(recipe) if step.name in names]
    yield from judges
    facts = {name: fact for name in names if (fact := found(name)) is not None}
    kept, network = None, "control"
    if len(facts) == len(judges):
        first, *more = (facts[name] for name in teachers(recipe))
        kept = undistilled(recipe, first, facts["control"], *more)
    if kept is None and recipe.objective.among:
        kept, network = yield from _chosen(recipe, found)
    rest = shared(recipe, kept, network)
    yield from (s for s in rest if s.name not in names)


def _judged(recipe: Recipe) -> tuple[dict[str, Json], tuple[Path, ...]]:
    """What every training is told, and the files it reads."""
    files = tuple(base_of(recipe) / f for f in recipe.files)
    return {**_seen(recipe), "task": plain(recipe.task), "seed": recipe.seed}, files


def _seen(recipe: Recipe) -> dict[str, Json]:
    return {"input": plain(recipe.input), "output": recipe.output, "data": plain(recipe.data)}


RESERVED = ("self", "peer", "feat")
"""Words before the colon of a tap that are no teacher's name."""


def teachers(recipe: Recipe) -> dict[str, Network]:
    """Steps of all teachers, first of all the recipe's ``teacher``, and their networks.

    Raises:
        RecipeError: A name would read as something else.
    """
    for name in recipe.teachers:
        if name in RESERVED or not name.isidentifier():
            raise RecipeError(
                f"a teacher cannot be called {name!r}",
                at="recipe: teachers",
                hint=f"a plain word, not one of {', '.join(RESERVED)}",
            )
    return {"teacher": recipe.teacher} | {f"teacher:{n}": t for n, t in recipe.teachers.items()}


def _sources(recipe: Recipe, *asked: Objective) -> dict[str, set[str]]:
    """Teacher ("" for the first) → its taps that objectives read.

    Raises:
        RecipeError: There is no teacher of a name.
    """
    found: dict[str, set[str]] = {}
    for term in (term for one in asked for term in one.terms if term.needs_teacher):
        who, tap = term.told_by
        if who and who not in recipe.teachers:
            raise RecipeError(
                f"term {term.divergence!r} reads {term.source!r}, and no teacher is called {who!r}",
                at="recipe: objective",
                hint=did_you_mean(who, recipe.teachers),
            )
        found.setdefault(who, set()).add(tap)
    return dict(sorted(found.items()))


def _of(step: str, who: str) -> str:
    """Name of a teacher's step: ``teach``, ``teach:NAME``."""
    return f"{step}:{who}" if who else step


def _taught(recipe: Recipe) -> list[Step]:
    """The outputs of every teacher that an objective reads."""
    _, files = _judged(recipe)
    steps = []
    for who, taps in _sources(recipe, *(recipe.objective.among or (recipe.objective,))).items():
        network = recipe.teachers[who] if who else recipe.teacher
        seen = {
            **_seen(recipe),
            "network": plain(network) | {"train": None},
            "train": plain(recipe.train),
            "seed": recipe.seed,
            "inner": sorted(taps - OUTER),
        }
        inputs = {"teacher": _of("teacher", who)}
        steps.append(Step(_of("teach", who), stage("teach"), seen, inputs, files, EXPORT))
    return steps


def _student(recipe: Recipe, name: str, objective: Objective, epochs: int = 0) -> Step:
    """A training of the student.

    Args:
        recipe: What is asked for.
        name: Of the step.
        objective: How it learns.
        epochs: Instead of the recipe's; 0 for those.
    """
    judged, files = _judged(recipe)
    _check_clones(objective)
    taken = objective.init != "random"
    if taken:
        _check_whole(recipe.teacher, objective)
    read = _sources(recipe, objective)
    acts = bool(read) and recipe.train.rollout is not None
    if acts and set(read) != {""}:
        raise RecipeError(
            "the student's own rollouts are judged by the recipe's first teacher alone",
            at="recipe: teachers",
            hint="one teacher, or no Train.rollout",
        )
    inputs = {_of("teach", who): _of("teach", who) for who in read}
    inputs |= {"teacher": "teacher"} if taken or acts else {}
    train = replace(recipe.train, epochs=epochs or recipe.train.epochs)
    spec = {
        **judged,
        "network": plain(recipe.student),
        "train": plain(train),
        "objective": plain(objective),
    }
    return Step(name, stage("train"), spec, inputs, files, TRAINING)


TRIAL = "trial:"
"""How names of steps begin that only help to choose an objective; one that fails is out."""
_Choice = Generator[Step, None, tuple[dict[str, Json], str]]


def _check_trials(recipe: Recipe) -> None:
    """Refuse to choose among objectives where a short training is not a shorter one of the same.

    Raises:
        RecipeError: The student acts while it learns: rollouts divide the epochs.
    """
    if recipe.objective.among and recipe.train.rollout is not None:
        raise RecipeError(
            "objective 'auto' compares short trainings, which this recipe divides by rollouts",
            at="setting: objective",
            hint="name one objective, or train without rollouts",
        )


def _chosen(recipe: Recipe, found: Found) -> _Choice:
    """Yield trainings that choose an objective on validation data, by successive halving.

    The one that is left is trained for the whole budget, and has to beat the control, which was.

    Returns:
        What the stage ``keep`` is told: ``facts`` of the student, ``auto`` (see `_told`), and
        ``undistilled`` where the control stays; and the step that made the student.
    """
    yield from _taught(recipe)
    among, whole = {one.name: one for one in recipe.objective.among}, recipe.train.epochs
    alone, usual = recipe.objective.among[0].name, recipe.objective.among[-1].name
    control, tried, left = found("control"), list[dict[str, Json]](), list(among)
    for turn, (epochs, stay) in enumerate(halving.turns(len(among), whole), 1):
        turns = {n: _student(recipe, f"{TRIAL}{turn}:{n}", among[n], epochs) for n in left}
        yield from turns.values()
        facts = {name: found(step.name) for name, step in turns.items()}
        tried += [_tried(name, epochs, fact) for name, fact in facts.items()]
        if control is None or None in facts.values():
            scores: dict[str, float | None] = {name: float(name == usual) for name in left}
            left = halving.better(scores, True, stay)
        else:
            scores = {row["objective"]: row["value"] for row in tried[-len(left) :]}
            left = halving.better(scores, control["val"]["higher_is_better"], stay)
    ours = _tried(alone, whole, control)
    if not left or left[0] == alone:
        return _told(recipe, control, [*tried, ours], alone), "control"
    step = _student(recipe, f"{TRIAL}whole:{left[0]}", among[left[0]])
    yield step
    fact = found(step.name)
    mine = _tried(left[0], whole, fact)
    if fact is None or control is None:
        return {"facts": {}, "auto": {}}, step.name
    scores = {alone: ours["value"], left[0]: mine["value"]}
    best = halving.better(scores, control["val"]["higher_is_better"], 1)[0]
    made = (control, "control") if best == alone else (fact, step.name)
    return _told(recipe, made[0], [*tried, mine, ours], best), made[1]


def _tried(name: str, epochs: int, facts: Mapping[str, Json] | None) -> dict[str, Json]:
    """A row of what was tried: ``value`` on validation data, None where it failed."""
    row: dict[str, Json] = {"objective": name, "epochs": epochs, "steps": 0, "value": None}
    if facts is None or "failed" in facts:
        return row | {"failed": "not known" if facts is None else facts["failed"]}
    val = facts["val"]
    value = val["metrics"][val["primary"]]["value"]
    return row | {"steps": facts["steps"], "value": value}


def _told(
    recipe: Recipe, facts: Mapping[str, Json] | None, tried: Sequence[dict[str, Json]], best: str
) -> dict[str, Json]:
    """What the stage ``keep`` is told where an objective was chosen.

    Returns:
        ``facts``; ``auto``: ``chosen``, ``metric``, ``tried`` (rows), ``steps`` that the trials
        took and ``budget`` (epochs that all short ones may take); maybe ``undistilled``.
    """
    if facts is None:
        return {"facts": {}, "auto": {}}
    among, metric = recipe.objective.among, facts["val"]["primary"]
    auto = {
        "chosen": best,
        "metric": metric,
        "tried": list(tried),
        "steps": sum(row["steps"] for row in tried[:-1]),
        "budget": halving.budget(len(among), recipe.train.epochs),
    }
    kept: dict[str, Json] = {"facts": dict(facts), "auto": auto}
    if best == among[0].name:
        why = (
            f"Objective auto chose no teacher on validation data ({metric}: {halving.told(tried)})"
        )
        kept["undistilled"] = f"{why}: the student is the control"
    return kept


def _check_clones(objective: Objective) -> None:
    """Refuse terms of a clone where nothing is cloned.

    Raises:
        RecipeError: The term is named.
    """
    for term in objective.terms:
        if term.project != "clone":
            continue
        if objective.init != "lowrank_clone" or term.source != term.tap or term.told_by[0]:
            raise RecipeError(
                f"term {term.divergence!r} on {term.tap!r} with project='clone' compares a cloned"
                " layer with the layer that it is cloned from",
                at="recipe: objective",
                hint="Objective(init='lowrank_clone'), the tap feat:PATH on both sides",
            )


WHOLE = {"lowrank_clone": "a low-rank clone", "teacher_head": "the teacher's classifier"}
"""Beginnings of a student that read the teacher's own weights, in words."""


def _check_whole(teacher: Network, objective: Objective) -> None:
    """Refuse a teacher whose weights the student may not see.

    Raises:
        RecipeError: It is an ONNX file, or shows less than its features.
    """
    why = "is an ONNX file" if teacher.build is None else f"shows its {teacher.access} alone"
    if teacher.build is None or teacher.access != "features":
        raise RecipeError(
            f"{WHOLE[objective.init]} needs the weights of the teacher, which {why}",
            at="recipe: objective",
            hint="a teacher in torch with access 'features', or an objective on its outputs",
        )


def undistilled(
    recipe: Recipe,
    teacher: Mapping[str, Json],
    control: Mapping[str, Json],
    *more: Mapping[str, Json],
) -> dict[str, Json] | None:
    """What the student is where distilling is not attempted; None where it is.

    Args:
        recipe: Its objective may need no teacher, or it may distil whatever the teacher is worth.
        teacher: Facts of its step.
        control: Facts of its step.
        more: Facts of the further teachers.

    Returns:
        ``facts`` of the control and ``undistilled``, a sentence.
    """
    if not recipe.objective.needs_teacher or recipe.distill == "always":
        return None
    name, sign = control["val"]["primary"], 1 if control["val"]["higher_is_better"] else -1
    ours, *theirs = (facts["val"]["metrics"][name]["value"] for facts in (control, teacher, *more))
    if any(sign * (value - ours) > 0 for value in theirs):
        return None
    who = "No teacher is" if more else "The teacher is not"
    told = ", ".join(f"{value:.4g}" for value in theirs)
    why = (
        f"{who} better than the control on validation data ({name} {told}"
        f" against {ours:.4g}): distillation was not attempted, the student is the control"
    )
    return {"facts": dict(control), "undistilled": why}


def _alone(recipe: Recipe, network: Network, train: Train) -> dict[str, Json]:
    """A training without teacher: no terms that need one, no rollouts unless an expert labels."""
    own = train if train.expert else replace(train, rollout=None, rounds=0)
    return {
        "network": plain(network),
        "train": plain(own),
        "objective": plain(recipe.objective.without_teacher()),
    }


def _teacher(
    recipe: Recipe, name: str, judged: Mapping[str, Json], files: tuple[Path, ...]
) -> Step:
    network = teachers(recipe)[name]
    if network.weights is None:
        spec = {**judged, **_alone(recipe, network, network.train or recipe.train)}
        return Step(name, stage("train"), spec, {}, files, TRAINING)
    weights = locate(network.weights, base_of(recipe))
    if not weights.is_file():
        package = network.weights.partition(":")[0]
        if extras.package_of(package) is not None and not extras.installed(package):
            raise extras.missing(package, f"teacher {network.label!r}")
        raise DataError(
            f"no teacher weights at {weights}",
            at="setting: teacher",
            hint="a .pt state dict or an .onnx file; relative paths count from the recipe's folder",
        )
    spec = {**judged, "network": plain(network) | {"weights": weights.name}}
    return Step(name, stage("teacher"), spec, {}, (*files, weights), EXPORT)


PARTS = ("build", "parity", "val", "profile")
"""What is done with every candidate."""
REFERENCES = "test:references"


def networks(recipe: Recipe) -> list[str]:
    """Names of the steps that give a torch network."""
    own = (*teachers(recipe), "control", "distill")
    return [*own, *(f"baseline:{n.label}" for n in recipe.baselines)]


def scored(recipe: Recipe) -> list[Step]:
    """Scores on the test split of the trivial baseline and of every torch network."""
    files = tuple(base_of(recipe) / f for f in recipe.files)
    test = {"data": plain(recipe.data), "task": plain(recipe.task), "split": "test"}
    steps = [Step("test:trivial", stage("score.trivial"), test, {}, files, ("numpy",))]
    if recipe.references is not None:
        spec = {"data": test["data"], "references": plain(recipe.references), "split": "test"}
        packages = ("numpy", "scipy")
        steps.append(
            Step(REFERENCES, stage("score.references"), spec, {}, files, packages, measured=True)
        )
    for name in networks(recipe):
        inputs = {"artefact": name, "state": name}
        steps.append(Step(f"test:{name}", stage("score"), test, inputs, files, EXPORT))
    return steps


def measured(recipe: Recipe, target: Target, absent: str = "") -> list[Step]:
    """Scores on the test split, and the latencies of every torch network.

    Latency belongs to a device: where that is ``absent``, none is measured.
    """
    if absent:
        return scored(recipe)
    files = tuple(base_of(recipe) / f for f in recipe.files)
    timing = {"data": plain(recipe.data), "measure": _measure(target)}
    timed = [
        Step(
            f"profile:{n}", stage("profile"), timing, {"artefact": n}, files, EXPORT, measured=True
        )
        for n in networks(recipe)
    ]
    return [*scored(recipe), *timed]


def exported(recipe: Recipe, target: Target) -> Step:
    """The export of the student."""
    return _export(recipe, target, "export", "distill")


def _export(recipe: Recipe, target: Target, name: str, network: str, **more: Json) -> Step:
    spec: dict[str, Json] = {
        "input": plain(recipe.input),
        "output": recipe.output,
        "data": plain(recipe.data),
        "quantize": {"samples": recipe.quantize.samples},
        "opset": target.opset,
        "seed": recipe.seed,
        **more,
    }
    files = tuple(base_of(recipe) / f for f in recipe.files)
    return Step(name, stage("export"), spec, {"network": network}, files, EXPORT)


def unmeasured(there: Mapping[str, Json] | None) -> str:
    """Say why nothing is measured although a device answers: it is a recording; else empty."""
    played = (there or {}).get("replay")
    if not isinstance(played, Mapping):
        return ""
    return f"the recording {played['name']} was played, no board was asked"


def beside(
    recipe: Recipe,
    target: Target,
    chosen: Sequence[Candidate],
    absent: str = "",
    there: Mapping[str, Json] | None = None,
) -> Iterator[list[Step]]:
    """Teacher and student timed in the same runtimes in fp32, where the recipe asks for it.

    Yields:
        The teacher's export, then a chain a runtime; one that fails is no loss to the others.
        The last two of a chain are called ``profile:teacher-CANDIDATE`` and ``profile:CANDIDATE``.
    """
    if absent or unmeasured(there) or target.mcu is not None or not recipe.time_teacher:
        return
    files = tuple(base_of(recipe) / f for f in recipe.files)
    contract = plain(recipe.teacher.input or recipe.input)
    yield [_export(recipe, target, "export:teacher", "teacher", input=contract)]
    if converted(chosen):
        shown = {"network": "teacher", "export": "export:teacher"}
        yield [replace(_converted(recipe, contract), name="convert:teacher", inputs=shown)]
    timing = {"data": plain(recipe.data), "measure": _measure(target)}
    once = {c.runtime: c for c in reversed(chosen) if c.precision == "fp32" and not c.same_as}
    for candidate in reversed(once.values()):
        packages = (*EXPORT, *_packages(candidate))
        build = _build(candidate, packages)
        theirs = {name: f"{step}:teacher" for name, step in build.inputs.items()}
        yield [
            replace(build, name=f"build:teacher-{candidate.id}", inputs=theirs),
            *(
                Step(
                    f"profile:{name}",
                    stage("profile"),
                    timing,
                    {"artefact": f"build:{name}"},
                    files,
                    packages,
                    measured=True,
                    there=there,
                )
                for name in (f"teacher-{candidate.id}", candidate.id)
            ),
        ]


def candidates(
    recipe: Recipe,
    target: Target,
    absent: str = "",
    there: Mapping[str, Json] | None = None,
) -> tuple[list[Candidate], list[str]]:
    """Candidates that can be built here, and a sentence for every backend that cannot.

    The instruction sets of this machine say nothing about a device that is ``absent``.

    Raises:
        SetupError: None can.
    """
    found: list[Candidate] = []
    missing: list[str] = []
    wanted = recipe.quantize.precisions
    precisions = [p for p in target.precisions if wanted == ("auto",) or p in wanted]
    for name in target.backends:
        try:
            one = backend(name)
        except EdgekdError as error:
            missing.append(f"{name}: {error.what}")
            continue
        reason = one.available()
        if reason is not None:
            missing.append(f"{name}: {reason}")
            continue
        rows = one.candidates(precisions, () if absent else (there or fingerprint())["isa"])
        tiers = 3 if recipe.quantize.search == "exhaustive" else 2
        found += [_spared(row, target.never_quantize) for row in rows if row.tier <= tiers]
    if not found:
        raise SetupError(
            f"target {target.name!r} can run nothing here: {'; '.join(missing)}",
            at=f"targets/{target.name}.yaml: backends",
            hint=f"edgekd doctor --target {target.name}",
        )
    found = [_for_core(row, recipe, target) for row in found]
    return _few(found, recipe.quantize.candidates), missing


def _for_core(candidate: Candidate, recipe: Recipe, target: Target) -> Candidate:
    """A candidate that knows the microcontroller and how C symbols shall begin, or the Ethos-U."""
    if target.npu is not None and candidate.backend == "ethos-u":
        return replace(candidate, options=target.npu.model_dump())
    if target.mcu is None or candidate.backend != "firmware":
        return candidate
    prefix = str(recipe.settings.get("prefix") or "")
    if prefix:
        from edgekd.firmware.emit import check_prefix

        check_prefix(prefix)
    named = {"prefix": prefix or recipe.name}
    return replace(candidate, options={**target.mcu.model_dump(), **named})


def _spared(candidate: Candidate, operators: tuple[str, ...]) -> Candidate:
    """A candidate that leaves the target's operators in floating point."""
    if not candidate.precision.startswith("int"):
        return candidate
    kept = dict.fromkeys((*candidate.never_quantize, *operators))
    return replace(candidate, never_quantize=tuple(kept))


def _few(found: list[Candidate], limit: int) -> list[Candidate]:
    """At most ``limit`` candidates, one fp32 among them."""
    if not limit or len(found) <= limit:
        return found
    first = next((c for c in found if c.precision == "fp32"), found[0])
    others = [c for c in found if c is not first]
    rest = [c for c in others if c.precision != "fp32"] or others
    return [first, *rest[: limit - 1]]


def built(
    recipe: Recipe,
    target: Target,
    chosen: Sequence[Candidate],
    absent: str = "",
    there: Mapping[str, Json] | None = None,
    student: Mapping[str, Json] | None = None,
) -> list[Step]:
    """Build, parity and validation score of every candidate; latency unless ``absent``.

    Candidates that start from a ``.tflite`` share one conversion; those with ``bits`` a student
    that learns on under rounding, given the facts of the ``student`` that it goes on from.
    """
    files = tuple(base_of(recipe) / f for f in recipe.files)
    val = {
        "data": plain(recipe.data),
        "task": plain(recipe.task),
        "split": "val",
        "by_proxy": bool(absent),
    }
    timing = {"data": plain(recipe.data), "measure": _measure(target)}
    steps = [_converted(recipe)] if converted(chosen) else []
    steps += [_calibrated()] if any(c.prepared and not c.bits for c in chosen) else []
    bits = {c.bits for c in chosen} - {0}
    steps += _rounded(recipe, target, max(bits), student) if bits else []
    for candidate in chosen:
        name, packages = candidate.id, (*EXPORT, *_packages(candidate))
        spec = {"candidate": plain(candidate), **_made_by(candidate.backend)}
        made = {"artefact": f"build:{name}"}
        steps += [
            _build(candidate, packages),
            Step(
                f"parity:{name}",
                stage("parity"),
                spec | {"by_proxy": bool(absent)},
                made | {"export": _exported_as(candidate)},
                (),
                packages,
                measured=True,
                there=there,
            ),
            Step(
                f"val:{name}",
                stage("score"),
                val,
                made | {"state": "distill"},
                files,
                packages,
                measured=True,
                there=there,
            ),
        ]
        timed = Step(
            f"profile:{name}",
            stage("profile"),
            timing,
            made,
            files,
            packages,
            measured=True,
            there=there,
        )
        steps += [] if absent else [timed]
        if isinstance(backend(candidate.backend), Checking):
            steps.append(_checked(target, candidate, packages))
    return steps


def _checked(target: Target, candidate: Candidate, packages: tuple[str, ...]) -> Step:
    """What the device's toolchain would refuse."""
    spec: dict[str, Json] = {
        "backend": candidate.backend,
        "runtime": target.runtime.get(candidate.backend),
        "opset": target.opset,
        **_made_by(candidate.backend),
    }
    made = {"artefact": f"build:{candidate.id}"}
    tools = (*packages, "tensorrt-rtx-cu12")
    programs = getattr(backend(candidate.backend), "tools", None)
    spec |= {"programs": programs()} if programs else {}
    return Step(f"check:{candidate.id}", stage("check"), spec, made, (), tools)


def _build(candidate: Candidate, packages: tuple[str, ...]) -> Step:
    """The build of a candidate, or the copy of what it shares with another."""
    name = f"build:{candidate.id}"
    spec: dict[str, Json] = {"candidate": plain(candidate), **_made_by(candidate.backend)}
    if candidate.same_as:
        inputs = {"artefact": f"build:{candidate.same_as}"}
        return Step(name, stage("build.again"), spec, inputs, (), packages)
    inputs = {"export": _exported_as(candidate)}
    if candidate.prepared:
        inputs["calibrate"] = f"calibrate:{AWARE}" if candidate.bits else "calibrate"
    if form(candidate.backend) == "tflite":
        inputs["converted"] = "convert"
        spec["toolchain"] = LITERT.digest
    return Step(name, stage("build"), spec, inputs, (), packages)


def _calibrated() -> Step:
    """The model prepared for quantisation, and the ranges of its values."""
    return Step("calibrate", stage("calibrate"), {}, {"export": "export"}, (), EXPORT)


AWARE = "aware"
"""The student that learned on under rounding; its other steps are called ``…:aware``."""
MORE = 0.25
"""Its epochs, as a share of the student's, at a tenth of the learning rate."""


def _exported_as(candidate: Candidate) -> str:
    return f"export:{AWARE}" if candidate.bits else "export"


def _rounded(
    recipe: Recipe, target: Target, bits: int, student: Mapping[str, Json] | None
) -> list[Step]:
    """The student learning on while it is rounded, its export, the ranges of its values."""
    epochs = max(1, round(MORE * recipe.train.epochs))
    more = replace(
        recipe.train, epochs=epochs, lr=recipe.train.lr / 10, warmup=0.0, stop=0, rollout=None,
        rounds=0,
    )  # fmt: skip
    step = _student(replace(recipe, train=more), AWARE, _lesson(recipe, student))
    inputs = {**step.inputs, "start": "distill"}
    export = _export(recipe, target, f"export:{AWARE}", AWARE)
    calibrated = replace(_calibrated(), name=f"calibrate:{AWARE}", inputs={"export": export.name})
    return [replace(step, spec={**step.spec, "bits": bits}, inputs=inputs), export, calibrated]


def _lesson(recipe: Recipe, student: Mapping[str, Json] | None) -> Objective:
    """How the student learned in the end, for a training that goes on from it.

    Ramps are over; what only begins (a clone, a second student) is left out.
    """
    facts, asked = student or {}, recipe.objective
    if "undistilled" in facts:
        asked = asked.without_teacher()
    elif "auto" in facts:
        asked = next(one for one in asked.among if one.name == facts["auto"]["chosen"])
    terms = tuple(
        replace(term, weight=term.weight * (term.ramp[-1][1] if term.ramp else 1), ramp=())
        for term in asked.terms
        if not term.source.startswith("peer:") and term.project != "clone"
    )
    return Objective(asked.name, terms or asked.without_teacher().terms)


def _made_by(name: str) -> dict[str, Json]:
    """A backend is found by name while running; named as a call, its code is in the key."""
    places = (place_of(name), *workers(name))
    found: dict[str, Json] = {"made_by": [plain(Call(place)) for place in places]}
    templates = getattr(backend(name), "templates", None)
    return found if templates is None else found | {"templates": templates()}


def converted(chosen: Sequence[Candidate]) -> list[str]:
    """Return the candidates that start from a ``.tflite``: they share the step ``convert``."""
    return [c.id for c in chosen if form(c.backend) == "tflite"]


def _converted(recipe: Recipe, contract: Json = None) -> Step:
    """The student as a float .tflite; another network by its own input contract."""
    shape = contract or plain(recipe.input)
    spec = {"input": shape, "toolchain": LITERT.digest, **_made_by("litert")}
    inputs = {"network": "distill", "export": "export"}
    return Step("convert", stage("convert"), spec, inputs, (), TRAINING)


def metric_drop(recipe: Recipe, target: Target) -> float:
    """Largest relative loss of the task metric: the stricter of the recipe's and the target's."""
    return min(recipe.metric_drop, target.limits.metric_drop or recipe.metric_drop)


def budget(target: Target, absent: str = "") -> dict[str, float]:
    """Limits of size and memory; memory is the device's own, so not where that is absent."""
    found = {
        "size_mib": target.limits.size_mib,
        "peak_memory_mib": None if absent else target.limits.peak_memory_mib,
    }
    return {name: float(limit) for name, limit in found.items() if limit is not None}


def time_by(target: Target) -> str:
    """Which time decides: where an accelerator computes, the processor only waits."""
    return "cpu_ms" if target.device == "cpu" else "wall_ms"


def shortlisted(
    target: Target,
    left: Sequence[Candidate],
    verdicts: Mapping[str, str],
    turn: int,
) -> Step:
    """The candidates that are worth measuring and scoring, given what was scored so far.

    Args:
        target: For which device.
        left: Candidates that were built.
        verdicts: Scored candidate → why it is rejected; empty when it holds.
        turn: Number of the round.
    """
    parts = {"build", "parity"}
    inputs = {f"{part}:{c.id}": f"{part}:{c.id}" for c in left for part in sorted(parts)}
    checked = [c.id for c in left if isinstance(backend(c.backend), Checking)]
    inputs |= {f"check:{name}": f"check:{name}" for name in checked}
    spec: dict[str, Json] = {
        "candidates": [c.id for c in left],
        "verdicts": dict(verdicts),
        "by": time_by(target),
    }
    name = f"shortlist:{target.name}" + (f":{turn}" if turn > 1 else "")
    return Step(name, stage("shortlist"), spec, inputs)


def finished(
    recipe: Recipe,
    target: Target,
    chosen: Sequence[Candidate],
    pick: str | int | None,
    absent: str = "",
    lost: Mapping[str, str] = MappingProxyType({}),
    dropped: Sequence[Mapping[str, Json]] = (),
) -> list[Step]:
    """The choice.

    Args:
        recipe: What is compressed.
        target: For which device.
        chosen: The candidates.
        pick: What the user wants instead of the fastest.
        absent: Why there is no device.
        lost: Candidate → why it could not be built or run.
        dropped: Rows of those that the shortlist leaves out.
    """
    gone = {*lost, *(row["candidate"] for row in dropped)}
    left = [c for c in chosen if c.id not in gone]
    inputs = {f"{p}:{c.id}": f"{p}:{c.id}" for c in left for p in PARTS}
    if absent:
        inputs = {name: step for name, step in inputs.items() if not name.startswith("profile:")}
    checked = [c.id for c in left if isinstance(backend(c.backend), Checking)]
    inputs |= {f"check:{name}": f"check:{name}" for name in checked}
    failed = [
        {"candidate": c.id, "runtime": c.runtime, "precision": c.precision, "why": lost[c.id]}
        for c in chosen
        if c.id in lost
    ]
    spec: dict[str, Json] = {
        "candidates": [c.id for c in left],
        "metric_drop": metric_drop(recipe, target),
        "failed": [*failed, *map(dict, dropped)],
        "budget": budget(target, absent),
        "by": time_by(target),
    }
    spec |= {"pick": pick, "unmeasured": list(target.order) if absent else None}
    name = f"choose:{target.name}"
    return [Step(name, stage("choose"), spec, inputs | {"student": "distill"})]


def tested(
    recipe: Recipe, identity: str, absent: str = "", there: Mapping[str, Json] | None = None
) -> Step:
    """The test score of one candidate."""
    spec = {"data": plain(recipe.data), "task": plain(recipe.task), "split": "test"}
    spec |= {"by_proxy": bool(absent)}
    files = tuple(base_of(recipe) / f for f in recipe.files)
    inputs = {"artefact": f"build:{identity}", "state": "distill"}
    return Step(
        f"test:{identity}", stage("score"), spec, inputs, files, EXPORT, measured=True, there=there
    )


def responded(
    recipe: Recipe, identity: str, absent: str = "", there: Mapping[str, Json] | None = None
) -> list[Step]:
    """What ships, asked for more and for less, where the recipe says how."""
    if recipe.response is None:
        return []
    spec = {"data": plain(recipe.data), "response": plain(recipe.response)}
    spec |= {"by_proxy": bool(absent)}
    files = tuple(base_of(recipe) / f for f in recipe.files)
    inputs = {"artefact": f"build:{identity}", "state": "distill"}
    name = f"response:{identity}"
    step = stage("score.response")
    return [Step(name, step, spec, inputs, files, EXPORT, measured=True, there=there)]


def joined(
    recipe: Recipe, target: Target, absent: str = "", there: Mapping[str, Json] | None = None
) -> list[Step]:
    """What the network and its parts decide together, where the recipe says how to judge that.

    The steps of a part are called ``PART/step``.
    """
    if recipe.joint is None:
        return []
    inputs = {}
    for part in ("", *(f"{name}/" for name in recipe.parts)):
        inputs[f"{part}chosen"] = f"{part}choose:{target.name}"
        inputs |= {f"{part}{name}": f"{part}{name}" for name in ("distill", "teacher")}
    spec = {
        "data": plain(recipe.data),
        "joint": plain(recipe.joint),
        "parts": list(recipe.parts),
        "by_proxy": bool(absent),
    }
    files = tuple(base_of(recipe) / f for f in recipe.files)
    name, step = f"joint:{target.name}", stage("score.joint")
    return [Step(name, step, spec, inputs, files, EXPORT, measured=True, there=there)]


def imaged(recipe: Recipe, target: Target) -> list[Step]:
    """Both networks and the driver between them in one firmware image."""
    if recipe.joint is None or target.mcu is None or len(recipe.parts) != 1:
        return []
    inputs = {"joint": f"joint:{target.name}"}
    for part in ("", *(f"{name}/" for name in recipe.parts)):
        inputs[f"{part}chosen"] = f"{part}choose:{target.name}"
        inputs[f"{part}distill"] = f"{part}distill"
    networks = {"": recipe, **recipe.parts}
    spec: dict[str, Json] = {
        "parts": list(recipe.parts),
        "tasks": {name: plain(one.task) for name, one in networks.items()},
        "mcu": target.mcu.model_dump(),
        "target": target.name,
        "programs": backend("firmware").tools(),  # type: ignore[attr-defined]
        **_made_by("firmware"),
    }
    return [Step(f"image:{target.name}", stage("image"), spec, inputs, (), ("numpy",))]


def _packages(candidate: Candidate) -> tuple[str, ...]:
    return {"openvino": ("openvino", "nncf"), "ethos-u": ("ethos-u-vela",)}.get(
        candidate.backend, ()
    )


def _measure(target: Target) -> Json:
    return target.measure.model_dump()


class Keys:
    """Keys of steps: digests of code, spec, inputs, outside files, versions, machine.

    Args:
        recipe: Its folder is where relative calls are looked for.
        root: Of the store, where digests of outside files and of code are remembered.
    """

    def __init__(self, recipe: Recipe, root: Path) -> None:
        self._base, self._settings = base_of(recipe), recipe.settings
        self._digests, self._parses = Digests(root), Parses(root / "code.json")
        self._codes: dict[tuple[str, ...], str] = {}
        self.of: dict[str, str] = {}
        self.made_of: dict[str, dict[str, Json]] = {}

    def add(self, step: Step) -> str:
        """Compute and remember the key of a step whose inputs are already known."""
        runs = AGENT if step.stage in _RUN else ()
        calls = sorted({step.stage, *_calls(step.spec), *runs})
        made_of = {
            "step": step.name,
            "code": self._code(tuple(calls)),
            "spec": plain(step.spec),
            "inputs": {name: self.of[other] for name, other in step.inputs.items()},
            "files": {f.name: self._digest(f) for f in step.files},
            "versions": {name: installed(name) for name in step.packages},
            "python": platform.python_version(),
            "machine": (step.there or fingerprint()) if step.measured else None,
        }
        self.made_of[step.name] = made_of
        self.of[step.name] = key_of(made_of)
        return self.of[step.name]

    def save(self) -> None:
        """Keep what was learnt of files for the next run."""
        self._digests.save()
        self._parses.save()

    def _code(self, calls: tuple[str, ...]) -> str:
        """Digest of code, once a run: many steps call the same functions."""
        if calls not in self._codes:
            self._codes[calls] = code_digest(calls, self._base, self._parses)
        return self._codes[calls]

    def _digest(self, path: Path) -> str:
        if not path.exists():
            raise DataError(f"no such file or folder: {path}", at=self._whence(path))
        return self._digests.of(path)

    def _whence(self, path: Path) -> str:
        """The setting that names a path, else the recipe's own list."""
        for name, value in self._settings.items():
            if (
                isinstance(value, str)
                and value
                and path.resolve()
                in (
                    (self._base / value).resolve(),
                    Path(value).resolve(),
                )
            ):
                return f"setting: {name}"
        return "recipe: files"


def _calls(spec: Json) -> Iterator[str]:
    """Targets of every `Call` anywhere in a plain spec."""
    if isinstance(spec, Mapping):
        if set(spec) == {"to", "args"}:
            yield spec["to"]
        if ":" in str(spec.get("divergence", "")):  # a term's own function
            yield spec["divergence"]
        for part in spec.values():
            yield from _calls(part)
    elif isinstance(spec, list | tuple):
        for part in spec:
            yield from _calls(part)


@cache
def installed(name: str) -> str | None:
    """Version of an installed package, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
