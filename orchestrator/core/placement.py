"""Which nodes are fit to be seated, and on which cluster a waiting job begins.

All or nothing: an attempt is opened only on one cluster that has the job's least number of nodes,
fit, idle and uncordoned. What a running gang lacks is filled before a new job is placed.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from math import log2

from orchestrator.core import outlook
from orchestrator.core.decisions import MoveJob, MoveNode, OpenAttempt, RepairStep
from orchestrator.core.jobs import Attempt, AttemptState, Job, JobSpec, JobState, Outcome
from orchestrator.core.look import LIVE, Look
from orchestrator.core.nodes import IDLE, ClusterName, JobName, Node, NodeState
from orchestrator.core.outlook import calmness, standbys_wanted
from orchestrator.core.trust import lemon, troubles
from orchestrator.core.verdicts import Verdict

STALE_LOOKS = 5  #: probes missed until a verdict is too old to seat a node on
STALE_MIN = timedelta(minutes=1)
RATE_MIN = 1e-4  #: failures per node-week below which nobody tells clusters apart
HOLDS = frozenset({NodeState.IN_USE, NodeState.STANDBY})  #: seats that count as the gang's


def place_job(look: Look, job: Job) -> None:
    """Open an attempt for a waiting job if some cluster can hold it."""
    if job.state is not JobState.PENDING:
        return
    if any(attempt.state in LIVE for attempt in look.attempts_of(job.name)):
        return
    cluster = None if _lingers(look, job) else choose_cluster(look, job)
    if cluster is not None:
        _open(look, job, cluster)


def dearest_first(look: Look, name: JobName) -> tuple[int, datetime, JobName]:
    """Return the place of a job among those that wait."""
    job = look.job(name)
    return (-job.spec.priority, job.submitted_at, job.name)


def unfit_to_seat(look: Look, node: Node, spec: JobSpec) -> str | None:
    """Return why this node cannot be given a seat now; None if it can."""
    belief = look.belief(node.name)
    if node.state not in IDLE:
        return f"is {node.state}"
    if node.cordon is not None:
        return f"cordoned by {node.cordon.owner}: {node.cordon.reason}"
    if spec.accelerator is not None and node.machine.sku != spec.accelerator:
        return f"is a {node.machine.sku}, not a {spec.accelerator}"
    if belief.unreached_since is not None or belief.called_off:
        return f"cannot be reached: {belief.unreached_error}"
    if look.missing(node):
        return "its provider lists others, but not this one"
    judgement = look.judge(node)
    if judgement.verdict is not Verdict.FIT:
        return judgement.words
    stale = max(STALE_LOOKS * look.policy.probe_every, STALE_MIN)
    if not look.recent(belief.probed_at, stale):
        return "was not probed lately"
    if any(agent.gone_at is None for agent in belief.agents):
        return "something of an older attempt may still run there"
    return None


def spares(look: Look, cluster: ClusterName, spec: JobSpec) -> list[Node]:
    """Return the nodes of a cluster that may be seated now, the most trusted first.

    Not to be changed: several ask.
    """
    question = ("spares", cluster, id(spec))
    return look.once(question, lambda: (spec, _spares(look, cluster, spec)))[1]


def _spares(look: Look, cluster: ClusterName, spec: JobSpec) -> list[Node]:
    fit = [node for node in look.nodes_in(cluster) if unfit_to_seat(look, node, spec) is None]
    return sorted(fit, key=lambda node: (*_misgivings(look, node), node.name))


def _misgivings(look: Look, node: Node) -> tuple[bool, bool, int, int]:
    """Order nodes by what speaks against seating them: lemons last, then those on probation."""
    lately = len(troubles(look, node))
    lemon_like = lemon(look, node) is not None or outlook.lemon(look, node).sour
    on_trial = node.trial_since is not None
    return (lemon_like, on_trial, lately, len(look.repairs(node.name, RepairStep.REBOOT)))


def capacity(look: Look, attempt: Attempt) -> int:
    """Return how many seats an attempt should have; without a register it has no standbys."""
    return look.job(attempt.job).spec.nodes_max + standbys_wanted(look, attempt)


def lacking(look: Look, attempt: Attempt) -> int:
    """Return how many seats an attempt needs more before it can train at all."""
    held = sum(node.state in HOLDS for node in look.seats(attempt))
    return max(0, look.job(attempt.job).spec.nodes_min - held)


def starving(look: Look, attempt: Attempt) -> list[Attempt]:
    """Return the other attempts on the same cluster that lack seats to train at all."""
    others = [one for one in look.attempts(LIVE) if one.cluster == attempt.cluster]
    return [one for one in others if one.job != attempt.job and lacking(look, one)]


def fill_seats(look: Look, attempt: Attempt) -> None:
    """Give spares of the attempt's cluster the seats that it lacks.

    What makes a gang stand by, or larger than it must be, is left to those that cannot train
    without it.
    """
    spec = look.job(attempt.job).spec
    held = [node for node in look.seats(attempt) if node.state in HOLDS]
    missing = capacity(look, attempt) - len(held)
    if missing <= 0:
        return
    free = spares(look, attempt.cluster, spec)
    left = len(free) - sum(lacking(look, one) for one in starving(look, attempt))
    missing = min(missing, max(lacking(look, attempt), left))
    in_use = sum(node.state is NodeState.IN_USE for node in held)
    for node in free[:missing]:
        end = NodeState.IN_USE if in_use < spec.nodes_max else NodeState.STANDBY
        in_use += end is NodeState.IN_USE
        reason = f"seat in {attempt.job}, attempt {attempt.number}"
        look.do(MoveNode(node.name, node.state, end, reason, attempt.job, attempt.number))


def allowed(look: Look, spec: JobSpec) -> list[ClusterName]:
    """Return the clusters a job may use, in its order of preference or by name."""
    if spec.clusters:
        return [name for name in spec.clusters if look.cluster(name) is not None]
    return [cluster.name for cluster in look.clusters()]


def choose_cluster(look: Look, job: Job, *, but: ClusterName | None = None) -> ClusterName | None:
    """Return the cluster on which a job would begin now; None if none can hold it."""
    mine = look.attempts_of(job.name)
    last = max(mine, key=lambda attempt: attempt.number, default=None)
    scored = []
    for preference, name in enumerate(allowed(look, job.spec)):
        fit = len(spares(look, name, job.spec))
        if name == but or fit < job.spec.nodes_min:
            continue
        known = last is not None and last.cluster == name
        left = known and last is not None and last.outcome is Outcome.MOVED
        home = 0 if known and not left else 2 if left else 1
        order = preference if job.spec.clusters else 0
        scored.append((home, order, _unrest(look, name), -fit, name))
    return min(scored)[-1] if scored else None


def _unrest(look: Look, cluster: ClusterName) -> int:
    """Return how often a cluster's nodes fail, in doublings: less than one is no difference."""
    return round(log2(max(calmness(look, cluster), RATE_MIN)))


