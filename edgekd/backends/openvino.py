"""OpenVINO: float32, bfloat16, and int8 by NNCF.

NNCF and the conversion run in a child process: they are slow to import, talk a lot, and a crash
of theirs must not be ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgekd.agent
from edgekd.backends.base import Candidate, require, samples_in, tool_versions
from edgekd.errors import StageError
from edgekd.events import Emit, Event
from edgekd.extras import installed
from edgekd.spec import Json

__all__ = ["BACKEND", "POLICIES", "OpenVino"]

MAIN, WEIGHTS = "model.xml", "model.bin"
_TIMEOUT_S = 3600
_TAIL_LINES = 12


@dataclass(frozen=True)
class Policy:
    """How a model is quantised.

    Attributes:
        method: ``none``, ``static`` (NNCF on calibration samples) or ``weights`` (stored in 8
            bits, computed in float).
        model_type: NNCF's treatment: ``auto`` is ``transformer`` for a graph with attention.
        only: ONNX operator types that are quantised; empty for all that NNCF wants.
        spared: ONNX operator types that are not.
        attention: Whether products of two activations are quantised, too.
        fast_bias_correction: False computes every layer's bias anew, layer after layer.
        smooth_conv: SmoothQuant's exponent for convolutions; -1 leaves it to matrix products.
        minmax: Ranges of activations hold every calibration sample. NNCF's own choice, the mean
            of the samples' extremes, cuts rare values: 5 to 9 dB worse on image and flight
            students, and the battery's controller lost 1.2 % of its score to it, now nothing.
    """

    method: str = "none"
    model_type: str = "auto"
    only: tuple[str, ...] = ()
    spared: tuple[str, ...] = ()
    attention: bool = True
    fast_bias_correction: bool = True
    smooth_conv: float = -1
    minmax: bool = True


POLICIES: Mapping[str, Policy] = {
    "none": Policy(),
    "weights": Policy("weights"),
    "nncf": Policy("static"),
    "nncf-conv": Policy("static", "default", only=("Conv", "ConvTranspose")),
    "nncf-linear": Policy(
        "static",
        "transformer",
        spared=("Softmax", "LayerNormalization", "Add", "Mul"),
        attention=False,
    ),
    "nncf-default": Policy("static", "default", minmax=False),
    "nncf-smooth": Policy("static", smooth_conv=0.5),
    "nncf-bias": Policy("static", fast_bias_correction=False),
}
"""What is quantised, and how."""

BF16 = ("avx512_bf16", "amx_bf16")


def _row(
    identity: str,
    precision: str,
    policy: str,
    rest: str,
    *,
    exact: bool = False,
    same_as: str = "",
    tier: int = 1,
    bits: int = 0,
) -> Candidate:
    """Return a candidate; ``rest`` is the precision of what is not quantised.

    Latency is measured one sample at a time, and fixing that batch on loading saves a quarter to
    a half of it. ``exact`` switches the fused kernels off, whose attention at f32 was off by 2e-2
    to 6e-2 on trained networks.
    """
    options: dict[str, Json] = {"precision": rest, "static_batch": 1}
    if exact:
        options["snippets"] = False
    return Candidate(
        identity,
        "openvino",
        "openvino",
        precision,
        policy,
        options,
        BF16 if rest == "bf16" else (),
        tier=tier,
        prepared=POLICIES[policy].method == "static",
        same_as=same_as,
        bits=bits,
    )


_ROWS: tuple[Candidate, ...] = (
    _row("ov-f32", "fp32", "none", "f32"),
    _row("ov-f32-exact", "fp32", "none", "f32", exact=True, same_as="ov-f32"),
    _row("ov-bf16", "bf16", "none", "bf16"),
    _row("ov-bf16-exact", "bf16", "none", "bf16", exact=True, same_as="ov-bf16"),
    _row("ov-int8", "int8", "nncf", "f32"),
    _row("ov-int8-exact", "int8", "nncf", "f32", exact=True, same_as="ov-int8"),
    _row("ov-int8-bf16", "int8", "nncf", "bf16", same_as="ov-int8"),
    _row("ov-int8-conv", "int8", "nncf-conv", "f32", exact=True),
    _row("ov-int8-conv-bf16", "int8", "nncf-conv", "bf16", same_as="ov-int8-conv"),
    _row("ov-int8-weights", "int8", "weights", "f32", exact=True, tier=3),
    _row("ov-int8-linear", "int8", "nncf-linear", "f32", exact=True, tier=2),
    _row("ov-int8-smooth", "int8", "nncf-smooth", "f32", tier=2),
    _row("ov-int8-bias", "int8", "nncf-bias", "f32", tier=2),
    _row("ov-int8-aware", "int8", "nncf", "f32", tier=2, bits=8),
    _row("ov-int8-default", "int8", "nncf-default", "f32", tier=3),
)


class OpenVino:
    """The backend named ``openvino``."""

    name = "openvino"

    def available(self) -> str | None:
        """Return why it cannot build here; None when it can."""
        lacking = [module for module in ("openvino", "nncf") if not installed(module)]
        return f"{' and '.join(lacking)} not installed" if lacking else None

    def candidates(self, precisions: Sequence[str], isa: Sequence[str]) -> list[Candidate]:
        """Return what the target allows and the device can run."""
        return [row for row in _ROWS if row.precision in precisions and row.runs_on(isa)]

    def build(
        self,
        model: Path,
        candidate: Candidate,
        calibration: Mapping[str, NDArray[Any]],
        out: Path,
        emit: Emit,
    ) -> dict[str, Any]:
        """Make ``model.xml`` and ``model.bin``; see `edgekd.backends.base.Backend.build`."""
        require(self, "nncf" if not installed("nncf") else "openvino")
        policy = POLICIES[candidate.policy]
        samples = samples_in(calibration) if policy.method == "static" else 0
        if policy.method == "static" and not samples:
            raise StageError("static quantisation needs calibration samples, found none")
        out.mkdir(parents=True, exist_ok=True)
        doing = "converting" if policy.method == "none" else "quantising with NNCF"
        emit(Event("progress", f"build:{candidate.id}", doing))
        facts = _in_child(model, policy, candidate, calibration, out)
        return {
            "files": [MAIN, WEIGHTS],
            "main": MAIN,
            "runtime": candidate.runtime,
            "options": dict(candidate.options),
            "precision": candidate.precision,
            "tool_versions": tool_versions("openvino", "nncf"),
            "calibration_samples": samples,
            **facts,
        }

    def kit(
        self, manifest: Mapping[str, Any], golden: Mapping[str, NDArray[Any]]
    ) -> dict[str, bytes]:
        """Return a runner in C++, with its golden self-test; for one input and one output."""
        from edgekd.backends.openvino_kit import kit

        inputs, outputs = manifest["io"]["inputs"], manifest["io"]["outputs"]
        if len(inputs) != 1 or len(outputs) != 1:
            return {}
        return kit(manifest, golden[inputs[0]["name"]], golden[f"output:{outputs[0]['name']}"])


BACKEND = OpenVino()


def _in_child(
    model: Path,
    policy: Policy,
    candidate: Candidate,
    calibration: Mapping[str, NDArray[Any]],
    out: Path,
) -> dict[str, Any]:
    """Run the worker on a request file and return what it found."""
    with tempfile.TemporaryDirectory(prefix="edgekd-ov-") as name:
        folder = Path(name)
        feeds: dict[str, Any] = dict(calibration) if policy.method == "static" else {}
        np.savez(folder / "calibration.npz", **feeds)
        request = {
            **asdict(policy),
            "model": str(model.absolute()),
            "calibration": str(folder / "calibration.npz"),
            "never_quantize": list(candidate.never_quantize),
            "xml": str((out / MAIN).absolute()),
            "answer": str(folder / "answer.json"),
        }
        (folder / "request.json").write_text(json.dumps(request), "utf-8")
        _run_worker(folder, candidate.id)
        facts: dict[str, Any] = json.loads((folder / "answer.json").read_text("utf-8"))
    return facts


def _run_worker(folder: Path, label: str) -> None:
    command = [sys.executable, "-m", "edgekd.backends.openvino_worker", "request.json"]
    log = folder / "log.txt"
    with log.open("wb") as stream:
        try:
            code = subprocess.run(
                command,
                cwd=folder,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=_TIMEOUT_S,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired as late:
            raise StageError(f"building {label} took more than {_TIMEOUT_S} s") from late
    if code:
        fate = f"was killed by signal {-code}" if code < 0 else f"failed with status {code}"
        lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
        raise StageError(
            f"OpenVINO's toolchain {fate} while building {label}",
            hint="\n    ".join(["the end of what it said:", *lines[-_TAIL_LINES:]]),
        )


def _environment() -> dict[str, str]:
    """Return the child's environment: it must find this very edgekd, and count on one core."""
    root = str(Path(edgekd.agent.__file__).parents[2])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    quiet = {"PYTHONHASHSEED": "0", "TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}
    return {**os.environ, **quiet, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, paths))}
