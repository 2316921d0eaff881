"""The main job for a Jetson on a recorded one: every step runs, and nothing counts as measured."""

import json

import pytest

pytest.importorskip("torch")

from tests.device.test_replay import ON
from tests.test_compress import ASK, OWN, edgekd, project  # noqa: F401  # a fixture

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]
DEVICE = ("compiled for device", "parity on device", "profiled on device")


def test_a_recorded_jetson_goes_the_whole_path(project):  # noqa: F811
    ask = tuple("jetson" if word == "cpu-ort" else word for word in (*ASK, *OWN))
    said = edgekd(project, *ask, "--on", ON, "--out", "out/replay", code=4)
    assert "the recording orin-nano was played, no board was asked" in said
    for step in ("build", "parity", "check", "val", "profile", "test"):
        assert f"{step}:trt-fp32: done" in said, step
    manifest = json.loads((project / "out/replay/manifest.json").read_text())
    rungs = {rung["rung"]: rung for rung in manifest["ladder"]}
    assert {rungs[name]["status"] for name in DEVICE} == {"replay"}
    assert all("no board was asked" in rungs[name]["why"] for name in DEVICE)
    assert all("not_run" in row["latency"] for row in manifest["rows"])
    assert manifest["choice"]["unmeasured"] and manifest["choice"]["ranking"][0]["wall_ms"] is None
    assert "× as fast" not in " ".join(manifest["claims"])
    assert "arch" in manifest["measured"]["machine"]
    assert manifest["measured"]["machine"]["arch"] != "aarch64", "the metric is of this host"

    replay = manifest["device"]["replay"]
    assert not manifest["device"]["reached"] and replay["name"] == "orin-nano"
    assert replay["played"]["energy"]["runs"] == 956
    assert replay["played"]["engine"]["build_s"] == 93.1
    files = {f"replay/{n}" for n in ("build.log", "layers.json", "profile.json", "times.json")}
    assert files <= set(manifest["files"])
    page = (project / "out/replay/report.html").read_text()
    assert "the recording orin-nano was played" in page

    again = edgekd(project, *ask, "--on", ON, "--out", "out/replay", "--allow-unbuilt")
    assert "profile:trt-fp32: started" not in again
    said = edgekd(project, "verify", "out/replay", "--on", ON)
    assert "nothing is proven of any board" in said
    assert "a recording is played" in edgekd(project, "profile", "out/replay", "--on", ON)
    sides = ("out/replay", "--baseline", "out/replay")
    assert "not comparable" in edgekd(project, "gate", *sides, code=4)
    assert "not comparable" in edgekd(project, "gate", *sides, "--on", ON, code=4)
    accept = ("--baseline", "accepted.json", "--accept", "first")
    edgekd(project, "gate", "out/replay", *accept, code=4)
    assert not (project / "accepted.json").exists()
    edgekd(project, "bench", "out/replay", "--out", "b.jsonl", code=4)

    without = edgekd(project, *ask, "--out", "out/none", code=4)
    assert "profile:trt-fp32" not in without, "what was played is not taken for measured"
