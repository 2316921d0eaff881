"""What a manifest says of the further networks in its bundle, and of all of them together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgekd.manifest import Evidence

__all__ = ["with_parts"]

KEPT = (
    "name",
    "target",
    "artefact",
    "rows",
    "gains",
    "higher_is_better",
    "parity",
    "ladder",
    "golden",
    "claims",
    "undistilled",
)
"""What the manifest repeats of a part's own, which has the rest."""
WORST = ("failed", "not_run", "passed")


def with_parts(
    manifest: Mapping[str, Any],
    evidence: Evidence,
    parts: Mapping[str, Evidence],
    manifests: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Add to a manifest what is known of its parts.

    Args:
        manifest: Of the first network.
        evidence: Behind it, with the finished step ``joint:TARGET`` where the recipe has one.
        parts: Folder → evidence of a part.
        manifests: Folder → its manifest.

    Returns:
        The manifest with ``parts`` and ``joint``; a rung of its ladder is passed where all parts
        passed it; what they decide together comes first among its claims.
    """
    whole = {**manifest, "parts": {name: _summary(one) for name, one in manifests.items()}}
    ladders = {"": manifest["ladder"], **{name: one["ladder"] for name, one in manifests.items()}}
    whole["ladder"] = list(_merged(ladders))
    if f"joint:{evidence.target.name}" not in evidence.done:
        return whole
    facts = dict(evidence.facts(f"joint:{evidence.target.name}"))
    facts["cost"] = _costs(facts, [evidence, *parts.values()])
    if f"image:{evidence.target.name}" in evidence.done:
        facts["image"] = evidence.facts(f"image:{evidence.target.name}")
    tolerance = {"chance": facts.pop("tolerance")}
    whole["joint"] = {**facts, "golden": {"file": "joint.npz", "tolerance": tolerance}}
    whole["claims"] = [*_claims(whole["joint"]), *manifest["claims"]]
    return whole


def _summary(manifest: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: manifest[name] for name in KEPT if name in manifest}
    found["target"] = {"name": manifest["target"]["name"]}
    found["rows"] = [{**row, "latency": _short(row["latency"])} for row in manifest["rows"]]
    return found


def _short(latency: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in latency.items() if name != "samples_ms"}


def _merged(ladders: Mapping[str, list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """A rung has the worst status of all; its reasons name the part."""
    for rungs in zip(*ladders.values(), strict=True):
        status = min((rung["status"] for rung in rungs), key=WORST.index)
        told = {
            name: rung["why"]
            for name, rung in zip(ladders, rungs, strict=True)
            if rung["status"] == status and rung.get("why")
        }
        same = len(set(told.values())) == 1 and len(told) == len(ladders)
        reasons = [f"{name}: {why}" if name and not same else why for name, why in told.items()]
        yield {**rungs[0], "status": status, "why": "; ".join(dict.fromkeys(reasons))}


def _costs(facts: Mapping[str, Any], stages: list[Evidence]) -> dict[str, Any]:
    """Processor time of a mean flight: each pays the first network, some the second."""
    steps = {
        "shipped": [one.choice["picked"] for one in stages],
        "fp32": [one.choice["fp32"] for one in stages],
        "distill": ["distill"] * len(stages),
        "teacher": ["teacher"] * len(stages),
    }
    found: dict[str, Any] = {}
    for role, names in steps.items():
        if role not in facts["share"]:
            continue
        each = [one.latency(name) for one, name in zip(stages, names, strict=True)]
        missing = [latency["not_run"] for latency in each if "not_run" in latency]
        share = facts["share"][role]["value"]
        if missing:
            found[role] = {"not_run": missing[0]}
        else:
            found[role] = _cost([latency["cpu_ms"]["p50"] for latency in each], share)
    fastest = [own for one in stages if (own := _fastest_teacher(one)) is not None]
    if len(fastest) == len(stages):
        runtimes = dict.fromkeys(runtime for _, runtime in fastest)
        share = facts["share"]["teacher"]["value"]
        found["teacher, exported"] = {
            **_cost([time for time, _ in fastest], share),
            "runtime": ", ".join(runtimes),
        }
    return found


def _cost(each: list[float], share: float) -> dict[str, Any]:
    return {"stage_ms": each, "share": share, "mean_ms": each[0] + share * sum(each[1:])}


def _fastest_teacher(evidence: Evidence) -> tuple[float, str] | None:
    """Least processor time of the teacher in fp32 in a runtime of its own, where it was timed."""
    timed = [
        (evidence.facts(name)["latency"]["cpu_ms"]["p50"], name.removeprefix("profile:teacher-"))
        for name in evidence.done
        if name.startswith("profile:teacher-")
    ]
    return min(timed, default=None)


def _claims(joint: Mapping[str, Any]) -> Iterator[str]:
    """What both networks decide together, and what a mean flight costs."""
    row, share = joint["rows"]["shipped"], joint["share"]["shipped"]
    said = "; ".join(f"{name} {_spread(value)}" for name, value in row.items())
    yield f"Both stages as one, on {joint['flights']} test flights: {said}."
    cost = joint["cost"]["shipped"]
    if "not_run" in cost:
        yield f"{_spread(share)} of the flights reach stage 2; their cost: {cost['not_run']}."
    else:
        first, second = cost["stage_ms"]
        text = (
            f"{_spread(share)} of the flights reach stage 2: a mean flight takes {first:.3f} +"
            f" {share['value']:.3f} · {second:.3f} = {cost['mean_ms']:.3f} ms of processor time"
        )
        yield text + "".join(_beside(joint, cost["mean_ms"])) + "."
    if "image" in joint:
        yield _image_claim(joint["image"], share["value"])
    for role, agreement in joint["agreement"].items():
        flips = agreement["farthest from the threshold where flags differ"]
        yield (
            f"{joint['called'][role].capitalize()}: the decision of the students in torch on"
            f" {agreement['same decision']:.2%} of the flights; the chance of a fault differs by"
            f" {agreement['largest difference of the chance']:.2g} at most, and flights that are"
            f" flagged otherwise lie within {flips:.2g} of the threshold."
        )


def _image_claim(image: Mapping[str, Any], share: float) -> str:
    """What both networks and their driver take in one firmware image."""
    if "not_run" in image:
        return f"Both networks in one firmware image: not_run: {image['not_run']}."
    counted = image["instructions"]
    text = (
        f"Both networks and their driver in one image, run on an emulated {image['core']} over"
        f" {image['flights']} golden flights ({image['flagged']} flagged): {image['flash_bytes']:,}"
        f" bytes of flash, {image['ram_bytes']:,} of RAM with the stack"
    )
    if counted["healthy"] and counted["flagged"]:
        first, more = counted["healthy"], counted["flagged"] - counted["healthy"]
        mean = first + share * more
        text += (
            f"; a diagnosis takes {first:,} instructions, {more:,} more where the flight is"
            f" flagged, about {mean / (1e3 * image['clock_mhz']):,.0f} ms for a mean flight at"
            f" {image['clock_mhz']:g} MHz if each took a cycle (an estimate)"
        )
    if counted["second"]:
        text += f"; taking in a second takes {counted['second']:,} on average"
    return f"{text}."


def _beside(joint: Mapping[str, Any], mean: float) -> Iterator[str]:
    """The teachers' cascade, its threshold chosen for the same recall."""
    names = {"teacher": "in torch", "teacher, exported": "in {}, fp32"}
    for role, where in names.items():
        cost = joint["cost"].get(role, {})
        if "mean_ms" in cost:
            yield (
                f"; the teachers' cascade, at a threshold for the same recall,"
                f" {cost['mean_ms']:.3f} ms {where.format(cost.get('runtime'))}"
                f" ({cost['mean_ms'] / mean:.1f} times)"
            )


def _spread(value: Mapping[str, Any]) -> str:
    if value["low"] is None or value["low"] != value["low"]:
        return f"{value['value']:.3f}"
    return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
