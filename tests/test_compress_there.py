"""The main job with the device behind ssh: a real sshd on loopback plays the board."""

import json
import os
import sys

import pytest

pytest.importorskip("torch")

from tests.device.test_ssh import server  # noqa: F401  # a fixture
from tests.test_compress import ASK, edgekd, project  # noqa: F401  # a fixture

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

BOARD = f"""
name: near-board
title: A board behind ssh
device: cpu
arch: [{os.uname().machine}]
backends: [onnxruntime]
precisions: [fp32, int8]
limits: {{latency_p50_ms: 1000}}
measure: {{threads: 1, runs: 20, warmup: 2, processes: 2}}
"""


def test_candidates_are_measured_on_the_board(project, server):  # noqa: F811
    (project / "near.yaml").write_text(BOARD)
    config = project / "config" / "edgekd"
    there = {"EDGEKD_SSH": server.command, "XDG_CONFIG_HOME": str(project / "config")}
    # A newcomer has an alias in ssh's own configuration, and no list of devices.
    assert not config.exists()
    own = ("--set", "teacher=mine.py:build", "--set", "weights=teacher.pt")
    ask = (*ASK, *own, "--on", "ssh:board")
    ask = tuple("near.yaml" if word == "cpu-ort" else word for word in ask)
    said = edgekd(project, *ask, "--out", "out/near", **there)
    assert "7 of 8 rungs" in said or "8 of 8 rungs" in said
    manifest = json.loads((project / "out/near/manifest.json").read_text())
    assert manifest["device"] == {"reached": True, "why": ""}
    assert not manifest["choice"]["unmeasured"]
    rows = {row["kind"]: row for row in manifest["rows"]}
    assert rows["artefact"]["latency"]["wall_ms"]["p50"] > 0
    assert "not run on the device" in rows["student"]["latency"]["not_run"]
    again = edgekd(project, *ask, "--out", "out/near", **there)
    assert "profile:ort-fp32: started" not in again
    config.mkdir(parents=True)
    (config / "devices.yaml").write_text(
        f"near: {{reach: 'ssh:board', python: {sys.executable}}}\n"
    )
    named = edgekd(project, *ask[:-1], "near", "--out", "out/near", **there)
    assert "profile:ort-fp32: started" not in named, "another name for the same board"
    assert "passed" in edgekd(project, "verify", "out/near", "--on", "near", **there)
    assert "p50_ms" in edgekd(
        project, "profile", "out/near", "--on", "near", "--runs", "5", **there
    )
    one = ("out/near", "--on", "near", "--out")
    said = edgekd(project, "gate", *one, "gate.jsonl", "--baseline", "out/near", **there)
    assert "passed" in said
    said = edgekd(project, "bench", *one, "bench.jsonl", "--processes", "3", **there)
    assert "classify" in said
    assert len((project / "bench.jsonl").read_text().splitlines()) == 6
    sides = ("out/near", "out/near", "--rounds", "2", "--on", "near")
    assert "measured side by side in 2 rounds" in edgekd(project, "compare", *sides, **there)
    assert "ok" in edgekd(project, "doctor", "--target", "near.yaml", "--on", "near", **there)

    server.stop()
    try:
        lost = edgekd(project, "verify", "out/near", "--on", "near", code=4, **there)
        assert "nothing listens there" in lost
    finally:
        server.start()
