"""Nodes outside the gangs' daily life: enlisted, burnt in, on probation, kept back, repaired.

Absence is never death: not an empty list, not an API error, not a node that cannot be reached.
Only a provider that vouches that a machine is off, or a new boot, proves something. A node held
back by a person's cordon is left alone until that person releases it. Nothing comes back into
service but through burn-in.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from orchestrator.core.decisions import EndTrial, MoveNode, Repair, RepairStep
from orchestrator.core.history import LOST
from orchestrator.core.judge import Judgement
from orchestrator.core.kinship import give_up, quiet, renew
from orchestrator.core.look import Look
from orchestrator.core.nodes import HELD_BACK, IDLE, ClusterName, Node, NodeState
from orchestrator.core.orders import operators
from orchestrator.core.outlook import burn_in
from orchestrator.core.repair import (
    DOING,
    DONE,
    Need,
    can,
    fleet_spent,
    need,
    refusals,
    rung,
    spent,
)
from orchestrator.core.trust import trial_length, trusted
from orchestrator.core.verdicts import Verdict

S = NodeState
SUSPECTS_MIN = 2  #: that many suspects are never called a shared cause
RETRY_LOOKS = 5  #: looks between the first two tries of a repair that came to nothing
RETRY_DOUBLINGS = 10  #: that pause doubles so often: a dead cluster is not asked every second


def tend_node(look: Look, node: Node) -> None:
    """Move on a node that nobody else decides about."""
    if renew(look, node) or give_up(look, node):
        return
    match node.state:
        case S.BURN_IN:
            _burn_in(look, node)
        case S.SPARE | S.PROBATION:
            _keep_idle(look, node)
        case S.IN_USE | S.STANDBY | S.DRAINING:
            _keep_seated(look, node)
        case S.QUARANTINED:
            _quarantined(look, node)
        case S.REPAIRING:
            _repairing(look, node)
        case S.RETIRED:
            pass


def no_room(look: Look, node: Node, more: int = 1) -> str | None:
    """Return why no more nodes like this one may be held back: a share, but always one."""
    policy = look.policy
    here = [one for one in look.nodes_in(node.cluster) if one.state is not S.RETIRED]
    batch = [one for one in here if one.cohort == node.cohort]
    for nodes, share, where in (
        (here, policy.quarantine_share, node.cluster),
        (batch, policy.cohort_share, f"cohort {node.cohort} of {node.cluster}"),
    ):
        held = sum(one.held for one in nodes)
        if held + more > max(1, int(share * len(nodes) + 1e-9)):
            return f"as many nodes of {where} are held back as the policy allows"
    shares = policy.fleet_share * look.size(), policy.quarantine_share * len(here)
    if look.held() + more > max(1, int(max(shares) + 1e-9)):  # one cluster may always have its own
        return "as many nodes of the fleet are held back as the policy allows"
    return None


def shared_from(look: Look, nodes: int) -> float:
    """Return the number of suspects among so many nodes above which they share a cause."""
    return max(SUSPECTS_MIN, look.policy.suspects_share * nodes)


def shared_with(look: Look, node: Node) -> str | None:
    """Return why an idle node is left alone although its checks call it bad: many are at once.

    Counted are the nodes of its cluster that would be held back without an explicit fault.
    """
    judgement = look.judge(node)
    if judgement.explicit or not _bad(judgement) or node.state not in (S.BURN_IN, *IDLE):
        return None
    return look.once(("shared-in", node.cluster), lambda: _shared_in(look, node.cluster))


def _shared_in(look: Look, cluster: ClusterName) -> str | None:
    here = [one for one in look.nodes_in(cluster) if one.state not in (S.RETIRED, *HELD_BACK)]
    judged = [(node, look.judge(node)) for node in here]
    doubted = [(node, one) for node, one in judged if not one.explicit and _bad(one)]
    if len(doubted) <= shared_from(look, len(here)):
        return None
    names = ", ".join(node.name for node, _ in doubted)
    cause = f"{len(doubted)} of {len(here)} nodes are suspected at once ({names})"
    return f"{cause}: {doubted[0][1].words}; nobody is held back for it"


def _bad(judgement: Judgement) -> bool:
    return judgement.verdict is Verdict.UNFIT or judgement.broken


def waits_for_fleet(look: Look, node: Node) -> bool:
    """Say whether a node in repair only waits until the fleet may repair another one."""
    tries = look.repairs(node.name, node.step or RepairStep.REBOOT)
    begun = look.under_way(Repair, node.name) or (bool(tries) and tries[-1] >= node.since)
    return not begun and fleet_spent(look)


def hold_back(
    look: Look,
    node: Node,
    judgement: Judgement,
    reason: str,
    counts: str = "",
    *,
    trained: bool = False,
) -> None:
    """Put a node into quarantine for what its checks say; its machine's history remembers.

    `trained`: its gang made steps on it until now.
    """
    gravest = judgement.evidence[0]
    fault = (gravest.detector, gravest.serial)
    end = S.QUARANTINED
    move = MoveNode(node.name, node.state, end, reason, None, None, counts, *fault)
    look.do(replace(move, trained=trained))


def _burn_in(look: Look, node: Node) -> None:
    belief, judgement = look.belief(node.name), look.judge(node)
    if belief.power_off:
        _give_up(look, node)
    elif judgement.broken:
        if shared_with(look, node) is None:
            hold_back(look, node, judgement, judgement.words)
    elif node.history.owed:
        reason = f"put away for {node.history.owed} under the name {node.kin}, never repaired"
        look.do(MoveNode(node.name, S.BURN_IN, S.QUARANTINED, reason))
    elif judgement.verdict is Verdict.FIT and belief.unreached_since is None:
        _pass(look, node)


def _pass(look: Look, node: Node) -> None:
    """End a burn-in without a finding; a suspect that passed is acquitted, and was never unfit."""
    probed_at = look.belief(node.name).probed_at
    if probed_at is None or probed_at <= node.since:
        return
    accused = node.history.accused
    lasts = look.policy.revalidation if accused else burn_in(look, node)
    if not look.due(node.since + lasts):
        return
    lasted = f"{lasts.total_seconds():g} s of burn-in without a finding"
    if accused:
        end = node.rest
        lasted = f"acquitted: {lasted}"
    else:
        end = S.PROBATION if trial_length(look, node) > timedelta(0) else S.SPARE
    look.do(MoveNode(node.name, S.BURN_IN, end, lasted, acquitted=accused))


def _keep_idle(look: Look, node: Node) -> None:
    if look.belief(node.name).power_off:
        _give_up(look, node)
        return
    judgement = look.judge(node)
    if _bad(judgement):
        if shared_with(look, node) is None and no_room(look, node) is None:
            hold_back(look, node, judgement, judgement.words)
    elif node.state is S.PROBATION and (earned := trusted(look, node)) is not None:
        look.do(MoveNode(node.name, S.PROBATION, S.SPARE, earned))


def _keep_seated(look: Look, node: Node) -> None:
    if look.belief(node.name).power_off:
        _give_up(look, node)
    elif (earned := trusted(look, node)) is not None:
        look.do(EndTrial(node.name, earned))


def _give_up(look: Look, node: Node) -> None:
    """Take a machine that is off from its place; its provider may start it again."""
    reason = "its provider says that it is off: nothing runs there"
    step = None
    if not operators(node.cordon):
        step = rung(look, node, Need(LOST, reason, RepairStep.REBOOT)).step
    end = S.REPAIRING if step is not None else S.QUARANTINED
    look.do(MoveNode(node.name, node.state, end, reason, fault=LOST, step=step))


def _quarantined(look: Look, node: Node) -> None:
    if operators(node.cordon):
        return
    fault = need(look, node)
    if fault is None:
        if not look.unreached(node.name) and quiet(look, node):
            reason = "nothing speaks against it any more"
            if node.history.accused:
                reason = "nothing but a suspicion speaks against it: to be checked"
            look.do(MoveNode(node.name, S.QUARANTINED, S.BURN_IN, reason))
        return
    if not _may_be_touched(look, node) or fleet_spent(look):
        return
    step = rung(look, node, fault).step
    if step is not None:
        reason = f"{DOING[step]}: {fault.words}"
        end = S.REPAIRING
        look.do(MoveNode(node.name, node.state, end, reason, fault=fault.fault, step=step))


def _may_be_touched(look: Look, node: Node) -> bool:
    """Say whether nothing of ours runs there, or nothing else can end what does.

    A node that nobody reaches cannot prove anything before its next boot; one where stopping and
    sweeping came to nothing for that long has a process that cannot be killed.
    """
    if quiet(look, node):
        return True
    if look.unreached(node.name):
        return look.lasts(node.since, look.policy.silence_max)
    return look.lasts(node.since, look.policy.repair_wait)


def _repairing(look: Look, node: Node) -> None:
    step = node.step or RepairStep.REBOOT  # the only one there was before steps were kept
    if _mended(look, node, step):
        return
    if look.under_way(Repair, node.name):
        return
    tries = look.repairs(node.name, step)
    tried = bool(tries) and tries[-1] >= node.since
    if tried and not look.due(tries[-1] + _patience(look, node, step, tries)):
        return
    if node.cordon is not None and node.cordon.personal:
        reason = f"cordoned by {node.cordon.owner.partition(':')[2]}: its repair waits for that"
        look.do(MoveNode(node.name, S.REPAIRING, S.QUARANTINED, reason))
        return
    if spent(look, node, step) or not can(look, node, step):
        refused = len(refusals(look, node, step))
        reason = f"{len(tries) - refused} {DONE[step]} within a day did not bring it back"
        if refused:
            reason += f", and its provider refused {refused}"
        look.do(MoveNode(node.name, S.REPAIRING, S.QUARANTINED, reason))
        return
    if not fleet_spent(look):
        look.ask(Repair(node.name, step, len(tries), node.reason))


def _mended(look: Look, node: Node, step: RepairStep) -> bool:
    """Take a node whose step was done to burn-in: it boots anew, or its reset ended well.

    Another machine is no new boot of this one: `kinship.renew` enters it when it is listed.
    """
    belief = look.belief(node.name)
    booted_at = belief.booted_at
    if step is RepairStep.REPLACE:
        return False
    if booted_at is not None and booted_at > node.since and not belief.power_off:
        reason = f"repaired: a new boot ({belief.boot_id})"
    elif step is RepairStep.RESET and _ended_well(look, node, step):
        reason = "repaired: its accelerators were reset"
    else:
        return False
    look.do(MoveNode(node.name, S.REPAIRING, S.BURN_IN, reason))
    return True


def _ended_well(look: Look, node: Node, step: RepairStep) -> bool:
    tries = look.repairs(node.name, step)
    latest = Repair(node.name, step, len(tries) - 1, "")
    return bool(tries) and tries[-1] >= node.since and look.outcome(latest) is True


def _patience(look: Look, node: Node, step: RepairStep, tries: list[datetime]) -> timedelta:
    """Return how long to wait for a step: long, unless we know that it came to nothing."""
    ended_well = look.outcome(Repair(node.name, step, len(tries) - 1, ""))
    belief = look.belief(node.name)
    listed = belief.seen_at is not None and belief.seen_at > tries[-1]
    still_off = ended_well is None and belief.power_off and listed
    if ended_well is False or still_off:
        failed = sum(moment >= node.since for moment in tries)
        doublings: int = 1 << max(0, min(failed - 1, RETRY_DOUBLINGS))
        if look.refused(Repair(node.name, step, len(tries) - 1, "")):
            return look.policy.probe_every * doublings
        return look.policy.look_every * RETRY_LOOKS * doublings
    match step:
        case RepairStep.RESET | RepairStep.REBOOT:
            return look.policy.repair_wait
        case RepairStep.REPROVISION:
            return look.policy.reprovision_wait
        case RepairStep.REPLACE:
            return look.policy.replace_wait
