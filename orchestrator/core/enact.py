"""What a decision changes in the ledger's state: pure, the same for daemon, simulator and tests.

The daemon applies `LedgerOnly` decisions in order with `enact`, and enters the others as intents
with `intend`; the ledger persists whatever part of the fleet became another object. Nothing here
decides anything: an unlawful move raises, it is never bent into a lawful one.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from orchestrator.core.decisions import (
    Accept,
    CloseIncident,
    Decision,
    Effect,
    EndTrial,
    Enlist,
    Examine,
    Incident,
    Intent,
    IssueGrant,
    LabelFiring,
    LedgerOnly,
    MoveAttempt,
    MoveJob,
    MoveNode,
    OpenAttempt,
    OpenIncident,
    Renew,
    Repair,
    SetAuthority,
    SetCadence,
    SetCordon,
    SettleOrder,
    SetVault,
    StartAgent,
    TestPairs,
    key,
)
from orchestrator.core.detectors import Detector, Label
from orchestrator.core.firings import FiringLabel
from orchestrator.core.fleet import Fleet, Used
from orchestrator.core.history import ACCUSED, History, RepairStep, same_machine, serials
from orchestrator.core.jobs import (
    ATTEMPT_MOVES,
    JOB_MOVES,
    Attempt,
    AttemptState,
    Job,
    JobState,
    Outcome,
    SeatGrant,
    UnlawfulStepError,
)
from orchestrator.core.nodes import (
    FORMER_MAX,
    HELD_BACK,
    IDLE,
    SEATED,
    CohortName,
    Former,
    JobName,
    Node,
    NodeName,
    NodeState,
    ProviderName,
    UnlawfulMoveError,
)
from orchestrator.core.sheets import but

EXAMINATION = "examination"  #: the budget of a cluster's active checks
LOCALISATION = "localisation"  #: the budget of a job's localisations
ANSWERED_MAX = 500  #: numbers of settled orders that are remembered


def enact(fleet: Fleet, decision: LedgerOnly, at: datetime) -> Fleet:
    """Return the fleet after a decision that changes nothing but the ledger.

    Raises `UnlawfulMoveError` or `UnlawfulStepError` if the subject is not where the decision
    found it (compare and set), `KeyError` if it does not exist.
    """
    match decision:
        case Enlist() | Renew() | MoveNode() | EndTrial() | SetCordon():
            return _change_node(fleet, decision, at)
        case Accept() | MoveJob():
            return _change_job(fleet, decision, at)
        case SetVault():
            job = _rehoused(fleet.jobs[decision.job], decision)
            return replace(fleet, jobs=but(fleet.jobs, job.name, job))
        case OpenAttempt() | MoveAttempt() | IssueGrant() | SetCadence():
            return _change_attempt(fleet, decision, at)
        case SettleOrder():
            return _settle_order(fleet, decision)
        case LabelFiring():
            return _label_firing(fleet, decision, at)
        case SetAuthority():
            return _set_authority(fleet, decision, at)
        case OpenIncident():
            incident = Incident(decision.page, decision.subject, at, decision.reason)
            return replace(fleet, incidents=(*fleet.incidents, incident))
        case CloseIncident():
            named = (decision.page, decision.subject)
            left = tuple(i for i in fleet.incidents if (i.page, i.subject) != named)
            return replace(fleet, incidents=left)


def intend(fleet: Fleet, decision: Effect, *, token: int, limit: timedelta) -> Fleet:
    """Return the fleet after a decision that touches the world was written down as an intent."""
    intent = Intent(key(decision), decision, fleet.now, fleet.now + limit, token)
    used = uses(fleet, decision, fleet.now)
    return replace(
        fleet,
        intents=(*fleet.intents, intent),
        used=fleet.used if used is None else (*fleet.used, used),
    )


def uses(fleet: Fleet, decision: Decision, at: datetime) -> Used | None:
    """Say what a decision counts against; None if against nothing.

    Evictions count when enacted, starts and reboots when intended (whatever comes of them).
    """
    match decision:
        case MoveNode(node=node, counts=counts) if counts:
            return Used(counts, cohort_subject(fleet.nodes[node]), at)
        case StartAgent(node=node, job=job, attempt=attempt):
            return Used("agent-start", start_subject(node, job, attempt), at)
        case Repair(node=node, step=step):
            return Used(str(step), node, at)
        case Examine(cluster=cluster):
            return Used(EXAMINATION, cluster, at)
        case TestPairs(job=job, round=0):
            return Used(LOCALISATION, job, at)
        case _:
            return None


def cohort_subject(node: Node) -> str:
    """Return the subject under which evictions are counted: "cluster/cohort"."""
    return f"{node.cluster}/{node.cohort}"


def start_subject(node: str, job: str, attempt: int) -> str:
    """Return the subject under which starts of an agent are counted."""
    return f"{node}/{job}/{attempt}"


NodeDecision = Enlist | Renew | MoveNode | EndTrial | SetCordon


def _change_node(fleet: Fleet, decision: NodeDecision, at: datetime) -> Fleet:
    node = _changed(fleet, decision, at)
    used = uses(fleet, decision, at)
    return replace(
        fleet,
        nodes=but(fleet.nodes, node.name, node),
        used=fleet.used if used is None else (*fleet.used, used),
    )


def _changed(fleet: Fleet, decision: NodeDecision, at: datetime) -> Node:
    match decision:
        case Enlist(seen=seen):
            known = fleet.nodes.get(seen.node)
            if known is not None:
                raise UnlawfulMoveError(seen.node, known.state, NodeState.BURN_IN)
            return _enlisted(decision, at)
        case Renew(node=name):
            return _renewed(fleet.nodes[name], decision, at, _history_until(fleet, name))
        case MoveNode(node=name):
            return _moved(fleet.nodes[name], decision, at)
        case EndTrial(node=name):
            return replace(fleet.nodes[name], trial_since=None)
        case SetCordon(node=name, cordon=cordon):
            return replace(fleet.nodes[name], cordon=cordon)


def _enlisted(decision: Enlist, at: datetime) -> Node:
    return Node(
        name=decision.seen.node,
        cluster=decision.cluster,
        provider=ProviderName(decision.provider),
        cohort=CohortName(decision.seen.cohort),
        machine=decision.seen.machine,
        state=NodeState.BURN_IN,
        since=at,
        reason=decision.reason,
        cordon=decision.cordon,
        history=decision.history,
        kin=decision.kin,
    )


def _history_until(fleet: Fleet, name: NodeName) -> datetime | None:
    """Return the moment up to which findings are of the machine before the one now listed.

    A listing may show the new machine before it has said a word: what we know was found on the old
    one. Once it has told a boot of its own, `assess` has dropped the older findings.
    """
    belief, since = fleet.beliefs.nodes.get(name), fleet.nodes[name].since
    if belief is None or (belief.booted_at is not None and belief.booted_at > since):
        return None
    return max((finding.observed_at for finding in belief.findings), default=None)


def _renewed(node: Node, decision: Renew, at: datetime, history_until: datetime | None) -> Node:
    """Enter another machine under a name where nothing runs, or describe the same one anew."""
    if not decision.fresh:
        swapped = _swapped(node.machine.serials, decision.machine.serials)
        swapped_at = at if swapped else node.swapped_at
        return replace(node, machine=decision.machine, swapped_at=swapped_at)
    if node.state in SEATED:
        raise UnlawfulMoveError(node.name, node.state, NodeState.BURN_IN)
    former = node.former
    if not same_machine(node.machine.serials, decision.machine.serials):
        former = (*former, Former(node.machine, node.history, at))[-FORMER_MAX:]
    return replace(
        node,
        machine=decision.machine,
        state=NodeState.BURN_IN,
        since=at,
        reason=decision.reason,
        incarnation=node.incarnation + 1,
        cordon=node.cordon or decision.cordon,  # a person's word about this name goes on
        pardoned_at=history_until,
        trial_since=None,
        accepted_at=None,
        served=timedelta(0),
        swapped_at=None,
        step=None,
        history=decision.history,
        former=former,
        kin=decision.kin,
    )


def _swapped(old: tuple[str, ...], new: tuple[str, ...]) -> bool:
    """Say whether a part of one machine was changed: serials are told, and not the same ones."""
    return bool(serials(old)) and bool(serials(new)) and serials(old) != serials(new)


def _moved(node: Node, decision: MoveNode, at: datetime) -> Node:
    if node.state is not decision.start:
        raise UnlawfulMoveError(node.name, node.state, decision.end)
    moved = node.move(decision.end, at=at, reason=decision.reason)
    moved = replace(moved, history=_remembered(node, decision, at), step=decision.step)
    if decision.end is NodeState.QUARANTINED and decision.fault == ACCUSED:
        moved = replace(moved, trial_since=node.trial_since)
    if decision.end in SEATED and decision.job is not None:
        moved = replace(moved, job=decision.job, attempt=decision.attempt)
    released = decision.start in (NodeState.QUARANTINED, *IDLE) or node.step is RepairStep.RESET
    if decision.end is NodeState.BURN_IN and released:  # what was found before is history
        moved = replace(moved, pardoned_at=at, history=replace(moved.history, owed=""))
    return moved


def _remembered(node: Node, decision: MoveNode, at: datetime) -> History:
    """Return what the machine's history says after a move: its trouble, its repair, its pardon."""
    history = node.history
    if decision.end in HELD_BACK and node.state not in HELD_BACK and decision.fault:
        known = (decision.fault, decision.serial)
        history = history.troubled(at, *known, trained=decision.trained)
    if decision.step is not None:
        history = history.stepped(at, decision.step, decision.fault)
    return history.acquitted(at) if decision.acquitted else history


