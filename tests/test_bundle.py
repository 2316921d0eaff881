from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgekd.bundle import (
    audit,
    check_place,
    manifest,
    open_bundle,
    place_bundle,
    unchanged,
    write,
    write_bundle,
)
from edgekd.errors import SetupError, StageError, UsageError, VerifyError
from tests import bundles, fakes

FIXTURE = Path(__file__).parent / "fixtures" / "manifest_v1.json"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out" / "mobilevit-cpu"


def names(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def listed(folder):
    return sorted(path.name for path in folder.iterdir())


def pack(path, entries):
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in entries:
            archive.writestr(entry, content)
    return path


# Writing


def test_a_bundle_is_a_folder_and_a_zip_of_it(out):
    bundle = bundles.write(out)
    assert names(out) == [
        "README.md",
        "SHA256SUMS",
        "THIRD_PARTY_NOTICES.md",
        "enroll.py",
        "golden.npz",
        "manifest.json",
        "model/model.onnx",
        "report.html",
        "state.npz",
    ]
    with zipfile.ZipFile(out.with_name("mobilevit-cpu.zip")) as archive:
        assert sorted(archive.namelist()) == [f"mobilevit-cpu/{name}" for name in names(out)]
    assert listed(out.parent) == ["mobilevit-cpu", "mobilevit-cpu.zip"]
    assert bundle.path == out
    assert stat.S_IMODE(out.stat().st_mode) & 0o055 == 0o055 & ~current_umask()


def current_umask():
    value = os.umask(0)
    os.umask(value)
    return value


def test_the_manifest_lists_every_file_but_itself_and_the_sums(out):
    bundle = bundles.write(out)
    listed = bundle.manifest["files"]
    assert sorted(listed) == sorted({*names(out)} - {"manifest.json", "SHA256SUMS"})
    for name, digest in listed.items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest


def test_the_digest_is_that_of_the_sums(out):
    bundle = bundles.write(out)
    assert bundle.digest == hashlib.sha256((out / "SHA256SUMS").read_bytes()).hexdigest()


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum")
def test_sha256sum_accepts_the_sums(out):
    bundles.write(out)
    done = subprocess.run(
        ["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=out, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b": OK\n") == len(names(out)) - 1


def test_equal_input_gives_equal_bytes_wherever_it_is_written(tmp_path):
    first, second = bundles.write(tmp_path / "a"), bundles.write(tmp_path / "b" / "c")
    assert first.digest == second.digest
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b" / "c.zip").read_bytes()


def test_a_copy_is_the_same_byte_for_byte(out, tmp_path):
    bundle = bundles.write(out)
    for source in (out, out.with_name("mobilevit-cpu.zip")):
        copy = place_bundle(source, tmp_path / source.name / "copy")
        assert copy.digest == bundle.digest
        assert (
            copy.path.with_name("copy.zip").read_bytes()
            == out.with_name("mobilevit-cpu.zip").read_bytes()
        )


def test_a_damaged_bundle_is_not_copied(out, tmp_path):
    bundles.write(out)
    (out / "state.npz").write_bytes(b"")
    with pytest.raises(VerifyError, match=r"state\.npz"):
        place_bundle(out, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_given_texts_are_kept(out):
    write_bundle(bundles.manifest(), {**bundles.files(), "README.md": b"mine"}, out)
    assert (out / "README.md").read_bytes() == b"mine"


def test_what_is_not_known_is_null(out):
    value = bundles.manifest()
    value["rows"][0]["metrics"]["5-way 5-shot"]["low"] = float("nan")
    bundle = write_bundle(value, bundles.files(), out)
    assert bundle.manifest["rows"][0]["metrics"]["5-way 5-shot"]["low"] is None


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../b", "a\\b", "a//b", "a b", "", "manifest.json"]
)
def test_names_that_cannot_stand_in_a_bundle(out, name):
    with pytest.raises(StageError, match="no names"):
        write_bundle(bundles.manifest(), {**bundles.files(), name: b""}, out)


def test_an_absent_file_is_named(out):
    with pytest.raises(StageError, match=r"gone\.txt"):
        write_bundle(bundles.manifest(), {**bundles.files(), "x": Path("gone.txt")}, out)


def test_a_wrong_manifest_is_not_written(out):
    value = bundles.manifest()
    value["rows"][0]["params"] = "many"
    value["artefact"]["main"] = "model/other.onnx"
    del value["choice"]["rule"]
    with pytest.raises(StageError) as caught:
        write_bundle(value, bundles.files(), out)
    assert "rows[0].params: a whole number from 0 wanted, 'many' found" in str(caught.value)
    assert "choice.rule: missing" in str(caught.value)
    assert names(out.parent) == []


# Where a bundle may be written


def test_an_older_bundle_is_replaced_as_a_whole(out):
    write_bundle(bundles.manifest(), {**bundles.files(), "old.txt": b"old"}, out)
    bundle = bundles.write(out)
    assert "old.txt" not in names(out)
    assert audit(out).faults == ()
    assert audit(out.with_name("mobilevit-cpu.zip")).digest == bundle.digest
    assert listed(out.parent) == ["mobilevit-cpu", "mobilevit-cpu.zip"]


def test_replacing_works_where_folders_cannot_be_exchanged(out, monkeypatch):
    monkeypatch.setattr(write, "_exchange", lambda one, other: False)
    write_bundle(bundles.manifest(), {**bundles.files(), "old.txt": b"old"}, out)
    bundles.write(out)
    assert "old.txt" not in names(out)
    assert listed(out.parent) == ["mobilevit-cpu", "mobilevit-cpu.zip"]


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is Linux's")
def test_linux_exchanges_folders_in_one_step(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert write._exchange(tmp_path / "a", tmp_path / "b")
    assert names(tmp_path) == ["a/b", "b/a"]


def test_an_empty_folder_is_taken(out):
    out.mkdir(parents=True)
    bundles.write(out)
    assert audit(out).faults == ()


def test_what_python_cached_is_no_obstacle(out):
    bundles.write(out)
    (out / "__pycache__").mkdir()
    (out / "__pycache__" / "enroll.cpython-311.pyc").touch()
    bundles.write(out)
    assert audit(out).faults == ()


def foreign_folder(out):
    out.mkdir(parents=True)
    (out / "thesis.tex").touch()
    return "thesis.tex"


def foreign_manifest(out):
    out.mkdir(parents=True)
    (out / "manifest.json").write_text('{"name": "web extension"}')
    return "manifest.json"


def foreign_file_in_ours(out):
    bundles.write(out)
    (out / "model" / "notes.txt").touch()
    return "model/notes.txt"


def foreign_archive(out):
    out.parent.mkdir(parents=True)
    pack(out.with_name("mobilevit-cpu.zip"), [("photos/1.jpg", b"")])
    return "mobilevit-cpu.zip"


def plain_file(out):
    out.parent.mkdir(parents=True)
    out.touch()
    return "mobilevit-cpu"


def link(out):
    (out.parent / "real").mkdir(parents=True)
    out.symlink_to("real")
    return "mobilevit-cpu"


@pytest.mark.parametrize(
    "prepare",
    [foreign_folder, foreign_manifest, foreign_file_in_ours, foreign_archive, plain_file, link],
)
def test_nothing_that_edgekd_did_not_write_is_overwritten(out, prepare):
    stranger = prepare(out)
    before = {p: p.read_bytes() for p in out.parent.rglob("*") if p.is_file()}
    for attempt in (bundles.write, check_place):
        with pytest.raises(UsageError) as caught:
            attempt(out)
        assert caught.value.exit_code == 2
        assert stranger in caught.value.what
        assert "--out" in caught.value.hint
    assert {p: p.read_bytes() for p in out.parent.rglob("*") if p.is_file()} == before


def test_the_same_bundle_is_found_again(out):
    bundles.write(out)
    later = bundles.manifest()
    later["measured"]["when"] = "2031-01-01T00:00:00+00:00"
    assert unchanged(later, out).path == out
    later["claims"] = ["another"]
    assert unchanged(later, out) is None
    (out / "report.html").write_bytes(b"")
    assert unchanged(bundles.manifest(), out) is None


@pytest.mark.parametrize("damage", ["manifest.json", "SHA256SUMS"])
def test_a_damaged_bundle_is_not_the_same(out, damage):
    bundles.write(out)
    (out / damage).write_bytes(b"{")
    assert unchanged(bundles.manifest(), out) is None


# Failures on the way


@pytest.mark.parametrize("call", range(0, 16, 3))
@pytest.mark.parametrize("older", [False, True])
def test_a_full_disk_leaves_nothing_half_written(out, monkeypatch, call, older):
    out.parent.mkdir()
    if older:
        write_bundle(bundles.manifest(), {**bundles.files(), "old.txt": b"old"}, out)
    before = {name: (out.parent / name).read_bytes() for name in names(out.parent)}
    fail_at(monkeypatch, call)
    with pytest.raises(SetupError, match="disk is full") as caught:
        bundles.write(out)
    assert caught.value.exit_code == 4
    assert {name: (out.parent / name).read_bytes() for name in names(out.parent)} == before
    assert not [name for name in listed(out.parent) if name.startswith(".")]


def fail_at(monkeypatch, call):
    """Let the n-th of all writes, copies and syncs find the disk full."""
    calls = iter(range(10**6))

    def failing(function):
        def call_or_fail(*args, **kwargs):
            if next(calls) == call:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return function(*args, **kwargs)

        return call_or_fail

    monkeypatch.setattr(Path, "write_bytes", failing(Path.write_bytes))
    monkeypatch.setattr(shutil, "copyfile", failing(shutil.copyfile))
    monkeypatch.setattr(shutil, "copyfileobj", failing(shutil.copyfileobj))
    monkeypatch.setattr(os, "fsync", failing(os.fsync))


@pytest.fixture
def small_disk(tmp_path):
    """A file system with room for about half a bundle."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount a file system here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_is_really_full(small_disk):
    with pytest.raises(SetupError, match="disk is full"):
        bundles.write(small_disk / "bundle")
    assert listed(small_disk) == []


def test_an_interrupt_leaves_nothing(out, monkeypatch):
    def interrupted(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(write, "_sync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bundles.write(out)
    assert listed(out.parent) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(SetupError, match="cannot write") as caught:
        bundles.write(Path("/proc/edgekd/bundle"))
    assert "--out" in caught.value.hint
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="cannot write"):
        bundles.write(tmp_path / "file" / "bundle")


# Reading


def test_a_zip_opens_as_a_folder(out):
    bundle = bundles.write(out)
    with open_bundle(out.with_name("mobilevit-cpu.zip")) as opened:
        assert names(opened.path) == names(out)
        assert (opened.digest, opened.manifest) == (bundle.digest, bundle.manifest)
        folder = opened.path
    assert not folder.exists()


@pytest.mark.parametrize("prefix", ["", "renamed/"])
def test_a_zip_packed_by_another_program_opens_too(out, tmp_path, prefix):
    bundle = bundles.write(out)
    entries = [(prefix + name, (out / name).read_bytes()) for name in names(out)]
    with open_bundle(pack(tmp_path / "other.zip", entries)) as opened:
        assert opened.digest == bundle.digest


@pytest.mark.parametrize(
    ("path", "said"),
    [("nothing", "no such bundle"), ("folder", r"no manifest\.json"), ("text", "neither")],
)
def test_what_is_no_bundle(tmp_path, path, said):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("text")
    with pytest.raises(UsageError, match=said), open_bundle(tmp_path / path):
        pass


def linked(name):
    entry = zipfile.ZipInfo(name)
    entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(
    "entry", ["b/../../evil", "/evil", "b\\..\\evil", "C:/evil", linked("b/link")], ids=str
)
def test_a_zip_that_leads_out_of_its_folder_is_refused(tmp_path, entry):
    entries = [("b/manifest.json", FIXTURE.read_bytes()), (entry, b"/etc/passwd")]
    path = pack(tmp_path / "evil.zip", entries)
    with pytest.raises(VerifyError, match="refused to unpack"), open_bundle(path):
        pass
    name = getattr(entry, "filename", entry)
    refused = [f.file for f in audit(path).faults if f.kind == "refused"]
    assert refused == [name.removeprefix("b/")]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_with_two_files_of_one_name_is_refused(tmp_path):
    entries = [("b/manifest.json", FIXTURE.read_bytes()), ("b/x", b"1"), ("b/x", b"2")]
    path = pack(tmp_path / "double.zip", entries)
    assert {(f.file, f.detail) for f in audit(path).faults} >= {("x", "stands twice")}


# The manifest


def test_a_manifest_of_version_1_stays_readable():
    value = manifest.parse(FIXTURE.read_bytes(), "fixture")
    assert value["schema_version"] == manifest.SCHEMA_VERSION
    assert manifest.faults(value) == []


def test_the_text_of_a_manifest_is_canonical():
    raw = FIXTURE.read_text(encoding="utf-8")
    assert manifest.render(json.loads(raw)) == raw
    assert max(map(len, raw.splitlines())) < 400


def test_older_versions_are_lifted_one_by_one(monkeypatch):
    monkeypatch.setattr(manifest, "SCHEMA_VERSION", 3)
    steps = {1: lambda m: {**m, "one": True}, 2: lambda m: {**m, "two": m["one"]}}
    monkeypatch.setattr(manifest, "UPGRADES", steps)
    value = manifest.parse(b'{"schema_version": 1}', "x")
    assert value == {"schema_version": 3, "one": True, "two": True}


def test_every_older_version_has_an_upgrade():
    assert sorted(manifest.UPGRADES) == list(range(1, manifest.SCHEMA_VERSION))


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'{"schema_version": 99}', "has schema_version 99; this edgekd reads 1 to 1"),
        (b'{"schema_version": true}', "no schema_version"),
        (b"[]", "no schema_version"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b"\xff", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
    ],
)
def test_a_manifest_that_cannot_be_used_says_why(raw, said):
    with pytest.raises(VerifyError, match=said) as caught:
        manifest.parse(raw, "manifest.json")
    assert ("upgrade" in (caught.value.hint or "")) == (b"99" in raw)


def damaged(change):
    value = json.loads(FIXTURE.read_bytes())
    change(value)
    return manifest.faults(value)


CHANGES = [
    (lambda m: m.pop("rows"), "rows: missing"),
    (lambda m: m.update(rows=[]), "rows: a list of 1 or more wanted, [] found"),
    (lambda m: m["rows"][0].update(kind="pupil"), "rows[0].kind: trivial or"),
    (lambda m: m["rows"][1]["latency"].pop("n"), "rows[1].latency.n: missing"),
    (
        lambda m: m["rows"][0].update(latency={"not_run": ""}),
        "rows[0].latency.not_run: text wanted",
    ),
    (lambda m: m["rows"][0].update(shipped=True), "rows: one row is shipped, found 2"),
    (lambda m: m["rows"][0].update(id="teacher"), "rows: id 'teacher' stands twice"),
    (lambda m: m["rows"][0].update(primary="luck"), "rows[0].primary: no metric 'luck'"),
    (
        lambda m: m["rows"][0]["metrics"]["5-way 1-shot"].update(low=0.9),
        "rows[0].metrics.5-way 1-shot: low 0.9 is above",
    ),
    (lambda m: m["parity"][2].update(max_rel=1), "parity[2]: torch → ov-f32 passed, but is beyond"),
    (lambda m: m["ladder"].pop(), "ladder: the rungs are exported, parity fp32"),
    (lambda m: m["ladder"][7].update(why=""), "ladder[7].why: within budget is not_run without"),
    (lambda m: m["golden"].update(tolerance={}), "golden.tolerance: one of max_abs, max_rel"),
    (lambda m: m["files"].pop("golden.npz"), "golden.file: golden.npz is not among the files"),
    (lambda m: m["files"].update(x="12"), "files.x: a sha256 in hex wanted, '12' found"),
    (lambda m: m["artefact"].update(main="../x"), "artefact.main: a relative file name of plain"),
    (
        lambda m: m["artefact"].update(bytes=True),
        "artefact.bytes: a whole number from 0 wanted, True",
    ),
    (lambda m: m.update(claims=["", 1]), "claims[1]: text wanted, 1 found"),
    (
        lambda m: m["measured"].update(machine=None),
        "measured.machine: an object wanted, None found",
    ),
]


@pytest.mark.parametrize(("change", "said"), CHANGES, ids=[said for _, said in CHANGES])
def test_what_is_wrong_with_a_manifest_is_named(change, said):
    assert [fault for fault in damaged(change) if fault.startswith(said)]


def test_all_faults_of_a_manifest_are_listed_at_once():
    def change(value):
        value["claims"] = "none"
        del value["name"]
        value["rows"][0]["params"] = -1

    assert len(damaged(change)) == 3


# The texts


def snippet(folder):
    text = (folder / "README.md").read_text(encoding="utf-8")
    return re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]


def test_the_lines_in_the_readme_run(out):
    pytest.importorskip("onnxruntime")
    bundles.write(out)
    done = subprocess.run(
        [sys.executable, "-c", snippet(out)], cwd=out, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    error, classes = done.stdout.splitlines()
    assert float(error) < 1e-5
    assert classes.startswith("['first', 'second', ")
    assert audit(out).faults == ()


def test_the_lines_for_openvino_run(out):
    pytest.importorskip("openvino")
    value, files = bundles.manifest(), bundles.files()
    value["artefact"] |= {"runtime": "openvino", "options": {"precision": "f32"}}
    value["state"] = None
    write_bundle(value, files, out)
    assert "enroll" not in snippet(out)
    done = subprocess.run(
        [sys.executable, "-c", snippet(out)], cwd=out, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-4


def test_the_readme_names_every_file_and_every_claim(out):
    bundles.write(out)
    text = (out / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in names(out))
    assert all(claim in text for claim in fakes.manifest()["claims"])
    assert "edgekd verify" in text


def test_a_runtime_without_snippet_says_so(out):
    value = bundles.manifest()
    value["artefact"]["runtime"] = "tensorrt"
    write_bundle(value, bundles.files(), out)
    assert "tensorrt" in snippet(out)


def test_the_notices_name_the_teachers_licence(out):
    value = bundles.manifest()
    value["inputs"]["teacher"]["license"] = None
    write_bundle(value, bundles.files(), out)
    assert "no licence was named" in (out / "THIRD_PARTY_NOTICES.md").read_text(encoding="utf-8")
