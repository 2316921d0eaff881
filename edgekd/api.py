"""The verbs as functions. The command line calls these and nothing else."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd import steps
from edgekd.device.fingerprint import here
from edgekd.device.reach import reach
from edgekd.discover import load_recipe, load_target
from edgekd.errors import (
    BudgetError,
    SetupError,
    StageError,
    TrainingError,
    UnbuiltError,
    UsageError,
    did_you_mean,
)
from edgekd.events import Emit, Event, silent
from edgekd.inputs import save_arrays
from edgekd.spec import Recipe, finite, plain
from edgekd.store import Store
from edgekd.target import Target
from edgekd.verdict import RULES

if TYPE_CHECKING:
    from edgekd.bundle import Bundle
    from edgekd.run import Walk


PLAYED = "a recording is played: these times are of another network, nothing was measured"


def compress(
    recipe: str | Path | Recipe,
    target: str | Path | Sequence[str | Path],
    *,
    settings: Mapping[str, Any] | None = None,
    out: Path | None = None,
    on: str = "local",
    device: str = "auto",
    pick: str | int | None = None,
    like: Path | None = None,
    allow_unbuilt: bool = False,
    store: Path | None = None,
    emit: Emit = silent,
) -> list[Bundle]:
    """Distil, quantise, prove, measure and bundle.

    Args:
        recipe: Name, file, or a `Recipe`.
        target: One or several names or files; they share teacher and student.
        settings: Settings of the recipe.
        out: Folder of the bundle; with several targets, the folder they go into.
        on: Where the device is: ``local``, ``ssh:HOST``, or a name of the user's list.
        device: What trains: ``auto``, ``cpu``, ``cuda``, ``mps``.
        pick: Take this candidate instead of the fastest within the limits.
        like: A bundle whose settings and choice are repeated.
        allow_unbuilt: Return bundles whose device was not there as if all was well.
        store: Where results are kept; ``$EDGEKD_STORE`` or the user's cache by default.
        emit: Progress.

    Returns:
        One bundle a target.

    Raises:
        UnbuiltError: A device was not there: its bundle says ``not_run`` on the device's rungs
            of the ladder, and lies where it would.
        EdgekdError: See `edgekd.errors`.
    """
    request = _request(recipe, target, settings, pick, like)
    places = _places(request, out)
    devices = _devices(request.targets, on)
    plans = [
        _candidates(request.recipe, t, found, emit)
        for t, found in zip(request.targets, devices, strict=True)
    ]
    for one, (chosen, _) in zip(request.targets, plans, strict=True):
        _check_pick(request.picks[""], one, chosen)
    from edgekd.run import Walk

    kept, trains = Store(store), _device(device)
    walks = {
        name: Walk(one, kept, _named(emit, name), trains, on=on)
        for name, one in request.whole.items()
    }
    for walk in walks.values():
        for one in request.targets:
            for step in steps.fitting(walk.recipe, one):
                walk.step(step)
    _fit_together(walks, request.targets)
    for walk in walks.values():
        _learn(walk)
    bundles = []
    for one, found, (chosen, missing), place in zip(
        request.targets, devices, plans, places, strict=True
    ):
        _prove(walks[""], one, chosen, request.picks[""], found)
        for name, part in request.recipe.parts.items():
            own, _ = _candidates(part, one, found, silent)
            _prove(walks[name], one, own, request.picks.get(name), found)
        bundles.append(_bundle(walks, one, missing, place, found))
    for walk in walks.values():
        walk.keys.save()
    unproven = [
        _unproven(t, found.unmeasured, bundle)
        for t, found, bundle in zip(request.targets, devices, bundles, strict=True)
    ]
    if any(unproven) and not allow_unbuilt:
        raise _unbuilt(request.targets, unproven, bundles)
    return bundles


def _fit_together(walks: Mapping[str, Walk], targets: Sequence[Target]) -> None:
    """Hold all networks of a recipe that decide together to the flash that they share.

    Raises:
        BudgetError: They need more than the target has, before anything is trained.
    """
    if walks[""].recipe.joint is None:
        return
    for target in (one for one in targets if one.mcu is not None):
        assert target.mcu is not None
        facts = [walk.done[f"fits:{target.name}"].facts for walk in walks.values()]
        used, allowed = sum(one["flash_bytes"] for one in facts), int(1024 * target.mcu.flash_kib)
        if used > allowed:
            each = " + ".join(f"{one['flash_bytes']:,}" for one in facts)
            raise BudgetError(
                f"in 8 bits all weights of both networks take at least {used:,} bytes of flash"
                f" ({each}), target {target.name} has {allowed:,}",
                at=f"targets/{target.name}.yaml: mcu.flash_kib",
                hint="a narrower student, or one of the stages (--set stage=1)",
            )


def _learn(walk: Walk) -> None:
    """Walk the steps up to the student; of objectives that are tried, one that cannot learn is out.

    Everything else that goes wrong in a trial ends the run: it would go wrong again.
    """
    failed: dict[str, Mapping[str, Any]] = {}
    for step in steps.learned(walk.recipe, lambda n: failed.get(n) or walk.done[n].facts):
        try:
            walk.step(step)
        except TrainingError as error:
            if not step.name.startswith(steps.TRIAL):
                raise
            failed[step.name] = {"failed": error.what}
            walk.emit(Event("warning", step.name, f"{error.what}; it is out"))


def _named(emit: Emit, part: str) -> Emit:
    """Tell of a part's steps as ``PART/step``."""
    if not part:
        return emit
    return lambda event: emit(replace(event, step=f"{part}/{event.step}"))


