from __future__ import annotations

import shutil

import numpy as np
import pytest

from edgekd.data.base import SPLITS
from edgekd.data.folder import load_folder, split_folders, split_named
from edgekd.data.sniff import load
from edgekd.errors import DataError


def flat(root, world, classes=("n00000001", "n00000002", "n00000003"), count=10):
    for name in classes:
        for index in range(count):
            world.save(root / name / f"{index}.jpg", name, index % 5, 20 + index, 20 + index)
    return root


def in_splits(root, world, names=SPLITS, classes=None):
    for split, folder in zip(SPLITS, names, strict=True):
        for name in classes or world.classes[split]:
            for index in range(world.per_class):
                world.save(root / folder / name / f"{split}{index}.jpg", name, index)
    return root


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("train", "validation", "test"),
        ("meta-train", "meta-val", "meta-test"),
        ("Train", "Valid", "Testing"),
    ],
)
def test_split_folders_are_read(tmp_path, world, no_decoding, names):
    root = in_splits(tmp_path, world, names)
    splits = load(root, size=12)
    no_decoding.undo()
    for split, images in splits:
        world.check(images, split)
    assert splits.facts["files"] == [str(root)]
    assert splits.facts["source"] == "class folders"


def test_classification_keeps_the_splits_on_disk(tmp_path, world, no_decoding):
    root = in_splits(tmp_path, world, classes=("n00000001", "n00000002"))
    splits = load(root, size=12, kind="classification")
    assert "pooled" not in splits.note and "may have seen the test images" in splits.note
    for split, images in splits:
        assert images.classes == ("n00000001", "n00000002")
        assert all(path.name.startswith(split) for path in images.source.paths)


def test_few_shot_data_for_classification_is_pooled(tmp_path, world):
    splits = load(in_splits(tmp_path, world), size=12, kind="classification")
    assert "pooled" in splits.note
    assert splits.facts["classes"] == {"train": 10, "val": 10, "test": 10}
    assert sum(splits.facts["images"].values()) == 50


def test_flat_folders_split_by_samples(tmp_path, world, no_decoding):
    splits = load_folder(flat(tmp_path, world), size=12, split="samples")
    assert splits.facts["images"] == {"train": 24, "val": 3, "test": 3}
    paths = [{images.source.paths[row] for row in images.rows} for _, images in splits]
    assert len(set.union(*paths)) == 30
    assert "hash" in splits.note


def test_flat_folders_split_by_content_not_by_name(tmp_path, world):
    def contents(root):
        splits = load_folder(root, size=12, split="samples")
        return [sorted(images.digests()) for _, images in splits]

    before = contents(flat(tmp_path / "a", world))
    for path in sorted((tmp_path / "a").glob("*/*.jpg")):
        path.rename(path.with_name(f"{99 - int(path.stem)}.jpg"))
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert contents(tmp_path / "b") == before


def test_flat_folders_split_by_classes(tmp_path, world, no_decoding):
    classes = [f"n{number:08d}" for number in range(1, 13)]
    splits = load_folder(
        flat(tmp_path, world, classes, 2), size=12, split="classes", fractions=(0.5, 0.25, 0.25)
    )
    assert splits.facts["classes"] == {"train": 6, "val": 3, "test": 3}
    names = [name for _, images in splits for name in images.classes]
    assert sorted(names) == classes
    for _, images in splits:
        assert set(images.labels.tolist()) == set(range(len(images.classes)))


def test_a_missing_split_is_named(tmp_path, world):
    root = in_splits(tmp_path, world)
    shutil.rmtree(root / "val")
    with pytest.raises(DataError, match="split 'val' is missing; found train, test") as caught:
        load(root, size=12)
    assert caught.value.at == str(root)


def test_a_split_alone_is_not_taken_for_a_dataset(tmp_path, world):
    root = in_splits(tmp_path, world)
    for split in ("val", "test"):
        shutil.rmtree(root / split)
    with pytest.raises(DataError, match="split 'val' is missing"):
        load(root, size=12)


def test_two_folders_for_one_split_are_refused(tmp_path, world):
    root = in_splits(tmp_path, world)
    shutil.copytree(root / "val", root / "validation")
    with pytest.raises(DataError, match="two folders for split 'val'"):
        load(root, size=12)


def test_splits_that_share_some_classes_are_refused(tmp_path, world):
    root = in_splits(tmp_path, world)
    shutil.copytree(root / "train" / "n00000001", root / "test" / "n00000001")
    with pytest.raises(DataError, match=r"share 1 classes.*n00000001"):
        load(root, size=12)


def test_an_empty_class_of_a_split_is_named(tmp_path, world):
    root = in_splits(tmp_path, world)
    (root / "test" / "n99").mkdir()
    with pytest.raises(DataError, match="class 'n99' of split 'test' has no image"):
        load(root, size=12)


def test_an_empty_folder_says_what_was_looked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(DataError, match="no images found") as caught:
        load(tmp_path, size=12)
    assert "<class>" in str(caught.value.hint) and ".jpg" in str(caught.value.hint)


def test_split_folders_without_classes_are_not_taken_for_classes(tmp_path, world):
    for split in SPLITS:
        world.save(tmp_path / split / "0.jpg", "n00000001", 0)
    with pytest.raises(DataError, match="split 'train' is empty"):
        load(tmp_path, size=12)


def test_a_class_may_be_called_train(tmp_path, world):
    root = flat(tmp_path, world, ("n00000001", "n00000002"))
    shutil.copytree(root / "n00000002", root / "train")
    assert split_folders(root) == {}
    assert load(root, size=12, kind="classification").train.classes == (
        "n00000001",
        "n00000002",
        "train",
    )


def test_other_files_are_passed_over(tmp_path, world):
    root = flat(tmp_path, world)
    (root / "n00000001" / ".hidden.jpg").write_bytes(b"")
    (root / "n00000001" / "readme.txt").write_text("x")
    (root / ".cache").mkdir()
    (root / "empty").mkdir()
    splits = load(root, size=12, kind="classification")
    assert sum(splits.facts["images"].values()) == 30
    assert len(splits.train.classes) == 3


def test_an_unpacked_archive_is_stepped_into(tmp_path, world):
    in_splits(tmp_path / "data" / "set-1.0", world)
    (tmp_path / "data" / "__MACOSX").mkdir()
    splits = load(tmp_path / "data", size=12)
    assert splits.facts["classes"] == {"train": 4, "val": 3, "test": 3}


@pytest.mark.parametrize("kind", ["few-shot", "classification"])
def test_a_class_alone_is_too_few(tmp_path, world, kind):
    root = flat(tmp_path, world, ("n00000001",), 2)
    with pytest.raises(DataError, match=r"three|3"):
        load(root, size=12, kind=kind)


def test_a_missing_path_and_a_file_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such folder") as caught:
        load(tmp_path / "absent", size=12)
    assert caught.value.at == str(tmp_path / "absent")
    (tmp_path / "file.zip").write_bytes(b"")
    with pytest.raises(DataError, match="not a folder"):
        load(tmp_path / "file.zip", size=12)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("mini-imagenet-cache-validation", "val"),
        ("mini_imagenet_test", "test"),
        ("VAL", "val"),
        ("trainer", None),
        ("train_test", None),
        ("", None),
    ],
)
def test_split_named(name, split):
    assert split_named(name) == split


def test_size_and_channels_are_obeyed(tmp_path, world):
    splits = load(in_splits(tmp_path, world), size=7, channels=1)
    assert splits.test.take([0, 1]).shape == (2, 7, 7, 1)
    assert splits.test.take(np.array([0])).dtype == np.uint8
