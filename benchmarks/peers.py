"""The automatic choice beside the standard routes of the field's quantisers, in one run.

    python -m benchmarks.peers --recipe decision_transformer --environments DIR --work DIR \
        --out benchmarks/results/peers.json

A case is a student that `edgekd.compress` has finished (or finishes now), or one of two networks
at seed 0 that `edgekd.quantize` is given. Every tool of `benchmarks.peer_tools` quantises its
float32 network with the tool's own defaults, on the same calibration samples, in the tool's own
environment: the plain export of torch and ours, whose batch norms are folded, both with a batch of
one. What comes out is judged like a candidate of ours (the task metric on validation data against
the student's; signal to noise where there is no task) and times in turns with the choice and with
every candidate of an exhaustive search (runtime × precision × scope) that a hint of its time does
not already show to be slower than the choice by `CLEARLY`. Ratios are paired, of processor time.

Validation data decide, as in the choice itself: this compares speed at a metric that is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import shutil
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peer_tools import TOOLS, SkippedError, Tool
from edgekd import api, direct, steps
from edgekd.artefact import Artefact, open_artefact
from edgekd.backends.base import Candidate
from edgekd.bench.measure import SAMPLES, Contestant, Settings, log_ratios, rounds
from edgekd.bench.stats import pair_shift
from edgekd.device.fingerprint import here
from edgekd.device.lease import lease
from edgekd.discover import load_recipe, load_target
from edgekd.errors import EdgekdError
from edgekd.events import silent
from edgekd.inputs import save_arrays
from edgekd.run import Walk
from edgekd.search import Place, search
from edgekd.spec import Input, Recipe, plain, rebuild
from edgekd.stages.parity import parity
from edgekd.stages.score import score
from edgekd.store import Store
from edgekd.target import Target
from edgekd.verdict import loss_of

CLEARLY = 1.15
"""A candidate whose hint of a time is so many times the choice's is not timed beside it."""
BEST, BEST_BELOW, SMALL_MS = 1.05, 1.15, 0.2
PEER, FP32 = 1.02, 1.0
FAR = {"mobilevit": {"ONNX Runtime static default": 1.5, "olive run": 1.5},
       "inception": {"olive run": 2.4}}  # fmt: skip
"""By how much the choice has to be faster than a peer, on the networks at seed 0."""
FLOORS = (30.0, 40.0, 100.0)


