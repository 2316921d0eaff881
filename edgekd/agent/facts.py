"""What this machine is, and the state it is in: read from /proc and /sys, never guessed.

Whatever a machine does not tell is null. `identity` is cheap and stable, for cache keys;
`machine` is everything, for reports; `state` is what changes while a model runs.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from . import outside

ISA_FLAGS = {
    # x86, as /proc/cpuinfo spells them
    "sse4_2": "sse4_2",
    "avx": "avx",
    "f16c": "f16c",
    "fma": "fma",
    "avx2": "avx2",
    "avx_vnni": "avx_vnni",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "avx512_fp16": "avx512_fp16",
    "amx_tile": "amx_tile",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
    "amx_fp16": "amx_fp16",
    # Arm, whose kernels use other names than its manuals
    "neon": "neon",
    "asimd": "neon",
    "asimdhp": "fp16",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
    "sve2": "sve2",
}
"""Instruction sets that decide what a quantised model costs: the kernel's name, then ours."""

ARM_CORES = {
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
    "0xd44": "Cortex-X1",
    "0xd46": "Cortex-A510",
    "0xd47": "Cortex-A710",
    "0xd49": "Neoverse-N2",
    "0xd4f": "Neoverse-V2",
}
"""Part numbers of implementer 0x41 (Arm) in /proc/cpuinfo."""

_CPUINFO = outside.at("/proc/cpuinfo")
_CPUINFO_LIMIT = 16384
_CPUS = outside.at("/sys/devices/system/cpu")
_PLATFORM = outside.at("/sys/devices/platform")
_PI_NOW = 0xF


def identity() -> dict[str, Any]:
    """Return what makes two machines the same for a measurement: cheap and stable."""
    cpuinfo = _read(_CPUINFO, _CPUINFO_LIMIT) or ""
    found = {
        "cpu": cpu_model(cpuinfo) or _cpu_elsewhere(),
        "isa": isa_flags(cpuinfo),
        "cores": os.cpu_count(),
        "arch": platform.machine(),
        "os": platform.system(),
    }
    return found | outside.facts(found)


def machine() -> dict[str, Any]:
    """Return everything that a report wants to say about this machine."""
    found = {
        **identity(),
        "board": _board(),
        "usable_cores": _usable_cores(),
        "memory_mib": _memory_mib(),
        "os_release": _os_release(),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()).strip() or None,
        "python": platform.python_version(),
        "numpy": version_of("numpy"),
        "container": _container(),
        "state": state(),
    }
    played = outside.playing()
    return found | outside.facts(found) | ({} if played is None else {"replay": played})


def state() -> dict[str, Any]:
    """Return what may change during a measurement, to be recorded before and after it."""
    return {
        "load": list(os.getloadavg()),
        "governor": _governor(),
        "clocks_mhz": _clocks_mhz(),
        "gpu_mhz": _gpu_mhz(),
        "temperatures_c": _temperatures_c(),
        "throttle": _throttle(),
    }


def throttled(before: Mapping[str, int] | None, after: Mapping[str, int] | None) -> bool | None:
    """Return whether the machine held itself back; None where it has no counters."""
    if not before or not after:
        return None
    if after.get("firmware", 0) & _PI_NOW:
        return True
    return any(count > before.get(name, count) for name, count in after.items())


def cpu_model(cpuinfo: str) -> str | None:
    """Return the processor's name from the text of /proc/cpuinfo.

    Arm kernels print a part number for each core; the name lists the kinds of cores.
    """
    name = _field(cpuinfo, "model name")
    if name:
        return name
    parts = sorted(set(re.findall(r"^CPU part\s*:\s*(\S+)", cpuinfo, re.MULTILINE)))
    if _field(cpuinfo, "CPU implementer") == "0x41" and parts:
        return " + ".join(ARM_CORES.get(part, f"Arm part {part}") for part in parts)
    return _field(cpuinfo, "Model") or _field(cpuinfo, "Hardware")


def isa_flags(cpuinfo: str) -> list[str]:
    """Return the instruction sets of interest, under our names, sorted."""
    flags = (_field(cpuinfo, "flags") or _field(cpuinfo, "Features") or "").split()
    return sorted({ISA_FLAGS[flag] for flag in flags if flag in ISA_FLAGS})


