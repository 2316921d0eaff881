"""Result files: killed at any point, they hold what was finished."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekd.bench import history
from edgekd.errors import SetupError, UsageError

ROOT = Path(__file__).parents[2]
records = st.lists(
    st.dictionaries(
        st.text(max_size=4), st.integers() | st.text(max_size=6) | st.none(), max_size=3
    ),
    min_size=1,
    max_size=5,
)
reuse = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@reuse
@given(records, st.data())
def test_a_file_cut_anywhere_holds_the_records_before_the_cut(tmp_path, rows, data):
    path = tmp_path / "h.jsonl"
    path.unlink(missing_ok=True)
    history.append(path, rows)
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    kept = rows[: sum(end <= cut for end in ends)]
    assert history.read(path) == kept
    history.append(path, [{"after": "the crash"}])
    assert history.read(path) == [*kept, {"after": "the crash"}]


def test_a_very_long_unfinished_line_is_removed(tmp_path):
    path = tmp_path / "h.jsonl"
    history.append(path, [{"a": 1}])
    with path.open("ab") as file:
        file.write(b'{"x":"' + b"y" * 200_000)
    history.append(path, [{"b": 2}])
    assert history.read(path) == [{"a": 1}, {"b": 2}]


def test_a_line_that_something_else_wrote_is_named(tmp_path):
    path = tmp_path / "h.jsonl"
    path.write_text('{"a": 1}\nnot json\n')
    with pytest.raises(UsageError) as error:
        history.read(path)
    assert error.value.at == f"{path}:2"
    path.write_text("[1]\n")
    with pytest.raises(UsageError, match="no record"):
        history.read(path)


def _append(path, writer):
    for number in range(30):
        history.append(path, [{"writer": writer, "number": number, "pad": "x" * 500}])


def test_writers_at_once_lose_nothing(tmp_path):
    path = tmp_path / "h.jsonl"
    context = get_context("fork")
    writers = [context.Process(target=_append, args=(path, w)) for w in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    found = history.read(path)
    assert len(found) == 90
    for writer in range(3):
        assert [r["number"] for r in found if r["writer"] == writer] == list(range(30))


def test_a_writer_killed_at_any_moment_leaves_a_file_that_reads(tmp_path):
    path = tmp_path / "h.jsonl"
    script = (
        "import sys\nfrom pathlib import Path\nfrom edgekd.bench import history\n"
        "print('ready', flush=True)\nn = 0\n"
        "while True:\n    history.append(Path(sys.argv[1]), [{'n': n, 'pad': 'x' * 20000}])\n    n += 1"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for delay in (0.02, 0.05, 0.11):
        child = subprocess.Popen(
            [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, env=environment
        )
        child.stdout.readline()
        try:
            child.wait(delay)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        found = history.read(path)
        history.append(path, [{"mark": delay}])
        assert history.read(path) == [*found, {"mark": delay}]


def test_history_is_a_folder_of_plain_files_that_branches_can_merge(tmp_path):
    folder = tmp_path / "history"
    for day in ("2026-01-02", "2026-01-01"):
        row = {"device": "pi5", "name": "mobilevit-cpu", "when": day}
        path = history.remember(folder, row)
    assert path == folder / "pi5" / "mobilevit-cpu.jsonl"
    assert (folder / ".gitattributes").read_text() == "*.jsonl merge=union\n"
    assert [row["when"] for row in history.recall(folder)] == ["2026-01-01", "2026-01-02"]
    assert json.loads(path.read_text().splitlines()[0])["schema"] == 1
    with pytest.raises(UsageError, match="no history here"):
        history.recall(tmp_path / "nowhere")


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError) as error:
        history.append(tmp_path / "file" / "h.jsonl", [{}])
    assert error.value.at == str(tmp_path / "file" / "h.jsonl")
