"""What the agent reads from /proc and /sys, on machines that are not here."""

from __future__ import annotations

import json

import pytest

from edgekd.agent import facts, process

RASPBERRY_PI_5 = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc \
dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

Revision\t: c04170
Serial\t\t: 0000000000000000
Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""
BIG_LITTLE = """\
processor\t: 0
Features\t: fp asimd asimdhp asimddp i8mm bf16
CPU implementer\t: 0x41
CPU part\t: 0xd05

processor\t: 4
CPU implementer\t: 0x41
CPU part\t: 0xd0b
processor\t: 5
CPU implementer\t: 0x41
CPU part\t: 0xfff
"""
XEON = """\
processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8480+
flags\t\t: fpu avx avx2 f16c fma avx512f avx512_bf16 avx512_vnni amx_bf16 amx_tile amx_int8
"""


@pytest.mark.parametrize(
    ("text", "model", "isa"),
    [
        (RASPBERRY_PI_5, "Cortex-A76", ["dotprod", "fp16", "neon"]),
        (
            BIG_LITTLE,
            "Cortex-A55 + Cortex-A76 + Arm part 0xfff",
            ["bf16", "dotprod", "fp16", "i8mm", "neon"],
        ),
        (
            XEON,
            "Intel(R) Xeon(R) Platinum 8480+",
            [
                "amx_bf16",
                "amx_int8",
                "amx_tile",
                "avx",
                "avx2",
                "avx512_bf16",
                "avx512_vnni",
                "avx512f",
                "f16c",
                "fma",
            ],
        ),
        ("", None, []),
    ],
)
def test_cpuinfo(text, model, isa):
    assert facts.cpu_model(text) == model
    assert facts.isa_flags(text) == isa


def test_machine_is_plain_data_and_contains_its_identity():
    machine = facts.machine()
    json.dumps(machine, allow_nan=False)
    assert facts.identity().items() <= machine.items()
    assert machine["memory_mib"] > 0
    assert len(machine["state"]["load"]) == 3


def test_unreadable_files_are_null(tmp_path, monkeypatch):
    for name in ("_CPUINFO", "_CPUS", "_PLATFORM"):
        monkeypatch.setattr(facts, name, tmp_path / "nowhere")
    state = facts.state()
    assert state["governor"] is None
    assert state["clocks_mhz"] is None
    assert facts.identity()["isa"] == []


def test_counters_governor_and_clocks_of_a_machine_that_has_them(tmp_path, monkeypatch):
    cpus, platform = tmp_path / "cpu", tmp_path / "platform"
    for core, count in (("cpu0", 3), ("cpu1", 4), ("cpu10", 0)):
        put(cpus / core / "thermal_throttle" / "core_throttle_count", count)
        put(cpus / core / "cpufreq" / "scaling_governor", "performance")
        put(cpus / core / "cpufreq" / "scaling_cur_freq", 1_000_000 + count * 1000)
    put(platform / "soc@1" / "soc@1:firmware" / "get_throttled", "50005")
    monkeypatch.setattr(facts, "_CPUS", cpus)
    monkeypatch.setattr(facts, "_PLATFORM", platform)
    state = facts.state()
    assert state["throttle"] == {"core": 7, "firmware": 0x50005}
    assert state["governor"] == "performance"
    assert state["clocks_mhz"] == [1003.0, 1004.0, 1000.0]


def put(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n")


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (None, None, None),
        ({"core": 3}, None, None),
        ({"core": 3}, {"core": 3}, False),
        ({"core": 3, "package": 1}, {"core": 3, "package": 2}, True),
        ({"firmware": 0x50000}, {"firmware": 0x50000}, False),  # long ago
        ({"firmware": 0x50005}, {"firmware": 0x50005}, True),  # all the time
        ({"firmware": 0}, {"firmware": 0x40000}, True),  # meanwhile
    ],
)
def test_throttled(before, after, verdict):
    assert facts.throttled(before, after) is verdict


def test_memory_of_this_process_is_plausible():
    assert 1 < process.rss_mib() <= process.peak_rss_mib()
