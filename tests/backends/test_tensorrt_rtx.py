"""NVIDIA's parser and compiler by proxy; the second half needs the extra ``tensorrt-rtx``."""

from __future__ import annotations

import importlib.util

import pytest

onnx = pytest.importorskip("onnx")

from edgekd.backends import tensorrt_rtx
from edgekd.backends.base import backend
from edgekd.backends.tensorrt_rtx import compile_check, coverage, layers_of
from edgekd.graph.lint import lint
from edgekd.graph.support import tensorrt
from tests.graph import planted

HAVE = importlib.util.find_spec("tensorrt_rtx") is not None
needs_rtx = pytest.mark.skipif(not HAVE, reason="pip install 'edgekd[tensorrt-rtx]' runs these")
TENSOR = "{ Name: %s, Dimensions: [1,16,8,8], Strides: [1024,64,8,1], StrideOrder: [3,2,1,0], Datatype: %s, Format: (NHWC) Channel major format }"


def line(name, kind, inputs, constants, nodes):
    """One line as the builder writes it."""
    given = ", ".join(TENSOR % ("t", t) for t in inputs)
    held = ", ".join(TENSOR % ("c", t) for t in constants)
    meta = "".join(f"[ONNX Layer: {node}]" for node in nodes)
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: [ {given}], Constants: [ {held}], "
        f"Outputs: [ {TENSOR % ('o', 'Half')}], TacticName: x, StreamId: 0, Metadata: {meta}"
    )


LOG = "\n".join(
    [
        "Layers:",
        line(
            "Conv_1_myl0_3", "correlation", ["Int8"], ["Int8", "Float"], ["Conv_1", "Dequantise_0"]
        ),
        line("Conv_0_myl0_1", "correlation", ["Half"], ["Half"], ["Conv_0"]),
        line("__myl_SiluMul_myl0_2", "kgen", ["Half"], [], ["Mul_0", "Conv_1"]),
        line("__myl_CastMulFc_myl0_4", "runtime_fusion", ["Half"], ["Int8"], ["MatMul_0"]),
        line("MatMul_10_myl0_5", "gemm", ["Int8"], ["Int8"], ["MatMul_10"]),
        line(
            "_gemm_mha_v2_myl0_6", "kgen", ["Half", "Half", "Half"], [], ["MatMul_2", "Softmax_0"]
        ),
        "Bindings: ...",
    ]
)


def test_layers_of_a_log():
    layers = layers_of(LOG)
    assert [layer["type"] for layer in layers].count("correlation") == 2
    assert layers[0]["inputs"] == ["Int8"] and layers[0]["constants"] == ["Int8", "Float"]
    assert layers[0]["nodes"] == ["Conv_1", "Dequantise_0"]


def test_coverage_counts_only_products_that_compute_in_int8():
    found = coverage(layers_of(LOG))
    assert (found["int8"], found["products"]) == (2, 5)
    computes = {row["node"]: row["computes"] for row in found["layers"]}
    assert computes == {
        "Conv_0": "half",
        "Conv_1": "int8",
        "MatMul_0": "half/int8",
        "MatMul_2": "half",
        "MatMul_10": "int8",
    }
    assert list(computes) == ["Conv_0", "Conv_1", "MatMul_0", "MatMul_2", "MatMul_10"]


def test_without_the_extra_it_is_not_run(monkeypatch, tmp_path):
    monkeypatch.setattr(tensorrt_rtx, "installed", lambda module: False)
    facts = compile_check(tmp_path / "m.onnx")
    assert list(facts) == ["not_run"] and "edgekd[tensorrt-rtx]" in facts["not_run"]


def test_a_crash_of_the_compiler_is_not_a_pass(monkeypatch, tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text("import os; os.kill(os.getpid(), 11)")
    monkeypatch.setattr(tensorrt_rtx, "installed", lambda module: True)
    monkeypatch.setattr(tensorrt_rtx, "_WORKER", worker)
    assert "signal 11" in compile_check(tmp_path / "m.onnx")["not_run"]


def saved(tmp_path, proto):
    onnx.save(proto, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


@needs_rtx
@pytest.mark.parametrize(
    "proto",
    [planted.pair(3), planted.bias(), planted.qlinear(), planted.simple("Det")],
    ids=["zero point", "int32 bias", "QLinearConv", "Det"],
)
def test_both_refuse_the_same_node(proto, tmp_path):
    compiled = compile_check(saved(tmp_path, proto))
    assert compiled["status"] == "failed"
    linted = {f.node for f in lint(proto, tensorrt("10.3", 20)) if f.level == "refused"}
    assert compiled["errors"][0]["node"] in linted
    assert compiled["errors"][0]["operator"]


@needs_rtx
@pytest.mark.parametrize(
    "proto", [planted.simple("Swish", opset=24), planted.simple("Relu", opset=21)]
)
def test_what_only_the_lint_refuses(proto, tmp_path):
    """The proxy is newer than the board: it takes what TensorRT 10.3 does not."""
    assert compile_check(saved(tmp_path, proto))["status"] == "passed"
    assert [f for f in lint(proto, tensorrt("10.3", 20)) if f.level == "refused"]


@needs_rtx
def test_the_shipped_graph_compiles_in_int8(built):
    rows = {row.id: row for row in backend("tensorrt").candidates(["int8"], ())}
    folder, facts = built(rows["trt-int8"])
    checked = backend("tensorrt").check(folder / "model.onnx", ">=10.3", 20)
    assert checked["status"] == "passed", checked["why"]
    int8 = checked["rtx"]["int8"]
    assert int8["int8"] >= 0.8 * sum(facts["quantised_ops"].values())
    assert checked["rtx"]["target"] == "SM86" and checked["rtx"]["engine_bytes"] > 0
