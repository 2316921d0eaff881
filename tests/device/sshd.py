"""A real sshd on the loopback interface: throw-away keys, one user, files under one folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

SSHD = next((p for p in ("/usr/sbin/sshd", "/usr/local/sbin/sshd") if Path(p).exists()), None)
MISSING = "openssh-server is not installed: apt-get install openssh-server"


def keygen(path):
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(command, check=True)
    return path.with_suffix(".pub").read_text().strip()


class Sshd:
    """A server, and a client configuration with the alias ``board`` for it."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.port = _free_port()
        self.log = self.folder / "sshd.log"
        self.config = self.folder / "ssh_config"
        self.known = self.folder / "known_hosts"
        self.pid = None
        user = keygen(self.folder / "user_key")
        (self.folder / "authorized_keys").write_text(user + "\n")
        (self.folder / "authorized_keys").chmod(0o600)
        self.new_host_key()
        self.trust()
        self.config.write_text(
            "Host board\n"
            "  HostName 127.0.0.1\n"
            f"  Port {self.port}\n"
            f"  IdentityFile {self.folder / 'user_key'}\n"
            "  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {self.known}\n"
            "  GlobalKnownHostsFile /dev/null\n"
        )

    @property
    def command(self):
        """What goes into $EDGEKD_SSH."""
        return f"ssh -F {self.config}"

    def new_host_key(self):
        for name in ("host_key", "host_key.pub"):
            (self.folder / name).unlink(missing_ok=True)
        self.public = keygen(self.folder / "host_key")

    def trust(self):
        kind, key = self.public.split()[:2]
        self.known.write_text(f"[127.0.0.1]:{self.port} {kind} {key}\n")

    def start(self):
        Path("/run/sshd").mkdir(parents=True, exist_ok=True)
        pid_file = self.folder / "sshd.pid"
        pid_file.unlink(missing_ok=True)
        settings = {
            "ListenAddress": "127.0.0.1",
            "Port": self.port,
            "HostKey": self.folder / "host_key",
            "AuthorizedKeysFile": self.folder / "authorized_keys",
            "PidFile": pid_file,
            "UsePAM": "no",
            "StrictModes": "no",
            "PasswordAuthentication": "no",
            "MaxStartups": "100",
            "LogLevel": "VERBOSE",
            # The board's python3 has what this one has; nobody's own .bashrc says otherwise.
            "SetEnv": f"PATH={Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
            f" HOME={self.folder}",
        }
        config = self.folder / "sshd_config"
        config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        subprocess.run([SSHD, "-f", str(config), "-E", str(self.log)], check=True)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if pid_file.exists() and pid_file.read_text().strip() and _open(self.port):
                self.pid = int(pid_file.read_text())
                return
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def stop(self):
        """End the listener and every connection that it serves."""
        if self.pid is None:
            return
        for pid in [*_children(self.pid), self.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.pid = None
        deadline = time.monotonic() + 10
        while _open(self.port) and time.monotonic() < deadline:
            time.sleep(0.05)

    def cut(self):
        """Kill what serves the present connections; the listener stays."""
        for pid in _children(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _children(pid):
    """Every sshd below a process; not the commands that they run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue
        name, parent = (
            text.partition("(")[2].rpartition(")")[0],
            int(text.rpartition(")")[2].split()[1]),
        )
        if parent == pid and name.startswith("sshd"):
            child = int(path.parent.name)
            found += [*_children(child), child]
    return found


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _open(port):
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def have_all():
    """Whether server, client and keygen are here."""
    return SSHD is not None and all(map(shutil.which, ("ssh", "ssh-keygen")))
