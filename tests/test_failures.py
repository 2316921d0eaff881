"""A candidate that fails is rejected and named; the others go on. Nothing is trained here."""

import pytest

from edgekd import api, steps
from edgekd.backends.base import Candidate
from edgekd.discover import load_recipe, load_target
from edgekd.errors import RuntimeCrash, StageError
from edgekd.store import Entry

GOOD = Candidate("good", "onnxruntime", "onnxruntime", "fp32", "none")
BAD = Candidate("bad", "openvino", "other", "int8", "none")

SCORE = {
    "primary": "accuracy",
    "higher_is_better": True,
    "metrics": {"accuracy": {"value": 0.5}},
}
FACTS = {
    "fp32": "good",
    "reduced": None,
    "picked": "good",
    "bytes": 1,
    "latency": {"rss_mib": 1.0},
    "quick": {"cpu_ms": 1.0, "wall_ms": 1.0},
    **SCORE,
}


class Walk:
    """Steps succeed, but those of ``broken``."""

    def __init__(self, recipe, broken):
        self.recipe, self.broken, self.done, self.seen, self.events = recipe, broken, {}, [], []
        self.emit = self.events.append
        self.done["distill"] = Entry("", {"val": SCORE}, {}, 0.0)

    def has(self, step):
        return False

    def step(self, step):
        self.seen.append(step)
        if step.name in self.broken:
            raise RuntimeCrash("the runtime died: SIGSEGV")
        self.done[step.name] = Entry("", FACTS, {}, 0.0)
        return self.done[step.name]


@pytest.fixture
def walk():
    return lambda *broken: Walk(load_recipe("mobilevit", {}), broken)


def test_a_crash_rejects_one_candidate(walk):
    walked = walk("parity:bad")
    api._prove(walked, load_target("cpu-ort"), [BAD, GOOD], None, api._Device("", None))
    names = [step.name for step in walked.seen]
    assert "val:bad" not in names and "profile:bad" not in names
    assert "val:good" in names
    choice = next(step for step in walked.seen if step.name == "choose:cpu-ort")
    assert choice.spec["candidates"] == ["good"]
    assert choice.spec["failed"] == [
        {
            "candidate": "bad",
            "runtime": "other",
            "precision": "int8",
            "why": "parity: the runtime died: SIGSEGV",
        }
    ]
    assert not any("bad" in name for name in choice.inputs)
    (warning,) = [event for event in walked.events if event.kind == "warning"]
    assert "bad is rejected" in warning.text


def test_when_all_fail_the_run_fails_with_the_last_reason(walk):
    with pytest.raises(StageError, match="SIGSEGV"):
        api._prove(
            walk("build:bad", "val:good"),
            load_target("cpu-ort"),
            [BAD, GOOD],
            None,
            api._Device("", None),
        )


def test_a_failure_elsewhere_is_not_hidden(walk):
    with pytest.raises(StageError):
        api._prove(walk("export"), load_target("cpu-ort"), [BAD, GOOD], None, api._Device("", None))


def test_failed_candidates_are_part_of_the_key():
    recipe, target = load_recipe("mobilevit", {}), load_target("cpu-ort")
    (plain,) = steps.finished(recipe, target, [GOOD], None)
    (other,) = steps.finished(recipe, target, [GOOD, BAD], None, "", {"bad": "died"})
    assert plain.spec["failed"] == []
    assert plain.spec != other.spec
    assert plain.inputs == other.inputs
