"""The gate from bundles to exit codes, on made-up rounds; one test measures for real."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from edgekd.bench import baseline, history, recorded
from edgekd.bench import gate as module
from edgekd.bench.gate import _distinct, gate
from edgekd.bench.measure import Settings, opened, rounds
from edgekd.bench.side_by_side import compare, page
from edgekd.errors import SetupError, UsageError, VerifyError
from tests.bench import made


def verdicts(outcome):
    return {check["name"]: check["verdict"] for check in outcome["checks"]}


def test_unchanged_bundles_pass(bundle, measured, tmp_path):
    calls = measured()
    outcome = gate(bundle("new"), bundle("old"), seed=5, out=tmp_path / "r.jsonl")
    assert verdicts(outcome) == {
        "size": "ok",
        "task metric": "ok",
        "latency": "ok",
        "memory": "ok",
        "energy": "not run: energy not measured",
    }
    assert (outcome["exit_code"], outcome["verdict"]) == (0, "passed")
    assert outcome["pairs"][0]["rounds"] in (11, 15, 20)
    assert outcome["rule"]["family"] == 3
    (before, after), settings, seed = calls[0]
    assert (before.label, after.label, seed) == ("baseline/0", "candidate/0", 5)
    assert (settings.threads, settings.warmup) == (1, 20)
    assert before.main != after.main
    lines = history.read(tmp_path / "r.jsonl")
    assert len(lines) == 2 * outcome["pairs"][0]["rounds"]
    assert [line["side"] for line in lines[:2]] == ["baseline", "candidate"]
    json.dumps(outcome, allow_nan=False)


def test_a_slower_bundle_fails_with_3(bundle, measured):
    measured(1.05)
    outcome = gate(bundle("new"), bundle("old"))
    assert verdicts(outcome)["latency"] == "regressed"
    assert outcome["exit_code"] == 3
    assert outcome["verdict"] == "failed: mobilevit-cpu latency"


def test_manifests_decide_size_and_metric(bundle, measured):
    measured()

    def worse(manifest):
        manifest["artefact"]["bytes"] = round(manifest["artefact"]["bytes"] * 1.1)
        row = next(row for row in manifest["rows"] if row["shipped"])
        row["metrics"][row["primary"]]["value"] -= 0.02

    outcome = gate(bundle("new", worse), bundle("old"))
    assert verdicts(outcome)["size"] == "regressed"
    assert verdicts(outcome)["task metric"] == "regressed"
    back = gate(bundle("old2"), bundle("new2", worse))
    assert verdicts(back)["size"] == verdicts(back)["task metric"] == "improved"


def test_a_metric_of_which_less_is_better(bundle, measured):
    measured()

    def cost(value):
        def change(manifest):
            manifest["higher_is_better"] = False
            row = next(row for row in manifest["rows"] if row["shipped"])
            row["metrics"][row["primary"]] = {"value": value, "low": None, "high": None, "n": 9}

        return change

    outcome = gate(bundle("new", cost(1.2)), bundle("old", cost(1.0)))
    assert verdicts(outcome)["task metric"] == "regressed"


def test_a_metric_on_other_data_is_not_compared(bundle, measured):
    measured()

    def other(manifest):
        manifest["inputs"]["data"]["digest"] = "0" * 64

    outcome = gate(bundle("new", other), bundle("old"))
    assert verdicts(outcome)["task metric"] == "not comparable: scored on other data"
    assert outcome["exit_code"] == 4


def test_the_targets_limits_are_budgets(bundle, measured):
    measured(base=2.0, wall_noise=0.0)

    def limits(manifest):
        manifest["target"]["limits"] = {
            "latency_p50_ms": 1.0,
            "latency_p99_ms": 50,
            "peak_memory_mib": 59,
            "size_mib": 2,
            "energy_mj": 3,
            "metric_drop": 0.01,
        }

    found = verdicts(gate(bundle("new", limits), bundle("old")))
    assert {name: v for name, v in found.items() if name.startswith("budget")} == {
        "budget latency_p50_ms": "over budget",
        "budget latency_p99_ms": "ok",
        "budget peak_memory_mib": "over budget",
        "budget size_mib": "ok",
        "budget energy_mj": "not run: energy not measured",
    }


def test_energy_is_gated_where_the_board_has_a_sensor(bundle, measured):
    measured(1.0, energy=4.0)

    def limit(value):
        def change(manifest):
            manifest["target"]["limits"] = {"energy_mj": value}

        return change

    outcome = gate(bundle("same", limit(3.0)), bundle("old"))
    assert verdicts(outcome)["energy"] == "ok"
    assert verdicts(outcome)["budget energy_mj"] == "over budget"
    assert outcome["rule"]["family"] == 4
    check = next(check for check in outcome["checks"] if check["name"] == "energy")
    assert check["candidate"] == pytest.approx(4.0, rel=0.02)
    assert (check["unit"], check["decided_by"]) == ("mJ", "energy above idle")
    measured(1.0, energy=4.0, hungrier=1.05)
    outcome = gate(bundle("hungry", limit(5.0)), bundle("older"))
    assert verdicts(outcome)["energy"] == "regressed"
    assert verdicts(outcome)["latency"] == verdicts(outcome)["budget energy_mj"] == "ok"
    assert outcome["exit_code"] == 3


def test_one_round_without_energy_leaves_it_out(bundle, monkeypatch):
    """As when the samples of the power had a gap: nothing is claimed of the other rounds."""
    made_up = made.rounds(energy=4.0)
    gap = made.process(energy={"not_run": "a gap of 2.0 s"})
    monkeypatch.setattr(
        module,
        "rounds",
        lambda *_: itertools.chain(itertools.islice(made_up, 3), [[gap, gap]], made_up),
    )
    outcome = gate(bundle("new"), bundle("old"))
    assert verdicts(outcome)["energy"] == "not run: a gap of 2.0 s"
    assert (outcome["rule"]["family"], outcome["exit_code"]) == (3, 0)


def test_a_job_of_several_bundles_has_one_family(bundle, measured):
    measured()
    outcome = gate([bundle("a"), bundle("b")], [bundle("c"), bundle("d")])
    assert outcome["rule"]["family"] == 6
    names = {check["bundle"] for check in outcome["checks"]}
    assert len(names) == 2
    with pytest.raises(UsageError, match="2 bundles and 1 baselines"):
        gate([bundle("e"), bundle("f")], bundle("g"))


def test_bundles_of_one_name_are_told_apart_without_a_path():
    taken: set[str] = set()
    for place in ("/a/one", "/a/two", "/b/two", "/c/two"):
        taken.add(_distinct("net-cpu", Path(place), taken))
    assert taken == {"net-cpu", "net-cpu (two)", "net-cpu (two, 2)", "net-cpu (two, 3)"}


def test_a_board_that_is_missing_is_not_a_slow_model(bundle, monkeypatch):
    def gone(*_, **__):
        raise SetupError("ssh: no route to host")

    monkeypatch.setattr(module, "rounds", gone)
    outcome = gate(bundle("new"), bundle("old"))
    assert verdicts(outcome)["latency"] == verdicts(outcome)["memory"] == "not run: no device"
    assert verdicts(outcome)["size"] == "ok"
    assert outcome["exit_code"] == 4
    assert outcome["checks"][2]["why"] == "ssh: no route to host"


@pytest.mark.needs("ssh", install="apt-get install openssh-client")
def test_a_board_that_cannot_be_reached_is_no_pass(bundle, monkeypatch):
    monkeypatch.setenv("EDGEKD_SSH", "ssh -o ConnectTimeout=2")
    outcome = gate(bundle("new"), bundle("old"), on="ssh:board.invalid")
    assert verdicts(outcome)["latency"] == verdicts(outcome)["memory"] == "not run: no device"
    assert outcome["exit_code"] == 4
    assert "board.invalid" in outcome["board"]["not_run"]


@pytest.mark.needs("ssh", install="apt-get install openssh-client")
def test_a_core_of_another_machine_is_not_pinned(bundle):
    with (
        opened({"one": bundle("one")}) as found,
        pytest.raises(UsageError, match="only this machine's cores"),
    ):
        next(rounds([found["one"][1]], Settings(pin=0, on="ssh:board.invalid"), 0))


# --- accepting -----------------------------------------------------------------------------------


def test_a_baseline_is_moved_with_a_reason_and_pinned(bundle, measured, tmp_path):
    measured(1.05)
    pointer = tmp_path / "baseline.json"
    with pytest.raises(UsageError, match="cannot read the baseline"):
        gate(bundle("old"), pointer)
    first = gate(bundle("old"), pointer, accept="the first one")
    assert first["verdict"] == "accepted as the first baseline"
    assert gate(bundle("new"), pointer)["exit_code"] == 3
    moved = gate(bundle("new"), pointer, accept="a better teacher costs 5 %")
    assert (moved["exit_code"], moved["accepted"]) == (0, "a better teacher costs 5 %")
    value = json.loads(pointer.read_text())
    assert value["bundle"] == "new"
    assert [entry["reason"] for entry in value["accepted"]] == [
        "the first one",
        "a better teacher costs 5 %",
    ]
    assert value["accepted"][1]["previous"] == value["accepted"][0]["digest"]
    assert {"name": "latency", "verdict": "regressed"} in value["accepted"][1]["checks"]
    assert baseline.resolve(pointer) == tmp_path / "new"


def test_a_bundle_in_the_place_of_the_accepted_one_is_refused(bundle, measured, tmp_path):
    measured()
    pointer = tmp_path / "baseline.json"
    gate(bundle("old"), pointer, accept="first")
    value = json.loads(pointer.read_text())
    pointer.write_text(json.dumps({**value, "digest": "0" * 64}))
    with pytest.raises(VerifyError, match="was accepted with digest 0000"):
        gate(bundle("new"), pointer)


def test_nothing_is_accepted_without_reason_or_measurement(bundle, measured, tmp_path):
    measured(kernel_ms=2.0)
    pointer = tmp_path / "baseline.json"
    with pytest.raises(UsageError, match="without a reason"):
        gate(bundle("old"), pointer, accept="  ")
    with pytest.raises(UsageError, match="--baseline is a bundle"):
        gate(bundle("old"), bundle("older"), accept="why not")
    gate(bundle("old"), pointer, accept="first")
    before = pointer.read_text()
    with pytest.raises(SetupError, match="nothing is accepted that was not measured"):
        gate(bundle("new"), pointer, accept="hm")
    assert pointer.read_text() == before


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema": 9, "bundle": "b", "digest": "d", "accepted": []}']
)
def test_a_damaged_baseline_file_is_named(text, tmp_path):
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(UsageError) as error:
        baseline.resolve(tmp_path / "b.json")
    assert error.value.at == str(tmp_path / "b.json")


# --- recorded ------------------------------------------------------------------------------------


def results(bundle, measured, tmp_path, name, **options):
    measured(**options)
    path = tmp_path / f"{name}.jsonl"
    target = tmp_path / "b"
    if not target.exists():
        bundle("b")
    gate(target, target, out=path)
    return path


def test_results_of_two_days_are_compared_only_when_asked(bundle, measured, tmp_path):
    """The machine is 5 % slower today, kernel included: no alarm; the artefact 8 %: alarm."""
    quiet = {"wall_noise": 0.001, "noise": 0.003}
    old = results(bundle, measured, tmp_path, "old", base=1.4, **quiet)
    day = results(
        bundle, measured, tmp_path, "day", base=1.4 * 1.05, kernel_ms=0.84, seed=1, **quiet
    )
    slow = results(bundle, measured, tmp_path, "slow", factor=1.08, seed=2, **quiet)
    outcome = gate(day, old)
    assert set(verdicts(outcome).values()) == {recorded.APART}
    assert outcome["exit_code"] == 4
    outcome = gate(day, old, allow_recorded=True)
    assert outcome["exit_code"] == 0, verdicts(outcome)
    outcome = gate(slow, old, allow_recorded=True)
    assert verdicts(outcome)["latency (processor time)"] == "regressed"
    assert outcome["exit_code"] == 3


def test_energy_of_two_days_is_compared_as_it_is(bundle, measured, tmp_path):
    """A slower clock changes times; millijoules are not divided by the kernel's time."""
    old = results(bundle, measured, tmp_path, "old", energy=4.0)
    new = results(bundle, measured, tmp_path, "new", energy=4.0, hungrier=1.1, seed=1)
    bare = results(bundle, measured, tmp_path, "bare", seed=2)
    outcome = gate(new, old, allow_recorded=True)
    check = next(check for check in outcome["checks"] if check["name"] == "energy")
    assert (check["verdict"], check["unit"]) == ("regressed", "mJ")
    assert check["shift"]["energy"]["value"] == pytest.approx(0.1, abs=0.02)
    assert "energy" not in verdicts(gate(bare, old, allow_recorded=True))
    compared = compare(old, new)
    rows = {row["name"].rpartition(": ")[2]: row for row in compared["rows"]}
    assert rows["measured energy above idle"]["unit"] == "mJ"
    assert "mobilevit-cpu: energy, a dot" in page(compared)


