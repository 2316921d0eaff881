import numpy as np

from edgekd.data.base import Arrays, Images
from edgekd.data.icons import icons
from edgekd.data.show import describe, examples, keep_notices, load_examples, save_examples


class Bare:
    """A user's own data set: floats, no facts."""

    labels = np.array([0, 1])

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return np.zeros((3, 4), np.float32), index


def test_icons_name_their_licences_and_show_their_test_classes(tmp_path):
    data = icons()
    assert describe(data)["source"] == "embedded icons"
    assert "not comparable" in describe(data)["note"]
    names = keep_notices(data, tmp_path / "notices")
    assert {"ICONS_LICENSES.md", "MIT.txt", "Apache-2.0.txt"} <= set(names)
    assert sorted(p.name for p in (tmp_path / "notices").iterdir()) == names
    shown = examples(data.test)
    assert len(shown) == 8
    assert set(shown) <= set(data.test.classes)
    assert all(images.shape == (8, 64, 64, 3) for images in shown.values())


def test_pictures_come_back_whatever_a_class_is_called(tmp_path):
    pixels = np.arange(4 * 2 * 2 * 3, dtype=np.uint8).reshape(4, 2, 2, 3)
    images = Images(Arrays(pixels), np.array([0, 1, 0, 1]), ("file", "a/b names"), 2, 3)
    before = examples(images)
    save_examples(before, tmp_path / "examples.npz")
    after = load_examples(tmp_path / "examples.npz")
    assert list(after) == ["file", "a/b names"]
    assert all((after[name] == before[name]).all() for name in before)
    assert after["file"].shape[0] == 2


def test_data_that_tells_nothing_is_shown_as_nothing(tmp_path):
    class Data:
        train = val = test = Bare()

    assert describe(Data()) == {"note": ""}
    assert keep_notices(Data(), tmp_path / "notices") == []
    assert not (tmp_path / "notices").exists()
    assert examples(Data.test) == {}
    save_examples({}, tmp_path / "none.npz")
    assert load_examples(tmp_path / "none.npz") == {}
