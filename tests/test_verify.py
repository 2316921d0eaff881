from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import edgekd
from edgekd.bundle import audit, write_bundle
from edgekd.bundle.integrity import sums_text
from edgekd.device.fingerprint import fingerprint
from edgekd.errors import RuntimeCrash, SetupError, UsageError, VerifyError
from edgekd.verify import BundleFailed, lines, verify
from tests import bundles

ROOT = Path(edgekd.__file__).parents[1]


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    """A written bundle; not to be changed."""
    return bundles.write(tmp_path_factory.mktemp("bundle") / "small").path


@pytest.fixture
def bundle(original, tmp_path):
    """A folder that a test may damage."""
    return shutil.copytree(original, tmp_path / "small")


@pytest.fixture
def packed(original, tmp_path):
    """A ``.zip`` that a test may damage."""
    return Path(shutil.copy(original.with_name("small.zip"), tmp_path / "small.zip"))


def faulty(path):
    """Names of the files that verify complains of."""
    with pytest.raises(BundleFailed) as caught:
        verify(path, hashes_only=True)
    assert caught.value.exit_code == 5
    return [fault.file for fault in audit(path).faults]


def flip(path, offset, mask=1):
    content = bytearray(path.read_bytes())
    content[offset] ^= mask
    path.write_bytes(content)


def statuses(report):
    return {check["name"]: check["status"] for check in report["checks"]}


def failure(path, **options):
    with pytest.raises(BundleFailed) as caught:
        verify(path, **options)
    return caught.value


# Files


def test_a_bundle_as_it_was_written_passes(original):
    for path in (original, original.with_name("small.zip")):
        report = verify(path, hashes_only=True)
        assert report["status"] == "passed"
        assert statuses(report) == {"files": "passed", "manifest": "passed"}
        assert report["digest"] == audit(original).digest
        assert report["notes"] == []


FILES = (
    "README.md",
    "SHA256SUMS",
    "THIRD_PARTY_NOTICES.md",
    "enroll.py",
    "golden.npz",
    "manifest.json",
    "model/model.onnx",
    "report.html",
    "state.npz",
)


def test_the_names_below_are_all_there_are(original):
    assert sorted(p.relative_to(original).as_posix() for p in original.rglob("*.*")) == sorted(
        {*FILES} - {"SHA256SUMS"}
    )


@settings(max_examples=400, deadline=None, derandomize=True)
@given(name=st.sampled_from(FILES), place=st.integers(0, 2**20), mask=st.integers(1, 255))
def test_a_flipped_byte_is_found_in_the_file_that_has_it(original, name, place, mask):
    path = original / name
    content = path.read_bytes()
    try:
        flip(path, place % len(content), mask)
        assert [fault.file for fault in audit(original).faults] == [name]
    finally:
        path.write_bytes(content)


def test_every_byte_of_the_sums_is_watched(original):
    path = original / "SHA256SUMS"
    content = path.read_bytes()
    try:
        for offset in range(0, len(content), 7):
            for mask in (1, 0x20, 0x80):
                flip(path, offset, mask)
                assert [fault.file for fault in audit(original).faults] == ["SHA256SUMS"], offset
                path.write_bytes(content)
    finally:
        path.write_bytes(content)


def owners(path):
    """Offset → name of the entry that has this byte of a ``.zip``, or of the archive."""
    with zipfile.ZipFile(path) as archive:
        entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
        ends = [*(entry.header_offset for entry in entries[1:]), archive.start_dir]
    owner = [path.name] * path.stat().st_size
    for entry, end in zip(entries, ends, strict=True):
        name = entry.filename.partition("/")[2]
        owner[entry.header_offset : end] = [name] * (end - entry.header_offset)
    return owner


@settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(place=st.integers(0, 2**20), mask=st.integers(1, 255))
@example(place=0, mask=1)
@example(place=-1, mask=1)
def test_a_flipped_byte_of_a_zip_is_found(original, packed, place, mask):
    whole = original.with_name("small.zip").read_bytes()
    offset = place % len(whole)
    packed.write_bytes(whole)
    owner = owners(packed)[offset]
    flip(packed, offset, mask)
    named = {fault.file for fault in audit(packed).faults}
    assert named
    assert owner in named or "small.zip" in named


def test_every_field_of_a_zip_is_watched(packed):
    whole = packed.read_bytes()
    with zipfile.ZipFile(packed) as archive:
        directory = archive.start_dir
    first_record, end = range(directory, directory + 60), range(len(whole) - 28, len(whole))
    for offset in [*range(30), *first_record, *end]:
        for mask in (0x01, 0xFF):
            packed.write_bytes(whole)
            flip(packed, offset, mask)
            assert audit(packed).faults, offset


