"""Prove a bundle again: files, manifest, golden outputs in its own runtime, task metric."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.bundle.agreement import contradictions
from edgekd.bundle.contents import opened
from edgekd.bundle.integrity import Audit, audit
from edgekd.bundle.manifest import beyond, faults
from edgekd.bundle.read import Bundle, open_bundle, read_manifest
from edgekd.errors import EdgekdError, RuntimeCrash, StageError, UsageError, VerifyError
from edgekd.events import Emit, Event, silent

if TYPE_CHECKING:
    from edgekd.device.link import Loaded

Report = dict[str, Any]

FILES, MANIFEST, PIN = "files", "manifest", "expected digest"
RUNS, GOLDEN, TASK = "runs as recorded", "golden outputs", "task metric"
JOINT = "decisions together"
RUNNER, BUILD = "runner built there", "model/build.sh"
BUILD_S = 1800.0
FAILED = 5
"""Exit code of the runner when its golden self-test fails."""
SLACK = 0.005
"""On another machine a task metric measured again stays in its recorded interval, or within this
share of itself."""
SAME_SLACK = 0.001
"""The same on the machine and runtime that it was measured with: the units are the same ones."""
SAME: Mapping[str, float] = {"max_rel": 1e-5, "min_cosine": 0.99999}
"""On that machine and runtime golden outputs are given again but for the last digits, whatever the
precision: the wider tolerance of an int8 artefact is for processors that round otherwise."""


@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    Attributes:
        name: What.
        wrong: Everything wrong with it, in words.
        not_run: Why it was not checked; empty when it was.
        facts: What was measured.
    """

    name: str
    wrong: tuple[str, ...] = ()
    not_run: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """``passed``, ``failed`` or ``not_run``."""
        return "not_run" if self.not_run else "failed" if self.wrong else "passed"

    def plain(self) -> dict[str, Any]:
        """Return the check as JSON: ``name``, ``status``, ``facts``."""
        facts = dict(self.facts)
        if self.wrong:
            facts["faults"] = list(self.wrong)
        if self.not_run:
            facts["why"] = self.not_run
        return {"name": self.name, "status": self.status, "facts": facts}


class BundleFailed(VerifyError):
    """A bundle is not what it claims to be; ``report`` is what `verify` would have returned."""

    def __init__(self, report: Report) -> None:
        wrong = [
            f"{check['name']}: {fault}"
            for check in report["checks"]
            for fault in check["facts"].get("faults", ())
        ]
        super().__init__(
            "the bundle does not verify:\n  " + "\n  ".join(wrong), at=report["bundle"]
        )
        self.report = report


def verify(
    bundle: Path | str,
    *,
    hashes_only: bool = False,
    task: bool = False,
    on: str = "local",
    expect: str | None = None,
    emit: Emit = silent,
) -> Report:
    """Check a bundle; all faults are reported at once.

    Args:
        bundle: Folder or ``.zip``.
        hashes_only: Check files and manifest; load no runtime, import nothing but the standard
            library.
        task: Measure the task metric again, on the recipe's data.
        on: Where the artefact runs: ``local``, ``ssh:HOST``, or a name of the user's list.
        expect: Digest that the bundle must have (sha256 of its ``SHA256SUMS``). Checksums inside
            a bundle prove that it is whole; this proves which one it is.
        emit: Progress.

    Returns:
        ``bundle``, ``digest``, ``status``, ``checks`` (each ``name``, ``status``, ``facts``) and
        ``notes``: what one should know, for instance that this is another machine.

    Raises:
        BundleFailed: The bundle is not what it claims to be.
        SetupError: Its runtime, or the task's data, is not here.
        RuntimeCrash: The runtime died.
        UsageError: There is no bundle, or ``expect`` is no sha256.
    """
    from edgekd.device.reach import reach

    place = reach(on)
    if task and not place.local:
        raise UsageError(
            "the task metric is measured here only", at="--task", hint="leave out --task, or --on"
        )
    pin = None if expect is None else _pin(expect)
    bundle = Path(bundle)
    emit(Event("start", "verify", f"hashing {bundle}"))
    found = audit(bundle)
    checks = [_files(found), _manifest(bundle, found)]
    checks += [] if pin is None else [_pinned(found, pin)]
    notes = [found.note] if found.note else []
    if not hashes_only or task:
        wanted = {"golden": not hashes_only, "task": task}
        checks += _behaviour(bundle, checks, notes, on, **wanted, emit=emit)
    report = _report(bundle, found, checks, notes)
    emit(Event("end", "verify", report["status"]))
    if report["status"] == "failed":
        raise BundleFailed(report)
    return report


