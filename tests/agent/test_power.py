"""Power of a board: sensors in files, lines of tegrastats in the forms that boards print."""

from __future__ import annotations

import time

import pytest

from edgekd.agent import jetson, power
from edgekd.agent.faults import UsageFault
from edgekd.agent.power import Sampler, energy, integral_mj, read_tegrastats

NANO = (
    "09-17-2026 02:10:16 RAM 1483/7620MB (lfb 105x4MB) SWAP 253/12002MB (cached 2MB) CPU "
    "[0%@729,12%@1036,off,0%@729,off,off] GR3D_FREQ 62%@612 cpu@47.75C soc2@46.718C gpu@50C tj@50C "
    "VDD_IN 4541mW/4999mW VDD_CPU_GPU_CV 521mW/521mW VDD_SOC 1446mW/1473mW"
)
NX = "RAM 1/2MB CPU [1%@729] EMC_FREQ 0% GR3D_FREQ 0%@[305] CV0@-256C VDD_IN 4319mW/4319mW"
AGX = "GR3D_FREQ 0%@[0,0] cpu@46.41C VDD_GPU_SOC 3188mW/3188mW VDD_CPU_CV 1195mW/1195mW VIN_SYS_5V0 3229mW/3229mW"


def test_tegrastats_of_a_nano():
    found = read_tegrastats(NANO)
    assert found.rails_mw == {"VDD_IN": 4541, "VDD_CPU_GPU_CV": 521, "VDD_SOC": 1446}
    assert power.total(found.rails_mw) == 4541
    assert found.temperatures_c == {"cpu": 47.75, "soc2": 46.718, "gpu": 50, "tj": 50}
    assert (found.gpu_percent, found.gpu_mhz, found.ram_mb) == (62, 612, 1483)
    assert found.cpu_mhz == [729, 1036, None, 729, None, None]


def test_tegrastats_of_other_boards():
    nx, agx = read_tegrastats(NX), read_tegrastats(AGX)
    assert nx.temperatures_c == {} and nx.gpu_mhz == 305
    assert power.total(agx.rails_mw) == 3188 + 1195 + 3229
    assert power.total(read_tegrastats("").rails_mw) is None


def monitor(root, number, name, rails):
    folder = root / f"hwmon{number}"
    folder.mkdir()
    (folder / "name").write_text(f"{name}\n")
    for channel, (label, millivolts, milliamperes) in rails.items():
        (folder / f"in{channel}_label").write_text(f"{label}\n")
        (folder / f"in{channel}_input").write_text(f"{millivolts}\n")
        if milliamperes is not None:
            (folder / f"curr{channel}_input").write_text(f"{milliamperes}\n")
    return folder


def test_sensors_in_files(tmp_path):
    monitor(tmp_path, 0, "cpu_thermal", {1: ("VDD_IN", 1, 1)})
    folder = monitor(tmp_path, 3, "ina3221", {
        1: ("VDD_IN", 5000, 920), 2: ("VDD_CPU_GPU_CV", 5000, 100), 7: ("sum of shunt voltages", 1, None),
    })  # fmt: skip
    assert [rail.name for rail in power.rails(tmp_path)] == ["VDD_IN", "VDD_CPU_GPU_CV"]
    read = power.reader(tmp_path)
    assert read() == 4600
    (folder / "curr1_input").write_text("1000\n")
    assert read() == 5000
    assert power.reader(tmp_path / "nothing") is None


def test_a_ramp_is_integrated_exactly():
    samples = [(float(t), 1000.0 * t) for t in range(11)]
    assert integral_mj(samples, 2.5, 4.25) == pytest.approx(1000 * (4.25**2 - 2.5**2) / 2)


def test_energy_of_one_inference_less_the_idle_board():
    samples = [(t / 10, 4500.0 if t < 50 else 7500.0) for t in range(101)]
    found = energy(samples, 5.0, 9.0, 400, 4500.0)
    assert found["gross_mj"] == pytest.approx(75.0)
    assert found["net_mj"] == pytest.approx(30.0)
    assert found["mean_mw"] == pytest.approx(7500) and found["samples"] == 41
    assert energy(samples, 5.0, 9.0, 400, None)["net_mj"] is None


