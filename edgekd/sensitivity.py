"""Where a network is hurt by 8 bits: a table, and a picture over the graph's order."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekd import steps
from edgekd.bundle import open_bundle
from edgekd.calls import split_target
from edgekd.direct import Source, start
from edgekd.errors import UsageError
from edgekd.events import Emit, silent
from edgekd.inputs import save_arrays
from edgekd.spec import Call, plain

__all__ = ["page", "sensitivity"]

COLOURS = ("#3b6fb6", "#c0562f", "#3f8f5a", "#8a5aa8", "#a8862a", "#4a8f9a", "#b04a72", "#666666")
CEILING = 80.0
"""Signal to noise above which a picture shows nothing."""


def sensitivity(
    asked: Source,
    out: Path | None = None,
    *,
    estimator: str = "minmax",
    store: Path | None = None,
    emit: Emit = silent,
) -> dict[str, Any]:
    """Quantise every layer and every class of operators alone, and measure what it costs.

    Args:
        asked: The network and its samples. ``model`` may also be a bundle that ships an ONNX file
            in float32; its golden inputs are the samples where ``data`` is the bundle, too.
        out: Page to write: table and picture, self-contained HTML.
        estimator: How ranges of activations are found; see `edgekd.quant.ranges`.
        store: Where results are kept.
        emit: Progress.

    Returns:
        ``layers``, ``classes``, ``all``, ``metric``, ``calibrated``, ``judged``; see
        `edgekd.quant.damage.damages`.

    Raises:
        UsageError: There is no float32 network to start from.
        DataError: Network or samples do not fit.
    """
    if out is not None and out.is_dir():
        raise UsageError("a folder is there; --out is the page to write", at=str(out))
    place = Path(asked.model)
    with ExitStack() as undo:
        if place.is_dir() or place.suffix == ".zip":
            asked = _of_bundle(place, asked, undo)
        walk, recipe = start(asked, store, emit)
        metric = None
        if asked.metric:
            file, function = split_target(asked.metric)
            metric = plain(Call(f"{Path(file).absolute()}:{function}"))
        step = steps.Step(
            "sensitivity", steps.stage("sensitivity"), {"metric": metric, "estimator": estimator},
            {"export": "export"}, tuple(Path(name) for name in recipe.files), steps.EXPORT,
        )  # fmt: skip
        facts = dict(walk.step(step).facts)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page(facts, place.name), encoding="utf-8")
    return facts


def _of_bundle(place: Path, asked: Source, undo: ExitStack) -> Source:
    """Take network and samples from a bundle."""
    bundle = undo.enter_context(open_bundle(place))
    artefact = bundle.manifest["artefact"]
    if artefact["precision"] != "fp32" or not artefact["main"].endswith(".onnx"):
        raise UsageError(
            f"the bundle ships {artefact['candidate']}; wanted an ONNX file in float32",
            at=str(place),
            hint="edgekd compress … --pick ort-fp32, or give the network itself",
        )
    found = replace(asked, model=str(bundle.path / artefact["main"]))
    if asked.data != place:
        return found
    scratch = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="edgekd-golden-")))
    with np.load(bundle.path / bundle.manifest["golden"]["file"]) as archive:
        arrays = {n: archive[n] for n in archive.files if not n.startswith("output:")}
    save_arrays(scratch / "golden.npz", arrays)
    return replace(found, data=scratch / "golden.npz")


def page(facts: Mapping[str, Any], name: str) -> str:
    """Write table and picture as one HTML file that opens offline.

    Args:
        facts: What `sensitivity` returns.
        name: What the network is called.
    """
    rows, everything = facts["layers"], facts["all"]
    ops = list(dict.fromkeys(row["op"] for row in rows))
    colour = {op: COLOURS[min(i, len(COLOURS) - 1)] for i, op in enumerate(ops)}
    legend = "".join(
        f'<span><i style="background:{colour[op]}"></i>{html.escape(op)}</span>' for op in ops
    )
    ratios = "".join(
        f"<h2>{title}</h2>{_picture(rows, kind, colour)}"
        for kind, title in (
            ("weights", "Weights in int8"),
            ("activations", "Activations in 8 bits"),
        )
    )
    title = f"Sensitivity of {html.escape(name)}"
    whole = "; ".join(
        f"{kind} {everything[kind]['sqnr_db']:.1f} dB"
        for kind in ("weights", "activations", "both")
        if kind in everything
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem;
  padding: 0 1rem; color: #222; background: #fff; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.1rem; margin: 1.6rem 0 .3rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .15rem .7rem; text-align: right; border-bottom: 1px solid #ddd; }}
th:first-child, td:first-child {{ text-align: left; }}
.legend span {{ margin-right: 1rem; white-space: nowrap; }}
.legend i {{ display: inline-block; width: .8em; height: .8em; margin-right: .3em; }}
svg {{ width: 100%; height: auto; }} svg text {{ font-size: 11px; fill: #555; }}
</style></head><body><h1>{title}</h1>
<p>One layer, or one class of operators, computes in 8 bits; all else in float32. Signal to noise of
the outputs against float32 on {facts["judged"]} samples; ranges ({facts["estimator"]}) of
{facts["calibrated"]} samples. Tall bars hurt. Everything at once: {whole}.</p>
<p class="legend">{legend}</p>{ratios}
<h2>Classes of operators</h2>{_table(facts["classes"])}
<h2>Layers, the most sensitive first</h2>{_table(sorted(rows, key=worst))}
</body></html>
"""