def test_damage_in_a_zip_is_named(packed):
    with zipfile.ZipFile(packed) as archive:
        entry = archive.getinfo("mobilevit-cpu/golden.npz")
        flip(packed, archive.start_dir + 12)
    assert "small.zip" in str(failure(packed, hashes_only=True))
    flip(packed, entry.header_offset + 200)
    assert "golden.npz" in faulty(packed)


def test_bytes_behind_or_before_a_zip_are_found(packed):
    whole = packed.read_bytes()
    for changed in (
        whole + b"more",
        b"#!/bin/sh\n" + whole,
        whole[:-3],
        whole[:-6],
        whole[:5000],
        b"",
    ):
        packed.write_bytes(changed)
        assert faulty(packed) == ["small.zip"]


def test_a_zip_packed_by_another_program_passes_with_a_note(original, tmp_path):
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in FILES:
            archive.write(original / name, f"download/{name}")
    report = verify(path, hashes_only=True)
    assert report["notes"] == ["packed by another program"]


def test_all_faults_are_reported_at_once(bundle):
    flip(bundle / "model" / "model.onnx", 7)
    (bundle / "golden.npz").unlink()
    (bundle / "model" / "extra.bin").touch()
    (bundle / "report.html").unlink()
    (bundle / "report.html").symlink_to("/etc/passwd")
    error = failure(bundle)
    for said in (
        "model/model.onnx: changed: sha256",
        "golden.npz: missing",
        "model/extra.bin: added",
        "report.html: a link",
    ):
        assert said in str(error)
    assert statuses(error.report) == {
        "files": "failed",
        "manifest": "passed",
        "runs as recorded": "not_run",
        "golden outputs": "not_run",
    }
    json.dumps(error.report, allow_nan=False)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs")
def test_a_pipe_is_refused_without_being_opened(bundle):
    (bundle / "state.npz").unlink()
    os.mkfifo(bundle / "state.npz")
    assert faulty(bundle) == ["state.npz"]


def test_what_python_cached_is_named_with_its_cause(bundle):
    (bundle / "__pycache__").mkdir()
    (bundle / "__pycache__" / "enroll.cpython-311.pyc").touch()
    assert "delete it" in str(failure(bundle, hashes_only=True))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda b: (b / "SHA256SUMS").unlink(), ["SHA256SUMS"]),
        (lambda b: (b / "manifest.json").unlink(), ["manifest.json"]),
        (lambda b: (b / "SHA256SUMS").write_bytes(b""), ["SHA256SUMS"]),
        (lambda b: (b / "manifest.json").write_bytes(b""), ["manifest.json"]),
        (lambda b: (b / "manifest.json").write_bytes(b"[1]"), ["manifest.json"]),
        (lambda b: (b / "SHA256SUMS").write_bytes(b"\xff" * 99), ["SHA256SUMS"]),
    ],
)
def test_a_list_that_is_gone_is_named_and_the_other_one_judges(bundle, damage, named):
    flip(bundle / "golden.npz", 9)
    damage(bundle)
    assert faulty(bundle) == sorted(["golden.npz", *named])


def test_sums_that_lost_the_line_of_the_manifest(bundle):
    sums = bundle / "SHA256SUMS"
    lines = [line for line in sums.read_text().splitlines(True) if "manifest.json" not in line]
    sums.write_text("".join(lines))
    assert faulty(bundle) == ["SHA256SUMS"]


def test_both_lists_changed(bundle):
    sums = bundle / "SHA256SUMS"
    flip(bundle / "manifest.json", 100)
    sums.write_text("no sum\n" + sums.read_text())
    assert faulty(bundle) == ["SHA256SUMS", "manifest.json"]


def reseal(bundle):
    """Make the lists of a forged bundle agree again, as a forger would."""
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    files = {n: p for n in manifest["files"] if (p := bundle / n)}
    manifest["files"] = {n: audit_digest(p) for n, p in files.items()}
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    sums = {**manifest["files"], "manifest.json": audit_digest(bundle / "manifest.json")}
    (bundle / "SHA256SUMS").write_text(sums_text(sums))


def audit_digest(path):
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_forger_who_mends_the_lists_is_caught_by_the_pinned_digest(bundle):
    pin = audit(bundle).digest
    assert statuses(verify(bundle, hashes_only=True, expect=pin.upper()))["expected digest"]
    (bundle / "report.html").write_text("better numbers")
    reseal(bundle)
    assert verify(bundle, hashes_only=True)["status"] == "passed"
    error = failure(bundle, hashes_only=True, expect=f"sha256:{pin}")
    assert statuses(error.report)["expected digest"] == "failed"
    assert f"{pin[:12]}… wanted" in str(error)


