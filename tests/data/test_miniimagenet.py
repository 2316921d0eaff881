"""All eight layouts, written here in the documented formats."""

from __future__ import annotations

import csv
import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekd.data.base import check_episodes
from edgekd.data.sniff import load
from edgekd.errors import DataError, SetupError

LONG = {"train": "train", "val": "validation", "test": "test"}


def every(world, split):
    return [(name, index) for name in world.classes[split] for index in range(world.per_class)]


def write_csv(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def ravi(root, world, names=None):
    for split in world.classes:
        rows = []
        for name, index in every(world, split):
            file = f"{name}{index + 1:08d}.jpg"
            world.save(root / "images" / file, name, index)
            rows.append((file, name))
        stem = (names or {}).get(split, split)
        write_csv(root / f"{stem}.csv", ("filename", "label"), rows)


def ravi_long(root, world):
    ravi(root, world, LONG)


def mmfewshot(root, world):
    for split in world.classes:
        rows = []
        for name, index in every(world, split):
            number = (index + 8) * 3  # 24, 27, 30, …: order of numbers, and not of names
            world.save(root / "images" / name / f"{name}_{number * number}.JPEG", name, index)
            rows.append((f"{name}{index + 1:08d}.jpg", name))
        write_csv(root / f"{split}.csv", ("filename", "label"), rows)


def easyfsl(root, world):
    for split in world.classes:
        rows = []
        for name, index in every(world, split):
            file = f"{name}_{index * 37 + 5}.JPEG"
            world.save(root / name / file, name, index)
            rows.append((name, file))
        write_csv(root / f"{split}.csv", ("class_name", "image_name"), rows)


def folders(root, world):
    for split in world.classes:
        for name, index in every(world, split):
            world.save(root / split / name / f"{index}.jpg", name, index)


def easy_set(root, world):
    for split, names in world.classes.items():
        for name, index in every(world, split):
            world.save(root / "pictures" / name / f"{index}.jpg", name, index)
        roots = [f"pictures/{name}" for name in names]
        content = {"class_names": names, "class_roots": roots}
        (root / f"{split}.json").write_text(json.dumps(content))


def cache(root, world, names=None):
    root.mkdir(exist_ok=True)
    for split in world.classes:
        pairs = every(world, split)
        data = np.stack([world.pixels(name, index) for name, index in pairs])
        members = {}
        for row, (name, _) in enumerate(pairs):
            members.setdefault(name, []).append(row)
        stem = (names or {}).get(split, split)
        content = {"image_data": data, "class_dict": members}
        (root / f"mini-imagenet-cache-{stem}.pkl").write_bytes(pickle.dumps(content))


def cache_long(root, world):
    cache(root, world, LONG)


def easy(root, world):
    root.mkdir(exist_ok=True)
    for split, names in world.classes.items():
        pairs = every(world, split)
        content = {
            "data": [world.pixels(name, index) for name, index in pairs],
            "labels": [names.index(name) for name, _ in pairs],
        }
        (root / f"{LONG[split]}.pkl").write_bytes(pickle.dumps(content, 2))


def hdf5(root, world):
    h5py = pytest.importorskip("h5py")
    root.mkdir(exist_ok=True)
    for split, names in world.classes.items():
        with h5py.File(root / f"{split}_data.hdf5", "w") as file:
            group = file.create_group("datasets")
            for name in names:
                data = [world.pixels(name, index) for index in range(world.per_class)]
                group.create_dataset(name, data=np.stack(data))
        (root / f"{split}_labels.json").write_text(json.dumps(sorted(names)))


def brain_train(root, world):
    sets = {}
    for split, names in world.classes.items():
        data, targets = [], []
        for name, index in every(world, split):
            file = f"miniimagenetimages/images/{name}{index:08d}.jpg"
            world.save(root / file, name, index)
            data.append(file)
            targets.append(names.index(name))
        sets[f"miniimagenet_{LONG[split]}"] = {
            "data": data,
            "targets": targets,
            "name": f"miniimagenet_{LONG[split]}",
            "num_classes": len(names),
            "name_classes": list(names),
            "num_elements_per_class": [world.per_class] * len(names),
        }
    sets["mnist_train"] = {"num_classes": 10, "num_elements_per_class": [1]}
    (root / "datasets.json").write_text(json.dumps(sets))


LAYOUTS = {
    "Ravi & Larochelle CSV": ravi,
    "mmfewshot CSV": mmfewshot,
    "easyfsl CSV": easyfsl,
    "class folders": folders,
    "EasySet JSON": easy_set,
    "pickle cache": cache,
    "EASY pickle": easy,
    "torchmeta HDF5": hdf5,
    "brain-train JSON": brain_train,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_is_found_by_content_and_read_whole(tmp_path, world, no_decoding, layout):
    root = tmp_path / "any-name"
    LAYOUTS[layout](root, world)
    splits = load(root, size=16)
    no_decoding.undo()
    assert splits.facts["source"] == layout
    assert splits.facts["classes"] == {"train": 4, "val": 3, "test": 3}
    assert splits.facts["images"] == {"train": 20, "val": 15, "test": 15}
    assert splits.facts["files"] and all(Path(f).exists() for f in splits.facts["files"])
    for split, images in splits:
        world.check(images, split, named=layout != "EASY pickle")
        assert images.take([0, 3]).shape == (2, 16, 16, 3)
        check_episodes(images.labels, images.classes, 3, 1, 4)
    names = [set(images.classes) for _, images in splits]
    assert not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2])


