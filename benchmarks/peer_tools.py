"""The field's quantisers, each in an environment of its own, by its standard route.

An environment is a folder under the one that the user names. It is made by pip at the versions
below when it is not there, and found again by asking it for these versions.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.environments import environment

WORKER = Path(__file__).with_name("peer_worker.py")
_INSTALL_S, _QUANTISE_S = 3600, 3600


class SkippedError(Exception):
    """A tool that cannot be run here; the message says why."""


@dataclass(frozen=True)
class Tool:
    """A peer.

    Attributes:
        label: How the table calls it.
        folder: Of its environment.
        pins: Distribution → version.
        command: Its standard route: command line of (interpreter, model, samples, folder to write
            into).
        takes: ``onnx`` or ``tflite``.
        runtime: Runtime of the agent that runs what it makes.
        suffix: Of the file that the runtime loads.
    """

    label: str
    folder: str
    pins: Mapping[str, str]
    command: Callable[[Path, Path, Path, Path], Sequence[str]]
    takes: str = "onnx"
    runtime: str = "onnxruntime"
    suffix: str = ".onnx"

    def python(self, environments: Path) -> Path:
        """Return the interpreter of its environment, which is made when it is missing.

        Raises:
            SkippedError: It cannot be made; the last line that pip said.
        """
        if self.takes == "tflite":
            if environment("litert").find() is None:
                raise SkippedError(str(environment("litert").lacking()))
            return environment("litert").python
        python = environments / self.folder / "bin" / "python"
        if self.versions(python) != {_plain(name): pin for name, pin in self.pins.items()}:
            wanted = [f"{name}=={pin}" for name, pin in self.pins.items()]
            self._run([sys.executable, "-m", "venv", str(environments / self.folder)], "venv")
            self._run([str(python), "-m", "pip", "install", "--no-input", *wanted], "pip install")
        return python

    def _run(self, command: Sequence[str], what: str) -> None:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_INSTALL_S, check=False,
            env=_environment(),
        )  # fmt: skip
        if done.returncode:
            raise SkippedError(f"{what} of {self.label} failed: {_last(done.stderr)}")

    def versions(self, python: Path) -> dict[str, str]:
        """Return the installed versions of what is pinned; what is missing is left out."""
        ask = (
            "import importlib.metadata as m, json, sys\nfound = {}\n"
            "for name in sys.argv[1:]:\n"
            "    try: found[name] = m.version(name)\n"
            "    except m.PackageNotFoundError: pass\n"
            "print(json.dumps(found))"
        )
        if not python.exists():
            return {}
        done = subprocess.run(
            [str(python), "-I", "-c", ask, *map(_plain, self.pins)],
            capture_output=True,
            text=True,
            check=False,
        )
        found: dict[str, str] = json.loads(done.stdout) if done.returncode == 0 else {}
        return found

    def quantise(self, python: Path, model: Path, samples: Path, out: Path) -> dict[str, Any]:
        """Run it.

        Args:
            python: Interpreter of its environment.
            model: The float model, of a batch of one.
            samples: ``.npz`` of calibration samples by input name.
            out: Folder to write into.

        Returns:
            ``main`` (the file to load), ``cpu_s`` and ``wall_s`` of the whole process.

        Raises:
            SkippedError: It fails, or leaves no file that its runtime could load.
        """
        out.mkdir(parents=True, exist_ok=True)
        before, start = _children_s(), time.perf_counter()
        try:
            done = subprocess.run(
                [*self.command(python, model, samples, out)], capture_output=True, text=True,
                timeout=_QUANTISE_S, check=False, cwd=out, env=_environment(),
            )  # fmt: skip
        except subprocess.TimeoutExpired as late:
            raise SkippedError(f"took more than {_QUANTISE_S} s") from late
        facts = {
            "cpu_s": round(_children_s() - before, 1),
            "wall_s": round(time.perf_counter() - start, 1),
        }
        (out / "log.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
        made = sorted(out.rglob(f"*{self.suffix}"), key=lambda path: path.stat().st_mtime)
        if done.returncode or not made:
            raise SkippedError(f"failed: {_last(done.stderr) or _last(done.stdout)}")
        return {"main": made[-1], **facts}


def _worker(tool: str) -> Callable[[Path, Path, Path, Path], Sequence[str]]:
    def command(python: Path, model: Path, samples: Path, out: Path) -> Sequence[str]:
        return [str(python), "-I", str(WORKER), tool, str(model), str(samples), str(out)]

    return command


def _olive(python: Path, model: Path, samples: Path, out: Path) -> Sequence[str]:
    """``olive run`` with a static pass as its defaults have it; samples as files of raw bytes."""
    with np.load(samples) as archive:
        feeds = {name: archive[name] for name in archive.files}
    for name, values in feeds.items():
        (out / "raw" / name).mkdir(parents=True)
        for i in range(len(values)):
            values[i : i + 1].tofile(out / "raw" / name / f"{i:05}.bin")
    raw = {
        "data_dir": str(out / "raw"),
        "input_names": list(feeds),
        "input_shapes": [[1, *values.shape[1:]] for values in feeds.values()],
        "input_types": [str(values.dtype) for values in feeds.values()],
    }
    config = {
        "input_model": {"type": "OnnxModel", "model_path": str(model)},
        "data_configs": [
            # A name that is no folder here: it would be taken for one.
            {
                "name": "calibration",
                "type": "RawDataContainer",
                "load_dataset_config": {"params": raw},
            }
        ],
        "passes": {"quantise": {"type": "OnnxStaticQuantization", "data_config": "calibration"}},
        "output_dir": str(out / "made"),
        "cache_dir": str(out / "cache"),
    }
    (out / "run.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    run = ["-m", "olive", "run", "--config", str(out / "run.json")]
    return [str(python), *run, "--disable_telemetry"]


def _modelopt(python: Path, model: Path, samples: Path, out: Path) -> Sequence[str]:
    """Its command line, told that there is no accelerator."""
    asked = {
        "--onnx_path": model,
        "--quantize_mode": "int8",
        "--calibration_data_path": samples,
        "--calibration_eps": "cpu",
        "--output_path": out / "model.onnx",
    }
    options = [str(part) for pair in asked.items() for part in pair]
    return [str(python), "-m", "modelopt.onnx.quantization", *options]


TOOLS: tuple[Tool, ...] = (
    Tool(
        "NNCF default", "nncf", {"nncf": "3.4.0", "openvino": "2026.4.1", "onnx": "1.23.2"},
        _worker("nncf"), runtime="openvino", suffix=".xml",
    ),
    Tool(
        "ONNX Runtime static default", "onnxruntime",
        {"onnxruntime": "1.32.0", "onnx": "1.23.2", "sympy": "1.14.0"}, _worker("onnxruntime"),
    ),
    Tool(
        "LiteRT full int8", "litert", {"litert-quantizer": "", "litert-torch": "", "torch": ""},
        _worker("litert"), takes="tflite", runtime="litert", suffix=".tflite",
    ),
    # Both fail on import without requests, which neither declares.
    Tool(
        "olive run", "olive",
        {"olive-ai": "0.13.0", "onnxruntime": "1.32.0", "onnx": "1.23.2", "requests": "2.34.2"},
        _olive,
    ),
    Tool(
        "ModelOpt ONNX PTQ", "modelopt",
        {"nvidia-modelopt[onnx]": "0.47.0", "onnxruntime-gpu": "1.24.4", "onnx": "1.21.0",
         "requests": "2.34.2"},
        _modelopt,
    ),
)  # fmt: skip


def _plain(name: str) -> str:
    """A distribution without its extras."""
    return name.partition("[")[0]


def _environment() -> dict[str, str]:
    """One thread, no telemetry, nothing of this interpreter's paths."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    return kept | {"OMP_NUM_THREADS": "1", "OLIVE_DISABLE_TELEMETRY": "1"}


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("For further information")]
    return lines[-1][:300] if lines else ""
