"""Quantise and export a network without a recipe: a file, a folder of samples, a target.

The same search as that of `edgekd.compress`; what decides is how near the outputs stay to the
source's, or the user's own metric of them.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekd import steps
from edgekd.backends.base import Candidate, form
from edgekd.calls import split_target
from edgekd.device.fingerprint import here
from edgekd.discover import load_target
from edgekd.errors import DataError, UsageError
from edgekd.events import Emit, Event, silent
from edgekd.frontier import explored
from edgekd.inputs import save_arrays
from edgekd.run import Walk
from edgekd.search import Place, golden_of, search
from edgekd.spec import Call, Input, Network, Objective, Quantize, Recipe, Train, plain
from edgekd.store import Store
from edgekd.target import Target

__all__ = ["FACTS", "Source", "export", "quantize", "start"]

FACTS = "quantized.json"
FORMS = (".onnx", ".pt2", ".py")


@dataclass(frozen=True)
class Source:
    """A network and its samples.

    Attributes:
        model: ``.onnx``, ``.pt2``, or ``file.py:function`` returning a torch module.
        data: Folder of ``.npy``, ``.npz`` or pictures, or one file of arrays.
        weights: State dict of a torch module.
        samples: At most so many calibrate.
        size: Height and width of pictures; the network's own when empty.
        mean: Per channel of pictures, of values from 0 to 1.
        std: Per channel.
        metric: ``file.py:function`` of (outputs, samples), larger is better; empty for fidelity.
        min_sqnr: Least signal to noise in dB, where fidelity decides.
        drop: Largest relative loss of the metric, where that decides.
    """

    model: str
    data: Path
    weights: Path | None = None
    samples: int = 128
    size: tuple[int, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    metric: str = ""
    min_sqnr: float = 30.0
    drop: float = 0.01


def quantize(
    asked: Source,
    target: str | Path,
    out: Path,
    *,
    pick: str | int | None = None,
    store: Path | None = None,
    emit: Emit = silent,
) -> dict[str, Any]:
    """Find the fastest artefact of a network that stays faithful, and write it.

    Args:
        asked: The network, its samples, what decides.
        target: Name or file of the target.
        out: Gets ``model/``, ``golden.npz`` (inputs, and what the artefact gives for them in its
            own runtime) and ``quantized.json``.
        pick: Take this candidate instead of the fastest.
        store: Where results are kept.
        emit: Progress.

    Returns:
        What ``quantized.json`` holds: ``candidate``, ``runtime``, ``options``, ``main``,
        ``explored`` (see `edgekd.frontier.explored`), ``choice``, ``source``, ``not_run``.

    Raises:
        UsageError: The network, samples or output folder are not usable.
        BudgetError: No candidate is faithful enough.
    """
    _check_place(out)
    aim = load_target(target)
    walk = _walk(asked, aim, store, emit)
    absent = aim.absent_from(here())
    chosen, missing = steps.candidates(walk.recipe, aim, absent)
    chosen, sourceless = _from_onnx(chosen)
    search(walk, Place(aim, absent), chosen, pick)
    return _write(walk, aim, [*missing, *sourceless], absent, out)


def export(
    asked: Source,
    out: Path,
    *,
    opset: int = 18,
    store: Path | None = None,
    emit: Emit = silent,
) -> dict[str, Any]:
    """Write a network as ONNX: exported, simplified, its outputs compared after every pass.

    Args:
        asked: The network and its samples.
        out: The file to write.
        opset: Version of the operator set, for a torch module.
        store: Where results are kept.
        emit: Progress.

    Returns:
        ``nodes``, ``ops``, ``passes``, ``io``, ``contract``.
    """
    walk, _ = start(asked, store, emit, opset=opset)
    entry = walk.whole("export")
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(entry.path / "model.onnx", out)
    return dict(entry.facts)


def start(asked: Source, store: Path | None, emit: Emit, *, opset: int = 18) -> tuple[Walk, Recipe]:
    """Bring a network into the form of an export, as step ``export`` of a walk."""
    recipe = _recipe(asked)
    walk = Walk(recipe, Store(store), _named(emit))
    walk.step(_source(asked, recipe, opset))
    return walk, recipe


def _walk(asked: Source, target: Target, store: Path | None, emit: Emit) -> Walk:
    """Start a run: the graph, and what its candidates are held to."""
    recipe = _recipe(asked)
    walk = Walk(recipe, Store(store), _named(emit))
    walk.step(_source(asked, recipe, target.opset))
    spec = {
        "data": plain(recipe.data),
        "task": plain(recipe.task),
        "floor": None if asked.metric else asked.min_sqnr,
    }
    files = tuple(Path(name) for name in recipe.files)
    walk.step(
        # The search asks the step of this name what a candidate must keep.
        steps.Step(
            "distill", steps.stage("source.goal"), spec, {"export": "export"}, files, steps.EXPORT
        )
    )
    return walk


def _named(emit: Emit) -> Emit:
    names = {"export": "source", "distill": "goal"}

    def renamed(event: Event) -> None:
        emit(replace(event, step=names.get(event.step, event.step)))

    return renamed


def _recipe(asked: Source) -> Recipe:
    """Put a request in the form of a recipe without any training.

    Raises:
        DataError: There are no samples where the request says.
    """
    if not asked.data.exists():
        raise DataError(f"there is no such file or folder of samples: {asked.data}", at="--data")
    name, size = _port(asked)
    data = {
        "path": str(asked.data.absolute()),
        "name": name,
        "size": list(asked.size or size),
        "mean": list(asked.mean),
        "std": list(asked.std),
    }
    metric = {}
    if asked.metric:
        place, function = split_target(asked.metric)
        metric = {"metric": plain(Call(f"{Path(place).absolute()}:{function}"))}
    return Recipe(
        name="direct",
        data=Call("edgekd.data.samples:load", data),
        files=(str(asked.data.absolute()),),
        input=Input((1,)),
        task=Call("edgekd.tasks.fidelity:task", metric),
        teacher=Network(None),
        student=Network(None),
        train=Train(0),
        objective=Objective("none", ()),
        quantize=Quantize(samples=asked.samples),
        metric_drop=asked.drop if asked.metric else 0.0,
    )


def _port(asked: Source) -> tuple[str, tuple[int, ...]]:
    """Name of the input, and height and width of pictures, as an ONNX file tells them."""
    place = Path(_place(asked.model))
    if place.suffix == ".tflite":
        raise UsageError(
            "a .tflite is quantised from its torch source, not from itself",
            at=asked.model,
            hint="give file.py:function with --weights, or the ONNX file",
        )
    if place.suffix not in FORMS:
        raise UsageError(
            f"a network is one of {', '.join(FORMS[:2])} and file.py:function, not {place.name!r}",
            at="MODEL",
        )
    if not place.is_file():
        raise DataError("there is no such file", at=str(place))
    if place.suffix != ".onnx":
        return "input", ()
    from edgekd.graph.source import check_onnx, read_onnx

    contract = check_onnx(read_onnx(place), place)
    shape = contract["shape"]
    return contract["input"], tuple(shape[1:]) if len(shape) == 3 and shape[0] in (1, 3) else ()


def _place(model: str) -> str:
    """The file of a network: all of it, or what stands before the function's name."""
    return model.rpartition(":")[0] if ".py:" in model else model


