import numpy as np
import pytest
import torch

from edgekd.agent.loops.battery import Plant, bill, decide
from edgekd.errors import RecipeError
from edgekd.tasks.battery import data as battery_data
from edgekd.tasks.battery.data import battery
from edgekd.tasks.battery.plan import _interpolate
from edgekd.tasks.battery.regret import WIDTH, regret


@pytest.fixture(scope="module")
def data(homes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(battery_data, "load_homes", lambda path, **more: homes)
        battery_data._battery.cache_clear()
        made = battery(
            capacity=4, power=2, horizon=12, window=6, supervised=3, expert="perfect", labels="cost"
        )
    yield made
    battery_data._battery.cache_clear()


def test_labels_hold_the_costs_of_every_action(data):
    labels = data.train.labels
    assert labels.shape == (len(data.train), 3, 33 + WIDTH)
    met = battery_data.rollout(
        model=lambda w: np.zeros((len(w), 1)), data=data, round=1, seed=0, share=0.1
    )
    assert met.labels.shape[1:] == labels.shape[1:] and (met.labels[..., -1] == 1).all()


def test_the_loss_is_what_the_simulators_physics_say(data):
    """Recomputed in numpy with the controller's own `decide` and the planner's interpolation."""
    rows = data.train.labels.reshape(-1, 33 + WIDTH).astype(np.float64)
    rows = rows[rows[:, -1] == 1][:500]
    output = np.random.default_rng(0).uniform(-1, 1, len(rows))
    soe, net, price, feed_in, capacity, power, charge, discharge, standby = rows[:, 33:-2].T
    plant = Plant(capacity, power, charge, discharge, standby, soe)

    def cost(wanted):
        action, _ = decide(plant, net, wanted)
        after = soe + np.where(action > 0, action * charge, action / discharge)
        later = _interpolate(rows[:, :33], (after / capacity * 32)[:, None])[:, 0]
        return bill(net + action + standby, price, feed_in) + later

    lost = cost(output) - cost(rows[:, -2])
    assert (lost > -1e-6).all()  # nothing beats the planner's action
    labels = torch.from_numpy(rows)[:, None]
    got = regret(torch.from_numpy(output)[:, None], labels, tie=0, leak=0)
    assert float(got) == pytest.approx(lost.mean(), abs=1e-6) and lost.mean() > 0.01
    goal = torch.from_numpy(rows[:, -2:-1])
    assert float(regret(goal, labels, tie=0, leak=0)) == pytest.approx(0, abs=1e-9)


def test_a_step_along_the_gradient_costs_less(data):
    labels = torch.from_numpy(data.train.labels[:64])
    output = torch.zeros(64, 3, requires_grad=True)
    loss = regret(output, labels)
    loss.backward()
    assert output.grad is not None and output.grad.abs().sum() > 0
    better = output.detach() - 0.05 * output.grad / output.grad.abs().max()
    assert float(regret(better, labels)) < float(loss.detach())


def test_less_is_asked_for_by_action(data):
    labels = torch.from_numpy(data.train.labels).flatten(0, 1)
    labels = labels[labels[..., -1] == 0][None]
    assert labels.numel() > 0
    assert float(regret(labels[..., -2], labels)) == 0
    assert float(regret(labels[..., -2] + 0.1, labels)) == pytest.approx(0.09, rel=1e-3)


def test_the_recipe_teaches_costs_to_teacher_control_and_student_alike():
    from pathlib import Path

    from edgekd.discover import load_recipe
    from edgekd.steps import shared

    path = Path(__file__).parents[3] / "recipes" / "decision_transformer.py"
    asked = load_recipe(path, {})
    assert asked.data.args["labels"] == "cost"
    steps = {step.name: step.spec for step in shared(asked)}
    for name in ("teacher", "control", "distill"):
        assert steps[name]["objective"]["terms"][0]["divergence"].endswith("regret:regret")
    with pytest.raises(RecipeError, match="control learns"):
        load_recipe(path, {"objective": "kd", "learn": "cost"})
