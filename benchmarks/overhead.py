"""What the harness costs: nothing of its own, and no more than the peers' own loops.

    python benchmarks/overhead.py null
    python benchmarks/overhead.py onnxruntime MODEL.onnx [--pairs 20]
    python benchmarks/overhead.py openvino MODEL.onnx [--pairs 20]

``null`` times a runtime that computes nothing. The others time one model in our agent and in a
loop written by hand (ONNX Runtime) or OpenVINO's own ``benchmark_app``, one thread each, in
interleaved pairs of fresh processes; the median ratio and its exact 95 % interval are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from edgekd.bench import stats
from edgekd.device.link import THREAD_VARIABLES, Agent

BARE = """
import json, sys, time
import numpy as np
import onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
feeds = {"%s": np.load(sys.argv[2])}
names = [output.name for output in session.get_outputs()]
for _ in range(20):
    session.run(names, feeds)
wall = []
for _ in range(int(sys.argv[3])):
    begin = time.perf_counter_ns()
    session.run(names, feeds)
    wall.append(time.perf_counter_ns() - begin)
print(json.dumps(wall))
"""


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("against", choices=("null", "onnxruntime", "openvino"))
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--quantile", type=float, default=0.0, help="of a process; 0 is the least")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if asked.against == "null":
            null(Path(scratch))
        else:
            pairs(asked, Path(scratch))


def null(scratch: Path) -> None:
    """Print what an inference costs where the runtime does nothing."""
    port = {"name": "x", "shape": [None, 3], "dtype": "float32"}
    model = scratch / "null.json"
    model.write_text(json.dumps({"inputs": [port], "outputs": [{**port, "name": "y"}]}))
    wall, cpu = [], []
    for _ in range(7):
        with Agent() as agent:
            agent.load("null", model)
            feeds = {"x": np.zeros((1, 3), np.float32)}
            timing = agent.time(feeds, warmup=1000, runs=50_000, cpu_block=1000)
        wall.append(statistics.median(timing.wall_ns) / 1e3)
        cpu.append(statistics.median(timing.cpu_ns) / 1e3)
    print(
        f"null runtime, 7 processes of 50,000: median of medians {statistics.median(wall):.3f} µs"
    )
    print(
        f"  inside the clock; with the loop around it {statistics.median(cpu):.3f} µs of processor"
    )


def pairs(asked: argparse.Namespace, scratch: Path) -> None:
    """Print the ratio of our time to theirs."""
    feed, name = scratch / "x.npy", ""
    with Agent() as agent:
        port = agent.load("onnxruntime", asked.model).inputs[0]
        name, shape = port.name, [size or 1 for size in port.shape]
    np.save(feed, np.random.default_rng(0).normal(size=shape).astype(np.float32))
    theirs = bare if asked.against == "onnxruntime" else benchmark_app
    logs = []
    for number in range(asked.pairs):
        order = [0, 1] if random.random() < 0.5 else [1, 0]
        both = {}
        for side in order:
            run = ours if side == 0 else theirs
            both[side] = run(asked, name, shape, feed)
        logs.append(float(np.log(both[0] / both[1])))
        print(f"pair {number}: ours {both[0]:.4f} ms, theirs {both[1]:.4f} ms", flush=True)
    shift = stats.pair_shift(logs)
    print(
        f"edgekd over {asked.against}: {1 + float(np.expm1(np.median(logs))):.4f} median of "
        f"{len(logs)} pairs; centre {1 + shift.value:.4f} "
        f"[{1 + shift.low:.4f}, {1 + shift.high:.4f}]"
    )


def ours(asked: argparse.Namespace, name: str, shape: list[int], feed: Path) -> float:
    """Return milliseconds of an inference in the agent."""
    options = {
        "threads": 1,
        **({"precision": "f32", "snippets": True} if asked.against == "openvino" else {}),
    }
    if asked.against == "openvino":
        options["static_batch"] = shape[0]
    with Agent() as agent:
        agent.load(asked.against, asked.model, **options)
        timing = agent.time({name: feed}, warmup=20, runs=asked.runs)
    if asked.against == "openvino":
        return min(timing.wall_ns) / 1e6
    return float(np.quantile(timing.wall_ns, asked.quantile)) / 1e6


def bare(asked: argparse.Namespace, name: str, shape: list[int], feed: Path) -> float:
    """Return milliseconds of an inference in a loop written by hand."""
    del shape
    command = [sys.executable, "-c", BARE % name, str(asked.model), str(feed), str(asked.runs)]
    wall = json.loads(_run(command))
    return float(np.quantile(wall, asked.quantile)) / 1e6


def benchmark_app(asked: argparse.Namespace, name: str, shape: list[int], feed: Path) -> float:
    """Return the least milliseconds that OpenVINO's own tool reports (it prints no quantile)."""
    command = [str(Path(sys.executable).with_name("benchmark_app")), "-m", str(asked.model)]
    command += ["-d", "CPU", "-api", "sync", "-niter", str(asked.runs), "-nthreads", "1"]
    command += ["-shape", f"{name}[{','.join(map(str, shape))}]", "-infer_precision", "f32"]
    command += ["-hint", "none", "-nstreams", "1"]
    said = _run(command)
    least = re.search(r"Min:\s+([\d.]+) (ms|us)", said)  # it picks the unit anew in every run
    if least is None:
        sys.exit(f"benchmark_app told no least time:\n{said}")
    return float(least[1]) / (1 if least[2] == "ms" else 1000)


def _run(command: list[str]) -> str:
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(f"{command[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
