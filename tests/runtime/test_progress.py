from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.runtime.progress import (
    SAMPLES_MIN,
    WINDOW,
    HangPolicy,
    Samples,
    Stall,
    Verdict,
    Watch,
    first_to_stall,
)
from orchestrator.runtime.spec import LIMITS

POLICY = HangPolicy(declared=LIMITS, floor=60.0)


def trained(policy: HangPolicy = POLICY, *, steps: int = 40, pace: float = 1.0) -> Watch:
    """Return a watch that saw `steps` steps of `pace` seconds, the last of them at time 0."""
    watch = Watch(policy)
    start = -steps * pace
    watch.begin(start)
    watch.beat(start, "step", 0)
    for step in range(1, steps + 1):
        watch.beat(start + step * pace, "step", step)
    return watch


def verdict(watch: Watch, now: float) -> Verdict:
    return watch.judge(now).verdict


def test_a_suspicion_opens_after_three_times_the_p99_and_a_second() -> None:
    watch = trained(pace=2.0)
    assert verdict(watch, 6.9) is Verdict.FINE
    assert verdict(watch, 7.1) is Verdict.SUSPECT


def test_a_hang_is_called_after_ten_times_the_p99() -> None:
    watch = trained(pace=10.0)
    assert verdict(watch, 99.9) is Verdict.SUSPECT
    assert verdict(watch, 100.1) is Verdict.HANG


def test_no_learned_limit_is_below_the_floor() -> None:
    watch = trained(pace=0.005)
    assert verdict(watch, 59.9) is Verdict.SUSPECT
    assert verdict(watch, 60.1) is Verdict.HANG
    assert watch.judge(60.1).learned


def test_before_twenty_samples_only_the_declared_limit_counts() -> None:
    watch = trained(steps=10, pace=0.01)
    assert verdict(watch, 599.0) is Verdict.FINE
    assert verdict(watch, 601.0) is Verdict.HANG
    assert not watch.judge(601.0).learned


@pytest.mark.parametrize(
    ("phase", "limit"), [("init", 300), ("compile", 1800), ("checkpoint", 900)]
)
def test_each_phase_has_its_declared_limit(phase: str, limit: float) -> None:
    watch = Watch(POLICY)
    watch.begin(0)
    watch.beat(0, phase, None)
    assert verdict(watch, limit - 1) is Verdict.FINE
    assert verdict(watch, limit + 1) is Verdict.HANG


def test_an_unknown_phase_is_measured_like_the_first_steps() -> None:
    watch = Watch(POLICY)
    watch.beat(0, "evaluate", None)
    assert verdict(watch, 599) is Verdict.FINE
    assert verdict(watch, 601) is Verdict.HANG


def test_a_long_checkpoint_is_no_stalled_step() -> None:
    watch = trained(pace=0.01)
    watch.beat(0.0, "checkpoint", 40)
    assert verdict(watch, 500) is Verdict.FINE
    watch.beat(500, "step", 40)
    assert watch.limit("step") == (60.0, True)
    assert verdict(watch, 559) is Verdict.SUSPECT
    assert verdict(watch, 561) is Verdict.HANG


def test_the_first_steps_of_each_generation_are_a_phase_of_their_own() -> None:
    watch = trained(pace=0.01)
    watch.begin(0)
    watch.beat(5, "step", 41)
    assert watch.phase == "first"
    assert verdict(watch, 5 + 599) is Verdict.FINE
    for step in (42, 43):
        watch.beat(6 + step, "step", step)
    assert watch.phase == "step"
    assert watch.limit("step") == (60.0, True)


def test_the_same_step_again_is_no_progress() -> None:
    watch = trained(pace=0.01)
    assert not watch.beat(50, "step", 40)
    assert verdict(watch, 61) is Verdict.HANG


def test_any_sign_is_progress_outside_of_steps() -> None:
    watch = trained()
    watch.beat(0, "evaluate", 40)
    assert watch.beat(500, "evaluate", 40)
    assert verdict(watch, 1000) is Verdict.FINE


