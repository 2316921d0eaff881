"""Whole gates on this machine, as it is: no false alarm, and a slower graph is seen."""

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from benchmarks.gate import variant
from edgekd.bench.gate import gate
from edgekd.bundle import write_bundle
from tests import bundles

pytestmark = [pytest.mark.system, pytest.mark.timeout(1200)]

ELEMENTS = 600_000
"""Of the padding that both have: the small network alone takes too little to be 10 % slower."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A bundle, and one whose graph computes on a tenth more elements."""
    work = tmp_path_factory.mktemp("trials")
    write_bundle(bundles.manifest(), bundles.files(), work / "bundle")
    variant(work / "bundle", work / "same", ELEMENTS)
    variant(work / "bundle", work / "slower", round(ELEMENTS * 1.1) + ELEMENTS // 50)
    return work / "same", work / "slower"


def _alarms(candidate, baseline, count):
    codes = [gate([candidate], [baseline], wait=600)["exit_code"] for _ in range(count)]
    assert set(codes) <= {0, 3}
    return codes.count(3)


def test_an_unchanged_bundle_raises_no_alarm(pair):
    """One alarm in ten has a chance of a tenth at a rate of 1 %; two have one of 0.4 %."""
    same, _ = pair
    assert _alarms(same, same, 10) <= 1


def test_a_tenth_more_is_seen(pair):
    same, slower = pair
    assert _alarms(slower, same, 5) >= 4
