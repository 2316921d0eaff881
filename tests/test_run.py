"""A walk over two steps whose stages are a file of the test."""

import pytest

from edgekd.run import Walk
from edgekd.spec import Call, Input, Network, Objective, Recipe, Term, Train
from edgekd.steps import Step
from edgekd.store import SMALL, Store

STAGES = """
def first(spec, inputs, out, emit):
    (out / "large.bin").write_bytes(b"x" * {size})
    (out / "small.txt").write_text("fine")
    return {{"n": 1}}

def second(spec, inputs, out, emit):
    text = (inputs["a"] / "large.bin").read_bytes()
    (out / "count.txt").write_text(str(text.count(b"x")))
    return {{"count": text.count(b"x")}}
"""

ONE = Step("one", "stages.py:first", {})
TWO = Step("two", "stages.py:second", {"v": 1}, {"a": "one"})


@pytest.fixture
def walk(tmp_path):
    (tmp_path / "stages.py").write_text(STAGES.format(size=SMALL + 1))
    (tmp_path / "recipe.py").write_text("")
    nothing = Network(None, "none.onnx")
    recipe = Recipe(
        "test", Call("x:y"), Input((1,)), Call("x:y"), nothing, nothing, Train(1),
        Objective("none", (Term("label", "ce"),)), file=str(tmp_path / "recipe.py"),
    )  # fmt: skip

    def start():
        events = []
        return Walk(recipe, Store(tmp_path / "store"), events.append), events

    return start


def kinds(events):
    return [(event.kind, event.step) for event in events]


def test_a_second_walk_is_cached(walk):
    first, events = walk()
    first.step(ONE)
    assert first.step(TWO).facts == {"count": SMALL + 1}
    assert kinds(events) == [("start", "one"), ("end", "one"), ("start", "two"), ("end", "two")]
    second, events = walk()
    second.step(ONE)
    second.step(TWO)
    assert kinds(events) == [("cached", "one"), ("cached", "two")]


def flip(path, size):
    """Damage a file without changing its size."""
    path.write_bytes(b"y" * size)


def test_a_damaged_input_is_made_again_before_it_is_read(walk):
    first, _ = walk()
    flip(first.step(ONE).path / "large.bin", SMALL + 1)
    second, events = walk()
    second.step(ONE)
    assert second.step(TWO).facts == {"count": SMALL + 1}
    assert kinds(events) == [
        ("cached", "one"),
        ("warning", "one"),
        ("start", "one"),
        ("end", "one"),
        ("start", "two"),
        ("end", "two"),
    ]


@pytest.mark.parametrize("damage", ["small.txt", "cut", "gone", "facts.json"])
def test_small_damage_is_seen_at_once(walk, damage):
    first, _ = walk()
    path = first.step(ONE).path
    if damage == "cut":
        (path / "large.bin").write_bytes(b"x")
    elif damage == "gone":
        (path / "large.bin").unlink()
    else:
        (path / damage).write_text('{"n": 2}')
    second, events = walk()
    assert second.step(ONE).facts == {"n": 1}
    assert kinds(events) == [("start", "one"), ("end", "one")]


def test_what_a_bundle_takes_is_checked_whole(walk):
    first, _ = walk()
    flip(first.step(ONE).path / "large.bin", SMALL + 1)
    second, events = walk()
    second.step(ONE)
    assert (second.whole("one").path / "large.bin").read_bytes() == b"x" * (SMALL + 1)
    assert ("warning", "one") in kinds(events)


def test_a_step_of_the_same_name_that_asks_otherwise_is_another(walk):
    """As two targets do: the second one's must not be taken for done."""
    first, events = walk()
    first.step(ONE)
    first.step(TWO)
    other = Step("two", "stages.py:second", {"v": 2}, {"a": "one"})
    assert first.has(TWO)
    assert not first.has(other)
    first.step(other)
    assert first.has(other) and not first.has(TWO)
    assert kinds(events)[-2:] == [("start", "two"), ("end", "two")]
