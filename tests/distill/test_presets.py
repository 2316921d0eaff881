"""Presets: what a name means, what it needs, and that its parts meet the reference values."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgekd.cli import run
from edgekd.discover import load_recipe
from edgekd.distill import presets, terms
from edgekd.distill.presets import PAPERS, PRESETS, objective
from edgekd.errors import RecipeError, UsageError
from edgekd.spec import Term
from tests.distill.test_terms import FS, FT, FT3, GOLDEN, HS, HT, ZS, ZT, Y

DOCS = Path(__file__).parents[2] / "docs" / "methods.md"

# golden → preset, its sides, and what of the preset is another than the golden's
REFERENCE = {
    "CE(zs,y)": ("none", ZS, ZT, {}),
    "KD KL batchmean*T^2, T=4": ("kd", ZS, ZT, {}),
    "reverse KL(p_s to p_t) T=1": ("reverse-kl", ZS, ZT, {"temperature": 1.0}),
    "GKD generalized JSD beta=.5 T1 (TRL form)": ("jsd", ZS, ZT, {"temperature": 1.0}),
    "DKD alpha1 beta8 T4": ("dkd", ZS, ZT, {}),
    "LSKD z-score (unbiased std) T=2, *T^2": ("lskd", ZS, ZT, {}),
    "DIST tau1 inter1 intra1": ("dist", ZS, ZT, {}),
    "WSLD tau2": ("wsld", ZS, ZT, {}),
    "AT p=2 one stage (fs 3ch, ft 5ch)": ("at", FS, FT, {}),
    "NST one stage": ("nst", FS, FT, {}),
    "SP (fs,ft)": ("sp", FS, FT, {}),
    "PKT (hs,ht)": ("pkt", HS, HT, {}),
    "RKD dist25+angle50 (hs,ht)": ("rkd", HS, HT, {}),
    "CWD tau1 (fs,ft3)": ("cwd", FS, FT3, {}),
    "PKD Pearson (fs,ft3)": ("pkd", FS, FT3, {}),
    "FitNet MSE (fs,ft3)": ("fitnet", FS, FT3, {}),
}
WEIGHTS = {"KD KL batchmean*T^2, T=4": 0.9, "AT p=2 one stage (fs 3ch, ft 5ch)": 1000,
           "reverse KL(p_s to p_t) T=1": 0.9, "GKD generalized JSD beta=.5 T1 (TRL form)": 0.9,
           "LSKD z-score (unbiased std) T=2, *T^2": 9, "WSLD tau2": 2.5, "NST one stage": 50,
           "SP (fs,ft)": 3000, "PKT (hs,ht)": 30_000, "CWD tau1 (fs,ft3)": 10,
           "PKD Pearson (fs,ft3)": 6, "FitNet MSE (fs,ft3)": 100}  # fmt: skip
"""Weight of the reference value in the paper's objective; 1 for the others."""


def value(term, student, teacher):
    if not term.source:
        return terms.against_label(term, {"logits": student}, Y)
    return terms.compare(term, student, teacher, labels=Y)


@pytest.mark.parametrize("golden", REFERENCE)
def test_a_preset_has_the_reference_value_times_the_papers_weight(golden):
    name, student, teacher, changed = REFERENCE[golden]
    found = objective(name, **changed, offers=("logits", "features", "map"))
    parts = [t for t in found.terms if t.source] or found.terms
    total = sum(t.weight * float(value(t, student, teacher)) for t in parts)
    assert total == pytest.approx(WEIGHTS.get(golden, 1) * GOLDEN[golden], rel=1e-6)


def test_the_parts_of_mlkd_meet_theirs():
    found = [t for t in PRESETS["mlkd"].terms if t.divergence == "gram_sum"]
    wanted = ("MLKD class-corr cc_loss T4", "MLKD batch-corr bc_loss T4")
    assert [float(value(t, ZS, ZT)) for t in found] == pytest.approx([GOLDEN[w] for w in wanted])
    assert sum(t.weight for t in PRESETS["mlkd"].terms if t.divergence == "kl") == 9


def test_verified_is_said_only_of_what_meets_a_reference():
    met = {name for name, *_ in REFERENCE.values()} | {"mlkd"}
    met |= {"feature"}  # the MSE of fitnet, on vectors
    assert {p.name for p in PRESETS.values() if p.fidelity == "verified"} == met


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_made_of_parts_that_exist(name):
    preset = PRESETS[name]
    for term in preset.terms:
        terms.check(term)
    asked = any(term.needs_teacher for term in preset.terms)
    assert asked == (preset.access != "none")
    inner = {t.tap for t in preset.terms if t.tap == "map"}
    assert inner <= set(preset.needs)
    assert preset.formula and preset.paper and preset.title


