"""`holdfast accept`: burn in what a provider has delivered, and say whether it is fit for work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.ask import by_option, controller_alive, place_order, tell_answer, yes_option
from orchestrator.cli.ask import confirm as ask_first
from orchestrator.cli.find import find_cluster, unknown
from orchestrator.cli.output import output_option, plain, say, show_data, show_rows
from orchestrator.cli.session import Session
from orchestrator.errors import UserError

if TYPE_CHECKING:
    from orchestrator.core.acceptance import Acceptance
    from orchestrator.core.nodes import Node, NodeState
    from orchestrator.core.rails import Rail

NOT_PASSED = 3  #: exit code
REASON = "acceptance"
COLUMNS = {"NODE": "node", "STANDING": "standing", "COVERAGE": "coverage", "WHY": "why"}


@click.command()
@click.argument("cohort", metavar="COHORT")
@click.option(
    "--expected",
    type=click.Path(dir_okay=False, path_type=Path),
    help="What to expect of a node (JSON), as `python -m healthchecks learn` prints it.",
)
@click.option(
    "--report", type=click.Path(path_type=Path), help="Write the report here (.md or .html)."
)
@click.option("--soak", default=600.0, show_default=True, help="Seconds under load.")
@click.option("--limit", default=3600.0, show_default=True, help="Seconds for everything.")
@click.option("--pair-bytes", default=64 << 20, show_default=True, help="Of one test of a link.")
@click.option("--pair-limit", default=20.0, show_default=True, help="Seconds of one such test.")
@click.option("--leaf", multiple=True, metavar="NAME=NODE,NODE", help="Nodes of a leaf switch.")
@click.option(
    "--rail",
    multiple=True,
    metavar="CARD[=GPU]",
    help="A rail of every node, tested by itself: mlx5_3=3, or an interface.",
)
@yes_option
@by_option
@output_option
@click.pass_context
def accept(context: click.Context, /, cohort: str, output: str, **wish: Any) -> None:
    """Burn in the nodes of COHORT (CLUSTER, or CLUSTER/BATCH) and judge them.

    Looks, measures, loads, compares nodes with each other and tests the links between them. Only
    idle nodes; they are cordoned meanwhile. A node is accepted if all was looked at and nothing
    speaks against it: it goes on to its trial. One that is rejected is put into quarantine; one
    that was not looked at in full, or that somebody can put right, stays cordoned.
    """
    from datetime import UTC, datetime

    session = context.ensure_object(Session)
    nodes = _idle(session, cohort)
    names = ", ".join(node.name for node in nodes)
    minutes = wish["limit"] / 60
    question = f"Make {len(nodes)} nodes work for up to {minutes:.0f} minutes ({names})?"
    ask_first(question, yes=wish["yes"])
    by = wish["by"]
    ours = _cordon(session, nodes, by)
    found = _examine(session, nodes, wish)
    if wish["report"] is not None:
        _write(wish["report"], found, cohort, datetime.now(UTC))
    if ours:
        _settle(session, found, by)
    _show(found, output)
    if not found.passed:
        context.exit(NOT_PASSED)


def _idle(session: Session, cohort: str) -> list[Node]:
    from orchestrator.core.nodes import NodeState

    cluster, _, batch = cohort.partition("/")
    find_cluster(session.clusters, cluster)
    fleet = session.fleet()
    here = [
        one
        for one in fleet.nodes.values()
        if one.cluster == cluster and one.state is not NodeState.RETIRED
    ]
    nodes = [one for one in here if batch in ("", one.cohort)]
    if not nodes:
        raise unknown("cohort", cohort, sorted({f"{one.cluster}/{one.cohort}" for one in here}))
    others = [one.name for one in nodes if one.cordon is not None and one.cordon.personal]
    if others:
        say(f"cordoned already, and will be left so if it was not you: {', '.join(others)}")
    busy = [f"{one.name} is {one.state}" for one in nodes if one.state not in _restful()]
    if busy:
        raise UserError(f"acceptance makes nodes work, and some are needed: {', '.join(busy)}")
    return sorted(nodes, key=lambda one: one.name)


def _cordon(session: Session, nodes: list[Node], by: str) -> bool:
    """Keep ranks off the nodes; False if no controller runs that could put any there."""
    from orchestrator.core.observations import OrderKind

    if not controller_alive(session):
        say("no controller runs: nothing is cordoned, and nothing is moved afterwards")
        return False
    numbers = [
        place_order(session, OrderKind.CORDON, node.name, (by, REASON), {}) for node in nodes
    ]
    answered = [tell_answer(session, number) for number in numbers]
    if not all(answered):
        raise UserError("the nodes could not be cordoned in time; nothing was examined")
    _idle_still(session, nodes)
    return True


def _restful() -> frozenset[NodeState]:
    """Return the states in which a node works for nobody and is not being repaired."""
    from orchestrator.core.nodes import NodeState

    idle = (NodeState.BURN_IN, NodeState.PROBATION, NodeState.SPARE, NodeState.QUARANTINED)
    return frozenset(idle)


def _idle_still(session: Session, nodes: list[Node]) -> None:
    """Refuse nodes that were seated, or taken to repair, while the cordon was on its way."""
    fleet = session.fleet()
    now = {one.name: fleet.nodes[one.name].state for one in nodes}
    busy = [f"{name} is {state}" for name, state in now.items() if state not in _restful()]
    if busy:
        raise UserError(f"no longer idle: {', '.join(busy)}; nothing was examined")


def _examine(session: Session, nodes: list[Node], wish: dict[str, Any]) -> Acceptance:
    from healthchecks import runner
    from orchestrator.core.acceptance import Plan, judge
    from orchestrator.daemon.sites import build_site
    from orchestrator.observers.examine import Examination, Wish

    settings = session.settings
    cluster = next(one for one in settings.clusters if one.name == nodes[0].cluster)
    gpus = settings.health.expect_gpus
    passive = frozenset(n for n, where in runner.CHECKS.items() if not where.startswith("active."))
    plan = Plan(
        passive=passive,
        accelerators=cluster.accelerators if gpus is None else gpus,
        expected=_expected(wish["expected"]),
    )
    names = [str(one.name) for one in nodes]
    asked = Wish(
        soak=wish["soak"],
        limit=wish["limit"],
        pair_bytes=wish["pair_bytes"],
        pair_limit=wish["pair_limit"],
        leaves=_leaves(wish["leaf"], names),
        rails=tuple(map(_rail, wish["rail"])),
    )
    examination = Examination(build_site(settings, cluster), plan, asked, say)
    links, why = examination.examine(names)
    return judge(plan, examination.runs, links, why)


def _expected(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        body = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"--expected {path}: {error}") from error
    if not isinstance(body, dict):
        raise UserError(f"--expected {path}: not an object of names and values")
    return body


def _rail(given: str) -> Rail:
    from healthchecks.pair_rates import RAIL
    from orchestrator.core.rails import Rail

    name, _, gpu = given.partition("=")
    if not RAIL.fullmatch(name) or (gpu and not gpu.isdecimal()):
        raise UserError(f"--rail {given}: give CARD=GPU (mlx5_3=3), or the name of an interface")
    return Rail(name, int(gpu) if gpu else None)


def _leaves(given: tuple[str, ...], names: list[str]) -> dict[str, frozenset[str]]:
    leaves = {}
    for one in given:
        leaf, _, of = one.partition("=")
        nodes = frozenset(of.split(",")) if of else frozenset()
        if not leaf or not nodes or not nodes <= set(names):
            raise UserError(f"--leaf {one}: give NAME=NODE,NODE with nodes of this cohort")
        leaves[leaf] = nodes
    return leaves


def _settle(session: Session, found: Acceptance, by: str) -> None:
    """Ask for what follows: accepted nodes go on to their trial, rejected ones into quarantine."""
    from orchestrator.core.acceptance import Standing
    from orchestrator.core.observations import OrderKind

    for one in found.nodes:
        if one.standing is Standing.ACCEPTED:
            node = session.fleet().nodes[one.node]  # type: ignore[index]
            held = node.state.value == "quarantined"
            kind = OrderKind.RELEASE if held else OrderKind.UNCORDON
            say(f"{one.node}: accepted")
            tell_answer(session, place_order(session, kind, one.node, (by, REASON), {}))
        elif one.standing is Standing.REJECTED:
            why = f"{REASON}: {one.faults[0].detector} on {one.faults[0].component}"
            say(f"{one.node}: rejected")
            number = place_order(session, OrderKind.QUARANTINE, one.node, (by, why), {})
            tell_answer(session, number)
        else:
            say(f"{one.node}: {one.standing.value}, stays cordoned")


def _write(path: Path, found: Acceptance, cohort: str, at: Any) -> None:
    from orchestrator.cli.acceptance_report import markdown, page

    text = page if path.suffix in (".html", ".htm") else markdown
    try:
        path.write_text(text(found, cohort, at))
    except OSError as error:
        raise UserError(f"--report {path}: {error.strerror}") from error
    say(f"report: {path}")


def _show(found: Acceptance, output: str) -> None:
    from orchestrator.cli.acceptance_report import share, why

    if output != "table":
        show_data({"passed": found.passed, **plain(found)}, output)
        return
    rows = [
        {
            "node": one.node,
            "standing": one.standing.value,
            "coverage": share(one),
            "why": why(one),
        }
        for one in found.nodes
    ]
    show_rows(rows, COLUMNS, output)
    say("passed" if found.passed else "not passed")
