"""Tests that need a tool or package which a user's machine may lack.

Whatever is skipped is said at the end, with what installs it. Under CI=true a skip is a failure,
since `.ci/run` installs what the tests wait for; only what no installation brings is excused.
`@pytest.mark.needs("qemu-system-arm", install="apt-get install qemu-system-arm")` is the short form.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal

import hypothesis
import pytest

from edgekd.environments import environment

# A busy machine is no reason to fail: times are the benchmarks' affair.
hypothesis.settings.register_profile("edgekd", deadline=None)
hypothesis.settings.load_profile("edgekd")

EXCUSED = {
    "this processor lacks the precision",
    "this CPU has no bf16",
    "this CPU has f16",
    "cannot mount a file system here",
    "renameat2 is Linux's",
    "no FIFOs",
    "no /proc",
}
"""Reasons to skip that no installation takes away."""
_MISSING = pytest.StashKey[dict[str, str]]()


def pytest_configure(config):
    # What a script runs in the background inherits an ignored Ctrl-C, and so would every child.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
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
        if lacking:
            pytest.skip(f"{' and '.join(lacking)} missing: {mark.kwargs['install']}")


def judged(report, config):
    """Remember why a test, or a file of tests, was skipped; in CI it fails."""
    if report.skipped and not hasattr(report, "wasxfail"):
        why = str(report.longrepr[2]).removeprefix("Skipped: ")
        config.stash[_MISSING][why] = report.nodeid
        if os.environ.get("CI") == "true" and why not in EXCUSED:
            report.outcome = "failed"
            report.longrepr = f"skipped, which CI does not: {why}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return judged((yield), item.config)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return judged((yield), collector.config)


def pytest_terminal_summary(terminalreporter, config):
    for why in sorted(config.stash[_MISSING]):
        terminalreporter.write_line(f"not tested here: {why}", yellow=True)