def test_results_of_machines_too_far_apart_are_not_compared(bundle, measured, tmp_path):
    old = results(bundle, measured, tmp_path, "old")
    far = results(bundle, measured, tmp_path, "far", kernel_ms=0.9)
    outcome = gate(far, old, allow_recorded=True)
    assert set(verdicts(outcome).values()) == {"not comparable: clocks differ"}
    other = results(bundle, measured, tmp_path, "other", kernel="another")
    outcome = gate(other, old, allow_recorded=True)
    assert set(verdicts(outcome).values()) == {"not comparable: another reference kernel"}


def test_results_without_a_process_or_a_common_bundle_are_refused(bundle, measured, tmp_path):
    old = results(bundle, measured, tmp_path, "old")
    (tmp_path / "none.jsonl").write_text('{"kind":"run"}\n')
    with pytest.raises(UsageError, match="no measured process"):
        gate(tmp_path / "none.jsonl", old)
    lines = [{**line, "bundle": "stranger"} for line in history.read(old)]
    history.append(tmp_path / "strange.jsonl", lines)
    with pytest.raises(UsageError, match="no bundle in common"):
        gate(tmp_path / "strange.jsonl", old)


# --- measured ------------------------------------------------------------------------------------


def test_a_round_measures_fresh_processes_in_alternating_blocks(bundle):
    path = bundle("b")
    settings = Settings(warmup=2, blocks=3, block_ms=1)
    with opened({"one": path, "two": path}) as both:
        contestants = [contestant for _, contestant in both.values()]
        measured = rounds(contestants, settings, seed=1)
        first, second = next(measured), next(measured)
    assert [p.label for p in first] == ["one", "two"]
    assert {p.round for p in second} == {1}
    assert {p.place for p in first} == {0, 1}
    for process in (*first, *second):
        assert len(process.cpu_ms) == len(process.wall_ms) == 3
        assert 0 < process.cpu_least_ms <= min(process.cpu_ms)
        assert process.inferences >= 3
        assert process.kernel_ms > 0
        assert process.timed_s < process.startup_s
        assert process.peak_rss_mib > process.rss_mib["start"]
        assert (process.energy_mj or 0) > 0 or "power sensor" in process.no_energy
        assert json.loads(json.dumps(process.plain()))["label"] == process.label


@pytest.mark.system
def test_the_command_line_end_to_end(bundle, tmp_path, capfd):
    """A real gate of a bundle against itself: measured, judged, written."""
    from edgekd.cli import run

    old, new = bundle("old"), bundle("new")
    files = ["--junit", str(tmp_path / "j.xml"), "--summary", str(tmp_path / "s.md")]
    files += ["--out", str(tmp_path / "r.jsonl"), "--history", str(tmp_path / "h")]
    code = run(["gate", str(new), "--baseline", str(old), "--json", "--tolerance", "0.5", *files])
    outcome = json.loads(capfd.readouterr().out)
    assert code == 0, outcome
    assert verdicts(outcome)["latency"] == "ok"
    assert len(history.recall(tmp_path / "h")) == 1
    assert "edgekd gate: passed" in (tmp_path / "s.md").read_text()
    assert 'skipped="1"' in (tmp_path / "j.xml").read_text()