def lines(report: Report) -> list[tuple[str, str]]:
    """Return what a report says for people: name and sentence, a line each."""
    said = [("bundle", report["bundle"]), ("digest", report["digest"] or "none")]
    said += [(check["name"], _sentence(check)) for check in report["checks"]]
    return said + [("note", note) for note in report["notes"]]


def _sentence(check: Mapping[str, Any]) -> str:
    facts = check["facts"]
    if check["status"] == "not_run":
        return f"not run: {facts['why']}"
    if check["status"] == "failed":
        return f"failed: {'; '.join(facts['faults'])}"
    if check["name"] == JOINT:
        return (
            f"passed: {facts['same']} of {facts['n']} golden flights as recorded,"
            f" {facts['flagged']} flagged; largest difference of a chance {facts['max_abs']:.3g}"
        )
    if check["name"] == FILES:
        return f"passed, {facts['files']} files"
    if check["name"].startswith(GOLDEN):
        outputs = [f"{n} {_nearness(m)}" for n, m in facts.items() if n != "effective"]
        return f"passed: {'; '.join(outputs)}"
    if check["name"].startswith(RUNS) and facts["same_machine"]:
        return "passed, on the processor and runtime that it was measured with"
    if check["name"].startswith(RUNNER):
        return (
            f"passed: {facts['samples']} golden samples, min_cosine {facts['min_cosine']:.6f};"
            f" p50 {facts['p50_ms']} ms"
        )
    if check["name"].startswith(TASK):
        found = [f"{name} {value['value']:.4f}" for name, value in facts["metrics"].items()]
        return f"passed: {', '.join(found)}"
    return "passed"


def _nearness(measured: Mapping[str, Any]) -> str:
    return f"max_abs {measured['max_abs']:.3g}, min_cosine {measured['min_cosine']:.6f}"


def _report(bundle: Path, found: Audit, checks: list[Check], notes: list[str]) -> Report:
    failed = any(check.wrong for check in checks)
    return {
        "bundle": str(bundle),
        "digest": found.digest,
        "status": "failed" if failed else "passed",
        "checks": [check.plain() for check in checks],
        "notes": notes,
    }


def _pin(expect: str) -> str:
    pin = expect.strip().lower().removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{64}", pin):
        raise UsageError(
            f"{expect!r} is no sha256: 64 hex digits wanted",
            at="--expect",
            hint="sha256sum SHA256SUMS, run in the bundle, prints its digest",
        )
    return pin


def _files(found: Audit) -> Check:
    return Check(FILES, tuple(map(str, found.faults)), facts={"files": found.files})


def _manifest(bundle: Path, found: Audit) -> Check:
    """Check what the manifest says; one that cannot be read is the files' fault, named there."""
    try:
        manifest = read_manifest(bundle)
        wrong = list(_wrong_in(manifest))
        if not wrong and not found.faults:
            wrong = _sizes(bundle, manifest)
        return Check(MANIFEST, tuple(wrong))
    except EdgekdError as error:
        if found.faults:
            return Check(MANIFEST, not_run="it cannot be read")
        return Check(MANIFEST, (error.what,))


def _sizes(bundle: Path, manifest: Mapping[str, Any]) -> list[str]:
    artefact = manifest["artefact"]
    with opened(bundle) as contents:
        size = sum(contents.size(name) for name in artefact["files"])
    same = size == artefact["bytes"]
    return [] if same else [f"artefact.bytes: {artefact['bytes']} recorded, {size} found"]


def _pinned(found: Audit, pin: str) -> Check:
    same = found.digest == pin
    wrong = () if same else (f"{pin[:12]}… wanted, {(found.digest or 'none')[:12]}… found",)
    return Check(PIN, wrong, facts={"wanted": pin, "found": found.digest})


