"""``manifest.json``: its text, its versions, and what it must say.

`parse` reads every version from 1 on: a reader of version n finds an upgrade function for each
older version in `UPGRADES`, applied one after the other. `faults` lists all that is wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from edgekd.bundle.schema import (
    anything,
    boolean,
    choice,
    count,
    listing,
    mapping,
    maybe,
    number,
    pattern,
    record,
    string,
    table,
    text,
    unless_not_run,
)
from edgekd.errors import VerifyError
from edgekd.spec import plain

Manifest = Mapping[str, Any]

SCHEMA_VERSION = 1

UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""Version n → function that makes a manifest of version n + 1 of one of version n."""

RUNGS = (
    "exported",
    "parity fp32",
    "quantised parity",
    "task metric on artefact",
    "compiled for device",
    "parity on device",
    "profiled on device",
    "within budget",
)
"""The evidence ladder, from the first proof to the last."""

_NAME = re.compile(r"(?!.*(?:^|/)\.{1,2}(?:/|$))[\w.+@=-]+(?:/[\w.+@=-]+)*", re.ASCII)

STATUS = choice("passed", "failed", "not_run")
DIGEST = pattern(r"[0-9a-f]{64}", "a sha256 in hex")
FILE = pattern(_NAME.pattern, "a relative file name of plain characters")

_TENSOR = record(
    {"name": text, "shape": listing(anything), "dtype": text},
    {
        "form": text,
        "mean": maybe(listing(number)),
        "std": maybe(listing(number)),
        "channels": maybe(listing(count)),
    },
)
_ARTEFACT = {
    "candidate": text,
    "runtime": text,
    "precision": text,
    "options": mapping,
    "main": FILE,
    "files": listing(FILE, least=1),
    "bytes": count,
}
_RUNNER_UP = record(
    {"candidate": text, "status": choice("rejected", "runner-up"), "why": string},
    {"bytes": maybe(count), "runtime": text, "precision": text},
)
_METRIC = record({"value": number, "low": maybe(number), "high": maybe(number), "n": count})
_LATENCY = record(
    {
        "wall_ms": record({"p50": number, "p99": number}, {"p90": number}),
        "cpu_ms": record({"p50": maybe(number), "min": maybe(number)}),
        "threads": maybe(count),
        "load": maybe(number),
        "rss_mib": maybe(number),
        "n": count,
    },
    {"samples_ms": listing(number), "energy": mapping},
)
_ROW = record(
    {
        "id": text,
        "label": text,
        "kind": choice("trivial", "baseline", "teacher", "control", "student", "artefact", "bound"),
        "runtime": text,
        "precision": text,
        "params": maybe(count),
        "macs": maybe(count),
        "file_bytes": maybe(count),
        "metrics": table(unless_not_run(_METRIC)),
        "primary": text,
        "latency": unless_not_run(_LATENCY),
        "shipped": boolean,
    }
)
_BOUNDS = ("max_abs", "max_rel", "min_cosine")
_TOLERANCE = record({}, dict.fromkeys(_BOUNDS, maybe(number)))
_PARITY = unless_not_run(
    record(
        {"hop": text, "status": STATUS},
        {**dict.fromkeys(_BOUNDS, maybe(number)), "n": count, "tolerance": _TOLERANCE},
    )
)
_CHOICE = record(
    {"rule": text, "picked": text, "ranking": listing(anything), "rejected": listing(anything)}
)
_RUNG = record(
    {"rung": text, "status": choice("passed", "failed", "not_run", "replay")},
    {"why": maybe(anything), "facts": mapping},
)

