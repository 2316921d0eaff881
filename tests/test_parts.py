"""A bundle in a bundle: what the outer manifest says, and what verify finds."""

import shutil
from types import SimpleNamespace

import pytest

from edgekd.bundle import write_bundle
from edgekd.bundle.manifest import faults
from edgekd.parts import _merged, with_parts
from edgekd.verify import BundleFailed, verify
from tests import bundles, fakes


def rung(status, why=""):
    return {"rung": "exported", "status": status, "why": why}


@pytest.mark.parametrize(
    "own, other, status, why",
    [
        (rung("passed"), rung("passed"), "passed", ""),
        (rung("passed"), rung("not_run", "no board"), "not_run", "stage2: no board"),
        (rung("not_run", "no board"), rung("not_run", "no board"), "not_run", "no board"),
        (rung("failed", "lost 0.1"), rung("not_run", "no board"), "failed", "lost 0.1"),
    ],
)
def test_a_rung_is_as_good_as_its_worst_part(own, other, status, why):
    (found,) = _merged({"": [own], "stage2": [other]})
    assert (found["status"], found["why"]) == (status, why)


def spread(value):
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 10}


def evidence(times, joint=None, teacher=None):
    """Evidence with the processor times of what ships, the student and the teacher."""
    facts = {} if joint is None else {"joint:cpu": joint}
    if teacher is not None:
        facts["profile:teacher-ov-f32"] = {"latency": {"cpu_ms": {"p50": teacher}}}
    steps = dict(zip(("ov-int8", "distill", "teacher"), times, strict=True))
    return SimpleNamespace(
        target=SimpleNamespace(name="cpu"),
        done=facts,
        facts=facts.__getitem__,
        choice={"picked": "ov-int8", "fp32": "ov-f32"},
        latency=lambda step: {"cpu_ms": {"p50": steps[step]}},
    )


def judged():
    roles = ("shipped", "distill", "teacher")
    return {
        "driver": "cascade",
        "flights": 40,
        "threshold": 0.4,
        "called": dict.fromkeys(roles, "x"),
        "share": {role: spread(share) for role, share in zip(roles, (0.5, 0.5, 0.25), strict=True)},
        "rows": {role: {"recall": spread(0.8)} for role in roles},
        "per fault": {r: {"probe": {"flights": 4, "flagged": 0.5, "named": 0.5}} for r in roles},
        "agreement": {
            "shipped": {
                "same decision": 1.0,
                "largest difference of the chance": 0.01,
                "farthest from the threshold where flags differ": 0.0,
            }
        },
        "tolerance": 0.05,
    }


def test_a_mean_flight_pays_the_second_network_by_its_share():
    own = evidence((0.2, 1.0, 4.0), judged(), teacher=2.0)
    part = evidence((0.4, 1.2, 8.0), teacher=6.0)
    manifest = fakes.manifest()
    whole = with_parts(manifest, own, {"stage2": part}, {"stage2": manifest})
    cost = whole["joint"]["cost"]
    assert cost["shipped"]["mean_ms"] == pytest.approx(0.2 + 0.5 * 0.4)
    assert cost["teacher"]["mean_ms"] == pytest.approx(4 + 0.25 * 8)
    assert cost["teacher, exported"]["mean_ms"] == pytest.approx(2 + 0.25 * 6)
    assert "0.200 + 0.500 · 0.400 = 0.400 ms" in whole["claims"][1]
    assert "6.000 ms in torch (15.0 times)" in whole["claims"][1]
    assert whole["joint"]["golden"]["tolerance"] == {"chance": 0.05}
    assert "samples_ms" not in whole["parts"]["stage2"]["rows"][-1]["latency"]


@pytest.fixture(scope="module")
def nested(tmp_path_factory):
    """A small bundle with another one as its part."""
    room = tmp_path_factory.mktemp("nested")
    inner = bundles.write(room / "inner").path
    manifest = bundles.manifest()
    part = {k: manifest[k] for k in ("name", "artefact", "rows", "parity", "ladder", "claims")}
    manifest["parts"] = {"stage2": part}
    files = bundles.files()
    files |= {
        f"stage2/{path.relative_to(inner).as_posix()}": path
        for path in inner.rglob("*")
        if path.is_file()
    }
    return write_bundle(manifest, files, room / "whole").path


def test_a_part_is_proven_too(nested):
    for path in (nested, nested.with_name("whole.zip")):
        names = {check["name"]: check["status"] for check in verify(path)["checks"]}
        assert names["golden outputs"] == names["golden outputs of stage2"] == "passed"
        assert names["manifest of stage2"] == "passed"
    assert verify(nested / "stage2")["status"] == "passed"


def test_a_part_that_answers_otherwise_is_named(tmp_path):
    inner = bundles.write(tmp_path / "inner", scale=1.5).path
    manifest = bundles.manifest()
    part = {k: manifest[k] for k in ("name", "artefact", "rows", "parity", "ladder", "claims")}
    files = bundles.files() | {
        f"stage2/{p.relative_to(inner).as_posix()}": p for p in inner.rglob("*") if p.is_file()
    }
    whole = write_bundle({**manifest, "parts": {"stage2": part}}, files, tmp_path / "whole").path
    with pytest.raises(BundleFailed, match=r"golden outputs of stage2: .*sample 4"):
        verify(whole)


def test_a_flipped_byte_of_a_part_is_named(nested, tmp_path):
    copy = shutil.copytree(nested, tmp_path / "whole")
    model = copy / "stage2/model/model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleFailed, match=r"stage2/model/model\.onnx"):
        verify(copy)


def test_a_part_without_its_files_is_no_bundle():
    manifest = bundles.manifest()
    part = {k: manifest[k] for k in ("name", "artefact", "rows", "parity", "ladder", "claims")}
    files = dict.fromkeys(bundles.files(), "0" * 64)
    wrong = faults({**manifest, "schema_version": 1, "files": files, "parts": {"../x": part}})
    assert any("../x/manifest.json is not among the files" in text for text in wrong)


def test_the_page_shows_both_and_what_they_decide():
    pytest.importorskip("jinja2")
    from edgekd.report import render_report

    own = evidence((0.2, 1.0, 4.0), judged())
    part = evidence((0.4, 1.2, 8.0))
    manifest = fakes.manifest()
    page = render_report(with_parts(manifest, own, {"stage2": part}, {"stage2": manifest}))
    assert "cascade exported" not in page
    assert "All stages as one" in page and "Fault by fault" in page
    assert "0.200 + 0.500 · 0.400 = 0.400 ms" in page
    assert page.count("► ") >= 2
