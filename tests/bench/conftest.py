from __future__ import annotations

import pytest

from edgekd.bench import gate as gate_module
from tests import bundles
from tests.bench import made


@pytest.fixture(autouse=True)
def own_board(tmp_path, monkeypatch):
    """A board that no other test uses."""
    folder = tmp_path / "board"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return folder


@pytest.fixture
def bundle(tmp_path):
    """Write a small bundle; changes of its manifest as a function."""

    def write(name, change=None):
        from edgekd.bundle import write_bundle

        manifest = bundles.manifest()
        if change is not None:
            change(manifest)
        return write_bundle(manifest, bundles.files(), tmp_path / name).path

    return write


@pytest.fixture
def measured(monkeypatch):
    """Put made-up rounds in the place of measuring; returns the calls."""
    calls = []

    def put(factor=1.0, **options):
        def rounds(contestants, settings, seed, start=0):
            calls.append((contestants, settings, seed))
            return made.rounds(factor, **options)

        monkeypatch.setattr(gate_module, "rounds", rounds)
        return calls

    return put
