"""Planted faults: each is found at its node, and nothing else is."""

import numpy as np
import onnx
import pytest

from edgekd.graph import support
from edgekd.graph.lint import RULES, lint
from edgekd.graph.support import tensorrt
from tests.graph import planted
from tests.graph.planted import INT64, simple

BOARD = tensorrt("10.3", 20)
CALL = onnx.helper.make_tensor_value_info


def computed_axes():
    node = planted.node("ReduceMean", ["x", "axes"], ["y"])
    return planted.model([node], extra=[CALL("axes", INT64, [1])])


def foreign():
    return planted.model([planted.node("FusedConv", ["x"], ["y"], domain="com.microsoft")])


def two_outputs():
    node = planted.node("MaxPool", ["x"], ["y", "places"], kernel_shape=[2, 2])
    return planted.model([node])


def in_a_branch():
    """Det inside the branch of an If."""
    value = onnx.helper.make_tensor_value_info
    det = onnx.helper.make_graph(
        [planted.node("Det", ["x"], ["t"])], "then", [], [value("t", planted.FLOAT, None)]
    )
    same = onnx.helper.make_graph(
        [planted.node("Identity", ["x"], ["e"], "same")],
        "else",
        [],
        [value("e", planted.FLOAT, None)],
    )
    node = planted.node("If", ["c"], ["y"], "branch", then_branch=det, else_branch=same)
    return planted.model([node], {"c": np.array(True)})


BAD = {
    "non-zero zero point": (planted.pair(3), "zero point", "3; only 0 is taken"),
    "unsigned zero point": (planted.pair(0, np.uint8), "zero point", "UINT8"),
    "scale of zero": (planted.pair(0, scale=0.0), "scale", "not positive"),
    "infinite scale": (planted.pair(0, scale=np.inf), "scale", "not finite"),
    "bias of 32 bits": (planted.bias(), "int32 bias", "INT32"),
    "operator-oriented": (planted.qlinear(), "operator", "QLinearConv"),
    "Det": (simple("Det"), "operator", "no version"),
    "unknown operator": (simple("NoSuchOperator"), "operator", "not in the support matrix"),
    "newer operator": (
        simple("Swish", opset=20), "operator", "came with TensorRT 11.0; TensorRT 10.3 refuses"
    ),
    "foreign domain": (foreign(), "domain", "com.microsoft"),
    "written-out layer norm": (planted.layer_norm(written_out=True), "pow norm", "overflow"),
    "computed sizes": (planted.resize(computed=True), "resize", "computed while running"),
    "antialias": (planted.resize(antialias=1, mode="linear"), "resize", "antialiasing"),
    "crop": (
        planted.resize(coordinate_transformation_mode="half_pixel_symmetric"), "resize", "symmetric"
    ),
    "computed axes": (computed_axes(), "axes", "axes (axes) are computed"),
    "dilated pool": (
        simple("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]), "pool", "dilations [2, 2]"
    ),
    "indices of a pool": (two_outputs(), "pool", "indices"),
    "scatter that adds": (
        simple("ScatterND", "i", "u", held={"i": np.zeros((1, 4), np.int64), "u": np.zeros(1, np.float32)},
               reduction="add"),
        "scatter", "reduction 'add'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_planted_fault_is_named(case):
    proto, rule, reason = BAD[case]
    found = [f for f in lint(proto, BOARD) if f.level == "refused"]
    assert {finding.rule for finding in found} == {rule}
    assert {"planted", *({"back"} if rule in ("zero point", "scale") else ())} >= {
        f.node for f in found
    }
    assert any(reason in finding.reason for finding in found), found
    assert all(finding.remedy for finding in found)


@pytest.mark.parametrize(
    "proto",
    [planted.good(), planted.pair(0), planted.layer_norm(written_out=False), planted.resize(),
     planted.resize(mode="linear"), simple("Gelu", opset=20), simple("Sigmoid")],
)  # fmt: skip
def test_a_good_graph_has_no_findings(proto):
    assert lint(proto, BOARD) == []


@pytest.mark.parametrize(("opset", "refused"), [(8, True), (9, False), (20, False), (21, True)])
def test_opset(opset, refused):
    found = [f for f in lint(simple("Relu", opset=opset), BOARD) if f.rule == "opset"]
    assert bool(found) == refused
    assert all("9 to 20" in f.reason for f in found)


def test_a_target_may_ask_for_an_older_opset():
    (found,) = lint(simple("Relu", opset=19), tensorrt("10.3", 18))
    assert found.reason == "opset 19; TensorRT 10.3 takes 9 to 18"


def test_a_fault_inside_a_branch_names_the_way_to_it():
    (found,) = lint(in_a_branch(), BOARD)
    assert (found.node, found.operator) == ("branch/planted", "Det")
    assert str(found).startswith("branch/planted (Det): ")


def test_versions():
    assert [tensorrt(v).opset for v in ("8.6.1", "10.3.0.30", "10.9", "10.16.2.10", "11.4")] == [
        17, 20, 22, 24, 24,
    ]  # fmt: skip
    assert not tensorrt("8.6").takes("Gelu") and tensorrt("10.0").takes("Gelu")
    assert not tensorrt("10.3").takes("Attention") and tensorrt("10.16").takes("Attention")
    assert tensorrt("10.3.0").name == "TensorRT 10.3"


def test_wide_integers_are_refused_where_they_are_cast_down():
    held = {"i": np.array([2**40], np.int64)}
    proto = planted.model([planted.node("Gather", ["x", "i"], ["y"])], held)
    assert not lint(proto, BOARD)
    old = tensorrt("8.6")
    assert [f.rule for f in lint(proto, old) if f.rule == "int64"] == ["int64"]


def test_double_is_a_warning():
    node = planted.node("Cast", ["x"], ["y"], to=onnx.TensorProto.DOUBLE)
    found = lint(planted.model([node], dtype=onnx.TensorProto.DOUBLE), BOARD)
    assert {(f.level, f.rule) for f in found} == {("warning", "double"), ("refused", "dtype")}


def test_the_table_is_consistent():
    assert not support.TAKEN & support.REFUSED
    assert set(support.REMEDIES) <= support.TAKEN | support.REFUSED | set(support.SINCE)
    known = support.TAKEN | set(support.SINCE)
    for _, operators, _rule in RULES.values():
        assert set(operators) <= known
    standard = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}
    made_up = (support.TAKEN | support.REFUSED) - standard
    assert made_up == {"ImageScaler", "ParametricSoftplus", "ScaledTanh"} & made_up
