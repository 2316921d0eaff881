"""The page of explained flights says what the maps say."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from benchmarks import explain

NAMES = ["volt1", "E1 OilP", "E1 EGT2"]


def flight(blamed, moved):
    blame, truth = np.zeros((3, 16)), np.zeros((3, 16))
    blame[blamed, 8:12] = (1, 3, 2, 1)
    truth[moved, 4:] = 2.0
    raw = np.random.default_rng(0).normal(size=(3, 128))
    return {
        "fault": "oil_leak",
        "meaning": "pressure falls",
        "names": NAMES,
        "blame": blame,
        "truth": truth,
        "raw": raw,
    }


def test_the_stretch_is_the_one_with_most_blame():
    (first, _) = explain.told_of(flight(1, 1)["blame"], NAMES)
    assert first == (1, "E1 OilP", 38, 47)


def test_the_page_says_where_to_look_and_whether_that_is_true(tmp_path):
    explain.page(tmp_path / "page.html", [flight(1, 1), flight(1, 2)])
    page = (tmp_path / "page.html").read_text()
    assert page.count("Look first at</b> E1 OilP, minutes 38 to 47") == 2
    assert "moved</b> E1 OilP, minutes 17 to 68. The first sensor is one" in page
    assert "moved</b> E1 EGT2, minutes 17 to 68. <b>The first sensor is not one" in page
    assert page.count("data:image/png;base64,") == 2
    assert "http" not in page


def test_three_faults_are_shown_those_that_moved_most():
    truth = np.zeros((5, 3, 16))
    truth[:, 0, 0] = (5, 4, 3, 2, 1)
    right = np.array([True, False, True, True, True])
    assert explain.picked(right, truth, np.array([0, 1, 0, 1, 2])) == [0, 3, 4]
