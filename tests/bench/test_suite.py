"""Suite files: what they may say, and every fault with its line."""

from __future__ import annotations

import pytest

from edgekd.bench import suite
from edgekd.errors import UsageError

GOOD = """\
name: nightly
bundles: [../out/a]
build:
  - recipe: mobilevit
    targets: [cpu, cpu-ort]
    settings: [{preset: smoke}, {preset: smoke, size: 96}]
measure: {processes: 5, pin: 1}
"""


def test_a_suite_is_read():
    found = suite.loads(GOOD)
    assert found.build[0].settings[1] == {"preset": "smoke", "size": 96}
    assert found.measure.settings(threads=2).threads == 2
    assert found.measure.settings(threads=2).pin == 1


def test_every_fault_is_named_with_its_line_and_a_guess():
    text = """\
name: Nightly Run
bundels: [a]
build:
  - recipe: mobilevit
    target: [cpu]
measure:
  proceses: 5
  block_ms: -1
"""
    with pytest.raises(UsageError) as error:
        suite.loads(text, at="s.yaml")
    lines = error.value.what.splitlines()
    assert lines == [
        "s.yaml is not a valid suite",
        "  s.yaml:1: name: should be lower case letters, digits, '.', '_' and '-' "
        '(got "Nightly Run")',
        "  s.yaml:2: bundels: unknown key, did you mean 'bundles'? (got [\"a\"])",
        "  s.yaml:4: build.0.targets: required, but absent",
        "  s.yaml:5: build.0.target: unknown key, did you mean 'targets'? (got [\"cpu\"])",
        "  s.yaml:7: measure.proceses: unknown key, did you mean 'processes'? (got 5)",
        "  s.yaml:8: measure.block_ms: should be greater than 0 (got -1)",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\n", "nothing to measure"),
        ("- a\n", "a suite is a mapping"),
        ("name: x\nbundles: &b [a]\nother: *b\n", "no YAML aliases"),
        ("name: x\nname: y\nbundles: [a]\n", "key given twice"),
        ("name: [\n", "not YAML"),
    ],
)
def test_what_is_no_suite_is_refused(text, message):
    with pytest.raises(UsageError, match=message):
        suite.loads(text)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError) as error:
        suite.load(tmp_path / "none.yaml")
    assert error.value.at == str(tmp_path / "none.yaml")


def test_the_schema_names_every_key():
    schema = suite.json_schema()
    assert set(schema["properties"]) == {"name", "bundles", "build", "measure"}
    assert schema["properties"]["build"]["description"]
