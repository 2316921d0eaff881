"""A board behind ssh, played by a real sshd on loopback."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from edgekd.device import ssh as ssh_module
from edgekd.device.reach import devices_file, reach
from edgekd.device.ssh import Ssh
from edgekd.errors import SetupError, StageError, UsageError
from tests.device import sshd as servers


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not servers.have_all():
        pytest.skip(servers.MISSING)
    found = servers.Sshd(tmp_path_factory.mktemp("sshd"))
    found.start()
    yield found
    found.stop()


@pytest.fixture
def board(server, monkeypatch):
    monkeypatch.setenv("EDGEKD_SSH", server.command)
    if server.pid is None:
        server.start()
    with Ssh("board") as link:
        yield link


def test_run(board):
    done = board.run(["printf", "%s|", "a b", "$HOME", "it's"])
    assert (done.code, done.out) == (0, b"a b|$HOME|it's|")
    done = board.run("echo out; echo err >&2; exit 7")
    assert (done.code, done.out, done.error) == (7, b"out\n", "err")
    assert board.ask("echo hi") == "hi"


@pytest.mark.parametrize("code", [255, 1, 127])
def test_the_commands_own_code_is_not_taken_for_sshs(board, code):
    assert board.run(f"exit {code}").code == code
    assert board.run("kill -9 $$").code == 137


def test_output_that_imitates_the_mark(board):
    done = board.run("echo EDGEKD-RC 3 >&2; exit 5")
    assert done.code == 5 and done.error == "EDGEKD-RC 3"


def test_a_command_that_must_succeed(board):
    with pytest.raises(
        StageError, match="'ls /nowhere' failed on board with code 2: ls: cannot access"
    ):
        board.ask(["ls", "/nowhere"])


def test_a_late_command_is_killed_there(board, tmp_path):
    pid = tmp_path / "pid"
    with pytest.raises(StageError, match="more than 1 s and was killed"):
        board.run(f"echo $$ > {pid}; sleep 300; echo late", timeout_s=1)
    time.sleep(0.3)
    assert not alive(int(pid.read_text()))
    assert board.ask("echo still here") == "still here"


def alive(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_copies_are_whole_and_equal(board, tmp_path):
    source = tmp_path / "it's a file.bin"
    source.write_bytes(os.urandom(3_000_000))
    board.put(source, f"{board.folder}/copy of it")
    assert (
        board.get(f"{board.folder}/copy of it", tmp_path / "back").read_bytes()
        == source.read_bytes()
    )
    assert board.ask(["ls", board.folder]) == "copy of it"
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []
    with pytest.raises(StageError, match="there is no /nowhere"):
        board.get("/nowhere", tmp_path / "x")


def test_an_empty_file(board, tmp_path):
    (tmp_path / "empty").touch()
    board.put(tmp_path / "empty", f"{board.folder}/empty")
    assert board.get(f"{board.folder}/empty", tmp_path / "back").read_bytes() == b""


def test_an_interrupted_copy_goes_on_where_it_stopped(board, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 4000)
    digest = ssh_module._sha256(source)
    part = tmp_path / f"there.{digest[:16]}.part"
    part.write_bytes(source.read_bytes()[:700_000])
    sent = []
    original = board._attempt

    def watched(text, input, timeout_s):
        if input is not None:
            sent.append(source.stat().st_size - input.tell())
        return original(text, input, timeout_s)

    board._attempt = watched
    board.put(source, str(tmp_path / "there"))
    assert sent == [source.stat().st_size - 700_000]
    assert (tmp_path / "there").read_bytes() == source.read_bytes()
    board.put(source, str(tmp_path / "there"))
    assert len(sent) == 1, "what is there already is not sent again"


def test_a_part_that_does_not_fit_is_sent_again(board, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"right" * 1000)
    part = tmp_path / f"there.{ssh_module._sha256(source)[:16]}.part"
    part.write_bytes(b"wrong" * 100)
    board.put(source, str(tmp_path / "there"))
    assert (tmp_path / "there").read_bytes() == source.read_bytes()


def test_a_connection_cut_amid_a_copy_goes_on(board, server, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(os.urandom(2_000_000))
    original, cuts = board._attempt, []

    def cutting(text, input, timeout_s):
        if input is not None and not cuts:
            cuts.append(text)
            original(
                text.replace("cat >>", "head -c 1000000 >>") + "; kill -9 $PPID; sleep 1", input, 3
            )
            server.cut()
            return ssh_module.Lost("Connection closed", True)
        return original(text, input, timeout_s)

    board._attempt = cutting
    board.put(source, str(tmp_path / "there"))
    assert cuts and (tmp_path / "there").read_bytes() == source.read_bytes()


def test_a_full_disk(board, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)],
        capture_output=True,
        check=False,
    )
    place = small if mounted.returncode == 0 else Path("/dev/full")
    source = tmp_path / "big"
    source.write_bytes(os.urandom(500_000))
    try:
        if mounted.returncode:
            # No right to mount here: /dev/full refuses every byte in the same words.
            done = board._attempt("cat > /dev/full", source.open("rb"), 30)
            error = board._disk("/dev/full", done)
        else:
            with pytest.raises(SetupError) as caught:
                board.put(source, f"{place}/there")
            error = caught.value
            assert not (small / "there").exists()
        assert isinstance(error, SetupError) and "the disk of board is full" in error.what
        assert "df -h" in error.hint
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", str(small)], check=True)


def test_a_server_killed_amid_a_command(board, server):
    began = time.monotonic()
    killer = subprocess.Popen(["sleep", "1.5"])
    board.ask("true")
    import threading

    threading.Timer(1.0, server.cut).start()
    with pytest.raises(SetupError, match="the connection to board was lost during 'sleep 60'"):
        board.run("sleep 60")
    killer.wait()
    assert time.monotonic() - began < 30
    assert board.ask("echo again") == "again", "the next command connects anew"


def test_nothing_listens(server, board):
    server.stop()
    try:
        with pytest.raises(
            SetupError, match="board cannot be reached: nothing listens there"
        ) as caught:
            Ssh("board").ask("true")
        assert caught.value.exit_code == 4 and caught.value.at == "--on ssh:board"
    finally:
        server.start()


def test_a_changed_host_key_is_refused(server, board):
    server.stop()
    server.new_host_key()
    server.start()
    try:
        with pytest.raises(SetupError, match="its host key has changed") as caught:
            Ssh("board").ask("true")
        assert "ssh-keygen -R board" in caught.value.hint
        server.known.unlink()
        with pytest.raises(SetupError, match="its host key is not known here"):
            Ssh("board").ask("true")
    finally:
        server.trust()
    assert Ssh("board").ask("echo trusted") == "trusted"


def test_a_key_that_is_not_accepted(server, board, tmp_path, monkeypatch):
    servers.keygen(tmp_path / "other")
    config = server.config.read_text().replace("user_key", "no_key")
    other = tmp_path / "config"
    other.write_text(config.replace(str(server.folder / "no_key"), str(tmp_path / "other")))
    monkeypatch.setenv("EDGEKD_SSH", f"ssh -F {other}")
    with pytest.raises(SetupError, match="it accepts no key of yours"):
        Ssh("board").ask("true")


def test_an_unknown_name(board):
    with pytest.raises(SetupError, match="its name is not known"):
        Ssh("no-such-host.invalid").ask("true")


def test_no_client(monkeypatch):
    monkeypatch.setenv("EDGEKD_SSH", "no-such-ssh")
    with pytest.raises(SetupError, match="no 'no-such-ssh' here"):
        Ssh("board")


def test_the_folder_on_the_board_is_removed(server, monkeypatch):
    monkeypatch.setenv("EDGEKD_SSH", server.command)
    with Ssh("board") as link:
        folder = Path(link.folder)
        sockets = link._sockets
        assert folder.is_dir() and link.folder == str(folder)
        (folder / "left").touch()
    assert not folder.exists() and not sockets.exists()


# --- what --on names ---------------------------------------------------------------------------


def test_reach(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert reach("local").local and not reach("ssh:me@board").local
    assert reach("ssh:me@board").host == "me@board"
    devices_file().parent.mkdir()
    devices_file().write_text(
        "orin: {target: jetson, reach: 'ssh:orin.lab'}\n"
        "pi: {target: pi5, python: ~/edge/bin/python}\n"
        "here: {reach: local}\n"
    )
    found = reach("orin")
    assert (found.host, found.target, found.python) == ("orin.lab", "jetson", "python3")
    assert (reach("pi").host, reach("pi").python) == ("pi", "~/edge/bin/python")
    assert reach("here").local


@pytest.mark.parametrize(
    ("on", "listed", "said"),
    [
        ("orni", "orin: {reach: 'ssh:o'}", "no device is called 'orni'"),
        ("ssh:-oProxyCommand=x", "", "no host"),
        ("ssh:", "", "no host"),
        ("x", "x: {reach: serial}", "local or ssh:HOST"),
        ("x", "x: {reech: 'ssh:x'}", "unknown key 'reech'"),
        ("x", "- x", "maps names"),
        ("x", "x: [", "cannot read"),
    ],
)
def test_wrong_names(on, listed, said, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    devices_file().parent.mkdir()
    devices_file().write_text(listed)
    with pytest.raises(UsageError, match=said):
        reach(on)
