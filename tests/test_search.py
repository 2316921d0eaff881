"""The search from candidates to the choice, on steps whose facts are given. Nothing is built."""

from __future__ import annotations

import pytest

from edgekd import search, steps
from edgekd.backends.base import Candidate
from edgekd.discover import load_recipe, load_target
from edgekd.errors import RuntimeCrash
from edgekd.search import Place
from edgekd.stages.shortlist import split
from edgekd.store import Entry

TARGET = "cpu"


def candidate(name, precision="int8", **rest):
    backend = rest.pop("backend", "onnxruntime")
    return Candidate(name, backend, backend, precision, "none", prepared=True, **rest)


def score(value):
    return {
        "primary": "accuracy",
        "higher_is_better": True,
        "metrics": {"accuracy": {"value": value}},
    }


class Walk:
    """A run whose candidates have (quick ms, dB, bytes, accuracy); the student has 0.8."""

    def __init__(self, **known):
        self.known, self.seen, self.events, self.broken = known, [], [], {}
        self.recipe, self.emit = load_recipe("mobilevit", {}), self.events.append
        self.done = {"distill": Entry("", {"val": score(0.8)}, {}, 0.0)}

    def facts(self, step):
        part, _, name = step.name.partition(":")
        if part == "shortlist":
            rows = [self.row(name) for name in step.spec["candidates"]]
            kept, dropped = split(rows, step.spec["verdicts"])
            return {"kept": [r["candidate"] for r in kept], "dropped": dropped}
        if name not in self.known:
            return {}
        quick, _, size, value = self.known[name]
        return {
            "build": {"bytes": size},
            "parity": {"quick": {"cpu_ms": quick, "wall_ms": quick}},
            "val": score(value),
            "profile": {"latency": {"rss_mib": 1.0}},
        }[part]

    def row(self, name):
        quick, sqnr, size, _ = self.known[name]
        precision = "fp32" if name == "float" else "int8"
        return {
            "candidate": name,
            "precision": precision,
            "quick_ms": quick,
            "sqnr_db": sqnr,
            "bytes": size,
            "status": "passed",
            "why": "",
        }

    def has(self, step):
        return False

    def step(self, step):
        self.seen.append(step)
        if step.name in self.broken:
            raise RuntimeCrash(self.broken[step.name])
        self.done[step.name] = Entry("", self.facts(step), {}, 0.0)
        return self.done[step.name]

    def names(self, part):
        return [s.name.partition(":")[2] for s in self.seen if s.name.startswith(f"{part}:")]

    @property
    def choice(self):
        return next(step for step in self.seen if step.name.startswith("choose"))


def run(walk, chosen, pick=None, place=None):
    search.search(walk, place or Place(load_target(TARGET)), chosen, pick)


def test_displaced_candidates_come_back_when_finalists_fail():
    walk = Walk(
        float=(10, 120, 4000, 0.8), a=(1, 30, 900, 0.1), b=(2, 29, 1000, 0.2), c=(3, 28, 1000, 0.8)
    )
    run(walk, [candidate("float", "fp32"), *map(candidate, "abc")])
    assert walk.names("build") == ["float", "a", "b", "c"]
    assert walk.names("val") == ["a", "float", "b", "c"]
    assert walk.names("shortlist") == [f"{TARGET}{n}" for n in ("", ":2", ":3", ":4")]
    assert walk.choice.spec["candidates"] == ["float", "a", "b", "c"]
    assert walk.choice.spec["failed"] == []


def test_what_is_not_needed_is_not_scored_and_says_so():
    walk = Walk(
        float=(10, 120, 4000, 0.8), a=(1, 30, 900, 0.8), b=(2, 29, 1000, 0.8), c=(3, 28, 1000, 0.8)
    )
    run(walk, [candidate("float", "fp32"), *map(candidate, "abc")])
    assert walk.names("val") == ["a", "float"]
    assert [row["candidate"] for row in walk.choice.spec["failed"]] == ["b", "c"]


def test_recovery_only_where_a_rejected_one_would_have_been_faster():
    spare = candidate("spare", backend="openvino", tier=2)
    known = {"float": (10, 120, 4000, 0.8), "spare": (2, 30, 900, 0.8)}
    chosen = [candidate("float", "fp32"), candidate("ov", backend="openvino"), spare]
    walk = Walk(**known, ov=(1, 20, 900, 0.1))
    run(walk, chosen)
    assert walk.names("val") == ["float", "ov", "spare"]
    walk = Walk(**known, ov=(11, 20, 900, 0.1))
    run(walk, chosen)
    assert walk.names("build") == ["float", "ov"]
    walk = Walk(**known, ov=(1, 20, 900, 0.8))
    run(walk, chosen)
    assert walk.names("build") == ["float", "ov"]


def test_a_named_pick_of_tier_two_is_tried():
    spare = candidate("spare", tier=2)
    walk = Walk(float=(10, 120, 4000, 0.8), spare=(2, 30, 900, 0.8))
    run(walk, [candidate("float", "fp32"), spare], "spare")
    assert walk.names("val") == ["float", "spare"]


