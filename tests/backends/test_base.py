from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from edgekd.backends import base
from edgekd.backends.base import Candidate, backend, backends
from edgekd.errors import SetupError, UsageError
from edgekd.spec import canonical, plain

ALL = ["fp32", "bf16", "int8"]
VNNI = ["avx2", "avx512_vnni", "avx512_bf16"]


def ids(name, precisions, isa):
    return [candidate.id for candidate in backend(name).candidates(precisions, isa)]


def test_candidates():
    assert ids("onnxruntime", ["fp32"], VNNI) == ["ort-fp32"]
    assert ids("onnxruntime", ALL, VNNI)[:3] == ["ort-fp32", "ort-int8", "ort-int8-dynamic"]
    everything = ids("openvino", ALL, VNNI)
    assert everything[:5] == ["ov-f32", "ov-f32-exact", "ov-bf16", "ov-bf16-exact", "ov-int8"]
    lacking = [name for name in everything if "bf16" not in name]
    assert ids("openvino", ALL, ["avx2"]) == lacking
    assert "ov-bf16" in ids("openvino", ALL, ["amx_bf16"])
    rows = backend("openvino").candidates(["fp32"], VNNI)
    assert {row.precision for row in rows} == {"fp32"}


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_the_table_is_sound(name):
    """What shares another's files stands behind it and differs in options alone."""
    rows = backend(name).candidates(ALL, VNNI)
    seen = {}
    for row in rows:
        if row.same_as:
            other = seen[row.same_as]
            assert (row.policy, row.precision) == (other.policy, other.precision)
            assert row.options != other.options
        seen[row.id] = row
    assert len(seen) == len(rows)
    assert {row.tier for row in rows} <= {1, 2, 3}
    assert all(row.tier == 1 for row in rows if row.precision != "int8")


def test_one_sample_at_a_time():
    rows = [r for name in ("onnxruntime", "openvino") for r in backend(name).candidates(ALL, VNNI)]
    fixed = {row.id for row in rows if row.options.get("static_batch") == 1}
    assert fixed == {row.id for row in rows if row.id.startswith("ov-")} | {"ort-int8-dynamic"}
    assert all(row.options["precision"] in ("f32", "bf16") for row in rows if row.id[:2] == "ov")


def test_int8_without_vnni_keeps_one_bit_free():
    policies = {
        tuple(isa): backend("onnxruntime").candidates(["int8"], isa)[0].policy
        for isa in (["avx2"], ["avx2", "avx_vnni"], ["neon", "dotprod"])
    }
    assert policies == {
        ("avx2",): "products-s7",
        ("avx2", "avx_vnni"): "products",
        ("neon", "dotprod"): "products",
    }


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "tensorrt"])
def test_every_candidate_is_plain_and_has_a_policy(name):
    module = sys.modules[type(backend(name)).__module__]
    for candidate in backend(name).candidates(ALL, VNNI):
        assert candidate.policy in module.POLICIES
        assert candidate.backend == name
        again = Candidate(**plain(candidate))
        assert canonical(again) == canonical(candidate)


def test_planning_imports_no_toolchain():
    script = (
        "import sys; from edgekd.backends.base import backend, backends\n"
        "for name in backends(): backend(name).available(); "
        "backend(name).candidates(['fp32', 'int8'], [])\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'openvino', 'nncf'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


def test_unknown_backend_offers_the_closest():
    with pytest.raises(UsageError, match="no backend 'openvin'") as caught:
        backend("openvin")
    assert "did you mean 'openvino'?" in str(caught.value)


def test_backend_of_another_package(monkeypatch):
    points = {
        "theirs": EntryPoint("theirs", "edgekd.backends.onnxruntime:BACKEND", base.GROUP),
        "broken": EntryPoint("broken", "no_such_module:BACKEND", base.GROUP),
    }
    monkeypatch.setattr(base, "_entry_points", lambda: points)
    ours = ["onnxruntime", "openvino", "tensorrt", "litert", "firmware", "ethos-u"]
    assert backends() == [*ours, "broken", "theirs"]
    assert backend("theirs").name == "onnxruntime"
    with pytest.raises(SetupError, match="'broken' cannot be loaded"):
        backend("broken")


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "tensorrt"])
def test_missing_toolchain_says_what_to_install(name, monkeypatch, tmp_path):
    module = sys.modules[type(backend(name)).__module__]
    monkeypatch.setattr(module, "installed", lambda module: False)
    assert "not installed" in backend(name).available()
    candidate = backend(name).candidates(["fp32"], [])[0]
    with pytest.raises(SetupError) as caught:
        backend(name).build(tmp_path / "m.onnx", candidate, {}, tmp_path, lambda event: None)
    assert "pip install 'edgekd[" in str(caught.value)
