"""What the manifest says of its own numbers."""

from __future__ import annotations

from edgekd.discover import load_target
from edgekd.manifest import _floor_claim

ROW = {"macs": 20_900_000, "file_bytes": 1_000_000, "precision": "int8"}


def test_the_floor_of_the_published_peaks_stands_beside_the_measured_time():
    row = ROW | {"latency": {"wall_ms": {"p50": 0.5}}}
    (claim,) = _floor_claim(load_target("jetson"), row)
    # 1 MB at 102.4 GB/s takes longer than 41.8 MOP at 30.1 TOP/s
    assert claim == (
        "By the published peaks of jetson an inference takes at least 0.0098 ms (a floor, not a "
        "prediction); measured: 51.2 times that."
    )


def test_without_a_measurement_the_floor_is_still_no_prediction():
    (claim,) = _floor_claim(load_target("pi5"), ROW | {"latency": {"not_run": "no board"}})
    assert claim.endswith("(a floor, not a prediction).")


def test_without_peaks_or_operations_nothing_is_claimed():
    row = ROW | {"latency": {"not_run": "no board"}}
    assert list(_floor_claim(load_target("cpu"), row)) == []
    assert list(_floor_claim(load_target("jetson"), row | {"macs": None})) == []
