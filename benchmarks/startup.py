"""Print what starting the command line costs over a bare Python: CPU seconds and memory.

    python benchmarks/startup.py

Each command runs several times; the least CPU time counts, since noise only adds, and the
largest memory. The limits are those of the project; nothing fails when one is passed.
"""

from __future__ import annotations

import os
import subprocess
import sys

RUNS = 9
LIMITS = {"--help": 0.10, "recipes": 0.15, "targets": 0.30}
LIMIT_MB = 45
MODULES = ("torch", "numpy", "rich", "pydantic", "click")


def cost(arguments: list[str]) -> tuple[float, float]:
    """Return CPU seconds and peak memory in MB of a command of this interpreter."""
    seconds, megabytes = [], []
    for _ in range(RUNS):
        process = subprocess.Popen(
            [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, _, used = os.wait4(process.pid, 0)
        seconds.append(used.ru_utime + used.ru_stime)
        megabytes.append(used.ru_maxrss / 1e3)
    return min(seconds), max(megabytes)


def imported(arguments: list[str]) -> set[str]:
    """Return the top-level modules that a command imports."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    names = (line.rpartition("|")[2].strip() for line in done.stderr.splitlines())
    return {name.partition(".")[0] for name in names}


def main() -> None:
    """Print one line a command."""
    bare_s, bare_mb = cost(["-c", "pass"])
    print(f"{'command':<16} {'CPU s':>7} {'over bare':>9} {'limit':>6} {'MB':>6} {'limit':>6}")
    print(f"{'bare python':<16} {bare_s:>7.3f} {'':>9} {'':>6} {bare_mb:>6.1f}")
    for name, limit in LIMITS.items():
        command = ["-m", "edgekd", name]
        seconds, megabytes = cost(command)
        heavy = sorted(imported(command) & set(MODULES))
        print(
            f"{name:<16} {seconds:>7.3f} {seconds - bare_s:>9.3f} {limit:>6.2f} "
            f"{megabytes:>6.1f} {LIMIT_MB:>6}  imports {', '.join(heavy) or 'none of them'}"
        )


if __name__ == "__main__":
    main()
