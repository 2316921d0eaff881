"""What CI systems read, from a gate's outcome and from a bench's summaries; all plain text."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekd.errors import SetupError

Outcome = Mapping[str, Any]
Row = Mapping[str, Any]

QUANTITIES = {
    "cpu_ms": ("processor time of an inference", "ms"),
    "wall_p50_ms": ("latency p50", "ms"),
    "wall_p99_ms": ("latency p99", "ms"),
    "peak_rss_mib": ("peak memory", "MiB"),
    "energy_mj": ("energy of an inference", "mJ"),
    "size_bytes": ("size", "bytes"),
}
"""Figures of which less is better."""

_METRICS = {
    "wall_p50_ms": ("edgekd_latency_ms", {"q": "p50"}),
    "wall_p99_ms": ("edgekd_latency_ms", {"q": "p99"}),
    "cpu_ms": ("edgekd_processor_time_ms", {}),
    "peak_rss_mib": ("edgekd_peak_memory_mib", {}),
    "energy_mj": ("edgekd_energy_mj", {}),
    "size_bytes": ("edgekd_artefact_bytes", {}),
    "task": ("edgekd_task_metric", {}),
}
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(path: Path, text: str, *, add: bool = False) -> None:
    """Write an output whole or not at all; ``add`` puts it at the end of what is there.

    Raises:
        SetupError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if add:
            with path.open("a", encoding="utf-8") as file:
                file.write(text)
            return
        partial = path.with_name(f".{path.name}.tmp")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise SetupError(f"cannot write: {error.strerror}", at=str(path)) from error


# --- JUnit ------------------------------------------------------------------------------------


def junit(outcome: Outcome) -> str:
    """Return JUnit XML: one test case a check.

    A check that was not run is ``skipped``, never a pass; one that could not be compared too.
    GitLab ignores a second case of the same name, so names are unique within a bundle.
    """
    root = ET.Element("testsuites", name="edgekd gate")
    for bundle in dict.fromkeys(check["bundle"] for check in outcome["checks"]):
        checks = [check for check in outcome["checks"] if check["bundle"] == bundle]
        _suite(root, bundle, checks, outcome)
    ET.indent(root)
    text = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _suite(root: ET.Element, bundle: str, checks: Sequence[Row], outcome: Outcome) -> None:
    skipped = sum(_skipped(check) for check in checks)
    failed = sum(_failed(check) for check in checks)
    suite = ET.SubElement(
        root,
        "testsuite",
        name=_xml(bundle),
        tests=str(len(checks)),
        failures=str(failed),
        errors="0",
        skipped=str(skipped),
        timestamp=str(outcome.get("when", ""))[:19],
    )
    seconds = sum(p["timed_s"] for p in outcome["pairs"] if p["bundle"] == bundle)
    for check in checks:
        time = f"{seconds:.3f}" if check["name"] == "latency" else "0"
        case = ET.SubElement(
            suite, "testcase", classname=_xml(bundle), name=_xml(check["name"]), time=time
        )
        sentence = _xml(said(check))
        if _skipped(check):
            ET.SubElement(case, "skipped", message=_xml(_reason(check)))
        elif _failed(check):
            failure = ET.SubElement(case, "failure", message=_xml(check["verdict"]), type="gate")
            failure.text = sentence
        else:
            ET.SubElement(case, "system-out").text = sentence


def _failed(check: Row) -> bool:
    return check["verdict"] in ("regressed", "over budget")


def _skipped(check: Row) -> bool:
    return str(check["verdict"]).startswith(("not run", "not comparable"))


def _reason(check: Row) -> str:
    reason = str(check["verdict"]).removeprefix("not run: ")
    return f"{reason} ({check['why']})" if check["why"] else reason


def _xml(text: str) -> str:
    """Drop the characters that XML cannot hold."""
    return _NOT_XML.sub("?", text)


def said(check: Row) -> str:
    """Return a check as one line: verdict, values, shifts, who decided."""
    parts = [f"{check['name']}: {check['verdict']}"]
    if check["baseline"] is not None and check["candidate"] is not None:
        parts.append(f"{figure(check['baseline'])} → {figure(check['candidate'])} {check['unit']}")
    parts += [f"{name} {percent(shift)}" for name, shift in check["shift"].items()]
    if check["decided_by"]:
        parts.append(f"decided by {check['decided_by']}")
    if check["why"]:
        parts.append(check["why"])
    return ", ".join(parts)


def figure(value: float) -> str:
    """Write a figure with four significant digits, whole numbers whole."""
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.4g}"


