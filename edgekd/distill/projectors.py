"""Parts that fit the student's shape to the teacher's; thrown away after training."""

from __future__ import annotations

from torch import Tensor, nn

from edgekd.errors import RecipeError

Shape = tuple[int, ...]


def projector(kind: str, student: Shape, teacher: Shape) -> nn.Module:
    """Make a projector.

    Args:
        kind: ``linear``, ``mlp`` or ``conv``.
        student: Shape of one sample of the student's tap.
        teacher: Of the teacher's.

    Raises:
        RecipeError: A convolution for vectors, or a linear map for maps.
    """
    maps = len(student) > 1
    if maps != (kind == "conv"):
        raise RecipeError(
            f"project={kind!r} cannot map a tap of shape {student}",
            at="recipe: objective",
            hint="'conv' for maps, 'linear' or 'mlp' for vectors, transform 'pool' before",
        )
    if kind == "conv":
        return Conv(student[0], teacher[0])
    if kind == "linear":
        return nn.Linear(student[0], teacher[0], bias=False)
    middle = max(student[0], teacher[0])
    return nn.Sequential(nn.Linear(student[0], middle), nn.ReLU(), nn.Linear(middle, teacher[0]))


class Conv(nn.Module):
    """A 1×1 convolution and batch norm over maps of any rank."""

    def __init__(self, channels: int, wanted: int) -> None:
        super().__init__()
        self.mix = nn.Linear(channels, wanted, bias=False)
        self.norm = nn.BatchNorm1d(wanted)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, …) → (batch, wanted, …)."""
        mixed = self.mix(x.flatten(2).transpose(1, 2)).transpose(1, 2)
        result: Tensor = self.norm(mixed).unflatten(2, x.shape[2:])
        return result
