"""What the parts of a manifest say of one another: contradictions, each as one sentence.

A digest proves that a file is as it was sealed. It does not prove that what was sealed is true: a
figure edited before sealing, a description of another model, a bound that was loosened. The same
fact stands in several places of a manifest, so whoever changes one of them is told by the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from edgekd.spec import digest

__all__ = ["contradictions", "widest"]

Manifest = Mapping[str, Any]

_PAIRS = {
    "student − control": ("distill", "control"),
    "student − teacher": ("distill", "teacher"),
}
"""Difference → the two rows that it is of."""
_ROUNDING = 1e-6
_ROUNDED_MS = 1e-3
_LIMITS = {
    "latency_p50_ms": ("wall_ms", "p50"),
    "latency_p99_ms": ("wall_ms", "p99"),
    "peak_memory_mib": ("rss_mib",),
}
"""Limit of a target → where a latency says what was measured."""


def widest(precision: str) -> dict[str, float]:
    """Bounds within which another machine must give an artefact's golden outputs again.

    They are the artefact's own outputs: another processor may round differently, no more.

    Args:
        precision: As targets name it.
    """
    return {
        "fp32": {"max_rel": 1e-4, "min_cosine": 0.99999},
        "bf16": {"max_rel": 0.05, "min_cosine": 0.999},
    }.get(precision, {"max_rel": 0.1, "min_cosine": 0.99})


def _shipped(manifest: Manifest) -> Mapping[str, Any] | None:
    rows = [row for row in manifest["rows"] if row["shipped"]]
    return rows[0] if len(rows) == 1 else None


def _one_artefact(manifest: Manifest) -> Iterator[str]:
    """Choice, row and artefact speak of the same thing."""
    artefact, row = manifest["artefact"], _shipped(manifest)
    if row is None:
        return
    name, picked = artefact["candidate"], manifest["choice"]["picked"]
    for at, found in (("choice.picked", picked), ("rows: the shipped one", row["id"])):
        if found != name:
            yield f"{at}: {found} stands there, artefact.candidate is {name}"
    runtime = artefact["runtime"]
    if row["runtime"] != runtime and not row["runtime"].endswith(f"(proxy: not {runtime})"):
        yield f"rows: {name} ran in {row['runtime']}, artefact.runtime is {runtime}"
    ranked = [r for r in manifest["choice"]["ranking"] if _is(r, name)]
    for at, one in [("rows", row), *(("choice.ranking", r) for r in ranked)]:
        if one.get("precision", artefact["precision"]) != artefact["precision"]:
            yield f"{at}: {name} is {one['precision']}, artefact.precision {artefact['precision']}"
        size = one.get("file_bytes" if at == "rows" else "bytes")
        # A C library counts its generated sources, and what ships also a project around them.
        if "firmware" not in manifest and size is not None and size != artefact["bytes"]:
            yield f"{at}: {name} has {size} bytes, artefact.bytes says {artefact['bytes']}"


def _is(row: Any, name: str) -> bool:
    return isinstance(row, Mapping) and row.get("candidate") == name


def _bounds_hold(manifest: Manifest) -> Iterator[str]:
    """Golden outputs are held to no less than the precision allows."""
    tolerance, precision = manifest["golden"]["tolerance"], manifest["artefact"]["precision"]
    for name, bound in widest(precision).items():
        found = tolerance.get(name)
        loose = found is None or (found > bound if name == "max_rel" else found < bound)
        if loose:
            yield f"golden.tolerance.{name}: {found} is looser than the {bound} of {precision}"


def _contract_kept(manifest: Manifest) -> Iterator[str]:
    """What the device feeds is what the recipe trained with: form, normalisation, channels."""
    wanted = manifest["recipe"]["spec"].get("input")
    if not isinstance(wanted, Mapping):
        return
    given = manifest["io"]["inputs"][0]
    for name, value in wanted.items():
        if name != "shape" and name in given and given[name] != value:
            yield f"io.inputs[0].{name}: {given[name]}, the recipe's input has {value}"


def _digest_kept(manifest: Manifest) -> Iterator[str]:
    """The recipe's digest is that of its spec."""
    recipe = manifest["recipe"]
    found = digest(recipe["spec"])
    if found != recipe["digest"]:
        yield f"recipe.digest: {recipe['digest'][:12]}… stands there, the spec has {found[:12]}…"


