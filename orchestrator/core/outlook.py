"""What the phases of the cohorts mean for decisions: the one place where rates become limits.

Called by the modules of `reconcile`; pure functions of a `Look`. Each is answered once until what
it rests on changes. The belief of a cohort is looked at in steps that grow with its age (an hour,
then half as much again each time), and the next step is a moment at which to look again.

Actions follow the mean rate; the label, chaotic or stable, only sets how strict burn-in, probation
and quarantine are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import sqrt

from orchestrator.core.cadence import asynchronous_best
from orchestrator.core.cohorts import CohortBelief, cohort_key
from orchestrator.core.jobs import Attempt
from orchestrator.core.lemons import Lemon, frailty
from orchestrator.core.look import Look
from orchestrator.core.nodes import ClusterName, CohortName, Node, NodeName, NodeState
from orchestrator.core.phases import WEEK, Phases
from orchestrator.core.pooling import pooled
from orchestrator.core.sparing import BURSTY, cheapest, negative_binomial_quantile

STEP_FIRST, STEP_GROWTH = timedelta(hours=1), 1.5
SOUND = None  #: stands for every node of a cohort that did not fail
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
STEPS_MAX = 30  #: 1.5^30 hours are 22 years
ENOUGH = 0.999  #: probability with which standbys last while the controller is away
FEWER = 0.9998  #: the same with one standby less, before one is let go
STRICT = 4.0  #: times as long a burn-in, and as high odds that something is wrong, in chaos
PROBE_FASTER_MAX = 4.0
SURELY = 1.64  #: standard deviations below a count: its lower bound at 95 %


@dataclass(frozen=True, slots=True)
class CohortOutlook:
    """What is held of one cohort, as decisions use it. Rates are failures per node-week."""

    cluster: ClusterName
    cohort: CohortName
    nodes: float
    p_chaotic: float
    chaotic_since: datetime | None  #: called chaotic since; None: it is called stable
    rate: float  #: mean
    low: float  #: with `high`: a 90 % interval of the present rate
    high: float
    phases: Phases  #: as of the last step

    @property
    def chaotic(self) -> bool:
        """Say whether the cohort is called chaotic."""
        return self.chaotic_since is not None

    @property
    def words(self) -> str:
        """The outlook in words."""
        phase = "chaotic" if self.chaotic else "stable"
        interval = f"[{self.low:.2g}, {self.high:.2g}]"
        return (
            f"{self.cluster}/{self.cohort} is {phase} (P(chaotic) {self.p_chaotic:.2f}), "
            f"{self.rate:.2g} {interval} failures per node-week"
        )


# --- cohorts --------------------------------------------------------------------------------


def cohort_outlook(look: Look, cluster: ClusterName, cohort: CohortName) -> CohortOutlook:
    """Return what is held of a cohort now; of one that was never listed: the prior."""
    question = ("outlook", cluster, cohort)
    return look.once(question, lambda: _cohort_outlook(look, cluster, cohort))


def outlook_of(look: Look, node: Node) -> CohortOutlook:
    """Return what is held of a node's cohort now."""
    return cohort_outlook(look, node.cluster, node.cohort)


def _cohort_outlook(look: Look, cluster: ClusterName, cohort: CohortName) -> CohortOutlook:
    belief = look.cohort(cohort_key(cluster, cohort))
    if belief is None:
        count = sum(node.cohort == cohort for node in look.nodes_in(cluster))
        phases = Phases.begin(LONG_AGO, float(count))
    else:
        phases = _as_of(look, belief)
    low, high = phases.interval()
    return CohortOutlook(
        cluster,
        cohort,
        phases.nodes,
        phases.p_chaotic,
        phases.chaotic_since,
        phases.rate,
        low,
        high,
        phases,
    )


def _as_of(look: Look, belief: CohortBelief) -> Phases:
    """Return what is held at the last step before now, under the provider's prior."""
    step, begun = STEP_FIRST, belief.phases.seen_at
    moment = begun
    for _ in range(STEPS_MAX):
        if not look.due(begun + step):
            break
        moment, step = begun + step, step * STEP_GROWTH
    siblings = (
        one.phases.base()
        for one in look.cohorts()
        if one.provider == belief.provider and one.key != belief.key
    )
    return belief.phases.informed(pooled(siblings)).at(moment)