@dataclass(frozen=True)
class _Device:
    """What ``--on`` is for one target.

    Attributes:
        absent: Why it is not the target's device; empty when it is.
        machine: Facts of the agent there.
        there: Its identity, for keys, when it is the device and not this machine.
    """

    absent: str
    machine: Mapping[str, Any]
    there: Mapping[str, Any] | None = None

    @property
    def played(self) -> Mapping[str, Any] | None:
        """What is played where a recording stands for the device: then nothing is measured."""
        return None if self.absent else self.machine.get("replay")

    @property
    def unmeasured(self) -> str:
        """Why nothing is measured on the device; empty when it is."""
        return self.absent or steps.unmeasured(self.there)

    @property
    def elsewhere(self) -> str:
        """Why torch networks are not timed: that is done beside the candidates, on this machine."""
        return self.absent or ("" if self.there is None else "on another machine")


def _devices(targets: Sequence[Target], on: str) -> list[_Device]:
    """Ask the device what it is, and each target whether that is it.

    Raises:
        SetupError: It cannot be reached.
    """
    if reach(on).local:
        machine = here()
        return [_Device(t.absent_from(machine), machine) for t in targets]
    from edgekd.device.link import agent_on

    with agent_on(on) as agent:
        machine = agent.facts()
    kept = ("cpu", "isa", "cores", "arch", "os", "board", "runtimes", "jetson", "replay")
    there = {name: machine[name] for name in kept if name in machine}
    found = [t.absent_from(machine).replace("this machine", on) for t in targets]
    return [_Device(why, machine, None if why else there) for why in found]


def _unproven(target: Target, absent: str, bundle: Bundle) -> str:
    """Why nothing ran on the device; for a microcontroller, on an emulated one."""
    if target.mcu is None:
        return absent
    return str(bundle.manifest["firmware"].get("not_run", ""))


def _unbuilt(
    targets: Sequence[Target], absents: Sequence[str], bundles: Sequence[Bundle]
) -> UnbuiltError:
    lost = [f"{t.name}: {why}" for t, why in zip(targets, absents, strict=True) if why]
    kept = ", ".join(str(bundle.path) for bundle in bundles)
    return UnbuiltError(
        f"nothing was built or measured on the device of target {'; '.join(lost)}; all else is"
        f" done and kept in {kept}",
        bundles,
        hint="name the device with --on, or accept the bundle as it is with --allow-unbuilt",
    )