def version_of(distribution: str) -> str | None:
    """Return the installed version of a distribution without importing it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _field(text: str, name: str) -> str | None:
    found = re.search(rf"^{re.escape(name)}\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else None


def _read(path: Path, limit: int = 4096) -> str | None:
    """Return the start of a file; None where it is missing, denied or fails (off sensors do)."""
    try:
        with path.open("rb") as stream:
            return stream.read(limit).decode(errors="replace").strip("\0\n ")
    except OSError:
        return None


def _number(path: Path, base: int = 10) -> int | None:
    try:
        return int(_read(path) or "", base)
    except ValueError:
        return None


def _cpu_elsewhere() -> str | None:
    if sys.platform == "darwin":
        import subprocess

        asked = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        return done.stdout.strip() or None
    return platform.processor() or None


def _board() -> str | None:
    """Return the name of the board or of the virtual machine's product."""
    return _read(outside.at("/proc/device-tree/model")) or _read(
        outside.at("/sys/class/dmi/id/product_name")
    )


def _usable_cores() -> int | None:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _memory_mib() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20


def _os_release() -> str | None:
    text = _read(outside.at("/etc/os-release")) or ""
    found = re.search(r'^PRETTY_NAME="?([^"\n]+)', text, re.MULTILINE)
    tegra = _read(outside.at("/etc/nv_tegra_release"))
    names = [found.group(1) if found else None, tegra.splitlines()[0] if tegra else None]
    return "; ".join(filter(None, names)) or None


def _container() -> dict[str, Any]:
    """Return hints that this is not a whole, bare machine."""
    cgroup = outside.at("/sys/fs/cgroup")
    flags = _field(_read(_CPUINFO, _CPUINFO_LIMIT) or "", "flags") or ""
    return {
        "marker": next(
            (path for path in ("/.dockerenv", "/run/.containerenv") if Path(path).exists()), None
        ),
        "virtual_machine": "hypervisor" in flags.split() if flags else None,
        "cpu_max": _read(cgroup / "cpu.max"),
        "memory_max": _read(cgroup / "memory.max"),
    }


def _governor() -> str | None:
    """Return the frequency governor, or all of them where cores differ."""
    paths = sorted(_CPUS.glob("cpu[0-9]*/cpufreq/scaling_governor"))
    names = {name for name in map(_read, paths) if name}
    return "+".join(sorted(names)) or None


def _clocks_mhz() -> list[float] | None:
    """Return the current clock of each core."""
    paths = sorted(_CPUS.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"), key=_natural)
    clocks = [khz / 1000 for khz in map(_number, paths) if khz is not None]
    if not clocks:
        text = _read(_CPUINFO, 2**20) or ""
        clocks = [float(mhz) for mhz in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", text, re.MULTILINE)]
    return clocks or None


def _gpu_mhz() -> float | None:
    """Return the clock of a Jetson's GPU now; its device's name has changed with JetPack."""
    folder = outside.at("/sys/class/devfreq")
    found = [f for name in ("gpu", "ga10b", "gv11b") for f in sorted(folder.glob(f"*.{name}"))]
    hertz = [clock for f in found if (clock := _number(f / "cur_freq")) is not None]
    return hertz[0] / 1e6 if hertz else None


def _natural(path: Path) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", str(path))]


def _temperatures_c() -> dict[str, float] | None:
    """Return every thermal zone that can be read, by type; equal types are numbered."""
    found: dict[str, float] = {}
    for zone in sorted(outside.at("/sys/class/thermal").glob("thermal_zone*"), key=_natural):
        millidegrees = _number(zone / "temp")
        if millidegrees is not None:
            name = _read(zone / "type") or zone.name
            found[name if name not in found else f"{name}.{zone.name}"] = millidegrees / 1000
    return found or None


def _throttle() -> dict[str, int] | None:
    """Return the counters of throttling: x86 cores, Jetson's over-current, Raspberry Pi's."""
    counters = {
        "core": _total(_CPUS.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")),
        "package": _total(_CPUS.glob("cpu[0-9]*/thermal_throttle/package_throttle_count")),
        **_overcurrent(),
    }
    for path in _PLATFORM.glob("soc*/soc*:firmware/get_throttled"):
        counters["firmware"] = _number(path, 16)
    return {name: count for name, count in counters.items() if count is not None} or None


def _overcurrent() -> dict[str, int | None]:
    monitors = outside.at("/sys/class/hwmon").glob("hwmon*")
    tegra = [monitor for monitor in monitors if _read(monitor / "name") == "soctherm_oc"]
    return {
        path.name.removesuffix("_event_cnt"): _number(path)
        for monitor in tegra
        for path in sorted(monitor.glob("oc*_event_cnt"))
    }


def _total(paths: Iterable[Path]) -> int | None:
    counts = [count for count in map(_number, paths) if count is not None]
    return sum(counts) if counts else None
