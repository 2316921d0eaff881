"""Environments of their own: really made, by real pip, from a wheel on disk."""

from __future__ import annotations

import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgekd import environments
from edgekd.environments import ENVIRONMENTS, Environment, environment, setup
from edgekd.errors import SetupError, UsageError


@dataclass(frozen=True)
class Local(Environment):
    """An environment whose lock lies where the test says."""

    place: Path = Path()

    @property
    def lock(self) -> Path:
        return self.place / "toy.txt"


def wheel(folder, version="1.0", body="value = 1\n"):
    info = f"toy-{version}.dist-info"
    files = {
        "toy.py": body,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: toy\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(folder / f"toy-{version}-py3-none-any.whl", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """An environment with one package that nobody has; pip may look on disk only."""
    minor = sys.version_info.minor
    local = Local("toy", "a test", ("toy",), ("toy",), 0.1, (minor, minor), "EDGEKD_TOY", tmp_path)
    monkeypatch.setenv("EDGEKD_TOY", str(tmp_path / "env"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setattr(environments, "ENVIRONMENTS", {"toy": local})
    local.lock.write_text("# pinned\ntoy==1.0\n")
    wheel(tmp_path)
    return local


@pytest.mark.system
def test_it_is_made_once_and_found_again(toy, tmp_path):
    assert toy.find() is None
    assert toy.lacking() == "the toy environment is not made: edgekd setup toy"
    with pytest.raises(SetupError, match="the converter needs") as caught:
        toy.require("the converter")
    assert caught.value.hint == "edgekd setup toy"
    events = []
    made = setup("toy", emit=events.append)
    assert made["made"] and made["versions"] == {"toy": "1.0"} and made["bytes"] > 10**6
    said = " ".join(event.text for event in events)
    assert "toy==1.0" in said and str(tmp_path / "env") in said and "0.1 GiB" in said
    assert toy.require("the converter") == tmp_path / "env/bin/python"
    assert not setup("toy")["made"]

    toy.lock.write_text("toy==2.0\n")
    assert toy.lacking() == "the toy environment is out of date: edgekd setup toy"
    with pytest.raises(SetupError, match="failed while installing") as caught:
        setup("toy")
    assert "toy==2.0" in caught.value.hint
    assert toy.find() is None  # a failure leaves nothing that looks finished

    wheel(tmp_path, "2.0", body="raise ImportError('broken')\n")
    with pytest.raises(SetupError, match="importing"):
        setup("toy")
    assert toy.find() is None


def test_what_cannot_be_made_is_said_before_anything_is_written(toy, tmp_path, monkeypatch):
    with pytest.raises(SetupError, match="needs Python 3") as caught:
        setup("toy", python="/no/such/python")
    assert "--python" in caught.value.hint
    monkeypatch.setenv("EDGEKD_TOY", str(tmp_path))  # holds files, is no environment
    with pytest.raises(SetupError, match="no virtual environment"):
        setup("toy")
    assert (tmp_path / "toy.txt").exists()
    with pytest.raises(UsageError, match="did you mean 'toy'"):
        environment("tey")


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_wanted_package_is_pinned(name):
    one = ENVIRONMENTS[name]
    assert set(one.wanted) <= set(one.pins)
    lines = [line for line in one.lock.read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == len(one.pins)
    assert one.digest == one.digest and len(one.digest) == 64
