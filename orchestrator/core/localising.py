"""When pairs of nodes are tested after an incident, which, and when to stop.

A gang whose generation ended in a hang or a collective's time-out, with no fault on any of its
nodes and no rank named by its stack, leaves the question where the cause is. Then its members are
tested, with a few idle nodes that are well, so that small gangs can be told apart; round after
round, by `localise`. While ranks run there, only the hosts' own network is tested, briefly; the
GPUs' rails where none runs. What came of it is folded into the beliefs by `links`, and the rules
for evidence and eviction decide: nothing is evicted here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from orchestrator.core.beliefs import LinkBelief
from orchestrator.core.decisions import Examine, TestPairs
from orchestrator.core.enact import LOCALISATION
from orchestrator.core.gang import read_gang
from orchestrator.core.jobs import Attempt, AttemptState
from orchestrator.core.links import state_of, verdict
from orchestrator.core.localise import Outcome
from orchestrator.core.look import HOUR, Look
from orchestrator.core.nodes import IDLE, SEATED, Node, NodeName, NodeState
from orchestrator.core.observations import Inquiry
from orchestrator.core.stalls import stall, who_stalled
from orchestrator.core.verdicts import Verdict
from orchestrator.runtime.lineage import Cause, Generation
from orchestrator.runtime.reports import Stage

#: The last line of a rank that lost its peers: what it waited for, not why.
COLLECTIVE = re.compile(
    r"nccl|processgroup|gloo|all_?reduce|all_?gather|reduce_?scatter|broadcast|barrier|"
    r"collective|watchdog|connection (?:closed|reset) by peer|timed? ?out waiting",
    re.IGNORECASE,
)
ENOUGH = 6  #: nodes with which one bad one is surely told apart
FRESH = timedelta(minutes=10)  #: an older incident is not looked into any more
ROUND_LIMIT = timedelta(minutes=5)  #: a localisation whose next round did not come is over


@dataclass(frozen=True, slots=True)
class Unclear:
    """An incident that nobody explained."""

    generation: Generation  #: that ended
    words: str


def localise(look: Look, attempt: Attempt) -> None:
    """Ask for the next round of an attempt's localisation, or begin one if there is a question."""
    if attempt.state is not AttemptState.OPEN or look.policy.localisations_per_hour < 1:
        return
    links = _newest(look, attempt)
    if links is not None and _goes_on(look, attempt, links):
        _next_round(look, links)
        return
    unclear = question(look, attempt)
    if unclear is None:
        return
    inquiry = _inquiry(look, attempt, unclear.generation)
    if inquiry.name in look.links() or len(inquiry.nodes) < 2:
        return
    if not look.exhausted(
        look.used(LOCALISATION, attempt.job, HOUR), look.policy.localisations_per_hour, HOUR
    ):
        _ask(look, LinkBelief(inquiry), unclear.words)


def shared_links(look: Look, attempt: Attempt) -> str | None:
    """Return what people must know of tests that fail all over; None if the last ones did not."""
    links = _newest(look, attempt)
    if links is None or not look.recent(links.tested_at, look.policy.evidence_age):
        return None
    found = verdict(links)
    if found is None or found.outcome is not Outcome.SHARED:
        return None
    return f"tests between the nodes of {attempt.job}: {found.reason}; nobody is evicted"


def question(look: Look, attempt: Attempt) -> Unclear | None:
    """Return what happened to an attempt lately that nobody explained; None if all is clear."""
    register = look.register(attempt.job)
    seen, formed = register.seen, register.formed
    if seen is None or seen.fence is None or seen.fence.attempt != attempt.number:
        return None
    if seen.generations and (standing := _standing(look, attempt, seen.generations[-1])):
        return standing
    if len(seen.generations) < 2 or formed is None or not look.recent(formed[1], FRESH):
        return None
    last, because = seen.generations[-1], seen.generations[-1].because
    before = next((one for one in seen.generations if one.seq == last.after), None)
    if before is None or formed[0] != last.seq:
        return None
    waited = because.cause is Cause.RANK_EXIT and COLLECTIVE.search(because.fingerprint)
    if because.cause is not Cause.HANG and not waited:
        return None
    if _explained(look, before) or who_stalled(look, attempt) is not None:
        return None
    what = "a hang" if because.cause is Cause.HANG else because.fingerprint
    return Unclear(before, f"{attempt.job}: {what}, and no fault on any of its nodes")


