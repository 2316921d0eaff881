"""Stage 1 and stage 2 as tasks: is the flight faulty, and with what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import DataError
from edgekd.events import Emit, silent
from edgekd.tasks.base import Model, Score, State, chunks, interval, labels_of, outputs_of
from edgekd.tasks.faults import cascade, explain, metrics, trees

__all__ = ["Detection", "Identification", "detection", "identification"]

RESAMPLES = 200
TREES = 100
COMPANIONS = {"cascade.py": Path(cascade.__file__), "explain.py": Path(explain.__file__)}
TRIVIAL = "extra trees on window statistics"


def detection(*, recall: float = 0.9) -> Detection:
    """Build the task of stage 1.

    Args:
        recall: Share of the faulty flights that must be found; the threshold is the highest that
            does so on validation data.

    Raises:
        DataError: It is no share.
    """
    if not 0 < recall <= 1:
        raise DataError(f"recall is a share in (0, 1], got {recall:g}", at="setting: recall")
    return Detection(recall)


def identification() -> Identification:
    """Build the task of stage 2."""
    return Identification()


@dataclass(frozen=True)
class Detection:
    """Faulty or healthy, at a threshold chosen for a recall."""

    recall: float

    def fit(self, model: Model, data: Any) -> State:
        """Temperature and threshold from validation data; normalisation and names of the data."""
        logits, labels = outputs_of(model, data.val).astype(np.float64), labels_of(data.val)
        _check(labels, 2, "val")
        warmth = metrics.temperature(logits, labels)
        chances = shares(logits, warmth)[:, 1]
        threshold = metrics.threshold_for(chances, labels, self.recall)
        return {
            "temperature": np.array([warmth]),
            "threshold": np.array([threshold]),
            **described(data.train),
        }

    def score(
        self, model: Model, data: Any, split: str, state: State, emit: Emit = silent
    ) -> Score:
        """AUC, and what the threshold makes of it."""
        dataset = getattr(data, split)
        logits, labels = outputs_of(model, dataset).astype(np.float64), labels_of(dataset)
        _check(labels, 2, split)
        chances = shares(logits, float(state["temperature"][0]))
        found = chances[:, 1] >= float(state["threshold"][0])
        at_half = (chances[:, 1] >= 0.5).astype(np.int64)
        units = {
            "AUC": metrics.auc(chances[:, 1], labels),
            "accuracy": (at_half == labels).astype(np.float64),
            "F1": metrics.f1(at_half > 0, labels),
            f"recall (wanted {self.recall:.0%})": metrics.recall(found, labels),
            "F1 at that recall": metrics.f1(found, labels),
            "MCWPM": metrics.mcwpm(found, labels),
        }
        rows = {name: spread(values, dataset) for name, values in units.items()}
        rows["ECE"] = _resampled(chances, labels)
        details = {"classes": ["healthy", "faulty"], "confusion": confusion(found, labels, 2)}
        return Score(rows, "AUC", True, units, details)

    def companions(self) -> Mapping[str, Path]:
        """The driver of both stages, and occlusion."""
        return COMPANIONS

    def contract(self, state: State) -> Mapping[str, Any]:
        """What a device does around the network."""
        return contract(state)

    def trivial(self, data: Any) -> tuple[str, Model]:
        """Extremely randomised trees."""
        return TRIVIAL, forest(data)


@dataclass(frozen=True)
class Identification:
    """Which fault a faulty flight has."""

    def fit(self, model: Model, data: Any) -> State:
        """Temperature from validation data; normalisation and names of the data."""
        logits, labels = outputs_of(model, data.val).astype(np.float64), labels_of(data.val)
        return {
            "temperature": np.array([metrics.temperature(logits, labels)]),
            **described(data.train),
        }

    def score(
        self, model: Model, data: Any, split: str, state: State, emit: Emit = silent
    ) -> Score:
        """Accuracy and macro-F1 over the faulty flights."""
        dataset = getattr(data, split)
        logits, labels = outputs_of(model, dataset).astype(np.float64), labels_of(dataset)
        chances = shares(logits, float(state["temperature"][0]))
        named, classes = chances.argmax(1), logits.shape[1]
        _check(labels, classes, split)
        units = {
            "macro F1": metrics.macro_f1(named, labels, classes),
            "accuracy": (named == labels).astype(np.float64),
        }
        rows = {name: spread(values, dataset) for name, values in units.items()}
        rows["ECE"] = _resampled(chances, labels)
        details = {
            "classes": [str(name) for name in state["classes"]],
            "confusion": confusion(named, labels, classes),
        }
        return Score(rows, "macro F1", True, units, details)

    def companions(self) -> Mapping[str, Path]:
        """The driver of both stages, and occlusion."""
        return COMPANIONS

    def contract(self, state: State) -> Mapping[str, Any]:
        """What a device does around the network."""
        return contract(state)

    def trivial(self, data: Any) -> tuple[str, Model]:
        """Extremely randomised trees."""
        return TRIVIAL, forest(data)


def spread(values: NDArray[np.float64], dataset: Any) -> dict[str, float]:
    """Mean with its 95 % interval, clustered by airframe where the data know it.

    ``n`` then counts airframes.
    """
    groups = getattr(dataset, "groups", None)
    return interval(values) if groups is None else metrics.clustered(values, groups)


def shares(logits: NDArray[np.float64], warmth: float) -> NDArray[np.float64]:
    """Softmax of logits over a temperature: (flights, classes)."""
    scaled = logits / warmth
    powers = np.exp(scaled - scaled.max(1, keepdims=True))
    result: NDArray[np.float64] = powers / powers.sum(1, keepdims=True)
    return result


def confusion(named: NDArray[Any], labels: NDArray[np.int64], classes: int) -> list[list[int]]:
    """Counts: a row a true class, a column a named one."""
    cells = labels * classes + named.astype(np.int64)
    counts: list[list[int]] = (
        np.bincount(cells, minlength=classes * classes).reshape(classes, classes).tolist()
    )
    return counts


def forest(data: Any) -> Model:
    """Extremely randomised trees on window statistics, as a network that returns log shares."""
    known = np.concatenate([trees.window_statistics(part) for part in chunks(data.train)])
    grown = trees.grow(known, labels_of(data.train), trees=TREES)

    def model(raw: NDArray[Any]) -> NDArray[Any]:
        return np.log(grown.shares(trees.window_statistics(raw)) + 1e-3)

    return model


def contract(state: State) -> Mapping[str, Any]:
    """What a device does around the network, for any language; ``cascade.py`` is it in numpy.

    Returns:
        ``seconds``: how many of a flight's last ones are looked at, at 1 Hz, pooled to the
        network's length by means of what is there, ``rounded`` to; ``clip``: deviations at which
        (value − mean) / std is cut, an absent value being 0; ``channels`` with ``mean`` and
        ``std``; ``temperature`` of the softmax over ``classes``; ``threshold`` of the chance of
        the last class from which on stage 1 flags a flight.
    """
    threshold = state.get("threshold")
    return {
        "seconds": cascade.SECONDS,
        "shortest": cascade.SHORTEST,
        "rounded": "float16",
        "clip": cascade.CLIP,
        "channels": [
            {"name": str(name), "mean": float(mean), "std": float(std)}
            for name, mean, std in zip(state["channels"], state["mean"], state["std"], strict=True)
        ],
        "classes": [str(name) for name in state["classes"]],
        "temperature": float(state["temperature"][0]),
        **({} if threshold is None else {"threshold": float(threshold[0])}),
    }


def described(train: Any) -> Mapping[str, NDArray[Any]]:
    """What the device must do to a raw flight before the network sees it."""
    return {
        "mean": np.asarray(train.mean, np.float32),
        "std": np.asarray(train.std, np.float32),
        "channels": np.array(train.names),
        "classes": np.array(train.classes),
    }


def _resampled(chances: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, float]:
    """Calibration error with a bootstrap interval over the flights (percentile, seeded)."""
    rng = np.random.default_rng(0)
    draws = (rng.integers(0, len(labels), len(labels)) for _ in range(RESAMPLES))
    values = [metrics.calibration_error(chances[rows], labels[rows]) for rows in draws]
    low, high = np.percentile(values, [2.5, 97.5])
    value = metrics.calibration_error(chances, labels)
    return {"value": value, "low": float(low), "high": float(high), "n": len(labels)}


def _check(labels: NDArray[np.int64], classes: int, split: str) -> None:
    """Refuse labels that the network cannot name, and a detection without both classes.

    Raises:
        DataError: An unknown class, or one class alone.
    """
    if labels.max(initial=0) >= classes:
        raise DataError(
            f"class {int(labels.max())} is unknown to the network, which names {classes}",
            at=f"split {split}",
            hint="train with all classes that may occur",
        )
    if classes == 2 and len(np.unique(labels)) < 2:
        raise DataError("detection needs healthy and faulty flights", at=f"split {split}")