@pytest.mark.parametrize(
    ("samples", "why"),
    [
        ([], "0 samples"),
        ([(t / 10, 1.0) for t in range(3)], "3 samples"),
        ([(t / 10, 1.0) for t in range(50)] + [(9.0, 1.0), (10.0, 1.0)], "a gap of 4.1 s"),
        ([(t / 10, 1.0) for t in range(60)], "a gap of 4.1 s"),
    ],
)
def test_a_gap_makes_the_energy_unknown_not_smaller(samples, why):
    assert why in energy(samples, 0.0, 10.0, 10, None)["not_run"]


def test_the_sampler_samples_and_counts_what_it_lost():
    values = iter([1.0, OSError(), None] + [2.0] * 1000)

    def read():
        value = next(values)
        if isinstance(value, OSError):
            raise value
        return value

    with Sampler(read, 0.01) as sampler:
        time.sleep(0.2)
    assert sampler.lost == 2 and len(sampler.samples) >= 3
    assert [mw for _, mw in sampler.samples[:2]] == [1.0, 2.0]
    moments = [moment for moment, _ in sampler.samples]
    assert moments == sorted(moments)
    assert power.mean_mw(sampler.samples[1:]) == pytest.approx(2.0)
    assert power.mean_mw(sampler.samples[:1]) is None


def test_an_external_meter(tmp_path):
    path = tmp_path / "meter.csv"
    path.write_text("seconds,milliwatts,note\n0,1000,a\n0.5,2000,b\n")
    assert power.read_meter(path) == [(0.0, 1000.0), (0.5, 2000.0)]
    for text in (
        "time,mw\n0,1\n",
        "seconds,milliwatts\n0,much\n",
        "seconds,milliwatts\n1,1\n0,1\n",
    ):
        path.write_text(text)
        with pytest.raises(UsageFault):
            power.read_meter(path)


RELEASE = (
    "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
    "DATE: Wed Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\n"
)


def test_facts_of_a_jetson(tmp_path, monkeypatch):
    (tmp_path / "release").write_text(RELEASE)
    (tmp_path / "version.json").write_text('{"cuda": {"name": "CUDA SDK", "version": "12.6.11"}}')
    for name, said in (
        ("nvpmodel", "NVPM WARN: x\nNV Power Mode: MAXN_SUPER\n2\n"),
        ("dpkg-query", "6.2+b77"),
    ):
        tool = tmp_path / name
        tool.write_text(f"#!/bin/sh\nprintf '%s' '{said}'\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(jetson, "RELEASE", tmp_path / "release")
    monkeypatch.setattr(jetson, "CUDA", tmp_path / "version.json")
    assert jetson.describe() == {
        "l4t": "36.4.3", "jetpack": "6.2+b77", "cuda": "12.6.11", "power_mode": "MAXN_SUPER",
        "power_mode_id": 2,
    }  # fmt: skip
    monkeypatch.setattr(jetson, "RELEASE", tmp_path / "none")
    assert jetson.describe() is None


def test_facts_that_are_not_there(tmp_path, monkeypatch):
    (tmp_path / "release").write_text("something else")
    monkeypatch.setattr(jetson, "RELEASE", tmp_path / "release")
    monkeypatch.setattr(jetson, "CUDA", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert set(jetson.describe().values()) == {None}
    assert jetson.tools()["disk_free_mib"] > 0 and jetson.memory_free_mib() > 0


def test_tegrastats_where_there_are_no_sensors_in_files(tmp_path, monkeypatch):
    assert power.sampler(tmp_path) is None or power.shutil.which("tegrastats")
    program = tmp_path / "tegrastats"
    program.write_text(
        f"#!/bin/sh\necho no rail here\nwhile :; do echo '{NANO}'; sleep 0.02; done\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with power.sampler(tmp_path / "nothing")() as sampled:
        time.sleep(0.3)
    assert {value for _, value in sampled.samples} == {4541} and len(sampled.samples) >= 5
    assert sampled.lost == 1
    stamps = [moment for moment, _ in sampled.samples]
    assert stamps == sorted(stamps) and stamps[-1] - stamps[0] > 0.05


def test_energy_of_two_logs():
    idle = [NANO] * 10
    busy = [NANO.replace("VDD_IN 4541mW", "VDD_IN 6541mW")] * 31
    found = power.of_logs(idle, busy, 0.1, 1000, 3.0)
    assert found["net_mj"] == pytest.approx(6.0) and found["gross_mj"] == pytest.approx(3 * 6.541)
    assert found["idle_mw"] == pytest.approx(4541) and found["runs"] == 1000
    assert "0 samples" in power.of_logs(idle, [""], 0.1, 1000, 3.0)["not_run"]
