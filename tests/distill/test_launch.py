"""A training in several processes that comes to no end says so as one in this process does."""

from __future__ import annotations

import json

import pytest

from edgekd.distill import launch
from edgekd.errors import StageError, TrainingError
from edgekd.events import silent


def diverges(spec, inputs, out, emit):
    raise TrainingError("the loss is not finite", hint="lower the learning rate")


def breaks(spec, inputs, out, emit):
    raise StageError("something else")


def as_one_process(stage):
    """Do in this process what torchrun would start, and fail as it does."""

    def follow(command, env, emit):
        job = command[-1]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RANK", "1")
            try:
                launch._work(launch.Path(job))
            except StageError as error:
                raise StageError("a training in several processes failed") from error

    return follow


@pytest.mark.parametrize(("stage", "kind"), [("diverges", TrainingError), ("breaks", StageError)])
def test_why_a_process_failed_is_told_by_its_kind(stage, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "_follow", as_one_process(stage))
    (tmp_path / launch.FAILED).write_text(json.dumps({"what": "of an earlier run", "hint": None}))
    with pytest.raises(StageError) as caught:
        launch.launch(f"{__name__}:{stage}", {}, {}, tmp_path, 2, silent)
    assert type(caught.value) is kind
    assert ("not finite" in caught.value.what) == (kind is TrainingError)
