"""Assemble a bundle's manifest from the facts of finished steps."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.artefact import open_artefact
from edgekd.bundle.agreement import widest
from edgekd.frontier import explored
from edgekd.halving import told
from edgekd.spec import Metric, Network, Recipe, digest, plain
from edgekd.steps import AWARE, REFERENCES, TRIAL, base_of, installed, teachers, time_by
from edgekd.store import Entry
from edgekd.target import Target
from edgekd.tasks.base import paired
from edgekd.tasks.open import open_task
from edgekd.version import __version__

LEAK = (
    "Teacher or distillation data may have seen the test classes: this is not few-shot learning of"
    " unseen classes."
)
VERSIONS = ("torch", "numpy", "onnx", "onnxscript", "onnxsim", "onnxruntime", "openvino", "nncf")


@dataclass(frozen=True)
class Evidence:
    """All that a manifest is made of.

    Attributes:
        recipe: What was asked for.
        target: For which device.
        done: Finished steps by name.
        machine: Facts of the agent about this machine.
        missing: Sentences about backends that could not be tried.
        absent: Why there is no device; empty when the numbers are the device's own.
        played: The recording that stood for it; then ``absent`` says so.
    """

    recipe: Recipe
    target: Target
    done: Mapping[str, Entry]
    machine: Mapping[str, Any]
    missing: Sequence[str]
    absent: str = ""
    played: Mapping[str, Any] | None = None

    @property
    def no_device(self) -> str:
        """Why the device's part was not run, as a sentence."""
        if self.played is not None:
            return self.absent
        return f"no {self.target.name} device was given (--on); {self.absent}"

    def latency(self, step: str) -> Mapping[str, Any]:
        """Latency of a network or artefact; ``not_run`` without the device."""
        if self.absent:
            return {"not_run": self.no_device}
        if f"profile:{step}" not in self.done:
            return {"not_run": "torch networks are not run on the device"}
        latency: Mapping[str, Any] = self.facts(f"profile:{step}")["latency"]
        return latency

    def facts(self, step: str) -> Mapping[str, Any]:
        """Facts of a step."""
        return self.done[step].facts

    def units(self, step: str) -> dict[str, Any]:
        """Metric per episode or sample of a scoring step."""
        return dict(np.load(self.done[step].path / "units.npz"))

    @property
    def undistilled(self) -> str:
        """Why distilling was not attempted; empty where it was."""
        return str(self.facts("distill").get("undistilled", ""))

    @property
    def choice(self) -> Mapping[str, Any]:
        """What the stage ``choose`` decided."""
        return self.facts(f"choose:{self.target.name}")


def assemble(evidence: Evidence) -> dict[str, Any]:
    """Return the manifest (without ``files``, which the bundle fills in)."""
    recipe, choice = evidence.recipe, evidence.choice
    shipped = evidence.done[f"choose:{evidence.target.name}"].path / "shipped"
    contract = _contract(evidence)
    rows = [*network_rows(evidence), *artefact_rows(evidence)]
    if contract and "knows" in contract:
        rows = [{"knows": contract["knows"], **row} for row in rows]
    return {
        "schema_version": 1,
        "name": f"{recipe.name}-{evidence.target.name}",
        "edgekd": __version__,
        "recipe": {
            "name": recipe.name,
            "settings": dict(recipe.settings),
            "spec": plain(recipe),
            "digest": digest(recipe),
        },
        "target": evidence.target.plain(),
        "inputs": _inputs(evidence),
        "io": _io(evidence),
        "artefact": _artefact(shipped, choice["picked"], "model"),
        "runners_up": [
            {**row, "status": "rejected" if row["why"] else "runner-up"}
            for row in [*choice["ranking"], *choice["rejected"]]
            if row["candidate"] != choice["picked"]
        ],
        "state": _state(evidence),
        **({"contract": contract} if contract else {}),
        "rows": rows,
        "gains": gains(evidence),
        "parity": parities(evidence),
        **({"response": response} if (response := _response(evidence)) else {}),
        **({"against_teacher": ratios} if (ratios := against_teacher(evidence)) else {}),
        "higher_is_better": evidence.facts("distill")["val"]["higher_is_better"],
        "choice": dict(choice),
        "explored": explored(choice),
        "checks": checks(evidence),
        "device": _device(evidence),
        "ladder": ladder(evidence),
        **({"firmware": firmware} if (firmware := firmware_of(evidence)) else {}),
        "golden": {
            "file": "golden.npz",
            "tolerance": _golden_tolerance(evidence),
        },
        "claims": claims(evidence, rows),
        **({"undistilled": why} if (why := evidence.undistilled) else {}),
        **({"auto": auto} if (auto := _auto(evidence)) else {}),
        "training": {
            name: {k: evidence.facts(name)[k] for k in ("history", "epochs", "steps", "cpu_s")}
            for name in (
                *teachers(evidence.recipe),
                "control",
                "distill",
                AWARE,
                *_baselines(evidence),
            )
            if name in evidence.done and "history" in evidence.facts(name)
        },
        "measured": {
            "when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "machine": dict(evidence.machine),
            "versions": {name: installed(name) for name in VERSIONS},
            "seconds_per_step": {n: round(e.seconds, 2) for n, e in evidence.done.items()},
            **_effective(evidence),
        },
    }


