import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.paper import mobilevit
from benchmarks.seeds import over_seeds

ROOT = Path(__file__).parents[2]


def row(one, five, params, macs):
    def score(value):
        return {"value": value, "low": value - 0.002, "high": value + 0.002, "n": 10_000}

    return {
        "metrics": {"5-way 1-shot": score(one), "5-way 5-shot": score(five)},
        "params": params,
        "macs": macs,
    }


ROWS = {
    "raw pixels": row(0.3, 0.4, 0, 0),
    "MobileViT-XXS, from scratch": row(0.5, 0.6, 951_000, 82_000_000),
    "MobileViT-XXS, distilled": row(0.7, 0.8, 951_000, 82_000_000),
    "teacher": row(0.9, 0.95, None, None),
    "ResNet-12, 32 maps, from scratch": row(0.56, 0.733, 3_109_000, 880_000_000),
    "ResNet-12, 32 maps, distilled": row(0.72, 0.81, 3_109_000, 880_000_000),
}


def test_reported_stands_beside_measured_and_the_fair_comparison_is_there():
    result = {
        "reported": mobilevit.REPORTED,
        "rows": ROWS,
        "claims": mobilevit._claims(ROWS),
        "external": True,
    }
    text = mobilevit.text(result)
    assert "| 1-shot over ResNet-12 | +14 points | +14.00 points |" in text
    assert "| 1-shot over the distilled ResNet-12 | – | -2.00 points |" in text
    assert "| parameters | −69 % | -69.4 % |" in text
    assert "| latency, Jetson Orin Nano | 2.6 ms | not_run: needs the board" in text
    assert "not few-shot" in text


def test_interval_over_three_seeds():
    found = over_seeds([1.0, 2.0, 3.0])
    assert found["value"] == 2.0
    assert found["high"] == pytest.approx(2 + 4.303 / np.sqrt(3))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_command_runs_on_a_small_miniimagenet(tmp_path):
    pytest.importorskip("torch")
    import torch
    from PIL import Image

    from edgekd.graph.export import export_onnx
    from edgekd.spec import Input

    rng = np.random.default_rng(0)
    for split, classes in (("train", 6), ("val", 5), ("test", 5)):
        for label in range(classes):
            place = tmp_path / "mini" / split / f"{split}{label}"
            place.mkdir(parents=True)
            base = rng.integers(0, 255, (7, 7, 3), dtype=np.uint8)
            for number in range(22):
                noise = rng.integers(-30, 30, base.shape)
                pixels = np.clip(base + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).resize((84, 84)).save(place / f"{number}.jpg")
    network = torch.nn.Sequential(torch.nn.AvgPool2d(16), torch.nn.Flatten()).eval()
    export_onnx(
        network, Input((3, 128, 128)), tmp_path / "teacher.onnx", samples=torch.rand(2, 3, 128, 128)
    )
    command = [sys.executable, str(ROOT / "benchmarks/papers.py"), "mobilevit", "--data", "mini"]
    command += ["--teacher", "teacher.onnx", "--set", "epochs=1", "--set", "episodes=50"]
    command += ["--set", "query=10"]
    env = {**os.environ, "EDGEKD_STORE": str(tmp_path / "store"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "| ResNet-12, 32 maps, distilled |" in done.stdout
    assert "not few-shot learning" in done.stdout
