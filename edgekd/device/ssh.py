"""A board behind the OpenSSH client: commands and files over one shared connection.

Users, ports, keys and jump hosts are ssh's own business (``~/.ssh/config``); ``$EDGEKD_SSH``
replaces the command, as ``$GIT_SSH_COMMAND`` does for git. Host keys are always checked. ssh's exit
code 255 means its own failure or the command's, so a command reports its code in a last line of
its own; what goes without that line never ended, and the connection is to blame.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgekd.errors import SetupError, StageError

__all__ = ["Done", "Ssh"]

MARK = "EDGEKD-RC"
CONNECT_S = 10
COMMAND_S = 60.0
GRACE_S = 15.0
"""How much longer the client is waited for than the command on the board."""
LATE = 124
"""Exit code of ``timeout`` for a command that took too long."""
BLOCK = 1 << 20

_LAST = re.compile(rb"^" + MARK.encode() + rb" (\d+)\n?\Z", re.MULTILINE)
_CAUSES = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key has changed: another machine, a fresh installation, or someone in between",
        "if you know why, ssh-keygen -R {host}, then ssh {host} once",
    ),
    (
        r"Host key verification failed",
        "its host key is not known here",
        "ssh {host} once and accept the key after comparing it",
    ),
    (r"Permission denied", "it accepts no key of yours", "ssh-copy-id {host}"),
    (
        r"Could not resolve hostname",
        "its name is not known",
        "check ~/.ssh/config, or the spelling",
    ),
    (r"Connection refused", "nothing listens there", "is ssh running on the board?"),
    (
        r"timed out|not responding|No route to host|Network is unreachable",
        "it does not answer",
        "is it on, and on this network?",
    ),
)


@dataclass(frozen=True)
class Done:
    """How a command on the board ended."""

    code: int
    out: bytes
    error: str


class Ssh:
    """One board: commands with a time limit that kills them there, and files that resume.

    Args:
        host: As ``ssh HOST`` takes it: a name, an alias of ssh's configuration, ``user@name``.

    Raises:
        SetupError: There is no ssh client here.
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self._sent: dict[str, str] = {}
        self._base = shlex.split(os.environ.get("EDGEKD_SSH", "ssh"))
        if shutil.which(self._base[0]) is None:
            raise SetupError(
                f"there is no {self._base[0]!r} here", hint="apt-get install openssh-client"
            )
        # Short: a socket's path has 108 bytes at most, and ssh appends to it.
        self._sockets = Path(tempfile.mkdtemp(prefix="ek-", dir=_short_place()))
        self._folder: str | None = None
        self._undo = weakref.finalize(self, _hang_up, self.command(), host, self._sockets)

    def command(self) -> list[str]:
        """Return the client with its options, to be followed by host and command."""
        settings = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "ConnectTimeout": str(CONNECT_S),
            "ServerAliveInterval": "5",
            "ServerAliveCountMax": "3",
            "ControlMaster": "auto",
            "ControlPath": f"{self._sockets}/%C",
            "ControlPersist": "60",
        }
        options = [part for pair in settings.items() for part in ("-o", "=".join(pair))]
        return [*self._base, "-x", "-T", *options]

    def run(
        self,
        command: str | Sequence[str],
        *,
        input: IO[bytes] | None = None,
        timeout_s: float = COMMAND_S,
    ) -> Done:
        """Run a command on the board; a lost connection is tried once more when it never began.

        Args:
            command: Shell text, or words.
            input: A file, given to its standard input from where it stands.
            timeout_s: After that long it is killed on the board.

        Raises:
            SetupError: The board cannot be reached, or the connection was lost.
            StageError: The command took longer than `timeout_s`.
        """
        text = command if isinstance(command, str) else shlex.join(command)
        done = self._attempt(text, input, timeout_s)
        if isinstance(done, Lost) and not done.began:
            done = self._attempt(text, input, timeout_s)
        if isinstance(done, Lost):
            raise self._unreachable(done.said, text)
        if done.code == LATE:
            raise StageError(
                f"{_brief(text)} on {self.host} took more than {timeout_s:g} s and was killed",
                hint="the board may be busy; look with ssh",
            )
        return done

    def ask(self, command: str | Sequence[str], *, timeout_s: float = COMMAND_S) -> str:
        """Run a command that must succeed and return what it printed.

        Raises:
            StageError: It failed; also as `run`.
        """
        done = self.run(command, timeout_s=timeout_s)
        if done.code != 0:
            text = command if isinstance(command, str) else shlex.join(command)
            raise self._failed(text, done)
        return done.out.decode(errors="replace").strip()

    def _attempt(self, text: str, input: IO[bytes] | None, timeout_s: float) -> Done | Lost:
        """Run once; the remote shell writes a mark before and after."""
        inner = f"echo {MARK}-BEGAN >&2; {_limited(text, timeout_s)}"
        wrapped = f"{inner}; rc=$?; printf '\\n{MARK} %d\\n' $rc >&2; exit 0"
        command = [*self.command(), self.host, wrapped]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL if input is None else input,
                capture_output=True,
                timeout=timeout_s + GRACE_S,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            said = (late.stderr or b"").decode(errors="replace")
            return Lost(f"{said}\nssh itself gave no answer: timed out", True)
        head, began, rest = done.stderr.partition(f"{MARK}-BEGAN\n".encode())
        last = _LAST.search(rest)
        if last is None:
            return Lost((head + rest).decode(errors="replace").strip(), bool(began))
        said = rest[: last.start()].decode(errors="replace").strip()
        return Done(int(last[1]), done.stdout, said)

    # --- files ---------------------------------------------------------------------------------

    @property
    def folder(self) -> str:
        """A folder of this session on the board, made when first asked for, removed at the end."""
        if self._folder is None:
            place = '"${TMPDIR:-/tmp}/edgekd-XXXXXXXX"'
            self._folder = self.ask(f"mktemp -d {place}")
            self._undo.detach()
            self._undo = weakref.finalize(
                self, _hang_up, self.command(), self.host, self._sockets, self._folder
            )
        return self._folder

    def put(self, local: Path, remote: str) -> None:
        """Copy a file to the board; what an interrupted copy left is continued when it fits.

        Args:
            local: The file.
            remote: Where it goes; it appears whole or not at all.

        Raises:
            SetupError: The board's disk is full, or the connection was lost twice.
        """
        digest, size = _sha256(local), local.stat().st_size
        if self._sent.get(remote) == digest:  # between two timings no command runs there
            return
        if self._has(remote, digest):
            self._sent[remote] = digest
            return
        partial = f"{remote}.{digest[:16]}.part"
        start = self._start(local, partial, size)
        with local.open("rb") as stream:
            stream.seek(start)
            done = self._attempt(f"cat >> {shlex.quote(partial)}", stream, _allowance(size))
        if isinstance(done, Lost):
            return self._resume(local, remote, done)
        if done.code != 0:
            raise self._disk(remote, done)
        found = self._digest_of(partial)
        if found != digest:
            self.run(["rm", "-f", partial])
            raise StageError(f"{local.name} arrived damaged on {self.host}", at=remote)
        self.ask(["mv", "-f", partial, remote])
        self._sent[remote] = digest
        return None

    def _resume(self, local: Path, remote: str, lost: Lost) -> None:
        """Go on after a lost connection, once; what had arrived is kept."""
        if getattr(self, "_resuming", False):
            raise self._unreachable(lost.said, f"copying {local.name}")
        self._resuming = True
        try:
            self.put(local, remote)
        finally:
            self._resuming = False

    def get(self, remote: str, local: Path) -> Path:
        """Copy a file from the board; it appears whole or not at all.

        Raises:
            StageError: There is no such file, or it changed while it was read.
        """
        wanted = self._digest_of(remote)
        if wanted is None:
            raise StageError(f"there is no {remote} on {self.host}")
        partial = local.with_name(f"{local.name}.{wanted[:16]}.part")
        have = partial.stat().st_size if partial.exists() else 0
        size = int(self.ask(f"wc -c < {shlex.quote(remote)}"))
        if have > size:
            have = 0
            partial.unlink()
        command = f"tail -c +{have + 1} {shlex.quote(remote)}"
        done = self.run(command, timeout_s=_allowance(size))
        with partial.open("ab") as stream:
            stream.write(done.out)
        if done.code != 0 or _sha256(partial) != wanted:
            partial.unlink()
            raise StageError(f"{remote} came damaged from {self.host}", hint="run it again")
        partial.replace(local)
        return local

    def _has(self, remote: str, digest: str) -> bool:
        return self._digest_of(remote) == digest

    def _digest_of(self, remote: str) -> str | None:
        done = self.run(["sha256sum", remote], timeout_s=600)
        return done.out.split()[0].decode().lstrip("\\") if done.code == 0 and done.out else None

    def _start(self, local: Path, partial: str, size: int) -> int:
        """Return how much of a file has arrived, when that part is right; else remove it."""
        quoted = shlex.quote(partial)
        said = self.run(f"wc -c < {quoted} && sha256sum {quoted}")
        words = said.out.split()
        if said.code != 0 or len(words) < 2:
            return 0
        have = int(words[0])
        if have <= size and _sha256(local, have) == words[1].decode():
            return have
        self.run(["rm", "-f", partial])
        return 0

    # --- ends ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Remove the folder on the board and end the connection."""
        self._undo()

    def __enter__(self) -> Ssh:
        """Return the board."""
        return self

    def __exit__(self, *details: object) -> None:
        """Close it."""
        self.close()

    def _unreachable(self, said: str, doing: str) -> SetupError:
        for pattern, cause, hint in _CAUSES:
            if re.search(pattern, said):
                return SetupError(
                    f"{self.host} cannot be reached: {cause}",
                    at=f"--on ssh:{self.host}",
                    hint=hint.format(host=self.host.rpartition("@")[2]),
                )
        last = said.splitlines()[-1] if said else "ssh gave no reason"
        return SetupError(
            f"the connection to {self.host} was lost during {_brief(doing)}: {last}",
            at=f"--on ssh:{self.host}",
            hint="finished steps are kept; run the same command again",
        )

    def _failed(self, text: str, done: Done) -> StageError:
        said = done.error.splitlines()[-1] if done.error else "it said nothing"
        return StageError(f"{_brief(text)} failed on {self.host} with code {done.code}: {said}")

    def _disk(self, remote: str, done: Done) -> SetupError | StageError:
        if "No space left" in done.error or "quota" in done.error.lower():
            return SetupError(
                f"the disk of {self.host} is full; nothing half-written is used",
                at=remote,
                hint=f"ssh {self.host} df -h; free some space, or set TMPDIR there",
            )
        return self._failed(f"writing {remote}", done)


