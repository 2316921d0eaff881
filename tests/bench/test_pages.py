"""Trend and comparison: what is drawn, what is said; looked at in Chromium where there is one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from edgekd.bench import draw, side_by_side, trend
from edgekd.bench.gate import gate
from edgekd.errors import UsageError
from tests.bench import made


def history(days=14, change=8, device="pi-5"):
    rng = np.random.default_rng(0)
    rows = []
    for day in range(days):
        level = (1.4 if day < change else 1.6) * (1 + 0.003 * rng.normal())
        metrics = {
            "cpu_ms": {"value": level, "low": level * 0.99, "high": level * 1.01, "unit": "ms"},
            "size_bytes": {"value": 1_322_240, "unit": "bytes"},
            "task": {"value": 0.8268, "low": 0.82, "high": 0.83, "unit": "5-way <5-shot>"},
        }
        rows.append(
            {
                "run": str(day), "device": device, "name": "mobilevit-cpu", "git": "ab" * 20,
                "when": f"2026-01-{day + 1:02}", "candidate": "ov-int8", "runtime": "openvino 1",
                "digest": "cd" * 32, "load": 1.0, "metrics": metrics, "path": "/bundles/new",
            }
        )  # fmt: skip
    return rows


def pictures(page):
    return [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def test_the_trend_page_draws_every_metric_and_leads_to_the_bundles(tmp_path):
    page = trend.page(history(), tmp_path / "site" / "trend.html")
    found = pictures(page)
    assert len(found) == 3
    for svg in found:
        assert len(svg.findall(".//circle")) == 14
        for circle in svg.findall(".//circle"):
            assert 0 <= float(circle.get("cx")) <= draw.WIDTH
            assert 0 <= float(circle.get("cy")) <= draw.HEIGHT
    assert re.search(r"processor time of an inference: 1\.(59|6)", page)
    assert "5-way &lt;5-shot&gt;" in page
    assert page.count("/bundles/new/report.html") >= 14
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "prefers-color-scheme: dark" in page


def test_a_change_of_level_is_found_once_and_noise_is_not():
    values = [row["metrics"]["cpu_ms"]["value"] for row in history(20, 12)]
    assert trend.change_points(values) == [12]
    assert re.search(r"change</span> at 2026-01-09: \+1[345]\.\d %", trend.page(history(18, 8)))
    rng = np.random.default_rng(1)
    false = sum(bool(trend.change_points(list(1 + 0.02 * rng.normal(size=24)))) for _ in range(60))
    assert false <= 3
    assert trend.change_points([1.0] * 30) == []
    assert trend.change_points([1.0, 2.0]) == []


@pytest.mark.parametrize("count", [0, 1])
def test_a_short_history_is_drawn_too(count):
    page = trend.page(history(count))
    assert ("Nothing has been recorded yet" in page) == (count == 0)
    assert "nan" not in page.lower().replace("nanum", "")


def test_an_axis_holds_its_values_between_round_ticks():
    for low, high in ((1.37, 1.62), (0, 0), (5, 5), (1322240, 1322241), (-3, 8)):
        first, last, ticks = draw.scale(low, high)
        assert first <= low <= high <= last
        assert 2 <= len(ticks) <= 12


def test_two_bundles_are_compared_by_what_was_recorded(bundle):
    def smaller(manifest):
        manifest["artefact"]["bytes"] //= 2

    found = side_by_side.compare(bundle("a"), bundle("b", smaller))
    rows = {row["name"]: row for row in found["rows"]}
    assert rows["size"]["change"] == pytest.approx(-0.5, abs=1e-3)  # an odd count of bytes
    assert rows["5-way 5-shot"]["intervals"][0][0] == pytest.approx(0.8231)
    assert rows["recorded p50"]["change"] == 0
    assert "low" not in rows["recorded p50"]
    assert "not together" in found["notes"][0]
    assert not pictures(side_by_side.page(found))


def test_two_bundles_are_measured_when_asked(bundle, monkeypatch):
    monkeypatch.setattr(side_by_side, "rounds", lambda *_, **__: made.rounds(1.1))
    found = side_by_side.compare(bundle("a"), bundle("b"), rounds=8)
    row = next(r for r in found["rows"] if r["name"] == "measured processor time")
    assert row["low"] < 0.1 < row["high"]
    assert row["p"] == pytest.approx(2 * 2**-8)
    assert row["above"] == 1.0
    page = side_by_side.page(found)
    assert len(pictures(page)) == 4
    assert "b larger in 100 %" in page


def test_two_files_of_results_are_compared_with_a_warning(bundle, measured, tmp_path):
    paths = []
    for name, factor in (("old", 1.0), ("new", 1.2)):
        measured(factor, noise=0.003, wall_noise=0.001)
        place = tmp_path / "same"
        if not place.exists():
            bundle("same")
        paths.append(tmp_path / f"{name}.jsonl")
        gate(place, place, out=paths[-1])
    found = side_by_side.compare(*paths)
    row = found["rows"][0]
    assert row["name"] == "mobilevit-cpu: measured processor time"
    assert row["low"] < 0.2 < row["high"]
    assert "mobilevit-cpu: not measured together" in found["notes"]
    with pytest.raises(UsageError, match="cannot be compared"):
        side_by_side.compare(paths[0], place)


def test_the_command_prints_a_table_and_writes_a_page(bundle, capfd, tmp_path):
    from edgekd.cli import run

    a, b = bundle("a"), bundle("b")
    assert run(["compare", str(a), str(b), "--page", str(tmp_path / "c.html")]) == 0
    out = capfd.readouterr().out
    assert re.search(r"size +(\d+) bytes +\1 bytes +\+0.00 %", out)
    assert "Side by side" in (tmp_path / "c.html").read_text()


@pytest.mark.system
@pytest.mark.needs("chromium", install="apt-get install chromium")
@pytest.mark.parametrize("dark", [False, True])
def test_the_pages_in_chromium(dark, tmp_path, bundle, monkeypatch):
    """Looked at as a reader would: not blank, light and dark."""
    chromium = shutil.which("chromium")
    Image = pytest.importorskip("PIL.Image")
    monkeypatch.setattr(side_by_side, "rounds", lambda *_, **__: made.rounds(1.04))
    compared = side_by_side.compare(bundle("a"), bundle("b"), rounds=12)
    pages = {"trend": trend.page(history()), "compare": side_by_side.page(compared)}
    for name, page in pages.items():
        (tmp_path / f"{name}.html").write_text(page)
        shot = tmp_path / f"{name}.png"
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--screenshot={shot}"]
        command += ["--window-size=900,1400", *(["--blink-settings=preferredColorScheme=0"] * dark)]
        # Its socket lies under TMPDIR, and a socket's path may have 107 characters.
        environment = {key: value for key, value in os.environ.items() if key != "TMPDIR"}
        subprocess.run(
            [*command, f"file://{tmp_path}/{name}.html"],
            check=True, timeout=120, capture_output=True, env=environment,
        )  # fmt: skip
        pixels = np.asarray(Image.open(shot).convert("L"))
        paper = np.median(pixels)
        assert (paper < 60) == dark, paper
        assert np.mean(np.abs(pixels.astype(int) - paper) > 60) > 0.005
