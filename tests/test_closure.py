import os

import pytest

from edgekd import closure
from edgekd.closure import Parses, code_digest, files_of


@pytest.fixture
def project(tmp_path):
    (tmp_path / "recipe.py").write_text(
        "from helper import scale\n\nLIMIT = 3\n\n"
        "def build():\n    return scale(LIMIT)\n\n"
        "def unrelated():\n    return 1\n"
    )
    (tmp_path / "helper.py").write_text(
        "def scale(x):\n    return x * 2\n\ndef other():\n    pass\n"
    )
    return tmp_path


def digest(project):
    closure._find.cache_clear()
    closure._imported.cache_clear()
    return code_digest(["recipe.py:build"], project)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("helper.py", "x * 2", "x * 3"),
        ("recipe.py", "LIMIT = 3", "LIMIT = 4"),
        ("recipe.py", "scale(LIMIT)", "scale(LIMIT) + 1"),
    ],
)
def test_what_the_function_reaches_counts(project, file, old, new):
    before = digest(project)
    edit(project / file, old, new)
    assert digest(project) != before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("helper.py", "    pass", "    return 5"),
        ("recipe.py", "return 1", "return 2"),
        ("recipe.py", "def build():\n", "def build():\n    # why\n"),
        ("recipe.py", "def build():\n", 'def build():\n    """What."""\n'),
    ],
)
def test_what_it_does_not_reach_does_not(project, file, old, new):
    before = digest(project)
    edit(project / file, old, new)
    assert digest(project) == before


def test_foreign_packages_are_left_to_their_version(project):
    edit(project / "recipe.py", "LIMIT = 3", "import numpy\nLIMIT = numpy.pi")
    files = {path.name for path in files_of(["recipe.py:build"], project)}
    assert files == {"recipe.py", "helper.py"}


def test_training_does_not_depend_on_how_quantisation_is_written(tmp_path):
    files = files_of(["edgekd.stages.train:train"], tmp_path)
    names = {str(path) for path in files}
    assert any(name.endswith("distill/trainer.py") for name in names)
    assert not any("backends/openvino" in name or "report" in name for name in names)


def old(project, seconds=60):
    """Let every file look as if it had rested."""
    for path in project.glob("*.py"):
        then = path.stat().st_mtime_ns - seconds * 10**9
        os.utime(path, ns=(then, then))


def test_what_was_parsed_is_remembered_between_runs(project, tmp_path, monkeypatch):
    old(project)
    kept = tmp_path / "code.json"
    first = Parses(kept)
    before = code_digest(["recipe.py:build"], project, first)
    first.save()
    parsed = []
    monkeypatch.setattr(closure.ast, "parse", lambda *args: parsed.append(args))
    assert code_digest(["recipe.py:build"], project, Parses(kept)) == before
    assert not parsed


def test_an_edit_is_seen_whatever_was_remembered(project, tmp_path):
    old(project)
    kept = tmp_path / "code.json"
    parses = Parses(kept)
    before = code_digest(["recipe.py:build"], project, parses)
    parses.save()
    edit(project / "helper.py", "x * 2", "x * 3")
    after = code_digest(["recipe.py:build"], project, Parses(kept))
    assert after != before
    assert code_digest(["recipe.py:build"], project, parses) == after
    assert code_digest(["recipe.py:build"], project) == after


def test_a_file_edited_just_now_is_not_remembered(project, tmp_path):
    """Two edits within a tick of the clock could leave size and time alike."""
    kept = tmp_path / "code.json"
    parses = Parses(kept)
    code_digest(["recipe.py:build"], project, parses)
    parses.save()
    assert not kept.exists()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"python": "2.7", "files": {}}'])
def test_a_damaged_memory_is_no_memory(project, tmp_path, text):
    kept = tmp_path / "code.json"
    kept.write_text(text)
    assert code_digest(["recipe.py:build"], project, Parses(kept)) == digest(project)