@pytest.mark.parametrize("write", [ravi_long, cache_long])
def test_a_split_may_be_called_validation(tmp_path, world, write):
    write(tmp_path, world)
    splits = load(tmp_path, size=16)
    world.check(splits.val, "val")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_serves_classification(tmp_path, world, layout):
    LAYOUTS[layout](tmp_path / "x", world)
    splits = load(tmp_path / "x", size=16, kind="classification", fractions=(0.6, 0.2, 0.2))
    assert splits.facts["classes"] == {"train": 10, "val": 10, "test": 10}
    assert splits.facts["images"] == {"train": 30, "val": 10, "test": 10}
    assert "pooled" in splits.note
    digests = [set(images.digests()) for _, images in splits]
    assert not (digests[0] & digests[1] or digests[0] & digests[2] or digests[1] & digests[2])


@pytest.mark.parametrize("layout", ["Ravi & Larochelle CSV", "pickle cache", "torchmeta HDF5"])
def test_imagenet_classes_carry_a_leak_note(tmp_path, world, layout):
    LAYOUTS[layout](tmp_path / "x", world)
    assert "ImageNet" in load(tmp_path / "x", size=16).note


def test_numbered_classes_are_said_to_be_unchecked(tmp_path, world):
    easy(tmp_path, world)
    splits = load(tmp_path, size=16)
    assert "not checked" in splits.note
    assert splits.test.classes == ("test-0", "test-1", "test-2")


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "class folders"])
def test_a_missing_split_is_named(tmp_path, world, layout):
    root = tmp_path / "x"
    LAYOUTS[layout](root, world)
    if layout == "brain-train JSON":
        sets = json.loads((root / "datasets.json").read_text())
        del sets["miniimagenet_validation"]
        (root / "datasets.json").write_text(json.dumps(sets))
    else:
        for path in [p for p in root.iterdir() if p.is_file() and "val" in p.stem]:
            path.unlink()
    with pytest.raises(DataError, match="split 'val' is missing; found") as caught:
        load(root, size=16)
    assert caught.value.at == str(root)


@pytest.mark.parametrize("write", [ravi, cache, hdf5, easy_set])
def test_two_files_for_a_split_are_refused(tmp_path, world, write):
    write(tmp_path, world)
    for path in [p for p in tmp_path.iterdir() if p.is_file() and "val" in p.name]:
        (tmp_path / path.name.replace("val", "validation")).write_bytes(path.read_bytes())
    with pytest.raises(DataError, match="two files for split 'val'"):
        load(tmp_path, size=16)


def test_a_table_of_unknown_header_is_refused(tmp_path, world):
    ravi(tmp_path, world)
    (tmp_path / "val.csv").write_text("path,category\na.jpg,b\n")
    with pytest.raises(DataError, match="unknown header 'path,category'") as caught:
        load(tmp_path, size=16)
    assert caught.value.at == str(tmp_path / "val.csv")
    assert "filename,label" in str(caught.value.hint)
    (tmp_path / "val.csv").write_text("")
    with pytest.raises(DataError, match="unknown header ''"):
        load(tmp_path, size=16)


def test_a_table_with_byte_order_mark_and_windows_ends_is_read(tmp_path, world):
    ravi(tmp_path, world)
    for path in tmp_path.glob("*.csv"):
        content = path.read_text().replace("\n", "\r\n").replace("filename", "Filename")
        path.write_bytes(b"\xef\xbb\xbf" + content.encode() + b"\r\n")
    world.check(load(tmp_path, size=16).test, "test")


def test_a_table_with_a_short_line_is_refused(tmp_path, world):
    ravi(tmp_path, world)
    with (tmp_path / "test.csv").open("a") as file:
        file.write("alone.jpg\n")
    with pytest.raises(DataError, match="line 17 has 1 columns"):
        load(tmp_path, size=16)