@dataclass(frozen=True)
class Lost:
    """A connection that ended before the command said its code."""

    said: str
    began: bool


def _limited(text: str, timeout_s: float) -> str:
    """Let the board itself kill the command: a client that leaves does not."""
    return f"timeout -k 2 {max(1, round(timeout_s))} sh -c {shlex.quote(text)}"


def _allowance(size: int) -> float:
    """Seconds for a copy: at least 1 MB/s is expected of the slowest link."""
    return 60 + size / 1e6


def _brief(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _short_place() -> str | None:
    return "/tmp" if Path("/tmp").is_dir() and os.access("/tmp", os.W_OK) else None


def _sha256(path: Path, size: int | None = None) -> str:
    """Return the digest of a file, or of its first bytes."""
    value, left = hashlib.sha256(), size
    with path.open("rb") as stream:
        while block := stream.read(BLOCK if left is None else min(BLOCK, left)):
            value.update(block)
            left = None if left is None else left - len(block)
    return value.hexdigest()


def _hang_up(command: list[str], host: str, sockets: Path, folder: str | None = None) -> None:
    """Remove what was left on the board, end the shared connection, remove its socket."""
    last = [[*command, "-O", "exit", host]]
    if folder:
        last.insert(0, [*command, host, shlex.join(["rm", "-rf", "--", folder])])
    for words in last:
        with suppress(OSError, subprocess.SubprocessError):
            subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False
            )
    shutil.rmtree(sockets, ignore_errors=True)
