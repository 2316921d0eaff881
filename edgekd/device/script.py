"""Run a shell script with its files on a device, in a folder that is removed afterwards."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from edgekd.device.reach import reach
from edgekd.device.ssh import Done, Ssh
from edgekd.errors import StageError

__all__ = ["run_script"]


def run_script(on: str, files: Mapping[str, Path], command: str, timeout_s: float) -> Done:
    """Copy files to a device and run a shell command among them.

    Args:
        on: Where the device is; see `edgekd.device.reach`.
        files: Place in the folder → file here.
        command: Shell text, run in that folder.
        timeout_s: After that long it is killed there.

    Raises:
        SetupError: The device cannot be reached.
        StageError: The command took longer.
    """
    host = reach(on).host
    if host is None:
        return _here(files, command, timeout_s)
    with Ssh(host) as board:
        folder = f"{board.folder}/script"
        folders = {str(_within(folder, name).parent) for name in files}
        board.ask(["mkdir", "-p", folder, *sorted(folders)])
        for name, path in files.items():
            board.put(path, str(_within(folder, name)))
        return board.run(f"cd {folder} && {command}", timeout_s=timeout_s)


def _within(folder: str, name: str) -> PurePosixPath:
    return PurePosixPath(folder) / name


def _here(files: Mapping[str, Path], command: str, timeout_s: float) -> Done:
    with tempfile.TemporaryDirectory(prefix="edgekd-script-") as folder:
        for name, path in files.items():
            place = Path(folder) / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
        try:
            done = subprocess.run(
                ["sh", "-c", command],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            raise StageError(f"{command!r} took more than {timeout_s:g} s and was killed") from late
    return Done(done.returncode, done.stdout, done.stderr.decode(errors="replace").strip())