def _device(evidence: Evidence) -> dict[str, Any]:
    """Whether a device was reached, what it made of the artefact; of a recording, what it says."""
    told: dict[str, Any] = {"reached": not evidence.absent, "why": evidence.absent}
    made = evidence.done.get(f"profile:{evidence.choice['picked']}")
    if evidence.played is not None:
        latency = made.facts["latency"] if made else {}
        kept = {name: latency[name] for name in ("wall_ms", "energy", "n") if name in latency}
        engine = made.facts.get("engine") if made else None
        return told | {"replay": {**evidence.played, "played": {**kept, "engine": engine}}}
    if made is not None and not evidence.absent and "engine" in made.facts:
        told["engine"] = made.facts["engine"]
    return told


def _baselines(evidence: Evidence) -> list[str]:
    return [f"baseline:{n.label}" for n in evidence.recipe.baselines]


def _row(evidence: Evidence, step: str, label: str, kind: str) -> dict[str, Any]:
    """Row of a torch network."""
    made, score = evidence.facts(step), evidence.facts(f"test:{step}")
    artefact = open_artefact(evidence.done[step].path)
    cost = made.get("cpu_s")
    return {
        "id": step,
        "label": label,
        "kind": kind,
        "runtime": artefact.runtime,
        "precision": "fp32",
        "params": made["params"],
        "macs": made["macs"],
        "file_bytes": artefact.bytes,
        "metrics": score["metrics"],
        "primary": score["primary"],
        "latency": evidence.latency(step),
        "training_cpu_s": cost,
        "shipped": False,
    }


def network_rows(evidence: Evidence) -> list[dict[str, Any]]:
    """Rows of the trivial baseline and of every torch network."""
    score = evidence.facts("test:trivial")
    rows = reference_rows(evidence)
    if not rows and not isinstance(evidence.recipe.task, Metric):
        rows.append(
            {
                "id": "trivial",
                "label": score["label"],
                "kind": "trivial",
                "runtime": "numpy",
                "precision": "fp32",
                "params": 0,
                "macs": 0,
                "file_bytes": 0,
                "metrics": score["metrics"],
                "primary": score["primary"],
                "latency": {"not_run": "no network"},
                "shipped": False,
            }
        )
    for network in evidence.recipe.baselines:
        name = f"baseline:{network.label}"
        rows.append(_row(evidence, name, f"{network.label}, from scratch", "baseline"))
    student = evidence.recipe.student.label or "student"
    for step, network in teachers(evidence.recipe).items():
        who = step.partition(":")[2] or "teacher"
        role = "teacher" if step == "teacher" else f"teacher {who}"
        rows.append(_row(evidence, step, f"{network.label or who} ({role})", "teacher"))
    rows.append(_row(evidence, "control", f"{student}, from scratch (control)", "control"))
    how = "not distilled: the control" if evidence.undistilled else "distilled"
    rows.append(_row(evidence, "distill", f"{student}, {how} (torch)", "student"))
    return rows


def reference_rows(evidence: Evidence) -> list[dict[str, Any]]:
    """Rows of rules, planners and bounds, where the recipe has any; timed on this machine."""
    if REFERENCES not in evidence.done:
        return []
    absent = evidence.absent and {"not_run": evidence.no_device}
    return [
        {
            "id": f"reference:{row['name']}",
            "label": row["label"],
            "kind": "bound" if row["bound"] else "trivial",
            "runtime": "numpy",
            "precision": "fp64",
            "params": None,
            "macs": None,
            "file_bytes": row["code_bytes"],
            "metrics": row["metrics"],
            "primary": row["primary"],
            "latency": absent or row["latency"],
            "knows": row["knows"],
            "shipped": False,
        }
        for row in evidence.facts(REFERENCES)["rows"]
    ]