@dataclass
class Row:
    """Something that runs.

    Attributes:
        name: Candidate, or tool and export.
        kind: ``candidate`` or ``peer``.
        artefact: What to load.
        cost: ``cpu_s`` and ``wall_s`` of making it, for a peer.
        facts: ``metric``, ``loss``, ``kept``; times.
    """

    name: str
    kind: str
    artefact: Artefact
    cost: Mapping[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Case:
    """A network with everything that is asked about it.

    Attributes:
        name: Of the case.
        metric: What judges.
        rows: Candidates by name.
        chosen: Name of the automatic choice, by limit (as text).
        limits: Text of a limit → whether facts of a row keep it.
        models: Export → the float network with a batch of one.
        tflite: The network for LiteRT; None where there is no torch source.
        samples: ``.npz`` of calibration samples.
        golden: Inputs to time on, by name.
        judge: Gives ``metric`` and ``loss`` of an artefact.
        lost: Candidate → why it could not be built or run.
        far: Tool → how many times slower it has to be.
        search: What our own search took; see `searched`.
    """

    name: str
    metric: str
    rows: dict[str, Row]
    chosen: dict[str, str]
    limits: Mapping[str, Callable[[Mapping[str, Any]], bool]]
    models: Mapping[str, Path]
    tflite: Path | None
    samples: Path
    golden: Mapping[str, Any]
    judge: Callable[[Row], dict[str, Any]]
    lost: dict[str, str]
    far: Mapping[str, float] = field(default_factory=dict)
    search: Mapping[str, float] = field(default_factory=dict)


# --- cases ---------------------------------------------------------------------------------------


def student(name: str, settings: Mapping[str, Any], target: str, work: Path) -> Case:
    """A finished compression: its choice, and all that an exhaustive search would build."""
    recipe, aim = load_recipe(name, settings), load_target(target)
    bundle = api.compress(recipe, target, out=work / "bundle", emit=_say)[0]
    walk = Walk(recipe, Store(), silent)
    for step in steps.learned(recipe, lambda known: walk.done[known].facts):
        walk.step(step)
    walk.step(steps.exported(recipe, aim))
    facts = walk.done["distill"].facts
    planned, rows, lost = _explored(walk, recipe, aim, facts)
    export = walk.whole("export").path
    drop = steps.metric_drop(recipe, aim)
    state = walk.whole("distill").path

    def judge(row: Row) -> dict[str, Any]:
        if row.kind == "candidate":
            val = walk.step(planned[f"val:{row.name}"]).facts
        else:
            spec = {
                "data": plain(recipe.data), "task": plain(recipe.task), "split": "val",
                "base": str(steps.base_of(recipe)), "step": row.name, "on": "local", "threads": 1,
            }  # fmt: skip
            with tempfile.TemporaryDirectory(prefix="edgekd-peers-") as scratch:
                places = {"artefact": row.artefact.folder, "state": state}
                val = score(spec, places, Path(scratch), silent)
        found = val["metrics"][val["primary"]]
        return {"metric": found["value"], "loss": loss_of(val, facts["val"])}

    with np.load(export / "golden.npz") as archive:
        golden = {n: archive[n] for n in archive.files if not n.startswith("output:")}
    models = {"folded": work / "folded.onnx", "plain": work / "plain.onnx"}
    _fixed(export / "model.onnx", models["folded"])
    _plain(walk, recipe, golden, models["plain"])
    limit = f"{100 * drop:g} % of {facts['val']['primary']}"
    return Case(
        name, facts["val"]["primary"], rows, {limit: bundle.manifest["artefact"]["candidate"]},
        {limit: lambda found: found["loss"] <= drop}, models,
        walk.whole("convert").path / "model.tflite" if "convert" in walk.done else None,
        export / "calibration.npz", golden, judge, lost, search=searched(walk, recipe, aim),
    )  # fmt: skip


def searched(walk: Walk, recipe: Recipe, aim: Target) -> dict[str, float]:
    """Search again in a store that holds nothing but the exported student; processor seconds.

    What is counted: the conversion to .tflite (``convert_cpu_s``), and building, parity, pruning,
    scoring and timing of the candidates up to the choice, and its score on the test split
    (``search_cpu_s``). Recovery is off: candidates of the first tier.
    """
    known = [*steps.learned(recipe, lambda name: walk.done[name].facts)]
    known.append(steps.exported(recipe, aim))
    with tempfile.TemporaryDirectory(prefix="edgekd-peers-") as root:
        store = Store(Path(root))
        for step in known:
            place = walk.whole(step.name).path
            shutil.copytree(place, store.root / "objects" / place.name)
        again = Walk(recipe, store, silent)
        for step in known:
            again.step(step)
        chosen = [c for c in steps.candidates(recipe, aim)[0] if c.tier == 1]
        used = [_used_s()]
        planned = steps.built(recipe, aim, chosen, "", None, again.done["distill"].facts)
        for step in planned:
            if step.name == "convert":
                again.step(step)
        used.append(_used_s())
        search(again, Place(aim), chosen, None)
        picked = again.done[f"choose:{aim.name}"].facts["picked"]
        again.step(steps.tested(recipe, picked))
        used.append(_used_s())
    convert, rest = (round(b - a, 1) for a, b in pairwise(used))
    _say_line(f"  searched in {rest} CPU-s, converted in {convert}: {picked}")
    return {"convert_cpu_s": convert, "search_cpu_s": rest}


def _used_s() -> float:
    """Processor seconds of this process and of the children that have ended."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, who))


NETWORKS = {
    "mobilevit": ("edgekd.models.mobilevit", "mobilevit(variant='xxs', size=256, classes=1000)",
                  (3, 256, 256)),
    "inception": ("edgekd.models.inception", "inception(channels=23, classes=19)", (23, 1, 2048)),
}  # fmt: skip
BUILD = """\
import numpy as np
import torch
from {module} import {function}


def build():
    torch.manual_seed(0)
    network = {call}.train()
    norms = [m for m in network.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = None
    with torch.no_grad():
        network(torch.from_numpy(np.load({samples!r})["input"][:16]))
    return network.eval()
"""
"""A network whose batch norms have seen some samples: its values are of a usual size."""


def untrained(name: str, form: str, target: str, work: Path) -> Case:
    """A network of ours at seed 0, without a task: `edgekd.quantize` at every floor."""
    module, call, shape = NETWORKS[name]
    aim = load_target(target)
    source = work / "net.py"
    samples, function = work / "samples.npz", call.partition("(")[0]
    source.write_text(
        BUILD.format(module=module, function=function, call=call, samples=str(samples))
    )
    save_arrays(samples, {"input": _smooth(shape, 64)})
    asked = direct.Source(f"{source}:build", samples)
    if form == "onnx":
        direct.export(asked, work / "net.onnx", emit=_say)
        asked = replace(asked, model=str(work / "net.onnx"))
    chosen = {}
    for floor in FLOORS:
        wanted = replace(asked, min_sqnr=floor)
        made = direct.quantize(wanted, target, work / f"at-{floor:g}", emit=_say)
        chosen[f"{floor:g} dB"] = made["candidate"]
    walk, recipe = direct.start(asked, None, silent)
    _, rows, lost = _explored(walk, recipe, aim, None)
    export = walk.whole("export").path

    def judge(row: Row) -> dict[str, Any]:
        if row.kind == "candidate":
            return {"metric": walk.done[f"parity:{row.name}"].facts["sqnr_db"], "loss": None}
        spec = {"candidate": {"precision": "int8"}, "on": "local", "by_proxy": False}
        with tempfile.TemporaryDirectory(prefix="edgekd-peers-") as scratch:
            places = {"artefact": row.artefact.folder, "export": export}
            return {"metric": parity(spec, places, Path(scratch), silent)["sqnr_db"], "loss": None}

    def at_least(floor: float) -> Callable[[Mapping[str, Any]], bool]:
        return lambda found: found["metric"] >= floor

    with np.load(export / "golden.npz") as archive:
        golden = {n: archive[n] for n in archive.files if not n.startswith("output:")}
    _fixed(export / "model.onnx", work / "folded.onnx")
    return Case(
        f"{name} at seed 0, from {form}", "sqnr_db", rows, chosen,
        {f"{floor:g} dB": at_least(floor) for floor in FLOORS}, {"folded": work / "folded.onnx"},
        None, export / "calibration.npz", golden, judge, lost, FAR[name],
    )  # fmt: skip


def _smooth(shape: Sequence[int], count: int) -> Any:
    """Smooth random fields."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(count, shape[0], *(max(2, n // 16) for n in shape[1:])))
    for axis, size in enumerate(shape[1:], 2):
        places = np.linspace(0, coarse.shape[axis] - 1, size)
        low = np.minimum(places.astype(int), coarse.shape[axis] - 2)
        part = (places - low).reshape([-1 if i == axis else 1 for i in range(coarse.ndim)])
        coarse = coarse.take(low, axis) * (1 - part) + coarse.take(low + 1, axis) * part
    return coarse.astype(np.float32)


def _explored(
    walk: Walk, recipe: Recipe, target: Target, student: Mapping[str, Any] | None
) -> tuple[dict[str, steps.Step], dict[str, Row], dict[str, str]]:
    """Build every candidate of an exhaustive search and run the golden inputs through it.

    Those that learn on under rounding are left out: they are other networks.
    """
    whole = replace(recipe, quantize=replace(recipe.quantize, search="exhaustive", candidates=0))
    found, missing = steps.candidates(whole, target, target.absent_from(here()))
    chosen = [c for c in found if not c.bits]
    if student is None:
        chosen, without = direct._from_onnx(chosen)
        missing = [*missing, *without]
    planned = {step.name: step for step in steps.built(recipe, target, chosen, "", None, student)}
    lost = dict(sentence.split(": ", 1) for sentence in missing)
    for step in planned.values():
        part, _, name = step.name.partition(":")
        if part not in ("convert", "calibrate", "build", "parity"):
            continue
        if set(step.inputs.values()) <= set(walk.done):
            try:
                walk.step(step)
                _say_line(f"  {step.name}")
            except EdgekdError as error:
                lost[name or part] = error.what
    rows = {c.id: _candidate(walk, c) for c in chosen if f"parity:{c.id}" in walk.done}
    for name in [n for n in rows if rows[n].facts["status"] != "passed"]:
        lost[name] = "parity: not the same network"
        del rows[name]
    return planned, rows, lost


def _candidate(walk: Walk, candidate: Candidate) -> Row:
    artefact = open_artefact(walk.whole(f"build:{candidate.id}").path)
    facts = walk.done[f"parity:{candidate.id}"].facts
    return Row(
        candidate.id, "candidate", artefact,
        facts={"hint_ms": facts["quick"]["cpu_ms"], "status": facts["status"]},
    )  # fmt: skip


def _fixed(model: Path, out: Path) -> None:
    """Write a network for a batch of one, which every tool takes."""
    import onnx

    proto = onnx.load(str(model))
    for port in (*proto.graph.input, *proto.graph.output):
        port.type.tensor_type.shape.dim[0].dim_value = 1
    del proto.graph.value_info[:]
    onnx.save(onnx.shape_inference.infer_shapes(proto), str(out))


def _plain(walk: Walk, recipe: Recipe, golden: Mapping[str, Any], out: Path) -> None:
    """Write what torch's exporter makes of the student by itself."""
    import torch

    from edgekd.backends.torch_eager import load_network
    from edgekd.graph.export import BytesInput
    from edgekd.models.shipped import shipped

    base = steps.base_of(recipe)
    model = shipped(load_network(walk.whole("distill").path, base)[0]).eval()
    contract = rebuild(Input, plain(recipe.input))
    if contract.form == "uint8_nhwc":
        model = BytesInput(model, contract.mean, contract.std).eval()
    ((name, values),) = golden.items()
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.onnx.export(
            model, (torch.from_numpy(values[:1]),), dynamo=True, verbose=False,
            input_names=[name], output_names=[recipe.output],
        )  # fmt: skip
    assert made is not None
    made.save(str(out))


# --- peers ---------------------------------------------------------------------------------------


def quantised(
    case: Case, tool: Tool, environments: Path, work: Path, contract: Mapping[str, Any]
) -> Iterator[Row | tuple[str, str]]:
    """Yield what a tool makes of each export, or its name and why there is nothing."""
    models = {"": case.tflite} if tool.takes == "tflite" else dict(case.models)
    try:
        python = tool.python(environments)
    except SkippedError as skipped:
        yield tool.label, str(skipped)
        return
    for export, model in models.items():
        name = f"{tool.label}, {export}" if export else tool.label
        if model is None:
            yield name, "needs the torch source"
            continue
        folder = work / f"{tool.folder}-{export or 'tflite'}"
        kept = folder / "made.json"
        if not kept.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            try:
                made = tool.quantise(python, model, case.samples, folder)
            except SkippedError as skipped:
                yield name, str(skipped)
                continue
            made["main"] = str(made["main"].relative_to(folder))
            kept.write_text(json.dumps(made), encoding="utf-8")
        made = json.loads(kept.read_text(encoding="utf-8"))
        cost = {key: made[key] for key in ("cpu_s", "wall_s")}
        for label, options in _options(tool).items():
            yield _as_row(name + label, folder, made["main"], tool, options, contract, cost)


def _options(tool: Tool) -> Mapping[str, Mapping[str, Any]]:
    """How the runtime is opened; OpenVINO by itself computes in bfloat16 where there is any."""
    if tool.runtime != "openvino":
        return {"": {}}
    found = {", rest f32": {"precision": "f32"}}
    if {"avx512_bf16", "amx_bf16"} & set(here()["isa"]):
        found[", rest bf16"] = {"precision": "bf16"}
    return found


def _as_row(
    name: str, folder: Path, main: str, tool: Tool, options: Mapping[str, Any],
    contract: Mapping[str, Any], cost: Mapping[str, float],
) -> Row:  # fmt: skip
    files = [main]
    if main.endswith(".xml"):
        files.append(str(Path(main).with_suffix(".bin")))
    place = folder / f"as{name.rpartition(',')[2].replace(' ', '-')}" if options else folder
    if place != folder:
        place.mkdir(exist_ok=True)
        for file in files:
            shutil.copyfile(folder / file, place / Path(file).name)
        files = [Path(file).name for file in files]
    artefact = Artefact(place, files[0], tool.runtime, options, contract, "int8", tuple(files))
    artefact.save()
    return Row(name, "peer", artefact, cost)


# --- time and verdicts ---------------------------------------------------------------------------


def timed(rows: Sequence[Row], golden: Mapping[str, Any], count: int) -> None:
    """Time rows in turns; the first is what the others are held against."""
    with tempfile.TemporaryDirectory(prefix="edgekd-peers-") as scratch, lease(3600):
        feeds = {}
        for number, (name, values) in enumerate(golden.items()):
            feeds[name] = Path(scratch) / f"{number}.npy"
            np.save(feeds[name], values[:SAMPLES])
        entered = [
            Contestant(r.name, r.artefact.folder / r.artefact.main, r.artefact.runtime,
                       r.artefact.options, feeds)
            for r in rows
        ]  # fmt: skip
        found = list(islice(rounds(entered, Settings(), seed=0), count))
    for index, row in enumerate(rows):
        logs = [log_ratios(one[0], one[index]) for one in found]
        row.facts["cpu_ms"] = statistics.median(one[index].cpu_least_ms for one in found)
        row.facts["wall_ms"] = statistics.median(one[index].quantiles_ms["p50"] for one in found)
        row.facts["logs"] = [entry["cpu"] for entry in logs]


def ratio(one: Row, other: Row) -> dict[str, float]:
    """Time of one over another's, with its 95 % interval, over the rounds that both were in."""
    pairs = zip(one.facts["logs"], other.facts["logs"], strict=True)
    shift = pair_shift([a - b for a, b in pairs])
    return {name: round(1 + getattr(shift, name), 4) for name in ("value", "low", "high")}


def verdicts(case: Case) -> list[dict[str, Any]]:
    """Hold the choice of every limit against the best that keeps it, fp32 and the peers."""
    found = []
    for limit, name in case.chosen.items():
        kept = [r for r in case.rows.values() if "logs" in r.facts and case.limits[limit](r.facts)]
        chosen = case.rows[name]
        small = chosen.facts["cpu_ms"] < SMALL_MS
        candidates = [r for r in kept if r.kind == "candidate"]
        exact = [r for r in candidates if r.artefact.precision == "fp32"]
        sides = [
            ("best of the exhaustive search", candidates, BEST_BELOW if small else BEST),
            ("best fp32", exact, FP32),
        ]
        sides += [(r.name, [r], PEER) for r in kept if r.kind == "peer"]
        sides += [
            (r.name, [r], 1 / least)
            for r in case.rows.values()
            for label, least in case.far.items()
            if "logs" in r.facts and r.name.startswith(label)
        ]
        for label, others, most in sides:
            if not others:
                continue
            fastest = min(others, key=lambda r: r.facts["cpu_ms"])
            apart = ratio(chosen, fastest)
            found.append(
                {
                    "limit": limit, "choice": name, "against": label, "is": fastest.name,
                    "ratio": apart, "at_most": round(most, 4),
                    "holds": apart["value"] <= most or apart["low"] <= most,
                }
            )  # fmt: skip
    return found


def run(case: Case, asked: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Quantise by every tool, judge, time, conclude."""
    skipped: dict[str, str] = {}
    contract = next(iter(case.rows.values())).artefact.input
    for tool in TOOLS:
        if asked.tool and tool.folder not in asked.tool:
            skipped[tool.label] = "not asked for"
            continue
        for made in quantised(case, tool, asked.environments, work, contract):
            if isinstance(made, Row):
                case.rows[made.name] = made
                _say_line(f"  {made.name}: quantised in {made.cost['cpu_s']} CPU-s")
            else:
                skipped[made[0]] = made[1]
                _say_line(f"  {made[0]}: skipped: {made[1]}")
    slow = {}
    hints = {case.rows[name].facts["hint_ms"] for name in case.chosen.values()}
    for row in list(case.rows.values()):
        clear = row.facts.get("hint_ms", 0.0) > CLEARLY * max(hints)
        if clear and row.artefact.precision != "fp32" and row.name not in case.chosen.values():
            slow[row.name] = case.rows.pop(row.name).facts["hint_ms"]
            continue
        try:
            row.facts |= _judged(case, row)
            _say_line(f"  {row.name}: {case.metric} {row.facts['metric']:.4f}")
        except EdgekdError as error:
            skipped[row.name] = f"does not run: {error.what}"
            del case.rows[row.name]
    first = case.rows[next(iter(case.chosen.values()))]
    rows = [first, *(row for row in case.rows.values() if row is not first)]
    timed(rows, case.golden, asked.rounds)
    return {
        "case": case.name,
        "metric": case.metric,
        "choice": case.chosen,
        "rows": [_told(row, case, first) for row in sorted(rows, key=lambda r: r.facts["cpu_ms"])],
        "slower_by_hint_ms": slow,
        "skipped": skipped,
        "not_run": case.lost,
        "verdicts": verdicts(case),
        **({"search": cost(case)} if case.search else {}),
    }


PLAIN = ("ONNX Runtime static default", "NNCF default", "LiteRT full int8")
"""Whose routes, one after the other, our search over three runtimes is held against."""
MOST = 1.5


def cost(case: Case) -> dict[str, Any]:
    """Put what our search took beside the tools' own routes from the same export.

    Both sides include the conversion to .tflite, which LiteRT's own route needs as well; ``bare``
    is the ratio without it.
    """
    made = {}
    for label in PLAIN:
        rows = [r for r in case.rows.values() if r.kind == "peer" and r.name.startswith(label)]
        of = next((r for r in rows if "plain" not in r.name), None)
        if of is not None:
            made[label] = of.cost["cpu_s"]
    convert, ours = case.search["convert_cpu_s"], case.search["search_cpu_s"]
    theirs = sum(made.values())
    if len(made) < len(PLAIN):
        return {**case.search, "peers_cpu_s": made, "not_run": "a peer of the sum was skipped"}
    ratio = (ours + convert) / (theirs + convert)
    return {
        **case.search, "peers_cpu_s": made, "ratio": round(ratio, 3),
        "bare": round(ours / theirs, 3), "at_most": MOST, "holds": ratio <= MOST,
    }  # fmt: skip


def _judged(case: Case, row: Row) -> dict[str, Any]:
    """Judge a row; what a peer made is judged once."""
    if row.kind == "candidate":
        return case.judge(row)
    kept = row.artefact.folder / "judged.json"
    if not kept.is_file():
        kept.write_text(json.dumps(case.judge(row)), encoding="utf-8")
    found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def _told(row: Row, case: Case, first: Row) -> dict[str, Any]:
    keeps = [limit for limit, test in case.limits.items() if test(row.facts)]
    return {
        "name": row.name,
        "kind": row.kind,
        "precision": row.artefact.precision,
        "runtime": row.artefact.runtime,
        "options": dict(row.artefact.options),
        "bytes": row.artefact.bytes,
        **{name: row.facts[name] for name in ("cpu_ms", "wall_ms", "metric", "loss")},
        "ratio_to_choice": ratio(row, first),
        "keeps": keeps,
        "rejected": [limit for limit in case.limits if limit not in keeps],
        **({"quantised_in": dict(row.cost)} if row.cost else {}),
    }


def _say(event: Any) -> None:
    if event.kind in ("start", "warning"):
        _say_line(f"  {event.step} {event.text}")


def _say_line(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def show(result: Mapping[str, Any]) -> None:
    """Print the table and verdicts of a case."""
    print(f"\n{result['case']} ({result['metric']})")
    for row in result["rows"]:
        marks = "choice" if row["name"] in result["choice"].values() else row["kind"]
        mark = "" if row["keeps"] else "  REJECTED"
        print(
            f"  {row['name']:44} {marks:9} {row['cpu_ms']:9.4f} ms"
            f" {row['ratio_to_choice']['value']:7.3f} ×  {row['metric']:9.4f}{mark}"
        )
    for name, why in result["skipped"].items():
        print(f"  {name}: skipped: {why}")
    for found in result["verdicts"]:
        mark = "holds" if found["holds"] else "MISSED"
        values = found["ratio"]
        print(
            f"  {mark:6} {found['limit']}: {found['choice']} / {found['against']} ({found['is']})"
            f" {values['value']:.3f} [{values['low']:.3f}, {values['high']:.3f}],"
            f" at most {found['at_most']:g}"
        )
    if "search" in result:
        print(f"  search: {json.dumps(result['search'], ensure_ascii=False)}")


def main() -> int:
    """Run the cases asked for; exit 1 where a verdict does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--recipe", action="append", default=[], help="NAME[,key=value…]")
    parser.add_argument(
        "--network", action="append", default=[], choices=[f"{n}:{f}" for n in NETWORKS
        for f in ("torch", "onnx")], help="A network at seed 0, and what it is given as.",
    )  # fmt: skip
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--tool", action="append", choices=[tool.folder for tool in TOOLS])
    parser.add_argument("--environments", type=Path, required=True, help="Folder of the tools'.")
    parser.add_argument("--work", type=Path, required=True, help="What is made is kept here.")
    parser.add_argument("--rounds", type=int, default=8, help="Of fresh processes.")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    asked.environments, asked.work = asked.environments.absolute(), asked.work.absolute()
    cases: list[tuple[str, Callable[[Path], Case]]] = []
    for text in asked.recipe:
        name, *given = text.split(",")
        settings = dict(part.split("=", 1) for part in given)
        cases.append((name, lambda w, n=name, s=settings: student(n, s, asked.target, w)))  # type: ignore[misc]
    for text in asked.network:
        name, form = text.split(":")
        cases.append(
            (f"{name}-{form}", lambda w, n=name, f=form: untrained(n, f, asked.target, w))  # type: ignore[misc]
        )
    found, load = [], os.getloadavg()[0]
    for name, make in cases:
        work = asked.work / name
        work.mkdir(parents=True, exist_ok=True)
        _say_line(name)
        found.append(run(make(work), asked, work))
        show(found[-1])
    result = {
        "command": shlex.join(["python", "-m", "benchmarks.peers", *_without_places(sys.argv[1:])]),
        "machine": {name: here()[name] for name in ("cpu", "isa", "cores", "arch")},
        "versions": {tool.label: tool.versions(_interpreter(tool, asked)) for tool in TOOLS},
        "edgekd_runs": here()["runtimes"],
        "rounds": asked.rounds,
        "load": {"before": load, "after": os.getloadavg()[0]},
        "cases": found,
    }
    asked.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 0 if all(v["holds"] for case in found for v in case["verdicts"]) else 1


def _interpreter(tool: Tool, asked: argparse.Namespace) -> Path:
    try:
        return tool.python(asked.environments)
    except SkippedError:
        return Path()


def _without_places(arguments: Sequence[str]) -> list[str]:
    """The command without the folders of this machine."""
    found = list(arguments)
    for option, name in (("--environments", "DIR"), ("--work", "DIR"), ("--out", "FILE")):
        if option in found:
            found[found.index(option) + 1] = name
    return found


if __name__ == "__main__":
    sys.exit(main())
