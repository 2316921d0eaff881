"""What the manifest says of its own numbers."""

from __future__ import annotations

import numpy as np

from edgekd.discover import load_target
from edgekd.manifest import _floor_claim, _mode_claim, _rival_claim

ROW = {"macs": 20_900_000, "file_bytes": 1_000_000, "precision": "int8"}


def test_the_floor_of_the_published_peaks_stands_beside_the_measured_time():
    row = ROW | {"latency": {"wall_ms": {"p50": 0.5}}}
    (claim,) = _floor_claim(load_target("jetson"), row)
    # 1 MB at 102.4 GB/s takes longer than 41.8 MOP at 30.1 TOP/s
    assert claim == (
        "By the published peaks of jetson an inference takes at least 0.0098 ms (a floor, not a "
        "prediction); measured: 51.2 times that."
    )


def test_the_peaks_are_those_of_the_mode_that_the_board_was_in():
    target, row = load_target("jetson"), ROW | {"latency": {"not_run": "no board"}}
    floors = [target.peaks(mode).floor_ms(1e9, 0) for mode in ("15W", "25W", "MAXN_SUPER")]
    assert floors == sorted(floors, reverse=True) and len(set(floors)) == 3
    (claim,) = _floor_claim(target, row, "15W")
    assert claim.startswith("By the published peaks of jetson in mode 15W")
    (claim,) = _mode_claim(target, "15W")
    assert claim.startswith("The board ran in power mode 15W, target jetson asks for 25W")
    assert not [*_mode_claim(target, "25W"), *_mode_claim(target, None)]


def test_without_a_measurement_the_floor_is_still_no_prediction():
    (claim,) = _floor_claim(load_target("pi5"), ROW | {"latency": {"not_run": "no board"}})
    assert claim.endswith("(a floor, not a prediction).")


def test_without_peaks_or_operations_nothing_is_claimed():
    row = ROW | {"latency": {"not_run": "no board"}}
    assert list(_floor_claim(load_target("cpu"), row)) == []
    assert list(_floor_claim(load_target("jetson"), row | {"macs": None})) == []


def test_energy_that_was_measured_is_held_against_the_budget():
    from types import SimpleNamespace

    from edgekd.manifest import _budget
    from edgekd.target import Limits

    def rung(limit, energy):
        latency = {"wall_ms": {"p50": 1.0, "p99": 2.0}, "rss_mib": 60.0, "energy": energy}
        evidence = SimpleNamespace(
            target=SimpleNamespace(limits=Limits(energy_mj=limit)),
            latency=lambda name: latency,
            facts=lambda step: {"bytes": 1},
        )
        return _budget(evidence, "ort-fp32")

    assert rung(5, {"net_mj": 4.0})["status"] == "passed"
    assert rung(5, {"net_mj": 6.0}) == {
        "rung": "within budget", "status": "failed", "why": "energy_mj 6 > 5",
    }  # fmt: skip
    assert rung(5, {"not_run": "no power sensor"})["why"] == "not measured: energy_mj"


def test_a_rival_beats_the_student_where_the_interval_says_so():
    ours = np.full(400, 0.8)
    theirs = ours + np.random.default_rng(0).normal(0.01, 0.02, 400)
    said = _rival_claim("Conv-4", theirs, ours, "accuracy")
    assert said.startswith("Conv-4 beats the distilled student on accuracy: +")
    said = _rival_claim("Conv-4", ours + np.tile([0.1, -0.099], 200), ours, "accuracy")
    assert said == (
        "Conv-4 is not clearly better than the student on accuracy: +0.05 points"
        " (95 % interval -0.93 to +1.03)."
    )
    assert _rival_claim("Conv-4", None, ours, "accuracy") == (
        "Conv-4 beats the distilled student on accuracy."
    )