def _behaviour(
    bundle: Path,
    before: list[Check],
    notes: list[str],
    on: str,
    *,
    golden: bool,
    task: bool,
    emit: Emit,
) -> list[Check]:
    """Run the artefact, unless its files are not what was written: those are not run."""
    parts, joint = _inside(bundle, before)
    each = [*([RUNS, GOLDEN] if golden else []), *([TASK] if task else [])]
    wanted = [_of(name, part) for part in ("", *parts) for name in each]
    wanted += [JOINT] if joint and golden else []
    failed = [check.name for check in before if check.wrong]
    if failed:
        why = f"the bundle failed before: {', '.join(failed)}"
        return [Check(name, not_run=why) for name in wanted]
    checks: list[Check] = []
    with open_bundle(bundle) as opened:
        whole = {"": opened}
        for part in parts:
            with open_bundle(opened.path / part) as inner:
                whole[part] = inner
                checks.append(Check(_of(MANIFEST, part), _wrong_in(inner.manifest)))
        for part, one in whole.items():
            found = _one(one, notes, on, golden=golden, task=task, emit=emit, part=part)
            checks += [replace(check, name=_of(check.name, part)) for check in found]
        if joint and golden:
            emit(Event("progress", "verify", "running the golden flights through all parts"))
            checks.append(_together(whole, on))
    return checks


def _inside(bundle: Path, before: list[Check]) -> tuple[list[str], bool]:
    """Folders of the parts, and whether they decide together; nothing of a broken manifest."""
    if any(check.name == MANIFEST and check.status != "passed" for check in before):
        return [], False
    manifest = read_manifest(bundle)
    return list(manifest.get("parts", {})), "joint" in manifest


def _of(name: str, part: str) -> str:
    return f"{name} of {part}" if part else name


def _together(whole: Mapping[str, Bundle], on: str) -> Check:
    """Give the golden flights to the driver with all networks behind it."""
    import numpy as np

    from edgekd.tasks.faults.joint import bundled, replay

    joint = whole[""].manifest["joint"]
    first, second = (bundled(one.path, one.manifest) for one in whole.values())
    with np.load(whole[""].path / joint["golden"]["file"], allow_pickle=False) as archive:
        golden = {name: archive[name] for name in archive.files}
    facts, wrong = replay(first, second, golden, joint["golden"]["tolerance"]["chance"], on)
    return Check(JOINT, tuple(wrong), facts=facts)


def _one(
    bundle: Bundle,
    notes: list[str],
    on: str,
    *,
    golden: bool,
    task: bool,
    emit: Emit,
    part: str,
) -> list[Check]:
    """Run one artefact: its golden inputs, its task."""
    checks: list[Check] = []
    if golden:
        emit(Event("progress", "verify", _of("running the golden inputs", part)))
        checks += _golden(bundle, notes, on)
    if task and any(check.wrong for check in checks if check.name == RUNS):
        checks.append(Check(TASK, not_run=f"the bundle failed before: {RUNS}"))
    elif task:
        emit(Event("progress", "verify", _of("measuring the task metric", part)))
        checks.append(_task(bundle, emit))
    return checks