def artefact_rows(evidence: Evidence) -> list[dict[str, Any]]:
    """Rows of the best fp32 and the best reduced artefact (one of them ships, or ``--pick``)."""
    choice, student = evidence.choice, evidence.facts("distill")
    picked = [choice["fp32"], choice["reduced"], choice["picked"]]
    rows = []
    for identity in dict.fromkeys(i for i in picked if i):
        built, score = evidence.facts(f"build:{identity}"), evidence.facts(f"test:{identity}")
        rows.append(
            {
                "id": identity,
                "label": f"{evidence.recipe.student.label or 'student'}, {identity}",
                "kind": "artefact",
                "runtime": _ran_in(built) if evidence.absent else built["runtime"],
                "precision": built["precision"],
                "params": student["params"],
                "macs": student["macs"],
                "file_bytes": built["bytes"],
                "metrics": score["metrics"],
                "primary": score["primary"],
                "latency": evidence.latency(identity),
                "shipped": identity == choice["picked"],
                **({"details": details} if (details := score.get("details")) else {}),
            }
        )
    return rows


def _ran_in(built: Mapping[str, Any]) -> str:
    """Runtime that the numbers come from: the artefact's own, or its proxy, called one."""
    proxy = built.get("proxy")
    return f"{proxy['runtime']} (proxy: not {built['runtime']})" if proxy else built["runtime"]


def gains(evidence: Evidence) -> dict[str, Any]:
    """Paired differences on the test split: student − control, − teacher, artefact − student."""
    picked = evidence.choice["picked"]
    pairs = {
        "student − control": ("distill", "control"),
        "student − teacher": ("distill", "teacher"),
        "shipped − student": (picked, "distill"),
    }
    if evidence.undistilled:
        del pairs["student − control"]
    result: dict[str, Any] = {}
    for name, (a, b) in pairs.items():
        first, second = evidence.units(f"test:{a}"), evidence.units(f"test:{b}")
        result[name] = {metric: paired(first[metric], second[metric]) for metric in first}
    return result | _against_references(evidence, evidence.units(f"test:{picked}"))


def _against_references(evidence: Evidence, shipped: Mapping[str, Any]) -> dict[str, Any]:
    """Paired differences: what ships − each rule or planner that could ship instead."""
    if REFERENCES not in evidence.done:
        return {}
    units = evidence.units(REFERENCES)
    return {
        f"shipped − {row['label']}": {
            metric: paired(values, units[f"{row['name']}:{metric}"])
            for metric, values in shipped.items()
            if f"{row['name']}:{metric}" in units
        }
        for row in evidence.facts(REFERENCES)["rows"]
        if not row["bound"]
    }


def parities(evidence: Evidence) -> list[dict[str, Any]]:
    """Parity of a folded clone, of the exporter's passes and of every candidate."""
    hops = _folded(evidence)
    hops += [
        {
            "hop": f"torch → onnx: {row['pass']}",
            "max_abs": row["max_abs"],
            "min_cosine": row["min_cosine"],
            "status": "passed",
        }
        for row in evidence.facts("export")["passes"]
    ]
    if "convert" in evidence.done:
        made = evidence.facts("convert")
        found = {key: made[key] for key in ("max_abs", "max_rel", "min_cosine", "n")}
        hops.append({"hop": "torch → tflite", **found, "status": "passed"})
    for name in evidence.done:
        if name.startswith("parity:"):
            facts = {k: v for k, v in evidence.facts(name).items() if k != "effective"}
            hops.append({"hop": f"torch → {name.removeprefix('parity:')}", **facts})
    return hops


def _folded(evidence: Evidence) -> list[dict[str, Any]]:
    """A low-rank clone as it was trained against what is left of it."""
    made = evidence.facts("distill").get("fold")
    if made is None:
        return []
    hop = {"hop": "clone in training → folded", "max_rel": made["parity"], "n": made["samples"]}
    return [{**hop, "tolerance": {"max_rel": made["bound"]}, "status": "passed"}]


def ladder(evidence: Evidence) -> list[dict[str, Any]]:
    """The evidence ladder of the shipped artefact."""
    choice, where = evidence.choice, _where(evidence)
    picked, fp32 = choice["picked"], choice["fp32"]
    reduced = open_artefact(evidence.done[f"build:{picked}"].path).precision != "fp32"
    rungs = [_rung("exported", True, "")]
    ok = fp32 is not None and evidence.facts(f"parity:{fp32}")["status"] == "passed"
    converted = evidence.done.get("convert")
    if fp32 is None and converted is not None:
        # A target without float candidates: what all of them start from was compared with torch.
        rungs.append(_rung("parity fp32", True, "", "float .tflite against torch, on this host"))
    else:
        rungs.append(_rung("parity fp32", ok, "no fp32 candidate kept parity", where))
    if reduced:
        good = evidence.facts(f"parity:{picked}")["status"] == "passed"
        rungs.append(_rung("quantised parity", good, "outside the tolerance", where))
    else:
        rungs.append(_not_run("quantised parity", f"{picked} is not quantised"))
    drop = next(r["loss"] for r in choice["ranking"] if r["candidate"] == picked)
    kept = drop <= choice["limit"]
    rungs.append(_rung("task metric on artefact", kept, f"lost {drop:.4f}", where))
    made = firmware_of(evidence)
    if made is not None:
        return [*rungs, *_emulated(made)]
    if not evidence.absent:
        rungs.append(_rung("compiled for device", True, ""))
        rungs.append(_rung("parity on device", True, ""))
        rungs.append(_rung("profiled on device", True, ""))
    else:
        rungs += _without_device(evidence)
    rungs.append(_budget(evidence, picked))
    return rungs


