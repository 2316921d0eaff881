"""Metrics against slow twins, the forest, and the two tasks on separable flights."""

from types import SimpleNamespace

import numpy as np
import pytest

from edgekd.errors import DataError
from edgekd.tasks.base import paired
from edgekd.tasks.faults import metrics, trees
from edgekd.tasks.faults.tasks import detection, identification, shares


@pytest.fixture
def judged():
    rng = np.random.default_rng(0)
    labels = (rng.random(400) < 0.4).astype(np.int64)
    return labels, np.round(rng.normal(labels, 1.3), 1)


def test_auc_is_the_share_of_pairs_in_order(judged):
    labels, scores = judged
    ill, well = scores[labels == 1], scores[labels == 0]
    slow = np.mean([(a > b) + 0.5 * (a == b) for a in ill for b in well])
    assert metrics.auc(scores, labels).mean() == pytest.approx(slow, abs=1e-12)


def test_auc_interval_has_the_variance_of_delong(judged):
    labels, scores = judged
    ill, well = scores[labels == 1], scores[labels == 0]
    order = (ill[:, None] > well) + 0.5 * (ill[:, None] == well)
    wanted = order.mean(1).var(ddof=1) / len(ill) + order.mean(0).var(ddof=1) / len(well)
    values = metrics.auc(scores, labels)
    assert values.var(ddof=1) / len(values) == pytest.approx(wanted, rel=0.01)


def test_ratios_equal_their_definitions(judged):
    labels, scores = judged
    found = scores > 0.5
    tp, fp = (found & (labels == 1)).sum(), (found & (labels == 0)).sum()
    fn = (~found & (labels == 1)).sum()
    assert metrics.recall(found, labels).mean() == pytest.approx(tp / (tp + fn))
    assert metrics.f1(found, labels).mean() == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert metrics.mcwpm(found, labels).mean() == pytest.approx(2 * tp / (2 * tp + 2.5 * fn + fp))


def test_f1_interval_agrees_with_the_bootstrap(judged):
    labels, scores = judged
    found = scores > 0.5
    values = metrics.f1(found, labels)
    rng = np.random.default_rng(1)
    draws = [rng.integers(0, 400, 400) for _ in range(800)]
    spread = np.std([metrics.f1(found[d], labels[d]).mean() for d in draws])
    assert values.std(ddof=1) / 20 == pytest.approx(spread, rel=0.12)


def test_macro_f1_is_the_mean_over_classes():
    labels, named = np.array([0, 0, 1, 1, 2, 2, 2]), np.array([0, 1, 1, 1, 0, 2, 2])
    assert metrics.macro_f1(named, labels, 3).mean() == pytest.approx((0.5 + 0.8 + 0.8) / 3)


def test_threshold_keeps_the_recall_and_no_higher_one_does(judged):
    labels, scores = judged
    for wanted in (0.5, 0.9, 0.95, 1.0):
        at = metrics.threshold_for(scores, labels, wanted)
        assert (scores[labels == 1] >= at).mean() >= wanted
        higher = scores[scores > at].min()
        assert (scores[labels == 1] >= higher).mean() < wanted


def test_an_interval_over_groups_is_that_of_their_means():
    rng = np.random.default_rng(0)
    means = rng.normal(0, 1, 8)
    groups = np.repeat(np.arange(8), 20)
    alike = np.repeat(means, 20)
    found = metrics.clustered(alike, groups)
    wanted = 2.365 * means.std(ddof=1) / 8**0.5
    assert found["value"] == pytest.approx(means.mean())
    assert found["high"] - found["value"] == pytest.approx(wanted, rel=1e-6)
    assert found["n"] == 8


def test_temperature_undoes_a_scaling():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, 3))
    labels = np.array([rng.choice(3, p=p) for p in shares(logits, 1.0)])
    assert metrics.temperature(logits * 5, labels) == pytest.approx(5, rel=0.1)


def test_calibration_error_of_a_boaster():
    sure, labels = np.tile([0.01, 0.99], (100, 1)), np.repeat([0, 1], 50)
    assert metrics.calibration_error(sure, labels) == pytest.approx(0.49)


def test_window_statistics_by_hand():
    flight = np.arange(16, dtype=np.float32).reshape(1, 2, 1, 8)
    found = trees.window_statistics(flight, windows=2)[0].reshape(4, 2, 2)
    assert found[0].tolist() == [[1.5, 5.5], [9.5, 13.5]]
    assert found[2].tolist() == [[0, 4], [8, 12]]
    assert found[3].tolist() == [[3, 7], [11, 15]]


