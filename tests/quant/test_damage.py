"""Damage of 8 bits, one layer at a time, against slow and obvious twins."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from edgekd.direct import Source
from edgekd.errors import DataError, UsageError
from edgekd.quant.damage import damages, layers, quantised, rounded
from edgekd.quant.ranges import measure_ranges
from edgekd.sensitivity import sensitivity, worst
from tests import bundles


def network(path, wide=1.0):
    """x → Gemm (weights of very unequal channels when wide) → Relu → MatMul → y."""
    rng = np.random.default_rng(0)
    arrays = {"a": rng.normal(size=(8, 6)), "b": rng.normal(size=6), "c": rng.normal(size=(6, 3))}
    arrays["c"][0] *= wide
    make, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        make("Gemm", ["x", "a", "b"], ["h"], "first"),
        make("Relu", ["h"], ["r"], "middle"),
        make("MatMul", ["r", "c"], ["y"], "last"),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "net",
        [value("x", 1, ["batch", 8])],
        [value("y", 1, ["batch", 3])],
        [onnx.numpy_helper.from_array(v.astype(np.float32), n) for n, v in arrays.items()],
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), str(path))
    return path


@pytest.fixture
def measured(tmp_path):
    path = network(tmp_path / "net.onnx")
    feeds = {"x": np.random.default_rng(1).normal(size=(40, 8)).astype(np.float32)}
    return onnx.load(str(path)), feeds, measure_ranges(path, feeds, ("minmax",))["minmax"]


def run(proto, feeds):
    return ort.InferenceSession(proto.SerializeToString()).run(None, feeds)[0]


def test_weights_are_rounded_by_channel():
    values = np.array([[1.0, 100.0], [-0.3, 50.2]], np.float32)
    found = rounded(values, axis=1)
    for channel in range(2):
        step = np.abs(values[:, channel]).max() / 127
        wanted = np.round(values[:, channel] / step) * step
        np.testing.assert_allclose(found[:, channel], wanted, rtol=1e-6)


def test_only_the_chosen_layer_changes(measured):
    proto, feeds, spans = measured
    first, middle, last = layers(proto, spans)
    assert (first.name, middle.name, last.name) == ("first", "middle", "last")
    assert first.weights == ("a", 1) and middle.weights is None and last.reads == ("r",)
    held = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    x = feeds["x"]

    found = run(quantised(proto, [last], "weights", spans), feeds)
    hidden = np.maximum(x @ held["a"] + held["b"], 0)
    np.testing.assert_allclose(found, hidden @ rounded(held["c"], 1), atol=1e-5)

    low, high = spans["x"]
    scale = (high - low) / 255
    zero = round(-low / scale)
    back = (np.clip(np.rint(x / np.float32(scale)) + zero, 0, 255) - zero) * np.float32(scale)
    found = run(quantised(proto, [first], "activations", spans), feeds)
    wanted = np.maximum(back @ held["a"] + held["b"], 0) @ held["c"]
    np.testing.assert_allclose(found, wanted, atol=2e-2)
    assert np.abs(found - run(proto, feeds)).max() > 1e-3


def test_the_layer_that_hurts_comes_out_first(tmp_path):
    path = network(tmp_path / "net.onnx", wide=300)
    feeds = {"x": np.random.default_rng(1).normal(size=(40, 8)).astype(np.float32)}
    spans = measure_ranges(path, feeds, ("minmax",))["minmax"]
    found = damages(onnx.load(str(path)), feeds, spans, judge=lambda y: float(y.std()))
    assert [row["name"] for row in found["layers"]] == ["first", "middle", "last"]
    assert {row["name"]: row["layers"] for row in found["classes"]} == {
        "Gemm": 1, "Relu": 1, "MatMul": 1,
    }  # fmt: skip
    assert "weights" not in found["layers"][1] and "both" not in found["layers"][1]
    assert found["all"]["both"]["sqnr_db"] < min(
        row["activations"]["sqnr_db"] for row in found["layers"]
    )
    assert found["all"]["both"]["loss"] != 0 and found["metric"] > 0
    assert min(found["layers"], key=worst)["name"] != "middle"


def test_nothing_to_quantise(tmp_path):
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Reshape", ["x", "s"], ["y"])
    shape = onnx.numpy_helper.from_array(np.array([-1, 4]), "s")
    graph = onnx.helper.make_graph(
        [node], "g", [value("x", 1, [1, 4])], [value("y", 1, [1, 4])], [shape]
    )
    with pytest.raises(DataError, match="no layer to quantise"):
        damages(onnx.helper.make_model(graph), {"x": np.zeros((1, 4), np.float32)}, {})


class Page(HTMLParser):
    """Collects what a page loads from elsewhere, and its bars."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.bars = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.loads += [value for key, value in attrs if key in ("src", "href")]
        self.bars += [float(dict(attrs)["height"])] if tag == "rect" else []


def test_a_file_gives_a_table_and_a_page_that_loads_nothing(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(1).normal(size=(40, 8)).astype(np.float32))
    asked = Source(str(network(tmp_path / "net.onnx")), tmp_path / "x.npy")
    out = tmp_path / "deep" / "page.html"
    facts = sensitivity(asked, out, store=tmp_path / "store")
    assert facts["calibrated"] == 30 and facts["judged"] == 10
    text = out.read_text()
    page = Page(text)
    assert not page.loads
    kinds = [kind for kind in ("weights", "activations") for row in facts["layers"] if kind in row]
    assert len(page.bars) == len(kinds) and all(0 <= bar <= 230 for bar in page.bars)
    for row in facts["layers"]:
        assert re.search(rf"{row['name']}.*{row['activations']['sqnr_db']:.1f}", text)
    with pytest.raises(UsageError, match="a folder is there"):
        sensitivity(asked, tmp_path, store=tmp_path / "store")


def test_a_bundle_brings_its_own_samples(tmp_path):
    bundle = bundles.write(tmp_path / "small").path
    for place in (bundle, bundle.with_name("small.zip")):
        facts = sensitivity(Source(str(place), place), store=tmp_path / "store")
        assert [row["op"] for row in facts["layers"]] in (["MatMul"], ["Gemm"])
        assert facts["judged"] == bundles.SAMPLES


def test_a_bundle_of_integers_is_refused(tmp_path):
    value = bundles.manifest()
    value["artefact"] |= {"precision": "int8"}
    bundle = bundles.write_bundle(value, bundles.files(), tmp_path / "small").path
    with pytest.raises(UsageError, match="wanted an ONNX file in float32"):
        sensitivity(Source(str(bundle), bundle), store=tmp_path / "store")
