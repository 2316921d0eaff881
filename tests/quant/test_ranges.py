"""Ranges: against slow twins in numpy, in a stream, and folded input scales."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.errors import StageError, UsageError
from edgekd.inputs import open_rows, save_arrays
from edgekd.quant import ranges
from edgekd.quant.fold import fold_input_scales
from edgekd.quant.ranges import ESTIMATORS, Tally, load_ranges, measure_ranges, save_ranges

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def tally(values):
    made = Tally()
    for part in np.array_split(values, 3):
        made.widen(part)
    for part in np.array_split(values, 3):
        made.count(part)
    return made


@pytest.fixture
def heavy():
    """A normal distribution and a far outlier."""
    rng = np.random.default_rng(0)
    return np.append(rng.normal(size=50_000), [60.0]).astype(np.float32)


def test_extremes(heavy):
    assert ESTIMATORS["minmax"](tally(heavy)) == (float(heavy.min()), 60.0)


def test_percentile_is_that_of_the_values(heavy):
    low, high = ESTIMATORS["percentile"](tally(heavy))
    wanted = np.percentile(heavy, [0.005, 99.995])
    bin_ = (heavy.max() - heavy.min()) / 2048
    np.testing.assert_allclose([low, high], wanted, atol=3 * bin_)


def error(values, low, high):
    step = (high - low) / 255
    rounded = np.round((np.clip(values, low, high) - low) / step) * step + low
    return float(((rounded - values) ** 2).mean())


def test_mse_beats_the_extremes_and_comes_near_the_best():
    values = np.random.default_rng(1).standard_t(3, 200_000).astype(np.float32)
    found = tally(values)
    low, high = ESTIMATORS["mse"](found)
    grid = [
        (found.low * a, found.high * b)
        for a in np.linspace(0.05, 1, 25)
        for b in np.linspace(0.05, 1, 25)
    ]
    best = min(error(values, *span) for span in grid)
    assert error(values, low, high) < error(values, found.low, found.high)
    assert error(values, low, high) < 1.3 * best


def test_entropy_clips_an_outlier_and_keeps_a_uniform_whole(heavy):
    assert ESTIMATORS["entropy"](tally(heavy))[1] < 30
    even = np.linspace(-1, 1, 100_001, dtype=np.float32)
    low, high = ESTIMATORS["entropy"](tally(even))
    assert low < -0.9 and high > 0.9


def product(path, weights):
    value = onnx.helper.make_tensor_value_info
    nodes = [
        onnx.helper.make_node("MatMul", ["input", "w"], ["h"], "first"),
        onnx.helper.make_node("Relu", ["h"], ["output"], "second"),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "net",
        [value("input", onnx.TensorProto.FLOAT, ["batch", weights.shape[0]])],
        [value("output", onnx.TensorProto.FLOAT, ["batch", weights.shape[1]])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9
    )
    onnx.save(model, path)
    return model


@pytest.fixture
def net(tmp_path):
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(4, 6)).astype(np.float32)
    samples = rng.normal(size=(70, 4)).astype(np.float32) * [100, 1, 10, 0.01]
    model = product(tmp_path / "m.onnx", weights)
    return tmp_path / "m.onnx", model, weights, samples.astype(np.float32)


def test_every_tensor_of_a_graph(net, tmp_path):
    path, _, weights, samples = net
    found = measure_ranges(path, {"input": samples})
    hidden = samples @ weights
    assert set(found) == set(ESTIMATORS)
    assert set(found["minmax"]) == {"input", "h", "output"}
    np.testing.assert_allclose(found["minmax"]["h"], (hidden.min(), hidden.max()), rtol=1e-5)
    assert found["minmax"]["output"][0] == 0
    for spans in found.values():
        assert all(low <= 0 <= high for low, high in spans.values())
    save_ranges(found, tmp_path / "r.json")
    assert load_ranges(tmp_path / "r.json") == found


def test_the_stream_does_not_change_the_result(net, monkeypatch):
    path, _, _, samples = net
    whole = measure_ranges(path, {"input": samples})
    monkeypatch.setattr(ranges, "BATCH_BYTES", 1)
    assert measure_ranges(path, {"input": samples}) == whole


def test_samples_in_a_file_are_those_in_memory(net, tmp_path):
    path, model, _, samples = net
    save_arrays(tmp_path / "s.npz", {"input": samples})
    stored = open_rows(tmp_path / "s.npz")
    assert measure_ranges(path, stored) == measure_ranges(path, {"input": samples})
    twin = onnx.ModelProto.FromString(model.SerializeToString())
    assert fold_input_scales(model, stored) == fold_input_scales(twin, {"input": samples})
    assert model == twin


def test_bad_requests(net):
    path, _, _, samples = net
    with pytest.raises(UsageError, match="no range estimator 'mimmax'"):
        measure_ranges(path, {"input": samples}, ["mimmax"])
    with pytest.raises(StageError, match="does not run on the calibration samples"):
        measure_ranges(path, {"input": samples[:, :3]})
    samples[3, 0] = np.inf
    with pytest.raises(StageError, match="infinite or NaN"):
        measure_ranges(path, {"input": samples})


def run(model, samples):
    import onnxruntime as ort

    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": samples})[0]


def test_folding_scales_changes_no_output(net):
    _, model, _, samples = net
    wanted = run(model, samples)
    facts = fold_input_scales(model, {"input": samples})["input"]
    assert facts["folded"] and facts["spread"] > 1000
    assert all(np.log2(scale).is_integer() for scale in map(float, facts["scales"]))
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(run(model, samples), wanted, rtol=1e-5, atol=1e-5)
    scaled = samples / np.asarray(facts["scales"], np.float32)
    assert 0.5 < np.abs(scaled).max(0).min() <= np.abs(scaled).max() <= 1


def test_alike_features_and_foreign_readers_are_left_alone(net):
    _, model, _, samples = net
    even = np.ones_like(samples)
    assert "differ by 1 only" in fold_input_scales(model, {"input": even})["input"]["why"]
    model.graph.node.append(onnx.helper.make_node("Neg", ["input"], ["n"]))
    facts = fold_input_scales(model, {"input": samples})["input"]
    assert not facts["folded"] and "MatMul, Neg" in facts["why"]
    assert len(model.graph.node) == 3