SCHEMA = record(
    {
        "schema_version": count,
        "name": FILE,
        "edgekd": text,
        "recipe": record({"name": text, "settings": mapping, "spec": mapping, "digest": text}),
        "target": record({"name": text}),
        "inputs": record(
            {"data": mapping, "teacher": maybe(mapping)}, {"teachers": listing(mapping)}
        ),
        "io": record({"inputs": listing(_TENSOR, 1), "outputs": listing(_TENSOR, 1)}),
        "artefact": record(_ARTEFACT),
        "runners_up": listing(_RUNNER_UP),
        "rows": listing(_ROW, least=1),
        "parity": listing(_PARITY),
        "choice": _CHOICE,
        "ladder": listing(_RUNG),
        "golden": record({"file": FILE, "tolerance": _TOLERANCE}),
        "claims": listing(text),
        "files": table(DIGEST),
        "measured": record({"when": text, "machine": mapping, "versions": mapping}),
    },
    {
        "state": maybe(record({"file": FILE}, {"what": text, "arrays": listing(text)})),
        "parts": table(
            record(
                {
                    "name": FILE,
                    "artefact": record(_ARTEFACT),
                    "rows": listing(_ROW, least=1),
                    "parity": listing(_PARITY),
                    "ladder": listing(_RUNG),
                    "claims": listing(text),
                }
            )
        ),
        "joint": record(
            {
                "driver": text,
                "flights": count,
                "share": table(_METRIC),
                "rows": table(table(_METRIC)),
                "agreement": table(table(number)),
                "cost": table(mapping),
                "golden": record({"file": FILE, "tolerance": table(number)}),
            }
        ),
    },
)


def safe_name(name: str) -> bool:
    """Tell whether a name may stand in a bundle: relative, no dots to climb, plain characters."""
    return _NAME.fullmatch(name) is not None


def faults(manifest: Any) -> list[str]:
    """List everything that is wrong with a manifest of the current version.

    The shapes come first; what the parts say of one another is asked only when they are right.
    """
    found = SCHEMA(manifest, "")
    return found or [fault for rule in _RULES for fault in rule(manifest)]


