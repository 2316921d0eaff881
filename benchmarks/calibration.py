"""Memory and agreement of streamed calibration: percentile and MSE ranges of MobileViT.

    python -m benchmarks.calibration --out benchmarks/results/calibration.json

MobileViT-XXS at 256 px, seed 0, untrained; samples are smooth random fields. Every measurement is a
process of its own: its peak memory is that of Python, numpy, onnx and ONNX Runtime too. Ours is the
step ``calibrate`` as `edgekd.compress` runs it, with all its estimators, from the file of samples
that the export leaves. ONNX Runtime's own percentile calibrator runs on the same 32 samples, where
its memory allows: cutting the same share at each end, as ours does, and as by default, where it
cuts magnitudes (``symmetric``).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.agent import process
from edgekd.events import silent
from edgekd.inputs import open_rows, save_arrays
from edgekd.quant import ranges
from edgekd.stages.calibrate import calibrate
from edgekd.steps import installed

SIDE, FEW = 256, 32
WORST = 0.01
MOST_MIB, MOST_RATIO = 600.0, 1.1


def make(folder: Path, count: int) -> dict[int, Path]:
    """Write exports with few samples and with all; return their folders by number of samples."""
    import torch

    from edgekd.graph.export import export_onnx
    from edgekd.models.mobilevit import mobilevit
    from edgekd.spec import Input

    torch.manual_seed(0)
    network = mobilevit(variant="xxs", size=SIDE, classes=1000).eval()
    rng = np.random.default_rng(0)
    shape = (count, 3, SIDE, SIDE)
    samples = np.lib.format.open_memmap(
        folder / "samples.npy", mode="w+", dtype=np.float32, shape=shape
    )
    for row in range(count):
        coarse = torch.from_numpy(rng.normal(size=(1, 3, 16, 16)).astype(np.float32))
        samples[row] = torch.nn.functional.interpolate(coarse, SIDE, mode="bilinear")[0].numpy()
    samples.flush()
    first = torch.from_numpy(np.array(samples[:8]))
    contract = Input((3, SIDE, SIDE))
    export_onnx(network, contract, folder / "model.onnx", samples=first)
    made = {}
    for number in sorted({FEW, count}):
        made[number] = folder / str(number)
        made[number].mkdir()
        shutil.copyfile(folder / "model.onnx", made[number] / "model.onnx")
        save_arrays(made[number] / "calibration.npz", {contract.name: samples[:number]})
    return made


def ours(export: Path) -> dict[str, Any]:
    """Run the step ``calibrate``."""
    with tempfile.TemporaryDirectory(prefix="edgekd-calibration-") as scratch:
        calibrate({"step": "calibrate"}, {"export": export}, Path(scratch), silent)
        return ranges.load_ranges(Path(scratch) / "ranges.json")


def theirs(export: Path, *, symmetric: bool = False) -> dict[str, Any]:
    """Ask ONNX Runtime's percentile calibrator for the same ranges."""
    from edgekd.agent.quiet import silence

    silence()
    from onnxruntime.quantization.calibrate import (
        CalibrationDataReader,
        CalibrationMethod,
        create_calibrator,
    )

    ((name, samples),) = open_rows(export / "calibration.npz").items()

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows = iter(samples[i : i + 1] for i in range(len(samples)))

        def get_next(self) -> Any:
            row = next(self.rows, None)
            return None if row is None else {name: row}

    options = {
        "percentile": ranges.PERCENTILE, "num_bins": ranges.BINS, "symmetric": symmetric,
    }  # fmt: skip
    calibrator = create_calibrator(
        str(export / "model.onnx"), augmented_model_path=str(export / "augmented.onnx"),
        calibrate_method=CalibrationMethod.Percentile, extra_options=options,
    )  # fmt: skip
    calibrator.collect_data(Reader())
    data = calibrator.compute_data()
    return {
        "percentile": {
            tensor: tuple(float(np.asarray(end)) for end in found.range_value)
            for tensor, found in data.items()
        }
    }


