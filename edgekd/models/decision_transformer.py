"""A Decision Transformer (arXiv 2106.01345) written to export to any runtime.

Differences from the paper's, each for a device: attention by explicit products with a finite
mask; a learned position a slot of the window instead of a table of absolute times, so that an
episode never ends and no integer goes in; floats of one shape, (window, features), of which the
first is the action of the step before, the second the return to go, the rest the state; ReLU.
The action of a step is read from its state token, which sees everything before it.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

MASKED = -1e4
"""Added to forbidden attention scores: finite, so that 8 and 16 bits keep it."""
TOKENS = 3
"""Tokens a step: action of the step before, return to go, state."""


def decision_transformer(
    *,
    features: int,
    window: int,
    width: int = 32,
    depth: int = 1,
    heads: int = 2,
    hidden: int = 0,
    answers: int = 1,
    limit: float = 1.0,
) -> DecisionTransformer:
    """Build a Decision Transformer.

    Args:
        features: Numbers a step.
        window: Steps that it sees.
        width: Width of a token.
        depth: Layers.
        heads: Attention heads; divides ``width``.
        hidden: Width of the feed-forward part; 0 for four times ``width``.
        answers: For how many of the newest steps it returns the action in training; what ships
            returns the newest alone.
        limit: Largest action.
    """
    return DecisionTransformer(
        features, window, width, depth, heads, hidden or 4 * width, answers, limit
    )


class DecisionTransformer(nn.Module):
    """Pre-norm transformer over (action before, return to go, state) of each step."""

    def __init__(
        self,
        features: int,
        window: int,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        answers: int,
        limit: float,
    ) -> None:
        super().__init__()
        self.window, self.answers, self.limit = window, answers, limit
        self.action, self.to_go = nn.Linear(1, width), nn.Linear(1, width)
        self.state = nn.Linear(features - 2, width)
        self.place = nn.Parameter(torch.randn(window, 1, width) * 0.02)
        self.enter = nn.LayerNorm(width)
        self.layers = nn.ModuleList(Layer(width, heads, hidden, window) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.answer = nn.Linear(width, 1)

    def ships(self) -> nn.Module:
        """What is exported: the same network, answering for the newest step alone."""
        return Newest(self)

    def tokens(self, x: Tensor) -> Tensor:
        """(batch, window, features) → (batch, window · 3, width)."""
        action, to_go, state = x[..., 0:1], x[..., 1:2], x[..., 2:]
        parts = (self.action(action), self.to_go(to_go), self.state(state))
        steps = torch.stack(parts, 2) + self.place
        flat: Tensor = self.enter(steps.flatten(1, 2))
        return flat

    def forward(self, x: Tensor) -> Tensor:
        """(batch, window, features) → (batch, answers), the newest last."""
        y = self.tokens(x)
        for layer in self.layers:
            y = layer(y, 0)
        states = y[:, TOKENS - 1 :: TOKENS][:, -self.answers :]
        return self.act(states).squeeze(-1)

    def act(self, states: Tensor) -> Tensor:
        """State tokens (…, width) → actions (…, 1)."""
        actions: Tensor = self.answer(self.norm(states)).tanh() * self.limit
        return actions


class Newest(nn.Module):
    """A Decision Transformer whose last layer computes the newest token alone."""

    def __init__(self, whole: DecisionTransformer) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, x: Tensor) -> Tensor:
        """(batch, window, features) → (batch, 1)."""
        y = self.whole.tokens(x)
        layers = list(self.whole.layers)
        for layer in layers[:-1]:
            y = layer(y, 0)
        y = layers[-1](y, TOKENS * self.whole.window - 1)
        return self.whole.act(y[:, -1])


class Layer(nn.Module):
    """Causal self-attention and a ReLU feed-forward part, each after a norm."""

    def __init__(self, width: int, heads: int, hidden: int, window: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.project = nn.Linear(width, width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
        length = TOKENS * window
        mask = torch.full((length, length), MASKED).triu(1)
        self.mask: Tensor
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor, first: int) -> Tensor:
        """(batch, tokens, width) → (batch, tokens − first, width): the tokens from ``first`` on."""
        seen = self.norm1(x)
        asking = seen[:, first:]
        q, k, v = (
            self._split(f(y))
            for f, y in ((self.query, asking), (self.key, seen), (self.value, seen))
        )
        scores = q * self.scale @ k.transpose(-2, -1) + self.mask[first:]
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        y = x[:, first:] + self.project(mixed)
        out: Tensor = y + self.mlp(self.norm2(y))
        return out

    def _split(self, x: Tensor) -> Tensor:
        """(batch, tokens, width) → (batch, heads, tokens, width / heads)."""
        return x.reshape(-1, x.shape[1], self.heads, x.shape[2] // self.heads).transpose(1, 2)


def policy_mlp(
    *, features: int, width: int = 64, depth: int = 2, answers: int = 1, limit: float = 1.0
) -> PolicyMlp:
    """Build the plain control: the newest step's numbers through a small ReLU network.

    Args:
        features: Numbers a step.
        width: Of the hidden layers.
        depth: How many.
        answers: As of `decision_transformer`; every step is answered from itself alone.
        limit: Largest action.
    """
    return PolicyMlp(features, width, depth, answers, limit)


class PolicyMlp(nn.Module):
    """The same information as a Decision Transformer's newest step, and no memory."""

    def __init__(self, features: int, width: int, depth: int, answers: int, limit: float) -> None:
        super().__init__()
        self.answers, self.limit = answers, limit
        sizes = (features, *(width,) * depth)
        layers = [
            part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())
        ]
        self.body = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))

    def ships(self) -> nn.Module:
        """What is exported: the newest step alone."""
        return PolicyNewest(self)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, window, features) → (batch, answers)."""
        actions: Tensor = self.body(x[:, -self.answers :]).tanh().squeeze(-1) * self.limit
        return actions


class PolicyNewest(nn.Module):
    """A policy that answers for the newest step."""

    def __init__(self, whole: PolicyMlp) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, x: Tensor) -> Tensor:
        """(batch, window, features) → (batch, 1)."""
        actions: Tensor = self.whole.body(x[:, -1]).tanh() * self.whole.limit
        return actions
