from __future__ import annotations

import json
import shutil
import tarfile

import numpy as np
import pytest

from edgekd.data import build_icons as builder
from edgekd.data import icons as embedded
from edgekd.data.build_icons import build_icons, cosines, distinct
from edgekd.data.icon_groups import words
from edgekd.errors import DataError, SetupError

FILES = ("icons.npz", "icons_sources.json", "ICONS_LICENSES.md")
NAMES = ("anchor", "bug", "crown", "dog", "elk", "fox", "goat", "hat", "ink", "jar", "kite", "lamp")


def body(name, number):
    """A drawing that depends on both: no two are near-duplicates."""
    rng = np.random.default_rng([number, *name.encode()])
    return "".join(
        f'<rect x="{x}" y="{y}" width="2" height="2" fill="currentColor"/>'
        for x in range(0, 16, 2)
        for y in range(0, 16, 2)
        if rng.random() < 0.5
    )


def icon_set(number, names=NAMES):
    icons = {name: {"body": body(name, number)} for name in names}
    icons["google"] = {"body": body("google", number)}
    icons["blank"] = {"body": ""}
    icons["same"] = {"body": body("same", 0)}
    return {
        "prefix": f"set{number:02d}",
        "icons": icons,
        "aliases": {"alias": {"parent": "anchor"}},
        "width": 16,
        "height": 16,
    }


def info(number, **changed):
    return {
        "name": f"Set {number}",
        "author": {"name": f"Author {number}", "url": "https://example.org"},
        "license": {"title": "MIT", "spdx": "MIT", "url": "https://example.org/licence"},
        "category": "UI 24px",
        **changed,
    }


def package(root, sets=18):
    """Write a package of small sets, some of which must not be used."""
    collections = {f"set{number:02d}": info(number) for number in range(sets)}
    collections["set90"] = info(90, license={"title": "GPL", "spdx": "GPL-3.0"})
    collections["set91"] = info(91, category="Logos")
    collections["set92"] = info(92, tags=["Contains Animations"])
    (root / "json").mkdir(parents=True)
    for prefix in collections:
        content = icon_set(int(prefix[3:]))
        (root / "json" / f"{prefix}.json").write_text(json.dumps(content))
    (root / "collections.json").write_text(json.dumps(collections))
    return root


@pytest.fixture
def unpinned(monkeypatch):
    pytest.importorskip("resvg_py")
    monkeypatch.setattr(builder, "_check_digest", lambda digests, root: None)


def read(path):
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def test_only_permitted_sets_and_real_classes_are_used(tmp_path, unpinned):
    lines = []
    facts = build_icons(package(tmp_path / "in"), tmp_path / "out", lines.append)
    stored = read(tmp_path / "out" / "icons.npz")
    assert stored["classes"].tolist() == sorted(NAMES)
    assert stored["sources"].tolist() == [f"set{number:02d}" for number in range(18)]
    assert facts["sets"] == 18 and sum(facts["classes"].values()) == len(NAMES)
    assert set(facts["classes"]) == {"train", "val", "test"} and facts["classes"]["test"] == 3
    assert sum(facts["images"].values()) == len(stored["labels"]) == 18 * len(NAMES)
    assert any("18 sets" in line for line in lines)
    table = json.loads((tmp_path / "out" / "icons_sources.json").read_text())
    assert table["set03"]["author"] == "Author 3" and table["set03"]["images"] == len(NAMES)
    notices = (tmp_path / "out" / "ICONS_LICENSES.md").read_text()
    assert "Permission is hereby granted" in notices and "Set 90" not in notices


def test_the_drawing_is_white_on_black_in_sixteen_levels(tmp_path, unpinned):
    build_icons(package(tmp_path / "in"), tmp_path / "out", lambda line: None)
    stored = read(tmp_path / "out" / "icons.npz")
    row = np.flatnonzero((stored["labels"] == 0) & (stored["source"] == 2))[0]
    drawn = np.zeros((64, 64), np.uint8)
    drawn[:, 0::2], drawn[:, 1::2] = stored["pixels"][row] >> 4, stored["pixels"][row] & 15
    rng = np.random.default_rng([2, *b"anchor"])
    cells = np.array([[rng.random() < 0.5 for _ in range(8)] for _ in range(8)]).T
    assert np.array_equal(drawn, np.kron(cells, np.ones((8, 8))) * 15)


def test_folder_and_tarball_give_the_same_bytes(tmp_path, unpinned):
    root = package(tmp_path / "in")
    with tarfile.open(tmp_path / "in.tgz", "w:gz") as tar:
        for path in sorted(root.rglob("*.json"), reverse=True):
            tar.add(path, f"package/{path.relative_to(root)}")
    facts = [
        build_icons(given, tmp_path / f"out{number}", lambda line: None)
        for number, given in enumerate((root, root, tmp_path / "in.tgz"))
    ]
    assert facts[0] == facts[1] == facts[2]
    for name in FILES:
        contents = {(tmp_path / f"out{number}" / name).read_bytes() for number in range(3)}
        assert len(contents) == 1


def test_another_version_of_the_package_is_refused(tmp_path):
    pytest.importorskip("resvg_py")
    with pytest.raises(DataError, match=r"files' digest is .* wanted"):
        build_icons(package(tmp_path / "in"), tmp_path / "out", lambda line: None)


@pytest.mark.parametrize("given", ["absent.tgz", "empty", "text.tgz"])
def test_a_wrong_package_is_named(tmp_path, given):
    pytest.importorskip("resvg_py")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tgz").write_text("no")
    with pytest.raises(DataError) as caught:
        build_icons(tmp_path / given, tmp_path / "out", lambda line: None)
    assert given in str(caught.value.at) and "npm pack" in str(caught.value.hint)


def test_npm_must_be_there(tmp_path, monkeypatch):
    pytest.importorskip("resvg_py")
    monkeypatch.setattr(builder.shutil, "which", lambda name: None)
    with pytest.raises(SetupError, match="npm is not on PATH"):
        build_icons(None, tmp_path, lambda line: None)


def test_another_renderer_is_refused(tmp_path, monkeypatch):
    renderer = pytest.importorskip("resvg_py")
    monkeypatch.setattr(renderer, "__version__", "9.9")
    with pytest.raises(SetupError, match=r"resvg-py 9\.9 found, wanted"):
        build_icons(None, tmp_path, lambda line: None)


def test_cosines_are_exact_and_distinct_keeps_the_first():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 16, (5, 64, 64), np.uint8)
    pixels[3] = pixels[1]
    pixels[3, 0, 0] ^= 1
    flat = pixels.reshape(5, -1).astype(object)
    wanted = [[int(a @ b) / (int(a @ a) * int(b @ b)) ** 0.5 for b in flat] for a in flat]
    assert np.abs(cosines(pixels, pixels) - np.array(wanted)).max() < 1e-15
    assert distinct(pixels) == [0, 1, 2, 4]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("gears", ["gear"]),
        ("glasses", ["glasse"]),
        ("compass", ["compass"]),
        ("arrow-up-left", ["arrow"]),
        ("eye-off", ["eye"]),
        ("gas", ["gas"]),
        ("up", []),
    ],
)
def test_words(name, found):
    assert list(words(name)) == found


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_embedded_file_is_what_npm_gives(tmp_path):
    pytest.importorskip("resvg_py")
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed: apt-get install npm")
    facts = build_icons(None, tmp_path, lambda line: None)
    assert facts["classes"] == {"train": 240, "val": 46, "test": 106}
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (embedded.FOLDER / name).read_bytes(), name