def parse(raw: bytes, at: str) -> dict[str, Any]:
    """Read a manifest and lift it to the current version.

    Args:
        raw: Content of ``manifest.json``.
        at: Where it lies, for the message.

    Raises:
        VerifyError: It is no JSON object, has no version, or a newer one than this edgekd knows.
    """
    try:
        value = json.loads(raw.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise VerifyError(f"manifest.json cannot be read: {error}", at=at) from error
    version = value.get("schema_version") if isinstance(value, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise VerifyError("manifest.json has no schema_version: not written by edgekd", at=at)
    if version > SCHEMA_VERSION:
        raise VerifyError(
            f"manifest.json has schema_version {version}; this edgekd reads 1 to {SCHEMA_VERSION}",
            at=at,
            hint="pip install --upgrade edgekd",
        )
    return upgraded(value)


def upgraded(manifest: dict[str, Any]) -> dict[str, Any]:
    """Lift a manifest to the current version, one version after the other."""
    while manifest["schema_version"] < SCHEMA_VERSION:
        version = manifest["schema_version"]
        manifest = {**UPGRADES[version](manifest), "schema_version": version + 1}
    return manifest


def render(manifest: Manifest) -> str:
    """Write a manifest: sorted keys, two spaces, lists of plain values on one line."""
    return _pretty(plain(manifest), "") + "\n"


def _pretty(value: Any, indent: str) -> str:
    deeper = indent + "  "
    if isinstance(value, dict) and value:
        lines = [f"{deeper}{_flat(k)}: {_pretty(value[k], deeper)}" for k in sorted(value)]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        lines = [deeper + _pretty(item, deeper) for item in value]
        return "[\n" + ",\n".join(lines) + f"\n{indent}]"
    return _flat(value)


def _flat(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _files_exist(manifest: Manifest) -> Iterator[str]:
    """Every file that a part speaks of is listed with its digest."""
    artefact, state = manifest["artefact"], manifest.get("state")
    named = [(f"artefact.files[{i}]", name) for i, name in enumerate(artefact["files"])]
    named += [("artefact.main", artefact["main"]), ("golden.file", manifest["golden"]["file"])]
    named += [("state.file", state["file"])] if state else []
    for at, name in named:
        if name not in manifest["files"]:
            yield f"{at}: {name} is not among the files"
    if artefact["main"] not in artefact["files"]:
        yield f"artefact.main: {artefact['main']} is not among artefact.files"
    for name in manifest["files"]:
        if not safe_name(name):
            yield f"files: {name!r} is not a relative file name of plain characters"


def _parts_are_bundles(manifest: Manifest) -> Iterator[str]:
    """Every part is a bundle in its folder; what all decide together has its golden file."""
    for name, part in manifest.get("parts", {}).items():
        inside = ("manifest.json", "SHA256SUMS", *part["artefact"]["files"])
        for file in inside:
            if f"{name}/{file}" not in manifest["files"]:
                yield f"parts.{name}: {name}/{file} is not among the files"
    joint = manifest.get("joint")
    if joint and joint["golden"]["file"] not in manifest["files"]:
        yield f"joint.golden.file: {joint['golden']['file']} is not among the files"


def _one_shipped(manifest: Manifest) -> Iterator[str]:
    """Exactly one row is the artefact that ships, and no id stands twice."""
    shipped = [row["id"] for row in manifest["rows"] if row["shipped"]]
    if len(shipped) != 1:
        yield f"rows: one row is shipped, found {len(shipped)} ({', '.join(shipped) or 'none'})"
    ids = [row["id"] for row in manifest["rows"]]
    for name in sorted({name for name in ids if ids.count(name) > 1}):
        yield f"rows: id {name!r} stands twice"


def _intervals_hold(manifest: Manifest) -> Iterator[str]:
    """An interval has its ends in order; the deciding metric is there when any is."""
    for index, row in enumerate(manifest["rows"]):
        if row["metrics"] and row["primary"] not in row["metrics"]:
            yield f"rows[{index}].primary: no metric {row['primary']!r}"
        for name, metric in row["metrics"].items():
            low, high = metric.get("low"), metric.get("high")
            if low is not None and high is not None and low > high:
                yield f"rows[{index}].metrics.{name}: low {low} is above high {high}"


def _parity_agrees(manifest: Manifest) -> Iterator[str]:
    """A hop that passed is within its own tolerance."""
    for index, hop in enumerate(manifest["parity"]):
        if hop.get("status") == "passed" and not within(hop, hop.get("tolerance", {})):
            yield f"parity[{index}]: {hop['hop']} passed, but is beyond its tolerance"


def _golden_bounds(manifest: Manifest) -> Iterator[str]:
    """Golden outputs have at least one bound to be compared by."""
    tolerance = manifest["golden"]["tolerance"]
    if all(tolerance.get(bound) is None for bound in _BOUNDS):
        yield f"golden.tolerance: one of {', '.join(_BOUNDS)} wanted, none found"


def _ladder_in_order(manifest: Manifest) -> Iterator[str]:
    """All rungs are there in order; a rung that did not pass says why."""
    rungs = tuple(rung["rung"] for rung in manifest["ladder"])
    if rungs != RUNGS:
        yield f"ladder: the rungs are {', '.join(RUNGS)}; found {', '.join(rungs) or 'none'}"
    for index, rung in enumerate(manifest["ladder"]):
        if rung["status"] != "passed" and not rung.get("why"):
            yield f"ladder[{index}].why: {rung['rung']} is {rung['status']} without a reason"


_RULES = (
    _files_exist,
    _parts_are_bundles,
    _one_shipped,
    _intervals_hold,
    _parity_agrees,
    _golden_bounds,
    _ladder_in_order,
)


def within(measured: Manifest, tolerance: Manifest) -> bool:
    """Tell whether a measured parity keeps to the bounds that are given."""
    return not beyond(measured, tolerance)


def beyond(measured: Manifest, tolerance: Manifest) -> list[str]:
    """List the bounds that a measured parity breaks; a value that is not known breaks its bound.

    Args:
        measured: ``max_abs``, ``max_rel`` (largest error, by itself and as a share of the largest
            output) and ``min_cosine`` (of one sample).
        tolerance: The same keys; absent or null for no bound.
    """
    broken = []
    for name in _BOUNDS:
        bound, value = tolerance.get(name), measured.get(name)
        if bound is None:
            continue
        most = name != "min_cosine"
        good = value is not None and (value <= bound if most else value >= bound)
        if not good:
            shown = "not measured" if value is None else f"{value:.6g}"
            broken.append(f"{name} {shown}, {'at most' if most else 'at least'} {bound:g} allowed")
    return broken