def test_a_table_in_another_encoding_is_refused(tmp_path, world):
    ravi(tmp_path, world)
    (tmp_path / "val.csv").write_bytes(b"filename,label\n\xff\xfe,b\n")
    with pytest.raises(DataError, match="cannot read the CSV file"):
        load(tmp_path, size=16)


@pytest.mark.parametrize("write", [ravi, easyfsl])
def test_a_missing_image_is_named_with_its_line(tmp_path, world, write):
    write(tmp_path, world)
    name = world.classes["test"][1]
    gone = min(tmp_path.rglob(f"{name}*.[jJ]*"), key=lambda path: (len(path.name), path.name))
    gone.unlink()
    with pytest.raises(DataError, match="image of line 7 is missing") as caught:
        load(tmp_path, size=16)
    assert gone.name in str(caught.value) and caught.value.at == str(tmp_path / "test.csv")


def test_a_count_beyond_the_class_is_refused(tmp_path, world):
    mmfewshot(tmp_path, world)
    name = world.classes["val"][0]
    next(iter((tmp_path / "images" / name).iterdir())).unlink()
    with pytest.raises(DataError, match=f"is image 5 of class '{name}', which has 4 files"):
        load(tmp_path, size=16)


def test_mixed_tables_are_refused(tmp_path, world):
    ravi(tmp_path, world)
    name = world.classes["test"][0]
    world.save(tmp_path / "images" / name / "a.jpg", name, 0)
    write_csv(tmp_path / "test.csv", ("class_name", "image_name"), [(name, "a.jpg")])
    with pytest.raises(DataError, match="mix layouts: Ravi & Larochelle CSV, easyfsl CSV"):
        load(tmp_path, size=16)


class Hostile:
    def __reduce__(self):
        return os.system, ("true",)


def test_a_hostile_pickle_is_refused(tmp_path, world):
    cache(tmp_path, world)
    path = tmp_path / "mini-imagenet-cache-val.pkl"
    path.write_bytes(pickle.dumps({"image_data": Hostile(), "class_dict": {}}))
    with pytest.raises(DataError, match=r"asks for \w+\.system") as caught:
        load(tmp_path, size=16)
    assert caught.value.at == str(path)


def test_a_truncated_pickle_is_named(tmp_path, world):
    cache(tmp_path, world)
    path = tmp_path / "mini-imagenet-cache-test.pkl"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match="damaged or cut short") as caught:
        load(tmp_path, size=16)
    assert caught.value.at == str(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "unknown content: a list"),
        ({"x": 1}, "unknown content: a dict with keys x"),
        ({}, "keys none"),
        ({"data": np.zeros((2, 4, 4, 3)), "labels": [0, 1]}, "images are float64"),
        ({"data": np.zeros((2, 4, 4), np.uint8), "labels": [0, 1]}, r"uint8 \[2, 4, 4\]"),
        ({"data": np.zeros((2, 3, 4, 4), np.uint8), "labels": [0, 1]}, "wanted uint8"),
        ({"data": np.zeros((2, 4, 4, 3), np.uint8), "labels": [0]}, "for each of 2 images"),
        ({"data": np.zeros((2, 4, 4, 3), np.uint8), "labels": [0.5, 1]}, "labels are float64"),
        ({"data": np.zeros((2, 4, 4, 3), np.uint8), "labels": [[0], 1]}, "labels differ in shape"),
        (
            {"data": [np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)], "labels": [0]},
            "images differ in shape",
        ),
        (
            {"image_data": np.zeros((2, 4, 4, 3), np.uint8), "class_dict": {"a": [0, 2]}},
            "class 'a' has an index outside of 2 images",
        ),
        (
            {"image_data": np.zeros((2, 4, 4, 3), np.uint8), "class_dict": {"a": 3}},
            "class 'a': not a list",
        ),
        ({"image_data": np.zeros((2, 4, 4, 3), np.uint8), "class_dict": 3}, "class_dict is a int"),
    ],
)
def test_a_pickle_of_other_content_is_refused(tmp_path, content, message):
    (tmp_path / "train.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, size=16)
    assert caught.value.at == str(tmp_path / "train.pkl")


def test_named_labels_of_a_pickle_are_kept(tmp_path, world):
    for split, names in world.classes.items():
        pairs = every(world, split)
        content = {
            "data": np.stack([world.pixels(name, index) for name, index in pairs]),
            "labels": np.array([name.encode() for name, _ in pairs]),
        }
        (tmp_path / f"{split}.pickle").write_bytes(pickle.dumps(content))
        assert names
    splits = load(tmp_path, size=16)
    world.check(splits.test, "test")
    assert "not checked" not in splits.note


def test_an_hdf5_file_without_the_group_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "train_data.hdf5", "w") as file:
        file.create_dataset("images", data=np.zeros(3))
    with pytest.raises(DataError, match="no group 'datasets'; found images") as caught:
        load(tmp_path, size=16)
    assert caught.value.at == str(tmp_path / "train_data.hdf5")


