"""Tests that need a tool or package which a user's machine may lack.

`@pytest.mark.needs("qemu-system-arm", install="apt-get install qemu-system-arm")` skips where it
is missing and says so at the end, with the line that installs it; under CI=true it fails instead.
"""

from __future__ import annotations

import importlib.util
import os
import shutil

import hypothesis
import pytest

from edgekd.environments import environment

# A busy machine is no reason to fail: times are the benchmarks' affair.
hypothesis.settings.register_profile("edgekd", deadline=None)
hypothesis.settings.load_profile("edgekd")

_MISSING = pytest.StashKey[dict[str, str]]()


def pytest_configure(config):
    config.stash[_MISSING] = {}
    config.addinivalue_line(
        "markers",
        "needs(*names, install=…): programs, Python modules or environments ('edgekd setup …') "
        "without which the test is skipped, or fails where CI=true",
    )


def present(name):
    """Tell whether a program is on the path, or a module or an environment of ours is there."""
    if name.startswith("edgekd setup "):
        return environment(name.removeprefix("edgekd setup ")).find() is not None
    if shutil.which(name):
        return True
    return "-" not in name and importlib.util.find_spec(name) is not None


def pytest_runtest_setup(item):
    for mark in item.iter_markers("needs"):
        lacking = [name for name in mark.args if not present(name)]
        if not lacking:
            continue
        why = f"{' and '.join(lacking)} missing: {mark.kwargs['install']}"
        item.config.stash[_MISSING][why] = item.nodeid
        if os.environ.get("CI") == "true":
            pytest.fail(why, pytrace=False)
        pytest.skip(why)


def pytest_terminal_summary(terminalreporter, config):
    for why in sorted(config.stash[_MISSING]):
        terminalreporter.write_line(f"not tested here: {why}", yellow=True)