def _source(asked: Source, recipe: Recipe, opset: int) -> steps.Step:
    place = Path(_place(asked.model)).absolute()
    function = asked.model.rpartition(":")[2] if ".py:" in asked.model else ""
    spec = {
        "model": f"{place}:{function}" if function else str(place),
        "weights": str(asked.weights.absolute()) if asked.weights else "",
        "data": plain(recipe.data),
        "samples": asked.samples,
        "opset": opset,
        "seed": 0,
        "built_by": plain(Call(f"{place}:{function}")) if function else None,
    }
    files = [place, *map(Path, recipe.files), *_external(place)]
    files += [asked.weights.absolute()] if asked.weights else []
    return steps.Step("export", steps.stage("source"), spec, {}, tuple(files), steps.EXPORT)


def _external(place: Path) -> list[Path]:
    """Files of weights beside an ONNX file."""
    if place.suffix != ".onnx":
        return []
    import onnx

    graph = onnx.load(str(place), load_external_data=False).graph
    entries = [entry for tensor in graph.initializer for entry in tensor.external_data]
    return [place.parent / n for n in sorted({e.value for e in entries if e.key == "location"})]


def _from_onnx(chosen: Sequence[Candidate]) -> tuple[list[Candidate], list[str]]:
    """Leave out what is made from a torch program, with a sentence for each."""
    kept = [c for c in chosen if form(c.backend) == "onnx" and not c.bits]
    lost = [c.id for c in chosen if c not in kept]
    return kept, [f"{name}: needs the torch source, in a recipe" for name in lost]


def _check_place(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not (out / FACTS).is_file():
        raise UsageError(
            "edgekd did not write what is there", at=str(out), hint="choose another --out"
        )


def _write(
    walk: Walk, target: Target, missing: Sequence[str], absent: str, out: Path
) -> dict[str, Any]:
    """Write the picked candidate, complete or not at all."""
    choice = walk.done[f"choose:{target.name}"].facts
    shipped = walk.whole(f"choose:{target.name}").path / "shipped"
    picked = choice["picked"]
    artefact = json.loads((shipped / "artefact.json").read_text())
    source_facts = walk.done["export"].facts
    facts = {
        "candidate": picked,
        **{name: artefact[name] for name in ("runtime", "options", "main", "precision", "input")},
        "parity": walk.done[f"parity:{picked}"].facts,
        "goal": walk.done["distill"].facts["val"],
        "explored": explored(choice),
        "choice": {name: choice[name] for name in ("rule", "metric", "limit", "unmeasured", "by")},
        "source": {name: source_facts[name] for name in ("nodes", "ops", "passes", "io", "data")},
        "note": source_facts["note"],
        "target": target.name,
        "device": absent and f"not_run: {absent}",
        "not_run": list(missing),
        "machine": dict(here()),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".edgekd-") as folder:
        made = Path(folder) / "made"
        (made / "model").mkdir(parents=True)
        for name in artefact["files"]:
            shutil.copyfile(shipped / name, made / "model" / name)
        save_arrays(made / "golden.npz", golden_of(walk, picked))
        (made / FACTS).write_text(json.dumps(facts, indent=1, sort_keys=True), "utf-8")
        if out.exists():
            shutil.rmtree(out)
        made.rename(out)
    return facts