CHILDREN: Mapping[str, Callable[[Path], dict[str, Any]]] = {
    "ours": ours,
    "theirs": theirs,
    "theirs, symmetric": partial(theirs, symmetric=True),
}


def alone(what: str, export: Path) -> dict[str, Any]:
    """Run one of `CHILDREN` in a process of its own."""
    asked = [sys.executable, "-m", "benchmarks.calibration", "--child", what, str(export)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(asked, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        last = (done.stderr.strip() or f"ended with {done.returncode}").splitlines()[-1]
        return {"not_run": last}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def child(what: str, export: Path) -> None:
    """Be that process."""
    start, busy = time.perf_counter(), time.process_time()
    found = CHILDREN[what](export)
    peak = process.peak_rss_mib()
    facts = {
        "peak_mib": round(peak, 1),
        "wall_s": round(time.perf_counter() - start, 1),
        "cpu_s": round(time.process_time() - busy, 1),
        "samples": len(next(iter(open_rows(export / "calibration.npz").values()))),
        "ranges": found,
    }
    sys.stdout.write(json.dumps(facts))


def apart(mine: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Compare widths of ranges that both know: share of the wider one.

    Both are widened to zero first, as every quantiser does.
    """
    shares = {}
    for name in sorted(set(mine) & set(other)):
        ends = [(min(r[0], 0.0), max(r[1], 0.0)) for r in (mine[name], other[name])]
        wide = max(high - low for low, high in ends)
        if wide > 0:
            shares[name] = max(abs(a - b) for a, b in zip(*ends, strict=True)) / wide
    values = np.array(list(shares.values()))
    worst = max(shares, key=lambda name: shares[name])
    return {
        "tensors": len(shares),
        "median": float(np.median(values)),
        "worst": float(values.max()),
        "worst_tensor": worst,
        "within_1_percent": int((values <= WORST).sum()),
    }


def _agreement(mine: Mapping[str, Any], peer: Mapping[str, Any]) -> dict[str, Any]:
    if "not_run" in peer:
        return {"not_run": peer["not_run"]}
    return apart(mine["ranges"]["percentile"], peer["ranges"]["percentile"])


def main() -> int:
    """Measure, print, write; exit 1 where a goal is missed."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=1000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgekd-calibration-") as scratch:
        exports = make(Path(scratch), asked.samples)
        few, peer = alone("ours", exports[FEW]), alone("theirs", exports[FEW])
        default = alone("theirs, symmetric", exports[FEW])
        many = alone("ours", exports[asked.samples])
    for one in (few, many):
        if "not_run" in one:
            raise SystemExit(one["not_run"])
    rows = {
        f"edgekd, {FEW}": few, f"edgekd, {asked.samples}": many,
        f"ONNX Runtime, {FEW}": peer, f"ONNX Runtime, {FEW}, symmetric": default,
    }  # fmt: skip
    agreement = _agreement(few, peer)
    result = {
        "command": f"python -m benchmarks.calibration --samples {asked.samples} --out FILE",
        "model": f"MobileViT-XXS, {SIDE} px, seed 0",
        "estimators": {"edgekd": list(ranges.ESTIMATORS), "ONNX Runtime": ["percentile"]},
        "rows": {n: {k: v for k, v in r.items() if k != "ranges"} for n, r in rows.items()},
        "ratio": round(many["peak_mib"] / few["peak_mib"], 3),
        "agreement_with_onnxruntime": agreement,
        "agreement_with_its_symmetric_default": _agreement(few, default),
        "versions": {n: installed(n) for n in ("numpy", "onnx", "onnxruntime", "torch")},
    }
    asked.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(json.dumps(result, indent=1, ensure_ascii=False))
    good = many["peak_mib"] <= MOST_MIB and result["ratio"] <= MOST_RATIO
    return 0 if good and agreement.get("worst", 0.0) <= WORST else 1


if __name__ == "__main__":
    sys.exit(main())