def _lingers(look: Look, job: Job) -> bool:
    """Say whether to wait a moment for the nodes of the last attempt, or for proof of its end."""
    for attempt in look.attempts_of(job.name):
        if attempt.state is not AttemptState.CLOSING:
            continue
        if job.spec.register is None and not look.all_gone(attempt):
            return True
        leaving = attempt.outcome is not Outcome.MOVED and not look.all_gone(attempt)
        if leaving and not look.lasts(attempt.since, look.policy.seat_wait):
            return True
    return False


def _open(look: Look, job: Job, cluster: ClusterName) -> None:
    number = 1 + max(job.attempts, fenced(look, job.name))
    reason = f"{cluster} has the nodes"
    look.do(OpenAttempt(job.name, number, cluster, reason))
    look.do(MoveJob(job.name, JobState.RUNNING, f"attempt {number} on {cluster}"))
    attempt = look.attempt(job.name, number)
    if attempt is not None:
        fill_seats(look, attempt)


def fence_is_ours(look: Look, job: Job, number: int) -> bool:
    """Say whether the last fence opens this very attempt of this very job."""
    seen = look.register(job.name).seen
    fence = seen.fence if seen is not None else None
    return fence is not None and (fence.attempt, fence.by) == (number, job.signature)


def fenced(look: Look, job: JobName) -> int:
    """Return the attempt of the last fence that we know of; 0 before the first."""
    seen = look.register(job).seen
    return seen.fence.attempt if seen is not None and seen.fence is not None else 0
