"""What this environment lacks, and the exact command that brings it.

Nothing is imported to find out: versions come from the installed packages' metadata, and what
the device has comes from the agent that runs there.
"""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgekd.agent import facts
from edgekd.environments import ENVIRONMENTS, Environment
from edgekd.errors import EdgekdError, TargetError
from edgekd.extras import EXTRAS, installed, pip_install
from edgekd.version import __version__

if TYPE_CHECKING:
    from edgekd.target import Target

__all__ = ["Check", "Diagnosis", "examine"]

LOW_DISK_GIB = 2.0
LOW_MEMORY_MIB = 2048
"""Free memory of a Jetson below which building an engine often fails."""
MODES = "/etc/nvpmodel.conf"
_TRAIN = ("torch", "onnx", "onnxscript", "onnxsim", "onnxruntime")


@dataclass(frozen=True)
class Needs:
    """What a backend needs.

    Attributes:
        build: Modules here, to make its artefacts.
        extras: Extras that bring them.
        run: Runtimes on the device, any one of them, as the agent calls them.
        tools: Programs on PATH here.
        fix: Command for what no extra brings.
        environment: Environment of its own that it builds in (`edgekd.environments`).
    """

    build: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    run: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    fix: str = ""
    environment: str = ""


NEEDS: Mapping[str, Needs] = {
    "onnxruntime": Needs(_TRAIN, ("train",), ("onnxruntime",)),
    "openvino": Needs((*_TRAIN, "openvino", "nncf"), ("train", "openvino"), ("openvino",)),
    "litert": Needs((*_TRAIN,), ("train", "litert"), ("litert",), environment="litert"),
    "tensorrt": Needs(
        _TRAIN,
        ("train",),
        ("tensorrt",),
        fix="on a Jetson: sudo apt-get install nvidia-jetpack; beside another NVIDIA GPU: "
        + pip_install("tensorrt"),
    ),
    "tensorrt-rtx": Needs(
        (*_TRAIN, "tensorrt_rtx"), ("train", "tensorrt-rtx"), ("tensorrt-rtx", "tensorrt_rtx")
    ),
    "firmware": Needs(
        _TRAIN,
        ("train",),
        tools=("gcc", "arm-none-eabi-gcc", "qemu-system-arm"),
        fix="apt-get install gcc gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm",
        environment="litert",
    ),
    "ethos-u": Needs(
        (*_TRAIN, "ethosu"), ("train", "litert", "ethos"), tools=("vela",), environment="litert"
    ),
}


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        part: Group for the reader: ``edgekd``, ``machine``, ``store``, ``telemetry``,
            ``package``, ``environment``, ``device`` or ``target NAME``.
        name: What was looked at.
        status: ``ok``; ``lacks`` when something asked for will not work; ``note`` otherwise.
        found: What is there.
        fix: The command that helps; empty when nothing is needed.
    """

    part: str
    name: str
    status: Literal["ok", "lacks", "note"]
    found: str
    fix: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All findings.

    Attributes:
        checks: In reading order.
        target: The target that was asked about, if any.
    """

    checks: tuple[Check, ...]
    target: str | None = None

    @property
    def lacking(self) -> tuple[Check, ...]:
        """Findings that stand in the way of what was asked."""
        return tuple(check for check in self.checks if check.status == "lacks")


Facts = Callable[[], Mapping[str, Any]]


def examine(target: str | None = None, on: str = "local", *, ask: Facts | None = None) -> Diagnosis:
    """Look at this environment, and at one target or all of them.

    Args:
        target: A target to judge; None judges all, where nothing counts as lacking.
        on: Where the device is: ``local``, ``ssh:HOST``, or a name of the user's list.
        ask: Returns the device's facts; by default the agent is started there.

    Raises:
        TargetError: No such target, or its file is wrong.
    """
    from edgekd import discover

    chosen = [discover.load_target(target)] if target else _valid_targets()
    device, device_checks = _device(on, ask or (lambda: _facts(on)))
    checks = [_edgekd(), _machine(), *_store(), _telemetry(), *_packages(chosen)]
    checks += [*_environments(chosen), *device_checks]
    for each in chosen:
        checks += _target(each, device, asked=target is not None)
    return Diagnosis(tuple(checks), target)


def _valid_targets() -> list[Target]:
    from edgekd import discover

    targets = []
    for found in discover.targets():
        try:
            targets.append(discover.load_target(found.path))
        except TargetError:
            continue
    return targets


# --- here --------------------------------------------------------------------------------------


def _edgekd() -> Check:
    version = f"{__version__}, Python {platform.python_version()}, {platform.system()}"
    return Check("edgekd", "version", "ok", version)


