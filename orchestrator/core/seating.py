"""Which nodes hold a seat in an attempt, and which of them are wanted in the gang.

Called by `recovery` for attempts that live. Level-triggered: what is missing is filled from the
spares of the attempt's cluster, whatever made it go missing. A node that is merely out of sight
keeps its seat until the gang itself misses it *and* somebody can take the seat.
"""

from __future__ import annotations

from orchestrator.core.decisions import MoveNode
from orchestrator.core.gang import Gang, live, read_gang, unheard
from orchestrator.core.history import AGENT, UNSEEN
from orchestrator.core.jobs import Attempt
from orchestrator.core.look import Look
from orchestrator.core.nodes import JobName, Node, NodeName, NodeState
from orchestrator.core.placement import (
    HOLDS,
    capacity,
    fill_seats,
    lacking,
    spares,
    starving,
)

S = NodeState


def keep_seats(look: Look, attempt: Attempt, gang: Gang) -> None:
    """Let go of seats that are lost or not wanted, fill what is missing, name who is in use."""
    _leave_lost(look, attempt, gang)
    _leave_unwanted(look, attempt, gang)
    _name_members(look, attempt, gang)
    fill_seats(look, attempt)


def ranked(look: Look, attempt: Attempt) -> list[Node]:
    """Return the held seats: members of the generation first, in its order, then by state.

    Not to be changed: several ask.
    """
    question = ("ranked", attempt.job, attempt.number)
    return look.once(question, lambda: _ranked(look, attempt, read_gang(look, attempt)))


def _ranked(look: Look, attempt: Attempt, gang: Gang) -> list[Node]:
    held = {node.name: node for node in look.seats(attempt) if node.state in HOLDS}
    members = [held[name] for name in gang.members if name in held]
    known = frozenset(gang.members)
    others = [node for node in held.values() if node.name not in known]
    others.sort(key=lambda one: (one.state is not S.IN_USE, one.name not in gang.live, one.name))
    return [*members, *others]


def in_sight(look: Look, attempt: Attempt, name: NodeName) -> bool:
    """Say whether a seat may serve: its agent or at least its node was heard not long ago."""
    belief = look.belief(name)
    if belief.power_off:
        return False
    agent = belief.agent(attempt.job, attempt.number)
    if live(agent) and agent is not None and agent.silent_since is None:
        return True
    return not look.lasts(belief.unreached_since, look.policy.silence_max)


def starts_spent(look: Look, attempt: Attempt, name: NodeName) -> bool:
    """Say whether an agent was started there as often as the policy allows, and is not up."""
    window = look.policy.agent_starts_window
    starts = look.lately(look.starts(name, attempt), window)
    if not look.exhausted(starts, look.policy.agent_starts_max, window):
        return False
    agent = look.belief(name).agent(attempt.job, attempt.number)
    return not live(agent) and not look.starting(name, attempt)


def _leave_lost(look: Look, attempt: Attempt, gang: Gang) -> None:
    spec = look.job(attempt.job).spec
    for node in unheard(look, attempt):
        if starts_spent(look, attempt, node.name):
            reason = f"its agent did not stay up in {look.policy.agent_starts_max} starts"
            end = S.QUARANTINED
            look.do(MoveNode(node.name, node.state, end, reason, fault=AGENT))
        elif not in_sight(look, attempt, node.name) and spares(look, attempt.cluster, spec):
            _leave_unseen(look, attempt, node, gang)


def _leave_unseen(look: Look, attempt: Attempt, node: Node, gang: Gang) -> None:
    """Take the seat of a node out of sight only where the gang misses it too, or never had it."""
    error = look.belief(node.name).unreached_error
    if look.gone(node.name, attempt):
        reason = f"cannot be reached ({error}); nothing runs there"
        look.do(MoveNode(node.name, node.state, node.rest, reason))
    elif node.name in gang.missed or gang.waiting:
        reason = f"cannot be reached ({error}), and its gang misses it; the register fences it"
        look.do(MoveNode(node.name, node.state, S.QUARANTINED, reason, fault=UNSEEN))


def _leave_unwanted(look: Look, attempt: Attempt, gang: Gang) -> None:
    held = ranked(look, attempt)
    surplus = held[capacity(look, attempt) :]
    for node in held:
        if node.state is S.STANDBY and node.name not in gang.members:
            if node.cordon is not None:
                reason = f"cordoned by {node.cordon.owner}: stands by no longer"
                look.do(MoveNode(node.name, S.STANDBY, S.DRAINING, reason))
            elif node in surplus:
                look.do(MoveNode(node.name, S.STANDBY, S.DRAINING, "one standby too many"))
            elif (other := _needier(look, attempt, node, held)) is not None:
                reason = f"{other} cannot train without it"
                look.do(MoveNode(node.name, S.STANDBY, S.DRAINING, reason))
            elif _better(look, attempt, node, held):
                reason = "on probation, and a trusted spare can stand by"
                look.do(MoveNode(node.name, S.STANDBY, S.DRAINING, reason))
    for node in look.seats(attempt):
        if node.state is S.DRAINING and look.gone(node.name, attempt):
            reason = "nothing of the gang is left there"
            look.do(MoveNode(node.name, S.DRAINING, node.rest, reason))


def _needier(look: Look, attempt: Attempt, node: Node, held: list[Node]) -> JobName | None:
    """Return the job that this standby would complete, if no spare can and it is as important.

    A job that stands idle costs all its nodes, every minute; a standby saves a few minutes when
    something fails, some day.
    """
    mine = look.job(attempt.job).spec
    standbys = [one for one in held if one.state is S.STANDBY]
    beside = [one for one in look.nodes_in(attempt.cluster) if one.state is S.DRAINING]
    coming = sum(one.cordon is None and one.rest is S.SPARE for one in beside)
    for other in starving(look, attempt):
        spec = look.job(other.job).spec
        asked = lacking(look, other) - len(spares(look, other.cluster, spec)) - coming
        fits = spec.accelerator in (None, node.machine.sku) and spec.priority >= mine.priority
        if fits and 0 < asked <= len(standbys) and node in standbys[-asked:]:
            return other.job
    return None


def _better(look: Look, attempt: Attempt, node: Node, held: list[Node]) -> bool:
    """Say whether a node on probation is the only standby though a trusted spare is there."""
    standbys = [one for one in held if one.state is S.STANDBY]
    if node.trial_since is None or any(one.trial_since is None for one in standbys):
        return False
    spec = look.job(attempt.job).spec
    return any(one.trial_since is None for one in spares(look, attempt.cluster, spec))


def _name_members(look: Look, attempt: Attempt, gang: Gang) -> None:
    spec = look.job(attempt.job).spec
    for place, node in enumerate(ranked(look, attempt)):
        end = S.IN_USE if place < spec.nodes_max else S.STANDBY
        if node.state is not end:
            took = end is S.IN_USE
            reason = f"took a place in {attempt.job}" if took else "another took its place"
            look.do(MoveNode(node.name, node.state, end, reason, attempt.job, attempt.number))
