"""The repair ladder, reset -> reboot -> reprovision -> replace: which rung, and may it be taken.

The first rung comes from the finding's own remedy. A fault that returns to a machine after a step
calls for the next one; a step that brings nothing back within its tries of the day is given up for
the next one that the cluster can do. What no provider here can do is for people: a page. Pure
readings of the snapshot, used by `custody` and `incidents`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from orchestrator.core.decisions import Repair
from orchestrator.core.history import ACCUSED, AGENT, LADDER, LOST, UNSEEN, RepairStep
from orchestrator.core.look import DAY, HOUR, Look
from orchestrator.core.nodes import Node
from orchestrator.core.verdicts import FaultClass, Finding, Severity, Verdict

S = RepairStep
#: Faults that a step need not cure for good: power and network come and go around a machine.
PASSING = frozenset({LOST, UNSEEN, AGENT})
REFUSALS_MAX = 8  #: of one step within a day, by the provider: about two hours of asking
STEPS = tuple(str(step) for step in LADDER)
DOING = {
    S.RESET: "to be reset",
    S.REBOOT: "to be rebooted",
    S.REPROVISION: "to be installed anew",
    S.REPLACE: "to be replaced",
}
DONE = {S.RESET: "resets", S.REBOOT: "reboots", S.REPROVISION: "installs", S.REPLACE: "orders"}


@dataclass(frozen=True, slots=True)
class Need:
    """What speaks for a repair."""

    fault: str  #: a detector, or a word of `history`
    words: str
    first: RepairStep  #: the lowest rung that makes sense for it
    serial: str = ""


@dataclass(frozen=True, slots=True)
class Rung:
    """What the ladder says of a need."""

    wanted: RepairStep  #: by the fault and its past on this machine
    step: RepairStep | None  #: to be taken now; None: nothing that this cluster can do
    spent: bool = False  #: something could be done on another day


def need(look: Look, node: Node) -> Need | None:
    """Return what only a repair can mend; None if nothing speaks against the node."""
    belief, judgement = look.belief(node.name), look.judge(node)
    if belief.power_off:
        return Need(LOST, "its provider says that it is off", S.REBOOT)
    if judgement.verdict is Verdict.UNFIT or judgement.broken:
        finding = judgement.evidence[0]
        return Need(finding.detector, judgement.words, first_rung(finding), finding.serial)
    again = named_again(look, node)
    if again is not None:
        return Need(ACCUSED, again, S.REBOOT)
    if node.history.owed:
        return Need(node.history.owed, f"{node.history.owed}, never repaired", S.REBOOT)
    if look.lasts(belief.unreached_since, look.policy.silence_max):
        return Need(UNSEEN, f"unreachable: {belief.unreached_error}", S.REBOOT)
    return None


def named_again(look: Look, node: Node) -> str | None:
    """Return why a suspect is taken for guilty: it was acquitted, and is among the suspects again.

    No check found anything, and yet it is where the gang fails: the ladder does what checks cannot.
    """
    if not node.history.accused:
        return None
    named = [one for one in node.history.troubles if one.fault == ACCUSED]
    times = sum(look.recent(one.at, look.policy.relapse_window) for one in named)
    return f"among the suspects {times} times, and acquitted before" if times > 1 else None


def first_rung(finding: Finding) -> RepairStep:
    """Return where the ladder begins for a finding: its own remedy, else by its class."""
    for step in LADDER:
        if finding.remedy == step.value:
            return step
    broken_setup = finding.fault is FaultClass.CONFIG and finding.severity is Severity.CRITICAL
    return S.REPROVISION if broken_setup else S.REBOOT


def rung(look: Look, node: Node, need: Need) -> Rung:
    """Return the step that this need calls for, and the one that can be taken."""
    lately = [one for one in node.history.steps if one.fault == need.fault]
    lately = [one for one in lately if look.recent(one.at, look.policy.relapse_window)]
    place = LADDER.index(need.first)
    if need.fault not in PASSING:
        taken = [LADDER.index(one.step) + 1 for one in lately]
        place = min(max([place, *taken]), len(LADDER) - 1)
    tried = {step: sum(one.step is step for one in lately) for step in LADDER}
    below = [step for step in reversed(LADDER[:place]) if tried[step] < look.policy.rung_tries]
    able = [step for step in (*LADDER[place:], *below) if can(look, node, step)]
    free = [step for step in able if not spent(look, node, step)]
    return Rung(LADDER[place], free[0] if free else None, spent=bool(able) and not free)


def can(look: Look, node: Node, step: RepairStep) -> bool:
    """Say whether the node's cluster can take this step at all, and may."""
    cluster = look.cluster(node.cluster)
    return look.policy.repair and cluster is not None and step.value in cluster.can


def spent(look: Look, node: Node, step: RepairStep) -> bool:
    """Say whether the node had its day's share of this step.

    A try that failed for a passing reason did nothing: a provider's API that is down for an hour
    must not use up the ladder. Such tries have a bound of their own and growing pauses (`custody`).
    """
    policy = look.policy
    most = {
        S.RESET: policy.resets_per_day,
        S.REBOOT: policy.reboots_per_day,
        S.REPROVISION: policy.reprovisions_per_day,
        S.REPLACE: policy.replaces_per_day,
    }[step]
    tries = look.repairs(node.name, step)
    refused = refusals(look, node, step)
    taken = [at for at in tries if at not in refused]
    return look.exhausted(taken, most, DAY) or look.exhausted(refused, REFUSALS_MAX, DAY)


def refusals(look: Look, node: Node, step: RepairStep) -> list[datetime]:
    """Return when the provider could not be asked for this step in the last day, oldest first."""
    tries = look.repairs(node.name, step)
    numbered = enumerate(tries)
    return [at for number, at in numbered if look.refused(Repair(node.name, step, number, ""))]


def fleet_spent(look: Look) -> bool:
    """Say whether the whole fleet had its hour's share of repairs; one is always allowed."""
    policy = look.policy
    relative = int(policy.fleet_repairs_share * look.size() + 1e-9)
    most = max(1, policy.fleet_repairs_per_hour, relative)
    return look.exhausted(look.fleet_used(STEPS, HOUR), most, HOUR)
