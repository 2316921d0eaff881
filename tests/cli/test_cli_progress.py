"""Progress: plain lines come rarely and have no control characters; a terminal gets bars."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from edgekd.cli import progress, text
from edgekd.cli.progress import PlainLines, said
from edgekd.cli.render import TerminalProgress
from edgekd.events import Event

STEPS = {"steps": [{"status": "cached"}, {"status": "run"}]}


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_progress_of_a_step_is_written_at_most_every_five_seconds():
    clock, lines = Clock(), []
    write = PlainLines(lines.append, clock)
    write(Event("start", "distill"))
    for second in range(1, 61):
        clock.now = second
        write(Event("progress", "distill", done=second, total=60, unit="epochs"))
        write(Event("progress", "teach", done=second, total=60, unit="images"))
    write(Event("end", "distill"))
    progress_of = [line for line in lines if line.startswith("distill: ") and "%" in line]
    assert len(progress_of) == 12
    assert len([line for line in lines if line.startswith("teach: ")]) <= 12
    assert lines[-1] == "distill: done in 1 min 0 s"


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (Event("plan", data=STEPS), "plan: 2 steps, 1 of them cached"),
        (Event("plan"), "plan: 0 steps, 0 of them cached"),
        (Event("start", "a"), "a: started"),
        (Event("start", "a", "train the student"), "a: train the student"),
        (Event("end", "a", data={"acc": 0.123456, "h": [1]}), "a: done; acc 0.1235"),
        (Event("cached", "a"), "a: cached"),
        (Event("progress", "a", done=3, unit="images"), "a: 3 images"),
        (
            Event("progress", "a", "loss 1", 1, 4, "epochs", 75.0),
            "a: 25 % (1 of 4 epochs), about 1 min 15 s left; loss 1",
        ),
        (Event("note", text="two\nlines"), "note: two lines"),
        (Event("warning", "a", "odd"), "a: warning: odd"),
    ],
)
def test_an_event_is_one_line(event, line):
    assert said(event) == line


def drawn(events: list[Event], **options) -> str:
    file = io.StringIO()
    console = Console(file=file, width=100, **options)
    with TerminalProgress(console) as draw:
        for event in events:
            draw(event)
    return file.getvalue()


EVENTS = [
    Event("plan", data=STEPS),
    Event("cached", "teacher"),
    Event("start", "distill", "train [the] student"),
    Event("progress", "distill", "", 1, 4, "epochs", 9.0),
    Event("progress", "build:ov-int8", "", 1, 0, "images"),
    Event("note", "distill", "[b]not markup[/b]"),
    Event("end", "distill", data={"accuracy": 0.5}),
    Event("end", "build:ov-int8"),
    Event("end", "never started"),
]


def test_a_terminal_shows_bars_and_keeps_what_was_said():
    text_ = drawn(EVENTS, force_terminal=True, color_system=None)
    assert "[2/2] distill" in text_
    assert "1/4 epochs, 9.0 s left" in text_
    assert "[b]not markup[/b]" in text_
    assert "distill: done in 0.0 s; accuracy 0.5" in text_


def test_only_a_terminal_gets_bars(monkeypatch, fake_session):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stderr", Terminal())
    for term, kind in [("xterm", TerminalProgress), ("dumb", PlainLines), (None, PlainLines)]:
        monkeypatch.delenv("TERM", raising=False)
        if term:
            monkeypatch.setenv("TERM", term)
        with progress.drawn() as emit:
            assert isinstance(emit, kind)


@pytest.fixture
def fake_session(monkeypatch):
    from edgekd.cli.session import Session

    monkeypatch.setattr(progress, "current", lambda: Session([]))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (61, "1 min 1 s"), (7260, "2 h 1 min")],
)
def test_durations(seconds, words):
    assert text.duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 * 2**20, "3.0 MiB"), (2**31, "2.0 GiB")],
)
def test_sizes(count, words):
    assert text.size(count) == words


def test_the_last_column_of_a_table_is_wrapped_under_itself():
    table = text.table([("a", "one two three four five six")], header=("X", "Y"), width=20)
    assert table == "X  Y\na  one two three four\n   five six"
    assert text.table([]) == ""
