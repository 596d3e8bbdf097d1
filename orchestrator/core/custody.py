"""Nodes outside the gangs' daily life: enlisted, burnt in, kept back, repaired.

Absence is never death: not an empty list, not an API error, not a node that cannot be reached.
Only a provider that vouches that a machine is off, or a new boot, proves something. A node held
back by a person's cordon is left alone until that person releases it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from orchestrator.core.decisions import Enlist, MoveNode, Repair, RepairStep
from orchestrator.core.look import DAY, Look
from orchestrator.core.nodes import ClusterName, Node, NodeState
from orchestrator.core.observations import Power
from orchestrator.core.orders import operators
from orchestrator.core.verdicts import Verdict

S = NodeState
HELD_BACK = frozenset({S.QUARANTINED, S.REPAIRING})
RETRY_LOOKS = 5  #: looks between the first two tries of a repair that came to nothing
RETRY_DOUBLINGS = 10  #: that pause doubles so often: a dead cluster is not asked every second


def tend_node(look: Look, node: Node) -> None:
    """Move on a node that nobody else decides about."""
    match node.state:
        case S.BURN_IN:
            _burn_in(look, node)
        case S.SPARE | S.PROBATION:
            _keep_spare(look, node)
        case S.IN_USE | S.STANDBY | S.DRAINING:
            _leave_if_off(look, node)
        case S.QUARANTINED:
            _quarantined(look, node)
        case S.REPAIRING:
            _repairing(look, node)
        case S.RETIRED:
            pass


def share_left(look: Look, cluster: ClusterName) -> bool:
    """Say whether one more node of this cluster may be held back: a share, but always one."""
    nodes = [node for node in look.nodes_in(cluster) if node.state is not S.RETIRED]
    held = [n for n in nodes if n.state in HELD_BACK and not operators(n.cordon)]
    return len(held) < max(1, int(look.policy.quarantine_share * len(nodes) + 1e-9))


def needs_repair(look: Look, node: Node) -> str | None:
    """Return what only a repair can mend; None if nothing speaks against the node."""
    belief, judgement = look.belief(node.name), look.judge(node)
    if belief.power_off:
        return "its provider says that it is off"
    if judgement.verdict is Verdict.UNFIT or judgement.broken:
        return judgement.words
    if look.lasts(belief.unreached_since, look.policy.silence_max):
        return f"unreachable: {belief.unreached_error}"
    return None


def repairs_spent(look: Look, node: Node) -> bool:
    """Say whether the node's budget of reboots is spent."""
    return look.exhausted(look.reboots(node.name), look.policy.reboots_per_day, DAY)


def repairable(look: Look, node: Node) -> bool:
    """Say whether a reboot by the provider is possible at all."""
    cluster = look.cluster(node.cluster)
    return look.policy.repair and cluster is not None and RepairStep.REBOOT in cluster.can


def enlist_new(look: Look, _: str) -> None:
    """Take every machine that a provider lists as running into the fleet."""
    for name in look.unlisted():
        belief = look.belief(name)
        if belief.seen is None or belief.cluster is None:
            continue
        if belief.seen.power is Power.RUNNING and look.cluster(belief.cluster) is not None:
            reason = f"{belief.provider or 'its provider'} lists it"
            look.do(Enlist(belief.cluster, belief.provider, belief.seen, reason))


def _burn_in(look: Look, node: Node) -> None:
    belief, judgement = look.belief(node.name), look.judge(node)
    if belief.power_off:
        _give_up(look, node)
    elif judgement.broken:
        look.do(MoveNode(node.name, S.BURN_IN, S.QUARANTINED, judgement.words))
    elif judgement.verdict is Verdict.FIT and belief.unreached_since is None:
        probed = belief.probed_at is not None and belief.probed_at > node.since
        if probed and look.due(node.since + look.policy.burn_in):
            lasted = f"{look.policy.burn_in.total_seconds():g} s of burn-in without a finding"
            look.do(MoveNode(node.name, S.BURN_IN, S.SPARE, lasted))


def _keep_spare(look: Look, node: Node) -> None:
    if look.belief(node.name).power_off:
        _give_up(look, node)
        return
    judgement = look.judge(node)
    unfit = judgement.verdict is Verdict.UNFIT or judgement.broken
    if unfit and share_left(look, node.cluster):
        look.do(MoveNode(node.name, node.state, S.QUARANTINED, judgement.words))


def _leave_if_off(look: Look, node: Node) -> None:
    if look.belief(node.name).power_off:
        _give_up(look, node)


def _give_up(look: Look, node: Node) -> None:
    """Take a machine that is off from its place; its provider may start it again."""
    reason = "its provider says that it is off: nothing runs there"
    mine = not operators(node.cordon)
    mend = mine and repairable(look, node) and not repairs_spent(look, node)
    look.do(MoveNode(node.name, node.state, S.REPAIRING if mend else S.QUARANTINED, reason))


def _quarantined(look: Look, node: Node) -> None:
    if operators(node.cordon):
        return
    fault = needs_repair(look, node)
    if fault is None:
        if not look.unreached(node.name) and _quiet(look, node):
            reason = "nothing speaks against it any more"
            look.do(MoveNode(node.name, S.QUARANTINED, S.BURN_IN, reason))
        return
    if not repairable(look, node) or repairs_spent(look, node):
        return
    if _quiet(look, node) or look.lasts(node.since, look.policy.silence_max):
        look.do(MoveNode(node.name, S.QUARANTINED, S.REPAIRING, f"to be rebooted: {fault}"))


def _quiet(look: Look, node: Node) -> bool:
    """Say whether every agent ever seen there is proven gone."""
    return all(agent.gone_at is not None for agent in look.belief(node.name).agents)


def _repairing(look: Look, node: Node) -> None:
    belief = look.belief(node.name)
    booted_at = belief.booted_at
    if booted_at is not None and booted_at > node.since and not belief.power_off:
        reason = f"repaired: a new boot ({belief.boot_id})"
        look.do(MoveNode(node.name, S.REPAIRING, S.BURN_IN, reason))
        return
    if look.under_way(Repair, node.name):
        return
    reboots = look.reboots(node.name)
    tried = bool(reboots) and reboots[-1] >= node.since
    if tried and not look.due(reboots[-1] + _patience(look, node, reboots)):
        return
    if repairs_spent(look, node) or not repairable(look, node):
        reason = f"{len(reboots)} reboots within a day did not bring it back"
        look.do(MoveNode(node.name, S.REPAIRING, S.QUARANTINED, reason))
        return
    look.ask(Repair(node.name, RepairStep.REBOOT, len(reboots), node.reason))


def _patience(look: Look, node: Node, reboots: list[datetime]) -> timedelta:
    """Return how long to wait for a reboot: long, unless we know that it came to nothing."""
    ended_well = look.outcome(Repair(node.name, RepairStep.REBOOT, len(reboots) - 1, ""))
    belief = look.belief(node.name)
    listed = belief.seen_at is not None and belief.seen_at > reboots[-1]
    still_off = ended_well is None and belief.power_off and listed
    if ended_well is False or still_off:
        failed = sum(moment >= node.since for moment in reboots)
        doublings: int = 1 << max(0, min(failed - 1, RETRY_DOUBLINGS))
        return look.policy.look_every * RETRY_LOOKS * doublings
    return look.policy.repair_wait