def test_the_forest_is_as_good_as_scikit_learns():
    ensemble = pytest.importorskip("sklearn.ensemble")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1600, 20)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] + 0.8 * x[:, 2] + rng.normal(0, 0.7, 1600) > 0).astype(np.int64)
    ours = trees.grow(x[:600], y[:600], trees=60).shares(x[600:])[:, 1]
    theirs = ensemble.ExtraTreesClassifier(60, min_samples_leaf=3, random_state=0)
    wanted = theirs.fit(x[:600], y[:600]).predict_proba(x[600:])[:, 1]
    found, other = metrics.auc(ours, y[600:]), metrics.auc(wanted, y[600:])
    assert abs(found.mean() - other.mean()) < 0.03
    assert found.mean() > 0.7


def test_the_forest_is_the_same_for_a_seed():
    x, y = np.random.default_rng(1).normal(size=(80, 5)).astype(np.float32), np.arange(80) % 3
    first = trees.grow(x, y, trees=5, seed=4).shares(x)
    assert np.array_equal(first, trees.grow(x, y, trees=5, seed=4).shares(x))
    assert not np.array_equal(first, trees.grow(x, y, trees=5, seed=5).shares(x))
    assert np.allclose(first.sum(1), 1)


class Part:
    """Flights whose first channel is 1 when the second class holds."""

    names, mean, std = ("a", "b"), np.zeros(2, np.float32), np.ones(2, np.float32)

    def __init__(self, seed, classes, flights=160):
        rng = np.random.default_rng(seed)
        self.classes = tuple("abc"[:classes])
        self.labels = np.arange(flights) % classes
        self.x = rng.normal(0, 0.5, (flights, 2, 1, 16)).astype(np.float32)
        self.x[:, 0] += self.labels[:, None, None]

    def __len__(self):
        return len(self.labels)

    def take(self, indices):
        return self.x[indices]


def parts(classes):
    names = ("train", "val", "test")
    return SimpleNamespace(**{n: Part(i, classes) for i, n in enumerate(names)})


def level(raw):
    mean = raw[:, 0].mean((1, 2))
    return np.stack([-mean * 4 + 2, mean * 4 - 2], 1)


def test_detection_finds_what_was_asked_for():
    data, task = parts(2), detection(recall=0.9)
    state = task.fit(level, data)
    score = task.score(level, data, "test", state)
    assert score.primary == "AUC" and score.value > 0.95
    assert score.metrics["recall (wanted 90%)"]["value"] > 0.8
    assert sum(map(sum, score.details["confusion"])) == 160
    assert state["channels"].tolist() == ["a", "b"]
    for name, units in score.units.items():
        assert units.mean() == pytest.approx(score.metrics[name]["value"])
    assert paired(score.units["AUC"], score.units["AUC"])["value"] == 0


def test_intervals_are_over_airframes_where_they_are_known():
    data, task = parts(2), detection()
    plain = task.score(level, data, "test", task.fit(level, data)).metrics["accuracy"]
    data.test.groups = np.arange(160) // 16
    found = task.score(level, data, "test", task.fit(level, data)).metrics["accuracy"]
    assert found["value"] == plain["value"]
    assert (plain["n"], found["n"]) == (160, 10)
    units = task.score(level, data, "test", task.fit(level, data)).units["accuracy"]
    means = units.reshape(10, 16).mean(1)
    wanted = 2.262 * means.std(ddof=1) / 10**0.5
    assert found["high"] - found["value"] == pytest.approx(wanted)


def test_the_trivial_model_is_a_forest_on_training_data():
    data, task = parts(2), detection()
    label, model = task.trivial(data)
    assert "trees" in label
    assert task.score(model, data, "test", task.fit(model, data)).value > 0.9


def test_identification_scores_every_class():
    data, task = parts(3), identification()
    _, model = task.trivial(data)
    score = task.score(model, data, "test", task.fit(model, data))
    assert score.primary == "macro F1" and score.value > 0.6
    assert np.array(score.details["confusion"]).shape == (3, 3)
    assert score.details["classes"] == ["a", "b", "c"]


def test_bad_input_is_refused():
    with pytest.raises(DataError, match="share in"):
        detection(recall=1.5)
    data = parts(3)
    with pytest.raises(DataError, match="class 2 is unknown"):
        detection().fit(level, data)
    data = parts(2)
    data.val.labels = np.zeros_like(data.val.labels)
    with pytest.raises(DataError, match="healthy and faulty"):
        detection().fit(level, data)
