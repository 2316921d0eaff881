from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from edgekd.data.base import (
    Arrays,
    Dataset,
    Files,
    Images,
    Joined,
    Splits,
    check_episodes,
    check_splits,
    labels_of,
    problems,
    resize,
    same_classes,
    splits_of,
)
from edgekd.errors import DataError, SetupError


def random_pixels(count=6, side=8, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, channels), np.uint8)


def images_in_memory(count=6, classes=("a", "b"), side=8, size=8, seed=0):
    labels = np.arange(count, dtype=np.int64) % len(classes)
    return Images(Arrays(random_pixels(count, side, seed=seed)), labels, tuple(classes), size)


class Plain:
    """A user's dataset: samples and labels, nothing else."""

    def __init__(self):
        self.read = 0

    def __len__(self):
        return 3

    def __getitem__(self, index):
        self.read += 1
        return np.zeros(4, np.float32), [2, 0, 1][index]


def test_images_are_a_map_style_dataset():
    images = images_in_memory()
    assert isinstance(images, Dataset)
    pixel, label = images[1]
    assert pixel.shape == (8, 8, 3) and pixel.dtype == np.uint8 and label == 1
    assert np.array_equal(images[-1][0], images[5][0])
    assert np.array_equal(images.take([4, 1])[1], pixel)
    assert images.take([]).shape == (0, 8, 8, 3)
    with pytest.raises(IndexError):
        images[6]
    assert len(list(iter(images))) == 6


def test_a_dataset_without_labels_is_iterated_once_and_one_with_labels_is_not():
    plain = Plain()
    assert isinstance(plain, Dataset)
    assert labels_of(plain).tolist() == [2, 0, 1] and plain.read == 3
    plain.labels = np.array([0, 0, 1])
    assert labels_of(plain).tolist() == [0, 0, 1] and plain.read == 3


def test_a_torch_dataset_fits():
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.zeros(2, 3, 4, 4), torch.tensor([1, 0]))
    assert isinstance(data, Dataset)
    assert labels_of(data).tolist() == [1, 0]


def test_pixels_may_be_memory_mapped(tmp_path):
    np.save(tmp_path / "x.npy", random_pixels())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    images = Images(Arrays(mapped), np.zeros(6, np.int64), ("a",), 8)
    assert np.array_equal(images.take([2])[0], random_pixels()[2])


def test_subset_renumbers_the_classes_it_keeps():
    images = images_in_memory(6, ("a", "b", "c"))
    part = images.subset([5, 2, 0], [2, 0])
    assert part.classes == ("c", "a") and part.labels.tolist() == [0, 0, 1]
    assert np.array_equal(part[0][0], images[5][0])
    again = part.subset([1])
    assert np.array_equal(again[0][0], images[2][0])


def test_joined_sources_read_as_one():
    a, b = random_pixels(3, seed=1), random_pixels(2, seed=2)
    joined = Joined((Arrays(a), Arrays(b)))
    rows = np.array([4, 0, 3, 2])
    both = np.concatenate([a, b])
    assert len(joined) == 5
    assert np.array_equal(np.stack(joined.read(rows)), both[rows])
    assert list(joined.digests(rows)) == list(Arrays(both).digests(rows))


def test_grey_becomes_colour_and_colour_grey():
    grey = Images(Arrays(random_pixels(2, channels=1)[..., 0]), np.zeros(2, np.int64), ("a",), 8)
    pixel = grey[0][0]
    assert pixel.shape == (8, 8, 3) and (pixel[..., 0] == pixel[..., 2]).all()
    colour = random_pixels(2)
    one = Images(Arrays(colour), np.zeros(2, np.int64), ("a",), 8, channels=1)[0][0]
    wanted = np.asarray(Image.fromarray(colour[0]).convert("L"), np.int64)
    assert np.abs(one[..., 0].astype(np.int64) - wanted).max() <= 1


@pytest.mark.parametrize("new", [5, 8, 12, 16, 31])
def test_resize_agrees_with_pillow(new):
    pixels = random_pixels(2, side=16)
    for image, mine in zip(pixels, resize(pixels, new), strict=True):
        theirs = Image.fromarray(image).resize((new, new), Image.Resampling.BILINEAR)
        assert np.abs(mine.astype(int) - np.asarray(theirs, int)).max() <= 1


@given(
    hnp.arrays(np.uint8, st.tuples(st.just(1), st.integers(1, 9), st.just(0), st.integers(1, 3)))
    .map(lambda a: a.shape)
    .flatmap(lambda s: hnp.arrays(np.uint8, (1, s[1], s[1], s[3]))),
    st.integers(1, 20),
)
def test_resize_keeps_within_the_range_of_the_image(pixels, new):
    made = resize(pixels, new)
    assert made.shape == (1, new, new, pixels.shape[3])
    assert made.min() >= pixels.min() and made.max() <= pixels.max()