def percent(shift: Row) -> str:
    """Write a relative change with its interval."""
    value, low, high = (100 * shift[key] for key in ("value", "low", "high"))
    return f"{value:+.2f} % [{low:+.2f}, {high:+.2f}]"


# --- github-action-benchmark ------------------------------------------------------------------


def benchmark_json(rows: Iterable[Row], *, bigger: bool = False) -> str:
    """Return the array that github-action-benchmark reads.

    Args:
        rows: Summaries, see `edgekd.bench.record.summary`.
        bigger: Give task metrics (``customBiggerIsBetter``) instead of costs
            (``customSmallerIsBetter``); one file holds one direction.
    """
    entries = []
    for row in rows:
        for name, metric in row["metrics"].items():
            if (name == "task") != bigger:
                continue
            title = QUANTITIES.get(name, (metric["unit"], ""))[0]
            entry = {"name": f"{_place(row)}: {title}", "unit": metric["unit"]}
            entry |= {"value": metric["value"], "extra": _extra(row)}
            if metric.get("low") is not None and metric.get("high") is not None:
                entry["range"] = f"{metric['low']:.6g} to {metric['high']:.6g}"
            entries.append(entry)
    return json.dumps(entries, indent=1, ensure_ascii=False) + "\n"


def _place(row: Row) -> str:
    return f"{row['name']} on {row['device']}"


def _extra(row: Row) -> str:
    return f"{row['candidate']}, {row['runtime']}\nbundle {row['digest'][:16]}"


# --- OpenMetrics ------------------------------------------------------------------------------


def openmetrics(rows: Sequence[Row]) -> str:
    """Return OpenMetrics text, which GitLab's metrics report and Prometheus read."""
    families: dict[str, list[str]] = {}
    for row in rows:
        for name, metric in row["metrics"].items():
            family, labels = _METRICS[name]
            every = {
                "bundle": row["name"],
                "target": row["target"],
                "device": row["device"],
                **labels,
                **({"metric": metric["unit"]} if name == "task" else {}),
            }
            inside = ",".join(f'{key}="{_escaped(str(value))}"' for key, value in every.items())
            line = f"{family}{{{inside}}} {metric['value']!r}"
            families.setdefault(family, []).append(line)
    lines = []
    for family, samples in families.items():
        lines += [f"# TYPE {family} gauge", *samples]
    return "\n".join([*lines, "# EOF"]) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


# --- Markdown ---------------------------------------------------------------------------------


def markdown(outcome: Outcome) -> str:
    """Return a summary for people, for instance for ``$GITHUB_STEP_SUMMARY``."""
    lines = [f"### edgekd gate: {_md(str(outcome['verdict']))}", ""]
    lines += [
        "| bundle | check | verdict | baseline | candidate | change (95 %) | decided by |",
        "|---|---|---|--:|--:|---|---|",
    ]
    for check in outcome["checks"]:
        cells = [check["bundle"], check["name"], _marked(check), *_values(check)]
        cells += [_changes(check), check["decided_by"]]
        lines.append("| " + " | ".join(_md(str(cell)) for cell in cells) + " |")
    lines += ["", *(f"- {_md(line)}" for line in effort(outcome)), ""]
    return "\n".join(lines)


def _marked(check: Row) -> str:
    return f"**{check['verdict']}**" if _failed(check) else str(check["verdict"])


def _values(check: Row) -> list[str]:
    values = (check["baseline"], check["candidate"])
    return ["" if value is None else f"{figure(value)} {check['unit']}" for value in values]


def _changes(check: Row) -> str:
    return "; ".join(f"{name} {percent(shift)}" for name, shift in check["shift"].items())


def _md(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def effort(outcome: Outcome) -> list[str]:
    """Say how much was measured, and under what load."""
    said_ = [
        f"{pair['bundle']}: {pair['rounds']} rounds of fresh processes side by side, "
        f"{pair['inferences']} inferences, {pair['timed_s']:.1f} s timed, "
        f"{pair['startup_s']:.1f} s start-up, load {pair['load']:.1f}"
        for pair in outcome["pairs"]
        if pair["rounds"]
    ]
    rule = outcome.get("rule")
    if rule and "family" in rule:
        said_.append(
            f"chance of any false alarm in this job at most {100 * rule['alpha']:g} % (Holm over "
            f"{rule['family']} tests); nothing under {100 * rule['tolerance']:g} % is claimed"
        )
    return [*said_, *outcome["notes"]]
