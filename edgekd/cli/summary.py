"""A bundle's manifest in a few lines; the report has the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgekd.cli import text

__all__ = ["of"]

Manifest = Mapping[str, Any]


def of(manifest: Manifest) -> str:
    """Return what was chosen, what it scores and costs, and what was not proven."""
    artefact = manifest["artefact"]
    head = f"{manifest['name']}: {artefact['candidate']}, {text.size(artefact['bytes'])}"
    return "\n".join([head, text.indent(text.table(_lines(manifest)))])


def _lines(manifest: Manifest) -> Iterator[tuple[str, str]]:
    rows = manifest.get("rows", ())
    shipped = next((row for row in rows if row.get("shipped")), None)
    if shipped is not None:
        yield shipped["primary"], _metric(shipped)
        yield "latency", _latency(shipped.get("latency") or {"not_run": "not measured"})
    yield "proven", _ladder(manifest.get("ladder", ()))
    for claim in manifest.get("claims", ()):
        yield "note", claim


def _metric(row: Manifest) -> str:
    value = row["metrics"].get(row["primary"])
    if value is None:
        return "not measured"
    if value.get("low") is None or value.get("high") is None:
        return f"{value['value']:.4g}  n={value['n']}"
    return f"{value['value']:.4g}  [{value['low']:.4g}, {value['high']:.4g}]  n={value['n']}"


def _latency(latency: Manifest) -> str:
    if "not_run" in latency:
        return f"not run: {latency['not_run']}"
    wall, threads = latency["wall_ms"], latency["threads"]
    return f"p50 {wall['p50']:.3g} ms, p99 {wall['p99']:.3g} ms, threads {threads}"


def _ladder(ladder: Any) -> str:
    passed = sum(rung["status"] == "passed" for rung in ladder)
    left: dict[tuple[str, str], list[str]] = {}
    for rung in ladder:
        if rung["status"] != "passed":
            reason = str(rung["status"]).replace("_", " "), rung.get("why") or "no reason given"
            left.setdefault(reason, []).append(rung["rung"])
    rest = [f"{', '.join(names)} {status}: {why}" for (status, why), names in left.items()]
    return "; ".join([f"{passed} of {len(ladder)} rungs", *rest])
