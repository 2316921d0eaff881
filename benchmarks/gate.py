"""How often the gate cries wolf, and how often it sees one: trials of whole gates.

    python benchmarks/gate.py make BUNDLE WORK            bundles that cost 3, 5 and 10 % more
    python benchmarks/gate.py trials WORK --level 0 --trials 200 --seconds 700
    python benchmarks/gate.py suite WORK --trials 20 --seconds 700
    python benchmarks/gate.py simulate
    python benchmarks/gate.py report

The slower bundles have one more operator chain in the graph, sized by measuring; nothing sleeps.
Every trial is one call of `edgekd.gate` on fresh processes and one line of the results file, so a
run that is stopped goes on where it was. ``--busy 2`` keeps two busy processes beside it; the
load average of each trial is in its line.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.bench import history, judge, stats
from edgekd.bench.gate import gate
from edgekd.bench.measure import Settings, log_ratios, opened, rounds
from edgekd.bundle import open_bundle, write_bundle

RESULTS = Path(__file__).parent / "results" / "gate.jsonl"
LEVELS = (0.0, 0.03, 0.05, 0.10)
_PROBE = (20_000, 60_000)


def main() -> None:
    """Run the part that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    make_ = parts.add_parser("make")
    make_.add_argument("bundle", type=Path)
    make_.add_argument("work", type=Path)
    for name in ("trials", "suite"):
        part = parts.add_parser(name)
        part.add_argument("work", type=Path)
        part.add_argument("--level", type=float, choices=LEVELS, default=0.0)
        part.add_argument("--trials", type=int, default=200)
        part.add_argument("--seconds", type=float, default=700, help="stop after so long")
        part.add_argument("--busy", type=int, default=2, help="busy processes beside it")
        part.add_argument("--out", type=Path, default=RESULTS)
    parts.add_parser("simulate")
    parts.add_parser("report").add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    {"make": make, "trials": trials, "suite": suite, "simulate": simulate, "report": report}[
        asked.part
    ](asked)


# --- bundles that cost more ----------------------------------------------------------------------


def make(asked: argparse.Namespace) -> None:
    """Write WORK/0, WORK/0.03 …: the bundle, and copies with a padded graph."""
    asked.work.mkdir(parents=True, exist_ok=True)
    variant(asked.bundle, asked.work / "0.0", 0)
    for size in _PROBE:
        variant(asked.bundle, asked.work / f"probe-{size}", size)
    costs = [_cost(asked.work / "0.0", asked.work / f"probe-{size}") for size in _PROBE]
    slope = (costs[1] - costs[0]) / (_PROBE[1] - _PROBE[0])
    fixed = costs[0] - slope * _PROBE[0]
    print(f"padding costs {fixed:.4f} + {slope * 1e4:.4f} per 10,000 elements of the whole")
    for level in LEVELS[1:]:
        size = max(1, round((level - fixed) / slope))
        variant(asked.bundle, asked.work / str(level), size)
        found = _cost(asked.work / "0.0", asked.work / str(level))
        print(f"level {level:.2f}: {size} elements, measured {found:+.4f}")


def variant(bundle: Path, out: Path, size: int) -> None:
    """Write a bundle whose graph computes on `size` more elements; 0 leaves it as it is."""
    import onnx

    shutil.rmtree(out, ignore_errors=True)
    with open_bundle(bundle) as found:
        manifest = {k: v for k, v in found.manifest.items() if k != "files"}
        files: dict[str, Any] = {name: found.path / name for name in found.manifest["files"]}
        if size:
            main = manifest["artefact"]["main"]
            model = onnx.load(found.path / main)
            pad(model, size)
            files[main] = model.SerializeToString()
        for name in ("README.md", "THIRD_PARTY_NOTICES.md", "LICENSE"):
            files.pop(name, None)
        write_bundle(manifest, files, out)


def pad(model: Any, size: int) -> None:
    """Add exp over `size` elements that depend on the input, and add nothing to the output."""
    from onnx import helper, numpy_helper

    graph = model.graph
    output = graph.output[0].name
    for node in graph.node:
        node.output[:] = ["pad_before" if name == output else name for name in node.output]
    values = np.linspace(-1, 0, size, dtype=np.float32)
    graph.initializer.extend(
        [
            numpy_helper.from_array(values, "pad_values"),
            numpy_helper.from_array(np.zeros((), np.float32), "pad_zero"),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("ReduceMax", [graph.input[0].name], ["pad_input"], keepdims=0),
            helper.make_node("Sub", ["pad_values", "pad_input"], ["pad_shifted"]),
            helper.make_node("Exp", ["pad_shifted"], ["pad_exp"]),
            helper.make_node("ReduceMean", ["pad_exp"], ["pad_mean"], keepdims=0),
            helper.make_node("Mul", ["pad_mean", "pad_zero"], ["pad_nothing"]),
            helper.make_node("Add", ["pad_before", "pad_nothing"], [output]),
        ]
    )