@pytest.mark.parametrize("expect", ["", "abc", "0" * 63, "g" * 64])
def test_a_pin_is_a_whole_sha256(original, expect):
    with pytest.raises(UsageError, match="64 hex digits"):
        verify(original, hashes_only=True, expect=expect)


def test_a_manifest_that_contradicts_itself_fails(bundle):
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["rows"][-1]["shipped"] = False
    del manifest["choice"]["rule"], manifest["golden"]["file"]
    path.write_text(json.dumps(manifest), encoding="utf-8")
    reseal(bundle)
    error = failure(bundle)
    assert statuses(error.report) == {
        "files": "passed",
        "manifest": "failed",
        "runs as recorded": "not_run",
        "golden outputs": "not_run",
    }
    assert "choice.rule: missing" in str(error)
    assert "golden.file: missing" in str(error)


def test_a_newer_manifest_fails_with_its_reason(bundle):
    path = bundle / "manifest.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"schema_version": 1', '"schema_version": 9'), encoding="utf-8")
    reseal(bundle)
    assert "schema_version 9" in str(failure(bundle))


def test_where_there_is_no_bundle(tmp_path):
    with pytest.raises(UsageError, match="no such bundle"):
        verify(tmp_path / "nothing")


def test_a_device_that_is_not_there(original, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(UsageError, match="no device is called 'pi'"):
        verify(original, on="pi")
    monkeypatch.setenv("EDGEKD_SSH", "ssh -F /dev/null")
    with pytest.raises(SetupError, match="cannot be reached: its name is not known"):
        verify(original, on="ssh:no-such-host.invalid")
    with pytest.raises(UsageError, match="measured here only"):
        verify(original, on="ssh:pi", task=True)


BLOCKER = """
import sys, time
blocked = {"numpy", "torch", "pydantic", "onnxruntime", "openvino", "onnx", "matplotlib", "yaml"}
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
start = time.perf_counter()
from edgekd.verify import verify
assert verify(sys.argv[1], hashes_only=True)["status"] == "passed"
assert time.perf_counter() - start < 5
"""


@pytest.mark.parametrize("form", ["small", "small.zip"])
def test_hashes_only_needs_the_standard_library_alone(original, form):
    done = subprocess.run(
        [sys.executable, "-c", BLOCKER, str(original.with_name(form))],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_hashing_a_bundle_of_usual_size_takes_well_under_a_second(tmp_path):
    weights = np.random.default_rng(0).bytes(20 << 20)
    files = {**bundles.files(), "model/model.bin": weights}
    path = write_bundle(bundles.manifest(), files, tmp_path / "large").path
    start = time.process_time()
    verify(path, hashes_only=True)
    assert time.process_time() - start < 1


# Golden outputs


def test_golden_outputs_are_given_again_in_the_bundles_own_runtime(original):
    pytest.importorskip("onnxruntime")
    for path in (original, original.with_name("small.zip")):
        events = []
        report = verify(path, emit=events.append)
        golden = report["checks"][-1]
        assert (golden["name"], golden["status"]) == ("golden outputs", "passed")
        assert golden["facts"]["output"]["n"] == bundles.SAMPLES
        assert golden["facts"]["output"]["max_abs"] < 1e-5
        assert golden["facts"]["effective"]["threads"] == 1
        assert any(re.match("chosen on .* running on ", note) for note in report["notes"])
        assert [event.kind for event in events] == ["start", "progress", "end"]


def test_an_artefact_that_gives_other_outputs_fails_with_the_worst_sample(tmp_path):
    pytest.importorskip("onnxruntime")
    path = bundles.write(tmp_path / "b", scale=1.1).path
    error = failure(path)
    assert statuses(error.report)["golden outputs"] == "failed"
    assert "golden outputs: output output: sample 4: max_rel 0.0" in str(error)


def test_an_artefact_that_gives_nan_fails(tmp_path):
    pytest.importorskip("onnxruntime")
    path = bundles.write(tmp_path / "b", broken=float("nan")).path
    error = failure(path)
    assert "NaN or infinite in 6 of 6 samples, the first is sample 0" in str(error)
    json.dumps(error.report, allow_nan=False)


class FakeAgent:
    """Stands in for the agent; ``outputs`` or an error."""

    def __init__(self, outputs=None, error=None):
        self.outputs, self.error = outputs, error

    def __call__(self, **options):
        return self

    def facts(self):
        return {**fingerprint(), "runtimes": {"onnxruntime": "1.0"}}

    def __enter__(self):
        return self

    def __exit__(self, *details):
        return None

    def load(self, runtime, model, **options):
        if self.error:
            raise self.error
        ports = {"inputs": ("input",), "outputs": ("output",)}
        named = {kind: [SimpleNamespace(name=n) for n in names] for kind, names in ports.items()}
        return SimpleNamespace(runtime=runtime, version="1.0", effective={}, **named)

    def run(self, feeds, batch):
        assert batch == 1
        return self.outputs


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ({}, "output output: the artefact does not give it"),
        ({"output": np.zeros((6, 4))}, r"shape \(6, 5\) wanted, \(6, 4\) found"),
        ({"output": np.zeros((6, 5))}, "min_cosine 0, at least 0.99999 allowed"),
        ({"output": np.full((6, 5), np.inf)}, "NaN or infinite in 6 of 6"),
    ],
)
def test_outputs_that_cannot_be_right(original, monkeypatch, outputs, said):
    monkeypatch.setattr("edgekd.device.link.Agent", FakeAgent(outputs))
    assert re.search(said, str(failure(original)))


