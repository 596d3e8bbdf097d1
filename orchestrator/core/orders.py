"""What people ask for: each order is carried out or refused, and answered exactly once.

An operator's cordon is theirs: the machine never lifts it, and neither does another operator.
Called by `reconcile` first of all, so that the rest of the look already knows what people want.
"""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.core.decisions import (
    Accept,
    MoveAttempt,
    MoveJob,
    MoveNode,
    SetCordon,
    SettleOrder,
    SetVault,
)
from orchestrator.core.jobs import OVER, AttemptState, Job, JobState, Outcome
from orchestrator.core.look import LIVE, Look
from orchestrator.core.nodes import SEATED, Cordon, JobName, Node, NodeName, NodeState
from orchestrator.core.observations import Ordered, OrderKind
from orchestrator.core.submission import read_spec
from orchestrator.errors import UserError

S = NodeState
Answer = tuple[bool, str]  #: (done, what was done or why it is refused)


def answer_orders(look: Look, _: str) -> None:
    """Carry out or refuse every open order, in the order of their numbers."""
    for order in look.orders():
        done, reason = _answer(look, order)
        look.do(SettleOrder(order.number, done, reason))


def owner(order: Ordered) -> str:
    """Return whose cordon an order makes or lifts."""
    return f"operator:{order.by}"


def operators(cordon: Cordon | None) -> bool:
    """Say whether a cordon is a person's."""
    return cordon is not None and cordon.personal


def _answer(look: Look, order: Ordered) -> Answer:
    match order.kind:
        case OrderKind.SUBMIT:
            return _submit(look, order)
        case OrderKind.STOP:
            return _stop(look, order)
        case OrderKind.PROMOTE:
            return _promote(look, order)
        case OrderKind.ANNOUNCE:
            return _announce(look, order)
        case _:
            return _of_node(look, order)


def _of_node(look: Look, order: Ordered) -> Answer:
    node = look.node(NodeName(order.subject))
    if node is None:
        return False, f"no node is called {order.subject}"
    if node.state is S.RETIRED:
        return False, f"{node.name} was returned to its provider"
    answer = NODE_ORDERS.get(order.kind)
    return (False, f"not for a node: {order.kind}") if answer is None else answer(look, order, node)


def _submit(look: Look, order: Ordered) -> Answer:
    name = JobName(order.subject)
    jobs = look.jobs()
    known = next((job for job in jobs if job.name == name), None)
    if known is not None:
        return False, f"the name {name} is taken by a job that is {known.state}"
    try:
        spec = read_spec(order.body)
    except UserError as error:
        return False, str(error)
    for other in jobs:
        shared = spec.register is not None and other.spec.register == spec.register
        if shared and other.state not in OVER:
            return False, f"{other.name} is {other.state} and has the register {spec.register}"
    look.do(Accept(name, spec, f"submitted by {order.by}"))
    return True, "accepted; waits for its nodes"


def _alive(look: Look, order: Ordered) -> tuple[Job | None, str]:
    """Return the job that an order is about, or why it cannot be about it."""
    job = next((one for one in look.jobs() if one.name == order.subject), None)
    if job is None:
        return None, f"no job is called {order.subject}"
    if job.state in OVER:
        return None, f"{job.name} is over: {job.state}"
    return job, ""


def _promote(look: Look, order: Ordered) -> Answer:
    """Give the running attempt up, and let the next one begin from a replica.

    The attempt is closed first: if we die in between, the order is answered again and goes on.
    """
    job, refused = _alive(look, order)
    if job is None:
        return False, refused
    if job.state is JobState.STOPPING:
        return False, f"{job.name} is being stopped"
    url, lost = str(order.body.get("url")), order.body.get("lost") is True
    replicas = [str(one) for one in job.spec.launch.get("replicas", ())]
    if job.spec.checkpoints != url and url not in replicas:
        return False, f"{url} is no replica of {job.name}: it has {', '.join(replicas) or 'none'}"
    reason = f"promoted by {_told(order)}"
    for attempt in look.attempts_of(job.name):
        if attempt.state in LIVE and job.spec.checkpoints != url:
            closing = (job.name, attempt.number, AttemptState.CLOSING, reason)
            look.do(MoveAttempt(*closing, Outcome.MOVED))
    if job.spec.checkpoints != url:
        look.do(SetVault(job.name, url, lost, reason))
    waits = "" if lost else ", once nothing of the attempts before is left"
    return True, f"goes on from {url}{waits}"


