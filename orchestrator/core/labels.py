"""What came of each firing, and what that does to its detector's authority.

Derived from the level, like everything that `reconcile` decides, and written down once: a firing
is *right* if within `CONFIRM` somebody independent confirms it, *wrong* if the node passes burn-in
(or stays in service) and then serves `SERVE` without that, *unknown* if neither has come after
`GIVE_UP`. Independent is another channel, the gang's own record, a person, a part that the provider
changed, or another check that fails in burn-in. What follows from the firing itself (its eviction,
its repair, the same check firing again) confirms nothing. Nor does good service refute everything:
a repair may have mended what was there, another machine under the name says nothing of the one that
fired. After those a firing is refuted only if a gang trained on the node until it was taken out.
"""

from __future__ import annotations

from datetime import timedelta

from orchestrator.core.beliefs import NodeBelief
from orchestrator.core.decisions import LabelFiring, SetAuthority
from orchestrator.core.firings import Firing, FiringLabel
from orchestrator.core.look import LIVE, Look
from orchestrator.core.nodes import HELD_BACK, Node, NodeState
from orchestrator.core.orders import operators
from orchestrator.runtime.lineage import Cause
from orchestrator.runtime.reports import Stage

S = NodeState
CONFIRM = timedelta(days=7)  #: a confirmation that comes later is another fault
SERVE = timedelta(days=7)  #: IN_USE time without a confirmation: the firing was wrong
GIVE_UP = timedelta(days=28)
TOGETHER = timedelta(minutes=10)  #: between a firing and the gang's own failure on that node
#: Why a gang formed anew when it was a member's fault; a mere new grant is none.
FAILURES = frozenset({Cause.RANK_EXIT, Cause.RANK_STOPPED, Cause.HANG, Cause.NODE_LOST})
TOLD = frozenset(cause.value for cause in FAILURES)
#: Of an agent whose gang stands: it looks for a next generation, or for the nodes of one.
STANDING = frozenset({Stage.FORMING, Stage.WAITING})
OUT_OF_SERVICE = frozenset({S.BURN_IN, S.RETIRED, *HELD_BACK})


def label_firings(look: Look, node: Node) -> None:
    """Label every firing of a node that can be labelled by now."""
    belief = look.belief(node.name)
    for firing in belief.firings:
        if firing.label is not None:
            continue
        if (why := _confirmed(look, node, belief, firing)) is not None:
            _label(look, node, firing, FiringLabel.RIGHT, why)
        elif (why := _refuted(look, node, firing)) is not None:
            _label(look, node, firing, FiringLabel.WRONG, why)
        elif look.due(firing.first_at + GIVE_UP):
            why = f"neither confirmed nor refuted within {GIVE_UP.days} days"
            _label(look, node, firing, FiringLabel.UNKNOWN, why)


def set_authority(look: Look, _: str) -> None:
    """Promote and demote detectors as their labels say."""
    for name, detector in sorted(look.detectors().items()):
        due = detector.due(look.authority(name))
        if due is not None:
            look.do(SetAuthority(name, *due))


def _label(look: Look, node: Node, firing: Firing, label: FiringLabel, reason: str) -> None:
    look.do(LabelFiring(node.name, firing.detector, firing.channel, firing.first_at, label, reason))


def _confirmed(look: Look, node: Node, belief: NodeBelief, firing: Firing) -> str | None:
    """Return who confirmed a firing, if anybody did in time."""
    start, end = firing.first_at, firing.first_at + CONFIRM
    for other in belief.firings:
        together = other.critical and other.first_at <= end and other.last_at >= start
        if together and other.channel is not firing.channel:
            return f"{other.detector} says so too, through another channel ({other.channel})"
        tested = node.state is S.BURN_IN and start < node.since <= other.last_at <= end
        if tested and other.critical and other.detector != firing.detector:
            return f"it did not pass burn-in either: {other.detector}"
    cordon = node.cordon
    held = node.state is S.QUARANTINED and operators(cordon)
    if cordon is not None and held and start <= cordon.since <= end:
        return f"{cordon.owner} put it in quarantine: {cordon.reason}"
    if node.swapped_at is not None and start <= node.swapped_at <= end:
        return "its provider changed a part of it"
    return _blamed(look, node, firing)


def _blamed(look: Look, node: Node, firing: Firing) -> str | None:
    """Return which gang lost its generation to this node when the detector fired.

    The register tells it once the next generation is formed. A gang that lacks nodes forms none
    for hours: what its agents say of the last one's end is heard as long as it stands.
    """
    for job in look.jobs():
        seen = look.register(job.name).seen
        for generation in seen.generations if seen is not None else ():
            because = generation.because
            blamed = because.node == node.name and because.cause in FAILURES
            apart = abs(generation.at - firing.first_at.timestamp())
            if blamed and apart <= TOGETHER.total_seconds():
                return f"{job.name} failed on it just then: {because.cause.value}"
    return _mourned(look, node, firing)


def _mourned(look: Look, node: Node, firing: Firing) -> str | None:
    """Return which gang stands, as an agent of it tells, since it failed on this node just now."""
    if not look.recent(firing.first_at, 2 * TOGETHER):
        return None
    for attempt in look.attempts(LIVE):
        for _, agent in look.agents(attempt):
            report, answered_at = agent.report, agent.answered_at
            if report is None or answered_at is None or report.stage not in STANDING:
                continue
            cause, culprit = str(report.failure.get("cause")), report.failure.get("node")
            if culprit != node.name or cause not in TOLD:
                continue
            if abs(answered_at - firing.first_at) <= TOGETHER:
                return f"{attempt.job} failed on it just then: {cause}"
    return None


def _refuted(look: Look, node: Node, firing: Firing) -> str | None:
    """Return that a node served long enough since it fired, and passed burn-in.

    `Node.served` counts from the last burn-in on. What was served between that and a later firing
    is taken off as if the node had been seated all the while: never too little is asked.
    """
    if node.state in OUT_OF_SERVICE or _may_be_mended(node, firing):
        return None
    accepted_at = node.accepted_at or node.since
    wanted = SERVE + max(timedelta(0), firing.first_at - accepted_at)
    if node.state is S.IN_USE:
        enough = look.due(node.since + wanted - node.served)
    else:
        enough = node.served >= wanted
    passed = "passed burn-in and served" if accepted_at > firing.first_at else "served"
    return f"it {passed} {SERVE.days} days without a confirmation" if enough else None


def _may_be_mended(node: Node, firing: Firing) -> bool:
    """Say whether good service says nothing: what fired may have been mended, or is elsewhere.

    A gang that trained on the node until it was taken out speaks against the firing all the same:
    what breaks ranks would have broken them.
    """
    if any(former.until >= firing.first_at for former in node.former):
        return True
    at, fault = firing.first_at, firing.detector
    steps, troubles = node.history.steps, node.history.troubles
    repaired = any(step.at >= at and step.fault == fault for step in steps)
    trained = any(one.trained and one.at >= at and one.fault == fault for one in troubles)
    return repaired and not trained
