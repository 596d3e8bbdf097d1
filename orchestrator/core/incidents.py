"""What people should be told of, derived from the level: an incident is open while its cause is.

Each node, job, attempt and cluster says what is wrong with it now; what is wrong and not open
begins, what is open and not wrong ends. Nothing is remembered elsewhere: repeating the look opens
nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from orchestrator.core.custody import shared_with, waits_for_fleet
from orchestrator.core.decisions import CloseIncident, OpenIncident
from orchestrator.core.eviction import refusal, stays, weigh
from orchestrator.core.fleet import Cluster
from orchestrator.core.gang import live, read_gang
from orchestrator.core.jobs import OVER, Attempt, Job, JobState, Outcome
from orchestrator.core.localising import shared_links
from orchestrator.core.look import DAY, LIVE, Look
from orchestrator.core.nodes import HELD_BACK, Node, NodeState
from orchestrator.core.orders import operators
from orchestrator.core.outlook import return_reason
from orchestrator.core.pages import Page
from orchestrator.core.parts import Wrong
from orchestrator.core.recovery import shortage
from orchestrator.core.repair import fleet_spent, need, rung
from orchestrator.core.stalls import EPOCH_MAX, who_stalls
from orchestrator.runtime.lineage import Cause
from orchestrator.runtime.reports import AgentReport, Note, Stage

FLEET_SPENT = "the fleet's repairs of this hour are spent"
TWICE = "same failure twice"  #: how `lineage.choose_resume` begins to tell of poison


def tell(look: Look, _: str) -> None:
    """Open what is wrong and not open yet, close what is right again."""
    found: dict[tuple[Page, str], str] = {}
    for page, subject, reason in look.wrongs():
        found.setdefault((page, subject), reason)
    known = look.incidents()
    for page, subject in sorted(found.keys() - known):
        look.do(OpenIncident(page, subject, found[page, subject]))
    for page, subject in sorted(known - found.keys()):
        look.do(CloseIncident(page, subject, "its cause is gone"))


def wrong_with_node(look: Look, node: Node) -> None:
    """Say what is wrong with a node."""
    if node.state is not NodeState.RETIRED:
        _say(look, _of_node(look, node))


def wrong_with_job(look: Look, job: Job) -> None:
    """Say what is wrong with a job."""
    _say(look, _of_job(look, job))


def wrong_with_attempt(look: Look, attempt: Attempt) -> None:
    """Say what is wrong with an attempt that lives."""
    if attempt.state in LIVE:
        _say(look, _of_attempt(look, attempt))


def wrong_with_cluster(look: Look, cluster: Cluster) -> None:
    """Say what is wrong with a cluster's provider."""
    belief = look.listing(cluster.name)
    if belief and look.lasts(belief.failing_since, look.policy.silence_max):
        look.wrong(Page.PROVIDER_API, cluster.name, belief.error)
    for cohort in look.cohorts():
        if cohort.cluster == cluster.name:
            reason = return_reason(look, cohort.cluster, cohort.cohort)
            if reason is not None:
                look.wrong(Page.BAD_COHORT, cohort.key, reason)


def _say(look: Look, wrongs: Iterator[Wrong]) -> None:
    for page, subject, reason in wrongs:
        look.wrong(page, subject, reason)


def _of_node(look: Look, node: Node) -> Iterator[Wrong]:
    belief, judgement = look.belief(node.name), look.judge(node)
    if judgement.explicit:
        yield Page.HARDWARE_FAULT, node.name, judgement.words
    if belief.power_off:
        yield Page.NODE_LOST, node.name, f"{node.provider} says that it is off"
    elif _unreachable(look, node):
        yield Page.NODE_UNREACHABLE, node.name, belief.unreached_error
    if node.kin is not None and node.history.troubles and _earning(node):
        times = len(node.history.troubles)
        words = f"it is the machine that was {node.kin}, {times} times out of service"
        yield Page.MACHINE_RETURNED, node.name, words
    if (shared := shared_with(look, node)) is not None:
        yield Page.SHARED_CAUSE, node.cluster, shared
    if operators(node.cordon):
        return
    if node.state is NodeState.QUARANTINED:
        yield from _of_ladder(look, node)
    elif node.state is NodeState.REPAIRING and waits_for_fleet(look, node):
        yield Page.REPAIR_LIMIT, node.cluster, FLEET_SPENT


def _earning(node: Node) -> bool:
    return node.trial_since is not None or node.state in (NodeState.BURN_IN, *HELD_BACK)


def _of_ladder(look: Look, node: Node) -> Iterator[Wrong]:
    """Tell of a node that only people can bring further."""
    fault = need(look, node) if look.policy.repair else None
    if fault is None:
        return
    ladder = rung(look, node, fault)
    if ladder.spent:
        yield Page.REPAIR_LIMIT, node.name, f"the day's repairs are spent: {fault.words}"
    elif ladder.step is None:
        cannot = f"it calls for a {ladder.wanted}, which {node.provider} cannot do"
        yield Page.REPAIR_NEEDED, node.name, f"{fault.words}; {cannot}"
    elif fleet_spent(look):
        yield Page.REPAIR_LIMIT, node.cluster, FLEET_SPENT


def _unreachable(look: Look, node: Node) -> bool:
    if node.state is NodeState.REPAIRING:
        return False
    return look.lasts(look.belief(node.name).unreached_since, look.policy.silence_max)