def _cost(base: Path, slower: Path, count: int = 24) -> float:
    """Return the relative processor time of `slower` where nothing disturbs either.

    The least time of many processes is taken, not a median: what the padding costs is a property
    of the graph, and must not be measured with the noise that the gate is tried on.
    """
    with opened({"a": base, "b": slower}) as both:
        contestants = [contestant for _, contestant in both.values()]
        every = list(itertools.islice(rounds(contestants, Settings(), seed=0), count))
    least = [sorted(pair[side].cpu_least_ms for pair in every) for side in (0, 1)]
    floors = [statistics.fmean(values[: count // 6]) for values in least]
    noise = stats.pair_shift([log_ratios(*pair)["cpu"] for pair in every])
    change = floors[1] / floors[0] - 1
    print(
        f"  {slower.name}: {floors[0]:.4f} → {floors[1]:.4f} ms, {change:+.4f}; over all processes "
        f"{noise.value:+.4f} [{noise.low:+.4f}, {noise.high:+.4f}]",
        flush=True,
    )
    return change


# --- trials --------------------------------------------------------------------------------------


def trials(asked: argparse.Namespace) -> None:
    """Gate WORK/0.0 against the level, again and again."""
    base, slower = asked.work / "0.0", asked.work / str(asked.level)
    kind = "A/A" if asked.level == 0 else "A/B"
    for number in _numbers(asked, kind):
        outcome, wall = _timed_gate([slower], [base])
        _keep(asked, {"kind": kind, "level": asked.level, "trial": number}, outcome, wall)


def suite(asked: argparse.Namespace) -> None:
    """Gate six bundles in one job; the third is slower where a level is given."""
    base = asked.work / "0.0"
    copies = [asked.work / f"suite-{number}" for number in range(6)]
    for copy in copies:
        if not copy.exists():
            shutil.copytree(base, copy)
    after = list(copies)
    after[2] = copies[2] if asked.level == 0 else asked.work / str(asked.level)
    for number in _numbers(asked, "suite"):
        outcome, wall = _timed_gate(after, copies)
        _keep(asked, {"kind": "suite", "level": asked.level, "trial": number}, outcome, wall)


def _numbers(asked: argparse.Namespace, kind: str) -> Iterator[int]:
    """Give the numbers of the trials that are still to be made, until time is up."""
    began = time.monotonic()
    done = {
        row["trial"]
        for row in _rows(asked.out)
        if (row["kind"], row["level"]) == (kind, asked.level)
    }
    with _busy(asked.busy):
        for number in range(asked.trials):
            if number in done:
                continue
            if time.monotonic() - began > asked.seconds:
                return
            yield number


def _rows(path: Path) -> list[dict[str, Any]]:
    return history.read(path) if path.exists() else []


@contextmanager
def _busy(count: int) -> Iterator[None]:
    workers = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(count)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.terminate()


def _spin() -> None:
    """Compute, with a working set that does not fit the inner caches."""
    values = np.random.default_rng(0).normal(size=(600, 600))
    while os.getppid() > 1:
        values = np.tanh(values @ values)


def _timed_gate(after: Sequence[Path], before: Sequence[Path]) -> tuple[dict[str, Any], float]:
    began = time.monotonic()
    outcome = gate(after, before, wait=3600)
    return outcome, time.monotonic() - began


def _keep(
    asked: argparse.Namespace, what: dict[str, Any], outcome: dict[str, Any], wall: float
) -> None:
    timed = [check for check in outcome["checks"] if check["name"] in ("latency", "memory")]
    row = {
        **what,
        "when": outcome["when"],
        "busy": asked.busy,
        "cpu": outcome["machine"]["cpu"],
        "load": statistics.fmean(pair["load"] for pair in outcome["pairs"]),
        "rounds": [pair["rounds"] for pair in outcome["pairs"]],
        "timed_s": round(sum(pair["timed_s"] for pair in outcome["pairs"]), 3),
        "startup_s": round(sum(pair["startup_s"] for pair in outcome["pairs"]), 3),
        "wall_s": round(wall, 2),
        "seed": outcome["rule"]["seed"],
        "exit_code": outcome["exit_code"],
        "checks": [
            {
                "bundle": check["bundle"],
                "name": check["name"],
                "verdict": check["verdict"],
                "decided_by": check["decided_by"],
                "shift": {
                    witness: {key: round(value, 6) for key, value in found.items()}
                    for witness, found in check["shift"].items()
                },
            }
            for check in timed
        ],
    }
    history.append(asked.out, [row])
    verdicts = ", ".join(f"{c['name']} {c['verdict']}" for c in timed)
    print(f"{what} {verdicts} ({wall:.0f} s, load {row['load']:.1f})", flush=True)


# --- what they showed ----------------------------------------------------------------------------


def report(asked: argparse.Namespace) -> None:
    """Print rates with exact 95 % intervals.

    An alarm on unchanged bundles is any; a slower bundle is caught when its latency is (the
    padding also takes some memory).
    """
    rows = _rows(asked.out)
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["kind"], row["level"]), []).append(row)
    for (kind, level), found in sorted(groups.items()):
        names = {"latency", "memory"} if level == 0 else {"latency"}
        hits = sum(
            any(c["verdict"] == "regressed" and c["name"] in names for c in row["checks"])
            for row in found
        )
        low, high = stats.binomial_interval(hits, len(found))
        deciders = [
            c["decided_by"]
            for row in found
            for c in row["checks"]
            if c["verdict"] == "regressed" and c["name"] in names
        ]
        counted = {name: deciders.count(name) for name in sorted(set(deciders))}
        rate = f"{hits / len(found):.1%}; 95 % interval {low:.1%} to {high:.1%}"
        print(f"{kind} at {level:+.0%}: {hits} alarms in {len(found)} ({rate})")
        print(f"  decided by {json.dumps(counted)}")
        for name in ("timed_s", "startup_s", "wall_s", "load"):
            values = [row[name] for row in found]
            print(f"  {name}: median {statistics.median(values):.1f}, most {max(values):.1f}")
        every = [count for row in found for count in row["rounds"]]
        print(f"  rounds: { {n: every.count(n) for n in sorted(set(every))} }")
        if kind == "suite":
            _suite_rows(found, level)


def _suite_rows(found: list[dict[str, Any]], level: float) -> None:
    """Print alarms on bundles that did not change."""
    slow = {2} if level else set()
    false = 0
    for row in found:
        names = list(dict.fromkeys(check["bundle"] for check in row["checks"]))
        false += any(
            check["verdict"] == "regressed" and names.index(check["bundle"]) not in slow
            for check in row["checks"]
        )
    low, high = stats.binomial_interval(false, len(found))
    rate = f"95 % interval {low:.1%} to {high:.1%}"
    print(f"  jobs with a false alarm: {false} of {len(found)} ({rate})")


def simulate(asked: argparse.Namespace) -> None:
    """Print rates of the rule on made-up noise: how it was designed, no measurement."""
    del asked
    rng = np.random.default_rng(0)
    print("noise of a round (sd)  shift   alarms  mean rounds   alarms in a job of six unchanged")
    for deviation in (0.01, 0.02, 0.03):
        for level in (0.0, 0.005, 0.03, 0.05):
            found = [_simulated([level], deviation, rng) for _ in range(400)]
            alarms = np.mean([alarm for alarm, _ in found])
            used = np.mean([count for _, count in found])
            six = ""
            if level == 0:
                jobs = [_simulated([0.0] * 6, deviation, rng)[0] for _ in range(100)]
                six = f"{np.mean(jobs):.1%}"
            print(f"{deviation:>20.1%}  {level:>6.1%}  {alarms:>6.1%}  {used:>11.1f}   {six}")


def _simulated(levels: Sequence[float], deviation: float, rng: Any) -> tuple[bool, float]:
    """One job: heavy-tailed processor time, hopeless wall time, steady memory."""
    rule, found, used = judge.Rule(), {}, []
    family = len(judge.WITNESSES) * len(levels)
    for number, level in enumerate(levels):
        logs = {
            "cpu": level + deviation / 2**0.5 * rng.standard_t(4, rule.rounds),
            "wall": level + 0.05 * rng.standard_t(2, rule.rounds),
            "memory": 0.001 * rng.normal(size=rule.rounds),
        }
        for look in rule.looks.rounds:
            each = {name: _found(values[:look], rule) for name, values in logs.items()}
            cpu = each["cpu"]
            said = cpu.verdict(rule, min(1.0, cpu.worse * family), min(1.0, cpu.better * family))
            if said != judge.NOISE:
                break
        used.append(look)
        found.update({(number, name): one for name, one in each.items()})
    worse = stats.holm({str(key): one.worse for key, one in found.items()})
    verdicts = [one.verdict(rule, worse[str(key)], 1.0) for key, one in found.items()]
    return judge.REGRESSED in verdicts, float(np.mean(used))


def _found(values: Any, rule: judge.Rule) -> judge.Finding:
    return judge.Finding(rule.looks.p_value(values), 1.0, stats.pair_shift(values))


if __name__ == "__main__":
    main()
