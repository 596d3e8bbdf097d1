"""Which machine stands under a name: boomerangs, swapped machines, and what they bring along.

Identity is the machine's serials, not its name (`history.same_machine`). A machine that comes back
under another name brings its history, what it was put away for, and a person's cordon; the old name
is given up once nothing runs there. A serial that two running machines claim names neither. Called
by `custody` before anything else is decided about a node.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta

from orchestrator.core.decisions import Enlist, MoveNode, Renew
from orchestrator.core.history import (
    BLAMELESS,
    RENAMED,
    History,
    RepairStep,
    join,
    same_machine,
    serials,
)
from orchestrator.core.look import Look
from orchestrator.core.nodes import (
    HELD_BACK,
    SEATED,
    Cordon,
    Machine,
    Node,
    NodeName,
    NodeState,
)
from orchestrator.core.observations import Power
from orchestrator.core.orders import operators

S = NodeState
UNLISTED_FOR = timedelta(days=1)  #: a node with a spent ladder is given up when unlisted so long


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of a machine that appears under a name."""

    history: History = field(default_factory=History)
    kin: NodeName | None = None
    cordon: Cordon | None = None


def enlist_new(look: Look, _: str) -> None:
    """Take every machine that a provider lists as running under a new name into the fleet."""
    for name in look.unlisted():
        belief = look.belief(name)
        if belief.seen is None or belief.cluster is None:
            continue
        if belief.seen.power is Power.RUNNING and look.cluster(belief.cluster) is not None:
            past = recall(look, name, belief.seen.machine)
            reason = f"{belief.provider or 'its provider'} lists it{_known(past)}"
            numbers = (belief.cluster, belief.provider, belief.seen)
            look.do(Enlist(*numbers, reason, past.history, past.kin, past.cordon))


def renew(look: Look, node: Node) -> bool:
    """Enter what stands under a known name now; say whether something was decided."""
    belief = look.belief(node.name)
    if belief.seen is None or belief.seen.power is not Power.RUNNING:
        return False
    machine = belief.seen.machine
    if machine == node.machine and not _listed_again(look, node):
        return False
    if machine != node.machine and _described_anew(node.machine, machine):
        look.do(Renew(node.name, machine, "its provider describes it anew", fresh=False))
        return True
    if not _replaced(look, node):
        return False
    if node.state in SEATED:
        reason = f"another machine stands under its name: {machine.id}"
        look.do(MoveNode(node.name, node.state, S.QUARANTINED, reason, fault=RENAMED))
        return True
    past = recall(look, node.name, machine)
    reason = f"{machine.id} instead of {node.machine.id}{_known(past)}"
    if machine.id == node.machine.id:  # also where it has no serials to know it by
        past = replace(past, history=join(past.history, _leaving(node)))
        reason = f"{machine.id} is listed again{_known(past)}"
    what = (node.name, machine, reason)
    look.do(Renew(*what, fresh=True, history=past.history, kin=past.kin, cordon=past.cordon))
    return True


def give_up(look: Look, node: Node) -> bool:
    """Retire a name whose machine stands under another one, or was handed back for good."""
    if node.state in SEATED or node.state is S.RETIRED or not look.missing(node):
        return False
    if not quiet(look, node):
        return False
    heir = look.heir(node)
    if heir is not None:
        reason = f"its machine is {heir} now"
    elif _handed_back(look, node):
        reason = "its provider does not list it any more, and no repair was left"
    else:
        return False
    look.do(MoveNode(node.name, node.state, S.RETIRED, reason))
    return True


def recall(look: Look, name: NodeName, machine: Machine) -> Past:
    """Return what we know of a machine by its serials, whatever it was called."""
    past = Past()
    for other in _acquaintances(look, machine):
        node = look.node(other)
        if node is None:
            continue
        if same_machine(node.machine.serials, machine.serials) and not _lives(look, node, name):
            past = _with(past, node, name, _leaving(node))
        for former in node.former:
            if same_machine(former.machine.serials, machine.serials):
                past = _with(past, node, name, former.history)
        blamed = [t for t in node.history.troubles if t.serial in serials(machine.serials)]
        if blamed and other != name:
            past = replace(past, history=join(past.history, History(tuple(blamed))))
    return past


def quiet(look: Look, node: Node) -> bool:
    """Say whether every agent ever seen there is proven gone."""
    return all(agent.gone_at is not None for agent in look.belief(node.name).agents)


def _acquaintances(look: Look, machine: Machine) -> list[NodeName]:
    told = serials(machine.serials)
    return sorted({name for serial in told for name in look.holders(serial)})


def _lives(look: Look, node: Node, name: NodeName) -> bool:
    """Say whether a node of another name is listed as running by the newest list of its cluster."""
    seen = look.belief(node.name).seen
    if node.name == name or node.state is S.RETIRED:
        return False
    running = seen is not None and seen.power is Power.RUNNING
    same = seen is not None and same_machine(seen.machine.serials, node.machine.serials)
    return running and same and not look.missing(node)


def _with(past: Past, node: Node, name: NodeName, history: History) -> Past:
    cordon = node.cordon if operators(node.cordon) else past.cordon
    kin = node.name if node.name != name else past.kin
    return Past(join(past.history, history), kin, cordon)


def _leaving(node: Node) -> History:
    """Return the history that a machine takes along: with what it was never repaired for."""
    history = node.history
    guilty = [t for t in history.troubles if t.acquitted_at is None and t.fault not in BLAMELESS]
    put_away = node.state in HELD_BACK or node.state is S.RETIRED
    if not put_away or not guilty:
        return history
    later = [step for step in history.steps if step.at >= guilty[-1].at]
    if any(step.step is not RepairStep.REPLACE for step in later):
        return history
    return replace(history, owed=guilty[-1].fault)


def _described_anew(old: Machine, new: Machine) -> bool:
    """Say whether this is the same thing: same instance, and the same serials where told."""
    if old.id != new.id:
        return False
    told = serials(old.serials) and serials(new.serials)
    return not told or same_machine(old.serials, new.serials)


def _replaced(look: Look, node: Node) -> bool:
    """Say whether another machine may take over the name: nothing of ours runs on the old one.

    A listing may be stale. So a node in service must have told a new boot itself since it entered
    its state; one that is held back or retired is sent through burn-in by this, and loses nothing.
    """
    booted_at = look.belief(node.name).booted_at
    new_boot = booted_at is not None and booted_at > node.since
    if not (new_boot or node.state in HELD_BACK or node.state is S.RETIRED):
        return False
    return quiet(look, node)


def _listed_again(look: Look, node: Node) -> bool:
    """Say whether a retired node's machine is listed anew: after its end, not just still."""
    seen_at = look.belief(node.name).seen_at
    if node.state is not S.RETIRED or seen_at is None or seen_at <= node.since:
        return False
    return not look.missing(node) and look.heir(node) is None


def _handed_back(look: Look, node: Node) -> bool:
    """Say whether a machine was replaced and is listed no more, or is unlisted for a day."""
    if node.state not in HELD_BACK or operators(node.cordon):
        return False
    if node.step is RepairStep.REPLACE and look.repairs(node.name, RepairStep.REPLACE):
        return look.lasts(node.since, look.policy.repair_wait)
    seen_at = look.belief(node.name).seen_at
    return node.state is S.QUARANTINED and look.lasts(seen_at, UNLISTED_FOR)


def _known(past: Past) -> str:
    if past.kin is None:
        return ""
    times = len(past.history.troubles)
    owed = f", put away for {past.history.owed} and never repaired" if past.history.owed else ""
    return f"; it is the machine that was {past.kin}, {times} times out of service{owed}"