def test_an_hdf5_class_of_other_content_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "train_data.hdf5", "w") as file:
        file.create_group("datasets").create_dataset("a", data=np.zeros((2, 4)))
    with pytest.raises(DataError, match="wanted uint8") as caught:
        load(tmp_path, size=16)
    assert "datasets/a" in str(caught.value.at)


def test_a_listed_class_must_be_in_the_hdf5_file(tmp_path, world):
    hdf5(tmp_path, world)
    (tmp_path / "val_labels.json").write_text('["nobody"]')
    with pytest.raises(DataError, match="'nobody' is listed but not in"):
        load(tmp_path, size=16)
    (tmp_path / "val_labels.json").write_text('{"nobody": 1}')
    with pytest.raises(DataError, match="wanted a list of names"):
        load(tmp_path, size=16)


def test_a_file_that_is_not_hdf5_is_named(tmp_path):
    pytest.importorskip("h5py")
    (tmp_path / "train_data.hdf5").write_bytes(b"no")
    with pytest.raises(DataError, match="cannot read the HDF5 file"):
        load(tmp_path, size=16)


def test_hdf5_without_h5py_says_what_to_install(tmp_path, world, monkeypatch):
    hdf5(tmp_path, world)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(SetupError, match="h5py") as caught:
        load(tmp_path, size=16)
    assert caught.value.hint == "pip install h5py"


def test_one_easy_set_is_split_by_classes(tmp_path, world):
    names = [name for split in world.classes.values() for name in split]
    for name in names:
        for index in range(3):
            world.save(tmp_path / "pictures" / name / f"{index}.jpg", name, index)
    roots = [str(tmp_path / "pictures" / name) for name in names]
    content = {"class_names": names, "class_roots": roots}
    (tmp_path / "all_of_it.json").write_text(json.dumps(content))
    splits = load(tmp_path, size=16)
    assert splits.facts["source"] == "EasySet JSON"
    assert sorted(n for _, images in splits for n in images.classes) == sorted(names)
    assert load(tmp_path, size=16, kind="classification").facts["classes"]["test"] == 10


def test_a_faulty_easy_set_is_named(tmp_path, world):
    easy_set(tmp_path, world)
    path = tmp_path / "val.json"
    path.write_text(json.dumps({"class_names": ["a"], "class_roots": ["absent"]}))
    with pytest.raises(DataError, match="class folder 'absent' is missing; looked for") as caught:
        load(tmp_path, size=16)
    assert caught.value.at == str(path)
    path.write_text(json.dumps({"class_names": ["a"], "class_roots": []}))
    with pytest.raises(DataError, match="1 class_names, 0 class_roots"):
        load(tmp_path, size=16)
    path.write_text("{")
    with pytest.raises(DataError, match="cannot read the JSON file"):
        load(tmp_path, size=16)


def test_of_several_sets_miniimagenet_is_taken(tmp_path, world):
    brain_train(tmp_path, world)
    sets = json.loads((tmp_path / "datasets.json").read_text())
    sets["cifarfs_train"] = {"data": ["x"], "targets": [0]}
    (tmp_path / "datasets.json").write_text(json.dumps(sets))
    world.check(load(tmp_path, size=16).test, "test")
    renamed = {key.replace("miniimagenet", "other"): value for key, value in sets.items()}
    (tmp_path / "datasets.json").write_text(json.dumps(renamed))
    with pytest.raises(DataError, match="found the sets other, cifarfs"):
        load(tmp_path, size=16)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"data": ["a.jpg"], "targets": []}, "not lists of one length"),
        ({"data": "a.jpg", "targets": 0}, "not lists of one length"),
        ({"data": ["a.jpg"], "targets": ["x"]}, "not a class number"),
        ({"data": ["gone/a.jpg"], "targets": [0]}, "a.jpg is missing"),
    ],
)
def test_a_faulty_set_is_named(tmp_path, entry, message):
    path = tmp_path / "datasets.json"
    path.write_text(json.dumps({"miniimagenet_train": entry}))
    with pytest.raises(DataError, match=f"train: .*{message}") as caught:
        load(tmp_path, size=16)
    assert caught.value.at == str(path)


def test_names_that_repeat_do_not_merge_classes(tmp_path, world):
    brain_train(tmp_path, world)
    sets = json.loads((tmp_path / "datasets.json").read_text())
    sets["miniimagenet_test"]["name_classes"] = ["crane", "crane", "x"]
    (tmp_path / "datasets.json").write_text(json.dumps(sets))
    assert load(tmp_path, size=16).test.classes == ("test-0", "test-1", "test-2")