def plan(
    recipe: str | Path | Recipe,
    target: str | Path | Sequence[str | Path],
    *,
    settings: Mapping[str, Any] | None = None,
    pick: str | int | None = None,
    like: Path | None = None,
    on: str = "local",
    store: Path | None = None,
    emit: Emit = silent,
    **ignored: Any,
) -> list[dict[str, Any]]:
    """Tell what `compress` would run, without running it.

    Returns:
        One dict a step: ``step``, ``stage``, ``key``, ``status`` (``cached`` or ``run``), ``why``.
    """
    request = _request(recipe, target, settings, pick, like)
    kept = Store(store)
    devices = _devices(request.targets, on)
    rows: list[dict[str, Any]] = []
    keyed = {name: steps.Keys(one, kept.root) for name, one in request.whole.items()}
    for name, keys in keyed.items():
        _list(request, name, keys, devices, kept, emit if not name else silent, rows)
        keyed[""].of |= {f"{name}/{step}": key for step, key in keys.of.items() if name}
    for one, device in zip(request.targets, devices, strict=True):
        for step in steps.joined(request.recipe, one, device.absent, device.there):
            _add_row(rows, kept, keyed[""], step)
        for step in steps.imaged(request.recipe, one):
            _add_row(rows, kept, keyed[""], step)
    return rows


def _list(
    request: _Request,
    name: str,
    keys: steps.Keys,
    devices: Sequence[_Device],
    kept: Store,
    emit: Emit,
    rows: list[dict[str, Any]],
) -> None:
    """Add the rows of the recipe, or of its part of that name."""

    def found(step: str) -> Mapping[str, Any] | None:
        entry = kept.get(keys.of[step], whole=False)
        return None if entry is None else entry.facts

    for step in _listed(request, name, devices, found, emit):
        _add_row(rows, kept, keys, step, f"{name}/" if name else "")


def _add_row(
    rows: list[dict[str, Any]], kept: Store, keys: steps.Keys, step: steps.Step, before: str = ""
) -> None:
    """Add the row of one step, unless another target has it."""
    key = keys.add(step)
    if any(row["key"] == key for row in rows):
        return
    cached = kept.has(key)
    rows.append(
        {
            "step": f"{before}{step.name}",
            "stage": step.stage,
            "key": key,
            "status": "cached" if cached else "run",
            "why": "" if cached else _why(kept, step.name, keys.made_of[step.name]),
        }
    )


def _listed(
    request: _Request, part: str, devices: Sequence[_Device], found: Any, emit: Emit
) -> Iterator[steps.Step]:
    """Steps of a recipe in order; ``found`` gives the facts of a step already yielded."""
    from edgekd.search import Place, planned

    recipe, pick = request.whole[part], request.picks.get(part)
    for one in request.targets:
        yield from steps.fitting(recipe, one)
    yield from steps.learned(recipe, found)
    for one, device in zip(request.targets, devices, strict=True):
        chosen, _missing = _candidates(recipe, one, device, emit)
        if not part:
            _check_pick(pick, one, chosen)
        yield steps.exported(recipe, one)
        yield from planned(recipe, Place(one, device.absent, device.there), chosen, pick, found)
        yield from steps.measured(recipe, one, device.elsewhere)
        for chain in steps.beside(recipe, one, chosen, device.absent, device.there):
            yield from chain