def test_a_pick_changes_what_is_scored_by_nothing_but_itself():
    known = {
        "float": (10, 120, 4000, 0.8),
        "a": (1, 30, 900, 0.8),
        "b": (2, 29, 1000, 0.8),
        "c": (3, 28, 1000, 0.8),
    }
    chosen = [candidate("float", "fp32"), *map(candidate, "abc")]
    plain, scored, left_out = Walk(**known), Walk(**known), Walk(**known)
    for walk, pick in ((plain, None), (scored, "float"), (left_out, "c")):
        run(walk, chosen, pick)
    assert scored.seen[:-1] == plain.seen[:-1]
    assert scored.choice.spec == {**plain.choice.spec, "pick": "float"}
    names = [step.name for step in left_out.seen if step not in plain.seen]
    assert names == ["val:c", "profile:c", f"choose:{TARGET}"]
    assert [row["candidate"] for row in left_out.choice.spec["failed"]] == ["b"]


def test_whoever_shares_files_or_ranges_is_lost_with_them():
    chosen = [
        candidate("float", "fp32"),
        candidate("a"),
        candidate("a-too", same_as="a"),
    ]
    walk = Walk(float=(10, 120, 4000, 0.8))
    walk.broken["build:a"] = "the toolchain died"
    run(walk, chosen)
    assert walk.choice.spec["candidates"] == ["float"]
    reasons = {row["candidate"]: row["why"] for row in walk.choice.spec["failed"]}
    assert reasons == dict.fromkeys(("a", "a-too"), "build: the toolchain died")


def test_without_a_device_everything_is_scored():
    known = dict.fromkeys("abcde", (0, 20, 900, 0.8))
    walk = Walk(float=(0, 120, 4000, 0.8), **known)
    place = Place(load_target(TARGET), "no board")
    run(walk, [candidate("float", "fp32"), *map(candidate, "abcde")], place=place)
    assert walk.names("val") == ["float", *"abcde"]
    assert not walk.names("shortlist") and not walk.names("profile")


@pytest.mark.parametrize("bad", [0.1, 0.8])
def test_the_plan_of_a_finished_search_is_what_it_walked(bad):
    chosen = [
        candidate("float", "fp32"),
        *map(candidate, "abc"),
        candidate("spare", tier=2),
    ]
    walk = Walk(
        float=(10, 120, 4000, 0.8),
        a=(1, 30, 900, bad),
        b=(2, 29, 1000, 0.2),
        c=(3, 28, 1000, 0.8),
        spare=(1.5, 28, 1000, 0.8),
    )
    run(walk, chosen)

    def found(name):
        return walk.done[name].facts if name in walk.done else None

    planned = search.planned(walk.recipe, Place(load_target(TARGET)), chosen, None, found)
    assert [step.name for step in planned] == [step.name for step in walk.seen]


def test_the_plan_of_a_fresh_search_lists_all_of_the_first_tier():
    chosen = [candidate("float", "fp32"), *map(candidate, "abc"), candidate("spare", tier=2)]
    recipe = load_recipe("mobilevit", {})
    planned = search.planned(recipe, Place(load_target(TARGET)), chosen, None, lambda _name: None)
    names = [step.name for step in planned]
    assert [n for n in names if n.startswith("val:")] == ["val:float", "val:a", "val:b", "val:c"]
    assert names[-1] == f"choose:{TARGET}" and names[0] == "calibrate"
    assert len(names) == len(set(names))


def test_settings_of_quantisation_are_in_no_key_of_a_training():
    """A second search must train nothing."""
    recipe = load_recipe("mobilevit", {"preset": "smoke"})
    from dataclasses import replace

    other = replace(recipe, quantize=replace(recipe.quantize, search="exhaustive", samples=8))
    assert steps.shared(recipe) == steps.shared(other)


def test_a_student_learns_on_under_rounding_only_where_int8_misses():
    aware = candidate("int8-aware", tier=2, bits=8)
    chosen = [candidate("float", "fp32"), candidate("plain"), aware]
    known = {"float": (10, 120, 4000, 0.8), "int8-aware": (1, 25, 900, 0.8)}
    walk = Walk(**known, plain=(1, 20, 900, 0.1))
    run(walk, chosen)
    names = [step.name for step in walk.seen]
    places = [names.index(n) for n in ("val:plain", "aware", "export:aware", "calibrate:aware",
                                       "build:int8-aware", "val:int8-aware")]  # fmt: skip
    assert places == sorted(places)
    assert names.count("calibrate") == 1
    assert "int8-aware" in walk.choice.spec["candidates"]
    walk = Walk(**known, plain=(1, 20, 900, 0.8))
    run(walk, chosen)
    assert not any("aware" in step.name for step in walk.seen)
    walk = Walk(**known, plain=(1, 20, 900, 0.1))
    walk.broken["aware"] = "the loss is not finite"
    run(walk, chosen)
    (lost,) = (r for r in walk.choice.spec["failed"] if r["candidate"] == "int8-aware")
    assert lost["why"] == "aware: the loss is not finite"