def _wrong_in(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(faults(manifest) or contradictions(manifest))


def _golden(bundle: Bundle, notes: list[str], on: str) -> list[Check]:
    """Load the artefact as recorded, and give it the golden inputs one at a time, as on the device.

    Raises:
        SetupError: Its runtime is not there.
        RuntimeCrash: The runtime died.
    """
    from edgekd.device.link import agent_on

    manifest = bundle.manifest
    artefact = manifest["artefact"]
    with agent_on(on) as agent:
        machine = agent.facts()
        runs = _runs(artefact, machine, notes)
        try:
            notes += _played(machine)
            feeds, wanted = _recorded(bundle)
            loaded = agent.load(runs["runtime"], bundle.path / artefact["main"], **runs["options"])
            differences = list(_elsewhere(manifest, loaded, machine))
            notes += differences
            same = not differences and runs is artefact
            strange = _strange(manifest, loaded, feeds, same) + _unquantised(bundle, loaded)
            given = {} if strange else agent.run(feeds, 1)
        except RuntimeCrash:
            raise
        except (StageError, UsageError) as error:
            # A missing runtime is a SetupError; this is what the runtime says of the artefact.
            strange = [error.what]
    if strange:
        why = f"the bundle failed before: {RUNS}"
        return [Check(RUNS, tuple(strange)), Check(GOLDEN, not_run=why)]
    tolerance = _nearest(manifest["golden"]["tolerance"], same)
    wrong: list[str] = []
    facts: dict[str, Any] = {}
    for name, truth in wanted.items():
        facts[name], found = _parity(truth, given.get(name), tolerance)
        wrong += [f"output {name}: {fault}" for fault in found]
    effective = {"effective": loaded.effective}
    return [
        Check(RUNS, facts={"same_machine": same}),
        Check(GOLDEN, tuple(wrong), facts={**facts, **effective}),
        *_runner(bundle, machine, on),
    ]


def _runner(bundle: Bundle, machine: Mapping[str, Any], on: str) -> Iterator[Check]:
    """Build engine and C++ runner with the device's own tools, and run its golden self-test."""
    import json

    from edgekd.device.script import run_script

    names = [name for name in bundle.manifest["files"] if name.startswith("model/")]
    if BUILD not in names:
        return
    if "replay" in machine or not (machine.get("tools") or {}).get("trtexec"):
        lacking = "a recording was played" if "replay" in machine else "there is no trtexec"
        yield Check(RUNNER, not_run=f"{lacking}; edgekd verify --on ssh:BOARD builds and runs it")
        return
    files = {name: bundle.path / name for name in names}
    done = run_script(on, files, f"sh {BUILD} --runner", BUILD_S)
    told: dict[str, Any] = {}
    for line in done.out.decode(errors="replace").splitlines():
        told |= json.loads(line) if line.startswith("{") else {}
    said = (done.error or "it said nothing").splitlines()
    reason = next((line for line in said if "error:" in line.lower()), said[-1])
    if done.code == 0 and "golden" in told:
        yield Check(RUNNER, facts=told)
    elif done.code == FAILED:
        yield Check(RUNNER, (f"the golden self-test fails: {told}",), facts=told)
    else:
        yield Check(RUNNER, not_run=f"it was not built, exit code {done.code}: {reason}")


def _played(machine: Mapping[str, Any]) -> list[str]:
    """Say so where a recording stands for the device."""
    played = machine.get("replay")
    if played is None:
        return []
    return [f"a recording was played ({played['name']}): nothing is proven of any board"]


def _recorded(bundle: Bundle) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return golden inputs and outputs by name.

    Raises:
        StageError: The file is none, holds no outputs, or not as many as inputs.
    """
    import zipfile

    import numpy as np

    file = bundle.manifest["golden"]["file"]
    try:
        with np.load(bundle.path / file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise StageError(f"{file} cannot be read: {error}") from error
    feeds = {name: array for name, array in arrays.items() if not name.startswith("output:")}
    wanted = {n.removeprefix("output:"): a for n, a in arrays.items() if n not in feeds}
    counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if not wanted:
        raise StageError(f"{file} holds no outputs")
    if len(set(counts.values())) > 1 or not min(counts.values()):
        raise StageError(f"{file} holds not one output for every input: {counts}")
    return feeds, wanted


def _strange(
    manifest: Mapping[str, Any], loaded: Loaded, feeds: Mapping[str, Any], same: bool
) -> list[str]:
    """List where what was loaded is not what the manifest describes."""
    pairs = [("inputs", loaded.inputs), ("outputs", loaded.outputs)]
    wrong = []
    for kind, ports in pairs:
        recorded, found = [p["name"] for p in manifest["io"][kind]], [p.name for p in ports]
        if recorded != found:
            wrong.append(
                f"io.{kind}: {', '.join(recorded)} recorded, the artefact has {', '.join(found)}"
            )
    lost = sorted({port["name"] for port in manifest["io"]["inputs"]} - set(feeds))
    wrong += [f"golden inputs lack {name}" for name in lost]
    # How a runtime runs an artefact depends on processor and version, and on nothing else.
    recorded = manifest["measured"].get("effective", {}) if same else {}
    for name, value in recorded.items():
        if loaded.effective.get(name) != value:
            wrong.append(f"{name}: {value} recorded, runs with {loaded.effective.get(name)}")
    return wrong


def _unquantised(bundle: Bundle, loaded: Loaded) -> list[str]:
    """Say so where an artefact that is called int8 computes nothing in integers."""
    from edgekd.bundle.onnx_ops import operators, quantises

    artefact = bundle.manifest["artefact"]
    if artefact["precision"] != "int8":
        return []
    layers = loaded.effective.get("layer_precisions")
    if artefact["main"].endswith(".onnx"):
        found = operators(bundle.path / artefact["main"])
        whole = not quantises(found)
    elif layers:
        found, whole = layers, not any(name.lower() in ("i8", "u8") for name in layers)
    else:
        return []
    return [f"artefact.precision: int8 recorded, nothing is quantised: {found}"] if whole else []


def _nearest(tolerance: Mapping[str, Any], same: bool) -> dict[str, Any]:
    """Return the bounds of golden outputs; on the machine of the record they are narrow."""
    if not same:
        return dict(tolerance)
    rel, cosine = tolerance.get("max_rel"), tolerance.get("min_cosine")
    return {
        **tolerance,
        "max_rel": min(SAME["max_rel"], SAME["max_rel"] if rel is None else rel),
        "min_cosine": max(SAME["min_cosine"], cosine or 0.0),
    }


def _parity(
    truth: Any, given: Any, tolerance: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Compare one output with what was recorded.

    Returns:
        What was measured, and what is wrong with it.
    """
    import numpy as np

    from edgekd.compare import compare

    if given is None:
        return {}, ["the artefact does not give it"]
    if given.shape != truth.shape:
        return {}, [f"shape {truth.shape} wanted, {given.shape} found"]
    finite = np.isfinite(given).reshape(len(given), -1).all(axis=1)
    if not finite.all():
        worst = int(finite.argmin())
        lost = int((~finite).sum())
        text = f"NaN or infinite in {lost} of {len(given)} samples, the first is sample {worst}"
        return {"n": len(given), "worst": worst, "nonfinite_samples": lost}, [text]
    measured = compare(truth, given)
    broken = beyond(measured, tolerance)
    return measured, [f"sample {measured['worst']}: {fault}" for fault in broken]


def _task(bundle: Bundle, emit: Emit) -> Check:
    from edgekd.tasks.score import score_artefact

    row = next(row for row in bundle.manifest["rows"] if row["shipped"])
    same = _measured_here(bundle.manifest)
    recorded = {name: m for name, m in row["metrics"].items() if "not_run" not in m}
    found = score_artefact(bundle.manifest, bundle.path, emit)
    wrong = []
    for name, metric in recorded.items():
        if name not in found:
            wrong.append(f"{name}: the task no longer gives it")
        elif not _agrees(found[name]["value"], metric, same):
            value = found[name]["value"]
            wrong.append(f"{name}: {value:.4f} measured, {metric['value']:.4f} recorded")
    return Check(TASK, tuple(wrong), facts={"metrics": found, "recorded": recorded})


def _agrees(value: float, recorded: Mapping[str, Any], same: bool) -> bool:
    middle, low, high = recorded["value"], recorded.get("low"), recorded.get("high")
    if same:
        return bool(abs(value - middle) <= SAME_SLACK * abs(middle))
    if low is not None and high is not None and low <= value <= high:
        return True
    return bool(abs(value - middle) <= SLACK * abs(middle))


def _measured_here(manifest: Mapping[str, Any]) -> bool:
    """Tell whether the task metric was measured with this processor and this runtime."""
    from edgekd.device.fingerprint import here

    now, runtime = here(), manifest["artefact"]["runtime"]
    there, versions = manifest["measured"]["machine"], manifest["measured"]["versions"]
    version = now["runtimes"].get(runtime)
    known = version is not None and str(versions.get(runtime) or "").startswith(version)
    return known and all(there.get(name) == now[name] for name in ("cpu", "isa"))


def _runs(
    artefact: Mapping[str, Any], machine: Mapping[str, Any], notes: list[str]
) -> Mapping[str, Any]:
    """Return runtime and options: the artefact's own where the machine has it, else its proxy."""
    proxy: Mapping[str, Any] | None = artefact.get("proxy")
    if proxy is None or machine["runtimes"].get(artefact["runtime"]):
        return artefact
    notes.append(
        f"ran in {proxy['runtime']}, a proxy: what {artefact['runtime']} makes of the model on the"
        " device is not proven"
    )
    return proxy


def _elsewhere(
    manifest: Mapping[str, Any], loaded: Loaded, here: Mapping[str, Any]
) -> Iterator[str]:
    """Say where this machine differs from the one that the numbers were measured on."""
    there = manifest["measured"]["machine"]
    if there.get("cpu") != here["cpu"]:
        yield f"chosen on {there.get('cpu')}, running on {here['cpu']}"
    lost = sorted(set(there.get("isa") or ()) - set(here["isa"]))
    if lost and there.get("arch") == here["arch"]:
        yield f"this machine lacks {', '.join(lost)}"
    version = manifest["measured"]["versions"].get(loaded.runtime)
    if version and not version.startswith(loaded.version):
        yield f"chosen on {loaded.runtime} {version}, running on {loaded.version}"
