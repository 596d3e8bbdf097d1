"""`holdfast runbook`: what a person does about each kind of incident."""

from __future__ import annotations

from dataclasses import asdict

import click

from orchestrator.cli.output import console, output_option, show_data, show_rows

COLUMNS = {"RUNBOOK": "page", "URGENCY": "urgency", "TITLE": "title", "SUMMARY": "summary"}


@click.group()
def runbook() -> None:
    """Read what to do when something goes wrong."""


@runbook.command("list")
@output_option
def list_runbooks(output: str) -> None:
    """List every runbook."""
    from orchestrator.cli.runbook_files import load_all

    rows = [{key: getattr(one, key) for key in COLUMNS.values()} for one in load_all()]
    show_rows(rows, COLUMNS, output)


@runbook.command()
@click.argument("name")
@output_option
def show(name: str, output: str) -> None:
    """Show one runbook, as an alert names it."""
    from orchestrator.cli.runbook_files import load

    found = load(name)
    if output != "table":
        show_data(asdict(found), output)
        return
    out = console()
    if not out.is_terminal:
        click.echo(found.body, nl=False)
        return
    from rich.markdown import Markdown

    out.print(Markdown(found.body))