def _change_job(fleet: Fleet, decision: Accept | MoveJob, at: datetime) -> Fleet:
    old = fleet.jobs.get(decision.job)
    if isinstance(decision, Accept):
        if old is not None:
            raise UnlawfulStepError(old.name, old.state, JobState.PENDING)
        job = Job(decision.job, decision.spec, JobState.PENDING, submitted_at=at, since=at)
    else:
        job = fleet.jobs[decision.job]
        if decision.end not in JOB_MOVES[job.state]:
            raise UnlawfulStepError(job.name, job.state, decision.end)
        job = replace(job, state=decision.end, since=at)
    return replace(fleet, jobs=but(fleet.jobs, job.name, replace(job, reason=decision.reason)))


def _rehoused(job: Job, decision: SetVault) -> Job:
    """Return a job that goes on from another vault; its replicas are the others that it had."""
    url, launch = decision.url, dict(job.spec.launch)
    launch["replicas"] = [one for one in launch.get("replicas", ()) if one != url]
    if not launch["replicas"]:
        launch = {k: v for k, v in launch.items() if k not in ("replicas", "replicate")}
    spec = replace(job.spec, register=url, checkpoints=url, launch=launch)
    former = job.former if decision.lost else job.attempts
    return replace(job, spec=spec, former=former)