def test_with_progress_none_a_hang_is_only_reported() -> None:
    watch = trained(HangPolicy(LIMITS, floor=60.0, acts=False))
    assert verdict(watch, 10_000) is Verdict.SUSPECT


def test_a_rank_that_never_spoke_is_reported_and_never_ended() -> None:
    watch = Watch(POLICY)
    watch.begin(0)
    assert verdict(watch, 299) is Verdict.FINE
    assert verdict(watch, 10_000) is Verdict.SUSPECT
    assert watch.judge(10_000).mute


def test_a_rank_that_spoke_once_may_be_missed_in_every_later_generation() -> None:
    watch = Watch(POLICY)
    watch.begin(0)
    watch.beat(1, "init", None)
    watch.begin(100)
    assert verdict(watch, 401) is Verdict.HANG


def test_where_the_job_declared_a_sign_that_all_give_a_mute_rank_is_judged() -> None:
    watch = Watch(HangPolicy(LIMITS, floor=60.0, mute_acts=True))
    watch.begin(0)
    assert verdict(watch, 301) is Verdict.HANG


def test_time_in_which_nobody_looked_proves_nothing() -> None:
    watch = trained(pace=0.01)
    watch.excuse(1000)
    assert verdict(watch, 1000.5) is Verdict.FINE


def test_ticks_without_a_number_are_steps() -> None:
    watch = Watch(HangPolicy(LIMITS, floor=5.0))
    watch.begin(0)
    for at in range(1, 30):
        watch.tick(float(at))
    assert verdict(watch, 29 + 9.0) is Verdict.SUSPECT
    assert verdict(watch, 29 + 10.1) is Verdict.HANG


def test_invented_phases_cannot_fill_the_memory() -> None:
    samples = Samples()
    for number in range(10_000):
        samples.add(f"phase {number}", 1.0)
    for _ in range(10_000):
        samples.add("phase 1", 1.0)
    assert len(samples.seconds) == 32
    assert len(samples.seconds["phase 1"]) == WINDOW


def test_the_limits_name_every_known_phase() -> None:
    assert trained(pace=10.0).limits() == {
        "init": 300.0,
        "compile": 1800.0,
        "first": 600.0,
        "checkpoint": 900.0,
        "step": 100.0,
    }


def test_the_one_whose_stall_began_first_is_blamed() -> None:
    def stall(since: float, what: Verdict = Verdict.HANG) -> Stall:
        return Stall(what, since, 70.0, "step", 4, 60.0, learned=True)

    assert first_to_stall({0: stall(5.0), 1: stall(4.9), 2: stall(5.0)}) == 1
    assert first_to_stall({0: stall(5.0), 3: stall(5.0)}) == 0
    assert first_to_stall({0: stall(1.0, Verdict.SUSPECT), 1: stall(2.0)}) == 1
    assert first_to_stall({0: stall(1.0, Verdict.FINE)}) is None


@given(
    st.lists(st.floats(0.001, 5.0), min_size=SAMPLES_MIN + 5, max_size=200),
    st.floats(0.0, 0.8),
)
def test_no_pause_up_to_80_percent_of_the_limit_is_ever_a_hang(
    paces: list[float], share: float
) -> None:
    watch = Watch(HangPolicy(LIMITS, floor=3.0))
    now = 0.0
    watch.begin(now)
    for step, pace in enumerate(paces):
        now += pace
        watch.beat(now, "step", step)
    limit, _ = watch.limit(watch.phase)
    assert verdict(watch, now + share * limit) is not Verdict.HANG
    assert verdict(watch, now + 1.001 * limit + 0.001) is Verdict.HANG


@given(st.lists(st.floats(0.001, 100.0), min_size=SAMPLES_MIN, max_size=WINDOW))
def test_the_p99_is_one_of_the_samples_and_all_but_a_hundredth_are_below(
    paces: list[float],
) -> None:
    samples = Samples()
    for pace in paces:
        samples.add("step", pace)
    p99 = samples.p99("step")
    assert p99 in paces
    assert sum(pace > p99 for pace in paces) <= len(paces) * 0.01
