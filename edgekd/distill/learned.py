"""Divergences that have parameters or a memory of their own; thrown away after training.

A row is a class built from (student shape, teacher shape, labels of the training split) and the
term's arguments; called with (student, teacher, labels, indices) of a batch it gives one number.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shape = tuple[int, ...]


class ContrastiveMemory(nn.Module):
    """CRD: tell the teacher's embedding of a sample from those of other classes (1910.10699).

    Both sides are mapped to ``width`` and to unit length; h = exp(cos/τ)/Z is scored by noise
    contrastive estimation, −log h/(h + K/N) − Σ log (K/N)/(h' + K/N), against a memory of all
    samples, once for each side. Z is fixed by the first batch; memories move by ``momentum``.
    """

    ours: Tensor
    theirs: Tensor
    norm: Tensor
    classes: Tensor

    def __init__(
        self,
        student: Shape,
        teacher: Shape,
        labels: Tensor,
        width: float = 128,
        negatives: float = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
    ) -> None:
        super().__init__()
        size = int(width)
        self.student = nn.Linear(math.prod(student), size)
        self.teacher = nn.Linear(math.prod(teacher), size)
        self.negatives, self.temperature, self.momentum = int(negatives), temperature, momentum
        for name in ("ours", "theirs"):
            start = torch.rand(len(labels), size) * 2 - 1
            self.register_buffer(name, F.normalize(start, dim=1))
        self.register_buffer("norm", torch.full((2,), -1.0))
        goals = labels.is_floating_point()
        self.register_buffer("classes", torch.arange(len(labels)) if goals else labels.clone())

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        """indices: place of each sample in the data."""
        v = F.normalize(self.student(student.flatten(1)), dim=1)
        t = F.normalize(self.teacher(teacher.flatten(1)), dim=1)
        chosen = torch.cat((indices[:, None], self._others(indices)), 1)
        loss = self._score(v, self.theirs[chosen], 0) + self._score(t, self.ours[chosen], 1)
        self._remember(self.ours, v, indices)
        self._remember(self.theirs, t, indices)
        return loss

    def _others(self, indices: Tensor) -> Tensor:
        """Samples drawn among those of other classes (of a regression: among all others)."""
        chances = (self.classes[None] != self.classes[indices][:, None]).float()
        return torch.multinomial(chances, self.negatives, replacement=True)

    def _score(self, anchors: Tensor, found: Tensor, side: int) -> Tensor:
        h = torch.exp((found @ anchors[:, :, None]).squeeze(2) / self.temperature)
        if self.training and float(self.norm[side]) < 0:
            self.norm[side] = h.detach().mean() * len(self.classes)
        h = h / self.norm[side].abs()
        noise = self.negatives / len(self.classes)
        right = (h[:, 0] / (h[:, 0] + noise + 1e-7)).log()
        wrong = (noise / (h[:, 1:] + noise + 1e-7)).log()
        return -(right.sum() + wrong.sum()) / len(anchors)

    def _remember(self, memory: Tensor, values: Tensor, indices: Tensor) -> None:
        with torch.no_grad():
            mixed = self.momentum * memory[indices] + (1 - self.momentum) * values
            memory[indices] = F.normalize(mixed, dim=1)


class Denoised(nn.Module):
    """DiffKD: the student's features are noisy teacher features; clean them first (2305.15712).

    A small network learns to predict the noise in the teacher's features; five deterministic
    steps with it clean the student's, which are then compared by MSE. Vectors and maps.
    """

    levels: Tensor

    def __init__(
        self,
        student: Shape,
        teacher: Shape,
        labels: Tensor,
        steps: float = 5,
        training_steps: float = 1000,
    ) -> None:
        super().__init__()
        width = teacher[0]
        self.steps, self.total = int(steps), int(training_steps)
        self.map = nn.Linear(student[0], width)
        self.adapt = nn.Linear(width, 1)
        self.time = nn.Sequential(nn.Linear(32, width), nn.SiLU(), nn.Linear(width, width))
        middle = max(8, width // 2)
        self.noise = nn.Sequential(
            nn.Linear(width, middle),
            nn.SiLU(),
            nn.Linear(middle, middle),
            nn.SiLU(),
            nn.Linear(middle, width),
        )
        betas = torch.linspace(1e-4, 0.02, self.total, dtype=torch.float64)
        self.register_buffer("levels", (1 - betas).cumprod(0).float())

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        """student: (batch, channels, …); teacher: the same positions."""
        goal, own = (x.flatten(2).transpose(1, 2) if x.ndim > 2 else x[:, None] for x in
                     (teacher, student))  # fmt: skip
        return F.mse_loss(self._clean(self.map(own)), goal) + self._learn(goal)

    def _learn(self, goal: Tensor) -> Tensor:
        """Error of the predicted noise at random levels."""
        at = torch.randint(0, self.total, (len(goal),), device=goal.device)
        noise, level = torch.randn_like(goal), self.levels[at].to(goal.dtype)[:, None, None]
        mixed = level.sqrt() * goal + (1 - level).sqrt() * noise
        return F.mse_loss(self._predict(mixed, at), noise)

    def _clean(self, x: Tensor) -> Tensor:
        """Mix in as much noise as the student seems to lack, then take the steps back.

        They begin at half of the levels: at the last one the first step divides by 0.006, and the
        loss of an untrained denoiser drowns all others.
        """
        share = torch.sigmoid(self.adapt(x.mean(1, keepdim=True)))
        x = share * x + (1 - share) * torch.randn_like(x)
        places = torch.linspace(self.total // 2, 0, self.steps + 1).long().tolist()
        for here, after in itertools.pairwise(places):
            at = torch.full((len(x),), here, device=x.device)
            noise = self._predict(x, at)
            now, then = self.levels[here].to(x.dtype), self.levels[after].to(x.dtype)
            clean = (x - (1 - now).sqrt() * noise) / now.sqrt()
            x = then.sqrt() * clean + (1 - then).sqrt() * noise
        return x

    def _predict(self, x: Tensor, at: Tensor) -> Tensor:
        rates = torch.exp(torch.arange(16, device=x.device) * (-math.log(1e4) / 16))
        phase = at[:, None] * rates[None]
        when = self.time(torch.cat((phase.sin(), phase.cos()), 1).to(x.dtype))
        result: Tensor = self.noise(x + when[:, None])
        return result


class AttentiveRegions(nn.Module):
    """MEA of AMFD: strong places and channels count more (arXiv 2405.12944).

    S = HW·softmax(mean over channels of |F|/T), C = channels·softmax(mean over space of |F|/T);
    ``fg``·Σ S_t·C_t·(F_s − F_t)²/batch + ``attn``·(Σ|C_s − C_t| + Σ|S_s − S_t|)/batch +
    ``rela``·Σ(context(F_s) − context(F_t))²/batch. Without boxes the mask is 1 everywhere.
    """

    def __init__(
        self,
        student: Shape,
        teacher: Shape,
        labels: Tensor,
        fg: float = 1e-3,
        attn: float = 1e-3,
        rela: float = 5e-6,
        temperature: float = 0.5,
    ) -> None:
        super().__init__()
        self.fg, self.attn, self.rela, self.temperature = fg, attn, rela, temperature
        self.ours, self.theirs = Context(teacher[0]), Context(teacher[0])

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        """Both (batch, channels, height, width), of the same shape (project='conv')."""
        s, t = student.flatten(2), teacher.flatten(2)
        (space_s, channel_s), (space_t, channel_t) = self._strong(s), self._strong(t)
        weight = space_t[:, None] * channel_t[:, :, None]
        features = (weight * (s - t).pow(2)).sum()
        where = (channel_s - channel_t).abs().sum() + (space_s - space_t).abs().sum()
        context = (self.ours(s) - self.theirs(t)).pow(2).sum()
        total: Tensor = self.fg * features + self.attn * where + self.rela * context
        return total / len(s)

    def _strong(self, x: Tensor) -> tuple[Tensor, Tensor]:
        size = x.abs() / self.temperature
        space = x.shape[2] * size.mean(1).softmax(1)
        return space, x.shape[1] * size.mean(2).softmax(1)


class Context(nn.Module):
    """Global context of a map (batch, channels, positions), added to it; starts as identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        middle = max(1, channels // 2)
        self.look = nn.Linear(channels, 1)
        self.narrow, self.norm = nn.Linear(channels, middle), nn.LayerNorm(middle)
        self.widen = nn.Linear(middle, channels)
        nn.init.zeros_(self.widen.weight)
        nn.init.zeros_(self.widen.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the same shape."""
        places = x.transpose(1, 2)
        attention = self.look(places).softmax(1)
        context = (places * attention).sum(1)
        added: Tensor = self.widen(F.relu(self.norm(self.narrow(context))))
        whole: Tensor = x + added[:, :, None]
        return whole


LEARNED: Mapping[str, Callable[..., nn.Module]] = {
    "crd": ContrastiveMemory,
    "diffusion": Denoised,
    "mea": AttentiveRegions,
}
COUPLED = frozenset({"crd"})
"""Rows whose value for a sample depends on other samples (here: through the memory)."""
