from __future__ import annotations

import numpy as np
import pytest

from edgekd.errors import StageError
from edgekd.tasks.enroll import Enroller


@pytest.fixture
def enrolled(exported, prepared, run_onnx):
    features = run_onnx(exported[0], prepared)
    enroller = Enroller(features.mean(0))
    for number in range(4):
        enroller.enroll(f"class {number}", features[number * 5 : number * 5 + 5])
    return enroller, features


def test_baked_head_is_the_rule_of_the_device(tmp_path, exported, enrolled, prepared, run_onnx):
    from edgekd.graph.head import bake_prototypes

    enroller, features = enrolled
    weight, bias = enroller.linear_head()
    bake_prototypes(exported[0], enroller.base_mean, weight, bias, tmp_path / "head.onnx")
    scores = run_onnx(tmp_path / "head.onnx", prepared)
    np.testing.assert_allclose(
        scores, enroller.prepare(features) @ weight.T + bias, rtol=0, atol=1e-5
    )
    names = [enroller.names[index] for index in scores.argmax(1)]
    assert names == enroller.classify(features)


def test_features_equal_to_the_base_mean_are_finite(tmp_path, exported, prepared, run_onnx):
    from edgekd.graph.head import bake_prototypes

    mean = run_onnx(exported[0], prepared[:1])[0]
    weight, bias = np.ones((3, 64), np.float32), np.zeros(3, np.float32)
    bake_prototypes(exported[0], mean, weight, bias, tmp_path / "head.onnx")
    assert np.isfinite(run_onnx(tmp_path / "head.onnx", prepared[:1])).all()


def test_head_of_another_width(tmp_path, exported):
    from edgekd.graph.head import bake_prototypes

    with pytest.raises(StageError, match="does not fit 64 features"):
        bake_prototypes(
            exported[0], np.zeros(64), np.zeros((3, 65)), np.zeros(3), tmp_path / "head.onnx"
        )
