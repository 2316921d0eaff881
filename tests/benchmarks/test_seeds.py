"""Intervals over seeds, units and groups of units."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import seeds
from edgekd import steps
from edgekd.discover import load_recipe, load_target
from edgekd.errors import StageError, UsageError


def test_groups_that_differ_make_the_interval_wider():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(10), 100)
    shift = rng.normal(0, 0.2, 10)[groups]
    values = [0.05 + shift + rng.normal(0, 0.1, 1000) for _ in range(3)]
    units, alike = seeds.over_both(values), seeds.over_both(values, groups)
    assert units["value"] == pytest.approx(alike["value"])
    wide = alike["high"] - alike["low"]
    assert wide > 3 * (units["high"] - units["low"])
    mean = 0.2 / 10**0.5
    assert 2 * mean < wide < 6 * mean


def test_single_units_are_groups_of_one():
    values = np.random.default_rng(1).normal(size=(3, 40))
    assert seeds.over_both(list(values)) == seeds.over_both(list(values), np.arange(40))


def test_the_summary_names_how_many_groups_there_are():
    rng = np.random.default_rng(2)
    groups = np.repeat([4, 7, 9], 5)

    def run():
        d = rng.normal(size=15)
        row = {"AUC": float(d.mean())}
        return {
            "metrics": {"control": row},
            "pairs": {"control − trivial": {"AUC": {"value": row["AUC"], "low": -1, "high": 1}}},
            "differences": {"control − trivial": d},
            "groups": groups,
        }

    runs = {0: run(), 1: run()}
    found = seeds.summary(runs)
    assert found["groups"]["count"] == 3
    told = {str(s): {k: r[k] for k in ("metrics", "pairs")} for s, r in runs.items()}
    page = seeds.text({"primary": "AUC", "runs": told, "summary": found})
    assert "95 % over seeds and 3 groups" in page


def test_no_artefact_waits_for_a_training_that_is_not_walked():
    recipe, target = load_recipe("mobilevit", {}), load_target("cpu-ort")
    chosen = seeds.artefacts(recipe, target)
    made = {step.name for step in (*steps.shared(recipe), steps.exported(recipe, target))}
    for step in steps.built(recipe, target, chosen):
        assert set(step.inputs.values()) <= made
        made.add(step.name)
    assert {"fp32", "int8"} <= {c.precision for c in chosen}


def test_what_makes_nothing_of_the_network_is_left_out_by_name(capsys):
    recipe, target = load_recipe("mobilevit", {}), load_target("cpu")
    chosen = seeds.artefacts(recipe, target)
    built = {step.name: step for step in steps.built(recipe, target, chosen)}
    first = next(c.same_as for c in chosen if c.same_as)
    walked = []

    def walk(step):
        if step.name == f"build:{first}":
            raise StageError(f"{first} quantises no operator of this network")
        walked.append(step.name)

    made = seeds.buildable(chosen, built, walk)
    lost = {c.id for c in chosen if first in (c.id, c.same_as)}
    assert set(made) == {c.id for c in chosen} - lost
    assert "calibrate" in walked and not any(f":{name}" in step for step in walked for name in lost)
    assert f"left out: {first}: {first} quantises no operator" in capsys.readouterr().err


def test_a_share_is_of_what_validation_data_find_better():
    def judged(value):
        return {"val": {"higher_is_better": True, "metrics": {"F1": {"value": value}}}}

    walk = SimpleNamespace(
        done={
            "teacher": SimpleNamespace(facts=judged(0.8)),
            "control": SimpleNamespace(facts=judged(0.7)),
        }
    )
    units = {
        "teacher": {"F1": np.array([0.4, 0.6])},
        "control": {"F1": np.array([0.9, 0.9])},
        "distill": {"F1": np.array([0.5, 0.4])},
    }
    found = seeds._shares(walk, units, ["distill"], "F1")
    (values,) = found.values()
    assert values.mean() == pytest.approx(0.45 / 0.5)
    assert list(found) == ["distill of the better's F1"]


def test_a_candidate_that_is_not_there_is_named():
    recipe, target = load_recipe("mobilevit", {}), load_target("cpu-ort")
    assert [c.id for c in seeds.artefacts(recipe, target, ["ort-int8"])] == ["ort-int8"]
    with pytest.raises(UsageError, match="no candidate 'ort-int9'"):
        seeds.artefacts(recipe, target, ["ort-int9"])


def test_folds_are_joined_over_their_units_and_groups():
    def part(values, group):
        return {
            "primary": "AUC",
            "metrics": {"control": {"AUC": values[0]}},
            "differences": {"control − trivial": np.array(values)},
            "groups": np.full(len(values), group),
        }

    found = seeds.joined([part([0.2, 0.4], 0), part([0.6, 0.8, 0.5], 1)])
    assert found["metrics"]["control"]["AUC"] == pytest.approx(0.4)
    assert found["pairs"]["control − trivial"]["AUC"]["value"] == pytest.approx(0.5)
    assert found["groups"].tolist() == [0, 0, 1, 1, 1]
    assert [row["control − trivial"] for row in found["folds"]] == pytest.approx([0.3, 1.9 / 3])
    both = seeds.summary({0: found, 1: found})
    assert both["groups"]["count"] == 2 and both["both"]["control − trivial"]["n"] == 10
