from types import SimpleNamespace

import numpy as np
import pytest

from edgekd.errors import DataError
from edgekd.tasks.base import interval, paired
from edgekd.tasks.enroll import Enroller
from edgekd.tasks.fewshot import few_shot


class Points:
    """Ten classes of points around random centres."""

    def __init__(self, classes=10, each=20, noise=0.3, seed=0):
        rng = np.random.default_rng(seed)
        centres = rng.normal(size=(classes, 8))
        self.labels = np.repeat(np.arange(classes), each)
        self.x = (centres[self.labels] + noise * rng.normal(size=(classes * each, 8))).astype("f4")

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.labels[i]


def identity(x):
    return np.asarray(x)


def test_easy_classes_are_told_apart_and_noise_is_not():
    task = few_shot(episodes=200)
    scores = {}
    for noise in (0.1, 30.0):
        data = SimpleNamespace(train=Points(seed=1, noise=noise), test=Points(noise=noise))
        scores[noise] = task.score(identity, data, "test", task.fit(identity, data)).value
    assert scores[0.1] > 0.98
    assert scores[30.0] == pytest.approx(0.2, abs=0.05)


def test_episodes_equal_the_enroller_that_ships():
    data = SimpleNamespace(train=Points(seed=1), test=Points())
    task = few_shot(shots=(2,), episodes=20, query=3)
    state = task.fit(identity, data)
    units = task.score(identity, data, "test", state).units["5-way 2-shot"]
    slow = []
    for support, query in task._draw(data.test.labels, 2, "test"):
        for s, q in zip(support, query, strict=True):
            device = Enroller(state["base_mean"])
            for name, rows in enumerate(s):
                device.enroll(str(name), data.test.x[rows])
            right = [
                np.mean([got == str(name) for got in device.classify(data.test.x[rows])])
                for name, rows in enumerate(q)
            ]
            slow.append(np.mean(right))
    np.testing.assert_allclose(units, slow)


def test_the_same_episodes_for_every_network():
    data = SimpleNamespace(train=Points(seed=1), test=Points(noise=1.0))
    task = few_shot(episodes=50)
    runs = [task.score(identity, data, "test", task.fit(identity, data)).units for _ in range(2)]
    for name in runs[0]:
        np.testing.assert_array_equal(runs[0][name], runs[1][name])


def test_a_linear_head_is_the_nearest_mean():
    points = Points()
    device = Enroller(points.x.mean(0))
    for label in range(4):
        device.enroll(str(label), points.x[points.labels == label][:5])
    weight, bias = device.linear_head()
    logits = device.prepare(points.x) @ weight.T + bias
    assert [str(i) for i in logits.argmax(1)] == device.classify(points.x)


@pytest.mark.parametrize(("classes", "each", "text"), [(4, 20, "need 5"), (6, 8, "fewer than")])
def test_too_little_data_is_named(classes, each, text):
    data = SimpleNamespace(train=Points(), val=Points(classes, each))
    task = few_shot()
    with pytest.raises(DataError, match=text) as caught:
        task.score(identity, data, "val", task.fit(identity, data))
    assert "val" in str(caught.value)


def test_intervals():
    row = interval(np.array([0.0, 1.0] * 50))
    assert row["value"] == 0.5
    assert row["high"] - row["value"] == pytest.approx(1.96 * 0.5025 / 10, rel=1e-3)
    assert paired(np.ones(9), np.zeros(9))["low"] == 1.0
