"""`holdfast simulate`: what the deciding part would do, on fleets that do not exist."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.output import output_option, say, show_data, show_rows
from orchestrator.errors import UserError

if TYPE_CHECKING:
    from orchestrator.core.policies import Policy
    from orchestrator.simulation.engine import Simulation

File = click.Path(path_type=Path, dir_okay=False)
DAYS_MAX = 3_660.0
ROW_COLUMNS = {
    "ROW": "row",
    "NODES": "nodes",
    "FAILURES/WK": "failures_per_week",
    "ETTR": "ettr",
    "NO WAIT": "ettr_no_wait",
    "BASELINE": "ettr_baseline",
    "INTERVAL MIN": "interval_min",
    "SPARES": "spares",
    "P(CHAOTIC)": "phase_p",
    "EVICTIONS": "evictions",
    "FALSE": "false_evictions",
}
JOB_COLUMNS = {
    "JOB": "job",
    "ETTR": "ettr",
    "NO WAIT": "ettr_no_wait",
    "STOPS": "stops",
    "LOST S": "lost_s",
    "INTERVAL MIN": "interval_min",
    "SPARES": "spares_wanted",
    "P(CHAOTIC)": "phase_p",
}


@click.command()
@click.option("--fleet", type=File, help="A simulated fleet: clusters, jobs, failure rates.")
@click.option(
    "--preset", type=click.Choice(["table4"]), help="A world that is known: Table 4 of the source."
)
@click.option(
    "--trace", "trace_file", type=File, help="Failures that happened: start_at,end_at,node,cause."
)
@click.option("--nodes", type=click.IntRange(1, 20_000), help="With --trace: size of the fleet.")
@click.option("--policy", "policy_file", type=File, help="A file with a `policy:` part.")
@click.option("--seed", default=1, show_default=True, help="Of all chance.")
@click.option(
    "--days",
    type=click.FloatRange(0, DAYS_MAX, min_open=True),
    help="How long.  [default: the file's, the trace's, or 364]",
)
@click.option("--explain", is_flag=True, help="Tell the story of the costliest incident.")
@output_option
def simulate(  # noqa: PLR0913 - one parameter for each option
    fleet: Path | None,
    preset: str | None,
    trace_file: Path | None,
    nodes: int | None,
    policy_file: Path | None,
    seed: int,
    days: float | None,
    explain: bool,
    output: str,
) -> None:
    """Run the daemon's own loop, ledger and rules over a simulated fleet.

    Name one of --fleet, --preset and --trace. Nothing is touched and nobody is told anything.
    """
    given = [one for one in (fleet, preset, trace_file) if one is not None]
    if len(given) != 1:
        raise click.UsageError("name one of --fleet FILE, --preset NAME and --trace FILE")
    if (nodes is None) != (trace_file is None):
        raise click.UsageError("--nodes goes with --trace: how many nodes the fleet has")
    if explain and preset is not None:
        raise click.UsageError("--explain goes with --fleet and --trace")
    policy = _policy(policy_file)
    if preset is not None:
        _table4(policy, seed, 364.0 if days is None else days, output)
    elif trace_file is not None and nodes is not None:
        _trace(trace_file, nodes, policy, seed, days, explain=explain, output=output)
    elif fleet is not None:
        _fleet(fleet, policy, seed, days, explain=explain, output=output)


def _policy(file: Path | None) -> Policy:
    from orchestrator.config.simulation import load_policy
    from orchestrator.core.policies import Policy

    return Policy() if file is None else load_policy(file)


def _table4(policy: Policy, seed: int, days: float, output: str) -> None:
    from orchestrator.simulation.scenes import table4

    with _bar("rows of Table 4") as bar:
        rows = 0.0

        def row_done(name: str, share: float) -> None:
            nonlocal rows
            rows += share
            bar(rows / 9.0)

        found = table4(policy, seed, days, row_done)
    if output == "table":
        show_rows(found["rows"], ROW_COLUMNS, output)
    else:
        show_data(found, output)


def _trace(  # noqa: PLR0913 - what the options say
    file: Path,
    nodes: int,
    policy: Policy,
    seed: int,
    days: float | None,
    *,
    explain: bool,
    output: str,
) -> None:
    from orchestrator.simulation.scenes import trace
    from orchestrator.simulation.trace import load_trace

    found = load_trace(file)
    with _bar(f"{len(found.outages)} failures") as bar:
        answer, sim = trace(found, nodes, policy, seed, days, bar)
    for line in answer["assumed"]:
        say(f"assumed: {line}")
    _show(answer, sim, explain=explain, output=output)


def _fleet(
    file: Path, policy: Policy, seed: int, days: float | None, *, explain: bool, output: str
) -> None:
    from orchestrator.config.simulation import load_fleet
    from orchestrator.simulation.fleets import plan_of
    from orchestrator.simulation.report import world_report
    from orchestrator.simulation.scenes import play

    plan = plan_of(load_fleet(file), days)
    with _bar(f"{plan.days:g} days") as bar:
        sim = play(plan, policy, seed, bar)
    answer = world_report(sim)
    if output == "table":
        show_rows(answer["jobs"], JOB_COLUMNS, output)
        say(
            f"{answer['failures']} failures, {answer['evictions']} evictions "
            f"({answer['false_evictions']} wrong), {answer['healthy_jobs_killed']} healthy jobs "
            "killed"
        )
        _tell(sim, explain=explain)
        return
    _show(answer, sim, explain=explain, output=output)


def _show(answer: dict[str, Any], sim: Simulation, *, explain: bool, output: str) -> None:
    if output == "table":
        plain = {key: value for key, value in answer.items() if not isinstance(value, list)}
        show_rows([plain], {key.upper(): key for key in plain}, output)
        _tell(sim, explain=explain)
        return
    if explain:
        from orchestrator.simulation.story import costliest

        answer = {**answer, "story": costliest(sim)}
    show_data(answer, output)


def _tell(sim: Simulation, *, explain: bool) -> None:
    if not explain:
        return
    from orchestrator.simulation.story import costliest

    lines = costliest(sim)
    if not lines:
        raise UserError("nothing happened that could be told")
    for line in lines:
        click.echo(line)


@contextmanager
def _bar(what: str) -> Iterator[Callable[[float], None]]:
    """Show progress on a terminal; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield lambda share: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=1.0)
        yield lambda share: progress.update(task, completed=share)
