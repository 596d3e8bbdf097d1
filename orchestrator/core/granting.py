"""Grants: when the seats of an attempt differ from what its gang was told, tell it anew.

A grant costs the gang a generation, so it follows what is wanted without churning: an agent out of
sight for a moment changes nothing, and a seat whose agent is being started is waited for. Agents
that a grant leaves out get it too: accepting it is how they acknowledge the revocation.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.agents import FINAL, coming
from orchestrator.core.decisions import GiveGrant, IssueGrant
from orchestrator.core.gang import Gang, address, answers, unheard
from orchestrator.core.jobs import Attempt, SeatGrant
from orchestrator.core.look import Look
from orchestrator.core.nodes import NodeName, NodeState
from orchestrator.core.placement import HOLDS
from orchestrator.core.seating import ranked
from orchestrator.runtime.reports import Stage

HAND_ON_ABOVE = 8  #: seats of a gang from which on peers hand a grant on
HANDED = 3  #: agents of such a gang that we give it to
HAND_ON_LOOKS = 2  #: looks at the agents in which they have that time


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the next grant would say."""

    nodes: tuple[NodeName, ...]
    standbys: tuple[NodeName, ...]
    addresses: tuple[tuple[NodeName, str], ...]


def issue_grant(look: Look, attempt: Attempt, gang: Gang) -> None:
    """Issue the next grant if what is wanted differs from the newest one."""
    wanted = _wanted(look, attempt, gang)
    if wanted is None:
        return
    reason = _news(look, attempt, gang, wanted)
    if reason is not None:
        number = 1 if attempt.grant is None else attempt.grant.number + 1
        look.do(
            IssueGrant(
                attempt.job,
                attempt.number,
                number,
                wanted.nodes,
                wanted.standbys,
                wanted.addresses,
                reason,
                gang.lost,
            )
        )


def give_grant(look: Look, attempt: Attempt) -> None:
    """Give the newest grant to every agent of the attempt that has not accepted it.

    In a large gang the first few get it at once and hand it on to their peers; who has not got it
    by then, and who is left out, gets it from us. (Two grants an incident are two calls for each
    node of the gang otherwise.)
    """
    grant = attempt.grant
    if grant is None:
        return
    first = _first_to_get_it(look, attempt, grant)
    for name, agent in look.agents(attempt):
        report = agent.report
        if report is None or report.grant >= grant.number:
            continue
        serves = answers(agent) and report.stage not in FINAL
        if serves and (first is None or name in first):
            reason = f"it holds grant {report.grant}: {grant.reason}"
            numbers = (attempt.number, grant.number)
            look.ask(GiveGrant(name, attempt.job, *numbers, report.agent, reason))


def _first_to_get_it(look: Look, attempt: Attempt, grant: SeatGrant) -> frozenset[NodeName] | None:
    """Return whom we give a grant while its peers may still hand it on; None: everybody."""
    if len(grant.seats) <= HAND_ON_ABOVE:
        return None
    if look.due(grant.issued_at + HAND_ON_LOOKS * look.policy.look_every):
        return None
    answering = {name for name, agent in look.agents(attempt) if answers(agent)}
    some = [name for name in grant.seats if name in answering][:HANDED]
    return frozenset([*some, *answering.difference(grant.seats)])


def _wanted(look: Look, attempt: Attempt, gang: Gang) -> Wanted | None:
    """Compose the next grant; None while it must wait, or too few could be in it."""
    spec = look.job(attempt.job).spec
    held = ranked(look, attempt)
    nodes = [node for node in held if node.state is NodeState.IN_USE]
    doubtful = unheard(look, attempt)
    if any(coming(look, attempt, one) for one in doubtful if one.state is NodeState.IN_USE):
        return None
    ready = [node.name for node in nodes if node.name in gang.live]
    others = [node for node in held if node.state is NodeState.STANDBY]
    standbys = [node.name for node in others if node.name in gang.live]
    while standbys and len(ready) < spec.nodes_max:
        ready.append(standbys.pop(0))
    leaving = [node for node in look.seats(attempt) if node.state is NodeState.DRAINING]
    helpers = [node.name for node in leaving if node.name in gang.live]
    while helpers and len(ready) < spec.nodes_min:
        ready.append(helpers.pop(0))
    if len(ready) < spec.nodes_min:
        return None
    if spec.register is None:
        standbys = []
    seats = [*ready, *standbys]
    addresses = tuple((name, address(gang.reports[name])) for name in sorted(seats))
    return Wanted(tuple(ready), tuple(standbys), addresses)


def _news(look: Look, attempt: Attempt, gang: Gang, wanted: Wanted) -> str | None:
    """Return why a new grant is needed; None if the newest one still says what is wanted."""
    grant = attempt.grant
    if grant is None:
        return f"the first: {_names(wanted.nodes)}"
    seats = {*wanted.nodes, *wanted.standbys}
    held = {node.name for node in look.seats(attempt) if node.state in HOLDS}
    left = sorted(name for name in grant.seats if name not in seats and name not in held)
    if left:
        instead = _names(sorted(set(wanted.nodes) - set(grant.nodes)))
        return f"without {_names(left)}" + (f"; {instead} comes in" if instead else "")
    known = dict(grant.addresses)
    new = [name for name, where in wanted.addresses if known.get(name) != where]
    if new:
        return f"a new agent on {_names(new)}"
    if set(wanted.nodes) != set(grant.nodes) and not _expected(look, attempt):
        return f"the gang is {_names(wanted.nodes)} now"
    if gang.lost not in (None, grant.abandoned) and gang.missed.issuperset(gang.members):
        return f"nobody hears {_names(gang.members)}: others may go on without them"
    if _stuck(look, attempt, gang, grant):
        return "the gang cannot form under the last grant and asks for another"
    return None


def _expected(look: Look, attempt: Attempt) -> bool:
    """Say whether some seat's agent is about to speak: then one grant does for both."""
    held = [node for node in unheard(look, attempt) if node.state in HOLDS]
    return any(coming(look, attempt, node) for node in held)


def _stuck(look: Look, attempt: Attempt, gang: Gang, grant: SeatGrant) -> bool:
    """Say whether the gang waits for a grant although nothing about its seats changed."""
    reports = [gang.reports[name] for name in grant.nodes if name in gang.heard]
    waiting = [one for one in reports if one.stage is Stage.WAITING and one.grant == grant.number]
    if not waiting:
        return False
    if look.job(attempt.job).spec.register is None and len(waiting) == len(grant.nodes):
        return True
    return look.due(grant.issued_at + look.policy.seat_wait)


def _names(names: tuple[NodeName, ...] | list[NodeName]) -> str:
    return ", ".join(names)
