"""What the phases drive: intervals, standbys, spares, probes, strictness, returns."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from orchestrator.core import outlook
from orchestrator.core.beliefs import AgentBelief, Beliefs, NodeBelief
from orchestrator.core.cohorts import CohortBelief, Failure
from orchestrator.core.decisions import SetCadence
from orchestrator.core.enact import enact
from orchestrator.core.explain import explain
from orchestrator.core.fleet import Cluster, Fleet
from orchestrator.core.jobs import Attempt, AttemptState, Job, JobSpec, JobState
from orchestrator.core.look import Look
from orchestrator.core.nodes import (
    ClusterName,
    CohortName,
    JobName,
    Machine,
    MachineId,
    Node,
    NodeName,
    NodeState,
    ProviderName,
)
from orchestrator.core.pacing import pace_checkpoints
from orchestrator.core.pages import Page
from orchestrator.core.phases import WEEK, Phases
from orchestrator.core.policies import Policy
from orchestrator.core.reconcile import reconcile
from orchestrator.core.trust import trial_length
from orchestrator.runtime.reports import Note
from tests.core.world import BEGIN

A, FIRST, JOB = ClusterName("a"), CohortName("first"), JobName("train")
P = ProviderName("sim")
HOUR = timedelta(hours=1)


def history(
    rate: float, weeks: float, *, nodes: int = 100, seed: int = 1, until: datetime = BEGIN
) -> Phases:
    """Return what is held at `until` after that many weeks with `rate` failures a week."""
    begun = now = until - WEEK * weeks
    dice, phases = random.Random(seed), Phases.begin(begun, nodes)
    while (now := now + WEEK * dice.expovariate(rate)) < until:
        phases = phases.failed(now)
    return phases.at(until)


def cohort(phases: Phases, cluster: str = "a", failures: tuple[Failure, ...] = ()) -> CohortBelief:
    return CohortBelief(ClusterName(cluster), FIRST, P, phases, BEGIN - 52 * WEEK, failures)


def node(number: int, state: NodeState = NodeState.IN_USE, cluster: str = "a") -> Node:
    name = NodeName(f"{cluster}-{number}")
    seat = {"job": JOB, "attempt": 1} if state in (NodeState.IN_USE, NodeState.STANDBY) else {}
    machine = Machine(MachineId(name))
    where = (name, ClusterName(cluster), P, FIRST, machine, state)
    return replace(Node(*where, BEGIN, "here"), **seat)  # type: ignore[arg-type]


def fleet(
    *beliefs: CohortBelief, nodes: int = 100, now: datetime = BEGIN, standbys: int = 0
) -> Fleet:
    seats = [node(n) for n in range(nodes)]
    seats += [node(nodes + n, NodeState.STANDBY) for n in range(standbys)]
    spec = JobSpec(nodes, nodes, register="file:///r")
    job = Job(JOB, spec, JobState.RUNNING, BEGIN, BEGIN, attempts=1)
    attempt = Attempt(JOB, 1, A, AttemptState.OPEN, BEGIN, BEGIN)
    clusters = (Cluster(A, P), Cluster(ClusterName("b"), P))
    held = Beliefs(cohorts={one.key: one for one in beliefs})
    return Fleet(now, clusters, {n.name: n for n in seats}, {JOB: job}, (attempt,), held)


def look_at(
    *beliefs: CohortBelief, policy: Policy | None = None, nodes: int = 100, standbys: int = 0
) -> Look:
    return Look(fleet(*beliefs, nodes=nodes, standbys=standbys), policy or Policy())


CALM = cohort(history(3, 40))


def turned(weeks: float = 2.0) -> Phases:
    """Return what is held of a cohort that was calm and turned chaotic that many weeks ago."""
    phases, dice, now = history(3, 30, until=BEGIN - WEEK * weeks), random.Random(4), BEGIN
    now -= WEEK * weeks
    while (now := now + WEEK * dice.expovariate(20)) < BEGIN:
        phases = phases.failed(now)
    return phases.at(BEGIN)


WILD = cohort(turned())


def the_attempt(look: Look) -> Attempt:
    attempt = look.attempt(JOB, 1)
    assert attempt is not None
    return attempt


# --- checkpoints --------------------------------------------------------------------------------


def test_the_interval_follows_the_square_root_of_the_rate_and_of_the_stall() -> None:
    calm, wild = look_at(CALM), look_at(WILD)
    slow, quick = (outlook.checkpoint_interval(one, the_attempt(one)) for one in (calm, wild))
    rates = [outlook.gang_rate(one, the_attempt(one)) for one in (calm, wild)]
    assert rates[0] == pytest.approx(3, rel=0.3)
    assert slow / quick == pytest.approx((rates[1] / rates[0]) ** 0.5, rel=0.02)
    dear = look_at(CALM, policy=Policy(checkpoint_stall=timedelta(seconds=100)))
    assert outlook.checkpoint_interval(dear, the_attempt(dear)) / slow == pytest.approx(10, rel=0.1)


def test_the_interval_keeps_within_the_policy() -> None:
    policy = Policy(checkpoint_min=timedelta(hours=2), checkpoint_max=timedelta(hours=3))
    for belief, bound in ((WILD, policy.checkpoint_min), (CALM, None)):
        look = look_at(belief, policy=policy)
        every = outlook.checkpoint_interval(look, the_attempt(look))
        assert policy.checkpoint_min <= every <= policy.checkpoint_max
        assert bound is None or every == bound


def test_measured_stalls_count_and_nonsense_does_not() -> None:
    told = {"stall_seconds": 9.0, "lag_seconds": 70}
    bad = {"stall_seconds": float("nan"), "lag_seconds": "soon"}

    def with_note(data: Mapping[str, object]) -> Look:
        note = Note(1, 0.0, "commit", "c", data)
        agents = (AgentBelief(JOB, 1, notes=(note,)),)
        begun = fleet(CALM)
        nodes = {NodeName("a-1"): NodeBelief(NodeName("a-1"), agents=agents)}
        return Look(replace(begun, beliefs=replace(begun.beliefs, nodes=nodes)), Policy())

    look = with_note(told)
    seconds = (timedelta(seconds=9), timedelta(seconds=70))
    assert outlook.measured(look, the_attempt(look)) == seconds
    look, policy = with_note(bad), Policy()
    assumed = (policy.checkpoint_stall, policy.checkpoint_lag)
    assert outlook.measured(look, the_attempt(look)) == assumed


def test_a_new_interval_is_asked_for_only_when_it_differs_clearly() -> None:
    look = look_at(CALM)
    pace_checkpoints(look, the_attempt(look))
    (decision,) = look.decisions
    assert isinstance(decision, SetCadence)
    assert the_attempt(look).every == decision.every
    assert "writes a checkpoint each" in explain(decision)
    pace_checkpoints(look, the_attempt(look))
    assert len(look.decisions) == 1
    best = decision.every
    for factor, again in ((1.15, False), (0.88, False), (1.25, True), (0.8, True)):
        begun = enact(fleet(CALM), SetCadence(JOB, 1, best * factor, "a test"), BEGIN)
        other = Look(begun, Policy())
        pace_checkpoints(other, the_attempt(other))
        assert bool(other.decisions) is again, factor


def test_reconcile_paces_and_comes_to_rest() -> None:
    begun = fleet(CALM)
    plan = reconcile(begun, Policy())
    paced = [one for one in plan.decisions if isinstance(one, SetCadence)]
    assert len(paced) == 1
    assert plan.look_again_at is not None
    assert plan.look_again_at > begun.now
    after = enact(begun, paced[0], BEGIN)
    again = reconcile(after, Policy()).decisions
    assert not [one for one in again if isinstance(one, SetCadence)]


# --- how often a belief is looked at ------------------------------------------------------------


def test_the_outlook_is_renewed_in_growing_steps_that_are_announced() -> None:
    renewed, now = [], BEGIN
    for _ in range(8):
        look = Look(fleet(CALM, now=now), Policy())
        seen = outlook.cohort_outlook(look, A, FIRST)
        renewed.append(seen.phases.seen_at)
        again = look.again() if look.go_round() else min(look._notes.moments)
        assert again is not None
        assert again > now
        early = Look(fleet(CALM, now=again - timedelta(seconds=1)), Policy())
        assert outlook.cohort_outlook(early, A, FIRST).rate == seen.rate
        now = again
    assert renewed == sorted(set(renewed))
    assert now - BEGIN > timedelta(hours=17)


def test_a_cohort_nobody_listed_has_the_prior() -> None:
    seen = outlook.cohort_outlook(look_at(), A, FIRST)
    assert seen.p_chaotic == pytest.approx(0.6)
    assert seen.low < 0.03 < seen.high
    assert seen.nodes == 100


def test_the_providers_other_cohorts_inform_a_new_one() -> None:
    new = cohort(Phases.begin(BEGIN - HOUR, 100), "b")
    alone = outlook.cohort_outlook(look_at(new), ClusterName("b"), FIRST)
    bad = [replace(cohort(history(20, 40)), cohort=CohortName(f"c{n}")) for n in range(3)]
    among = outlook.cohort_outlook(look_at(new, *bad), ClusterName("b"), FIRST)
    assert among.rate > 1.5 * alone.rate


# --- spares -------------------------------------------------------------------------------------


def test_chaos_asks_for_more_standbys_and_more_spares() -> None:
    calm, wild = look_at(CALM), look_at(WILD)
    few, many = (outlook.standbys_wanted(one, the_attempt(one)) for one in (calm, wild))
    assert 1 <= few < many <= Policy().standbys_max
    calm_spares, wild_spares = (
        outlook.spares_wanted(one, the_attempt(one)) for one in (calm, wild)
    )
    assert few <= calm_spares < wild_spares < 30


def test_no_standbys_without_a_register_or_where_the_policy_says_none() -> None:
    look = look_at(WILD, policy=Policy(standbys=0))
    assert outlook.standbys_wanted(look, the_attempt(look)) == 0


def test_a_standby_is_not_let_go_for_a_trifle() -> None:
    """Between the level at which one more is granted and the one at which one is let go."""
    for rate in (3.0, 5.0, 8.0, 12.0, 16.0):
        belief = cohort(history(rate, 30, seed=int(rate)))
        free = look_at(belief)
        wanted = outlook.standbys_wanted(free, the_attempt(free))
        held = look_at(belief, standbys=wanted + 1)
        assert outlook.standbys_wanted(held, the_attempt(held)) in (wanted, wanted + 1)


# --- strictness ---------------------------------------------------------------------------------


def test_burn_in_probation_and_probes_are_stricter_in_chaos() -> None:
    calm, wild, one = look_at(CALM), look_at(WILD), node(1)
    assert outlook.burn_in(calm, one) == Policy().burn_in
    chaotic = outlook.outlook_of(wild, one).chaotic
    assert chaotic
    assert outlook.burn_in(wild, one) > Policy().burn_in
    assert 1 <= outlook.hurry(outlook.outlook_of(calm, one).phases) < 2
    assert outlook.hurry(outlook.outlook_of(wild, one).phases) > 2
    assert outlook.active_every(wild, one) < outlook.active_every(calm, one)
    assert outlook.active_every(calm, one) == Policy().active_every
    for look, low, high in ((calm, 1.0, 2.0), (wild, 2.0, outlook.PROBE_FASTER_MAX)):
        (found,) = outlook.hurries(look.fleet.beliefs.cohorts, look.fleet.now).values()
        assert low <= found <= high
    assert outlook.strictness(wild, one) > outlook.strictness(calm, one) == 1
    assert trial_length(wild, one) > trial_length(calm, one)


def test_the_calmer_cluster_is_the_calmer_one() -> None:
    begun = fleet(CALM, cohort(history(20, 3), "b"))
    nodes = {**begun.nodes, NodeName("b-1"): node(1, NodeState.SPARE, "b")}
    look = Look(replace(begun, nodes=nodes), Policy())
    assert outlook.calmness(look, A) < outlook.calmness(look, ClusterName("b"))


def test_a_node_that_fails_again_and_again_is_a_lemon() -> None:
    mine = tuple(Failure(BEGIN - n * 60 * HOUR, NodeName("a-7")) for n in range(6, 0, -1))
    look = look_at(replace(CALM, failures=mine))
    assert outlook.lemon(look, node(7)).sour
    assert not outlook.lemon(look, node(8)).sour
    assert outlook.burn_in(look, node(7)) > outlook.burn_in(look, node(8))


# --- returning a cohort -------------------------------------------------------------------------


def failing(per_week: float, weeks: float, nodes: int = 13) -> CohortBelief:
    """Return a cohort that failed evenly for so long, each node in turn."""
    gap, many = WEEK / per_week, int(per_week * weeks)
    moments = [BEGIN - gap * n for n in range(many, 0, -1)]
    failures = tuple(Failure(at, NodeName(f"a-{n % nodes}")) for n, at in enumerate(moments))
    return replace(cohort(history(30, 1, nodes=nodes), failures=failures), begun_at=moments[0])


def test_only_a_cohort_that_is_bad_for_long_is_recommended_for_return() -> None:
    reason = outlook.return_reason(look_at(failing(30, 5), nodes=13), A, FIRST)
    assert reason == (
        "59 failures of 13 nodes within 14 days: 10% of them or more are in repair at any moment"
    )
    for fine in (failing(30, 1.5), failing(3, 20), CALM):
        assert outlook.return_reason(look_at(fine, nodes=13), A, FIRST) is None


def test_people_are_told_to_think_of_returning_a_cohort() -> None:
    plan = reconcile(fleet(failing(33, 4), nodes=13), Policy())
    told = [one for one in plan.decisions if getattr(one, "page", None) is Page.BAD_COHORT]
    assert [one.subject for one in told] == ["a/first"]  # type: ignore[union-attr]
