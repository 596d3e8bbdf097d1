"""`holdfast config`: check the configuration, print the schemas that editors use."""

from __future__ import annotations

from typing import Any

import click

from orchestrator.cli.output import output_option, show_data, show_one
from orchestrator.cli.session import Session


@click.group()
def config() -> None:
    """Check the configuration, or print its schema."""


@config.command()
@output_option
@click.pass_obj
def check(session: Session, output: str) -> None:
    """Read holdfast.yaml and say what it means; every mistake is told with its line."""
    settings = session.settings
    row: dict[str, Any] = {
        "config": session.config,
        "state": settings.state,
        "ledger": settings.ledger_shown,
        "clusters": [f"{one.name} ({len(one.node_names)} nodes)" for one in settings.clusters],
        "alerts": "slack" if settings.alerts.slack else "log",
    }
    show_one(row, output)


@config.command()
@click.option("--job", is_flag=True, help="The schema of job files, not of holdfast.yaml.")
def schema(*, job: bool) -> None:
    """Print the JSON schema of holdfast.yaml, or of job files."""
    from orchestrator.config import JobFile, Settings

    model = JobFile if job else Settings
    body = model.model_json_schema(by_alias=True)
    draft = "https://json-schema.org/draft/2020-12/schema"
    show_data({"$schema": draft, **body}, "json")
