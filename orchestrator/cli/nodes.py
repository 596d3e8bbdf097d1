"""`holdfast node`: see nodes, and ask for them to be spared, emptied, isolated or trusted again."""

from __future__ import annotations

from typing import Any

import click

from orchestrator.cli.ask import by_option, confirm, order, reason_option, yes_option
from orchestrator.cli.find import find_cluster, find_node
from orchestrator.cli.output import output_option, plain, say, show_one, show_rows
from orchestrator.cli.session import Session


@click.group()
def node() -> None:
    """See nodes, and say which may be used."""


@node.command("list")
@click.option("--cluster", help="Only of this cluster.")
@click.option("--state", help="Only in this state, such as quarantined.")
@output_option
@click.pass_obj
def list_nodes(session: Session, cluster: str | None, state: str | None, output: str) -> None:
    """List every node, with the reason of its state."""
    from orchestrator.cli.phases import outlooks, phase_cells
    from orchestrator.cli.views import NODE_COLUMNS, node_row

    if cluster is not None:
        find_cluster(session.clusters, cluster)
    fleet = session.fleet()
    nodes = [
        one
        for one in fleet.nodes.values()
        if cluster in (None, one.cluster) and state in (None, one.state)
    ]
    nodes.sort(key=lambda one: (one.cluster, one.name))
    known = outlooks(fleet)
    rows = [{**node_row(one, fleet), **phase_cells(one, known)} for one in nodes]
    if not fleet.nodes:
        say("There are no nodes yet: `holdfast daemon run` takes them into the fleet.")
    show_rows(rows, NODE_COLUMNS, output)


@node.command()
@click.argument("name", metavar="NODE")
@output_option
@click.pass_obj
def show(session: Session, name: str, output: str) -> None:
    """Show one node: its machine, state, cordon, findings and agents."""
    from orchestrator.cli.phases import outlooks, phase_cells
    from orchestrator.cli.views import bad_findings, node_reason, node_row, told

    fleet = session.fleet()
    found = find_node(fleet, name)
    belief = fleet.beliefs.nodes.get(found.name)
    row: dict[str, Any] = {
        **node_row(found, fleet),
        "machine": found.machine.id,
        "serials": found.machine.serials,
        "cohort": found.cohort,
        **phase_cells(found, outlooks(fleet)),
        "incarnation": found.incarnation,
        "boot_id": belief.boot_id if belief else None,
        "probed_at": belief.probed_at if belief else None,
        "agents": [f"{one.job}/{one.attempt}" for one in belief.agents if one.gone_at is None]
        if belief
        else [],
        "findings": [told(one) for one in bad_findings(found, fleet)],
        "reason": node_reason(found, fleet.now),
    }
    if output != "table":
        row["findings"] = plain(belief.findings if belief else ())
    show_one(row, output)
    say(f"Its story: holdfast why {name}")


def _ask(session: Session, verb: str, name: str, *, by: str, reason: str) -> None:
    from orchestrator.core.observations import OrderKind

    find_node(session.fleet(), name)
    order(session, OrderKind(verb), name, by=by, reason=reason)


@node.command()
@click.argument("name", metavar="NODE")
@reason_option
@by_option
@click.pass_obj
def cordon(session: Session, name: str, reason: str, by: str) -> None:
    """Let a node take no new ranks; what runs there goes on."""
    _ask(session, "cordon", name, by=by, reason=reason)


@node.command()
@click.argument("name", metavar="NODE")
@reason_option
@by_option
@click.pass_obj
def uncordon(session: Session, name: str, reason: str, by: str) -> None:
    """Lift your cordon; only its owner may."""
    _ask(session, "uncordon", name, by=by, reason=reason)


@node.command()
@click.argument("name", metavar="NODE")
@yes_option
@reason_option
@by_option
@click.pass_obj
def drain(session: Session, name: str, reason: str, by: str, *, yes: bool) -> None:
    """Let a node's ranks go as soon as the gang can do without them."""
    find_node(session.fleet(), name)
    confirm(f"Drain {name}? Its ranks move to another node.", yes=yes)
    _ask(session, "drain", name, by=by, reason=reason)


@node.command()
@click.argument("name", metavar="NODE")
@yes_option
@reason_option
@by_option
@click.pass_obj
def quarantine(session: Session, name: str, reason: str, by: str, *, yes: bool) -> None:
    """Keep every job off a node, at once, until it is released."""
    find_node(session.fleet(), name)
    confirm(f"Quarantine {name}? Its ranks end now and start again elsewhere.", yes=yes)
    _ask(session, "quarantine", name, by=by, reason=reason)


@node.command()
@click.argument("name", metavar="NODE")
@reason_option
@by_option
@click.pass_obj
def release(session: Session, name: str, reason: str, by: str) -> None:
    """Let a drained or quarantined node earn its trust again, in burn-in."""
    _ask(session, "release", name, by=by, reason=reason)
