"""A bundle's report: one HTML page that opens offline, drawn from the manifest alone."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekd import table

INK = {"trivial": "#9a8c98", "baseline": "#7a8fa6", "teacher": "#5b5f97", "control": "#e09f3e"}
OURS = "#1b998b"


def render_report(manifest: Mapping[str, Any], *, examples: Mapping[str, Any] | None = None) -> str:
    """Render the page.

    Args:
        manifest: A bundle's manifest.
        examples: Class name → uint8 images (n, H, W, C), a line of pictures each.

    Returns:
        HTML without script and without outside links; equal input gives equal text.
    """
    from jinja2 import Environment

    source = (Path(__file__).parent / "templates" / "report.html.j2").read_text(encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
    rows, shown = manifest["rows"], table.tabulate(manifest)
    return page.render(
        m=manifest,
        headers=list(shown.columns),
        cells=list(zip(rows, shown.rows, strict=True)),
        footnotes=[f"[{n}] {why}" for n, why in enumerate(shown.notes, 1)],
        pictures=_pictures(manifest, examples or {}),
        settings=json.dumps(manifest["recipe"]["settings"], indent=1, sort_keys=True),
        machine=json.dumps(manifest["measured"]["machine"], indent=1, sort_keys=True),
        command=_command(manifest),
    )


def _command(manifest: Mapping[str, Any]) -> str:
    settings = "".join(f" --set {k}={v}" for k, v in manifest["recipe"]["settings"].items())
    name = manifest["recipe"]["name"]
    return f"edgekd compress --recipe {name} --target {manifest['target']['name']}{settings}"


def _pictures(manifest: Mapping[str, Any], examples: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(title, data URI) of every figure."""
    import matplotlib

    matplotlib.use("Agg")
    rows = manifest["rows"]
    figures = [
        (f"{rows[0]['primary']} on unseen test classes, 95 % interval", _accuracy(rows)),
        ("Latency of one inference, all timed samples", _latency(rows)),
        ("Size and multiply-accumulates (logarithmic)", _sizes(rows)),
    ]
    if manifest.get("training"):
        figures.append(("Training loss per epoch", _curves(manifest["training"])))
    if examples:
        figures.insert(0, ("Test classes: one line each, never seen in training", _grid(examples)))
    return figures


def _figure(height: float) -> tuple[Any, Any]:
    import matplotlib.pyplot as plt

    plt.rcParams.update({"svg.hashsalt": "edgekd", "font.size": 10, "axes.spines.top": False,
                         "axes.spines.right": False, "svg.fonttype": "path"})
    return plt.subplots(figsize=(8, height), layout="constrained")


def _svg(figure: Any) -> str:
    import matplotlib.pyplot as plt

    text = io.BytesIO()
    figure.savefig(text, format="svg", metadata={"Date": None}, facecolor="white")
    plt.close(figure)
    return "data:image/svg+xml;base64," + base64.b64encode(text.getvalue()).decode()


def _colour(row: Mapping[str, Any]) -> str:
    return INK.get(row["kind"], OURS)


def _accuracy(rows: Sequence[Mapping[str, Any]]) -> str:
    figure, axes = _figure(0.6 + 0.38 * len(rows))
    primary = rows[0]["primary"]
    for place, row in enumerate(reversed(rows)):
        value = row["metrics"][primary]
        mid, half = 100 * value["value"], 50 * (value["high"] - value["low"])
        axes.errorbar(mid, place, xerr=half, fmt="o", color=_colour(row), capsize=4)
        axes.annotate(f"{mid:.1f}", (mid, place), (0, 7), textcoords="offset points", ha="center",
                      fontsize=9)
    axes.set_yticks(range(len(rows)), [row["label"] for row in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.3)
    axes.set_xlabel("%")
    axes.grid(axis="x", alpha=0.3)
    return _svg(figure)


def _latency(rows: Sequence[Mapping[str, Any]]) -> str:
    timed = [row for row in rows if row["latency"].get("samples_ms")]
    figure, axes = _figure(0.8 + 0.42 * len(timed))
    axes.boxplot(
        [row["latency"]["samples_ms"] for row in reversed(timed)],
        orientation="horizontal",
        tick_labels=[row["label"] for row in reversed(timed)],
        showfliers=False,
        whis=(1, 99),
    )
    axes.set_xscale("log")
    axes.set_xlabel("ms, wall; box: quartiles, whiskers: 1st and 99th percentile")
    return _svg(figure)


def _sizes(rows: Sequence[Mapping[str, Any]]) -> str:
    figure, axes = _figure(4)
    shown: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["macs"] and row["file_bytes"]:
            shown.setdefault((row["macs"], row["file_bytes"]), []).append(row)
    for (macs, size), group in shown.items():
        axes.scatter(macs / 1e6, size / 1e6, s=60, color=_colour(group[0]))
        axes.annotate("\n".join(r["label"] for r in group), (macs / 1e6, size / 1e6), (7, -3),
                      textcoords="offset points", fontsize=8)
    axes.set(xscale="log", yscale="log", xlabel="million MACs", ylabel="file, MB")
    axes.margins(x=0.35, y=0.15)
    axes.grid(alpha=0.3)
    return _svg(figure)


def _curves(training: Mapping[str, Any]) -> str:
    figure, axes = _figure(3)
    for name, facts in training.items():
        axes.plot(range(1, len(facts["history"]) + 1), facts["history"], label=name)
    axes.set(xlabel="epoch", ylabel="loss (objectives differ)")
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def _grid(examples: Mapping[str, Any]) -> str:
    count = min(len(images) for images in examples.values())
    figure, axes = _figure(0.9 * len(examples))
    axes.remove()
    grid = figure.subplots(len(examples), count, squeeze=False)
    for line, (name, images) in zip(grid, examples.items(), strict=True):
        for cell, image in zip(line, images, strict=False):
            cell.imshow(image, interpolation="nearest")
            cell.set_xticks([])
            cell.set_yticks([])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    return _svg(figure)
