"""One job per board."""

from __future__ import annotations

import threading
import time

import pytest

from edgekd.device.lease import lease
from edgekd.device.link import Agent
from edgekd.errors import SetupError


@pytest.fixture(autouse=True)
def board(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))


HOLDER = {"command": "edgekd gate x", "user": "ann", "host": "lab", "pid": 7, "since": "noon"}


def test_the_second_job_leaves_with_4_and_the_holders_name(board):
    with Agent() as other:
        assert other.lease(HOLDER) == {"held": True, "holder": HOLDER}
        assert other.lease(HOLDER)["held"]
        with pytest.raises(SetupError) as error, lease(0):
            pass
    assert error.value.exit_code == 4
    assert "in use by ann@lab (process 7, since noon): edgekd gate x" in error.value.what


def test_the_second_job_waits_and_says_for_whom(board):
    events = []
    other = Agent()
    other.lease(HOLDER)
    threading.Timer(1.0, other.close).start()
    began = time.monotonic()
    with lease(60, events.append):
        assert time.monotonic() - began >= 0.9
    assert len(events) == 1
    assert "waiting for the board, in use by ann@lab" in events[0].text


def test_a_job_that_is_killed_lets_go(board):
    other = Agent()
    other.lease(HOLDER)
    other._child.kill()
    with lease(0), pytest.raises(SetupError), lease(0):
        pass
    with lease(0):
        pass