def _without_device(evidence: Evidence) -> list[dict[str, Any]]:
    """The device's rungs where there is none, with what stands in for its compiler."""
    names = ("compiled for device", "parity on device", "profiled on device")
    ethos = _ethos_of(evidence)
    if ethos is not None:
        by = f"by Vela {ethos['vela']} for {ethos['accelerator']}"
        return [
            _rung(names[0], True, "", by),
            *(_not_run(n, evidence.no_device) for n in names[1:]),
        ]
    proxy = _proxy_compiled(evidence)
    status = "not_run" if evidence.played is None else "replay"
    return [
        {"rung": n, "status": status, "why": evidence.no_device + (proxy if n == names[0] else "")}
        for n in names
    ]


def _ethos_of(evidence: Evidence) -> dict[str, Any] | None:
    """What Arm's compiler made of the shipped network, if it is one for an Ethos-U."""
    facts = checks(evidence).get(evidence.choice["picked"], {})
    return dict(facts["ethos"]) if "ethos" in facts else None


def firmware_of(evidence: Evidence) -> dict[str, Any] | None:
    """What the cross compiler and the emulator made of the shipped C library, if it is one."""
    facts = checks(evidence).get(evidence.choice["picked"], {})
    return dict(facts["firmware"]) if "firmware" in facts else None