def test_files_are_cut_to_their_central_square(tmp_path):
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    Image.fromarray(wide).save(tmp_path / "wide.png")
    images = Images(Files((tmp_path / "wide.png",)), np.zeros(1, np.int64), ("a",), 5)
    assert (images[0][0] == 200).all()


def test_files_obey_exif_orientation(tmp_path):
    tall = np.zeros((8, 8, 3), np.uint8)
    tall[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(tall).save(tmp_path / "turned.png", exif=exif)
    images = Images(Files((tmp_path / "turned.png",)), np.zeros(1, np.int64), ("a",), 8)
    assert images[0][0][0, 0, 0] == 0 and images[0][0][-1, 0, 0] == 255


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "I;16"])
def test_any_mode_of_file_is_read(tmp_path, mode):
    path = tmp_path / ("x.tif" if mode in {"CMYK", "I;16"} else "x.png")
    Image.new(mode, (9, 9)).save(path)
    images = Images(Files((path,)), np.zeros(1, np.int64), ("a",), 9)
    assert images[0][0].shape == (9, 9, 3)


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "absent"])
def test_a_corrupt_image_is_named(tmp_path, world, damage):
    good = world.save(tmp_path / "good.jpg", "n00000001", 0)
    bad = world.save(tmp_path / "bad.jpg", "n00000001", 1)
    content = bad.read_bytes()
    bad.write_bytes({"cut": content[:200], "text": b"no image", "empty": b""}.get(damage, content))
    if damage == "absent":
        bad.unlink()
    images = Images(Files((good, bad)), np.zeros(2, np.int64), ("a",), 8)
    assert images[0][0].shape == (8, 8, 3)
    with pytest.raises(DataError) as caught:
        images[1]
    assert caught.value.at == str(bad)
    found = problems(Splits(images, images, images_in_memory()))
    assert len(found) == 2 and all(str(bad) in message for message in found)


def test_image_files_without_pillow_say_what_to_install(tmp_path, world, monkeypatch):
    path = world.save(tmp_path / "x.jpg", "n00000001", 0)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(SetupError) as caught:
        Images(Files((path,)), np.zeros(1, np.int64), ("a",), 8)[0]
    assert "pip install" in str(caught.value)


def test_check_episodes_names_class_split_and_count():
    labels = [0] * 20 + [1] * 5 + [2] * 7
    check_episodes(labels, ["a", "b", "c"], way=3, shot=1, query=4)
    with pytest.raises(DataError) as caught:
        check_episodes(labels, ["a", "b", "c"], 3, 5, 15, split="val")
    message = str(caught.value)
    assert "'b' has 5 samples, wanted 20" in message
    assert "split val" in message and "2 classes" in message
    with pytest.raises(DataError, match="5 classes, found 3"):
        check_episodes(labels, ["a", "b", "c"], 5, 1, 1)
    with pytest.raises(DataError, match="class '1' has 5"):
        check_episodes(labels, None, 3, 1, 5)


def test_check_episodes_counts_a_class_without_samples():
    with pytest.raises(DataError, match="'b' has 0"):
        check_episodes([0, 0, 0], ["a", "b"], 2, 1, 1)


def test_same_classes_knows_the_two_kinds_and_refuses_the_rest():
    a, b = images_in_memory(), images_in_memory(classes=("c", "d"))
    c = images_in_memory(classes=("e", "f"))
    assert same_classes({"train": a, "val": a, "test": a})
    assert not same_classes({"train": a, "val": b, "test": c})
    with pytest.raises(DataError, match=r"train and test share 1 classes.*'a'"):
        same_classes({"train": a, "val": b, "test": images_in_memory(classes=("a", "z"))})


def test_check_splits_names_what_is_missing(tmp_path):
    a = images_in_memory()
    with pytest.raises(DataError, match="'val' is missing; found train, test"):
        check_splits({"train": a, "test": a}, tmp_path)
    with pytest.raises(DataError, match="'val' is empty"):
        check_splits({"train": a, "val": a.subset([]), "test": a}, tmp_path)
    with pytest.raises(DataError, match="class 'b' of split 'test' has no image"):
        check_splits({"train": a, "val": a, "test": a.subset([0, 2])}, tmp_path)


def test_splits_give_facts_and_iterate(tmp_path):
    a = images_in_memory()
    splits = splits_of(
        {"train": a, "val": a, "test": a}, source="s", files=[tmp_path], note="n", more=1
    )
    assert [name for name, _ in splits] == ["train", "val", "test"]
    assert splits.facts == {
        "source": "s",
        "classes": {"train": 2, "val": 2, "test": 2},
        "images": {"train": 6, "val": 6, "test": 6},
        "files": [str(tmp_path)],
        "more": 1,
    }


def test_importing_data_needs_numpy_alone():
    code = (
        "import sys\n"
        "for name in ('torch', 'PIL', 'h5py', 'resvg_py'): sys.modules[name] = None\n"
        "import edgekd.data.build_icons, edgekd.data.sniff\n"
        "from edgekd.data.icons import icons\n"
        "assert icons(size=32).test.take([0]).shape == (1, 32, 32, 3)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