def _stop(look: Look, order: Ordered) -> Answer:
    job, refused = _alive(look, order)
    if job is None:
        return False, refused
    if job.state is not JobState.STOPPING:
        look.do(MoveJob(job.name, JobState.STOPPING, f"stopped by {_told(order)}"))
    return True, "stopping"


def _announce(look: Look, order: Ordered) -> Answer:
    """Answer what `assess` has drawn, or will draw, into the cohorts."""
    name, _, cohort = order.subject.partition("/")
    known = [one for one in look.cohorts() if one.cluster == name]
    if not any(cohort in ("", one.cohort) for one in known):
        return False, f"nothing is known of {order.subject} yet: its provider has not listed it"
    what = "the count" if order.body else "the change"
    return True, f"{what} is part of what is thought of {order.subject}"


def _cordon(look: Look, order: Ordered, node: Node) -> Answer:
    if operators(node.cordon) and node.cordon is not None and node.cordon.owner != owner(order):
        return True, f"already cordoned by {node.cordon.owner}: {node.cordon.reason}"
    cordon = Cordon(owner(order), order.reason, look.now)
    look.do(SetCordon(node.name, cordon, f"cordoned by {_told(order)}"))
    return True, "takes no new ranks; what runs there goes on"


def _uncordon(look: Look, order: Ordered, node: Node) -> Answer:
    if node.cordon is None:
        return True, "was not cordoned"
    if operators(node.cordon) and node.cordon.owner != owner(order):
        return False, f"cordoned by {node.cordon.owner}: {node.cordon.reason}; theirs to lift"
    look.do(SetCordon(node.name, None, f"uncordoned by {_told(order)}"))
    return True, "takes ranks again"


def _drain(look: Look, order: Ordered, node: Node) -> Answer:
    _cordon(look, order, node)
    if node.state not in SEATED:
        return True, f"holds no ranks ({node.state}); takes none either"
    if node.state is not S.DRAINING:
        look.do(MoveNode(node.name, node.state, S.DRAINING, f"drained by {_told(order)}"))
    return True, "lets go of its ranks as soon as the gang can do without it"


def _quarantine(look: Look, order: Ordered, node: Node) -> Answer:
    _cordon(look, order, node)
    if node.state is not S.QUARANTINED:
        look.do(MoveNode(node.name, node.state, S.QUARANTINED, f"by {_told(order)}"))
    return True, "in quarantine until it is released"


def _release(look: Look, order: Ordered, node: Node) -> Answer:
    cordon, still = node.cordon, ""
    if cordon is not None and operators(cordon) and cordon.owner != owner(order):
        still = f"; {cordon.owner} keeps it cordoned"
    elif cordon is not None:
        look.do(SetCordon(node.name, None, f"released by {_told(order)}"))
    if node.state is S.QUARANTINED or (node.state is S.SPARE and cordon is not None):
        look.do(MoveNode(node.name, node.state, S.BURN_IN, f"released by {_told(order)}"))
        return True, f"earns its trust in burn-in{still}"
    if node.state is S.DRAINING:
        return True, f"is a spare again as soon as it is empty{still}"
    return False, f"{node.name} is {node.state}: neither in quarantine nor drained{still}"


def _told(order: Ordered) -> str:
    return f"{order.by}: {order.reason}" if order.reason else order.by


NODE_ORDERS: dict[OrderKind, Callable[[Look, Ordered, Node], Answer]] = {
    OrderKind.CORDON: _cordon,
    OrderKind.UNCORDON: _uncordon,
    OrderKind.DRAIN: _drain,
    OrderKind.QUARANTINE: _quarantine,
    OrderKind.RELEASE: _release,
}