def bench(
    bundles: Sequence[Path] = (),
    *,
    suite: Path | None = None,
    out: Path,
    build_in: Path | None = None,
    processes: int | None = None,
    threads: int | None = None,
    pin: int | None = None,
    history: Path | None = None,
    label: str | None = None,
    resume: bool = False,
    wait: float = 600,
    on: str = "local",
    device: str = "auto",
    store: Path | None = None,
    emit: Emit = silent,
) -> dict[str, Any]:
    """Measure bundles in turns, in fresh processes, and write every process down.

    Args:
        bundles: Folders or zips.
        suite: A suite file, which may also name recipes to build.
        out: File of results, JSON lines.
        build_in: Folder of the bundles that the suite builds; ``out``'s by default.
        processes: Fresh processes of each; the suite's by default.
        threads: Threads of the runtime; the suite's or the target's by default.
        pin: Core to run on.
        history: Folder of plain files that the figures are added to.
        label: Name of the board in the history.
        resume: Go on with an interrupted run.
        wait: Seconds to wait for another job on the board.
        on: Where the board is: ``local``, ``ssh:HOST``, or a name of the user's list; what the
            suite builds is built for it, too.
        device: What trains, when something is built.
        store: Where results are kept.
        emit: Progress.

    Returns:
        See `edgekd.bench.run.bench`.
    """
    from edgekd.bench import run as running
    from edgekd.bench import suite as suites

    if (suite is None) == (not bundles):
        raise UsageError("give bundles, or --suite FILE", hint="edgekd bench BUNDLE --out R.jsonl")
    asked = suites.Measuring()
    found = _by_label((read_name(path), Path(path)) for path in bundles)
    name = "bundles"
    if suite is not None:
        job = suites.load(suite)
        name, asked = job.name, job.measure
        ready = [suite.parent / path for path in job.bundles]
        built = _built(job.build, build_in or out.parent, on, device, store, emit)
        found = _by_label([*((read_name(path), path) for path in ready), *built])
    settings = replace(
        asked.settings(0),
        threads=threads or asked.threads or 0,
        pin=asked.pin if pin is None else pin,
        on=on,
    )
    return running.bench(
        running.Job(name, found, processes or asked.processes, settings),
        out,
        history_folder=history,
        label=label,
        resume=resume,
        wait=wait,
        emit=emit,
    )


def read_name(bundle: Path) -> str:
    """Return the name in a bundle's manifest."""
    from edgekd.bundle import read_manifest

    return str(read_manifest(bundle)["name"])


