"""`holdfast cluster`: nodes that share one fabric and one provider."""

from __future__ import annotations

import click

from orchestrator.cli.find import find_cluster
from orchestrator.cli.output import output_option, show_data, show_one, show_rows
from orchestrator.cli.session import Session


@click.group()
def cluster() -> None:
    """See clusters."""


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
