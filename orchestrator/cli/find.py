"""Finding the thing a person named, or telling them what there is instead (exit code 2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from orchestrator.errors import UserError

if TYPE_CHECKING:
    from orchestrator.core.fleet import Cluster, Fleet
    from orchestrator.core.jobs import Job
    from orchestrator.core.nodes import Node
    from orchestrator.ledger.api import Ledger


def unknown(what: str, name: str, known: Iterable[str]) -> UserError:
    """Return the error for a name that nothing has, with a near one if there is one."""
    from orchestrator.config.models import nearest

    names = list(known)
    hint = nearest(name, names) if names else f"; there are no {what}s yet"
    return UserError(f"no {what} is called {name!r}{hint}")


def find_node(fleet: Fleet, name: str) -> Node:
    """Return a node; raises `UserError`."""
    found = next((node for node in fleet.nodes.values() if node.name == name), None)
    if found is None:
        raise unknown("node", name, fleet.nodes)
    return found


def find_cluster(clusters: Iterable[Cluster], name: str) -> Cluster:
    """Return a cluster of the configuration; raises `UserError`."""
    known = {str(cluster.name): cluster for cluster in clusters}
    if name not in known:
        raise unknown("cluster", name, known)
    return known[name]


def find_job(ledger: Ledger, name: str) -> Job:
    """Return a job, also one that is over; raises `UserError`."""
    known = {str(job.name): job for job in ledger.jobs()}
    if name in known:
        return known[name]
    if (number := waiting(ledger, name)) is not None:
        raise UserError(f"{name} is submitted (order {number}) and waits for a controller to run")
    raise unknown("job", name, known)


def waiting(ledger: Ledger, job: str) -> int | None:
    """Return the number of the order that submits a job and was not answered yet."""
    from orchestrator.core.observations import OrderKind

    mine = [
        one for one in ledger.orders_open() if (one.kind, one.subject) == (OrderKind.SUBMIT, job)
    ]
    return mine[0].number if mine else None
