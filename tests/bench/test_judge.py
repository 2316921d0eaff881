"""Verdicts on made-up rounds: what is claimed, by whom, and how often wrongly."""

from __future__ import annotations

import pytest

from edgekd.bench import judge, stats
from edgekd.bench.judge import Check, Rule
from tests.bench import made

RULE = Rule()


def stopped(factor, family=3, **options):
    """Return the rounds after which a gate would have stopped."""
    every = made.pairs(RULE.rounds, factor, **options)
    for count in range(1, RULE.rounds + 1):
        if judge.settled(every[:count], RULE, family):
            return every[:count]
    raise AssertionError("the last look settles everything")


def verdicts(measured, processor=True):
    names = dict.fromkeys(measured, processor)
    return {(c.bundle, c.name): c for c in judge.judge(measured, RULE, names)}


@pytest.mark.parametrize(
    ("factor", "wanted"), [(1.0, "ok"), (1.05, "regressed"), (0.9, "improved")]
)
def test_a_change_is_named(factor, wanted):
    check = verdicts({"b": stopped(factor)})["b", "latency"]
    assert (check.verdict, check.decided_by) == (wanted, "processor time")
    assert check.shift["cpu"]["low"] < factor - 1 < check.shift["cpu"]["high"]
    assert set(check.shift) == {"cpu", "wall"}


def test_what_waits_without_computing_is_seen_by_wall_time():
    """Processor time is the same; every inference takes a tenth longer on a quiet board."""
    pairs = [
        (made.process(cpu=1.0 + 0.001 * n), made.process(cpu=1.0 + 0.001 * n, wall=1.1 + 0.001 * n))
        for n in range(20)
    ]
    check = verdicts({"b": pairs})["b", "latency"]
    assert (check.verdict, check.decided_by) == ("regressed", "wall time")


def test_on_an_accelerator_wall_time_speaks_first():
    pairs = made.pairs(20, wall_noise=0.3)
    on_cpu = verdicts({"b": pairs})["b", "latency"]
    elsewhere = verdicts({"b": pairs}, processor=False)["b", "latency"]
    assert (on_cpu.verdict, elsewhere.verdict) == ("ok", "within noise")
    assert elsewhere.decided_by == "wall time"
    assert not judge.settled(pairs[:11], RULE, 3, processor=False)


def test_memory_is_a_check_of_its_own():
    pairs = [
        (made.process(memory=60 + n / 100), made.process(memory=63 + n / 100)) for n in range(20)
    ]
    found = verdicts({"b": pairs})
    assert found["b", "memory"].verdict == "regressed"
    assert found["b", "memory"].decided_by == "peak resident memory"
    assert found["b", "latency"].verdict == "ok"


def test_a_difference_below_the_tolerance_is_not_claimed():
    """Half a per cent, seen beyond doubt, is no regression."""
    pairs = [(made.process(cpu=1.0), made.process(cpu=1.005 + 1e-4 * n)) for n in range(20)]
    check = verdicts({"b": pairs})["b", "latency"]
    assert check.shift["cpu"]["p_worse"] < 0.001
    assert check.verdict == "ok"


def test_noise_too_large_to_tell_is_said():
    check = verdicts({"b": made.pairs(20, 1.02, noise=0.2, seed=1)})["b", "latency"]
    assert check.verdict == "within noise"


def test_a_run_stops_early_when_all_is_clear_and_only_at_a_look():
    for factor in (1.0, 1.05):
        assert len(stopped(factor, noise=0.003)) == RULE.looks.rounds[0]
    assert len(stopped(1.0, noise=0.1)) == RULE.rounds
    assert not judge.settled(made.pairs(12, 1.5), RULE, 3)


def test_a_job_of_unchanged_bundles_raises_no_more_alarms_than_it_may():
    """100 jobs of one bundle and 15 of six, with the early stop; the exact test is the reason."""
    false = sum(
        judge.REGRESSED in {c.verdict for c in verdicts({"b": stopped(1.0, seed=s)}).values()}
        for s in range(100)
    )
    assert stats.binomial_interval(false, 100, 0.99)[0] <= RULE.alpha
    jobs = 0
    for seed in range(15):
        job = {str(n): stopped(1.0, 18, seed=1000 + 6 * seed + n) for n in range(6)}
        jobs += judge.REGRESSED in {c.verdict for c in verdicts(job).values()}
    assert stats.binomial_interval(jobs, 15, 0.99)[0] <= RULE.alpha


@pytest.mark.parametrize(("factor", "least"), [(1.03, 0.8), (1.05, 0.95)])
def test_slower_bundles_are_caught_as_often_as_promised(factor, least):
    caught = sum(
        verdicts({"b": stopped(factor, seed=s)})["b", "latency"].verdict == "regressed"
        for s in range(40)
    )
    assert stats.binomial_interval(caught, 40, 0.99)[1] >= least
    assert caught / 40 >= least - 0.05


def test_one_slow_bundle_of_six_is_the_one_that_is_named():
    job = {str(n): stopped(1.05 if n == 3 else 1.0, 18, seed=n) for n in range(6)}
    failed = {key for key, check in verdicts(job).items() if check.failed}
    assert failed == {("3", "latency")}


def test_a_machine_that_gets_slower_during_the_run_is_no_alarm():
    for seed in range(20):
        pairs = stopped(1.0, seed=seed, drift=0.2)
        assert verdicts({"b": pairs})["b", "latency"].verdict in ("ok", "within noise")


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"kernel_ms": 0.89}, "not comparable: clocks differ"),
        ({"kernel_ms": 0.70}, "not comparable: clocks differ"),
        ({"throttled": True}, "not comparable: the machine throttled"),
    ],
)
def test_sides_that_cannot_be_compared_are_not(changes, wanted):
    found = verdicts({"b": made.pairs(20, 1.5, **changes)})
    assert {check.verdict for check in found.values()} == {wanted}
    assert judge.exit_code(list(found.values())) == 4


def test_exit_codes():
    def check(verdict):
        return Check("b", "latency", verdict)

    assert judge.exit_code([check("ok"), check("improved"), check("within noise")]) == 0
    assert judge.exit_code([check("not run: no power sensor")]) == 0
    assert judge.exit_code([check("not run: no device"), check("ok")]) == 4
    assert judge.exit_code([check("not comparable: clocks differ"), check("regressed")]) == 3
    assert judge.exit_code([check("over budget")]) == 3
    assert judge.in_words([check("ok")]) == "passed"
    assert judge.in_words([check("regressed")]) == "failed: b latency"
    assert judge.in_words([check("not run: no device")]) == "not measured: b latency"


def test_energy_is_one_more_witness_where_every_round_has_it():
    weighed = made.pairs(11, energy=3.0, hungrier=1.2)
    assert judge.witnesses(weighed) == (*judge.WITNESSES, "energy")
    assert judge.witnesses([]) == judge.witnesses(made.pairs(3)) == judge.WITNESSES
    bare = made.process(energy={"net_mj": -0.1})
    assert bare.energy_mj is None and bare.no_energy == "the board drew no more than when idle"
    assert judge.witnesses([*weighed, (bare, bare)]) == judge.WITNESSES
    checks = judge.judge({"b": weighed}, Rule(), {"b": True})
    assert [check.name for check in checks] == ["latency", "memory", "energy"]
    assert checks[2].shift["energy"]["value"] == pytest.approx(0.2, abs=0.02)
