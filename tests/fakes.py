"""A realistic manifest, made up: figures have the shape and the size of a measured run's."""

from __future__ import annotations

import copy
import random

RUNGS = (
    "exported",
    "parity fp32",
    "quantised parity",
    "task metric on artefact",
    "compiled for device",
    "parity on device",
    "profiled on device",
    "within budget",
)
# (parameters, MACs, bytes)
CONV4 = (113_088, 34_603_008, 462_904)
RESNET = (3_197_408, 911_212_544, 12_837_845)
MOBILE = (951_024, 31_588_352, 3_891_200)
INT8 = (951_024, 31_588_352, 1_322_240)
# fmt: off
NETWORKS = (
    # id and label; kind, runtime, precision; cost; 1-shot, 5-shot; p50 in ms
    ("trivial", "class mean on raw pixels", "trivial numpy fp32", (0, 0, 0), 0.4312, 0.5407, None),
    ("baseline:Conv4-64", "Conv4-64", "baseline torch fp32", CONV4, 0.6121, 0.7713, 3.41),
    ("teacher", "ResNet-12 (teacher)", "teacher torch fp32", RESNET, 0.7218, 0.8533, 28.4),
    ("control", "MobileViT-XXS (control)", "control torch fp32", MOBILE, 0.6643, 0.8109, 9.62),
    ("distill", "MobileViT-XXS, distilled", "student torch fp32", MOBILE, 0.6902, 0.8294, 9.57),
    ("ov-f32", "MobileViT-XXS, ov-f32", "artefact openvino fp32", MOBILE, 0.6902, 0.8293, 2.31),
    ("ov-int8", "MobileViT-XXS, ov-int8", "artefact openvino int8", INT8, 0.6874, 0.8268, 1.42),
)
# fmt: on
CPU = "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz"


def manifest() -> dict:
    """Return a fresh manifest of version 1 with ``files`` filled in."""
    return copy.deepcopy(_MANIFEST)


def row(identity: str, of: dict) -> dict:
    """Return one row of a manifest."""
    return next(row for row in of["rows"] if row["id"] == identity)


def _row(identity, label, nature, cost, one_shot, five_shot, p50) -> dict:
    kind, runtime, precision = nature.split()
    return {
        "id": identity,
        "label": label,
        "kind": kind,
        "runtime": runtime,
        "precision": precision,
        **dict(zip(("params", "macs", "file_bytes"), cost, strict=True)),
        "metrics": {
            "5-way 1-shot": _metric(one_shot, 0.0051),
            "5-way 5-shot": _metric(five_shot, 0.0037),
        },
        "primary": "5-way 5-shot",
        "latency": _latency(identity, p50),
        "shipped": identity == "ov-int8",
    }


def _metric(value: float, half: float) -> dict:
    return {
        "value": value,
        "low": round(value - half, 4),
        "high": round(value + half, 4),
        "n": 2000,
    }


def _latency(identity: str, p50: float | None) -> dict:
    if p50 is None:
        return {"not_run": "no network"}
    draw = random.Random(identity)
    samples = sorted(
        round(p50 * draw.lognormvariate(0, 0.035) * (1.9 if draw.random() < 0.02 else 1), 4)
        for _ in range(400)
    )
    return {
        "wall_ms": {"p50": samples[200], "p90": samples[360], "p99": samples[396]},
        "cpu_ms": {"p50": round(p50 * 0.99, 4), "min": round(p50 * 0.94, 4)},
        "threads": 1,
        "load": 0.42,
        "rss_mib": 88.1 if p50 < 3 else 412.7,
        "n": 600,
        "samples_ms": samples,
    }


def _candidate(identity: str, precision: str, loss: float, ms: float, size: int, why: str = ""):
    return {
        "candidate": identity,
        "precision": precision,
        "runtime": "openvino" if identity.startswith("ov") else "onnxruntime",
        "metric": round(0.8301 * (1 - loss), 4),
        "loss": loss,
        "cpu_ms": ms,
        "wall_ms": round(ms * 1.01, 4),
        "bytes": size,
        "min_cosine": 0.99121 if precision == "int8" else 0.9999998,
        "status": "failed" if why.startswith("parity") else "passed",
        "why": why,
    }


