"""Settings: what fits is bound, what does not is said, all at once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.errors import RecipeError, UsageError
from edgekd.settings import bind, convert, parse_assignments


def recipe(
    *,
    preset: Literal["embedded", "paper", "smoke"] = "embedded",
    temperature: float = 4.0,
    epochs: int = 100,
    flip: bool = True,
    data: Path | None = None,
    widths: tuple[int, ...] = (16, 32),
    box: tuple[int, float] = (1, 2.0),
    level: Literal[1, 2] = 1,
) -> None: ...


DEFAULTS = {
    "preset": "embedded",
    "temperature": 4.0,
    "epochs": 100,
    "flip": True,
    "data": None,
    "widths": (16, 32),
    "box": (1, 2.0),
    "level": 1,
}


def test_without_settings_the_defaults_are_bound():
    assert bind(recipe, {}, at="r.py") == DEFAULTS


def test_strings_become_the_annotated_types():
    given_ = {
        "preset": "smoke",
        "temperature": "2",
        "epochs": "3",
        "flip": "no",
        "data": "a b/c",
        "widths": "8, 16,32",
        "box": "3,0.5",
        "level": "2",
    }
    assert bind(recipe, given_, at="r.py") == {
        "preset": "smoke",
        "temperature": 2.0,
        "epochs": 3,
        "flip": False,
        "data": Path("a b/c"),
        "widths": (8, 16, 32),
        "box": (3, 0.5),
        "level": 2,
    }


def test_typed_values_from_python_are_taken():
    bound = bind(recipe, {"widths": [1, 2], "epochs": 5, "data": None, "flip": False}, at="r.py")
    assert bound == {**DEFAULTS, "widths": (1, 2), "epochs": 5, "flip": False}


def test_all_faults_come_at_once(snapshot):
    wrong = {
        "temprature": "2",
        "preset": "smok",
        "epochs": "3.5",
        "flip": "maybe",
        "widths": "8,x",
        "box": "1",
        "temperature": "nan",
        "level": "3",
    }
    with pytest.raises(RecipeError) as caught:
        bind(recipe, wrong, at="recipes/r.py")
    assert str(caught.value) == snapshot


def test_one_fault_is_one_line(snapshot):
    with pytest.raises(RecipeError) as caught:
        bind(recipe, {"temprature": "2"}, at="recipes/r.py")
    assert str(caught.value) == snapshot


def test_a_required_setting_that_is_missing_is_a_fault():
    def needy(*, path: Path) -> None: ...

    with pytest.raises(RecipeError, match="path: required, no value given"):
        bind(needy, {}, at="r.py")


def test_an_annotation_that_is_not_imported_is_explained():
    def strange(*, x: Nowhere = None) -> None: ...  # noqa: F821

    with pytest.raises(RecipeError, match="cannot be read"):
        bind(strange, {}, at="r.py")


@pytest.mark.parametrize(
    ("value", "wanted", "result"),
    [
        ("none", Optional[int], None),  # noqa: UP045 - the older spelling must work too
        ("NULL", "int | None", None),
        ("7", "int | None", 7),
        ("", tuple[int, ...], ()),
        ("On", bool, True),
        ("1_000", int, 1000),
        (3, float, 3.0),
        ("a=b", str, "a=b"),
        ("auto", "Literal['auto'] | Path", "auto"),
        ("x/y.pt", "Literal['auto'] | Path", Path("x/y.pt")),
        (("a", 1), Any, ("a", 1)),
    ],
)
def test_conversion(value, wanted, result):
    names = {"Literal": Literal, "Path": Path}
    assert convert(value, eval(wanted, names) if isinstance(wanted, str) else wanted) == result


@pytest.mark.parametrize(
    ("value", "wanted", "message"),
    [
        (True, int, "wanted a whole number"),
        (1.0, int, "wanted a whole number"),
        (True, float, "wanted a number"),
        ("inf", float, "wanted a finite number"),
        (1, bool, "wanted true or false"),
        (1, str, "wanted a text"),
        ("", Path, "wanted a path"),
        ("q", Literal["a", "b"], "wanted 'a' or 'b'"),
        (True, Literal[1], "wanted 1"),
        ("x", Optional[int], "wanted a whole number or none"),  # noqa: UP045
        (3, tuple[int, ...], "wanted values separated by commas"),
        ("{}", dict, "wanted dict, which --set cannot give"),
    ],
)
def test_what_does_not_fit_says_what_is_wanted(value, wanted, message):
    with pytest.raises(ValueError, match=message):
        convert(value, wanted)


def test_assignments_are_split_at_the_first_equals_sign():
    assert parse_assignments(["a=1", " b =x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}


@pytest.mark.parametrize(
    ("given_", "message"),
    [(["a"], "key=value, got 'a'"), (["=1"], "key=value"), (["a=1", "a=2"], "twice: '1' and '2'")],
)
def test_wrong_assignments_are_refused(given_, message):
    with pytest.raises(UsageError, match=message):
        parse_assignments(given_)


SCALARS = [
    (st.integers(), int),
    (st.floats(allow_nan=False, allow_infinity=False), float),
    (st.booleans(), bool),
]


@given(st.one_of(*(st.tuples(values, st.just(kind)) for values, kind in SCALARS)))
def test_a_printed_scalar_reads_back(pair):
    value, kind = pair
    assert convert(str(value), kind) == value
    assert type(convert(str(value), kind)) is kind


@given(st.lists(st.integers(), max_size=6))
def test_a_printed_tuple_reads_back(values):
    assert convert(",".join(map(str, values)), tuple[int, ...]) == tuple(values)


@given(st.text())
def test_a_text_is_kept_as_it_is(value):
    assert convert(value, str) == value


@given(st.dictionaries(st.text(min_size=1, max_size=12), st.text(max_size=8), max_size=8))
def test_binding_returns_every_setting_or_names_every_fault(settings):
    try:
        bound = bind(recipe, settings, at="r.py")
    except RecipeError as error:
        for key in settings.keys() - DEFAULTS.keys():
            assert key in error.what
    else:
        assert bound.keys() == DEFAULTS.keys()
        assert settings.keys() <= DEFAULTS.keys()
        assert math.isfinite(bound["temperature"])


@given(st.dictionaries(st.text(st.characters(exclude_characters="="), min_size=1), st.text()))
def test_assignments_read_back(settings):
    stripped = {key.strip(): value for key, value in settings.items() if key.strip()}
    assert parse_assignments(f"{key}={value}" for key, value in stripped.items()) == stripped