def _machine() -> Check:
    here = facts.identity()
    isa = " ".join(here["isa"]) or "none of those that matter"
    found = f"{here['cpu'] or here['arch']}, {here['cores']} cores; {isa}"
    return Check("machine", "processor", "ok", found)


def _store() -> list[Check]:
    from edgekd.store import default_root

    root = default_root()
    nearest = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(nearest).free / 2**30
    enough = free >= LOW_DISK_GIB
    return [
        _writable(root, nearest),
        Check(
            "store",
            "free disk",
            "ok" if enough else "lacks",
            f"{free:.1f} GiB",
            "" if enough else "edgekd cache gc --days 7, or set EDGEKD_STORE to another disk",
        ),
    ]


def _writable(root: Path, nearest: Path) -> Check:
    fix = "set EDGEKD_STORE to a folder that you may write"
    try:
        with tempfile.TemporaryFile(dir=nearest):
            return Check("store", "location", "ok", f"{root}, writable")
    except OSError as error:
        return Check("store", "location", "lacks", f"{root}: {error.strerror}", fix)


def _telemetry() -> Check:
    found = "off: edgekd sends nothing"
    if installed("openvino_telemetry"):
        found += (
            "; openvino_telemetry is installed, and blocked before OpenVINO or NNCF is imported"
        )
    return Check("telemetry", "telemetry", "ok", found)


def _packages(targets: Iterable[Target]) -> list[Check]:
    """Return the packages that the targets' backends need."""
    needed = {m for t in targets for name in t.backends for m in NEEDS.get(name, Needs()).build}
    return [_package(p.distribution, p.extra) for p in EXTRAS if p.module in needed]


def _package(distribution: str, extra: str) -> Check:
    version = facts.version_of(distribution)
    if version:
        return Check("package", distribution, "ok", version)
    return Check("package", distribution, "note", "not installed", pip_install(extra))


def _environments(targets: Iterable[Target]) -> list[Check]:
    """Return the environments of their own that the targets' backends build in."""
    needed = {NEEDS.get(name, Needs()).environment for t in targets for name in t.backends}
    return [_environment(ENVIRONMENTS[name]) for name in sorted(needed) if name]


def _environment(wanted: Environment) -> Check:
    found = wanted.find()
    if found is None:
        return Check("environment", wanted.name, "note", wanted.lacking() or "", wanted.command)
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    return Check("environment", wanted.name, "ok", f"{versions}; {found.folder}")


# --- the device --------------------------------------------------------------------------------


def _facts(on: str) -> Mapping[str, Any]:
    from edgekd.device.link import agent_on

    with agent_on(on) as agent:
        return agent.facts()


def _device(on: str, ask: Facts) -> tuple[Mapping[str, Any] | None, list[Check]]:
    try:
        device = ask()
    except EdgekdError as error:
        return None, [Check("device", on, "lacks", error.what, error.hint or "")]
    have = sorted((n, v) for n, v in device["runtimes"].items() if v)
    runtimes = ", ".join(f"{n} {v}" for n, v in have) or "no runtime"
    name = device["cpu"] or device["arch"]
    played = device.get("replay")
    name = name if played is None else f"a recording, no board: {played['recorded']}; {name}"
    checks = [Check("device", on, "ok", f"{name}; {runtimes}")]
    return device, checks + list(_board(device))


def _board(device: Mapping[str, Any]) -> Iterable[Check]:
    """Tell what stands in the way of building and measuring on a board."""
    if device.get("numpy", "") is None:
        fix = "sudo apt-get install python3-numpy"
        yield Check("device", "numpy", "lacks", "not installed", fix)
    elif device.get("python"):
        found = f"{device['python']}, numpy {device['numpy']}"
        yield Check("device", "Python", "ok", found)
    tools, tegra = device.get("tools") or {}, device.get("jetson")
    if tools.get("trtexec"):
        yield Check("device", "trtexec", "ok", f"{tools['trtexec']}, {tools['trtexec_version']}")
    elif tools.get("trtexec_fault") or tegra:
        found = tools.get("trtexec_fault") or "not found"
        yield Check("device", "trtexec", "lacks", found, "sudo apt-get install libnvinfer-bin")
    if tools.get("trtexec") and not tools.get("tensorrt_package"):
        found = "no package tensorrt: each sample is a run of trtexec, and energy is not measured"
        fix = "sudo apt-get install python3-libnvinfer"
        yield Check("device", "Python's TensorRT", "note", found, fix)
    free = tools.get("disk_free_mib")
    if free is not None:
        low = free < LOW_DISK_GIB * 1024
        fix = "df -h, and free some space there" if low else ""
        yield Check("device", "free disk", "lacks" if low else "ok", f"{free} MiB", fix)
    memory = tools.get("memory_free_mib")
    if tegra and memory is not None:
        low = memory < LOW_MEMORY_MIB
        fix = "sudo systemctl isolate multi-user.target (ends the desktop)" if low else ""
        yield Check("device", "free memory", "note" if low else "ok", f"{memory} MiB", fix)
    if tegra:
        release = f"L4T {tegra['l4t']}, JetPack {tegra['jetpack'] or 'not known'}"
        yield Check("device", "release", "ok", release)