def _by_label(found: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Return bundles by name; a second one of the same name is called by its path too."""
    labels: dict[str, Path] = {}
    for name, path in found:
        labels[name if name not in labels else f"{name} ({path})"] = path
    return labels


def _built(
    builds: Iterable[Any], folder: Path, on: str, device: str, store: Path | None, emit: Emit
) -> Iterator[tuple[str, Path]]:
    """Build, or read from the store, every recipe × settings × target of a suite."""
    from edgekd.spec import digest

    for one in builds:
        for settings in one.settings:
            said = ",".join(f"{key}={value}" for key, value in sorted(settings.items()))
            for target in one.targets:
                place = folder / f"{digest([one.recipe, target, dict(settings)])[:12]}"
                (bundle,) = compress(
                    one.recipe,
                    target,
                    settings=settings,
                    out=place,
                    on=on,
                    device=device,
                    store=store,
                    emit=emit,
                )
                name = str(bundle.manifest["name"])
                yield (f"{name} {said}" if len(one.settings) > 1 else name), place


def profile(
    bundle: Path,
    *,
    on: str = "local",
    runs: int | None = None,
    threads: int | None = None,
    pin: int | None = None,
    duration: float | None = None,
    layers: bool = False,
    meter: Path | None = None,
    emit: Emit = silent,
) -> dict[str, Any]:
    """Measure a bundle's latency on a device; needs its runtime there, not torch.

    Args:
        bundle: Folder or zip.
        on: Where the device is: ``local``, ``ssh:HOST``, or a name of the user's list.
        runs: Timed inferences.
        threads: Threads of the runtime.
        pin: Core to run on.
        duration: Stop after so many seconds.
        layers: Time every layer too, where the runtime tells.
        meter: CSV that an external power meter writes meanwhile (``seconds`` since 1970 by this
            machine's clock, ``milliwatts``); energy is then its.
        emit: Progress.

    Returns:
        The figures of one fresh process, ``candidate``, ``effective`` (what really ran), ``cold``
        (seconds to import the runtime and to load, and the first inference beside a warm one),
        ``rss_mib`` over the life of the process, ``energy`` (millijoules an inference) and, when
        asked for, ``layers`` (name, kind, milliseconds; largest first).
    """
    import numpy as np

    from edgekd.bundle import open_bundle
    from edgekd.device.link import Agent, agent_command, agent_on

    if pin is not None and not reach(on).local:
        raise UsageError("only this machine's cores can be pinned", at="--pin", hint="--on local")
    with open_bundle(bundle) as opened:
        shipped, measure = opened.manifest["artefact"], opened.manifest["target"]["measure"]
        with np.load(opened.path / opened.manifest["golden"]["file"]) as golden:
            feeds = {n: golden[n] for n in golden.files if not n.startswith("output:")}
        command = ["taskset", "-c", str(pin), *agent_command()]
        with agent_on(on) if pin is None else Agent(command) as agent:
            options = {**shipped["options"], "threads": threads or measure["threads"]}
            loaded = agent.load(shipped["runtime"], opened.path / shipped["main"], **options)
            timing = agent.time(
                feeds,
                warmup=measure["warmup"],
                runs=runs or measure["runs"],
                max_seconds=duration or 60,
            )
            energy = agent.energy(feeds) if meter is None else agent.metered(feeds, meter)
            told = {"layers": agent.layers(feeds)} if layers else {}
    return {
        **({"replay": PLAYED} if reach(on).recording else {}),
        "candidate": shipped["candidate"],
        **timing.summary(),
        "cold": {
            "import_s": loaded.import_s,
            "load_s": loaded.load_s,
            "first_ms": timing.first_ms,
            "first_over_warm": _times(timing.first_ms, timing.wall_ns),
        },
        "rss_mib": {
            "start": loaded.rss_before_mib,
            "loaded": loaded.rss_mib,
            "end": timing.rss_mib,
            "peak": timing.peak_rss_mib,
        },
        "energy": energy,
        **told,
        "effective": loaded.effective,
    }


def _times(first_ms: float | None, wall_ns: Sequence[int]) -> float | None:
    """How many warm inferences the first one took."""
    return None if first_ms is None else first_ms * 1e6 / statistics.median(wall_ns)


def report(bundle: Path, page: Path, *, emit: Emit = silent) -> None:
    """Write a bundle's report again, from its manifest and its example pictures."""
    from edgekd.bundle import open_bundle
    from edgekd.data.show import load_examples
    from edgekd.report import render_report

    with open_bundle(bundle) as opened:
        pictures = opened.path / "examples.npz"
        examples = load_examples(pictures) if pictures.is_file() else {}
        page.write_text(render_report(opened.manifest, examples=examples), encoding="utf-8")


class _Request:
    """What was asked for, loaded.

    Attributes:
        recipe: The recipe.
        targets: For which devices.
        picks: The recipe (empty name) and each of its parts → which candidate the user wants.
        whole: The recipe (empty name) and its parts.
    """

    def __init__(
        self, recipe: Recipe, targets: Sequence[Target], picks: Mapping[str, str | int | None]
    ) -> None:
        self.recipe, self.targets, self.picks = recipe, targets, picks
        self.whole = {"": recipe, **recipe.parts}


def _request(
    recipe: str | Path | Recipe,
    target: str | Path | Sequence[str | Path],
    settings: Mapping[str, Any] | None,
    pick: str | int | None,
    like: Path | None,
) -> _Request:
    names = [target] if isinstance(target, str | Path) else list(target)
    targets = [load_target(name) for name in names]
    if len({t.name for t in targets}) < len(targets):
        raise UsageError("a target is named twice", at="--target")
    chosen = dict(settings or {})
    repeated: dict[str, str] = {}
    if like is not None:
        from edgekd.bundle import open_bundle

        with open_bundle(like) as opened:
            chosen = {**opened.manifest["recipe"]["settings"], **chosen}
            whole = {"": opened.manifest, **opened.manifest.get("parts", {})}
            repeated = {name: one["artefact"]["candidate"] for name, one in whole.items()}
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe, chosen)
    picks = {name: pick if pick is not None else repeated.get(name) for name in ("", *recipe.parts)}
    return _Request(recipe, targets, picks)


def _places(request: _Request, out: Path | None) -> list[Path]:
    """Where the bundles go, checked before any work."""
    from edgekd.bundle import check_place

    names = [f"{request.recipe.name}-{t.name}" for t in request.targets]
    if out is not None and len(names) == 1:
        places = [out]
    else:
        places = [(out or Path("out")) / name for name in names]
    for place in places:
        check_place(place)
    return places


def _candidates(
    recipe: Recipe, target: Target, device: _Device, emit: Emit
) -> tuple[list[Any], list[str]]:
    if device.absent:
        emit(Event("note", f"target {target.name}", f"no device: {device.absent}"))
    chosen, missing = steps.candidates(recipe, target, device.absent, device.there)
    for sentence in missing:
        emit(Event("note", f"target {target.name}", f"not tried: {sentence}"))
    return chosen, missing


def _check_pick(pick: str | int | None, target: Target, chosen: Sequence[Any]) -> None:
    """Refuse the name of a candidate that a target does not have here, before any work.

    Raises:
        UsageError: There is none of that name.
    """
    names = [candidate.id for candidate in chosen]
    if isinstance(pick, str) and pick not in (*RULES, *names):
        raise UsageError(
            f"target {target.name!r} has no candidate {pick!r} here",
            at="--pick",
            hint=did_you_mean(pick, names),
        )


def _prove(
    walk: Walk, target: Target, chosen: Sequence[Any], pick: str | int | None, device: _Device
) -> None:
    """Walk the steps of a target; a candidate whose toolchain or runtime fails is rejected.

    Raises:
        StageError: Every candidate fails.
    """
    from edgekd.search import Place, search

    walk.step(steps.exported(walk.recipe, target))
    search(walk, Place(target, device.absent, device.there), chosen, pick)
    for step in steps.measured(walk.recipe, target, device.elsewhere):
        if not walk.has(step):  # another target shares it
            walk.step(step)
    choice = walk.done[f"choose:{target.name}"].facts
    for identity in dict.fromkeys((choice["fp32"], choice["reduced"], choice["picked"])):
        if identity:
            walk.step(steps.tested(walk.recipe, identity, device.absent, device.there))
    for step in steps.responded(walk.recipe, choice["picked"], device.absent, device.there):
        walk.step(step)
    for chain in steps.beside(walk.recipe, target, chosen, device.absent, device.there):
        _optional(walk, chain)


def _optional(walk: Walk, chain: Sequence[steps.Step]) -> None:
    """Walk steps that nothing else needs; the first that fails ends the chain and is told."""
    for step in chain:
        try:
            if not walk.has(step) and set(step.inputs.values()) <= set(walk.done):
                walk.step(step)
        except (StageError, SetupError) as error:
            walk.emit(Event("warning", step.name, f"{error.what}; it is left out"))
            return


def _bundle(
    walks: Mapping[str, Walk], target: Target, missing: Sequence[str], place: Path, device: _Device
) -> Bundle:
    """Write the bundle; a part's is a bundle in a folder of it."""
    from edgekd.bundle import unchanged, write_bundle
    from edgekd.manifest import Evidence, assemble
    from edgekd.parts import with_parts

    walk, parts = walks[""], {name: part for name, part in walks.items() if name}
    for name, part in parts.items():
        walk.adopt(name, part)
    for step in steps.joined(walk.recipe, target, device.absent, device.there):
        walk.step(step)
    for step in steps.imaged(walk.recipe, target):
        walk.step(step)
    # Numbers by proxy are this machine's, whatever --on names.
    machine = here() if device.unmeasured else device.machine
    absent, played = device.unmeasured, device.played
    evidence = {
        name: Evidence(one.recipe, target, one.done, machine, missing, absent, played)
        for name, one in walks.items()
    }
    own = evidence.pop("")
    manifest = finite(plain(assemble(own)))
    manifests = {name: finite(plain(assemble(one))) for name, one in evidence.items()}
    if parts:
        manifest = finite(with_parts(manifest, own, evidence, manifests))
    same = unchanged(manifest, place)
    if same is not None:
        return same
    with tempfile.TemporaryDirectory() as scratch:
        room = Path(scratch)
        files: dict[str, Path | bytes] = {}
        for name, part in parts.items():
            inside = _files(part, target, manifests[name], _folder(room / f"files-{name}"))
            made = write_bundle(manifests[name], inside, room / name).path
            files |= {
                f"{name}/{file.relative_to(made).as_posix()}": file
                for file in sorted(made.rglob("*"))
                if file.is_file()
            }
        files |= _files(walk, target, manifest, room)
        return write_bundle(manifest, files, place)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _files(
    walk: Walk, target: Target, manifest: Mapping[str, Any], scratch: Path
) -> dict[str, Path | bytes]:
    """Everything in the bundle but its manifest, by place."""
    from edgekd.data.show import load_examples
    from edgekd.report import render_report
    from edgekd.search import golden_of
    from edgekd.tasks.open import open_task

    shipped = walk.whole(f"choose:{target.name}").path / "shipped"
    files: dict[str, Path | bytes] = {
        name: shipped / Path(name).relative_to("model") for name in manifest["artefact"]["files"]
    }
    picked = manifest["artefact"]["candidate"]
    golden = golden_of(walk, picked)
    save_arrays(scratch / "golden.npz", golden)
    files["golden.npz"] = scratch / "golden.npz"
    if manifest["state"]:
        files["state.npz"] = walk.whole("distill").path / "state.npz"
        task = open_task(plain(walk.recipe.task), steps.base_of(walk.recipe))
        files |= getattr(task, "companions", dict)()
    if "joint" in manifest:
        files[manifest["joint"]["golden"]["file"]] = (
            walk.whole(f"joint:{target.name}").path / "joint.npz"
        )
        for name in manifest["joint"].get("image", {}).get("files", ()):
            files[name] = walk.whole(f"image:{target.name}").path / name
    if "contract" in manifest:
        text = json.dumps(manifest["contract"], indent=1, ensure_ascii=False)
        files["contract.json"] = f"{text}\n".encode()
    exported = walk.done["export"].path
    examples = load_examples(exported / "examples.npz")
    if examples:
        files["examples.npz"] = exported / "examples.npz"
    (scratch / "report.html").write_text(render_report(manifest, examples=examples), "utf-8")
    files["report.html"] = scratch / "report.html"
    files["LICENSE"] = Path(__file__).parent / "data" / "licences" / "Apache-2.0.txt"
    for name in manifest["inputs"]["data"]["notices"]:
        files[f"licences/{name}"] = exported / "notices" / name
    if f"profile:{picked}" in walk.done:
        told = walk.whole(f"profile:{picked}").path / "device"
        place = "replay" if "replay" in manifest["device"] else "device"
        files |= {f"{place}/{file.name}": file for file in sorted(told.glob("*"))}
    return files | _kit(walk, manifest, golden)


def _kit(walk: Walk, manifest: Mapping[str, Any], golden: Mapping[str, Any]) -> dict[str, bytes]:
    """What the backend of the artefact adds: build scripts, runners."""
    from edgekd.backends.base import Equipping, backend

    made_of = walk.done[f"build:{manifest['artefact']['candidate']}"].made_of
    toolchain = backend(made_of["spec"]["candidate"]["backend"])
    return toolchain.kit(manifest, golden) if isinstance(toolchain, Equipping) else {}


def _device(wanted: str) -> str:
    """What trains; ``auto`` is settled by the first step that runs, so that none imports torch."""
    if wanted in ("auto", "cpu"):
        return wanted
    import torch

    have = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not have[wanted]:
        raise SetupError(f"torch sees no {wanted} device here", at="--device", hint="--device cpu")
    return wanted


def _why(store: Store, step: str, made_of: Mapping[str, Any]) -> str:
    """Why a step must run: the first difference from its newest result, if there is one."""
    from edgekd.store import why

    earlier = [entry for _, entry in store.list() if entry.made_of.get("step") == step]
    return why(earlier[-1].made_of, made_of) if earlier else "never run"
