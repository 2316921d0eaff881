"""A toy of control: push a point towards zero. What recipes name by ``Call``."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from edgekd.data import Splits

CALLS = []


@dataclass
class States:
    """States (samples, 3) float32: position, speed, noise; labels (samples, 1): the best push."""

    x: np.ndarray
    labels: np.ndarray

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.labels[i]

    def take(self, indices):
        return self.x[indices]


def expert(x):
    return -0.8 * x[:, :1] - 0.5 * x[:, 1:2]


def states(*, seed=0, count=64, flat=False):
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(3):
        x = rng.normal(size=(count, 3)).astype(np.float32)
        labels = expert(x)
        parts.append(States(x, labels[:, 0] if flat else labels))
    return Splits(*parts, "", {})


def student(*, channels=3):
    return nn.Sequential(nn.Linear(channels, 8), nn.Tanh(), nn.Linear(8, 1))


def error(outputs, labels):
    return -((outputs - labels) ** 2).mean(1)


def rollout(*, model, data, round, seed):
    """Four steps from random starts; the student pushes, the expert says what was right."""
    CALLS.append((round, seed))
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(16, 3)).astype(np.float32)
    met = []
    for _ in range(4):
        met.append(x.copy())
        push = model(x)
        x = np.concatenate((x[:, :1] + 0.1 * x[:, 1:2], x[:, 1:2] + 0.1 * push, x[:, 2:]), 1)
        x = x.astype(np.float32)
    met = np.concatenate(met)
    return States(met, expert(met))


def unlabelled(*, model, data, round, seed):
    return data.train.x


def integers(*, model, data, round, seed):
    return States(data.train.x, np.zeros(len(data.train), np.int64))


class Seen(nn.Module):
    """Says what it was given."""

    def forward(self, x):
        return torch.flatten(x, 1)
