"""The least that a network takes in 8 bits, against what its firmware takes."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from edgekd.errors import BudgetError
from edgekd.events import silent
from edgekd.graph.least import least
from edgekd.spec import Call, Input, Network, plain
from edgekd.stages.fits import fits


def test_weights_and_the_widest_layer_are_counted():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
        nn.Linear(8 * 4 * 4, 10),
    )  # fmt: skip
    found = least(model, (3, 4, 4))
    assert found.weights == {"0": 8 * 3 * 9, "4": 128 * 10}
    # The first layer reads the network's own input, the second what lies beside it.
    assert found.working == {"0": 48 + 128, "4": 48 + 128 + 10}
    assert (found.flash, found.ram) == (216 + 1280, 186)
    assert model.training


def test_shared_weights_count_once_and_what_does_not_ship_not_at_all():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(4, 4)
            self.two = nn.Linear(4, 4)
            self.two.weight = self.one.weight
            self.extra = nn.Linear(4, 1000)

        def ships(self):
            return nn.Sequential(self.one, self.two)

        def forward(self, x):
            return self.extra(self.two(self.one(x)))

    assert least(Twice(), (4,)).flash == 16


def asked(**limits):
    build = Call(
        "edgekd.models.decision_transformer:decision_transformer", {"features": 53, "window": 8}
    )
    return {
        "network": plain(Network(build)), "input": plain(Input((8, 53))), "seed": 0, "base": ".",
        "target": "mcu-m4", "flash_kib": 1024.0, "ram_kib": 192.0, **limits,
    }  # fmt: skip


def test_a_student_that_fits_is_let_through(tmp_path):
    facts = fits(asked(), {}, tmp_path, silent)
    # The library that edgekd writes of this network has 20,267 bytes of constants.
    assert 10_000 < facts["flash_bytes"] < 20_267
    assert facts["ram_bytes"] < 3_104 + 425


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"flash_kib": 4.0}, r"at least 1\d,\d{3} bytes of flash, target mcu-m4 has 4,096"),
        (
            {"ram_kib": 0.5},
            r"layer 'whole\..*take at least \d,\d{3} bytes of RAM, target mcu-m4 has 512",
        ),
    ],
)
def test_one_that_cannot_fit_is_refused_with_layer_size_and_remedy(limits, said, tmp_path):
    with pytest.raises(BudgetError, match=said) as caught:
        fits(asked(**limits), {}, tmp_path, silent)
    assert caught.value.exit_code == 3
    assert f"mcu.{next(iter(limits))}" in caught.value.at
    assert "student" in caught.value.hint or "window" in caught.value.hint
