"""The explicitly quantised float16 graph: where pairs stand, what stays in float, what it gives."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")

from edgekd.backends import tensorrt_calibrate as calibrate
from edgekd.backends.base import backend
from edgekd.backends.tensorrt import OPSET, oldest
from edgekd.device.link import Agent
from edgekd.errors import StageError
from edgekd.events import silent
from edgekd.graph.half import to_half, unsafe_constants
from edgekd.graph.lint import lint
from edgekd.graph.qdq import insert, quantise_weight, sites
from edgekd.graph.support import tensorrt
from tests.graph import planted

FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
ROWS = {row.id: row for row in backend("tensorrt").candidates(["fp32", "int8", "fp16"], ())}


@pytest.fixture(scope="module")
def graphs(built):
    """Function: candidate → (proto, types of all values)."""

    def load(name):
        folder, _ = built(ROWS[name])
        proto = onnx.load(str(folder / "model.onnx"))
        inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True).graph
        ports = (*inferred.value_info, *inferred.input, *inferred.output)
        types = {port.name: port.type.tensor_type.elem_type for port in ports}
        return proto, types | {t.name: t.data_type for t in proto.graph.initializer}

    return load


def test_candidates_keep_the_targets_order():
    assert list(ROWS) == ["trt-fp32", "trt-int8", "trt-fp16"]
    assert [c.id for c in backend("tensorrt").candidates(["bf16", "fp16"], ())] == ["trt-fp16"]


@pytest.mark.parametrize(
    ("name", "cosine"), [("trt-fp32", 0.99999), ("trt-fp16", 0.9999), ("trt-int8", 0.998)]
)
def test_the_proxy_gives_what_torch_gives(name, cosine, built, feeds, wanted, cosines):
    folder, facts = built(ROWS[name])
    assert facts["runtime"] == "tensorrt" and facts["proxy"]["runtime"] == "onnxruntime"
    with Agent() as agent:
        agent.load(facts["proxy"]["runtime"], folder / facts["main"], threads=1)
        found = agent.run(feeds, batch=8)["output"]
    assert found.dtype == np.float32
    assert cosines(found, wanted).min() > cosine


@pytest.mark.parametrize("name", list(ROWS))
def test_the_boards_parser_has_nothing_against_it(name, graphs):
    proto, _ = graphs(name)
    assert lint(proto, tensorrt("10.3", 20)) == []
    assert max(entry.version for entry in proto.opset_import) <= 20


def test_float16_inside_float32_outside(graphs):
    for name in ("trt-fp16", "trt-int8"):
        proto, types = graphs(name)
        assert proto.opset_import[0].version == max(OPSET, proto.opset_import[0].version)
        assert {
            p.type.tensor_type.elem_type for p in (*proto.graph.input, *proto.graph.output)
        } == {FLOAT}
        for node in proto.graph.node:
            kinds = {types[n] for n in (*node.input, *node.output) if types.get(n) in (FLOAT, HALF)}
            if node.op_type == "LayerNormalization":
                assert kinds == {FLOAT}, node.name
            elif node.op_type != "Cast":
                assert kinds <= {HALF}, (node.name, node.op_type)


def test_pairs_stand_where_the_policy_puts_them(graphs):
    proto, types = graphs("trt-int8")
    makers = {name: node for node in proto.graph.node for name in node.output}
    held = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}

    def restored(name):
        return name in makers and makers[name].op_type == "DequantizeLinear"

    products = [n for n in proto.graph.node if n.op_type in ("Conv", "MatMul", "Gemm")]
    quantised = [n for n in products if restored(n.input[0]) and restored(n.input[1])]
    for node in products:
        attention = (
            node.op_type == "MatMul" and node.input[1] in makers and not restored(node.input[1])
        )
        if attention:
            assert not restored(node.input[0])
        if len(node.input) > 2:
            assert node.input[2] in held and held[node.input[2]].dtype == np.float16
    first = next(n for n in proto.graph.node if n.op_type == "Conv")
    assert not restored(first.input[0]), "three channels are too few"
    assert len(quantised) > 30
    for node in quantised:
        weight = makers[node.input[1]]
        integers = held[weight.input[0]]
        assert integers.dtype == np.int8 and integers.min() >= -127
        axis = next(a.i for a in weight.attribute if a.name == "axis")
        assert axis == (0 if node.op_type == "Conv" else 1)
        assert len(held[weight.input[1]]) == integers.shape[axis]
        assert held[makers[node.input[0]].input[1]].ndim == 0
    for node in proto.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert not held[node.input[2]].any() and types[node.input[1]] == HALF
        if node.op_type in ("Softmax", "LayerNormalization", "Sigmoid", "Mul"):
            assert not any(restored(name) for name in node.input), node.op_type
    additions = [n for n in proto.graph.node if n.op_type == "Add" and any(map(restored, n.input))]
    assert additions, "a residual addition has a pair on its skip input"
    for node in additions:
        fused = [name for name in node.input if not restored(name)]
        assert len(fused) == 1 and makers[fused[0]].op_type == "Conv"


def test_facts(built):
    facts = built(ROWS["trt-int8"])[1]
    assert set(facts["quantised_ops"]) == {"Conv", "MatMul"}
    assert sum(facts["quantised_ops"].values()) == facts["sites"]["weight"] >= 40
    assert set(facts["fidelity"]) == {"max", "mse"} and facts["calibration"] in facts["fidelity"]
    assert facts["calibration_samples"] == 48
    assert facts["sites"]["skip"] >= 1
    assert not built(ROWS["trt-fp16"])[1]["quantised_ops"]


def test_int8_is_the_smaller_file(built):
    sizes = {name: (built(ROWS[name])[0] / "model.onnx").stat().st_size for name in ROWS}
    assert sizes["trt-int8"] < sizes["trt-fp16"] < sizes["trt-fp32"]


def test_same_bytes_twice(built, exported, feeds, tmp_path):
    folder, _ = built(ROWS["trt-int8"])
    backend("tensorrt").build(exported["float32_nchw"], ROWS["trt-int8"], feeds, tmp_path, silent)
    assert (tmp_path / "model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()


def test_camera_bytes(exported, pixels, wanted, cosines, tmp_path):
    facts = backend("tensorrt").build(
        exported["uint8_nhwc"], ROWS["trt-int8"], {"input": pixels}, tmp_path, silent
    )
    assert lint(tmp_path / "model.onnx", tensorrt("10.3", 20)) == []
    with Agent() as agent:
        agent.load("onnxruntime", tmp_path / facts["main"], threads=1)
        found = agent.run({"input": pixels}, batch=8)["output"]
    assert cosines(found, wanted).min() > 0.998


def chain(*, constant=1.0, columns=32, rows=4, op="MatMul"):
    """x (1, rows, 32) → product → Mul by a constant → y."""
    value = onnx.helper.make_tensor_value_info
    weight = np.random.default_rng(0).normal(size=(32, columns)).astype(np.float32)
    nodes = [
        onnx.helper.make_node(op, ["x", "w"], ["p"], "product"),
        onnx.helper.make_node("Mul", ["p", "c"], ["y"], "scale"),
    ]
    held = {"w": weight, "c": np.array(constant, np.float32)}
    shape = ["batch", rows, 32] if rows else ["batch", 32]
    graph = onnx.helper.make_graph(
        nodes, "chain", [value("x", FLOAT, shape)], [value("y", FLOAT, [*shape[:-1], columns])],
        [onnx.numpy_helper.from_array(a, n) for n, a in held.items()],
    )  # fmt: skip
    opset = onnx.helper.make_opsetid("", 18)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9)


@pytest.mark.parametrize(
    ("options", "count"),
    [({}, 2), ({"columns": 8}, 0), ({"rows": 0}, 0), ({"rows": 1}, 0), ({"columns": 1}, 0)],
    ids=["wide", "narrow", "vector", "one row", "one column"],
)
def test_narrow_products_stay_in_float(options, count):
    assert len(sites(chain(**options))) == count


def test_operators_that_a_target_keeps_in_float():
    assert not sites(chain(), never=("MatMul",))


def test_a_weight_is_quantised_per_channel_without_losing_its_largest_value():
    values = np.array([[1.0, -100.0], [0.25, 25.0]], np.float32)
    integers, scale = quantise_weight(values, 1)
    assert integers.tolist() == [[127, -127], [32, 32]]
    np.testing.assert_allclose(scale, [1 / 127, 100 / 127], rtol=1e-3)
    assert scale.astype(np.float16).astype(np.float32).tolist() == scale.tolist()
    zeros, floor = quantise_weight(np.zeros((2, 2), np.float32), 1)
    assert not zeros.any() and (floor.astype(np.float16) > 0).all()


def test_pairs_round_to_127_steps():
    proto = chain()
    made = insert(proto, sites(proto), {"x": 2 / 127})
    feeds = {"x": np.linspace(-3, 3, 4 * 32, dtype=np.float32).reshape(1, 4, 32)}
    found = calibrate.outputs(made, feeds)
    weight = onnx.numpy_helper.to_array(proto.graph.initializer[0])
    integers, scale = quantise_weight(weight, 1)
    x = np.clip(np.rint(feeds["x"] / np.float32(2 / 127)), -128, 127) * np.float32(2 / 127)
    np.testing.assert_allclose(found, (x @ (integers * scale)).reshape(1, -1), rtol=2e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("constant", "unsafe"), [(1.0, set()), (1e5, {"scale"}), (1e-9, {"scale"}), (0.0, set())]
)
def test_constants_that_float16_cannot_hold(constant, unsafe):
    assert unsafe_constants(chain(constant=constant)) == unsafe


def test_large_inner_values_stay_in_float32(tmp_path):
    proto = chain(constant=3000.0)
    onnx.save(proto, tmp_path / "m.onnx")
    feeds = {"x": np.random.default_rng(0).normal(size=(8, 4, 32)).astype(np.float32)}
    out = tmp_path / "out"
    facts = backend("tensorrt").build(tmp_path / "m.onnx", ROWS["trt-fp16"], feeds, out, silent)
    assert facts["float32_nodes"] == ["scale"]
    found = calibrate.outputs(onnx.load(str(out / "model.onnx")), feeds)
    wanted = calibrate.outputs(proto, feeds)
    np.testing.assert_allclose(found, wanted, rtol=0.02, atol=0.02 * np.abs(wanted).max())


def test_an_output_that_is_read_inside_too():
    value = onnx.helper.make_tensor_value_info
    nodes = [
        onnx.helper.make_node("Relu", ["x"], ["y"], "a"),
        onnx.helper.make_node("Neg", ["y"], ["z"], "b"),
    ]
    ports = [value(n, FLOAT, [1, 2]) for n in "xyz"]
    graph = onnx.helper.make_graph(nodes, "two", ports[:1], ports[1:])
    opset = onnx.helper.make_opsetid("", 18)
    proto = to_half(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9))
    onnx.checker.check_model(proto, full_check=True)
    assert calibrate.outputs(proto, {"x": np.array([[1, -1]], np.float32)}).tolist() == [[1, 0]]


def test_best_clip():
    flat = np.ones(calibrate.BINS)
    assert calibrate.best_clip(flat) > 0.95
    outlier = np.zeros(calibrate.BINS)
    outlier[:800], outlier[-1] = 1e5, 1
    assert calibrate.best_clip(outlier) < 0.5


def test_refusals(tmp_path):
    row, tools = ROWS["trt-int8"], backend("tensorrt")
    onnx.save(chain(columns=8), tmp_path / "narrow.onnx")
    feeds = {"x": np.ones((2, 4, 32), np.float32)}
    with pytest.raises(StageError, match="nothing to quantise"):
        tools.build(tmp_path / "narrow.onnx", row, feeds, tmp_path / "o", silent)
    onnx.save(chain(), tmp_path / "m.onnx")
    with pytest.raises(StageError, match="needs calibration samples"):
        tools.build(tmp_path / "m.onnx", row, {}, tmp_path / "o", silent)
    with pytest.raises(StageError, match="not finite"):
        bad = {"x": np.full((2, 4, 32), np.nan, np.float32)}
        tools.build(tmp_path / "m.onnx", row, bad, tmp_path / "o", silent)
    named = planted.simple("Relu")
    named.graph.input[0].name = named.graph.node[0].input[0] = "x:0"
    onnx.save(named, tmp_path / "named.onnx")
    with pytest.raises(StageError, match="'x:0' is no name"):
        tools.build(tmp_path / "named.onnx", row, feeds, tmp_path / "o", silent)


def test_a_layer_norm_that_was_written_out_is_refused_by_the_check(tmp_path):
    onnx.save(planted.layer_norm(written_out=True), tmp_path / "m.onnx")
    facts = backend("tensorrt").check(tmp_path / "m.onnx", ">=10.3", 20)
    assert facts["status"] == "failed" and facts["parser"] == "TensorRT 10.3"
    assert facts["why"][0].startswith("lint: planted (Pow)")


def test_the_oldest_version_of_a_range():
    assert [oldest(r) for r in (">=10.3,<11", "==10.16", None, "<11")] == [
        "10.3",
        "10.16",
        "8.6",
        "8.6",
    ]