@pytest.mark.parametrize(
    "error",
    [
        SetupError("no openvino", hint="pip install openvino"),
        RuntimeCrash("ONNX Runtime was killed by SIGSEGV"),
    ],
)
def test_a_runtime_that_is_missing_or_dies_is_no_verdict_on_the_bundle(
    original, monkeypatch, error
):
    monkeypatch.setattr("edgekd.device.link.Agent", FakeAgent(error=error))
    with pytest.raises(type(error)) as caught:
        verify(original)
    assert caught.value is error
    assert not isinstance(caught.value, VerifyError)


def test_another_version_of_the_runtime_is_noted(original, monkeypatch):
    with np.load(original / "golden.npz") as golden:
        outputs = {"output": golden["output:output"]}
    monkeypatch.setattr("edgekd.device.link.Agent", FakeAgent(outputs))
    report = verify(original)
    assert "chosen on onnxruntime 1.32.0, running on 1.0" in report["notes"]


# Task metric


@pytest.mark.parametrize(
    ("found", "status"),
    [
        ({"5-way 1-shot": 0.6874, "5-way 5-shot": 0.8268}, "passed"),
        ({"5-way 1-shot": 0.6901, "5-way 5-shot": 0.8300}, "passed"),
        ({"5-way 1-shot": 0.6874, "5-way 5-shot": 0.8100}, "failed"),
        ({"5-way 1-shot": 0.6874}, "failed"),
    ],
)
def test_the_task_metric_is_measured_again(original, monkeypatch, found, status):
    def score(manifest, folder, emit):
        assert (folder / manifest["artefact"]["main"]).is_file()
        return {name: {"value": value} for name, value in found.items()}

    module = SimpleNamespace(score_artefact=score)
    monkeypatch.setitem(sys.modules, "edgekd.tasks.score", module)
    if status == "passed":
        report = verify(original, hashes_only=True, task=True)
        assert (
            report["checks"][-1]["facts"]["metrics"]["5-way 1-shot"]["value"]
            == found["5-way 1-shot"]
        )
    else:
        report = failure(original, hashes_only=True, task=True).report
    assert statuses(report) == {"files": "passed", "manifest": "passed", "task metric": status}


def test_a_damaged_artefact_is_not_run(bundle, monkeypatch):
    flip(bundle / "model" / "model.onnx", 3)
    monkeypatch.setattr("edgekd.device.link.Agent", FakeAgent(error=AssertionError("was run")))
    report = failure(bundle, task=True).report
    assert statuses(report) == {
        "files": "failed",
        "manifest": "passed",
        "runs as recorded": "not_run",
        "golden outputs": "not_run",
        "task metric": "not_run",
    }
    assert report["checks"][-1]["facts"]["why"] == "the bundle failed before: files"
    said = dict(lines(report))
    assert said["files"].startswith("failed: model/model.onnx: changed")
    assert said["task metric"] == "not run: the bundle failed before: files"


def test_a_report_in_words(original, monkeypatch):
    with np.load(original / "golden.npz") as golden:
        outputs = {"output": golden["output:output"]}
    monkeypatch.setattr("edgekd.device.link.Agent", FakeAgent(outputs))
    metrics = {"5-way 1-shot": {"value": 0.6874}, "5-way 5-shot": {"value": 0.8268}}
    module = SimpleNamespace(score_artefact=lambda *arguments: metrics)
    monkeypatch.setitem(sys.modules, "edgekd.tasks.score", module)
    assert lines(verify(original, task=True))[2:7] == [
        ("files", "passed, 9 files"),
        ("manifest", "passed"),
        ("runs as recorded", "passed"),
        ("golden outputs", "passed: output max_abs 0, min_cosine 1.000000"),
        ("task metric", "passed: 5-way 1-shot 0.6874, 5-way 5-shot 0.8268"),
    ]