def _gains_add_up(manifest: Manifest) -> Iterator[str]:
    """A paired difference is the difference of the two rows, where a metric is a mean of units."""
    rows, shipped = {row["id"]: row for row in manifest["rows"]}, _shipped(manifest)
    pairs = dict(_PAIRS)
    if shipped is not None:
        pairs["shipped − student"] = (shipped["id"], "distill")
    for name, (a, b) in pairs.items():
        for metric, gain in manifest.get("gains", {}).get(name, {}).items():
            values = [rows.get(i, {}).get("metrics", {}).get(metric, {}) for i in (a, b)]
            if any(v.get("value") is None or v.get("n") != gain.get("n") for v in values):
                continue
            wanted = values[0]["value"] - values[1]["value"]
            if abs(wanted - gain["value"]) > _ROUNDING * max(1.0, abs(wanted)):
                yield (
                    f"gains.{name}.{metric}: {gain['value']:.4f}, the rows differ by {wanted:.4f}"
                )


def _latencies_hold(manifest: Manifest) -> Iterator[str]:
    """A median lies among its samples, and stands in the choice as in the row."""
    rows = {
        row["id"]: row["latency"] for row in manifest["rows"] if "not_run" not in row["latency"]
    }
    for name, latency in rows.items():
        samples, found = sorted(latency.get("samples_ms", ())), latency["wall_ms"]["p50"]
        if samples:
            # A median of the medians of processes: not that of all samples, but well among them.
            low, high = samples[len(samples) // 10], samples[-1 - len(samples) // 10]
            if not low - _ROUNDED_MS <= found <= high + _ROUNDED_MS:
                yield f"rows: {name} has p50 {found:g} ms, its samples {low:g} to {high:g}"
    for ranked in manifest["choice"]["ranking"]:
        latency = rows.get(ranked.get("candidate", "")) if isinstance(ranked, Mapping) else None
        for key in ("cpu_ms", "wall_ms"):
            one = latency and latency[key]["p50"]
            if one and ranked.get(key) and ranked[key] != one:
                yield (
                    f"choice.ranking: {ranked['candidate']} has {key} {ranked[key]:g},"
                    f" its row {one:g}"
                )


def _ladder_holds(manifest: Manifest) -> Iterator[str]:
    """A rung that passed has figures that pass."""
    passed = {rung["rung"] for rung in manifest["ladder"] if rung["status"] == "passed"}
    choice, name = manifest["choice"], manifest["artefact"]["candidate"]
    status = {hop.get("hop"): hop.get("status") for hop in manifest["parity"]}
    if "quantised parity" in passed and status.get(f"torch → {name}") == "failed":
        yield f"ladder: quantised parity passed, the parity of {name} failed"
    limit = choice.get("limit")
    for row in choice["ranking"]:
        if _is(row, name) and limit is not None and row.get("loss") is not None:
            lost, rung = row["loss"] > limit, "task metric on artefact"
            if lost and rung in passed:
                yield f"ladder: {rung} passed, {name} lost {100 * row['loss']:.2f} %"
    if "within budget" in passed:
        yield from _within_budget(manifest)


def _within_budget(manifest: Manifest) -> Iterator[str]:
    limits, row = manifest["target"].get("limits") or {}, _shipped(manifest)
    if row is None:
        return
    found: dict[str, Any] = {"size_mib": manifest["artefact"]["bytes"] / 2**20}
    for name, path in _LIMITS.items():
        value: Any = row["latency"]
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        found[name] = value
    for name, value in found.items():
        limit = limits.get(name)
        if limit is not None and value is not None and value > limit:
            yield f"ladder: within budget passed, {name} is {value:.4g}, limit {limit:g}"


_RULES: tuple[Callable[[Manifest], Iterator[str]], ...] = (
    _one_artefact,
    _bounds_hold,
    _contract_kept,
    _digest_kept,
    _gains_add_up,
    _latencies_hold,
    _ladder_holds,
)


def contradictions(manifest: Manifest) -> list[str]:
    """List where the parts of a manifest do not agree.

    Args:
        manifest: One whose shapes are right (`edgekd.bundle.manifest.faults` is empty).
    """
    return [fault for rule in _RULES for fault in rule(manifest)]