def worst(row: Mapping[str, Any]) -> float:
    """Least signal to noise of a row, over what was quantised."""
    kinds = ("weights", "activations", "both")
    return float(min(row[kind]["sqnr_db"] for kind in kinds if kind in row))


def _picture(rows: Sequence[Mapping[str, Any]], kind: str, colour: Mapping[str, str]) -> str:
    """Draw a bar a layer, in the graph's order: the less signal to noise, the taller."""
    width, height, left, bottom = 1000, 230, 46, 22
    tall = height - bottom - 10
    step = (width - left - 6) / max(len(rows), 1)
    parts = []
    for db in (0, 20, 40, 60, 80):
        y = 10 + tall * db / CEILING
        parts.append(
            f'<line x1="{left}" x2="{width}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e4e4e4"/>'
            f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{db} dB</text>'
        )
    for index, row in enumerate(rows):
        if kind not in row:
            continue
        found = row[kind]["sqnr_db"]
        bar = tall * (1 - min(max(found, 0.0), CEILING) / CEILING)
        x, y = left + 3 + index * step, 10 + tall - bar
        label = html.escape(f"{row['name']} ({row['op']}): {found:.1f} dB")
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(step * 0.8, 1):.1f}" height="{bar:.1f}"'
            f' fill="{colour[row["op"]]}"><title>{label}</title></rect>'
        )
    parts.append(f'<text x="{left}" y="{height - 4}">input</text>')
    parts.append(f'<text x="{width - 4}" y="{height - 4}" text-anchor="end">output</text>')
    return f'<svg viewBox="0 0 {width} {height}" role="img">{"".join(parts)}</svg>'


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    kinds = ("weights", "activations", "both")
    losses = any("loss" in row.get(kind, {}) for row in rows for kind in kinds)
    head = "".join(f"<th>{kind}, dB</th>" for kind in kinds)
    head += "".join(f"<th>{kind}, metric lost</th>" for kind in kinds) if losses else ""
    lines = []
    for row in rows:
        cells = [f"{row[k]['sqnr_db']:.1f}" if k in row else "–" for k in kinds]
        if losses:
            cells += [f"{100 * row[k]['loss']:.2f} %" if k in row else "–" for k in kinds]
        name = html.escape(row["name"] + (f" × {row['layers']}" if "layers" in row else ""))
        lines.append(f"<tr><td>{name}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return f"<table><tr><th></th>{head}</tr>{''.join(lines)}</table>"