def _standing(look: Look, attempt: Attempt, now: Generation) -> Unclear | None:
    """Return the question of a gang whose ranks all wait at this moment, none of them elsewhere."""
    found = stall(look, attempt)
    if not found.whole or found.culprit() is not None or _explained(look, now):
        return None
    since = datetime.fromtimestamp(found.since, UTC)
    if not look.lasts(since, look.policy.suspicion_min):
        return None
    return Unclear(now, f"{attempt.job}: all {found.ranks} ranks wait for each other")


def _explained(look: Look, generation: Generation) -> bool:
    """Say whether a member shows a fault that explains why its gang stopped."""
    for member in generation.members:
        node = look.node(NodeName(member.node))
        if node is None:
            continue
        belief = look.belief(node.name)
        silent = belief.power_off or belief.unreached_since is not None
        if silent or look.judge(node).explicit:
            return True
    return False


def _newest(look: Look, attempt: Attempt) -> LinkBelief | None:
    run = (attempt.job, attempt.number)
    mine = [one for one in look.links().values() if (one.inquiry.job, one.inquiry.attempt) == run]
    return max(mine, key=lambda one: one.inquiry.occasion, default=None)


def _goes_on(look: Look, attempt: Attempt, links: LinkBelief) -> bool:
    """Say whether a localisation has a next round, and its nodes are still there to be tested."""
    if not look.recent(links.tested_at, ROUND_LIMIT) or not state_of(links).next_round():
        return False
    if not links.rounds[-1].rates:
        return False  # nobody could be tested
    if links.inquiry.gpu is not None and _runs(look, attempt):
        return False  # ranks came back to the GPUs
    nodes = [look.node(name) for name in links.inquiry.nodes]
    return all(node is not None and _testable(look, attempt, node) for node in nodes)


def _next_round(look: Look, links: LinkBelief) -> None:
    _ask(look, links, f"{links.inquiry.job}: which of {len(links.inquiry.nodes)} nodes it is")


def _ask(look: Look, links: LinkBelief, reason: str) -> None:
    inquiry, state = links.inquiry, state_of(links)
    pairs = tuple((NodeName(left), NodeName(right)) for left, right in state.next_round())
    run = (inquiry.job, inquiry.attempt, inquiry.occasion)
    look.ask(TestPairs(*run, state.rounds, inquiry, pairs, reason))


def _inquiry(look: Look, attempt: Attempt, ended: Generation) -> Inquiry:
    """Return who is to be tested: the members, and nodes that are well where members are few."""
    names = {NodeName(one.node) for one in ended.members}
    known = [one for one in look.nodes_in(attempt.cluster) if _testable(look, attempt, one)]
    members = [one for one in known if one.name in names]
    well = [one for one in known if one.name not in names and _well(look, one)]
    nodes = (*members, *well[: max(0, ENOUGH - len(members))])
    rails = all(one.machine.accelerators for one in nodes) and not _runs(look, attempt)
    return Inquiry(
        attempt.job,
        attempt.number,
        ended.seq,
        attempt.cluster,
        tuple(sorted(one.name for one in nodes)),
        0 if rails else None,
    )


def _testable(look: Look, attempt: Attempt, node: Node) -> bool:
    """Say whether a node may be tested: ours, or nobody's, and it answers."""
    mine = node.state in SEATED and (node.job, node.attempt) == (attempt.job, attempt.number)
    free = node.state in IDLE and node.cordon is None
    free = free and not look.under_way(Examine, node.name)
    return (mine or free) and look.belief(node.name).unreached_since is None


def _well(look: Look, node: Node) -> bool:
    return node.state is not NodeState.DRAINING and look.judge(node).verdict is Verdict.FIT


def _runs(look: Look, attempt: Attempt) -> bool:
    """Say whether ranks of an attempt run anywhere."""
    reports = read_gang(look, attempt).reports.values()
    return any(one.stage in (Stage.RUNNING, Stage.FORMING) for one in reports)