def _of_job(look: Look, job: Job) -> Iterator[Wrong]:
    if job.state is JobState.FAILED and look.recent(job.since, DAY):
        yield Page.JOB_FAILED, job.name, job.reason
    if job.state in OVER:
        return
    register = look.register(job.name)
    if look.lasts(register.silent_since, look.policy.silence_max):
        yield Page.REGISTER_UNREACHABLE, job.name, register.error
    waits = job.attempts > 0 or look.lasts(job.since, look.policy.patience)
    if job.state is JobState.PENDING and waits:
        yield Page.NO_SPARE, job.name, f"no cluster has {job.spec.nodes_min} fit nodes for it"
    yield from _of_move(look, job)


def _of_move(look: Look, job: Job) -> Iterator[Wrong]:
    """Tell of a job that lost its cluster until it runs elsewhere and the old attempt is closed."""
    mine = look.attempts_of(job.name)
    moved = [attempt for attempt in mine if attempt.outcome is Outcome.MOVED]
    if moved:
        yield Page.CLUSTER_LOST, job.name, moved[-1].reason
        return
    if look.incident(Page.CLUSTER_LOST, job.name) is None:
        return
    if not any(read_gang(look, one).members for one in mine if one.state in LIVE):
        yield Page.CLUSTER_LOST, job.name, "it does not run elsewhere yet"


def _of_attempt(look: Look, attempt: Attempt) -> Iterator[Wrong]:
    short = shortage(look, attempt)
    if short is not None:
        yield Page.NO_SPARE, attempt.job, short
    weighed = weigh(look, attempt)
    if weighed.shared is not None:
        yield Page.SHARED_CAUSE, attempt.job, weighed.shared
    if (links := shared_links(look, attempt)) is not None:
        yield Page.SHARED_CAUSE, attempt.job, links
    for node, judgement in weighed.condemned:
        kept = stays(look, attempt, node, judgement)
        if kept is not None:
            yield Page.NO_SPARE, attempt.job, f"{node.name}: {judgement.words}; {kept}"
            break
        refused = refusal(look, node)
        if refused is not None:
            yield Page.EVICTION_LIMIT, attempt.cluster, f"{node.name}: {judgement.words}; {refused}"
            break
    yield from _of_generations(look, attempt)
    yield from _of_notes(look, attempt)


def _of_generations(look: Look, attempt: Attempt) -> Iterator[Wrong]:
    register = look.register(attempt.job)
    seen = register.seen
    if seen is None or seen.fence is None or seen.fence.attempt != attempt.number:
        return
    committed = seen.commit.seq if seen.commit is not None else 0
    for generation in seen.generations:
        if generation.seq < committed:
            continue
        if generation.because.cause is Cause.VERIFICATION:
            yield Page.BAD_CHECKPOINT, attempt.job, generation.why
        elif TWICE in generation.why:
            yield Page.POISON_CHECKPOINT, attempt.job, generation.why
    again = [g for g in seen.generations if g.because.cause not in (Cause.START, Cause.GRANT)]
    formed = register.formed
    if again and formed and look.recent(formed[1], look.policy.restarts_window):
        because = again[-1].because
        where = f" on {because.node}" if because.node else ""
        yield Page.RESTARTS, attempt.job, f"re-formed by itself: {because.cause.value}{where}"


def _of_notes(look: Look, attempt: Attempt) -> Iterator[Wrong]:
    culprit = who_stalls(look, attempt)
    copier = _copier(look, attempt)
    for name, agent in look.agents(attempt):
        if not agent.notes or agent.report is None or not live(agent):
            continue
        notes = {note.kind: note for note in agent.notes}
        failed, stalled = notes.get("commit-failed"), notes.get("suspected")
        if failed is not None and not _followed(failed, notes.get("commit")):
            yield Page.COMMIT_FAILED, attempt.job, f"{name}: {failed.text}"
        behind = notes.get("replica-behind") if name == copier else None
        if behind is not None and not _followed(behind, notes.get("replicated")):
            yield Page.REPLICA_BEHIND, attempt.job, f"{name}: {behind.text}"
        running = agent.report.stage is Stage.RUNNING  # a note outlives the ranks it is about
        if not running or stalled is None or _followed(stalled, notes.get("generation-formed")):
            continue
        if not 0 < stalled.at < EPOCH_MAX:
            continue
        since = datetime.fromtimestamp(stalled.at, UTC)
        if culprit is not None and look.lasts(since, look.policy.suspicion_min / 2):
            yield Page.HANG_SUSPECTED, attempt.job, culprit
        if not _progressed(agent.report, stalled) and look.lasts(since, look.policy.suspicion_min):
            yield Page.HANG_SUSPECTED, attempt.job, f"{name}: {stalled.text}"


def _copier(look: Look, attempt: Attempt) -> str | None:
    """Return the node that has checkpoints copied to replicas: the last generation's first."""
    seen = look.register(attempt.job).seen
    return seen.generations[-1].members[0].node if seen and seen.generations else None


def _followed(note: Note, other: Note | None) -> bool:
    return other is not None and other.number > note.number


def _progressed(report: AgentReport, note: Note) -> bool:
    """Say whether every rank there completed a step after the note (both on the node's clock)."""
    moments = [rank.step_at for rank in report.ranks]
    return bool(moments) and all(at is not None and at > note.at for at in moments)