def _change_attempt(
    fleet: Fleet, decision: OpenAttempt | MoveAttempt | IssueGrant | SetCadence, at: datetime
) -> Fleet:
    if isinstance(decision, OpenAttempt):
        return _opened(fleet, decision, at)
    old = _attempt(fleet, decision.job, decision.attempt)
    if isinstance(decision, IssueGrant):
        new = replace(old, grant=_grant(decision, at))
    elif isinstance(decision, SetCadence):
        new = replace(old, every=decision.every)
    else:
        new = _stepped(old, decision, at)
        fleet = _counted(fleet, decision)
    attempts = tuple(new if attempt is old else attempt for attempt in fleet.attempts)
    return replace(fleet, attempts=_kept(fleet, attempts))


def _stepped(attempt: Attempt, decision: MoveAttempt, at: datetime) -> Attempt:
    if decision.end not in ATTEMPT_MOVES[attempt.state]:
        subject = f"attempt {attempt.number} of {attempt.job}"
        raise UnlawfulStepError(subject, attempt.state, decision.end)
    outcome = decision.outcome or attempt.outcome
    moved = replace(attempt, state=decision.end, since=at, outcome=outcome)
    return replace(moved, reason=decision.reason)


def _grant(decision: IssueGrant, at: datetime) -> SeatGrant:
    return SeatGrant(
        decision.number,
        decision.nodes,
        decision.standbys,
        decision.addresses,
        issued_at=at,
        reason=decision.reason,
        abandoned=decision.abandoned,
    )