def calmness(look: Look, cluster: ClusterName) -> float:
    """Return the mean failures per node-week of a cluster's nodes: the lower, the calmer."""
    return look.once(("calmness", cluster), lambda: _calmness(look, cluster))


def _calmness(look: Look, cluster: ClusterName) -> float:
    nodes = [node for node in look.nodes_in(cluster) if node.state is not NodeState.RETIRED]
    if not nodes:
        return cohort_outlook(look, cluster, CohortName("")).rate
    return sum(outlook_of(look, node).rate for node in nodes) / len(nodes)


def return_reason(look: Look, cluster: ClusterName, cohort: CohortName) -> str | None:
    """Return why people should think of returning a cohort to its provider; None if they need not.

    It was there for all of the last `policy.return_after`, and failed so often in it that even a
    lower bound of its rate keeps more than `policy.return_share` of its nodes in repair. The label
    does not matter: what is bad for long becomes a cohort's normal, and is no better for it.
    """
    belief, window = look.cohort(cohort_key(cluster, cohort)), look.policy.return_after
    if belief is None or belief.phases.nodes < 1 or not look.lasts(belief.begun_at, window):
        return None
    count = len(look.lately((one.at for one in belief.failures), window))
    least = max(0.0, count - SURELY * sqrt(count)) / (belief.phases.nodes * (window / WEEK))
    away = least * (look.policy.repair_expected / WEEK)
    share = away / (1 + away)
    if share <= look.policy.return_share:
        return None
    return (
        f"{count} failures of {belief.phases.nodes:.0f} nodes within {window.days} days: "
        f"{share:.0%} of them or more are in repair at any moment"
    )


# --- nodes ----------------------------------------------------------------------------------


def lemon(look: Look, node: Node) -> Lemon:
    """Return how much more frail than its cohort a node is held to be."""
    scores = look.once(
        ("lemons", node.cluster, node.cohort), lambda: _lemons(look, node.cluster, node.cohort)
    )
    return scores.get(node.name) or scores[SOUND]


def _lemons(look: Look, cluster: ClusterName, cohort: CohortName) -> dict[NodeName | None, Lemon]:
    """Return the score of each node of a cohort that failed, and of any that did not."""
    belief = look.cohort(cohort_key(cluster, cohort))
    if belief is None:
        return {SOUND: frailty(NodeName(""), (), 1.0)}
    failed = {one.node for one in belief.failures}
    count = belief.phases.nodes
    scores: dict[NodeName | None, Lemon] = {
        name: frailty(name, belief.failures, count) for name in failed
    }
    return {**scores, SOUND: frailty(NodeName(""), belief.failures, count)}


def strictness(look: Look, node: Node) -> float:
    """Return by what doubts about a node are multiplied: more in a chaotic cohort, and a lemon."""
    strict = STRICT if outlook_of(look, node).chaotic else 1.0
    return strict * (STRICT if lemon(look, node).sour else 1.0)


def burn_in(look: Look, node: Node) -> timedelta:
    """Return how long a node must be healthy before it is trusted: longer in chaos, and a lemon."""
    return look.policy.burn_in * strictness(look, node)


def active_every(look: Look, node: Node) -> timedelta:
    """Return how often an idle node is examined: more often in chaos, and a lemon."""
    return look.policy.active_every / strictness(look, node)


def hurry(phases: Phases) -> float:
    """Return how many times as often as usual nodes of a cohort are looked at.

    The square root law of checkpoints holds for probes too: cost per look against time unseen.
    """
    return min(PROBE_FASTER_MAX, max(1.0, sqrt(phases.rate / phases.base_rate)))


def hurries(beliefs: Mapping[str, CohortBelief], now: datetime) -> dict[str, float]:
    """Return that of every cohort, by "cluster/cohort": for whoever looks at nodes."""
    bases = {key: (one.provider, one.phases.base()) for key, one in sorted(beliefs.items())}
    found = {}
    for key, belief in sorted(beliefs.items()):
        others = [
            base for other, (of, base) in bases.items() if of == belief.provider and other != key
        ]
        found[key] = hurry(belief.phases.informed(pooled(others)).at(now))
    return found


