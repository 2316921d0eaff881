"""Scores of sensor groups, and what is chosen of them."""

import numpy as np
import pytest
import torch

from benchmarks import fusion
from edgekd.data.flight.channels import CHANNELS, GROUPS
from edgekd.models.inception import inception


def flights(count=400):
    """Flights whose oil pressure alone tells the class."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2
    x = rng.normal(size=(count, len(CHANNELS), 1, 16)).astype(np.float32)
    x[labels == 1, CHANNELS.index("E1 OilP")] += 2
    return x, labels


def test_information_of_a_copy_is_the_entropy_and_of_noise_nothing():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 20_000)
    assert fusion.information(labels + 0.0, labels) == pytest.approx(np.log(2), abs=2e-3)
    assert abs(fusion.information(rng.normal(size=20_000), labels)) < 1e-3


def test_the_sensor_that_tells_the_class_ranks_first():
    x, labels = flights()
    assert fusion.ranks(fusion.informations(x, labels))["oil pressure"] == 1
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(23 * 16, 2)).eval()
    with torch.no_grad():
        network[1].weight.zero_()
        place = CHANNELS.index("E1 OilP") * 16
        network[1].weight[1, place : place + 16] = 1
    found = fusion.sensitivities(network, x, labels)
    assert fusion.ranks(found)["oil pressure"] == 1 and found["rpm"] == 0


def test_gates_are_averaged_over_a_group():
    network = inception(channels=23, form="student", maps=4, gate=True).eval()
    x = flights(8)[0]
    values = network.gate.values(torch.from_numpy(x)).mean((0, 2, 3)).detach().numpy()
    heads = [CHANNELS.index(name) for name in GROUPS["cylinder heads"]]
    assert fusion.gates(network, x)["cylinder heads"] == pytest.approx(values[heads].mean())


def test_equal_rankings_agree_and_reversed_ones_oppose():
    one = {group: float(i) for i, group in enumerate(GROUPS)}
    assert fusion.agreement(one, {g: 2 * v for g, v in one.items()}) == 1
    assert fusion.agreement(one, {g: -v for g, v in one.items()}) == -1


def test_groups_fill_the_room_whole():
    order = [
        "exhaust gas",
        "cylinder heads",
        "volts",
        "fuel quantity",
        "amperes",
        "rpm",
        "altitude",
    ]
    chosen = fusion.fill(order, 9)
    assert chosen == ["exhaust gas", "cylinder heads", "rpm"]  # pairs no longer fit


def test_validation_has_the_last_word():
    loss = dict.fromkeys(GROUPS, 0.0) | {"volts": 0.1, "rpm": 0.2, "airspeed": 0.05}
    assert fusion.last_word(["volts", "altitude"], loss, 4) == ["volts", "rpm", "airspeed"]
    assert fusion.last_word(["volts", "altitude"], loss, 5)[-1] == "altitude"


def test_the_student_sees_what_was_chosen():
    recipe = fusion.seeing({}, ["E1 RPM", "volt1"])
    assert recipe.input.channels == (0, 9) and recipe.input.shape == (2, 1, 128)
    assert recipe.student.build.args["channels"] == 2
    assert fusion.gated({}).student.build.args["gate"] is True
