from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.data.base import SPLITS, Arrays, Images
from edgekd.data.split import _sides, arrange, split_classes, split_samples
from edgekd.errors import DataError


def dataset(values, labels, classes):
    """One-pixel images; equal values are equal images."""
    pixels = np.array(values, np.uint8).reshape(-1, 1, 1, 1)
    return Images(Arrays(pixels), np.array(labels, np.int64), tuple(classes), 1, 1)


def values_of(images):
    return images.take(np.arange(len(images))).ravel().tolist()


@given(st.integers(3, 500), st.floats(0.01, 0.9), st.floats(0.01, 0.9))
def test_sides_leave_none_empty(count, a, b):
    fractions = (1 / (1 + a + b), a / (1 + a + b), b / (1 + a + b))
    sides = _sides(count, fractions)
    counts = np.bincount(sides, minlength=3)
    assert len(sides) == count and (counts >= 1).all()
    assert abs(counts[2] - count * fractions[2]) <= 2


@given(st.lists(st.integers(0, 255), min_size=6, max_size=60), st.randoms())
def test_split_samples_keeps_copies_together_and_forgets_the_order(values, random):
    values = [*values, 0, 1, 2]
    images = dataset(values, [0] * len(values), ["a"])
    parts, _ = split_samples(images, (0.6, 0.2, 0.2))
    found = {split: set(values_of(part)) for split, part in parts.items()}
    assert not (found["train"] & found["val"] or found["train"] & found["test"])
    assert not found["val"] & found["test"]
    assert sum(len(part) for part in parts.values()) == len(values)
    random.shuffle(values)
    again, _ = split_samples(dataset(values, [0] * len(values), ["a"]), (0.6, 0.2, 0.2))
    assert {split: set(values_of(part)) for split, part in again.items()} == found


def test_split_samples_has_all_classes_everywhere_and_the_asked_shares():
    images = dataset(range(200), np.arange(200) // 100, ["a", "b"])
    parts, note = split_samples(images, (0.8, 0.1, 0.1))
    for split, count in zip(SPLITS, (160, 20, 20), strict=True):
        assert len(parts[split]) == count
        assert np.bincount(parts[split].labels).tolist() == [count // 2] * 2
        assert parts[split].classes == ("a", "b")
    assert "several classes" not in note


def test_split_samples_notes_an_image_of_several_classes():
    values = [*range(10), *range(9, 30)]
    labels = [0] * 10 + [1] * 21
    notes = [split_samples(dataset(values, labels, "ab"), (f, 0.2, 0.8 - f))[1] for f in (0.4, 0.6)]
    crossing = [
        split_samples(dataset([0, 1, 2, 2, 3, 4], [0] * 3 + [1] * 3, "ab"), (0.6, 0.2, 0.2))
    ]
    assert all("hash" in note for note in notes)
    parts, note = crossing[0]
    where = {split for split, part in parts.items() if 2 in values_of(part)}
    assert ("several classes" in note) == (len(where) > 1)


def test_split_samples_needs_three_different_images():
    with pytest.raises(DataError, match="class 'b' has 2 different images"):
        split_samples(dataset([1, 2, 3, 4, 5, 5], [0, 0, 0, 1, 1, 1], "ab"), (0.8, 0.1, 0.1))


@given(st.sets(st.text("abcdef", min_size=1, max_size=4), min_size=3, max_size=30))
def test_split_classes_are_disjoint_and_complete(names):
    classes = sorted(names)
    labels = np.repeat(np.arange(len(classes)), 2)
    parts, _ = split_classes(dataset(labels, labels, classes), (0.64, 0.16, 0.2))
    found = [name for split in SPLITS for name in parts[split].classes]
    assert sorted(found) == classes
    for part in parts.values():
        assert np.bincount(part.labels).tolist() == [2] * len(part.classes)
        assert [classes[value] for value in values_of(part)] == [
            part.classes[label] for label in part.labels
        ]


def test_split_classes_do_not_move_when_images_are_added():
    labels = np.arange(10)
    few, _ = split_classes(dataset(labels, labels, "abcdefghij"), (0.6, 0.2, 0.2))
    many = np.repeat(labels, 3)
    more, _ = split_classes(dataset(many, many, "abcdefghij"), (0.6, 0.2, 0.2))
    assert {s: p.classes for s, p in few.items()} == {s: p.classes for s, p in more.items()}


def test_split_classes_needs_three():
    with pytest.raises(DataError, match="found 2 classes"):
        split_classes(dataset([0, 1], [0, 1], "ab"), (0.6, 0.2, 0.2))


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.5), (1.0, 0.0, 0.0), (0.5, 0.5)])
def test_fractions_are_checked(fractions):
    with pytest.raises(DataError, match="fractions"):
        split_classes(dataset([0, 1, 2], [0, 1, 2], "abc"), fractions)


def test_arrange_keeps_what_fits():
    disjoint = {s: dataset([i], [0], s) for i, s in enumerate("abc")}
    disjoint = dict(zip(SPLITS, disjoint.values(), strict=True))
    made, note = arrange(disjoint, "few-shot")
    assert made == disjoint and note == ""


def test_arrange_aligns_the_class_numbers_of_classification():
    parts = dict.fromkeys(SPLITS, dataset([7, 8], [0, 1], "ab"))
    parts["val"] = dataset([8, 7], [0, 1], "ba")
    made, note = arrange(parts, "classification")
    assert note == "" and made["val"].classes == ("a", "b")
    assert made["val"].labels.tolist() == [1, 0] and values_of(made["val"]) == [8, 7]


def test_arrange_pools_what_does_not_fit():
    parts = {
        split: dataset(range(20 * i, 20 * i + 20), [0] * 20, [f"c{i}"])
        for i, split in enumerate(SPLITS)
    }
    parts["train"] = parts["train"].subset(np.arange(19, 9, -1))
    made, note = arrange(parts, "classification")
    assert "pooled" in note
    assert all(part.classes == ("c0", "c1", "c2") for part in made.values())
    for part in made.values():
        assert [value // 20 for value in values_of(part)] == part.labels.tolist()
    found = sorted(value for part in made.values() for value in values_of(part))
    assert found == list(range(10, 60))
    same = dict.fromkeys(SPLITS, dataset(range(6), [0, 0, 1, 1, 2, 2], "abc"))
    few, note = arrange(same, "few-shot")
    assert "pooled" in note and len({name for p in few.values() for name in p.classes}) == 3