# --- attempts -------------------------------------------------------------------------------


def gang_rate(look: Look, attempt: Attempt) -> float:
    """Return the failures per week that would interrupt an attempt's gang."""
    seats = [node for node in look.seats(attempt) if node.state is NodeState.IN_USE]
    if not seats:
        return look.job(attempt.job).spec.nodes_max * calmness(look, attempt.cluster)
    return sum(outlook_of(look, node).rate for node in seats)


def checkpoint_interval(look: Look, attempt: Attempt) -> timedelta:
    """Return the best interval between checkpoints, from rate, stall and lag; within the policy."""
    policy = look.policy
    stall, lag = measured(look, attempt)
    best = asynchronous_best(
        gang_rate(look, attempt) / WEEK.total_seconds(),
        stall=stall.total_seconds(),
        lag=lag.total_seconds(),
        detect=0.0,
        recover=policy.restart_expected.total_seconds(),
    )
    return max(policy.checkpoint_min, min(policy.checkpoint_max, timedelta(seconds=round(best))))


def measured(look: Look, attempt: Attempt) -> tuple[timedelta, timedelta]:
    """Return (stall, lag) of the attempt's checkpoints as its agents told; else the policy's."""
    stalls, lags = [], []
    for _, agent in look.agents(attempt):
        for note in agent.notes:
            if note.kind == "commit":
                stalls += list(_seconds(note.data.get("stall_seconds")))
                lags += list(_seconds(note.data.get("lag_seconds")))
    stall = timedelta(seconds=max(stalls)) if stalls else look.policy.checkpoint_stall
    lag = timedelta(seconds=max(lags)) if lags else look.policy.checkpoint_lag
    return stall, lag


def _seconds(value: object) -> Iterator[float]:
    """Yield what a node said, if it is a plausible duration: it is untrusted."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 86_400:
        yield float(value)


def standbys_wanted(look: Look, attempt: Attempt) -> int:
    """Return how many standbys an attempt should have: so many as last without the controller.

    At least `policy.standbys`, at most `policy.standbys_max`; none if the policy says 0. One that
    is held is let go only when it is clearly not needed.
    """
    policy, spec = look.policy, look.job(attempt.job).spec
    if spec.register is None or policy.standbys == 0:
        return 0
    mean, spread = _losses(look, attempt, policy.absence_expected)
    held = sum(node.state is NodeState.STANDBY for node in look.seats(attempt))
    enough = negative_binomial_quantile(mean, spread, ENOUGH)
    if enough < held:
        enough = min(held, negative_binomial_quantile(mean, spread, FEWER))
    return min(max(policy.standbys, enough), max(policy.standbys, policy.standbys_max))


def spares_wanted(look: Look, attempt: Attempt, most: int = 1_000) -> int:
    """Return how many spares, standbys included, are worth their price for an attempt.

    Nodes in repair are counted by a negative binomial around the mean that the rate gives; one
    more spare is kept while it costs less than the waiting of the whole gang that it saves.
    """
    gang = look.job(attempt.job).spec.nodes_max
    mean, spread = _losses(look, attempt, look.policy.repair_expected)
    worth = cheapest(mean, max(spread, BURSTY), float(gang), most)
    return min(most, max(worth, standbys_wanted(look, attempt)))


def _losses(look: Look, attempt: Attempt, horizon: timedelta) -> tuple[float, float]:
    """Return mean and spread (variance over mean) of the failures of a gang in that time."""
    seats = [node for node in look.seats(attempt) if node.state is NodeState.IN_USE]
    here = seats or look.nodes_in(attempt.cluster)
    wanted = look.job(attempt.job).spec.nodes_max
    scale = 1.0 if seats else wanted / max(1, len(here))
    cohorts = Counter((node.cluster, node.cohort) for node in here)
    mean = variance = 0.0
    for name, nodes in sorted(cohorts.items()):
        phases = cohort_outlook(look, *name).phases
        more, spread = phases.count(horizon / WEEK, nodes * scale)
        mean, variance = mean + more, variance + spread
    return mean, variance / mean if mean > 0 else 1.0
