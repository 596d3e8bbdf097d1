"""`holdfast cluster`: nodes that share one fabric and one provider."""

from __future__ import annotations

import click

from orchestrator.cli.ask import by_option, place_order, reason_option, tell_answer, yes_option
from orchestrator.cli.find import find_cluster
from orchestrator.cli.output import output_option, show_data, show_one, show_rows
from orchestrator.cli.session import Session


@click.group()
def cluster() -> None:
    """See clusters, and prepare their nodes."""


@cluster.command("list")
@output_option
@click.pass_obj
def list_clusters(session: Session, output: str) -> None:
    """List every cluster of the configuration."""
    from orchestrator.cli.views import CLUSTER_COLUMNS, cluster_row

    fleet = session.fleet()
    rows = [cluster_row(one, fleet) for one in session.clusters]
    show_rows(rows, CLUSTER_COLUMNS, output)


@cluster.command()
@click.argument("name", metavar="CLUSTER")
@click.option("--cohort", default="", help="Only this hand-over batch of it.")
@click.option(
    "--failures",
    type=click.IntRange(min=1),
    help='Tell a count instead of a change: that many failures or more ("20+").',
)
@click.option(
    "--weeks",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="In which they were counted, on the machines that run now.",
)
@reason_option
@by_option
@click.pass_obj
def announce(  # noqa: PLR0913 - one parameter per option
    session: Session,
    /,
    name: str,
    cohort: str,
    failures: int | None,
    weeks: float,
    reason: str,
    by: str,
) -> None:
    """Tell of work on drivers or fabric, or of past failures, so that phases know of it."""
    from orchestrator.core.observations import OrderKind

    found = find_cluster(session.clusters, name).name
    subject = f"{found}/{cohort}" if cohort else found
    body = {} if failures is None else {"at_least": failures, "weeks": weeks}
    number = place_order(session, OrderKind.ANNOUNCE, subject, (by, reason), body)
    tell_answer(session, number)


@cluster.command()
@click.argument("name", metavar="CLUSTER")
@output_option
@click.pass_obj
def show(session: Session, name: str, output: str) -> None:
    """Show one cluster and its nodes."""
    from orchestrator.cli.phases import COHORT_COLUMNS, cohort_row, outlooks, phase_cells
    from orchestrator.cli.views import NODE_COLUMNS, cluster_row, node_row

    fleet = session.fleet()
    found = find_cluster(session.clusters, name)
    known = outlooks(fleet)
    mine = [node for node in fleet.nodes.values() if node.cluster == name]
    nodes = [{**node_row(node, fleet), **phase_cells(node, known)} for node in mine]
    cohorts = [cohort_row(one) for one in known.values() if one.cluster == name]
    row = {**cluster_row(found, fleet), "can": sorted(found.can)}
    if output != "table":
        show_data({**row, "cohorts": cohorts, "nodes": nodes}, output)
        return
    show_one(row, output)
    click.echo()
    if cohorts:
        show_rows(cohorts, COHORT_COLUMNS, output)
        click.echo()
    show_rows(nodes, NODE_COLUMNS, output)


@cluster.command()
@click.argument("name", metavar="CLUSTER")
@click.option("--all", "all_", is_flag=True, help="Also what is in order.")
@output_option
@click.pass_obj
def doctor(session: Session, name: str, output: str, *, all_: bool) -> None:
    """Look whether every node has what Holdfast needs; changes nothing. Exits with 1 if not."""
    from orchestrator.cli.upkeep import examine

    examine(session, find_cluster(session.clusters, name).name, output, all_=all_)


@cluster.command()
@click.argument("name", metavar="CLUSTER")
@click.option(
    "--limit",
    default=600,
    show_default=True,
    help="Seconds to wait for nodes in a queue.",
)
@click.pass_obj
def up(session: Session, name: str, limit: int) -> None:
    """Put what Holdfast needs on every node, and take the nodes of a scheduler.

    May be repeated: only what is missing is done. A node that is not ready is named, with the
    reason, and the exit code is 1.
    """
    from orchestrator.cli.upkeep import prepare

    prepare(session, find_cluster(session.clusters, name).name, limit)


@cluster.command()
@click.argument("name", metavar="CLUSTER")
@yes_option
@click.pass_obj
def down(session: Session, name: str, *, yes: bool) -> None:
    """Remove our programs from every node, and give the nodes of a scheduler back.

    What ranks wrote stays. Refused while an attempt is open there.
    """
    from orchestrator.cli.upkeep import release

    release(session, find_cluster(session.clusters, name).name, yes=yes)