def _opened(fleet: Fleet, decision: OpenAttempt, at: datetime) -> Fleet:
    job = fleet.jobs[decision.job]
    if decision.attempt <= job.attempts:
        subject = f"attempt {decision.attempt} of {job.name}"
        raise UnlawfulStepError(subject, AttemptState.CLOSED, AttemptState.OPENING)
    attempt = Attempt(
        decision.job,
        decision.attempt,
        decision.cluster,
        AttemptState.OPENING,
        since=at,
        opened_at=at,
        reason=decision.reason,
    )
    jobs = but(fleet.jobs, job.name, replace(job, attempts=decision.attempt))
    fleet = replace(fleet, jobs=jobs)
    return replace(fleet, attempts=_kept(fleet, (*fleet.attempts, attempt)))


def _kept(fleet: Fleet, attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
    """Leave out what a snapshot leaves out: closed attempts that are not their job's last."""
    last = {name: job.attempts for name, job in fleet.jobs.items()}
    closed = AttemptState.CLOSED
    return tuple(a for a in attempts if a.state is not closed or a.number == last.get(a.job))


def _counted(fleet: Fleet, decision: MoveAttempt) -> Fleet:
    """Count failures with nothing committed in between, and those that have one fingerprint."""
    if decision.outcome is not Outcome.FAILED:
        return fleet
    job = fleet.jobs[decision.job]
    stands = job.commits == decision.commits
    same = stands and job.fingerprint == decision.fingerprint
    job = replace(
        job,
        fruitless=job.fruitless + 1 if stands else 1,
        fingerprint=decision.fingerprint,
        commits=decision.commits,
        alike=job.alike + 1 if same and job.alike else 1,
    )
    return replace(fleet, jobs=but(fleet.jobs, job.name, job))


def _attempt(fleet: Fleet, job: JobName, number: int) -> Attempt:
    for attempt in fleet.attempts:
        if (attempt.job, attempt.number) == (job, number):
            return attempt
    raise KeyError(f"attempt {number} of {job}")


def _settle_order(fleet: Fleet, decision: SettleOrder) -> Fleet:
    beliefs = fleet.beliefs
    left = tuple(order for order in beliefs.orders if order.number != decision.order)
    answered = tuple(sorted({*beliefs.answered, decision.order}))[-ANSWERED_MAX:]
    return replace(fleet, beliefs=replace(beliefs, orders=left, answered=answered))


def _label_firing(fleet: Fleet, decision: LabelFiring, at: datetime) -> Fleet:
    """Label one firing, once, and let its detector learn from it."""
    beliefs, name = fleet.beliefs, decision.detector
    belief = beliefs.nodes[decision.node]
    named = (name, decision.channel, decision.fired_at)
    mine = [f for f in belief.firings if (f.detector, f.channel, f.first_at) == named]
    if not mine:
        raise KeyError(f"a firing of {name} on {decision.node} at {decision.fired_at}")
    if mine[0].label is not None:
        raise UnlawfulStepError(f"{name} on {decision.node}", mine[0].label, decision.label)
    labelled = tuple(
        replace(one, label=decision.label) if one is mine[0] else one for one in belief.firings
    )
    detector = beliefs.detectors.get(name) or Detector(name)
    if decision.label is FiringLabel.UNKNOWN:
        detector = replace(detector, unlabelled=detector.unlabelled + 1)
    else:
        right = decision.label is FiringLabel.RIGHT
        label = Label(decision.node, decision.fired_at, at, right, decision.reason)
        detector = detector.told(label)
    beliefs = replace(
        beliefs,
        nodes={**beliefs.nodes, decision.node: replace(belief, firings=labelled)},
        detectors={**beliefs.detectors, name: detector},
    )
    return replace(fleet, beliefs=beliefs)


def _set_authority(fleet: Fleet, decision: SetAuthority, at: datetime) -> Fleet:
    """Give a detector another authority."""
    detectors, name = fleet.beliefs.detectors, decision.detector
    known = detectors[name]
    if known.authority is decision.authority:
        raise UnlawfulStepError(name, decision.authority, decision.authority)
    changed = known.given(decision.authority, at, decision.reason)
    beliefs = replace(fleet.beliefs, detectors={**detectors, name: changed})
    return replace(fleet, beliefs=beliefs)