def _mode(target: Target, device: Mapping[str, Any]) -> list[Check]:
    """Compare the power mode by its name; changing it takes sudo, and is the user's to do."""
    tegra = device.get("jetson")
    if target.power_mode is None or not tegra:
        return []
    found, part = tegra["power_mode"], f"target {target.name}"
    if found == target.power_mode:
        return [Check(part, "power mode", "ok", f"{found}; nothing here needs sudo")]
    said = f"{found or 'not told'}, wanted {target.power_mode}; edgekd changes no mode"
    fix = f"sudo nvpmodel -m N, N as {MODES} lists it for {target.power_mode}"
    return [Check(part, "power mode", "note", said, fix)]


# --- a target ----------------------------------------------------------------------------------


def _target(target: Target, device: Mapping[str, Any] | None, *, asked: bool) -> list[Check]:
    """Judge a target: it works when at least one of its backends does."""
    part = f"target {target.name}"
    faults = {name: _backend(name, target, device) for name in target.backends}
    works = any(not found for found in faults.values())
    missing: Literal["lacks", "note"] = "lacks" if asked and not works else "note"
    checks = [_architecture(target, device, asked=asked)] if target.arch and device else []
    checks += _mode(target, device) if device else []
    for name, found in faults.items():
        what = "; ".join(what for what, _ in found) or _works(name)
        fix = "; ".join(dict.fromkeys(fix for _, fix in found if fix))
        checks.append(Check(part, name, missing if found else "ok", what, fix))
    return checks


def _works(name: str) -> str:
    if name == "firmware":
        return "can be built, and run in an emulator"
    return "can be built, run and measured" if name in NEEDS else "of another package; not judged"


def _architecture(target: Target, device: Mapping[str, Any], *, asked: bool) -> Check:
    part, found = f"target {target.name}", device["arch"]
    if found in target.arch:
        return Check(part, "architecture", "ok", found)
    wanted = " or ".join(target.arch)
    fix = "name the device with --on"
    return Check(
        part, "architecture", "lacks" if asked else "note", f"{found}, wanted {wanted}", fix
    )


def _backend(name: str, target: Target, device: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Return what a backend lacks, each with its fix."""
    needs = NEEDS.get(name, Needs())
    found = _lacking_modules(needs) + _lacking_environment(needs) + _lacking_tools(needs)
    if device is not None and needs.run:
        found += _lacking_runtime(name, needs, target, device["runtimes"])
    return found


def _lacking_modules(needs: Needs) -> list[tuple[str, str]]:
    lacking = [module for module in needs.build if not installed(module)]
    if not lacking:
        return []
    return [(f"{', '.join(lacking)} not installed here", pip_install(*needs.extras))]


def _lacking_environment(needs: Needs) -> list[tuple[str, str]]:
    wanted = ENVIRONMENTS.get(needs.environment)
    reason = wanted.lacking() if wanted else None
    return [(reason, wanted.command)] if wanted and reason else []


def _lacking_tools(needs: Needs) -> list[tuple[str, str]]:
    lacking = [tool for tool in needs.tools if shutil.which(tool) is None]
    if not lacking:
        return []
    return [(f"{', '.join(lacking)} not on PATH", needs.fix or pip_install(*needs.extras))]


def _lacking_runtime(
    name: str, needs: Needs, target: Target, runtimes: Mapping[str, str]
) -> list[tuple[str, str]]:
    from edgekd.target import accepts

    version = next((runtimes[run] for run in needs.run if run in runtimes), None)
    fix = needs.fix or pip_install(*needs.extras)
    if version is None:
        return [(f"no {name} runtime on the device", fix)]
    wanted = target.runtime.get(name)
    if wanted and not accepts(wanted, version):
        return [(f"{name} {version} on the device, wanted {wanted}", fix)]
    return []


def advice(checks: Iterable[Check]) -> list[str]:
    """Return each fix once, in order."""
    return list(dict.fromkeys(check.fix for check in checks if check.fix))
