"""The report: it stands alone, says everything, hides nothing, and never depends on the hour."""

from __future__ import annotations

import io
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd import report
from edgekd.errors import SetupError
from edgekd.report import render_report
from tests import fakes

pytest.importorskip("jinja2")
VOID = {"meta", "img", "path", "polyline", "br"}


class Page(HTMLParser):
    """Collects what a page shows and loads, and checks that its elements are nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.words = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words += data


def words(manifest, **more) -> str:
    """Return what a reader sees, on one line."""
    return " ".join(Page(render_report(manifest, **more)).words.split())


def pictures(count=3, channels=3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 5, 7, channels), dtype=np.uint8)


def test_the_page_stands_alone():
    text = render_report(fakes.manifest(), examples={"anchor": pictures()})
    page = Page(text)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert all(address.startswith("data:image/png;base64,") for address in page.loads)
    assert not re.search(r"https?://|@import|url\(", text)


def test_the_page_knows_dark_small_and_paper():
    text = render_report(fakes.manifest())
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert 'name="viewport"' in text


def test_every_colour_has_a_dark_and_a_printed_twin():
    style = render_report(fakes.manifest()).partition("</style>")[0]
    light, dark, paper = (
        set(re.findall(r"(--[a-z]+): ?#", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.S)
    )
    assert light == dark == paper


def test_equal_input_gives_an_equal_page():
    images = {"anchor": pictures()}
    assert render_report(fakes.manifest(), examples=images) == render_report(
        fakes.manifest(), examples=images
    )


def test_all_parts_are_there():
    page = Page(render_report(fakes.manifest(), examples={"anchor": pictures()}))
    assert page.ids == [
        "verdict",
        "table",
        "examples",
        "accuracy",
        "latency",
        "cost",
        "tradeoff",
        "ladder",
        "choice",
        "parity",
        "curves",
        "provenance",
        "reproduce",
    ]


def test_what_beats_what():
    """Slower and worse is beaten; a bound, which cannot ship, neither beats nor is beaten."""
    manifest = fakes.manifest()
    template = fakes.row("teacher", manifest)
    primary = template["primary"]

    def row(label, cpu, value, kind="trivial"):
        latency = {**template["latency"], "cpu_ms": {"p50": cpu, "min": cpu}}
        metrics = {primary: {"value": value, "low": value, "high": value, "n": 9}}
        more = {"label": label, "kind": kind, "latency": latency, "metrics": metrics}
        return {**template, **more, "shipped": False, "knows": "the tariff"}

    manifest["rows"] = [
        row("rule", 0.01, 0.8), row("slow rule", 0.02, 0.7), row("net", 0.1, 0.9, "artefact"),
        row("twin", 0.1, 0.9, "student"), row("plan", 3.0, 0.95), row("bound", 0.001, 1.0, "bound"),
    ]  # fmt: skip
    found = report._tradeoff(manifest)["lines"]
    assert [line["label"] for line in found if line["front"]] == ["rule", "net", "twin", "plan"]
    assert found[0]["x"] < found[1]["x"] < found[2]["x"] < found[4]["x"]
    assert found[1]["y"] < found[0]["y"] < found[4]["y"] < found[5]["y"]
    assert "the tariff" in words(manifest)
    manifest["higher_is_better"] = False
    worse = report._tradeoff(manifest)["lines"]
    assert [line["label"] for line in worse if line["front"]] == ["rule", "slow rule"]
    for row_ in manifest["rows"]:
        row_["latency"] = {"not_run": "no device"}
    assert "tradeoff" not in Page(render_report(manifest)).ids


def test_more_and_less():
    manifest = fakes.manifest()
    rows = [
        {"asked": share, "value": value, "low": value - 0.1, "high": value + 0.1, "n": 12}
        for share, value in ((0.25, 0.4), (1, 0.9))
    ]
    manifest["response"] = {"asked": "the usual return", "metric": "score", "rows": rows}
    assert "response" in Page(render_report(manifest)).ids
    assert "a share of the usual return" in words(manifest)
    first, last = report._response(manifest)["lines"]
    assert first["at"] < last["at"] and first["label"] == "0.25"


def test_every_claim_and_row_is_said():
    manifest = fakes.manifest()
    said = words(manifest)
    for claim in manifest["claims"]:
        assert claim in said
    for row in manifest["rows"]:
        assert said.count(row["label"]) >= 2
    assert "82.68 ± 0.37 %" in said


def test_what_was_not_run_says_why():
    manifest = fakes.manifest()
    fakes.row("teacher", manifest)["latency"] = {"not_run": "the board has no torch"}
    manifest["ladder"][-2] = {"rung": "profiled on device", "status": "failed", "why": "throttled"}
    said = words(manifest)
    assert "ResNet-12 (teacher) – not run: the board has no torch" in said
    assert "within budget not run target cpu sets no limits" in said
    assert "profiled on device failed throttled" in said
    assert "6 of 8 proofs passed, 1 failed, 1 not run" in said


def test_a_rejected_candidate_says_why():
    said = words(fakes.manifest())
    assert "task metric: lost 4.62 %, limit 1 %" in said
    assert "worst cosine 0.6121" in said


def test_a_difference_is_bold_only_when_its_interval_leaves_out_zero():
    text = render_report(fakes.manifest())
    assert "<strong>+1.85 points</strong>" in text
    assert "−0.08 points" in text
    assert "<strong>−0.08 points</strong>" not in text


def test_what_a_manifest_says_cannot_become_markup():
    manifest = fakes.manifest()
    manifest["claims"] = ["<script>alert(1)</script>"]
    manifest["rows"][0]["label"] = "<b onload=x>"
    text = render_report(manifest, examples={"<i>": pictures()})
    assert "<script" not in text
    assert "<b onload" not in text
    assert "<i>8" not in text


def test_a_manifest_without_the_optional_parts_is_reported():
    manifest = fakes.manifest()
    for key in ("gains", "training", "files", "state"):
        del manifest[key]
    manifest |= {"claims": [], "parity": [], "runners_up": []}
    manifest["inputs"]["teacher"] = None
    manifest["measured"] = {"when": "2026-01-15", "machine": {}, "versions": {}}
    manifest["choice"] = {"rule": "only one", "picked": "ov-int8", "ranking": [], "rejected": []}
    for row in manifest["rows"]:
        row["latency"] = {"not_run": "no device was given (--on)"}
        row |= {"params": None, "macs": None, "file_bytes": None}
    said = words(manifest)
    assert "Nothing is claimed." in said
    assert "not run: no device was given (--on)" in said


def test_a_metric_that_is_no_share_keeps_its_unit():
    manifest = fakes.manifest()
    for index, row in enumerate(manifest["rows"]):
        cost = 120.0 + index
        row["metrics"] = {"cost": {"value": cost, "low": None, "high": None, "n": 90, "unit": "€"}}
        row["primary"] = "cost"
    manifest["gains"] = {
        "a − b": {"cost": {"value": -2.0, "low": -3.0, "high": -1.0, "n": 90, "unit": "€"}}
    }
    said = words(manifest)
    assert "126 €" in said
    assert "−2.00 €" in said


def test_no_row_ships_when_nothing_was_built():
    manifest = fakes.manifest()
    for row in manifest["rows"]:
        row["shipped"] = False
    assert "MobileViT-XXS" in words(manifest)


def test_curves_can_be_given():
    text = render_report(
        fakes.manifest(), curves={"mine": [3.0, float("nan"), 1.0], "short": [1.0]}
    )
    assert text.count("<polyline") == 1
    assert "nan" not in re.findall(r'points="([^"]*)"', text)[0]
    assert "3.00 → 1.00, 3 epochs" in text


def test_the_command_can_be_pasted_into_a_shell():
    manifest = fakes.manifest()
    manifest["recipe"]["settings"] = {"data": "my set's/images", "bias": True}
    said = words(manifest)
    assert "edgekd compress --recipe mobilevit --target cpu" in said
    assert "--set data='my set'\\''s/images'" in said
    assert "--set bias=true" in said


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_is_a_png_of_the_same_pixels(channels):
    image = pytest.importorskip("PIL.Image")
    (wanted,) = pictures(1, channels)
    with image.open(io.BytesIO(report._png(wanted))) as found:
        assert np.array_equal(np.asarray(found).reshape(wanted.shape), wanted)


def test_without_jinja2_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(SetupError, match="edgekd\\[train\\]"):
        render_report(fakes.manifest())


finite = st.floats(min_value=-1e9, max_value=1e9, allow_nan=False)


@given(st.lists(finite, max_size=9))
def test_a_linear_axis_holds_all_values_between_round_ends(values):
    axis = report._Axis.linear(values)
    places = [axis.at(value) for value in values]
    assert all(0 <= place <= 100 for place in places)
    assert places == sorted(places) or values != sorted(values)
    assert 2 <= len(axis.ticks) <= 13


@given(st.lists(st.floats(min_value=1e-4, max_value=1e6), min_size=1, max_size=9))
def test_a_logarithmic_axis_holds_all_values(values):
    axis = report._Axis.logarithmic(values)
    assert all(0 < axis.at(value) < 100 for value in values)
    assert 2 <= len(axis.ticks) <= 12


def test_classes_are_shown_where_the_task_tells_them():
    manifest = fakes.manifest()
    assert "Class by class" not in words(manifest)
    (shipped,) = [row for row in manifest["rows"] if row["shipped"]]
    shipped["details"] = {
        "classes": ["healthy", "faulty", "never"],
        "confusion": [[30, 10, 0], [5, 15, 0], [0, 0, 0]],
    }
    shown = words(manifest)
    assert "healthy 30 10 0 40 75% 86%" in shown
    assert "faulty 5 15 0 20 75% 60%" in shown
    assert "never 0 0 0 0 – –" in shown


def test_everything_explored_is_drawn_and_explained():
    manifest = fakes.manifest()
    manifest["explored"] = [
        explored("fast", "picked", 1.0, 0.001, 900, on_frontier=True),
        explored("float", "not taken", 4.0, 0.0, 4000, on_frontier=True, why="slower: 4 × fast"),
        explored("lossy", "rejected", 0.5, 0.2, 800, why="task metric: lost 20.00 %, limit 1 %"),
        explored("slow", "left out", 9.0, None, 950, why="proxy: fast is faster", timed="hint"),
        explored("dead", "failed", None, None, None, why="build: it died", timed=""),
    ]
    section = render_report(manifest).partition('id="choice"')[2].partition("</section>")[0]
    rows = section.partition("<tbody>")[2].split("</tr>")[:-1]
    assert len(rows) == 5
    for row, said in zip(rows, manifest["explored"], strict=True):
        assert said["candidate"] in row and said["outcome"] in row and said["why"] in row
    assert "~9" in rows[3] and "●" in rows[0] and "●" not in rows[2]
    points = re.findall(r'class="point ([a-z -]+)"[^>]*title="(\w+)">(\d)(↓?)<', section)
    assert {name: (kind, number, beyond) for kind, name, number, beyond in points} == {
        "fast": ("picked full", "1", ""),
        "float": ("not-taken full", "2", ""),
        "lossy": ("rejected", "3", "↓"),
        "slow": ("left-out", "4", ""),
    }
    assert 'class="limit"' in section


def explored(name, outcome, time, loss, size, *, on_frontier=False, why="", timed="measured"):
    return {
        "candidate": name,
        "runtime": "openvino",
        "precision": "int8",
        "outcome": outcome,
        "on_frontier": on_frontier,
        "time_ms": time,
        "timed": timed,
        "metric": None,
        "loss": loss,
        "bytes": size,
        "sqnr_db": 30.0,
        "why": why,
    }