_RANKING = [
    _candidate("ov-int8", "int8", 0.0031, 1.41, 1322240),
    _candidate("ov-bf16", "bf16", 0.0004, 1.77, 3880120),
    _candidate("ov-f32", "fp32", 0.0, 2.29, 3880120),
    _candidate("ort-fp32", "fp32", 0.0, 2.94, 3903112),
]
_REJECTED = [
    _candidate("ort-int8", "int8", 0.0462, 2.12, 1190400, "task metric: lost 4.62 %, limit 1 %"),
    _candidate(
        "ort-int8-dynamic",
        "int8",
        0.31,
        3.83,
        1701200,
        "parity: max relative error 1.4, worst cosine 0.6121, outside"
        " {'max_rel': 1.0, 'min_cosine': 0.8}",
    ),
]
_LOOSE = {"max_rel": 1.0, "min_cosine": 0.8}
_TIGHT = {"max_rel": 1e-4, "min_cosine": 0.99999}

_MANIFEST = {
    "schema_version": 1,
    "name": "mobilevit-cpu",
    "edgekd": "0.1.0",
    "recipe": {
        "name": "mobilevit",
        "settings": {
            "preset": "embedded",
            "data": "embedded",
            "teacher": "auto",
            "objective": "ce+mse",
            "variant": "xxs",
            "size": 64,
            "seed": 0,
        },
        "spec": {"name": "mobilevit", "file": "recipes/mobilevit.py"},
        "digest": "5f0f1c0a8f7e3f4c2b6c1a9d0e8f7a6b5c4d3e2f1a0b9c8d7e6f5a4b3c2d1e0f",
    },
    "target": {
        "name": "cpu",
        "title": "This computer's processor; ONNX Runtime and OpenVINO where installed",
        "device": "cpu",
        "backends": ["onnxruntime", "openvino"],
        "precisions": ["fp32", "bf16", "int8"],
        "limits": {"metric_drop": 0.01},
        "measure": {"threads": 1, "runs": 200, "warmup": 20, "processes": 3},
    },
    "inputs": {
        "data": {
            "source": "edgekd.data.icons:icons",
            "digest": "1c7d9b3e5a2f4c6d8e0f1a3b5c7d9e0f2a4b6c8d0e1f3a5b7c9d1e3f5a7b9c0d",
            "counts": {"train": 12800, "val": 3200, "test": 4000},
            "note": "",
        },
        "teacher": {
            "label": "ResNet-12",
            "sha256": "c3bb9644e019cdbca7261075c34e55271c15a42d07cd5e8b5a62f7252479b108",
            "license": "Apache-2.0",
            "made_by": "edgekd compress --recipe mobilevit --set teacher=train",
        },
    },
    "io": {
        "inputs": [
            {
                "name": "input",
                "shape": [None, 3, 64, 64],
                "dtype": "float32",
                "form": "float32_nchw",
                "mean": [0.5, 0.5, 0.5],
                "std": [0.5, 0.5, 0.5],
                "scale_255": True,
            }
        ],
        "outputs": [
            {"name": "output", "shape": [None, 320], "dtype": "float32", "meaning": "features"}
        ],
    },
    "artefact": {
        "candidate": "ov-int8",
        "runtime": "openvino",
        "precision": "int8",
        "options": {"precision": "f32", "snippets": False},
        "main": "model/model.xml",
        "files": ["model/model.xml", "model/model.bin"],
        "bytes": 1322240,
    },
    "runners_up": [
        {**row, "status": "rejected" if row["why"] else "runner-up"}
        for row in [*_RANKING[1:], *_REJECTED]
    ],
    "state": {"file": "state.npz", "what": "base mean of the features"},
    "rows": [_row(*network) for network in NETWORKS],
    "gains": {
        "student − control": {
            "5-way 1-shot": {"value": 0.0259, "low": 0.0221, "high": 0.0297, "n": 2000},
            "5-way 5-shot": {"value": 0.0185, "low": 0.0161, "high": 0.0209, "n": 2000},
        },
        "student − teacher": {
            "5-way 1-shot": {"value": -0.0316, "low": -0.0357, "high": -0.0275, "n": 2000},
            "5-way 5-shot": {"value": -0.0239, "low": -0.0266, "high": -0.0212, "n": 2000},
        },
        "shipped − student": {
            "5-way 1-shot": {"value": -0.0008, "low": -0.0019, "high": 0.0003, "n": 2000},
            "5-way 5-shot": {"value": -0.0026, "low": -0.0034, "high": -0.0018, "n": 2000},
        },
    },
    "parity": [
        {
            "hop": "torch → onnx: export",
            "max_abs": 4.1e-6,
            "min_cosine": 0.9999999,
            "status": "passed",
        },
        {
            "hop": "torch → onnx: simplify",
            "max_abs": 5.2e-6,
            "min_cosine": 0.9999999,
            "status": "passed",
        },
        {
            "hop": "torch → ov-f32",
            "max_abs": 7.7e-6,
            "max_rel": 2.2e-6,
            "min_cosine": 0.9999998,
            "n": 64,
            "tolerance": _TIGHT,
            "status": "passed",
        },
        {
            "hop": "torch → ov-int8",
            "max_abs": 0.41,
            "max_rel": 0.12,
            "min_cosine": 0.99121,
            "n": 64,
            "tolerance": _LOOSE,
            "status": "passed",
        },
        {
            "hop": "torch → ort-int8-dynamic",
            "max_abs": 4.9,
            "max_rel": 1.4,
            "min_cosine": 0.6121,
            "n": 64,
            "tolerance": _LOOSE,
            "status": "failed",
        },
    ],
    "choice": {
        "rule": "least processor time within the limits; ties (3 %) to the smaller file",
        "picked": "ov-int8",
        "ranking": _RANKING,
        "rejected": _REJECTED,
        "metric": "5-way 5-shot",
        "limit": 0.01,
    },
    "ladder": [{"rung": name, "status": "passed", "why": ""} for name in RUNGS[:-1]]
    + [{"rung": RUNGS[-1], "status": "not_run", "why": "target cpu sets no limits"}],
    "golden": {"file": "golden.npz", "tolerance": {"max_rel": 0.1, "min_cosine": 0.99}},
    "claims": [
        "Distillation helped: student − control on 5-way 5-shot is +1.85 points (95 % interval"
        " +1.61 to +2.09, this one training).",
        "ov-int8 is 1.62× as fast as ov-f32 and 2.93× smaller.",
        "Not tried: litert: LiteRT is not installed.",
    ],
    "training": {
        name: {
            "history": [round(first * 0.82**epoch + last, 4) for epoch in range(12)],
            "epochs": 12,
        }
        for name, first, last in (
            ("control", 2.4, 1.31),
            ("distill", 3.1, 1.72),
            ("baseline:Conv4-64", 2.6, 1.64),
        )
    },
    "files": {
        "model/model.xml": "0a" * 32,
        "model/model.bin": "1b" * 32,
        "golden.npz": "2c" * 32,
        "state.npz": "3d" * 32,
        "report.html": "4e" * 32,
    },
    "measured": {
        "when": "2026-01-15T10:00:00+00:00",
        "machine": {
            "cpu": CPU,
            "isa": ["avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8"],
            "cores": 2,
            "arch": "x86_64",
            "os": "Linux",
            "memory_mib": 15990,
            "python": "3.11.9",
            "state": {"load": [0.4, 0.3, 0.2], "governor": None},
        },
        "versions": {
            "torch": "2.13.0",
            "numpy": "2.4.1",
            "onnxruntime": "1.32.0",
            "openvino": "2026.4.1",
            "nncf": None,
        },
        "seconds_per_step": {
            "teacher": 0.8,
            "teach": 41.2,
            "control": 207.5,
            "distill": 221.9,
            "export": 11.3,
        },
    },
}