def test_a_preset_whose_taps_are_not_offered_is_refused_with_what_fits():
    with pytest.raises(RecipeError) as caught:
        objective("at", offers=("logits", "features"))
    assert caught.value.what == "objective 'at' compares map; here there are logits, features"
    assert "dkd" in caught.value.hint
    assert "fitnet" not in caught.value.hint
    with pytest.raises(RecipeError, match="did you mean 'dkd'"):
        objective("dkdd")
    with pytest.raises(UsageError, match="did you mean 'rkd'"):
        presets.methods("rkdd")


def test_a_recipes_own_come_first_and_changes_reach_the_teachers_terms_alone():
    mine = (Term("logits", "mse"),)
    assert objective("kd", own={"kd": mine}).terms == mine
    label, soft = objective("kd", temperature=2.0, weight=0.5).terms
    assert label.weight == 0.1
    assert (soft.weight, soft.args) == (0.45, {"temperature": 2.0})


def test_recipes_take_methods_by_name():
    assert load_recipe("mobilevit", {"objective": "crd"}).objective.name == "crd"
    assert load_recipe("mobilevit", {}).objective.name == "mse+kd"
    with pytest.raises(RecipeError, match="compares logits"):
        load_recipe("mobilevit", {"objective": "dkd", "teacher": "t.onnx"})
    with pytest.raises(RecipeError, match=r"did you mean 'ce\+mse'"):
        load_recipe("mobilevit", {"objective": "ce+mse2"})
    asked = {"objective": "lskd", "temperature": "3"}
    (_, soft) = load_recipe("classify", asked).objective.terms
    assert soft.args == {"temperature": 3.0}
    with pytest.raises(RecipeError, match="compares map"):
        load_recipe("classify", {"objective": "at", "teacher": "t.onnx"})
    with pytest.raises(RecipeError, match="compares towers"):
        load_recipe("classify", {"objective": "clipkd"})


@pytest.mark.parametrize("network", ["conv4:conv4", "resnet12:resnet12", "mobilevit:mobilevit"])
def test_the_networks_say_where_their_last_map_is(network):
    from edgekd.calls import invoke
    from edgekd.distill.student import Student
    from edgekd.spec import Call

    extra = {"variant": "tiny"} if "mobile" in network else {"maps": 4}
    net = invoke(Call(f"edgekd.models.{network}", {**extra, "classes": 3}), Path())
    x = torch.zeros(2, 3, 64, 64)
    taps = {"logits": (3,), "features": (net.features,), "map": (7, 4, 4)}
    found = Student(net, "logits", net.features, 3, objective("at"), taps, probe=x)(x)
    torch.testing.assert_close(found["map"].mean((2, 3)), found["features"])


def cells(heading):
    """Rows of the table under a heading of the page."""
    lines = DOCS.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in lines.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def listed(capsys, *arguments):
    assert run(["methods", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_page_says_what_the_command_says(capsys):
    found = listed(capsys, "--papers")
    assert cells("Papers") == [
        [str(p["number"]), p["title"], p["paper"], p["status"], p["how"], ", ".join(p["presets"])]
        for p in found
    ]
    assert [p["number"] for p in found] == list(range(1, 23))
    assert cells("Methods") == [
        [p["name"], p["formula"], p["paper"], p["fidelity"], p["access"],
         ", ".join(p["needs"]), p["note"]]
        for p in listed(capsys)
    ]  # fmt: skip


def test_papers_name_presets_that_exist():
    assert {name for p in PAPERS for name in p.presets} <= set(PRESETS)
    assert all(p.presets for p in PAPERS if p.status == "preset")
    out = {p.number for p in PAPERS if p.status == "out of reach"}
    assert {7, 9, 21} <= out


def test_the_command_shows_one(capsys):
    (shown,) = listed(capsys, "rkd")
    assert [t["weight"] for t in shown["terms"]] == [1.0, 25.0, 50.0]
    assert run(["methods", "gpd"]) == 0
    text = capsys.readouterr().out
    assert "gate='gap'" in text
    assert "reconstruction" in text
    assert run(["methods"]) == 0
    assert len(capsys.readouterr().out.splitlines()) > len(PRESETS)
    assert run(["methods", "--papers"]) == 0
    assert capsys.readouterr().out.count("(arXiv ") == 22
    assert run(["methods", "kd", "--papers"]) == 2
    capsys.readouterr()


def test_terms_are_written_as_in_a_recipe():
    from edgekd.cli.methods import _term

    for preset in PRESETS.values():
        for term in preset.terms:
            assert eval(_term(term), {"Term": Term}) == replace(term, ramp=term.ramp)