def _emulated(made: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The device's rungs of a C library: compiled for the core, run on an emulated one."""
    names = ("compiled for device", "parity on device", "profiled on device", "within budget")
    if "not_run" in made:
        return [_not_run(name, made["not_run"]) for name in names]
    allowed = made["allowed"]
    where = f"on an emulated {made['core']} ({made['emulator']})"
    counted = (
        f"an emulator counts instructions, not time: {made['instructions']:,} of one inference,"
        f" about {made['estimated_ms']:g} ms at {made['clock_mhz']:g} MHz if each took a cycle"
        " (an estimate)"
    )
    used = (
        f"flash {made['flash_bytes']:,} of {1024 * allowed['flash_kib']:,.0f} bytes, RAM"
        f" {made['ram_bytes']:,} of {1024 * allowed['ram_kib']:,.0f}"
    )
    return [
        _rung(names[0], True, "", f"for {made['core']}: {made['flash_bytes']:,} bytes of flash"),
        _rung(names[1], True, "", f"golden vectors byte for byte, {where}"),
        _not_run(names[2], counted),
        _rung(names[3], True, "", used),
    ]


def _proxy_compiled(evidence: Evidence) -> str:
    """What a compiler that stands in for the device's made of the artefact, in words."""
    facts = checks(evidence).get(evidence.choice["picked"])
    if facts is None:
        return ""
    words = f"; linted for {facts['parser']}: {len(facts['findings']) or 'no'} findings"
    rtx = facts["rtx"]
    if "not_run" in rtx:
        return f"{words}; compiled by proxy: not run, {rtx['not_run']}"
    name = f"TensorRT for RTX {rtx['version']} for {rtx['target']}, a proxy"
    if rtx["status"] != "passed":
        return f"{words}; refused by {name}"
    int8 = rtx["int8"]
    share = f": {int8['int8']} of {int8['products']} products in int8" if int8["int8"] else ""
    return f"{words}; compiled by {name}{share}"


def checks(evidence: Evidence) -> dict[str, Mapping[str, Any]]:
    """What the device's toolchain would say, by candidate."""
    choice = evidence.choice
    names = [row["candidate"] for row in (*choice["ranking"], *choice["rejected"])]
    return {n: evidence.facts(f"check:{n}") for n in names if f"check:{n}" in evidence.done}


def _where(evidence: Evidence) -> str:
    """Where a rung below the device's was passed, when that was not on the device."""
    if not evidence.absent:
        return ""
    built = evidence.facts(f"build:{evidence.choice['picked']}")
    return f"on this host, in {_ran_in(built)}"


def _rung(name: str, passed: bool, why: str, where: str = "") -> dict[str, Any]:
    status = "passed" if passed else "failed"
    return {"rung": name, "status": status, "why": where if passed else why}


def _not_run(name: str, why: str) -> dict[str, Any]:
    return {"rung": name, "status": "not_run", "why": why}


def _budget(evidence: Evidence, picked: str) -> dict[str, Any]:
    limits = {k: v for k, v in evidence.target.limits.model_dump().items() if v is not None}
    limits.pop("metric_drop", None)
    if not limits:
        return _not_run("within budget", f"target {evidence.target.name} sets no limits")
    latency = evidence.latency(picked)
    values = {"size_mib": evidence.facts(f"build:{picked}")["bytes"] / 2**20}
    if "not_run" not in latency:
        values |= {
            "latency_p50_ms": latency["wall_ms"]["p50"],
            "latency_p99_ms": latency["wall_ms"]["p99"],
            "peak_memory_mib": latency["rss_mib"],
        }
        energy = latency.get("energy", {}).get("net_mj")
        values |= {} if energy is None else {"energy_mj": energy}
    unknown = [name for name in limits if name not in values]
    over = [
        f"{name} {values[name]:.4g} > {limit:g}"
        for name, limit in limits.items()
        if name in values and values[name] > limit
    ]
    if unknown and not over:
        return _not_run("within budget", f"not measured: {', '.join(unknown)}")
    return _rung("within budget", not over, "; ".join(over))


def claims(evidence: Evidence, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the numbers say, in words; also what one would rather not read."""
    primary = rows[-1]["primary"]
    gain = evidence.facts("distill")["val"]
    sign = 1 if gain["higher_is_better"] else -1
    auto = _auto(evidence)
    if evidence.undistilled:
        other = "" if auto else " (distill='always' distils all the same)"
        found = [f"{evidence.undistilled}{other}."]
    else:
        found = [_gain_claim(gains(evidence)["student − control"].get(primary), primary, sign)]
    if auto and not evidence.undistilled:
        found.append(_auto_claim(auto))
    by_id = {row["id"]: row for row in rows}
    student = by_id["distill"]["metrics"][primary]["value"]
    for row in rows:
        better = sign * (row["metrics"][primary]["value"] - student) > 0
        told = row["id"].startswith("reference:")
        if row["kind"] in ("trivial", "baseline", "control") and better and not told:
            units = [evidence.units(f"test:{n}").get(primary) for n in (row["id"], "distill")]
            found.append(_rival_claim(row["label"], units[0], units[1], primary))
    control = evidence.facts("control")["val"]["metrics"][primary]["value"]
    for step in teachers(evidence.recipe):
        ran = evidence.facts(step)["val"]["metrics"][primary]["value"]
        if sign * (ran - control) <= 0 and not evidence.undistilled:
            who = " ".join(step.split(":"))
            found.append(f"The {who} is not better than the control on validation data.")
    found += _reference_claims(rows, primary, sign)
    ratios, response = against_teacher(evidence), _response(evidence)
    found += [_teacher_claim(ratios)] if ratios and ratios["latency"] else []
    found += [_response_claim(response)] if response else []
    found += _reduced_claims(evidence, by_id)
    found += _aware_claim(evidence)
    found += _reused_claim(evidence)
    if evidence.recipe.distill_data == "external":
        found.append(LEAK)
    note = _inputs(evidence)["data"]["note"]
    found += [note] if note else []
    found += [f"Not tried: {reason}." for reason in evidence.missing]
    found += _device_claims(evidence)
    mode = (evidence.machine.get("jetson") or {}).get("power_mode")
    found += _mode_claim(evidence.target, mode)
    found += _floor_claim(evidence.target, next(row for row in rows if row["shipped"]), mode)
    return [*found, *evidence.recipe.notes]


def _auto(evidence: Evidence) -> dict[str, Any] | None:
    """How an objective was chosen: what was tried, what it scored on validation, what it cost."""
    auto = evidence.facts("distill").get("auto")
    if auto is None:
        return None
    trials = [e.facts for name, e in evidence.done.items() if name.startswith(TRIAL)]
    return {**auto, "cpu_s": sum(facts["cpu_s"] for facts in trials)}


def _aware_claim(evidence: Evidence) -> list[str]:
    """What was trained on under rounding, and what it then scored on validation data."""
    if AWARE not in evidence.done:
        return []
    made = evidence.facts(AWARE)
    primary = made["val"]["primary"]
    scores = [
        f"{name.partition(':')[2]} {e.facts['metrics'][primary]['value']:.4g}"
        for name, e in evidence.done.items()
        if name.startswith("val:") and "-int8" in name
    ]
    student = evidence.facts("distill")["val"]["metrics"][primary]["value"]
    plural = "s" if made["epochs"] > 1 else ""
    return [
        f"The student learned on for {made['epochs']} epoch{plural} with weights of"
        f" {made['aware']['bits']} bits ({made['cpu_s']:.0f} CPU-s), for the candidate"
        f" that ends in {AWARE}; {primary} on validation data: student {student:.4g},"
        f" {', '.join(scores)}."
    ]


def _reused_claim(evidence: Evidence) -> list[str]:
    """What of the student the control lacks, where it ends in the teacher's classifier."""
    made = evidence.facts("distill")
    if "reused" not in made:
        return []
    parts = made["reused"]
    return [
        f"The student ends in the teacher's classifier: {parts['projector']:,} parameters of the"
        f" projector and {parts['classifier']:,} of the classifier ship among its"
        f" {made['params']:,}; the control has {evidence.facts('control')['params']:,}."
    ]


def _auto_claim(auto: Mapping[str, Any]) -> str:
    return (
        f"Objective auto chose {auto['chosen']} on validation data ({auto['metric']}:"
        f" {told(auto['tried'])}); the choice took {auto['steps']} steps, {auto['cpu_s']:.0f}"
        " CPU-s."
    )


def _mode_claim(target: Target, mode: str | None) -> Iterator[str]:
    """That the board was not in the power mode that the target asks for."""
    if mode and target.power_mode and mode != target.power_mode:
        yield (
            f"The board ran in power mode {mode}, target {target.name} asks for"
            f" {target.power_mode}: times and energy are those of {mode}."
        )


def _floor_claim(
    target: Target, shipped: Mapping[str, Any], mode: str | None = None
) -> Iterator[str]:
    """The time that the device's published peaks leave, beside what was measured."""
    macs, precision = shipped["macs"], shipped["precision"]
    floor = None
    if macs is not None:
        floor = target.peaks(mode).floor_ms(macs, shipped["file_bytes"], precision)
    if floor is None:
        return
    text = (
        f"By the published peaks of {target.name}{f' in mode {mode}' if mode else ''} an inference"
        f" takes at least {floor:.2g} ms"
        " (a floor, not a prediction)"
    )
    if "not_run" in shipped["latency"]:
        yield f"{text}."
    else:
        yield f"{text}; measured: {shipped['latency']['wall_ms']['p50'] / floor:.3g} times that."


def _response(evidence: Evidence) -> dict[str, Any] | None:
    """What ships, asked for more and for less."""
    name = f"response:{evidence.choice['picked']}"
    return dict(evidence.facts(name)) if name in evidence.done else None


def _response_claim(response: Mapping[str, Any]) -> str:
    asked = ", ".join(f"{row['asked']:g}" for row in response["rows"])
    found = ", ".join(f"{row['value']:.3f}" for row in response["rows"])
    values = [row["value"] for row in response["rows"]]
    rises = all(a < b for a, b in itertools.pairwise(values))
    verdict = "it rises with what is asked for" if rises else "it does not rise everywhere"
    return (
        f"Asked for {asked} of {response['asked']}, what ships reaches a {response['metric']} of"
        f" {found}: {verdict}."
    )


def against_teacher(evidence: Evidence) -> dict[str, Any] | None:
    """Teacher and student side by side: parameters, work, time in the same runtime in fp32."""
    timed = [n for n in evidence.done if n.startswith("profile:teacher-")]
    if not timed:
        return None
    teacher, student = evidence.facts("teacher"), evidence.facts("distill")
    rows = []
    for name in timed:
        candidate = name.removeprefix("profile:teacher-")
        if f"profile:{candidate}" not in evidence.done:
            continue
        theirs, mine = (evidence.facts(n)["latency"] for n in (name, f"profile:{candidate}"))
        cpu = [latency["cpu_ms"]["p50"] for latency in (theirs, mine)]
        rows.append(
            {
                "candidate": candidate,
                "runtime": evidence.facts(f"build:{candidate}")["runtime"],
                "teacher_cpu_ms": cpu[0],
                "student_cpu_ms": cpu[1],
                "ratio": cpu[0] / cpu[1],
            }
        )
    return {
        "params": {"teacher": teacher["params"], "student": student["params"]},
        "macs": {"teacher": teacher["macs"], "student": student["macs"]},
        "latency": rows,
    }


def _teacher_claim(ratios: Mapping[str, Any]) -> str:
    def less(what: str) -> str:
        return f"{100 * (1 - ratios[what]['student'] / ratios[what]['teacher']):.1f} % fewer"

    names = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "litert": "LiteRT"}
    times = [
        f"{row['teacher_cpu_ms']:.3g} → {row['student_cpu_ms']:.3g} ms in"
        f" {names.get(row['runtime'], row['runtime'])} (1/{row['ratio']:.1f})"
        for row in ratios["latency"]
    ]
    return (
        f"Against the teacher the student has {less('params')} parameters and"
        f" {less('macs')} multiply–accumulates; processor time an inference, both fp32:"
        f" {', '.join(times)}."
    )


def _reference_claims(rows: Sequence[Mapping[str, Any]], primary: str, sign: int) -> Iterator[str]:
    """What a rule or a planner does, and costs, beside the network that ships."""
    shipped = next(row for row in rows if row["shipped"])
    for row in rows:
        if not row["id"].startswith("reference:") or row["kind"] == "bound":
            continue
        if "not_run" in row["latency"]:
            continue
        value, mine = (r["metrics"][primary]["value"] for r in (row, shipped))
        text = (
            f"{row['label']}: {primary} {value:.3f} (shipped network {mine:.3f}),"
            f" {row['latency']['cpu_ms']['p50']:.2g} ms of processor time a decision in numpy,"
            f" {row['file_bytes']} bytes of code"
        )
        rss = row["latency"]["rss_mib"]
        text += f", {rss:.0f} MiB at its peak, numpy included" if rss else ""
        text += f"; it must know {row['knows']}" if row["knows"] else ""
        if sign * (value - mine) >= 0:
            ratio = _cost_ratio(row, shipped)
            text += (
                ". It is the better product here."
                if ratio is None or ratio <= 1
                else f". It is the better controller; the network buys {ratio:.0f}× less compute."
            )
        else:
            text += "."
        yield text


def _cost_ratio(row: Mapping[str, Any], shipped: Mapping[str, Any]) -> float | None:
    """Processor time of a reference over that of what ships."""
    if "not_run" in shipped["latency"] or not shipped["latency"]["cpu_ms"]["p50"]:
        return None
    ratio: float = row["latency"]["cpu_ms"]["p50"] / shipped["latency"]["cpu_ms"]["p50"]
    return ratio


def _firmware_claim(made: Mapping[str, Any]) -> str:
    theirs = made["tflm_arena_bytes"]
    ours = made["arena_bytes"] + made["io_bytes"]
    compared = (
        f"; TensorFlow Lite Micro would need an arena of {theirs:,}"
        if isinstance(theirs, int)
        else f"; TensorFlow Lite Micro's arena: not_run: {theirs['not_run']}"
    )
    text = f"Arena, inputs and outputs take {ours:,} bytes of RAM{compared}."
    if "not_run" in made:
        return f"{text} Not compiled for {made['core']}: {made['not_run']}."
    return f"{text} Built for and run on an emulated {made['core']}, on no board."


def _device_claims(evidence: Evidence) -> list[str]:
    """What is known of a device that is not at hand, from an emulator or a compiler."""
    made, ethos = firmware_of(evidence), _ethos_of(evidence)
    if made is not None:
        return [_firmware_claim(made)]
    if not evidence.absent:
        return []
    host = _ran_in(evidence.facts(f"build:{evidence.choice['picked']}"))
    played = [] if evidence.played is None else [f"Recorded: {evidence.played['recorded']}."]
    return [
        *([_ethos_claim(ethos)] if ethos is not None else []),
        f"Nothing was {'run' if ethos else 'built'} or measured on the device:"
        f" {evidence.no_device}. Task metric and parity are of this host's {host}; the choice"
        " among candidates is unmeasured.",
        *played,
    ]


def _ethos_claim(made: Mapping[str, Any]) -> str:
    kib, share = made["memory_kib"], made["npu_share"]
    flash = kib["on_chip_flash"] + kib["off_chip_flash"]
    on = "" if share is None else f"; {share:.0%} of the compiled operators run on the accelerator"
    return (
        f"Vela {made['vela']} estimates {made['cycles']:,} cycles of one inference,"
        f" {made['ms']:.3g} ms at {made['clock_mhz']:.0f} MHz, {kib['sram']:.1f} KiB of SRAM,"
        f" {flash:.1f} of flash,"
        f" {kib['dram']:.1f} of DRAM, for {made['accelerator']} in system {made['system_config']},"
        f" memory mode {made['memory_mode']}: estimates, no board was asked{on}."
    )


def _gain_claim(gain: Mapping[str, float] | None, primary: str, sign: int) -> str:
    if gain is None:
        return "Gain over the control: not_run: the metric gives no value per unit."
    value, low, high = (100 * gain[k] for k in ("value", "low", "high"))
    better = sign * value > 0
    clear = low > 0 or high < 0
    verdict = ("helped" if better else "hurt") if clear else "made no clear difference"
    return (
        f"Distillation {verdict}: student − control on {primary} is {value:+.2f} points"
        f" (95 % interval {low:+.2f} to {high:+.2f}, this one training)."
    )


def _rival_claim(label: str, theirs: Any, ours: Any, primary: str) -> str:
    """That a network without a teacher scored better, and whether that is beyond the noise.

    Args:
        label: Of that network.
        theirs: Its metric per unit, None where the metric gives none.
        ours: The student's, over the same units.
        primary: The metric.
    """
    if theirs is None or ours is None:
        return f"{label} beats the distilled student on {primary}."
    gain = paired(theirs, ours)
    value, low, high = (100 * gain[k] for k in ("value", "low", "high"))
    clear = low > 0 or high < 0
    verdict = "beats the distilled student" if clear else "is not clearly better than the student"
    return (
        f"{label} {verdict} on {primary}: {value:+.2f} points"
        f" (95 % interval {low:+.2f} to {high:+.2f})."
    )


def _reduced_claims(evidence: Evidence, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    choice = evidence.choice
    fp32, reduced = choice["fp32"], choice["reduced"]
    if not fp32 or not reduced:
        return []
    a, b = rows[fp32], rows[reduced]
    if evidence.absent:
        smaller = a["file_bytes"] / b["file_bytes"]
        return [f"{reduced} is {smaller:.2f}× smaller than {fp32}; which is faster is not known."]
    by = time_by(evidence.target)
    speed = a["latency"][by]["p50"] / b["latency"][by]["p50"]
    size = a["file_bytes"] / b["file_bytes"]
    text = f"{reduced} is {speed:.2f}× as fast as {fp32} and {size:.2f}× smaller."
    if speed < 1:
        text = f"{reduced} is slower than {fp32} ({speed:.2f}×), though {size:.2f}× smaller."
    return [text]


def _inputs(evidence: Evidence) -> dict[str, Any]:
    data = evidence.done["control"].made_of
    first, *more = (_made_by(evidence, *one) for one in teachers(evidence.recipe).items())
    return {
        "data": {
            "loader": evidence.recipe.data.to,
            "source": evidence.recipe.data.to,
            "files": data["files"],
            "distill_data": evidence.recipe.distill_data,
            **evidence.facts("export")["data"],
        },
        "teacher": first,
        **({"teachers": more} if more else {}),
    }


def _made_by(evidence: Evidence, step: str, network: Network) -> dict[str, Any]:
    """Where a teacher comes from."""
    return {
        "label": network.label,
        "sha256": evidence.facts(step).get("sha256"),
        "license": network.license,
        "made_by": network.made_by or "trained by this recipe",
    }


def _io(evidence: Evidence) -> dict[str, Any]:
    contract = plain(evidence.recipe.input)
    io = evidence.facts("export")["io"]
    inputs = [{**row, **contract, "shape": row["shape"]} for row in io["inputs"]]
    outputs = [{**row, "meaning": evidence.recipe.output} for row in io["outputs"]]
    return {"inputs": inputs, "outputs": outputs}


def _artefact(folder: Path, identity: str, place: str) -> dict[str, Any]:
    artefact = open_artefact(folder)
    return {
        "candidate": identity,
        "runtime": artefact.runtime,
        "precision": artefact.precision,
        "options": dict(artefact.options),
        "main": f"{place}/{artefact.main}",
        "files": [f"{place}/{name}" for name in artefact.files],
        "bytes": artefact.bytes,
        **({"proxy": dict(artefact.proxy)} if artefact.proxy else {}),
    }


def _effective(evidence: Evidence) -> dict[str, Any]:
    """How the runtime ran what ships, as read back: verify holds a later run against it."""
    parity = evidence.facts(f"parity:{evidence.choice['picked']}")
    return {} if evidence.absent else {"effective": parity["effective"]}


def _state(evidence: Evidence) -> dict[str, Any] | None:
    with np.load(evidence.done["distill"].path / "state.npz") as state:
        names = list(state.files)
    return {"file": "state.npz", "arrays": names} if names else None


def _contract(evidence: Evidence) -> dict[str, Any] | None:
    """What a device must do around the network, for a task that says so."""
    task = open_task(plain(evidence.recipe.task), base_of(evidence.recipe))
    tell = getattr(task, "contract", None)
    if tell is None:
        return None
    with np.load(evidence.done["distill"].path / "state.npz") as state:
        return dict(tell({name: state[name] for name in state.files}))


def _golden_tolerance(evidence: Evidence) -> dict[str, float]:
    """Golden outputs are the artefact's own: another machine may round differently, no more."""
    return widest(open_artefact(evidence.done[f"build:{evidence.choice['picked']}"].path).precision)
